"""The command line: the mailboxes in which it keeps messages."""

from __future__ import annotations

import contextlib
import mailbox
import os
import re
import signal
import smtplib
import subprocess
import sys

import pytest
from command_line import finish, run_command, running, send_message, send_octets


def test_maildir(tmp_path):
    sent = b"Subject: trees\r\n\r\nFrom here on.\r\n.\xff\r\n"
    with running("--count", "2", "--maildir", str(tmp_path)) as (process, port):
        send_octets(port, sent)
        send_octets(port, sent)
        assert finish(process)[0] == 0
    files = list((tmp_path / "new").iterdir())
    assert [file.read_bytes() for file in files] == 2 * [
        b"Return-Path: <kim@example.com>\nDelivered-To: lee@example.com\n"
        b"Delivered-To: max@example.com\n" + sent.replace(b"\r\n", b"\n")
    ]
    assert len(mailbox.Maildir(tmp_path)) == 2


def test_mbox_grows(tmp_path):
    path = tmp_path / "mbox"
    sent = b"Subject: trees\r\n\r\nFrom here on.\r\n\xff"
    for count in 1, 2:
        with running("--count", "1", "--mbox", str(path)) as (process, port):
            send_octets(port, sent)
            status, _, err = finish(process)
            assert (status, err) == (0, "")
        with contextlib.closing(mailbox.mbox(path)) as box:
            assert len(box) == count
            for message in box:
                assert message.get_from().startswith("kim@example.com ")
                assert message.get_payload(decode=True) == b">From here on.\n\xff\n"
                assert message.get_all("Delivered-To") == ["lee@example.com", "max@example.com"]


def test_mail_that_begins_as_an_mbox_file_does_keeps_its_header(tmp_path):
    path = tmp_path / "mbox"
    sent = b"From kim@example.com Thu Feb 29 12:00:00 2024\r\nSubject: trees\r\n\r\nOaks.\r\n"
    with running("--count", "1", "--mbox", str(path)) as (process, port):
        send_octets(port, sent)
        assert finish(process)[0] == 0
    with contextlib.closing(mailbox.mbox(path)) as box:
        (message,) = box
        assert message["Subject"] == "trees"
        assert message["X-From-Line"] == "kim@example.com Thu Feb 29 12:00:00 2024"
        assert message.get_payload() == "Oaks.\n"


def test_the_null_reverse_path_in_an_mbox(tmp_path):
    path = tmp_path / "mbox"
    with running("--count", "1", "--mbox", str(path)) as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.sendmail("", ["lee@example.com"], b"Subject: bounce")
        assert finish(process)[0] == 0
    lines = path.read_text().splitlines()
    assert re.fullmatch(r"From MAILER-DAEMON \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", lines[0])
    assert lines[1] == "Return-Path: <>"


@pytest.mark.parametrize(
    ("option", "name"), [("--maildir", "file"), ("--mbox", "."), ("--mbox", "no/such")]
)
def test_a_mailbox_that_cannot_be(tmp_path, option, name):
    (tmp_path / "file").write_text("")
    status, out, err = run_command("--port", "0", option, str(tmp_path / name))
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno ")
    assert str(tmp_path) in err
    assert err.count("\n") == 1


def test_an_mbox_that_somebody_has_locked(tmp_path):
    path = tmp_path / "mbox"
    with (
        contextlib.closing(mailbox.mbox(path)) as box,
        running("--mbox", str(path)) as (process, port),
    ):
        box.lock()
        send_message(port)
        status, _, err = finish(process)
        box.unlock()
    assert (status, err) == (1, f"lazr-smtptest: lockf: lock unavailable: {path}\n")


def test_an_mbox_that_somebody_has_locked_for_a_while(tmp_path):
    path = tmp_path / "mbox"
    with (
        contextlib.closing(mailbox.mbox(path)) as box,
        running("--mbox", str(path), "--count", "1") as (process, port),
    ):
        box.lock()
        try:
            send_message(port)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        finally:
            box.unlock()
        assert finish(process)[::2] == (0, "")
        assert b"Subject: hello\n" in path.read_bytes()


def test_what_was_accepted_is_kept_though_it_was_told_to_end(tmp_path):
    """Whatever it is doing when the signal comes."""
    with running("--quiet", "--maildir", str(tmp_path)) as (process, port):
        send_message(port, *map(str, range(200)))
        process.terminate()
        assert finish(process) == (0, "", "")
    found = sorted(int(message["subject"]) for message in mailbox.Maildir(tmp_path))
    assert found == list(range(200))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.skipif(sys.platform == "darwin", reason="the server process is spawned there")
def test_what_was_accepted_is_kept_though_the_whole_group_is_told_to_end(tmp_path, number):
    """It lies in the server process still, since the pipe is full."""
    with running("--quiet", "--maildir", str(tmp_path)) as (process, port):
        process.send_signal(signal.SIGSTOP)
        for _ in range(5):
            send_octets(port, b"Subject: much\r\n\r\n" + 20_000 * b"a line of text\r\n")
        os.killpg(process.pid, number)
        process.send_signal(signal.SIGCONT)
        assert finish(process) == (0, "", "")
    assert len(list((tmp_path / "new").iterdir())) == 5
