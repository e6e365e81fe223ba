"""Kernels and sandboxes without pidfd_open(2), and exit codes that somebody else gets."""

from __future__ import annotations

import errno
import textwrap

import pytest
from scripts import run_python

#: What an old kernel says of pidfd_open(2), what a sandbox does, and one that has it.
OLD, SANDBOX, CURRENT = errno.ENOSYS, errno.EPERM, 0

#: What becomes of the exit codes of children.
REAPING = {
    "by us": "",
    "ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "by a handler": """
        def reap(*_):
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        signal.signal(signal.SIGCHLD, reap)
    """,
    "by a thread": """
        def reap():
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    time.sleep(0.001)
        threading.Thread(target=reap, daemon=True).start()
    """,
}

PREPARED = """
    import contextlib, logging, os, signal, threading, time
    from helpers import only_message, send_to, until
    from sandbox import refuse
    from trials import MisbehavingController, send_and_hang
    from lazr_smtptest import ServerDied
    if CODE:
        refuse("pidfd_open", CODE)
    logging.getLogger("lazr_smtptest").addHandler(logging.NullHandler())
    @contextlib.contextmanager
    def within(seconds):
        started = time.monotonic()
        yield
        elapsed = time.monotonic() - started
        assert elapsed < seconds, elapsed
    controller = MisbehavingController(start_method=METHOD, stop_timeout=1.0)
"""


def run(code: int, reaping: str, method: str, script: str) -> str:
    known = f"CODE, METHOD = {code}, {method!r}"
    parts = (known, PREPARED, REAPING[reaping], script)
    done = run_python("\n".join(map(textwrap.dedent, parts)))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def deaths(code: int, reaping: str, method: str) -> str:
    return run(
        code,
        reaping,
        method,
        """
        for look in ("wait", "is_running", "stop"):
            controller.start()
            send_to(controller, "hi")
            assert only_message(controller)["subject"] == "hi"
            assert controller.is_running
            kill = threading.Timer(0.1, os.kill, [controller.pid, signal.SIGKILL])
            kill.start()
            if look == "wait":
                with within(2):
                    try:
                        controller.queue.get(timeout=15)
                    except ServerDied as error:
                        assert error.exitcode in (-signal.SIGKILL, None), error
                        print("learned")
            kill.join()
            if look == "is_running":
                with within(1):
                    until(lambda: not controller.is_running)
            with within(1.5):
                controller.stop()
            assert not controller.is_running
        """,
    )


@pytest.mark.parametrize("reaping", REAPING)
def test_a_death_is_learned_at_once(reaping):
    assert deaths(SANDBOX, reaping, "fork") == "learned\n"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("reaping", ["by us", "by a thread"])
def test_a_death_is_learned_at_once_without_a_fork(reaping, method):
    assert deaths(SANDBOX, reaping, method) == "learned\n"


def test_a_death_is_learned_at_once_on_an_old_kernel():
    assert deaths(OLD, "by us", "fork") == "learned\n"


@pytest.mark.parametrize("reaping", ["ignored", "by a handler", "by a thread"])
def test_a_death_is_learned_although_somebody_else_reaps(reaping):
    assert deaths(CURRENT, reaping, "fork") == "learned\n"


@pytest.mark.parametrize("reaping", ["by us", "ignored"])
def test_a_death_is_learned_although_a_grandchild_holds_the_pipes(reaping):
    said = run(
        SANDBOX,
        reaping,
        "fork",
        """
        import warnings
        from lazr_smtptest import Controller, MessageQueue, QueueServer
        class Holding(QueueServer):
            def handle_message(self, message):
                warnings.simplefilter("ignore")  # Python warns of a fork beneath threads
                child = os.fork()
                if child == 0:
                    signal.pause()
                message["X-Child"] = str(child)
                super().handle_message(message)
        inbox = MessageQueue()
        with Controller(Holding("localhost", 0, inbox)) as controller:
            send_to(controller, "hold")
            child = int(inbox.get()["X-Child"])
            os.kill(controller.pid, signal.SIGKILL)
            with within(2):
                try:
                    inbox.get(timeout=15)
                except ServerDied as error:
                    print("learned")
            os.kill(child, signal.SIGKILL)  # it was there until now
        """,
    )
    assert said == "learned\n"


@pytest.mark.parametrize("reaping", ["by us", "ignored"])
def test_a_stuck_server_is_stopped_in_time(reaping, start_method):
    said = run(
        SANDBOX,
        reaping,
        start_method,
        """
        controller.start()
        with send_and_hang(controller, "hold the interpreter lock"), within(2):
            controller.stop()
        assert not controller.is_running
        """,
    )
    assert said == ""
