"""What each error says, whole.

Everything here has gone wrong for real, and the text is compared from the
first word to the last.  Only what differs from run to run is replaced, by a
word in capitals: PID, PORT, N for measured seconds, STACK and TRACEBACK.

`test_no_raise_goes_unheard` looks for what the package raises and no test
here has the text of.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import errno
import importlib
import multiprocessing
import os
import pickle
import pkgutil
import queue
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import (
    Failing,
    FailingReset,
    Hooked,
    Misbehaving,
    Refusing,
    Unpicklable,
    Unreturnable,
    connected,
    gone,
    send,
    send_to,
    state,
    until,
)

import lazr_smtptest
from lazr_smtptest import (
    TLS,
    AlreadyRunning,
    Controller,
    GateTimeout,
    HandlerError,
    MessageNotReceived,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    Server,
    ServerDied,
    ServerStuck,
    SMTPTestError,
    StartError,
    StartTimeout,
    UnexpectedMessage,
)
from lazr_smtptest._fixtures import Worker

#: Seconds that a server in these tests has for what it will not do.
SOON = 0.2

LARGE = "x" * 70 + ("\r\n" + "y" * 70) * 60_000


def told(error: BaseException, port: int | None = None) -> str:
    """Give an error's text, with what varies named."""
    text = str(error)
    facts = vars(error)
    for name in ("stack", "traceback"):
        if facts.get(name):
            text = text.replace(facts[name], name.upper())
    if facts.get("elapsed") is not None:
        text = text.replace(f"{facts['elapsed']:.2f} seconds", "N seconds")
    text = text.replace(f"process {facts.get('pid')}", "process PID")
    return text.replace(f"port {port or facts.get('port')}", "port PORT")


def facts(error: BaseException) -> dict[str, Any]:
    """Give the attributes of an error that say something."""
    return {name: value for name, value in vars(error).items() if value not in (None, "", 0, ())}


def where(controller: Controller) -> dict[str, Any]:
    found = {"host": controller.host, "port": controller.port, "pid": controller.pid}
    assert all(found.values())
    return found


def survives(error: SMTPTestError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert vars(again).keys() == vars(error).keys()


def hurry(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float = SOON) -> None:
    """Shorten a time limit of the package, in whichever modules have it."""
    names = [module.name for module in pkgutil.iter_modules(lazr_smtptest.__path__)]
    # Some are imported by the first start only.
    modules = [importlib.import_module(f"lazr_smtptest.{found}") for found in names]
    homes = [module for module in modules if hasattr(module, name)]
    assert homes
    for module in homes:
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture(scope="module")
def running() -> Iterator[QueueController]:
    """A server that is well."""
    with QueueController() as controller:
        yield controller


@pytest.fixture
def controller(running: QueueController) -> QueueController:
    """A server that is well and has no mail."""
    running.reset()
    return running


@contextlib.contextmanager
def ended(controller: Controller) -> Iterator[Any]:
    """Run a server that is to come to a bad end, and be rid of it for certain."""
    controller.start()
    pid = controller.pid
    assert pid is not None
    try:
        yield controller
    finally:
        if controller.pid == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(SMTPTestError):
            controller.stop()


class WithServer(QueueController):
    """Runs a server of a class of one's own."""

    def __init__(self, kind: Callable[..., QueueServer], **options: Any) -> None:
        self.kind = kind
        super().__init__(**options)

    def _make_server(self, host: str, port: int) -> None:
        self.server = self.kind(host, port, self.queue, **self.server_options)


def die(controller: Controller, number: int = signal.SIGKILL) -> None:
    assert controller.pid is not None
    os.kill(controller.pid, number)
    until(lambda: not controller.is_running)


def deliver(controller: Controller, subject: str) -> tuple[int, bytes]:
    """Send a message; give the reply to it, or nothing if none comes."""
    with contextlib.suppress(smtplib.SMTPServerDisconnected), connected(controller) as client:
        client.ehlo()
        client.mail("kim@example.com")
        client.rcpt("lee@example.com")
        return client.data(f"Subject: {subject}\r\n\r\nHello.\r\n".encode())
    return 0, b""


def leave(controller: Controller, subject: str) -> socket.socket:
    """Send a message, and do not wait for the reply."""
    client = socket.create_connection((controller.host, controller.port), timeout=10)
    client.sendall(
        b"EHLO client.example\r\nMAIL FROM:<kim@example.com>\r\nRCPT TO:<lee@example.com>\r\n"
        b"DATA\r\nSubject: %b\r\n\r\nHello.\r\n.\r\n" % subject.encode()
    )
    return client


# Starting and stopping.


def test_already_running(controller: QueueController) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        controller.start()
    assert told(caught.value) == (
        "the server runs already, in process PID on localhost port PORT: call stop() first"
    )
    assert facts(caught.value) == where(controller)


def test_a_queue_that_another_server_fills(controller: QueueController) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        Controller(QueueServer("localhost", 0, controller.queue)).start()
    assert told(caught.value) == (
        "this server's queue is filled by another controller's, "
        "the server process PID on localhost port PORT: give each controller a queue of its own"
    )
    assert facts(caught.value) == where(controller)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("reset", lambda c: c.reset()),
        ("fault", lambda c: c.fault("RCPT", "450 No")),
        ("gate", lambda c: c.gate("RCPT")),
        ("sessions", lambda c: c.sessions()),
    ],
)
def test_not_running(name: str, call: Callable[[QueueController], object]) -> None:
    controller = QueueController(port=9025)
    with pytest.raises(NotRunning) as caught:
        call(controller)
    assert told(caught.value) == (
        f"{name}() needs a running server, "
        "and none runs on localhost port PORT: call start() first"
    )
    assert facts(caught.value) == {"host": "localhost", "port": 9025}


def test_an_order_to_a_server_that_was_stopped() -> None:
    with QueueController() as controller:
        fault = controller.fault("RCPT", "450 No")
        there = where(controller)
    with pytest.raises(NotRunning) as caught:
        fault.remove()
    assert told(caught.value) == (
        "the server process PID on localhost port PORT has been stopped: "
        "call start(), and make faults and gates anew"
    )
    assert facts(caught.value) == there


def is_in(function: Any, thread: threading.Thread) -> bool:
    """Whether a thread is just running a function."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def test_a_server_that_another_thread_stops() -> None:
    with QueueController() as controller:
        there = where(controller)
        gate = controller.gate("RCPT")
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                gate.wait_parked(10)
            except SMTPTestError as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: is_in(connection.wait, thread))
        controller.stop()
        thread.join(10)
    (error,) = caught
    assert isinstance(error, NotRunning)
    assert told(error) == (
        "the server process PID on localhost port PORT was stopped, by another thread, "
        "while this call waited for it: call stop() when no other thread uses it any more"
    )
    assert facts(error) == there


def test_a_controller_of_another_process(controller: QueueController) -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            controller.queue.get_nowait()
        except BaseException as error:
            writer.send(error)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert reader.poll(5)
    error = reader.recv()
    assert isinstance(error, NotRunning)
    assert told(error) == (
        f"the server process PID on localhost port PORT belongs to process {os.getpid()}, "
        f"which started it; this is process {pid}, a child of that.  "
        "Connect to it from here, and call its controller there"
    )
    assert facts(error) == where(controller)


def test_no_server_ever() -> None:
    with pytest.raises(NotRunning) as caught:
        MessageQueue().expect_none()
    assert str(caught.value) == (
        "no message can come where no server was started: call start() first"
    )


class Awkward(Server):
    """Does something while a session is made for the first time."""

    def __init__(self, how: Callable[[], object]) -> None:
        super().__init__()
        self.how = how

    @property
    def auth_AWKWARD(self) -> object:
        return self.how()


def oversleep() -> None:
    time.sleep(60)


def lack() -> None:
    raise LookupError("no catalogue")


def die_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_note() -> None:
    raise SystemExit(5)


def failed_start(controller: Controller) -> StartError:
    with pytest.raises(StartError) as caught:
        controller.start()
    assert caught.value.host == controller.host
    assert caught.value.port
    survives(caught.value)
    return caught.value


def test_an_attribute_that_cannot_be_pickled() -> None:
    error = failed_start(Controller(Unpicklable(), start_method="spawn"))
    assert told(error) == (
        "the server for localhost port PORT cannot start: the attribute lock (lock) of this "
        "Unpicklable cannot be pickled, which it must be to reach a "
        f"process that is not forked ({type(error.__cause__).__name__}: {error.__cause__}).  "
        "Either make it in the server process, on first use, or use start_method='fork'"
    )
    assert facts(error) == {"host": "localhost", "port": error.port}


def test_a_class_that_cannot_be_pickled() -> None:
    class Local(Server):
        pass

    error = failed_start(Controller(Local(), start_method="spawn"))
    assert told(error) == (
        "the server for localhost port PORT cannot start: this "
        f"{Local.__qualname__} cannot be pickled, which it must be to reach a "
        f"process that is not forked ({type(error.__cause__).__name__}: {error.__cause__}).  "
        "Either define the class at the top level of a module or use start_method='fork'"
    )


def test_a_server_that_cannot_be_unpickled() -> None:
    error = failed_start(Controller(Unreturnable(), start_method="forkserver"))
    assert told(error) == (
        "the server process PID on localhost port PORT could not unpickle its server: "
        "LookupError('not here').  All that the server has must be importable and picklable "
        "there, or use start_method='fork'"
    )
    assert facts(error) == {
        "host": "localhost",
        "port": error.port,
        "pid": error.pid,
        "exitcode": 70,
    }
    assert error.pid is not None
    assert gone(error.pid)


def test_a_server_that_no_session_can_be_made_for() -> None:
    error = failed_start(Controller(Awkward(lack), start_method="fork"))
    assert told(error) == (
        "the server process PID on localhost port PORT could not make a session for Awkward: "
        "LookupError('no catalogue').  "
        "Mend what a session needs of it: its attributes, and its aiosmtpd hooks"
    )
    assert error.exitcode == 70


def test_a_server_that_dies_before_it_serves() -> None:
    error = failed_start(Controller(Awkward(die_at_once), start_method="fork"))
    assert told(error) == (
        "the server process PID on localhost port PORT was killed by SIGKILL before it served.  "
        "Its standard error may say why.  Unless it is forked, it imports the main module again, "
        "which must be a file, and guard what it runs by __name__ == '__main__'"
    )
    assert error.exitcode == -signal.SIGKILL


def test_a_server_that_dies_before_it_serves_and_says_why() -> None:
    error = failed_start(Controller(Awkward(leave_a_note), start_method="fork"))
    text, _, words = told(error).partition("\n")
    assert text == (
        "the server process PID on localhost port PORT ended with exit code 70 before it served."
        "  Its last words say why:"
    )
    assert words.startswith("Traceback (most recent call last):\n")
    assert words.endswith("\nSystemExit: 5")
    assert error.exitcode == 70


def test_a_server_that_is_not_ready() -> None:
    controller = Controller(Awkward(oversleep), start_method="fork", start_timeout=1)
    error = failed_start(controller)
    assert isinstance(error, StartTimeout)
    text, _, stack = told(error).partition("\n")
    assert text == (
        "the server process PID on localhost port PORT was started, and did not report that it "
        "serves within 1 seconds.  Look for what keeps it, or give a longer start_timeout on "
        "a busy machine.  It was here:"
    )
    assert re.search(r"line \d+ in oversleep$", stack, re.MULTILINE)
    assert facts(error).keys() == {"host", "port", "pid", "elapsed"}
    assert error.elapsed == 1


def test_a_server_that_is_not_ready_nor_shows_where_it_is() -> None:
    error = failed_start(QueueController(start_method="spawn", start_timeout=0.001))
    assert isinstance(error, StartTimeout)
    assert told(error) == (
        "the server process PID on localhost port PORT was started, and did not report that it "
        "serves within 0.001 seconds.  Look for what keeps it, or give a longer start_timeout "
        "on a busy machine"
    )


# A server process that dies.


def death(controller: QueueController) -> ServerDied:
    there = where(controller)
    with pytest.raises(ServerDied) as caught:
        controller.queue.get_nowait()
    found = facts(caught.value)
    assert {name: found[name] for name in there} == there
    survives(caught.value)
    return caught.value


def test_a_server_that_is_killed() -> None:
    with ended(QueueController()) as controller:
        die(controller)
        error = death(controller)
    assert told(error) == (
        "the server process PID on localhost port PORT was killed by SIGKILL; "
        "no message that it had accepted is lost.  Look for what killed it "
        "(the system itself does so when memory runs out), and call start() for a new one"
    )
    assert error.exitcode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals here")
def test_a_server_that_is_killed_by_a_signal_without_a_name() -> None:
    with ended(QueueController()) as controller:
        die(controller, signal.SIGRTMIN + 3)
        error = death(controller)
    assert told(error) == (
        f"the server process PID on localhost port PORT was killed by signal "
        f"{signal.SIGRTMIN + 3}; no message that it had accepted is lost.  Look for what killed "
        "it (the system itself does so when memory runs out), and call start() for a new one"
    )


def test_a_handler_that_exits() -> None:
    with ended(WithServer(Misbehaving)) as controller:
        assert deliver(controller, "os._exit") == (0, b"")
        until(lambda: not controller.is_running)
        error = death(controller)
    assert told(error) == (
        "the server process PID on localhost port PORT ended with exit code 9; "
        "no message that it had accepted is lost.  Look for what exits in its handlers, "
        "and call start() for a new one"
    )
    assert error.exitcode == 9


def test_a_handler_that_crashes() -> None:
    with ended(WithServer(Misbehaving)) as controller:
        deliver(controller, "crash")
        until(lambda: not controller.is_running)
        error = death(controller)
    assert told(error) == (
        "the server process PID on localhost port PORT crashed with SIGSEGV; "
        "no message that it had accepted is lost.  Look for the call into C code that did it, "
        "and call start() for a new one.  Its last words:\nSTACK"
    )
    assert error.exitcode == -signal.SIGSEGV
    assert re.search(r"line \d+ in handle_message$", error.stack, re.MULTILINE)


@pytest.mark.parametrize(
    ("count", "lost"),
    [
        (1, "1 message that it had accepted is lost"),
        (3, "3 messages that it had accepted are lost"),
    ],
)
def test_messages_that_are_lost(count: int, lost: str) -> None:
    """Too large for the pipe, they are still in the server process when it dies."""
    with ended(QueueController()) as controller:
        with connected(controller) as client:
            for _ in range(count):
                send(client, "large", LARGE)
        die(controller)
        error = death(controller)
    assert told(error) == (
        f"the server process PID on localhost port PORT was killed by SIGKILL; {lost}.  "
        "Look for what killed it (the system itself does so when memory runs out), "
        "and call start() for a new one"
    )
    assert error.lost == count


def test_a_death_at_the_end() -> None:
    with ended(QueueController(stop_timeout=0.4)) as controller:
        there = where(controller)
        send_to_be_lost(controller)
        controller.stop()
        with pytest.raises(ServerDied) as caught:
            controller.queue.get_nowait()
    assert told(caught.value) == (
        "the server process PID on localhost port PORT did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost.  The log shows what kept it; if it "
        "was only slow, give a longer stop_timeout"
    )
    assert facts(caught.value) == {**there, "exitcode": -signal.SIGKILL, "lost": 1}


def send_to_be_lost(controller: QueueController) -> None:
    with connected(controller) as client:
        send(client, "large", LARGE)
    pause(controller)


def pause(controller: Controller) -> None:
    assert controller.pid is not None
    os.kill(controller.pid, signal.SIGSTOP)
    until(lambda: state(controller.pid or 0) == "T")


def test_a_death_without_an_exit_code() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with ended(QueueController()) as controller:
            die(controller)
            error = death(controller)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert told(error) == (
        "the server process PID on localhost port PORT ended with an unknown exit code; "
        "no message that it had accepted is lost.  Do not ignore SIGCHLD, so that there is "
        "an exit code, and call start() for a new one"
    )
    assert error.exitcode is None


# A server process that is stuck.


class Busy(QueueServer):
    """Says that it has begun, and goes on for a minute."""

    def handle_message(self, message: Any) -> None:
        super().handle_message(message)
        time.sleep(60)

    async def handle_VRFY(self, *_: Any) -> str:
        self.queue.put("begun")
        time.sleep(60)
        return "252 OK"


def stuck(controller: QueueController, call: Callable[[], object]) -> ServerStuck:
    there = where(controller)
    with pytest.raises(ServerStuck) as caught:
        call()
    found = facts(caught.value)
    assert {name: found[name] for name in there} == there
    assert caught.value.elapsed
    survives(caught.value)
    return caught.value


def test_a_handler_that_takes_too_long() -> None:
    with ended(WithServer(Busy, reset_timeout=SOON, stop_timeout=SOON)) as controller:
        with leave(controller, "long"):
            controller.wait(5)
            error = stuck(controller, controller.reset)
    assert told(error) == (
        "the server process PID on localhost port PORT did not answer reset() within 0.2 seconds."
        "  Look in its stack for what keeps it, or give a longer reset_timeout:\nSTACK"
    )
    assert re.search(r"line \d+ in handle_message$", error.stack, re.MULTILINE)
    assert error.elapsed == SOON


def test_a_hook_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, "_ANSWER_TIMEOUT")
    with ended(WithServer(Busy, stop_timeout=SOON)) as controller:
        fault = controller.fault("RCPT", "450 No")
        gate = controller.gate("DATA")
        monkeypatch.setattr(controller, "_reset_timeout", SOON)
        with socket.create_connection((controller.host, controller.port)) as client:
            client.sendall(b"EHLO client.example\r\nVRFY <lee@example.com>\r\n")
            assert controller.wait(5) == "begun"
            of_controller = {
                "fault": lambda: controller.fault("RCPT", "450 No"),
                "gate": lambda: controller.gate("RCPT"),
                "sessions": controller.sessions,
            }
            of_orders = {
                "fired": lambda: fault.fired,
                "remove": fault.remove,
                "wait_parked": lambda: gate.wait_parked(0),
                "release": gate.release,
            }
            for name, call in {**of_controller, **of_orders}.items():
                error = stuck(controller, call)
                longer = ", or give a longer reset_timeout" if name in of_controller else ""
                assert told(error) == (
                    f"the server process PID on localhost port PORT did not answer {name}() "
                    f"within 0.2 seconds.  Look in its stack for what keeps it{longer}:\nSTACK"
                )
                assert re.search(r"line \d+ in handle_VRFY$", error.stack, re.MULTILINE)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueController]:
    """A server that is stopped by a signal, half way through sending a message."""
    hurry(monkeypatch, "TRANSIT_TIMEOUT")
    with ended(QueueController(reset_timeout=SOON, stop_timeout=SOON)) as controller:
        show_stacks: Any = type(controller.queue._home.counterpart).show_stacks
        monkeypatch.setattr(show_stacks, "__defaults__", (SOON,))
        send_to_be_lost(controller)
        yield controller


NO_STACK = (
    ", and does not show its stack: is it stopped, or the machine overloaded?  "
    "Run fewer things at once"
)


def test_a_server_that_is_stopped_by_a_signal(paused: QueueController) -> None:
    assert told(stuck(paused, paused.reset)) == (
        "the server process PID on localhost port PORT did not answer reset() within 0.2 seconds"
        f"{NO_STACK}, or give a longer reset_timeout"
    )
    for call in (
        paused.queue.get_nowait,
        paused.queue.qsize,
        lambda: paused.queue.messages,
        lambda: paused.wait(0.01),
    ):
        assert told(stuck(paused, call)) == (
            "the server process PID on localhost port PORT had more to send and did not send it "
            f"within 0.2 seconds{NO_STACK}"
        )
    assert told(stuck(paused, lambda: paused.fault("EOM", "450 " + "no " * 30_000))) == (
        "the server process PID on localhost port PORT took no more requests within 0.2 seconds"
        f"{NO_STACK}, or give a longer reset_timeout"
    )


class Deaf(QueueServer):
    """Closes what the test process writes to."""

    def handle_message(self, message: Any) -> None:
        import fcntl
        import stat

        for fd in range(3, 100):
            with contextlib.suppress(OSError):
                is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
                if is_pipe and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                    os.close(fd)
        super().handle_message(message)


def test_a_handler_that_closes_what_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, "_END_TIMEOUT")
    with ended(WithServer(Deaf, uvloop=False)) as controller:
        deliver(controller, "close")
        error = stuck(controller, controller.sessions)
    text, _, stack = told(error).partition("\n")
    assert text == (
        "the server process PID on localhost port PORT closed the pipe for requests and did not "
        "end within 0.2 seconds.  Look in its stack for what keeps it:"
    )
    assert stack == "STACK"


# Handlers that fail.

FOR_THE_SERVER = (
    ", for the server on localhost port PORT.  "
    "Look at the end of this traceback, not at the call that tells of it:\n\nTRACEBACK"
)


def failure(controller: Controller, call: Callable[[], object]) -> HandlerError:
    there = where(controller)
    with pytest.raises(HandlerError) as caught:
        call()
    assert facts(caught.value) == {**there, "traceback": caught.value.traceback}
    assert caught.value.traceback.startswith("Traceback (most recent call last):\n")
    survives(caught.value)
    return caught.value


def test_a_handler_that_raises() -> None:
    with Controller(Failing()) as controller:
        assert deliver(controller, "bad") == (451, b"4.3.0 Error: (ValueError) I do not like bad")
        error = failure(controller, controller.reset)
    assert told(error) == (
        "Failing.handle_message raised ValueError: I do not like bad" + FOR_THE_SERVER
    )
    assert error.traceback.endswith("\nValueError: I do not like bad\n")


class Wordy(Server):
    """Raises what the subject says."""

    def handle_message(self, message: Any) -> None:
        raise {
            "silent": KeyError(),
            "lines": ValueError("one\nand two"),
            "long": ValueError("no " * 1000),
            "full": queue.Full("of mail"),
            "disk": OSError(errno.ENOSPC, "No space left"),
        }[message["subject"]]


@pytest.mark.parametrize(
    ("subject", "raised", "reply"),
    [
        ("silent", "KeyError", (451, "4.3.0 Error: (KeyError)")),
        ("lines", "ValueError: one and two", (451, "4.3.0 Error: (ValueError) one and two")),
        (
            "long",
            "ValueError: " + ("no " * 134)[:400],
            (451, "4.3.0 Error: (ValueError) " + ("no " * 134)[:400]),
        ),
        ("full", "Full: of mail", (452, "4.3.1 Error: (Full) of mail")),
        (
            "disk",
            f"OSError: [Errno {errno.ENOSPC}] No space left",
            (452, f"4.3.1 Error: (OSError) [Errno {errno.ENOSPC}] No space left"),
        ),
    ],
)
def test_what_a_handler_raised_is_told_in_one_line(
    wordy: Controller, subject: str, raised: str, reply: tuple[int, str]
) -> None:
    assert deliver(wordy, subject) == (reply[0], reply[1].encode())
    error = failure(wordy, wordy.reset)
    assert told(error) == f"Wordy.handle_message raised {raised}" + FOR_THE_SERVER


@pytest.fixture(scope="module")
def wordy() -> Iterator[Controller]:
    with Controller(Wordy()) as controller:
        yield controller


def test_a_reset_that_raises() -> None:
    with Controller(FailingReset()) as controller:
        error = failure(controller, controller.reset)
    assert told(error) == (
        "FailingReset.reset raised LookupError: nothing to reset" + FOR_THE_SERVER
    )


def test_a_hook_that_raises() -> None:
    with WithServer(Hooked) as controller:
        with connected(controller) as client:
            client.ehlo()
            client.mail("kim@example.com")
            assert client.rcpt("broken@example.com") == (
                451,
                b"4.3.0 Error: (KeyError) 'broken'",
            )
        error = failure(controller, controller.queue.get_nowait)
    assert told(error) == "Hooked.handle_RCPT raised KeyError: 'broken'" + FOR_THE_SERVER


class Forgetful(QueueServer):
    """Its hooks forget what they are asked for."""

    async def handle_MAIL(self, *of_the_session: Any) -> None:
        """Take the sender, and say nothing."""

    async def handle_NOOP(self, *of_the_session: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("line", "command"), [("MAIL FROM:<kim@example.com>", "MAIL"), ("NOOP", "NOOP")]
)
def test_a_hook_without_a_reply(line: str, command: str) -> None:
    reason = f"handle_{command} must return a reply, such as '250 OK', not None"
    with WithServer(Forgetful) as controller:
        with connected(controller) as client:
            client.ehlo()
            assert client.docmd(line) == (451, f"4.3.0 Error: (TypeError) {reason}".encode())
        error = failure(controller, controller.queue.get_nowait)
    assert told(error) == f"Forgetful.handle_{command} raised TypeError: {reason}" + FOR_THE_SERVER


class Drained(queue.Queue):  # type: ignore[type-arg]
    """A queue that takes, and gives nothing."""

    def get_nowait(self) -> Any:
        raise RuntimeError("nothing leaves this queue")


@pytest.mark.parametrize(
    ("target", "subject", "reply", "raised"),
    [
        (
            Refusing(),
            "hi",
            (451, b"4.3.0 Error: (RuntimeError) this queue is closed for the season"),
            "Refusing.put raised RuntimeError: this queue is closed for the season",
        ),
        (
            Drained(),
            "hi",
            (250, b"2.0.0 OK"),
            "Drained.get_nowait raised RuntimeError: nothing leaves this queue",
        ),
    ],
)
def test_a_queue_that_raises(
    target: Any, subject: str, reply: tuple[int, bytes], raised: str
) -> None:
    with Controller(QueueServer("localhost", 0, target)) as controller:
        assert deliver(controller, subject) == reply
        error = failure(controller, controller.reset)
    assert told(error) == raised + FOR_THE_SERVER


class Impatient(QueueServer):
    """Puts from the event loop, and from the thread for handlers."""

    async def handle_VRFY(self, *_: Any) -> str:
        self.queue.put("verified")
        return "252 OK"

    def handle_message(self, message: Any) -> None:
        super().handle_message(message)


class Slow:
    """A queue that takes its time."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def put(self, _item: object) -> None:
        self.may_go_on.wait(10)


def test_a_put_that_would_wait_for_ever() -> None:
    with Controller(Impatient("localhost", 0, queue.Queue())) as controller:
        with connected(controller) as client:
            client.ehlo()
            client.verify("lee@example.com")
        error = failure(controller, controller.reset)
    assert told(error) == (
        "Impatient.handle_VRFY raised RuntimeError: "
        "on the event loop, put() would wait for ever for what the loop has yet to read: "
        "await asyncio.get_running_loop().run_in_executor(None, self.queue.put, message)"
        + FOR_THE_SERVER
    )


NOT_SEEN_TO = (
    "the test process did not see to its queue within 0.2 seconds: "
    "does the queue's put wait, or do threads get no turn?"
)


def test_a_queue_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, "_PUT_TIMEOUT")
    target = Slow()
    with Controller(QueueServer("localhost", 0, target), start_method="fork") as controller:
        assert deliver(controller, "slow") == (
            451,
            f"4.3.0 Error: (TimeoutError) {NOT_SEEN_TO}".encode(),
        )
        error = failure(controller, controller.reset)
        target.may_go_on.set()
    assert told(error) == f"QueueServer.reset raised TimeoutError: {NOT_SEEN_TO}" + FOR_THE_SERVER


def test_a_put_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, "_PUT_TIMEOUT")
    target = Slow()
    with Controller(Impatient("localhost", 0, target), start_method="fork") as controller:
        deliver(controller, "slow")
        target.may_go_on.set()
        error = failure(controller, controller.reset)
    assert told(error) == (
        f"Impatient.handle_message raised TimeoutError: {NOT_SEEN_TO}" + FOR_THE_SERVER
    )


# Messages that do not come, or do.


def missing(call: Callable[[], object]) -> MessageNotReceived:
    with pytest.raises(MessageNotReceived) as caught:
        call()
    assert caught.value.elapsed is not None
    survives(caught.value)
    return caught.value


def test_no_message(controller: QueueController) -> None:
    error = missing(lambda: controller.wait(0.01, subject="lunch"))
    assert told(error) == (
        "no message with subject containing 'lunch' came to localhost port PORT within N seconds\n"
        "Does the program send there?  sessions() shows who connected; "
        "if it is slow, give a longer timeout"
    )
    assert facts(error) == {**where(controller), "elapsed": error.elapsed}


def test_another_message(controller: QueueController) -> None:
    send_to(controller, "dinner", *"123456")
    error = missing(lambda: controller.wait(0.01, subject="Dinner"))
    headline = "- from <kim@example.com> to <lee@example.com>, subject "
    assert told(error) == "\n".join(
        [
            "no message with subject containing 'Dinner' came to localhost port PORT "
            "within N seconds; 7 messages are there:",
            f"{headline}'dinner'",
            "    subject: wanted containing 'Dinner', got 'dinner', which differs in case",
            *(
                f"{headline}'{n}'\n    subject: wanted containing 'Dinner', got '{n}'"
                for n in "1234"
            ),
            "- and 2 more, which came no nearer",
            "If it was yet to come, give a longer timeout; sessions() shows what clients did",
        ]
    )
    assert [miss.message["subject"] for miss in error.near_misses] == ["dinner", *"1234"]
    assert {**facts(error), "near_misses": 0} == {
        **where(controller),
        "elapsed": error.elapsed,
        "near_misses": 0,
    }


def test_too_few_messages(controller: QueueController) -> None:
    send_to(controller, "lunch")
    error = missing(lambda: controller.wait_many(2, 0.01, subject="lunch"))
    assert told(error) == (
        "only 1 of 2 messages with subject containing 'lunch' came to localhost port PORT "
        "within N seconds; 1 message is there\n"
        "If it was yet to come, give a longer timeout; sessions() shows what clients did"
    )


def test_no_message_while_the_event_loop_stands_still(controller: QueueController) -> None:
    async def wait() -> None:
        controller.wait(0.01)

    async def wait_on_a_thread() -> None:
        await asyncio.to_thread(controller.wait, 0.01)

    hint = (
        "\nThe event loop of this thread stood still meanwhile; if one of its tasks sends, "
        "call this on another thread, by asyncio.to_thread()"
    )
    apart = missing(lambda: asyncio.run(wait_on_a_thread()))
    assert "event loop" not in told(apart)
    assert told(missing(lambda: asyncio.run(wait()))) == told(apart) + hint


def test_no_message_from_a_server_that_was_stopped() -> None:
    with QueueController() as controller:
        there = where(controller)
    error = missing(controller.wait)
    assert told(error) == (
        "no message came to localhost port PORT within N seconds\n"
        "No server is running, so none can come: call start() first"
    )
    assert facts(error) == {**there, "elapsed": error.elapsed}


def test_no_message_without_a_server() -> None:
    error = missing(MessageQueue().wait)
    assert told(error) == (
        "no message came within N seconds\n"
        "No server is running, so none can come: call start() first"
    )


def test_a_message_that_was_not_to_come(controller: QueueController) -> None:
    send_to(controller, "invoice")
    with pytest.raises(UnexpectedMessage) as caught:
        controller.expect_none(subject="invoice")
    error = caught.value
    assert told(error) == (
        "a message with subject containing 'invoice' was there on localhost port PORT "
        "after N seconds, and none was to come for 0.2 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, subject 'invoice'\n"
        "  | Hello.\n"
        "If it was to come before, take it, or call reset(), before expect_none()"
    )
    assert error.message["subject"] == "invoice"
    assert facts(error).keys() == {"host", "port", "pid", "elapsed", "message"}
    survives(error)


def test_a_gate_that_nobody_comes_to(controller: QueueController) -> None:
    with controller.gate("RCPT") as gate, pytest.raises(GateTimeout) as caught:
        gate.wait_parked(0.01, count=2)
    assert told(caught.value) == (
        "0 of 2 sessions came to the gate at RCPT on localhost port PORT within N seconds; "
        "sessions() shows what they did instead"
    )
    assert facts(caught.value) == {**where(controller), "elapsed": caught.value.elapsed}
    survives(caught.value)


def empty(call: Callable[[], object], port: int | None = None) -> str:
    with pytest.raises(queue.Empty) as caught:
        call()
    return re.sub(r"within \S+ seconds", "within N seconds", told(caught.value, port))


def test_an_empty_queue(controller: QueueController) -> None:
    assert empty(controller.queue.get_nowait, controller.port) == (
        "no message is there, on localhost port PORT: wait() waits for one that is yet to come"
    )
    assert empty(lambda: controller.queue.get(timeout=0.01), controller.port) == (
        "no message came to localhost port PORT within N seconds: "
        "give a longer timeout, or see in sessions() what clients did"
    )


def test_an_empty_queue_of_a_server_that_was_stopped() -> None:
    with QueueController() as controller:
        pass
    for call in (controller.queue.get_nowait, controller.queue.get):
        assert empty(call, controller.port) == (
            "no message is there, and no server runs on localhost port PORT: call start() first"
        )


def test_an_empty_queue_without_a_server() -> None:
    assert empty(MessageQueue().get_nowait) == (
        "no message is there, and no server was started: call start() first"
    )


# Where to listen.


def not_listening(host: str, port: int) -> OSError:
    with pytest.raises(OSError, match="cannot listen") as caught:
        QueueController(host, port).start()
    return caught.value


def test_a_port_that_is_taken(controller: QueueController) -> None:
    error = not_listening("localhost", controller.port)
    assert told(error, controller.port) == (
        f"[Errno {errno.EADDRINUSE}] cannot listen on 'localhost' port PORT: "
        f"{os.strerror(errno.EADDRINUSE)}; somebody listens there: "
        "choose another port, or 0 for a free one"
    )


def test_an_address_of_another_machine() -> None:
    assert str(not_listening("192.0.2.1", 0)) == (
        f"[Errno {errno.EADDRNOTAVAIL}] cannot listen on '192.0.2.1' port 0: "
        f"{os.strerror(errno.EADDRNOTAVAIL)}; "
        "the host must be a name or an address of this machine"
    )


def test_a_host_that_there_is_not() -> None:
    error = not_listening("no-such-host.invalid", 0)
    reason = error.__cause__
    assert isinstance(reason, socket.gaierror)
    assert str(error) == (
        f"[Errno {reason.errno}] cannot listen on 'no-such-host.invalid' port 0: "
        f"{reason.strerror}; the host must be a name or an address of this machine"
    )


def test_a_machine_that_does_not_know_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a bare chroot, which has no /etc/hosts."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert str(not_listening("localhost", 0)) == (
        f"[Errno {socket.EAI_NONAME}] cannot listen on 'localhost' port 0: "
        "Name or service not known; /etc/hosts should have this name: "
        "add it, or give '127.0.0.1' as the host"
    )


def test_a_host_that_is_no_name() -> None:
    error = not_listening("x" * 64 + ".example", 0)
    assert str(error) == (
        f"[Errno {socket.EAI_NONAME}] cannot listen on '{'x' * 64}.example' port 0: "
        f"not a host name ({error.__cause__}); "
        "the host must be a name or an address of this machine"
    )


def without_privilege(writer: Any) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        QueueController("127.0.0.1", 1).start()
    except BaseException as error:
        writer.send(error)


def may_listen_anywhere() -> bool:
    with contextlib.suppress(OSError):
        least = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        return int(least) <= 1
    return sys.platform == "darwin"


@pytest.mark.skipif(may_listen_anywhere(), reason="every port is free to all here")
def test_a_port_that_needs_privilege() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=without_privilege, args=(writer,))
        process.start()
    assert reader.poll(10)
    error = reader.recv()
    process.join(10)
    assert isinstance(error, PermissionError)
    assert str(error) == (
        f"[Errno {errno.EACCES}] cannot listen on '127.0.0.1' port 1: "
        f"{os.strerror(errno.EACCES)}; "
        "ports below 1024 need privilege: choose another, or 0 for a free one"
    )


# TLS.

CERTFILE_ADVICE = (
    "; certfile must have the certificate, and keyfile or certfile its private key, "
    "in PEM form and not encrypted"
)


def test_a_certificate_that_is_missing(tmp_path: Path) -> None:
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(FileNotFoundError) as caught:
        QueueController(tls=TLS(certfile=certfile, keyfile=keyfile)).start()
    assert str(caught.value) == (
        f"[Errno {errno.ENOENT}] cannot serve TLS with {certfile}, {keyfile}: "
        f"{os.strerror(errno.ENOENT)}{CERTFILE_ADVICE}"
    )


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    import ssl

    certfile = tmp_path / "cert.pem"
    certfile.write_text("no certificate\n")
    with pytest.raises(ssl.SSLError) as caught:
        QueueController(tls=TLS(certfile=certfile)).start()
    reason = caught.value.__cause__
    assert isinstance(reason, ssl.SSLError)
    text = f"cannot serve TLS with {certfile}: {reason.strerror}{CERTFILE_ADVICE}"
    assert (caught.value.errno, caught.value.strerror) == (reason.errno, text)
    assert str(caught.value).endswith(text) or str(caught.value) == text


def test_a_certificate_to_trust_that_is_missing(tmp_path: Path) -> None:
    controller = QueueController(tls=TLS(certfile=tmp_path / "cert.pem"))
    with pytest.raises(FileNotFoundError) as caught:
        controller.client_context()
    assert str(caught.value) == (
        f"[Errno {errno.ENOENT}] cannot trust {tmp_path / 'cert.pem'}: "
        f"{os.strerror(errno.ENOENT)}; ca_file, or else certfile, "
        "must have the certificates to trust, in PEM form"
    )


def test_no_tls_to_trust(controller: QueueController) -> None:
    for look in (controller.client_context, lambda: controller.ca_file):
        with pytest.raises(ValueError, match="no TLS") as caught:
            look()
        assert told(caught.value, controller.port) == (
            "the server on localhost port PORT has no TLS: "
            "make it with tls='starttls' or 'implicit'"
        )


def test_what_is_not_installed() -> None:
    script = """
import sys
sys.modules.update(trustme=None, uvloop=None)
from lazr_smtptest import QueueController
for options in {"tls": "implicit"}, {"uvloop": True}:
    try:
        QueueController(**options).start()
    except ImportError as error:
        print(error.name, error, sep=": ")
"""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    assert done.stdout.splitlines() == [
        "trustme: tls without a certificate of your own needs trustme: "
        "pip install 'lazr-smtptest[tls]', or give TLS a certfile and keyfile",
        "uvloop: uvloop=True needs uvloop: pip install 'lazr-smtptest[speed]'",
    ]


# Options.

SERVER_OPTIONS = (
    "tls, auth, auth_required, auth_require_tls, hide, hostname, ident, data_size_limit, "
    "line_length_limit, recipient_limit, reset_on_rset"
)


class _NotSetUp(Server):
    def __init__(self):  # type: ignore[no-untyped-def]
        pass


class _Awaiting(Server):
    async def handle_message(self, message):  # type: ignore[no-untyped-def, override]
        pass


_STAGES = "CONNECT, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, EOM, RSET, NOOP, QUIT"
_EXTENSIONS = (
    "8BITMIME, AUTH, DSN, ENHANCEDSTATUSCODES, HELP, PIPELINING, SIZE, SMTPUTF8, STARTTLS"
)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Controller("localhost"),  # type: ignore[arg-type]
            "server must be a lazr_smtptest Server, not 'localhost'",
        ),
        (
            lambda: Controller(_NotSetUp()),
            "_NotSetUp.__init__ must call super().__init__(), and does not",
        ),
        (
            lambda: Controller(_Awaiting()),
            "_Awaiting.handle_message must be made by def, not by async def: "
            "it is called on a thread, and nobody awaits it",
        ),
        (
            lambda: Controller(QueueServer("localhost", 0, 3)),
            "the server's queue must have a put(message), as a MessageQueue() has; 3 has none",
        ),
        (
            lambda: Controller(Server(), start_method="thread"),
            "start_method must be one of "
            f"{', '.join(multiprocessing.get_all_start_methods())}, not 'thread'",
        ),
        (
            lambda: Controller(Server(), start_timeout=0),
            "start_timeout must be a positive number of seconds, not 0",
        ),
        (
            lambda: Controller(Server(), stop_timeout="1"),  # type: ignore[arg-type]
            "stop_timeout must be a number of seconds, not '1'",
        ),
        (
            lambda: QueueController(hostnam="x", id="y"),
            f"a server has no option 'hostnam', 'id'; it has {SERVER_OPTIONS}",
        ),
        (lambda: Server(7), "host must be a str, not 7"),  # type: ignore[arg-type]
        (
            lambda: Server("a\nb"),
            "host must be one line of printable text, not 'a\\nb'",
        ),
        (lambda: Server(port="25"), "port must be an int, not '25'"),  # type: ignore[arg-type]
        (lambda: Server(port=70000), "port must be from 0 to 65535, not 70000"),
        (lambda: Server(recipient_limit=0), "recipient_limit must be 1 or more, not 0"),
        (
            lambda: Server(tls=7),  # type: ignore[arg-type]
            "tls must be a TLS, 'starttls' or 'implicit', not 7",
        ),
        (lambda: Server(tls="ssl"), "mode must be 'starttls' or 'implicit', not 'ssl'"),
        (
            lambda: TLS(variant="revoked"),
            "variant must be 'valid', 'expired', 'wrong-host' or 'untrusted', not 'revoked'",
        ),
        (
            lambda: TLS(keyfile="key.pem"),
            "keyfile needs a certfile: give that, too, or neither",
        ),
        (
            lambda: TLS(variant="expired", certfile="cert.pem"),
            "variant 'expired' is made here: give no certfile with it",
        ),
        (
            lambda: Server(auth=["kim"]),  # type: ignore[arg-type]
            "auth must map names to passwords, not be a list",
        ),
        (
            lambda: Server(auth={"kim": 7}),  # type: ignore[dict-item]
            "auth must map names to passwords, both of them str",
        ),
        (
            lambda: Server(auth={"": "x"}),
            "a name in auth must not be empty, and neither may have a NUL",
        ),
        (
            lambda: Server(auth_required=True),
            "auth_required needs auth, such as auth={'kim': 'secret'}",
        ),
        (
            lambda: Server(auth={"kim": "x"}, auth_require_tls=True),
            "auth_require_tls needs tls, such as tls='starttls'",
        ),
        (lambda: Server(hide="DSN"), "hide must be several names, such as ('DSN',)"),
        (lambda: Server(hide=["VRFY"]), f"hide may have {_EXTENSIONS}, not VRFY"),
        (
            lambda: Server(hostname=""),
            "hostname must not be empty: leave it out, and it is 'localhost'",
        ),
        (
            lambda: lazr_smtptest.Contoller,  # type: ignore[attr-defined]
            "module 'lazr_smtptest' has no attribute 'Contoller'",
        ),
    ],
)
def test_options_of_servers(make: Callable[[], object], text: str) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        (("RCTP", "450 No"), {}, f"stage must be one of {_STAGES}, not 'RCTP'"),
        (("MAIL", "450 No"), {"when": 7}, "when must be a str, such as '*@example.com', not 7"),
        (
            ("MAIL", "450 No"),
            {"times": 0},
            "times must be a whole number from 1 on, or None, not 0",
        ),
        (("MAIL",), {"delay": -1}, "delay must be a finite number of seconds from 0 on, not -1"),
        (("MAIL",), {"delay": "1"}, "delay must be a number of seconds, not '1'"),
        (
            ("MAIL",),
            {"drop": "later"},
            "drop must be True, False or one of 'before', 'instead', 'after', not 'later'",
        ),
        (
            ("MAIL", "450 No"),
            {"drop": "before"},
            "drop='before' means that there is no reply: give one or the other",
        ),
        (("MAIL",), {}, "a fault needs a reply, a delay, or drop"),
        (
            ("MAIL", 450),
            {},
            "reply must be a str, such as '451 4.7.1 Later', not 450",
        ),
        (
            ("MAIL", "No"),
            {},
            "reply must begin with a reply code, such as '451 4.7.1 Later', not 'No'",
        ),
        (
            ("MAIL", "450 N\0"),
            {},
            "reply must be printable text, with a line feed between lines, not '450 N\\x00'",
        ),
        (
            ("MAIL", "450 No\n451 No"),
            {},
            "reply must have one code in all its lines, not 450 and 451: '450 No\\n451 No'",
        ),
        (
            ("DATA", "354 Go"),
            {},
            "a fault at DATA that says 354 has the client send content that nobody awaits: "
            "give a delay alone, drop, or a fault at EOM",
        ),
    ],
)
def test_options_of_faults(
    controller: QueueController, args: Any, options: Any, text: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        controller.fault(*args, **options)
    assert str(caught.value) == text


def test_options_of_gates(controller: QueueController) -> None:
    with controller.gate("RCPT") as gate:
        for call, text in (
            (
                lambda: gate.wait_parked(-1),
                "timeout must be a finite number of seconds from 0 on, not -1",
            ),
            (lambda: gate.wait_parked(count=0), "count must be a whole number from 1 on, not 0"),
            (lambda: gate.release(0), "count must be a whole number from 1 on, not 0"),
        ):
            with pytest.raises(ValueError, match="must be") as caught:
                call()
            assert str(caught.value) == text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"timeout": "1"}, "timeout must be a number of seconds, not '1'"),
        ({"timeout": -1}, "timeout must be a finite number of seconds from 0 on, not -1"),
        ({"where": "x"}, "where must be a callable that takes a message, not 'x'"),
        (
            {"recipient": "x"},
            "a message has no 'recipient' to look for; there is rcpt, sender, to, subject, where",
        ),
        (
            {"subject": re.compile(b"x")},
            "subject must be a pattern of str, not of bytes: re.compile(b'x')",
        ),
        ({"to": 7}, "to must be a str, a compiled pattern or a callable, not 7"),
    ],
)
def test_criteria(controller: QueueController, wanted: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        controller.wait(**wanted)
    assert str(caught.value) == text


def test_a_count_of_messages(controller: QueueController) -> None:
    with pytest.raises(ValueError, match="count") as caught:
        controller.wait_many(0)
    assert str(caught.value) == "count must be a whole number from 1 on, not 0"


# The pytest plugin.

INNER = """
import pytest
from helpers import send_to

class TestMarked:
    @pytest.mark.smtptest("one.example", 2525)
    def test_positional(self, smtptest):
        pass

    @pytest.mark.smtptest(hostnam="one.example")
    def test_unknown(self, smtptest):
        pass

def test_unread(smtptest, smtptest_factory):
    send_to(smtptest, "left")
    send_to(smtptest_factory(), *range(21))

class TestOptions:
    @pytest.fixture
    def smtptest_options(self):
        return ["localhost"]

    def test_no_options(self, smtptest_factory):
        smtptest_factory()
"""


def reports(pytester: pytest.Pytester) -> dict[str, str]:
    """Run pytest in this process; give the report on each test that failed."""
    run = pytester.inline_run("-p", "no:randomly", "-p", "no:asyncio")
    return {
        report.nodeid.rpartition("::")[2]: report.longreprtext
        for report in run.getreports("pytest_runtest_logreport")
        if report.failed
    }


def error_in(report: str) -> str:
    """Give the error from the traceback that pytest made of it."""
    return "\n".join(re.findall(r"^E +(.*)", report, re.MULTILINE))


def test_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsmtptest_strict = true\n")
    pytester.makepyfile(INNER)
    found = reports(pytester)
    assert error_in(found["test_positional"]) == (
        "TypeError: @pytest.mark.smtptest takes keyword arguments only, such as port=2525, "
        "not 'one.example', 2525"
    )
    assert error_in(found["test_unknown"]) == (
        "TypeError: smtptest has no option 'hostnam'; it has host, port, start_method, "
        f"start_timeout, stop_timeout, reset_timeout, uvloop, {SERVER_OPTIONS}"
    )
    assert error_in(found["test_no_options"]) == (
        "TypeError: smtptest_options must be a dict of options, not ['localhost']"
    )
    headline = "- from <kim@example.com> to <lee@example.com>, subject "
    advice = "take it, with wait() say, or call reset()"
    assert re.sub(r"port \d+", "port PORT", found["test_unread"]) == "\n".join(
        [
            f"the test left mail unread, on localhost port PORT: {advice}",
            f"{headline}'left'",
            f"the test left mail unread, on localhost port PORT: {advice}",
            *(f"{headline}'{n}'" for n in range(20)),
            "- and 1 more",
        ]
    )


def test_a_port_that_is_taken_from_a_worker(controller: QueueController) -> None:
    with pytest.raises(OSError, match="gw0") as caught:
        Worker("gw0").serve({"port": controller.port})
    assert told(caught.value, controller.port) == (
        f"[Errno {errno.EADDRINUSE}] pytest-xdist's worker gw0: "
        f"cannot listen on 'localhost' port PORT: {os.strerror(errno.EADDRINUSE)}; "
        "somebody listens there: choose another port, or 0 for a free one"
    )


@pytest.mark.parametrize(
    ("port", "text"),
    [
        ("smtp", r"smtptest_port must be a number, 0 for a free one: .*'smtp'"),
        ("70000", r"smtptest_port must be from 0, for a free one, to 65535, not 70000"),
    ],
)
def test_a_port_that_cannot_be(pytester: pytest.Pytester, port: str, text: str) -> None:
    pytester.makeini(f"[pytest]\nsmtptest_port = {port}\n")
    with pytest.raises(pytest.UsageError) as caught:
        pytester.parseconfigure("-p", "no:asyncio")
    assert re.fullmatch(text, str(caught.value))


def test_a_strictness_that_cannot_be(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsmtptest_strict = perhaps\n")
    with pytest.raises(pytest.UsageError) as caught:
        pytester.parseconfigure("-p", "no:asyncio")
    assert str(caught.value) == (
        "smtptest_strict must be true or false: invalid truth value 'perhaps'"
    )


# That there is a test for each.

#: Raised within the server process, for itself.
_INTERNAL = {"an answer that is too long"}

#: A reply that a client gets of it.
_REPLY = re.compile(r"[45]\d\d ")


def pieces(nodes: list[ast.expr]) -> list[str]:
    """Give what is certain to be in the texts that some expressions make."""
    constants = (node.value for root in nodes for node in ast.walk(root) if is_text(node))
    return [text for text in map(squeezed, constants) if " " in text]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def squeezed(text: str) -> str:
    return " ".join(text.split())


def raised_in(source: str) -> Iterator[tuple[int, str]]:
    """Find what the texts of errors are made of.

    :return: For each piece of text its line.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or not is_error(node.func):
                continue
            found = pieces([*node.args[:2]])
            if not found and isinstance(node.args and node.args[0], ast.Name):
                # Made in some lines above.
                found = pieces([n.value for n in ast.walk(function) if is_assignment(n)])
            if found and not _REPLY.match(found[0]) and found[0] not in _INTERNAL:
                yield from ((node.lineno, piece) for piece in found)


def is_error(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)
    return name in {*lazr_smtptest.errors.__all__, "Empty", "fail", "type(error)"} or (
        name.endswith("Error") and name != "AssertionError"
    )


def is_assignment(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign | ast.AugAssign)


def here() -> str:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    return "\0".join(squeezed(node.value) for node in ast.walk(tree) if is_text(node))


def test_no_raise_goes_unheard() -> None:
    """Each error's text is in a test above, whatever module it comes from."""
    heard = here()
    package = Path(lazr_smtptest.__file__).parent
    unheard = [
        f"{path.name}:{line}: {piece}"
        for path in sorted(package.glob("*.py"))
        if path.name not in ("__main__.py", "errors.py")
        for line, piece in raised_in(path.read_text(encoding="utf-8"))
        if piece not in heard
    ]
    assert unheard == []


@pytest.mark.parametrize(
    "code",
    [
        "raise ServerDied('of \\n a new cause')",
        "raise ValueError(f'{it} is of a new cause') from None",
        "return errors.StartError(f'{name} is of a new cause', host=host)",
        "text = f'{name} is'\n    text += ' of a new cause'\n    raise ServerStuck(text)",
    ],
)
def test_a_new_error_is_found(code: str) -> None:
    found = [piece for _, piece in raised_in(f"def f():\n    {code}\n")]
    assert [piece for piece in found if "of a new cause" in piece]
