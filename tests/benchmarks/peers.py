"""Who takes part: how each server is started and stopped, and how it forgets.

Each is a context manager which starts the server and gives a `Running`.  A
peer is configured as its manual says; where it leaves a choice, the faster one
is taken.  All listen on 127.0.0.1 only, so that no name is resolved.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lazr_smtptest import MessageQueue, QueueController

HOST = "127.0.0.1"

OURS = "lazr_smtptest"
OURS_WITHOUT_UVLOOP = "lazr_smtptest without uvloop"
PLAIN = "aiosmtpd in a process"
SINK = "smtp-sink"
BARE = "a bare process"

#: Seconds that a server may take to greet or to end.
PATIENCE = 10.0


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    #: Makes it forget the messages that it has.
    forget: Callable[[], object]
    pid: int | None = None
    #: Ours only.
    queue: MessageQueue | None = None


Peer = Callable[[], AbstractContextManager[Running]]


def _ours(uvloop: bool | None, **options: Any) -> Peer:
    @contextlib.contextmanager
    def run() -> Iterator[Running]:
        with QueueController(HOST, uvloop=uvloop, **options) as controller:
            yield Running(controller.port, controller.reset, controller.pid, controller.queue)

    return run


class _Discard:
    """A handler for aiosmtpd that does nothing."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return "250 OK"


class _Keep:
    """A handler for aiosmtpd that keeps what a test would look at."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope)
        return "250 OK"


def _serve(listening: socket.socket) -> None:
    """Be plain aiosmtpd; the whole of a process."""
    from aiosmtpd.smtp import SMTP

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(_Discard(), hostname="localhost"), sock=listening
        )
        await server.serve_forever()

    asyncio.run(serve())


@contextlib.contextmanager
def _plain() -> Iterator[Running]:
    """Run aiosmtpd as anybody would who wants it beside the test process.

    It hands nothing back: what a queue costs is ours alone.
    """
    import aiosmtpd.smtp  # noqa: F401  before the fork, as ours does

    with socket.create_server((HOST, 0)) as listening:
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(listening,), daemon=True
        )
        process.start()
        port = listening.getsockname()[1]
    try:
        _await_greeting(port)
        yield Running(port, lambda: None, process.pid)
    finally:
        process.kill()
        process.join(PATIENCE)


@contextlib.contextmanager
def _aiosmtpd() -> Iterator[Running]:
    from aiosmtpd.controller import Controller

    handler = _Keep()
    # Without a name for it, aiosmtpd asks the resolver at each connection.
    controller = Controller(handler, hostname=HOST, port=free_port(), server_hostname="localhost")
    controller.start()
    try:
        yield Running(controller.port, handler.messages.clear)
    finally:
        controller.stop()


@contextlib.contextmanager
def _pytest_localserver() -> Iterator[Running]:
    from pytest_localserver.smtp import Server

    server = Server(HOST)
    server.start()
    try:
        yield Running(server.addr[1], server.outbox.clear)
    finally:
        server.stop(PATIENCE)


@contextlib.contextmanager
def _smtpdfix() -> Iterator[Running]:
    from smtpdfix import SMTPDFix

    with SMTPDFix(HOST) as controller:
        # Its ``messages`` is a copy; and its reset() is a stop and a start.
        yield Running(controller.port, controller._messages.clear)


@contextlib.contextmanager
def _smtp_test_server() -> Iterator[Running]:
    from smtp_test_server.context import SmtpMockServer

    with SmtpMockServer(HOST) as server:
        yield Running(server.port, server.messages.clear)


@contextlib.contextmanager
def _sink() -> Iterator[Running]:
    program = find_program("smtp-sink")
    assert program is not None
    port = free_port()
    # It refuses to stay root; and it takes 256 sessions unless told otherwise.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [program, *user, "-m", "1000", f"{HOST}:{port}", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_greeting(port)
        yield Running(port, lambda: None, process.pid)
    finally:
        process.kill()
        process.wait(PATIENCE)


def free_port() -> int:
    """Find a port for a server that cannot choose one by itself."""
    with socket.create_server((HOST, 0)) as placeholder:
        port: int = placeholder.getsockname()[1]
        return port


def _await_greeting(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((HOST, port), timeout=PATIENCE) as client:
                client.recv(1)
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def find_program(name: str) -> str | None:
    """Find a program of Postfix, also where only the administrator's PATH leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


#: Servers on a thread of the test process: name, module, how to run it.
_ON_A_THREAD: list[tuple[str, str, Peer]] = [
    ("aiosmtpd", "aiosmtpd", _aiosmtpd),
    ("pytest-localserver", "pytest_localserver", _pytest_localserver),
    ("smtpdfix", "smtpdfix", _smtpdfix),
    ("smtp-test-server", "smtp_test_server", _smtp_test_server),
]


def is_installed(module: str) -> bool:
    """Say whether a module can be imported, without doing it."""
    return importlib.util.find_spec(module) is not None


def ours(**options: Any) -> dict[str, Peer]:
    """Give what a user has by default: with uvloop if that is installed."""
    return {OURS: _ours(None, **options)}


def ours_without_uvloop() -> dict[str, Peer]:
    """Give the other event loop, if `ours` does not use it anyhow."""
    return {OURS_WITHOUT_UVLOOP: _ours(False)} if is_installed("uvloop") else {}


def plain() -> dict[str, Peer]:
    """Give aiosmtpd in a process of its own."""
    return {PLAIN: _plain}


def sink() -> dict[str, Peer]:
    """Give the server in C, where there is one."""
    return {SINK: _sink} if find_program("smtp-sink") else {}


def on_a_thread() -> dict[str, Peer]:
    """Give the peers that run on a thread of the test process."""
    return {name: run for name, module, run in _ON_A_THREAD if is_installed(module)}


def missing() -> list[str]:
    """Name what would take part if it were installed."""
    names = [name for name, module, _ in _ON_A_THREAD if not is_installed(module)]
    names += [name for name in ("uvloop", "matplotlib") if not is_installed(name)]
    names += [] if is_installed("xdist") else ["pytest-xdist"]
    return names + [
        name for name in ("smtp-sink", "smtp-source", "maildev") if not find_program(name)
    ]


def versions() -> dict[str, str]:
    """Say which versions take part."""
    found = {}
    others = ("uvloop", "pytest", "pytest-xdist")
    for name in ("lazr-smtptest", *(name for name, _, _ in _ON_A_THREAD), *others):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if "lazr-smtptest" not in found:
        from lazr_smtptest import __version__

        found["lazr-smtptest"] = __version__
    if (postconf := find_program("postconf")) is not None:
        output = subprocess.run(
            [postconf, "-dh", "mail_version"], capture_output=True, text=True, timeout=PATIENCE
        )
        found["Postfix"] = output.stdout.strip()
    return found
