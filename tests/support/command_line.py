"""The command line, as a process: how tests run it, and send it mail."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helpers import send

COMMAND = [sys.executable, "-W", "error", "-m", "lazr_smtptest"]

#: Without what may be set where the tests run.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE")
}


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


def run_command(*arguments: str, **options: Any) -> tuple[int, str, str]:
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


#: What a text for the command line has none of: names and values as Python has them.
PYTHON = re.compile(r"(?<![\w.'/-])[a-z]+_[a-z_]+|\b\w+\(|\w=['({]|\b(True|False|None)\b")


def assert_no_python(text: str) -> None:
    """Check that a text has options of the command line, and none of Python."""
    assert not PYTHON.search(text), text
