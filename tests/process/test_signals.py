"""Threads and signal handlers of the test process, at any moment."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import socket
import sys
import threading
import time
import warnings

import pytest
from helpers import awaited, connected, send, send_to, subjects, until
from scripts import run_python

import lazr_smtptest
from lazr_smtptest import AlreadyRunning, QueueController, ServerDied

PACKAGE = os.path.dirname(lazr_smtptest.__file__)


@contextlib.contextmanager
def handling(number: int, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class Interrupted(BaseException):
    """What the handler of the tests' own Ctrl-C raises; no Exception, like those."""


class Interrupter:
    """Interrupts the main thread, some time after it was told to.

    Not with a timer: those are pytest-timeout's.
    """

    def __init__(self) -> None:
        self._delays: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._run)
        self.armed = False

    def __enter__(self):
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._delays.put(None)
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_):
        if self.armed:
            self.armed = False
            raise Interrupted

    def _run(self):
        while (delay := self._delays.get()) is not None:
            time.sleep(delay)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self._delays.task_done()

    @contextlib.contextmanager
    def after(self, delay: float):
        self.armed = True
        self._delays.put(delay)
        try:
            yield
        finally:
            self.armed = False
            self._delays.join()


# Threads.


def test_a_reader_is_woken_when_another_thread_read_its_message():
    stopping = threading.Event()
    with QueueController() as controller:

        def spin() -> None:
            while not stopping.is_set():
                controller.queue.qsize()

        spinner = threading.Thread(target=spin)
        spinner.start()
        try:
            with connected(controller) as client:
                for number in range(60):
                    got: queue.Queue = queue.Queue()
                    reader = threading.Thread(
                        target=lambda got=got: got.put(controller.queue.get(timeout=5))
                    )
                    reader.start()
                    until(lambda: awaited(controller))
                    started = time.monotonic()
                    send(client, number)
                    assert got.get(timeout=10)["subject"] == str(number)
                    assert time.monotonic() - started < 3
                    reader.join(5)
        finally:
            stopping.set()
            spinner.join(5)


def test_threads_that_start_the_first_controllers_at_once():
    """What one of them is about to import, the others wait for."""
    done = run_python(
        """
        import sys, threading
        from lazr_smtptest import QueueController

        sys.setswitchinterval(1e-5)
        together = threading.Barrier(4)
        served = []

        def work():
            together.wait()
            with QueueController() as controller:
                served.append(controller.port)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(served))
        """
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_threads_that_start_and_stop_controllers_leave_each_other_alone():
    filters = list(warnings.filters)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(12):
                controller = QueueController()
                with controller:
                    if number % 4 == 0:
                        send_to(controller, number)
                        assert subjects(controller) == [str(number)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert warnings.filters == filters


# Signals.


@pytest.mark.timeout(15)
def test_exceptions_from_signal_handlers_at_any_moment():
    """As a test's time limit and Ctrl-C raise them."""
    controller = QueueController()
    controller.start()
    send_to(controller, "have everything imported")
    list(controller)
    with Interrupter() as interrupter, connected(controller) as client:
        for number in range(300):
            send(client, number)
            delay = 1e-6 * (number * 7 % 400)
            with contextlib.suppress(Interrupted), interrupter.after(delay):
                while interrupter.armed:
                    controller.queue.qsize()
                    with contextlib.suppress(queue.Empty):
                        controller.queue.get(timeout=0.0001)
        controller.reset()
        send(client, "intact")
        assert controller.queue.get(timeout=5)["subject"] == "intact"
    controller.stop()


# A socket may be made and not yet be in anybody's care when the exception comes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(60)
def test_an_interrupted_start_or_stop_can_be_followed_by_another():
    controller = QueueController()
    with controller:
        pass  # what it imports is imported: half an import is beyond mending
    with Interrupter() as interrupter:
        for number in range(120):
            with (
                contextlib.suppress(Interrupted, AlreadyRunning),
                interrupter.after(1e-4 * (number * 7 % 200)),
            ):
                controller.start()
                controller.stop()
    controller.stop()
    controller.start()
    send_to(controller, "fine")
    assert subjects(controller) == ["fine"]
    controller.stop()


@pytest.mark.parametrize("name", ["SIGALRM", "SIGINT", "SIGTERM"])
def test_what_a_signal_handler_raises_at_the_fork_is_raised_by_start(name):
    done = run_python(
        f"""
        import multiprocessing, os, signal
        from lazr_smtptest import QueueController
        from helpers import send_to, subjects, until

        class Interrupted(BaseException):
            pass

        def interrupt(*_):
            signal.signal(signal.{name}, signal.SIG_IGN)
            raise Interrupted

        signal.signal(signal.{name}, interrupt)
        os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.{name}))
        controller = QueueController()
        try:
            controller.start()
        except Interrupted:
            print("interrupted")
        until(lambda: not multiprocessing.active_children())
        try:
            print(os.waitpid(-1, 0))
        except ChildProcessError:
            print("no child is left")
        with controller:
            send_to(controller, "fine")
            print(subjects(controller))
        """
    )
    assert (done.stdout, done.stderr) == ("interrupted\nno child is left\n['fine']\n", "")


@pytest.mark.timeout(60)
def test_a_fork_server_that_was_started_here_blocks_no_signals():
    done = run_python(
        """
        import multiprocessing, signal, sys
        from multiprocessing import resource_tracker
        from lazr_smtptest import QueueController
        resource_tracker.ensure_running()
        with QueueController(start_method="forkserver"):
            pass
        context = multiprocessing.get_context("forkserver")
        with context.Pool(1) as pool:
            print(*pool.apply(signal.pthread_sigmask, [signal.SIG_BLOCK, []]))
        """
    )
    assert (done.stdout, done.stderr) == ("\n", "")


class SignalAtLine:
    """Sends a SIGINT before the line of the package that is run as the n-th.

    Or of some packages, given by their folders.
    """

    def __init__(self, number: int, folders: tuple[str, ...] = (PACKAGE,)) -> None:
        self._left = number
        self._folders = folders
        self._process = os.getpid()

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(self._folders) or self.is_sent:
            return None
        if event == "line" and os.getpid() == self._process:
            self._left -= 1
            if self.is_sent:
                signal.raise_signal(signal.SIGINT)
        return self._trace

    @property
    def is_sent(self) -> bool:
        return self._left <= 0


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 11),
    reason="now and then it calls a traceback, where what traces it raises as a function begins",
)
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("call", ["start", "stop", "restart"])
def test_an_exception_of_a_signal_handler_between_any_two_lines_leaves_nothing(call):
    """No process, and no descriptor.  Each fifth line will do, as below."""

    def interrupt(*_):
        raise Interrupted

    def left():
        return len(multiprocessing.active_children()), len(os.listdir("/proc/self/fd"))

    controller = QueueController(start_method="fork")
    with controller:
        pass
    gc.collect()
    before = left()
    folders = (PACKAGE, os.path.dirname(multiprocessing.__file__))
    with handling(signal.SIGINT, interrupt):
        for number in range(1, 5000, 11 if call == "restart" else 5):
            if call != "start":
                controller.start()
            with SignalAtLine(number, folders) as at_line, contextlib.suppress(Interrupted):
                getattr(controller, call)()
            controller.stop()
            assert left() == before, number
            if not at_line.is_sent:
                break
    assert number > 300
    with controller:
        send_to(controller, "fine")
        assert subjects(controller) == ["fine"]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mail", [0, 1])
def test_stop_in_a_signal_handler_between_any_two_lines(mail):
    """What the handler has closed may be what the interrupted call was about to read.

    Each third line will do: what is wrong is wrong for several.
    """
    controller = QueueController()
    kinds = set()
    with handling(signal.SIGINT, lambda *_: controller.stop()):
        for number in range(1, 2000, 3):
            controller.start()
            send_to(controller, *["hello"] * mail)
            with SignalAtLine(number) as at_line, contextlib.suppress(queue.Empty):
                kinds.add(controller.queue.get(timeout=0.001)["subject"])
            kinds.update(subjects(controller))
            if not at_line.is_sent:
                break
    controller.stop()
    assert number > 50
    assert kinds == {"hello"} if mail else kinds == set()


def test_a_message_is_taken_in_a_signal_handler_between_any_two_lines():
    """The call that the handler interrupts may have seen the message that the handler takes."""
    found = []

    def take(*_):
        with contextlib.suppress(queue.Empty):
            found.append(controller.queue.get_nowait()["subject"])

    with QueueController() as controller, handling(signal.SIGINT, take):
        for number in range(1, 2000):
            send_to(controller, "hello")
            assert controller.queue.qsize() == 1
            with SignalAtLine(number) as at_line:
                take()
            if not at_line.is_sent:
                break
        assert found == ["hello"] * number
    assert number > 10


def test_stop_in_a_signal_handler_while_the_main_thread_waits():
    elapsed = []
    controller = QueueController()

    def stop(*_):
        started = time.monotonic()
        controller.stop()
        elapsed.append(time.monotonic() - started)

    controller.start()
    with handling(signal.SIGUSR2, stop):
        main = threading.main_thread().ident
        threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGUSR2)).start()
        started = time.monotonic()
        with pytest.raises(queue.Empty):
            controller.queue.get(timeout=8)
        assert time.monotonic() - started < 5
    assert elapsed[0] < 2


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_children_that_nobody_may_wait_for(handler):
    """With SIGCHLD ignored, no exit code can be had, and that is all."""
    with handling(signal.SIGCHLD, handler):
        controller = QueueController()
        controller.start()
        started = time.monotonic()
        controller.stop()
        assert time.monotonic() - started < 2
        controller.start()
        os.kill(controller.pid, signal.SIGKILL)
        until(lambda: not controller.is_running)
        with pytest.raises(ServerDied):
            controller.queue.get(timeout=3)
        controller.start()
        send_to(controller, "fine")
        assert subjects(controller) == ["fine"]
        controller.stop()


def test_a_test_process_that_dies_of_broken_pipes():
    with handling(signal.SIGPIPE, signal.SIG_DFL), QueueController() as controller:
        for _ in range(100):
            with contextlib.suppress(OSError):
                sock = socket.create_connection((controller.host, controller.port))
                sock.recv(200)
                sock.sendall(b"EHLO x\r\n" * 3)
                sock.close()
        send_to(controller, "alive")
        assert subjects(controller) == ["alive"]
