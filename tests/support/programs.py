"""Mail clients that are programs: how tests run them, and what each is told."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from lazr_smtptest import QueueController

#: Seconds that a program may take.
TIMEOUT = 15

SENDER = "kim@example.com"
RECIPIENTS = ("lee@example.com", "bcc@example.com")

#: What a message needs for no program to add anything, up to the words of its subject.
HEAD = (
    b"From: kim@example.com\r\n"
    b"To: lee@example.com\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Subject: "
)
DOMAIN = "client.example"

#: Where Debian has the libraries of Node.
NODE_MODULES = "/usr/share/nodejs"

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))

#: Debian's packages, where they are not named as the program.
PACKAGES = {
    "exim4": "exim4-daemon-light, whose program .ci/run unpacks, since it conflicts with postfix",
    "node": "nodejs",
    "php": "php-cli",
    "smtp-source": "postfix",
}


class Login(NamedTuple):
    """As whom a client is to log in, and how."""

    mechanism: str
    user: str
    password: str


def mode_of(server: QueueController) -> str:
    """Return how clients have to connect: clear, starttls or implicit."""
    return server.server.tls.mode if server.server.tls else "clear"


def host_of(server: QueueController) -> str:
    """Return the name that is in the server's certificate."""
    return "localhost" if server.unix_socket else server.host


def unix(content: bytes) -> bytes:
    """Give lines the ends that they have in a file."""
    return content.replace(b"\r\n", b"\n")


def missing(reason: str) -> NoReturn:
    """Skip a test; where CI is set fail it, or it would go unnoticed that it never runs."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI is set")
    pytest.skip(reason)


def installed(name: str) -> str:
    """Skip a test, or fail it, unless a program is installed; return its path."""
    program = shutil.which(name, path=PATH)
    if program is None:
        package = PACKAGES.get(name, name)
        missing(f"the program {name} is not installed; in Debian it is in {package}")
    return program


def needed(path: str) -> str:
    """Skip a test, or fail it, unless there is this file of a library; give its path."""
    if not os.path.exists(path):
        missing(f"the library {path} is not installed")
    return path


def needs_sasl() -> None:
    """Skip a test, or fail it, unless Postfix can log in, which Cyrus SASL does for it."""
    if not glob.glob("/usr/lib/*/sasl2/libplain.so"):
        missing("Cyrus SASL's plugins are not installed; in Debian they are in libsasl2-modules")


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
        done = subprocess.run(
            [installed(name), *arguments],
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
        path = server.unix_socket
        self.run(
            "swaks",
            *([f"--socket={path}"] if path else [f"--server={server.host}"]),
            *([] if path else [f"--port={server.port}"]),
            f"--timeout={TIMEOUT}",
            f"--helo={DOMAIN}",
            f"--from={SENDER}",
            f"--to={','.join(RECIPIENTS)}",
            *arguments,
        )

    def msmtp(self, server: QueueController, *arguments: str, given: bytes) -> None:
        """Run msmtp; with --host, it reads no configuration file."""
        path = server.unix_socket
        self.run(
            "msmtp",
            f"--host={host_of(server)}",
            f"--socket={path}" if path else f"--port={server.port}",
            f"--timeout={TIMEOUT}",
            f"--domain={DOMAIN}",
            f"--from={SENDER}",
            *arguments,
            given=given,
        )

    def esmtp(self, server: QueueController, content: bytes) -> None:
        """Run esmtp, a program of libESMTP's, which reads its own file only."""
        settings = self.file(f"hostname = {server.host}:{server.port}\n".encode(), "esmtprc")
        os.chmod(settings, 0o600)
        self.run("esmtp", "-C", settings, "-f", SENDER, *RECIPIENTS, given=unix(content))

    def curl(self, server: QueueController, *arguments: str, scheme: str = "smtp") -> None:
        """Run curl, which is to read no configuration file, and to use no proxy."""
        path = server.unix_socket
        place = "localhost" if path else f"{server.host}:{server.port}"
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
            *(["--unix-socket", path] if path else []),
            f"{scheme}://{place}/{DOMAIN}",
        )
