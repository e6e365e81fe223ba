"""Tests stop the clock, and replace what the standard library calls: the server does not mind."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import operator
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from socket import AF_INET, socket
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime
from types import ModuleType
from typing import Any
from unittest import mock

import freezegun
import pytest
import time_machine
from helpers import EVENT_LOOPS, START_METHODS, connected, gone, loop_name, send, send_to, serving
from scripts import run_python

from lazr_smtptest import (
    Controller,
    MessageNotReceived,
    MessageQueue,
    QueueController,
    QueueServer,
)

#: What a program calls, and a test of that program may replace.
FUNCTIONS = """
    time.clock_gettime time.gmtime time.localtime time.monotonic time.monotonic_ns
    time.perf_counter time.sleep time.time time.time_ns
    os._exit os.close os.dup2 os.environ os.fork os.fspath os.fstat os.get_inheritable os.getpid
    os.kill os.listdir os.open os.path.exists os.pidfd_open os.pipe os.read os.readv
    os.register_at_fork os.remove os.set_blocking os.set_inheritable os.stat os.unlink os.urandom
    os.waitpid os.waitstatus_to_exitcode os.write os.writev
    select.epoll select.poll select.select selectors.DefaultSelector selectors.PollSelector
    signal.getsignal signal.pthread_sigmask signal.set_wakeup_fd signal.signal signal.valid_signals
    socket.create_connection socket.getfqdn socket.gethostname socket.socket
    socket.socketpair
    threading.Condition threading.Event threading.Lock threading.RLock threading.Thread
    threading.current_thread threading.get_ident threading.main_thread
    asyncio.get_event_loop asyncio.new_event_loop asyncio.run asyncio.sleep
    atexit.register builtins.open datetime.datetime email.message_from_bytes fcntl.fcntl
    gc.collect gc.freeze io.FileIO io.open logging.getLogger multiprocessing.Pipe
    multiprocessing.Process multiprocessing.connection.wait pickle.dumps pickle.loads random.random
    shutil.rmtree ssl.SSLContext ssl.create_default_context
    subprocess.Popen subprocess.run sys.stderr sys.stdout tempfile.mkdtemp tempfile.mkstemp
    uuid.uuid4
""".split()

#: Names that this system, or this Python, does not have.
FUNCTIONS = [
    name
    for name in FUNCTIONS
    if name not in ("os.pidfd_open", "select.epoll") or sys.platform == "linux"
]

#: What is to be added to `now`; time-machine replaces this clock.
BEFORE = clock_gettime(CLOCK_REALTIME) - clock_gettime(CLOCK_MONOTONIC)


class Client:
    """An SMTP client that looks nothing up but its own."""

    def __init__(self, port: int) -> None:
        self._socket = socket(AF_INET)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", port))
        self.say(b"", b"220")
        self.say(b"HELO client.example\r\n", b"250")

    def say(self, line: bytes, code: bytes) -> None:
        self._socket.sendall(line)
        reply = b""
        while not reply.endswith(b"\r\n"):
            octets = self._socket.recv(4096)
            assert octets, "the server hung up"
            reply += octets
        assert reply.startswith(code)

    def send(self, subject: bytes) -> None:
        self.say(b"MAIL FROM:<kim@example.com>\r\n", b"250")
        self.say(b"RCPT TO:<lee@example.com>\r\n", b"250")
        self.say(b"DATA\r\n", b"354")
        self.say(b"Subject: %s\r\n\r\nHello.\r\n.\r\n" % subject, b"250")

    def close(self) -> None:
        self._socket.close()


def now() -> float:
    return clock_gettime(CLOCK_MONOTONIC)


def is_real(moment: Any) -> bool:
    """Whether a time is that of this test."""
    seconds = moment.timestamp() if hasattr(moment, "timestamp") else moment
    return abs(seconds - now() - BEFORE) < 600


def use(controller: QueueController, client: Client) -> None:
    """Call what has a deadline, reads a pipe, or has a time in its answer."""
    client.send(b"one")
    assert controller.wait()["subject"] == "one"
    assert is_real(controller.sessions()[-1].connected_at)
    began = now()
    controller.expect_none(0.05)
    with pytest.raises(MessageNotReceived):
        controller.wait(timeout=0.05)
    assert 0.1 <= now() - began < 5
    fault = controller.fault("RCPT", delay=0.02, times=1)
    began = now()
    client.send(b"two")
    assert now() - began >= 0.02
    assert fault.fired == 1
    assert is_real(controller.queue.get_nowait().envelope.received_at)
    client.send(b"three")
    controller.reset()
    assert controller.queue.empty()


def run_through(start_method: str) -> int | None:
    """Start and stop a server, and return the id of its process."""
    controller = QueueController("127.0.0.1", start_method=start_method)
    controller.start()
    pid = controller.pid
    client = Client(controller.port)
    use(controller, client)
    client.close()
    controller.stop()
    assert not controller.is_running
    return pid


def replaced(name: str) -> AbstractContextManager[Any]:
    return mock.patch(name, side_effect=AssertionError(f"{name} was called"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_server_while_a_function_is_replaced(name):
    with replaced(name) as fake:
        pid = run_through("fork")
        module, _, attribute = name.rpartition(".")
        assert operator.attrgetter(attribute)(sys.modules[module]) is fake
    assert gone(pid)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_running_server_when_a_function_is_replaced(name, running_for_clients):
    controller, client = running_for_clients
    with replaced(name):
        use(controller, client)


@pytest.fixture(scope="module")
def running_for_clients() -> Iterator[tuple[QueueController, Client]]:
    with QueueController("127.0.0.1") as controller:
        client = Client(controller.port)
        yield controller, client
        client.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", START_METHODS)
def test_each_way_to_start_while_functions_are_replaced(method):
    names = "time.monotonic time.sleep time.time os.close os.kill os.pipe os.read os.waitpid"
    with contextlib.ExitStack() as stack:
        for name in [*names.split(), "select.poll", "threading.Thread", "socket.socket"]:
            stack.enter_context(replaced(name))
        run_through(method)


#: Methods that a test of a program may replace, for all objects there are.
METHODS = """
    logging.Handler.handle logging.Logger.info logging.Logger.isEnabledFor
    socket.socket.accept socket.socket.bind socket.socket.close socket.socket.connect
    socket.socket.detach socket.socket.getsockname
    socket.socket.listen socket.socket.recv socket.socket.send socket.socket.sendall
    socket.socket.setblocking socket.socket.setsockopt
    threading.Condition.wait threading.Event.set threading.Event.wait
    threading.Semaphore.acquire threading.Thread.run threading.Thread.start
""".split()


@pytest.mark.parametrize("name", METHODS)
def test_a_server_that_is_started_and_stopped_while_a_method_is_replaced(name):
    class Handling(QueueServer):
        def handle_message(self, message):
            super().handle_message(message)

    server = Handling("127.0.0.1", 0, MessageQueue())
    controller = Controller(server, start_method="fork", uvloop=False)
    with replaced(name) as fake:
        controller.start()
        module, _, method = name.partition(".")
        assert operator.attrgetter(method)(sys.modules[module]) is fake
    send_to(controller, "one")
    assert server.queue.get_nowait()["subject"] == "one"
    with replaced(name):
        controller.stop()


def test_a_method_that_a_library_has_added(monkeypatch):
    """Such as a level of its own, as several have it."""
    monkeypatch.setattr(logging.Logger, "trace", logging.Logger.debug, raising=False)

    class Tracing(QueueServer):
        def handle_message(self, message):
            logging.getLogger("shop").trace("hello")
            super().handle_message(message)

    server = Tracing("127.0.0.1", 0, MessageQueue())
    with replaced("logging.Logger.info"):
        controller = Controller(server, start_method="fork")
        controller.start()
        assert logging.Logger.trace is logging.Logger.debug
    send_to(controller, "one")
    assert server.queue.get_nowait()["subject"] == "one"
    controller.stop()


def test_a_stuck_server_is_killed_while_functions_are_replaced():
    with QueueController(stop_timeout=2) as controller:
        pid = controller.pid
        os.kill(pid, signal.SIGSTOP)
        with replaced("os.kill"), replaced("os.waitpid"), replaced("time.monotonic"):
            controller.stop()
    assert gone(pid)


# Clocks that stand still, or are elsewhere.


class Clocks(QueueServer):
    """Puts what its clocks say."""

    def handle_message(self, message):
        logging.getLogger("clocks").warning("hello")
        self.queue.put((time.time(), datetime.datetime.now(datetime.timezone.utc), now()))


TOKYO = datetime.timezone(datetime.timedelta(hours=9))
FREEZERS = {
    "freezegun": functools.partial(freezegun.freeze_time, "2001-01-01"),
    "freezegun, in future": functools.partial(freezegun.freeze_time, "2099-01-01"),
    "freezegun, ticking": functools.partial(freezegun.freeze_time, "2001-01-01", tick=True),
    "freezegun, by steps": functools.partial(
        freezegun.freeze_time, "2001-01-01", auto_tick_seconds=10
    ),
    "time-machine": functools.partial(time_machine.travel, 0),
    "time-machine, frozen": functools.partial(
        time_machine.travel, datetime.datetime(2001, 1, 1, tzinfo=TOKYO), tick=False
    ),
}


@contextlib.contextmanager
def nested() -> Iterator[None]:
    with time_machine.travel(0), time_machine.travel(1_000_000):
        yield


FREEZERS["time-machine, nested"] = nested


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
@pytest.mark.parametrize("freeze", FREEZERS.values(), ids=FREEZERS)
def test_a_server_that_is_started_while_time_stands_still(freeze, uvloop, caplog):
    with contextlib.ExitStack() as stack:
        with freeze():
            plain = stack.enter_context(QueueController("127.0.0.1", uvloop=uvloop))
            clocks = stack.enter_context(serving(Clocks, uvloop=uvloop))
            client = Client(plain.port)
            use(plain, client)
        # Later tests, by the real clock.
        use(plain, client)
        client.close()
        with connected(clocks) as client_of_clocks:
            send(client_of_clocks, "what time is it?")
        said, moment, monotonic = clocks.server.queue.get_nowait()
        assert is_real(said)
        assert is_real(moment)
        assert type(moment) is datetime.datetime
        assert monotonic <= now()
        [record] = [record for record in caplog.records if record.name == "clocks"]
        assert is_real(record.created)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("kind", ["freezegun", "time-machine"])
def test_each_way_to_start_while_time_stands_still(kind, method):
    with FREEZERS[kind]():
        run_through(method)
    run_through(method)


@pytest.mark.parametrize("name", ["FAKETIME", "FAKETIME_TIMESTAMP_FILE"])
def test_a_fork_is_free_of_libfaketime(name, monkeypatch):
    """Its Python package sets a variable, from which a library of C has the time.

    That one must be there before Python is, so a module of the name stands for both.
    """

    class Environment(QueueServer):
        def handle_message(self, message):
            self.queue.put(os.environ.get(name))

    monkeypatch.setitem(sys.modules, "libfaketime", ModuleType("libfaketime"))
    monkeypatch.setenv(name, "2001-01-01 00:00:00")
    server = Environment("localhost", 0, MessageQueue())
    with Controller(server, start_method="fork") as controller:
        send_to(controller, "one")
        assert server.queue.get_nowait() is None
    assert os.environ[name] == "2001-01-01 00:00:00"


def test_a_handler_that_freezes_time_stops_nobody_else():
    class Freezing(QueueServer):
        def handle_message(self, message):
            with freezegun.freeze_time("2001-01-01"):
                time.sleep(0.2)
                super().handle_message(message)

    with serving(Freezing, uvloop=False) as controller:
        controller.fault("NOOP", delay=0.05)
        with connected(controller) as client:
            send(client, "one")
            client.noop()
            send(client, "two")
        for _ in range(2):
            assert is_real(controller.server.queue.get_nowait().envelope.received_at)


@pytest.mark.parametrize(
    "freeze",
    [
        "freezegun.freeze_time('2001-01-01')",
        "freezegun.freeze_time('2099-01-01')",
        "time_machine.travel(0)",
    ],
)
def test_certificates_that_are_made_while_time_stands_still(freeze):
    done = run_python(f"""
        import freezegun, smtplib, ssl, time_machine
        from lazr_smtptest import QueueController, TLS
        with {freeze}:
            valid = QueueController(tls="starttls")
            expired = QueueController(tls=TLS(variant="expired"))
            valid.start()
            expired.start()
        def greet(controller):
            with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
                client.starttls(context=controller.client_context())
        greet(valid)
        try:
            greet(expired)
        except ssl.SSLCertVerificationError as error:
            print(error.verify_message)
        for controller in valid, expired:
            controller.stop()
    """)
    assert (done.stdout, done.stderr) == ("certificate has expired\n", "")


def test_what_is_first_imported_while_time_stands_still():
    done = run_python("""
        import datetime, freezegun, smtplib
        with freezegun.freeze_time("2001-01-01"):
            import lazr_smtptest
            with lazr_smtptest.QueueController(uvloop=False) as controller:
                controller.expect_none(0.05)
        class Clock(lazr_smtptest.QueueServer):
            def handle_message(self, message):
                self.queue.put((datetime.datetime.now(), message.envelope.received_at))
        server = Clock("localhost", 0, lazr_smtptest.MessageQueue())
        with lazr_smtptest.Controller(server, uvloop=False) as controller:
            controller.fault("EHLO", delay=0.01)
            with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
                client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hi")
            for moment in server.queue.get_nowait():
                print(type(moment) is datetime.datetime, moment.year > 2020)
    """)
    assert (done.stdout, done.stderr) == ("True True\nTrue True\n", "")


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_development_mode_logs_nothing_of_a_slow_server(uvloop):
    done = run_python(
        f"""
        import smtplib, sys, time
        from lazr_smtptest import Controller, Server
        class Slow(Server):
            async def handle_EHLO(self, server, session, envelope, hostname, responses):
                session.host_name = hostname
                time.sleep(0.15)
                return responses
        assert sys.flags.dev_mode
        with Controller(Slow(), uvloop={uvloop}) as controller:
            with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
                client.ehlo()
                print(client.ehlo()[0])
        """,
        PYTHONDEVMODE="1",
    )
    assert (done.stdout, done.stderr) == ("250\n", "")
