"""The command line, as a process: by hand, in a shell script, on a terminal."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import mailbox
import os
import pty
import re
import select
import shutil
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import refused, send, until
from paths import DOCS, EXAMPLES
from programs import missing
from scripts import run_python

import lazr_smtptest
import lazr_smtptest.__main__

COMMAND = [sys.executable, "-W", "error", "-m", "lazr_smtptest"]
SCRIPT = EXAMPLES / "mail_sink.sh"

#: Without what may be set where the tests run.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE")
}

ESCAPE = "\x1b"


@contextmanager
def running(
    *arguments: str, announced: str = "stdout", **options: Any
) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run it on a free port until the test is done with it."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal to its group is not for us
        **{"env": ENVIRONMENT, "preexec_fn": _hear_sighup, **options},
    )
    try:
        first = getattr(process, announced).readline()
        port = re.fullmatch(r"listening on \S+ port (\d+)\n", first)[1]
        yield process, int(port)
    finally:
        process.kill()
        process.communicate(timeout=10)


def _hear_sighup() -> None:
    """These tests may themselves be run by nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for its end; give the exit status, and what it printed since."""
    out, err = process.communicate(timeout=15)
    return process.returncode, out, err


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        **{"env": ENVIRONMENT, **options},
    )
    return done.returncode, done.stdout, done.stderr


def send_message(port: int, *subjects: str) -> None:
    with smtplib.SMTP("localhost", port, timeout=10) as client:
        for subject in subjects or ["hello"]:
            send(client, subject)


def send_octets(port: int, octets: bytes) -> None:
    with smtplib.SMTP("localhost", port, timeout=10) as client:
        client.sendmail("kim@example.com", ["lee@example.com", "max@example.com"], octets)


def server_of(process: subprocess.Popen) -> int:
    """Give the process id of the server process."""
    if shutil.which("pgrep") is None:
        missing("the program pgrep is not installed")
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


# What it prints.


def test_count_ends_it_after_so_many_messages():
    with running("--count", "2") as (process, port):
        send_message(port, "one")
        send_message(port, "two")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == ["one", "two"]
        assert out.count("from <kim@example.com> to <lee@example.com>") == 2
        assert refused(port)


def test_a_message_is_printed_for_people():
    with running("--count", "1") as (process, port):
        send_octets(
            port,
            b"Subject: =?utf-8?q?B=C3=A4ume?=\r\nX-Order: 17,\r\n 18\r\nMIME-Version: 1.0\r\n"
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
            b"--b\r\n\r\nTwo\r\nlines.\r\n"
            b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
            b'Content-Disposition: attachment; filename="leaf.png"\r\n\r\nAAAA\r\n--b--\r\n',
        )
        assert finish(process) == (
            0,
            "------------------------------ message 1 -------------------------------\n"
            "from <kim@example.com> to <lee@example.com>, <max@example.com>\n"
            "in the clear\n"
            "\n"
            "Subject: Bäume\n"
            "X-Order: 17, 18\n"
            "MIME-Version: 1.0\n"
            'Content-Type: multipart/mixed; boundary="b"\n'
            "\n"
            "Two\n"
            "lines.\n"
            "attached: leaf.png (image/png, 3 octets)\n"
            "\n",
            "",
        )


def test_each_message_is_printed_as_it_arrives():
    with running() as (process, port):
        for subject in ("one", "two"):
            send_message(port, subject)
            while (line := process.stdout.readline()) != f"Subject: {subject}\n":
                assert line


def test_octets_that_are_no_text_are_printed_somehow():
    with running("--count", "1") as (process, port):
        send_octets(port, b"Subject: \xff\x00\r\n\r\n\x80")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "Subject: \ufffd\\x00\n\n\ufffd\n" in out


def test_what_the_encoding_lacks_is_escaped():
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with running("--count", "1", env=environment) as (process, port):
        send_octets(port, "Subject: Bäume\r\n\r\n".encode())
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert r"Subject: B\xe4ume" in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("Bäume 木 \U0001f333", "Bäume 木 \U0001f333"),
        ("12\xa0€", "12\xa0€"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("over\rwrite\b\x7f\x9b31m", r"over\rwrite\x08\x7f\x9b31m"),
        ("left\u202eright\u2066\u200b\ufeff", r"left\u202eright\u2066\u200b\ufeff"),
        ("\udc80\ud800", r"\udc80\ud800"),
    ],
)
def test_what_would_do_something_to_a_terminal_is_escaped(text, shown):
    assert lazr_smtptest._show.harmless(text) == shown


def test_json_is_an_object_a_line():
    raw = b"Subject: =?utf-8?q?B=C3=A4ume?=\r\n\r\nSee https://example.com/trees.\r\n"
    broken = b"Subject: \xff\x00\r\nContent-Type: nonsense; charset=nope\r\n\r\n\x80\r\n"
    with running("--count", "2", "--json", announced="stderr") as (process, port):
        send_octets(port, raw)
        send_octets(port, broken)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.isascii()
        first, second = map(json.loads, out.splitlines())
        assert first.pop("received_at").endswith("+00:00")
        assert first.pop("peer")[0] in ("127.0.0.1", "::1")
        assert first.pop("helo")
        assert first == {
            "sequence": 1,
            "tls": None,
            "auth_user": None,
            "mail_from": "kim@example.com",
            "rcpt_tos": ["lee@example.com", "max@example.com"],
            "subject": "Bäume",
            "headers": [["Subject", "Bäume"]],
            "text": "See https://example.com/trees.\n",
            "html": "",
            "links": ["https://example.com/trees"],
            "attachments": [],
            "raw": base64.b64encode(raw).decode(),
        }
        assert base64.b64decode(second["raw"]) == broken


def test_quiet_prints_nothing():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "--quiet", "--port", str(port), "--count", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        until(lambda: not refused(port))
        send_message(port)
        assert finish(process)[:2] == (0, "")


def test_quiet_tells_a_free_port_and_no_more():
    with running("--quiet", "--count", "1") as (process, port):
        send_message(port)
        assert finish(process) == (0, "", "")


def test_json_alone_is_on_standard_output_though_standard_error_is_closed():
    command = " ".join([*COMMAND, "--json --timeout 0.1 --port 0 2>&-"])
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_header_field_is_one_line():
    with running("--count", "1") as (process, port):
        send_octets(port, b"Subject: =?utf-8?q?one=0AX-Forged:_two?=\r\n\r\n")
        assert "Subject: one\\nX-Forged: two\n" in finish(process)[1]


# What it waits for.


def test_timeout_fails_if_no_client_came():
    with running("--count", "2", "--timeout", "0.2") as (process, port):
        assert finish(process) == (
            1,
            "",
            f"lazr-smtptest: 0 of 2 messages came to localhost port {port} within 0.2 seconds\n"
            "No client has connected: see which host and port it was told to use.\n",
        )
        assert refused(port)


def test_timeout_reports_what_clients_did():
    with running("--count", "2", "--timeout", "1", "--quiet", "--fault", "EOM=552 5.2.2 Full") as (
        process,
        port,
    ):
        with pytest.raises(smtplib.SMTPDataError):
            send_message(port)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        first, *session = err.splitlines()
        assert (
            first
            == f"lazr-smtptest: 0 of 2 messages came to localhost port {port} within 1 seconds"
        )
        assert re.fullmatch(r"- \S+ port \d+, which calls itself '.+': QUIT", session[0])
        assert sum(line.endswith(" S 552 5.2.2 Full") for line in session) == 1


def test_timeout_without_count_is_for_the_whole_run():
    with running("--timeout", "1.5") as (process, port):
        send_message(port, "one")
        status, out, err = finish(process)
        assert (status, out.count("Subject: one\n")) == (1, 1)
        assert f"1 messages came to localhost port {port} within 1.5 seconds\n" in err


def test_count_in_time_is_no_failure():
    with running("--count", "1", "--timeout", "60") as (process, port):
        send_message(port)
        status, out, err = finish(process)
        assert (status, out.count("Subject: hello\n"), err) == (0, 1, "")


def test_more_than_the_count_are_printed_if_they_were_accepted():
    with running("--count", "1") as (process, port):
        process.send_signal(signal.SIGSTOP)  # it takes none until all are there
        send_message(port, *map(str, range(20)))
        process.send_signal(signal.SIGCONT)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == list(map(str, range(20)))


# Where it keeps messages.


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
    status, out, err = run("--port", "0", option, str(tmp_path / name))
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno ")
    assert str(tmp_path) in err
    assert err.count("\n") == 1


def test_an_mbox_that_somebody_has_locked(tmp_path):
    path = tmp_path / "mbox"
    with (
        contextlib.closing(mailbox.mbox(path)) as box,
        running("--mbox", str(path)) as (
            process,
            port,
        ),
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


# How it ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_ends_it_cleanly(number, whole_group):
    with running() as (process, port):
        (os.killpg if whole_group else os.kill)(process.pid, number)
        assert finish(process) == (0, "", "")
        assert refused(port)


def test_nohup():
    """What is ignored from the start stays ignored."""
    with running("--count", "1", preexec_fn=_ignore_sighup) as (process, port):
        process.send_signal(signal.SIGHUP)
        send_message(port)
        assert finish(process)[::2] == (0, "")


def _ignore_sighup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("arguments", [[], ["--timeout", "1"]])
def test_a_reader_that_does_not_read(arguments):
    """The pipe is full, and still it ends."""
    impatient = (
        "import sys; from lazr_smtptest import __main__, _sink; _sink._PATIENCE = 0.5;"
        "sys.exit(__main__.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", impatient, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        port = int(process.stdout.readline().split()[-1])
        send_octets(port, b"Subject: much\r\n\r\n" + 20_000 * b"a line of text\r\n")
        if not arguments:
            process.terminate()
        try:
            assert process.wait(10) == 1
        finally:
            process.kill()
        assert process.stderr.read() == (
            "lazr-smtptest: nobody has read what was printed for 0.5 seconds\n"
        )


def test_a_signal_before_all_have_come_is_a_failure():
    with running("--count", "2") as (process, port):
        send_message(port)
        while process.stdout.readline() != "Hello.\n":
            pass
        process.send_signal(signal.SIGINT)
        status, _, err = finish(process)
    assert status == 1
    assert (
        err == f"lazr-smtptest: interrupted when 1 of 2 messages came to localhost port {port}\n"
    )


ARMED = """
import os, signal, sys, threading
import lazr_smtptest.__main__
from lazr_smtptest._sink import Sink

class Armed(Sink):
    def run(self, *arguments):
        with self._until_signalled():  # the handlers are there from here on
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()
            return super().run(*arguments)
        return True  # it struck between these two lines

lazr_smtptest.__main__.Sink = Armed
sys.exit(lazr_smtptest.__main__.main(["--quiet", "--port", "{port}", "--timeout", "10"]))
"""


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_a_signal_while_it_starts(delay):
    """Wherever it strikes, there is no traceback and no server left."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", ARMED.format(delay=delay, port=port)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert refused(port)


def test_a_server_that_dies():
    with running("--count", "1", "--timeout", "10") as (process, port):
        os.kill(server_of(process), signal.SIGKILL)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        assert err.startswith("lazr-smtptest: the server process ")
        assert f"port {port}" in err
        assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "expected"), [([], 0), (["--count", "9"], 1)])
def test_a_reader_that_goes_away(arguments, expected):
    with running(*arguments) as (process, port):
        process.stdout.close()
        send_message(port)
        assert process.wait(timeout=10) == expected
        assert process.stderr.read() == ""
        assert refused(port)
        process.stdout = None


def test_no_standard_output_at_all(tmp_path):
    command = " ".join([*COMMAND, "--timeout 0.1 --port 0 >&-"])
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        "lazr-smtptest: 0 messages came to .+ within 0.1 seconds\nNo client .+\n", done.stderr
    )


# What the server is.


def test_fault():
    faults = ["--fault", "rcpt=451 4.7.1 Later", "--fault", "MAIL=250 2.1.0 Hm"]
    with running(*faults) as (_process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            assert client.mail("kim@example.com") == (250, b"2.1.0 Hm")
            assert client.rcpt("lee@example.com") == (451, b"4.7.1 Later")


def test_auth():
    with running("--auth", "kim:s3:cret", "--auth", "lee:", "--count", "1") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("kim", "s3")
            client.login("kim", "s3:cret")
            send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "in the clear, logged in as kim\n" in out


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_tls(kind):
    with running("--tls", kind, "--count", "1") as (process, port):
        line = process.stdout.readline()
        ca_file = re.fullmatch(r"clients have to trust (.+)\n", line)[1]
        context = ssl.create_default_context(cafile=ca_file)
        if kind == "implicit":
            client = smtplib.SMTP_SSL("localhost", port, timeout=10, context=context)
        else:
            client = smtplib.SMTP("localhost", port, timeout=10)
            client.starttls(context=context)
        with client:
            send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "\nTLSv1.3\n" in out
        assert not os.path.exists(ca_file)


def test_tls_without_trustme():
    code = (
        "import sys; sys.modules['trustme'] = None\n"
        "from lazr_smtptest.__main__ import main\n"
        "sys.exit(main(['--tls', 'starttls', '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lazr-smtptest: ")
    assert "pip install 'lazr-smtptest[tls]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_version():
    assert run("--version") == (0, f"lazr-smtptest {lazr_smtptest.__version__}\n", "")


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        status, out, err = run("--host", "127.0.0.1", "--port", port)
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno 98] cannot listen on '127.0.0.1' port " + port)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--port 70000", "70000"),
        ("--port x", "argument --port: invalid int value: 'x'"),
        ("--count 0", "argument --count: must be more than 0, not 0"),
        ("--count 1.5", "argument --count: invalid int value: '1.5'"),
        ("--timeout nan", "argument --timeout: must be more than 0, not nan"),
        ("--timeout inf", "argument --timeout: must be more than 0, not inf"),
        ("--timeout -1", "argument --timeout: must be more than 0, not -1"),
        ("--timeout soon", "argument --timeout: invalid float value: 'soon'"),
        ("--auth kim", "argument --auth: must be USER:PASSWORD, not 'kim'"),
        ("--auth :secret", "argument --auth: must be USER:PASSWORD, not ':secret'"),
        ("--fault RCTP=451", "RCTP"),
        ("--fault RCPT", "argument --fault: "),
        ("--fault RCPT=later", "argument --fault: "),
        ("--tls ssl", "argument --tls: invalid choice: 'ssl'"),
        ("--json --quiet", "argument --quiet: not allowed with argument --json"),
        ("--maildir=", "argument --maildir: must not be empty"),
        ("--mbox=", "argument --mbox: must not be empty"),
    ],
)
def test_bad_arguments(arguments, why, capsys):
    with pytest.raises(SystemExit) as caught:
        lazr_smtptest.__main__.main(arguments.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: lazr-smtptest ")
    assert why in err.splitlines()[-1]


def test_default_is_localhost_9025():
    assert lazr_smtptest.__main__._parser().parse_args([]).port == 9025
    assert lazr_smtptest.__main__._parser().parse_args([]).host == "localhost"


def test_the_manual_has_all_options():
    page = (DOCS / "command-line.rst").read_text("utf-8")
    actions = lazr_smtptest.__main__._parser()._actions
    known = {action.option_strings[-1] for action in actions}
    assert sorted(re.findall(r"^\.\. option:: (\S+)", page, re.M)) == sorted(known)


# In a shell script.


def run_script(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the manual, with a program that sends mail or does not."""
    command = tmp_path / "bin" / "lazr-smtptest"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    environment = {
        **ENVIRONMENT,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "MAILDIR": str(tmp_path / "mail"),
    }
    # The script waits for ten seconds; where it is to fail that is long.
    text = SCRIPT.read_text("utf-8")
    assert "--timeout 10 " in text
    if "smtplib" not in program:
        text = text.replace("--timeout 10 ", "--timeout 0.5 ")
    return subprocess.run(
        ["bash", "-c", text, "mail_sink.sh", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=15,
        check=False,
    )


def test_script_in_which_the_mail_comes(tmp_path):
    program = (
        "import os, smtplib\n"
        "with smtplib.SMTP(os.environ['SMTP_HOST'], int(os.environ['SMTP_PORT'])) as client:\n"
        "    client.sendmail('kim@example.com', 'lee@example.com', 'Subject: Lunch?')\n"
    )
    done = run_script(tmp_path, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Subject: Lunch?\n", "")


def test_script_in_which_it_does_not(tmp_path):
    done = run_script(tmp_path, "pass")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lazr-smtptest: 0 of 1 messages came to localhost port ")


# On a terminal.


class Terminal:
    """A pseudo-terminal with the command in it, as its controlling process."""

    def __init__(self, *arguments: str, columns: int = 60, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns)
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**ENVIRONMENT, "TERM": "xterm", **environment},
        )
        os.close(slave)
        self.shown = ""
        self.port = int(self.read(r"listening on \S+ port (\d+)\r\n")[1])

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)

    def read(self, pattern: str) -> re.Match[str]:
        """Read until something is shown; give and drop all up to it."""
        deadline = time.monotonic() + 10
        while not (found := re.search(pattern, self.shown)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.shown!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    self.shown += os.read(self._master, 100_000).decode()
                except OSError:  # it has ended, and all that it showed has been read
                    raise AssertionError(f"no {pattern!r} in {self.shown!r}") from None
        self.shown = self.shown[found.end() :]
        return found

    def message(self, subject: str, number: int) -> list[str]:
        """Send a message, and give the lines that are shown of it."""
        send_message(self.port, subject)
        shown = self.read(rf"[^\n]* message {number} (.|\n)*Hello\.[^\n]*\r\n[^\n]*\r\n")[0]
        return shown.split("\r\n")

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal():
    with contextlib.ExitStack() as opened:

        def start(*arguments: str, **options: Any) -> Terminal:
            return opened.enter_context(contextlib.closing(Terminal(*arguments, **options)))

        yield start


def plain(text: str) -> str:
    """Take the colours out of what is shown."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_terminal_has_colours(terminal):
    lines = terminal().message("trees", 1)
    assert lines[0].startswith("\x1b[1;36m---")
    assert plain(lines[0]) == f"{' message 1 ':-^60}"
    assert "\x1b[1mSubject: trees\x1b[0m" in lines
    assert "Hello." in lines


def test_terminal_may_want_no_colours(terminal):
    lines = terminal(NO_COLOR="1").message("trees", 1)
    assert lines[0] == f"{' message 1 ':-^60}"
    assert "Subject: trees" in lines
    assert not any(ESCAPE in line for line in lines)


def test_terminal_that_knows_no_colours(terminal):
    lines = terminal(TERM="dumb").message("trees", 1)
    assert not any(ESCAPE in line for line in lines)


def test_terminal_without_rich(terminal, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('it is not installed')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    lines = terminal(PYTHONPATH=path).message("trees", 1)
    assert lines[0] == f"{' message 1 ':-^60}"


def test_terminal_is_safe_from_mail(terminal):
    shown = terminal()
    lines = shown.message("\x1b]0;title\x07\x1b[2J[bold]x[/bold]", 1)
    assert r"Subject: \x1b]0;title\x07\x1b[2J[bold]x[/bold]" in [plain(line) for line in lines]
    assert not any(ESCAPE in plain(line) for line in lines)


def test_terminal_that_changes_its_size(terminal):
    shown = terminal(columns=60)
    assert plain(shown.message("one", 1)[0]) == f"{' message 1 ':-^60}"
    shown.resize(30)
    assert plain(shown.message("two", 2)[0]) == f"{' message 2 ':-^30}"
    shown.resize(200)
    assert plain(shown.message("three", 3)[0]) == f"{' message 3 ':-^72}"
    shown.type(b"\x03")
    assert shown.process.wait(10) == 0


def test_terminal_ctrl_c(terminal):
    shown = terminal()
    shown.message("one", 1)
    shown.type(b"\x03")
    assert shown.process.wait(10) == 0
    shown.read(r"\A\^C\Z")
    assert refused(shown.port)


def test_terminal_ctrl_c_with_a_count(terminal):
    shown = terminal("--count", "2")
    shown.type(b"\x03")
    assert shown.process.wait(10) == 1
    shown.read("interrupted when 0 of 2 messages came to localhost port")


def test_terminal_whose_output_is_piped(terminal, tmp_path):
    """Standard input and error are a terminal, and output is not."""
    master, slave = pty.openpty()
    with open(tmp_path / "out", "w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--count", "1"],
            stdin=slave,
            stdout=out,
            stderr=slave,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(slave)
        with process:
            path = tmp_path / "out"
            until(lambda: path.read_text().endswith("\n"))
            send_message(int(path.read_text().split()[-1]))
            assert process.wait(10) == 0
    os.close(master)
    assert "Subject: hello\n" in path.read_text()
    assert ESCAPE not in path.read_text()


def test_the_tools_of_these_tests_are_there():
    for name in "bash", "pgrep":
        if shutil.which(name) is None:
            missing(f"the program {name} is not installed")


def test_the_command_line_on_a_terminal_that_knows_no_umlauts():
    script = textwrap.dedent("""
        import re, smtplib, subprocess, sys
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "lazr_smtptest", "--port", "0", "--count", "1"],
            stdout=subprocess.PIPE, text=True,
        )
        port = int(re.search(r"port ([0-9]+)", process.stdout.readline())[1])
        with smtplib.SMTP("localhost", port) as client:
            client.sendmail("a@b.c", ["d@e.f"], "Subject: \\u00fc\\r\\n\\r\\n".encode())
        print(process.communicate(timeout=10)[0], process.returncode)
    """)
    done = run_python(script, PYTHONIOENCODING="ascii")
    assert "Subject: \\xfc" in done.stdout
    assert done.stdout.endswith(" 0\n")
    assert done.stderr == ""
