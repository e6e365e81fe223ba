"""UNIX sockets: folders for them, a client, and a test process that gets killed."""

from __future__ import annotations

import contextlib
import shutil
import smtplib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import send

from lazr_smtptest import Message, QueueController, QueueServer


@contextlib.contextmanager
def short_folder() -> Iterator[str]:
    """Give a folder whose name leaves room for a socket's; pytest's are too long on macOS."""
    folder = tempfile.mkdtemp(prefix="socket-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class UnixSMTP(smtplib.SMTP):
    """A client that connects to a path.

    :param path: The path.
    :param bound: Where to bind its own end to, if at all.
    """

    def __init__(self, path: str | None, bound: str | None = None) -> None:
        assert path is not None
        self._path, self._bound = path, bound
        # The name is that in the certificate; the port is not used.
        super().__init__("localhost", 1, "client.example", timeout=10)

    def _get_socket(self, _host: str, _port: int, timeout: Any) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        if self._bound is not None:
            sock.bind(self._bound)
        sock.settimeout(timeout)
        sock.connect(self._path)
        return sock


def send_to_path(path: str | None, *subjects: object) -> None:
    with UnixSMTP(path) as client:
        for subject in subjects:
            send(client, subject)


def children_of(pid: int | None) -> list[int]:
    """Give the children of all threads of a process."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


class Busy(QueueServer):
    """Runs what the subject says, which may take for ever; a file says that it does."""

    def handle_message(self, message: Message) -> None:
        Path(busy(self.unix_socket)).touch()
        exec(message["subject"])


def busy(path: str | None) -> str:
    return f"{path}.busy"


class BusyController(QueueController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Busy(host, port, self.queue, **self.server_options)


def main() -> None:
    """Run a server, and tell its number; then wait to be killed, or end without stopping it."""
    path, method, how = sys.argv[1:]
    controller = BusyController(unix_socket=path, start_method=method)
    controller.start()
    print(controller.pid, flush=True)
    if how != "exit":
        time.sleep(60)


if __name__ == "__main__":
    main()
