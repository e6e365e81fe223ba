"""The command line, as a process."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import refused, send

import lazr_smtptest.__main__

COMMAND = [sys.executable, "-W", "error", "-m", "lazr_smtptest"]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen, int]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal to its group is not for us
    )
    try:
        first = process.stdout.readline()
        port = re.fullmatch(r"listening on \S+ port (\d+)\n", first)[1]
        yield process, int(port)
    finally:
        process.kill()
        process.communicate(timeout=10)


def send_message(port: int, subject: str = "hello") -> None:
    with smtplib.SMTP("localhost", port, timeout=10) as client:
        send(client, subject)


def test_count_ends_it_after_so_many_messages():
    with running("--port", "0", "--count", "2") as (process, port):
        send_message(port, "one")
        send_message(port, "two")
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == ["one", "two"]
        assert out.count("from <kim@example.com> to <lee@example.com>") == 2
        assert refused(port)


def test_each_message_is_printed_as_it_arrives():
    with running("--port", "0") as (process, port):
        for subject in ("one", "two"):
            send_message(port, subject)
            while (line := process.stdout.readline()) != f"Subject: {subject}\n":
                assert line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_ends_it_cleanly(number, whole_group):
    with running("--port", "0") as (process, port):
        (os.killpg if whole_group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")
        assert refused(port)


def test_octets_that_are_no_text_are_printed_somehow():
    with running("--port", "0", "--count", "1") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.sendmail("a@example.com", ["b@example.com"], b"Subject: \xff\x00\r\n\r\n\x80")
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert r"Subject: \xff" in out


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=15, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_version():
    assert run("--version") == (0, f"lazr-smtptest {lazr_smtptest.__version__}\n", "")


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        status, out, err = run("--host", "127.0.0.1", "--port", port)
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno 98] cannot listen on '127.0.0.1' port " + port)
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--count", "0"), ("--port", "x")])
def test_bad_arguments(arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "usage: lazr-smtptest" in err
    assert "Traceback" not in err


def test_default_is_localhost_9025():
    assert lazr_smtptest.__main__._parser().parse_args([]).port == 9025
    assert lazr_smtptest.__main__._parser().parse_args([]).host == "localhost"
