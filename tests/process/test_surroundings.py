"""The test process may be in any state: signals, threads, forks, streams, descriptors."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import multiprocessing
import os
import queue
import resource
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import START_METHODS, awaited, connected, gone, send, send_to, subjects, until

from lazr_smtptest import (
    AlreadyRunning,
    Controller,
    HandlerError,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    Server,
    ServerDied,
    StartError,
)


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


def run(script: str, *, redirect: str = "", **environment: str) -> subprocess.CompletedProcess:
    command = f'exec "{sys.executable}" -W error -c "$SCRIPT" {redirect}'
    return subprocess.run(
        ["sh", "-c", command],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SCRIPT": textwrap.dedent(script),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )


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
    done = run(
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
    done = run(
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


# Forks of the test process.


def test_a_forked_child_that_exits_as_usual_harms_no_server():
    done = run(
        """
        import os, sys, warnings
        from lazr_smtptest import QueueController
        from helpers import send_to, subjects
        with QueueController() as controller:
            pid = os.fork()
            if pid == 0:
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            send_to(controller, "alive")
            print(subjects(controller))
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['alive']\n", "", 0)


def forked(work: Callable[[], object]) -> int | None:
    """Do something in a forked child, for ten seconds at most.

    :return: Its exit code: 0 if nothing was raised.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_as_a_child(controller: QueueController) -> None:
    """Do with a parent's controller what a child may try."""
    assert not controller.is_running
    for call in (controller.queue.get_nowait, controller.reset, controller.sessions):
        with pytest.raises(NotRunning, match="belongs to process"):
            call()
    controller.stop()
    controller.start()
    send_to(controller, "to the child")
    assert subjects(controller) == ["to the child"]
    controller.stop()


def test_locks_of_other_threads_hold_up_no_forked_child():
    with QueueController() as controller, ThreadPoolExecutor(1) as pool:
        locked, done = threading.Event(), threading.Event()

        def hold():
            with controller._changing.lock, controller._home._watch.lock:
                locked.set()
                assert done.wait(15)

        holding = pool.submit(hold)
        assert locked.wait(5)
        try:
            assert forked(lambda: use_as_a_child(controller)) == 0
        finally:
            done.set()
        holding.result()
        send_to(controller, "to the parent")
        assert subjects(controller) == ["to the parent"]


def test_starting_while_another_thread_forks():
    """Another module holds a lock of its own over each fork, as the standard library's do."""
    done = run(
        """
        import os, sys, threading, warnings
        from lazr_smtptest import QueueController
        warnings.simplefilter("ignore", DeprecationWarning)
        controller = QueueController()
        with controller:
            pass
        theirs = threading.RLock()
        os.register_at_fork(
            before=theirs.acquire, after_in_parent=theirs.release, after_in_child=theirs.release
        )
        enough = threading.Event()

        def fork():
            while not enough.is_set():
                if (pid := os.fork()) == 0:
                    os._exit(0)
                os.waitpid(pid, 0)

        sys.setswitchinterval(1e-6)
        forking = threading.Thread(target=fork, daemon=True)
        forking.start()
        for _ in range(100):
            with controller:
                pass
        enough.set()
        forking.join()
        print("done")
        """
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


# Descriptors and streams.


LEFT_RUNNING: list[QueueController] = []


def serve_in_worker(method: str) -> tuple[list[str], int | None]:
    """Use a server in a process that multiprocessing has as a daemon; leave another."""
    assert multiprocessing.current_process().daemon
    with QueueController(start_method=method) as controller:
        with connected(controller) as client:
            send(client, "from a worker")
        found = subjects(controller)
    assert multiprocessing.current_process().daemon
    left = QueueController(start_method=method)
    left.start()
    LEFT_RUNNING.append(left)
    return found, left.pid


@pytest.mark.parametrize("method", START_METHODS)
def test_a_worker_of_a_pool_may_have_servers(method):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found, left = pool.apply(serve_in_worker, [method])
    assert found == ["from a worker"]
    until(lambda: gone(left))


def test_descriptors_beyond_1024():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"this machine allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = []
    try:
        held += [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        with QueueController() as controller:
            send_to(controller, "beyond")
            assert subjects(controller) == ["beyond"]
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_standard_streams_that_are_closed(redirect, method, tmp_path):
    (tmp_path / "printing.py").write_text(
        textwrap.dedent("""
            import sys
            from lazr_smtptest import QueueServer
            class Printing(QueueServer):
                def handle_message(self, message):
                    print("printed")
                    print("printed", file=sys.stderr)
                    super().handle_message(message)
        """)
    )
    done = run(
        """
        import os
        from helpers import send_to, subjects
        from printing import Printing
        from lazr_smtptest import Controller, MessageQueue
        inbox = MessageQueue()
        server = Printing("localhost", 0, inbox)
        with Controller(server, start_method=os.environ["METHOD"]) as controller:
            send_to(controller, "one", "two")
            if subjects([inbox.get_nowait(), inbox.get_nowait()]) == ["one", "two"]:
                with open(os.environ["RESULT"], "w") as result:
                    result.write("as it should be")
        """,
        redirect=redirect,
        METHOD=method,
        RESULT=str(tmp_path / "result"),
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    assert (tmp_path / "result").read_text() == "as it should be"
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_handler_that_takes_standard_output_away(capfd):
    class Taking(Server):
        def handle_message(self, message):
            sys.stdout = None
            sys.stderr.close()

    with Controller(Taking()) as controller:
        send_to(controller, "hi")
        pid = controller.pid
    assert gone(pid)
    assert capfd.readouterr().err == ""


# What servers carry with them.


class Reporting(Server):
    def __init__(self, results):
        super().__init__()
        self.queue = results

    def handle_message(self, message):
        self.queue.put(message["subject"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_server_that_is_no_queue_server_may_have_a_queue(method):
    import multiprocessing

    results = multiprocessing.get_context(method).Queue()
    with Controller(Reporting(results), start_method=method) as controller:
        send_to(controller, "mine")
        assert results.get(timeout=10) == "mine"
    results.close()
    results.join_thread()


class Proxy:
    """Stands for nothing at the moment, and says so to whoever looks."""

    __class__ = property(lambda self: 1 / 0)
    __dict__ = property(lambda self: 1 / 0)
    fileno = property(lambda self: 1 / 0)


current_app = Proxy()


def test_a_proxy_among_the_globals_of_a_handler():
    class Careful(QueueServer):
        def handle_message(self, message):
            if message is None:
                current_app.log()
            super().handle_message(message)

    inbox = MessageQueue()
    with Controller(Careful("localhost", 0, inbox)) as controller:
        send_to(controller, "fine")
        assert inbox.get_nowait()["subject"] == "fine"


def test_garbage_that_logs_while_a_message_is_sent():
    """Collecting it, within the very code that sends, sends a log record."""

    class Junk:
        def __init__(self):
            self.myself = self

        def __del__(self):
            logging.getLogger("app").warning("not closed")

    class Littering(QueueServer):
        def handle_message(self, message):
            gc.set_threshold(5)
            for _ in range(3000):
                Junk()
                super().handle_message("x")

    inbox = MessageQueue()
    logger = logging.getLogger("app")
    logger.addHandler(null := logging.NullHandler())
    logger.propagate = False
    try:
        with Controller(Littering("localhost", 0, inbox)) as controller:
            send_to(controller, "hi")
            assert [inbox.get_nowait() for _ in range(3000)] == ["x"] * 3000
    finally:
        logger.removeHandler(null)
        logger.propagate = True


def test_one_queue_cannot_be_filled_by_two_servers():
    inbox = MessageQueue()
    server = QueueServer("localhost", 0, inbox)
    with Controller(server):
        for other in (server, QueueServer("localhost", 0, inbox)):
            with pytest.raises(AlreadyRunning, match="a queue of its own"):
                Controller(other).start()
    with Controller(server) as second:
        send_to(second, "now it may")
    assert inbox.get_nowait()["subject"] == "now it may"


# Nothing is passed over in silence.


class Dying(Server):
    def handle_message(self, message):
        os._exit(3)


def test_a_death_that_no_call_has_told_is_told_by_stop():
    with pytest.raises(ServerDied, match="exit code 3"):
        with Controller(Dying()) as controller:
            with pytest.raises(smtplib.SMTPServerDisconnected):
                send_to(controller, "hi")
    controller.stop()


def test_a_death_before_stop_is_told_by_the_queue_after_it():
    controller = QueueController()
    controller.start()
    send_to(controller, "kept")
    os.kill(controller.pid, signal.SIGKILL)
    until(lambda: not controller.is_running)
    controller.stop()
    assert controller.queue.get_nowait()["subject"] == "kept"
    with pytest.raises(ServerDied, match="SIGKILL"):
        controller.queue.get_nowait()


def test_a_log_handler_that_raises_costs_no_message():
    class Strict(logging.Handler):
        def emit(self, record):
            raise AssertionError("no warnings allowed")

    class Warns(QueueServer):
        def handle_message(self, message):
            logging.getLogger("app").warning("hm")
            super().handle_message(message)

    inbox = MessageQueue()
    with Controller(Warns("localhost", 0, inbox)) as controller:
        send_to(controller, "kept")
        strict = Strict()
        logging.getLogger("app").addHandler(strict)
        try:
            with pytest.raises(AssertionError, match="no warnings allowed"):
                inbox.get_nowait()
        finally:
            logging.getLogger("app").removeHandler(strict)
        assert inbox.get_nowait()["subject"] == "kept"


def test_putting_into_a_foreign_queue_on_the_event_loop_is_an_error():
    class Direct(QueueServer):
        async def handle_DATA(self, server, session, envelope):
            self.queue.put(envelope.content)
            return "250 OK"

    inbox: queue.Queue = queue.Queue()
    with Controller(Direct("localhost", 0, inbox)) as controller:
        with pytest.raises(smtplib.SMTPDataError, match="run_in_executor"):
            send_to(controller, "hi")
        with pytest.raises(HandlerError, match="run_in_executor"):
            controller.reset()


def test_a_hook_with_a_wrong_signature_fails_the_start():
    class Wrong(Server):
        async def handle_EHLO(self, server, session, envelope):
            return "250 x"

    with pytest.raises(StartError, match="Wrong.*EHLO"):
        Controller(Wrong()).start()


@pytest.mark.parametrize("timeout", [math.inf, math.nan, -1])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(ValueError, match="timeout must be"):
        MessageQueue().get(timeout=timeout)


def test_long_timeouts_are_fine():
    with QueueController(stop_timeout=1e9, start_timeout=1e9, reset_timeout=1e9) as controller:
        send_to(controller, "one")
        assert controller.queue.get(timeout=1e7)["subject"] == "one"
        controller.reset()


@pytest.mark.parametrize("host", ["x..y", "a" * 70 + ".example"])
def test_hosts_that_cannot_be_names(host):
    with pytest.raises(OSError, match="cannot listen on.*port 0"):
        QueueController(host).start()


def test_an_empty_hostname_would_have_it_looked_up():
    with pytest.raises(ValueError, match="hostname"):
        QueueController(hostname="")


def test_help_lists_all_commands():
    with QueueController() as controller, connected(controller) as client:
        code, text = client.docmd("HELP")
        assert code == 250
        for verb in (b"DATA", b"EHLO", b"MAIL", b"RCPT", b"RSET"):
            assert verb in text.split()


def test_the_command_line_on_a_terminal_that_knows_no_umlauts():
    script = textwrap.dedent("""
        import re, smtplib, subprocess, sys
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "lazr_smtptest", "--port", "0", "--count", "1"],
            stdout=subprocess.PIPE, text=True,
        )
        port = int(re.search(r"port ([0-9]+)", process.stdout.readline())[1])
        with smtplib.SMTP("localhost", port) as client:
            client.sendmail("a@b.c", ["d@e.f"], "Subject: \\u00fc\\r\\n\\r\\n".encode())
        print(process.communicate(timeout=10)[0], process.returncode)
    """)
    done = run(script, PYTHONIOENCODING="ascii")
    assert "Subject: \\xfc" in done.stdout
    assert done.stdout.endswith(" 0\n")
    assert done.stderr == ""
