"""Mail clients that are programs: how tests run them, and what each is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from lazr_smtptest import QueueController

#: Seconds that a program may take.
TIMEOUT = 15

SENDER = "kim@example.com"
RECIPIENTS = ("lee@example.com", "bcc@example.com")
DOMAIN = "client.example"

#: Where Debian has the libraries of Node.
NODE_MODULES = "/usr/share/nodejs"

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))


def missing(reason: str) -> NoReturn:
    """Skip a test; where CI is set fail it, or it would go unnoticed that it never runs."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI is set")
    pytest.skip(reason)


def needed(path: str) -> str:
    """Skip a test, or fail it, unless there is this file of a library; give its path."""
    if not os.path.exists(path):
        missing(f"the library {path} is not installed")
    return path


class Failed(Exception):
    """A client says that it has not sent the message."""


class Programs:
    """Runs programs, which see nothing of the user's settings.

    :param home: An empty directory.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, name: str, *arguments: str, given: bytes = b"") -> None:
        """Run one, whose exit status says whether it is content.

        :raises Failed: It is not; the message is what it printed.
        """
        program = shutil.which(name, path=PATH)
        if program is None:
            missing(f"the program {name} is not installed")
        done = subprocess.run(
            [program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            cwd=self.home,
            env={"PATH": PATH, "HOME": str(self.home), "LC_ALL": "C.UTF-8"},
        )
        if done.returncode:
            raise Failed(done.stdout.decode("utf-8", "replace"))

    def file(self, content: bytes, name: str = "message.eml") -> str:
        path = self.home / name
        path.write_bytes(content)
        return str(path)

    def swaks(self, server: QueueController, *arguments: str) -> None:
        """Run swaks, which has a configuration file only in its home."""
        self.run(
            "swaks",
            f"--server={server.host}",
            f"--port={server.port}",
            f"--timeout={TIMEOUT}",
            f"--helo={DOMAIN}",
            f"--from={SENDER}",
            f"--to={','.join(RECIPIENTS)}",
            *arguments,
        )

    def msmtp(self, server: QueueController, *arguments: str, given: bytes) -> None:
        """Run msmtp; with --host, it reads no configuration file."""
        self.run(
            "msmtp",
            f"--host={server.host}",
            f"--port={server.port}",
            f"--timeout={TIMEOUT}",
            f"--domain={DOMAIN}",
            f"--from={SENDER}",
            *arguments,
            given=given,
        )

    def curl(self, server: QueueController, *arguments: str, scheme: str = "smtp") -> None:
        """Run curl, which is to read no configuration file, and to use no proxy."""
        self.run(
            "curl",
            "-q",
            "--silent",
            "--show-error",
            "--max-time",
            str(TIMEOUT),
            "--noproxy",
            "*",
            "--mail-from",
            SENDER,
            *(word for address in RECIPIENTS for word in ("--mail-rcpt", address)),
            *arguments,
            f"{scheme}://{server.host}:{server.port}/{DOMAIN}",
        )
