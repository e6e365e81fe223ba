"""What several test modules need.  Importable, so that spawned servers find it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import multiprocessing
import os
import queue
import signal
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lazr_smtptest import Controller, Message, MessageQueue, QueueController, QueueServer, Server
from lazr_smtptest._launch import listen, resolve

#: Each event loop that there is, as a server's option: uvloop's, and asyncio's.
EVENT_LOOPS = [True, False] if importlib.util.find_spec("uvloop") else [False]

START_METHODS = [
    m for m in ("fork", "forkserver", "spawn") if m in multiprocessing.get_all_start_methods()
]

#: A user that servers in these tests know, and the password.
LOGIN = ("kim", "wren-and-robin")

STAGES = "CONNECT EHLO HELO STARTTLS AUTH MAIL RCPT DATA EOM RSET NOOP VRFY EXPN HELP QUIT".split()


def loop_name(uvloop: bool) -> str:
    return "uvloop" if uvloop else "asyncio"


@contextlib.contextmanager
def connected(controller: Any) -> Iterator[smtplib.SMTP]:
    """Give a client that is connected to a controller's server."""
    with smtplib.SMTP(controller.host, controller.port, "client.example", timeout=10) as client:
        yield client


@contextlib.contextmanager
def serving(
    kind: type[QueueServer], *, uvloop: bool | None = None, **options: Any
) -> Iterator[Controller]:
    """Run a server of a class, with a queue of its own."""
    server = kind("localhost", 0, MessageQueue(), **options)
    with Controller(server, uvloop=uvloop) as controller:
        yield controller


def send(client: smtplib.SMTP, subject: object, body: str = "Hello.\r\n") -> None:
    client.sendmail(
        "kim@example.com", ["lee@example.com"], f"Subject: {subject}\r\n\r\n{body}".encode()
    )


def send_to(controller: Any, *subjects: object) -> None:
    with connected(controller) as client:
        for subject in subjects:
            send(client, subject)


def send_for(controller: Any, subject: object, recipients: Iterable[str]) -> None:
    """Send one message to several."""
    with connected(controller) as client:
        client.sendmail("kim@example.com", [*recipients], f"Subject: {subject}\r\n\r\nHello.\r\n")


def subjects(messages: Any) -> list[str]:
    return [message["subject"] for message in messages]


def only_message(controller: Any) -> Message:
    """Take the one message there is."""
    message = controller.queue.get_nowait()
    assert controller.queue.empty()
    return message


def cpu_seconds(do: Callable[[], object]) -> float:
    """Return the CPU seconds that a call takes.

    Other programs on the machine cost none, nor does the garbage of other tests.
    """
    gc.disable()
    try:
        start = time.process_time()
        do()
        return time.process_time() - start
    finally:
        gc.enable()


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Wait until something is so that cannot be waited on."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout} seconds: {condition}")
        time.sleep(0.002)
    return value


def awaited(controller: Any) -> bool:
    """Whether a thread of this process waits for what a controller's server sends."""
    return controller._link.watcher is not None


def fresh(controller: QueueController) -> QueueController:
    """Have a server that knows nothing of the tests before: no session is open."""
    controller.reset()
    try:
        until(lambda: not any(s.ended == "open" for s in controller.sessions()), 1.0)
    except AssertionError:
        # A delay goes on over a reset.
        controller.stop()
        controller.start()
    controller.reset()
    return controller


def refused(port: int, host: str = "localhost") -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


def is_free(port: int) -> bool:
    try:
        sockets, _ = listen(resolve("localhost", port), port)
    except OSError:
        return False
    for sock in sockets:
        sock.close()
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has, once its last thread has."""
    try:
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state(pid) in ("", "Z") and threads <= 1


def state(pid: int) -> str:
    """Give the letter that ps shows for a process; empty if there is none."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextlib.contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Stop a process by a signal, and let it go on."""
    os.kill(pid or 0, signal.SIGSTOP)
    until(lambda: state(pid or 0) == "T")
    try:
        yield
    finally:
        os.kill(pid or 0, signal.SIGCONT)


def session_context(server: Server, deliver: Any = None, numbers: Any = ()) -> Any:
    """What all sessions of a server have in common."""
    from lazr_smtptest._smtp.context import SessionContext
    from lazr_smtptest._smtp.faultscript import FaultScript
    from lazr_smtptest._smtp.transcript import Transcripts

    return SessionContext(
        server=server,
        deliver=deliver,
        report=lambda where, error: "451 Error",
        on_rset=None,
        numbers=iter(numbers),
        faults=FaultScript(),
        transcripts=Transcripts(),
        tls_context=None,
    )


class Failing(Server):
    """Raises for a message whose subject begins with "bad"."""

    def handle_message(self, message: Message) -> None:
        if message["subject"].startswith("bad"):
            raise ValueError(f"I do not like {message['subject']}")


class Rewriting(QueueServer):
    """Passes on what it has changed; nothing, or twice, if the subject says so."""

    def handle_message(self, message: Message) -> None:
        message["X-Seen-By"] = str(os.getpid())
        times = {"none": 0, "twice": 2}.get(message["subject"], 1)
        for _ in range(times):
            super().handle_message(message)


class Misbehaving(QueueServer):
    """Does what the subject says, after passing the message on if that is "ok"."""

    def handle_message(self, message: Message) -> None:
        subject = message["subject"]
        if subject == "sleep":
            time.sleep(3600)
        elif subject == "loop":
            while True:
                sum(range(1000))
        elif subject == "hold the interpreter lock":
            ctypes.PyDLL(None).sleep(3600)
        elif subject == "exit":
            raise SystemExit(7)
        elif subject == "os._exit":
            os._exit(9)
        elif subject == "crash":
            ctypes.string_at(0)
        elif subject == "raise":
            raise RuntimeError("as the subject says")
        super().handle_message(message)


class FailingReset(Server):
    def reset(self) -> None:
        raise LookupError("nothing to reset")


class Unpicklable(Server):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Unreturnable(Server):
    """Can be pickled, and not be unpickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise LookupError("not here")


class Hooked(QueueServer):
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == "nobody@example.com":
            return "550 5.1.1 No such user"
        if address == "broken@example.com":
            raise KeyError("broken")
        envelope.rcpt_tos.append(address)
        return "250 OK"


class Refusing(queue.Queue):
    """A queue that takes nothing."""

    def put(self, item, block=True, timeout=None):
        raise RuntimeError("this queue is closed for the season")
