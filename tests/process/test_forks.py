"""Forks of the test process: a child harms no server, and may have its own."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import send_to, subjects
from scripts import run_python

from lazr_smtptest import NotRunning, QueueController, ServerStuck


def test_a_child_of_the_test_process_is_told_whose_the_controller_is():
    with QueueController() as controller:
        send_to(controller, "for the parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert not controller.is_running
                controller.queue.get_nowait()
            except NotRunning as error:
                status = 0 if "belongs to process" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert subjects(controller) == ["for the parent"]


def test_a_forked_child_that_exits_as_usual_harms_no_server():
    done = run_python(
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
            with controller._changing.lock, controller._link.lock:
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


def test_requests_of_other_threads_hold_up_no_forked_child():
    """Nor does the child write what they had left to write, into a file of its own."""
    with QueueController(reset_timeout=0.2) as controller, ThreadPoolExecutor(1) as pool:
        locked, done = threading.Event(), threading.Event()
        os.kill(controller.pid, signal.SIGSTOP)
        with pytest.raises(ServerStuck):
            controller.fault("RCPT", "\n".join(["451 " + "x" * 900] * 200))
        requests = controller._link._ends.requests.fileno()

        def hold():
            with controller._link._writer._lock:
                locked.set()
                assert done.wait(15)

        def use() -> None:
            with tempfile.TemporaryFile() as file:
                os.dup2(file.fileno(), requests)
                with pytest.raises(NotRunning, match="belongs to process"):
                    controller.queue.get_nowait()
                assert os.fstat(requests).st_size == 0

        holding = pool.submit(hold)
        assert locked.wait(5)
        try:
            assert forked(use) == 0
        finally:
            done.set()
            os.kill(controller.pid, signal.SIGCONT)
        holding.result()
        controller.reset()


def test_starting_while_another_thread_forks():
    """Another module holds a lock of its own over each fork, as the standard library's do."""
    done = run_python(
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
