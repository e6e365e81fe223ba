"""Limits of the system: the error names the one that is reached, and nothing is left behind."""

from __future__ import annotations

import textwrap

import pytest
from helpers import START_METHODS
from scripts import run_python

#: Runs in a Python of its own.  Root is exempt from limits of processes, and processes of others
#: do not count: so it has a user for itself, and as that one cannot import any more, it first
#: runs each kind of server.
PREPARED = """
    import contextlib, gc, multiprocessing, os, queue, resource, sys
    from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix, resource_tracker
    from helpers import connected, gone, send, send_to, subjects, until
    from lazr_smtptest import (
        Controller, HandlerError, Message, MessageQueue, QueueController, QueueServer, Server,
        StartError,
    )
    class Handling(QueueServer):
        def handle_message(self, message):
            super().handle_message(message)
    class Resetting(QueueServer):
        def reset(self):
            pass
    def servers():
        for kind in (QueueServer, Handling, Resetting):
            yield kind("localhost", 0, MessageQueue())
        yield QueueServer("localhost", 0, queue.Queue())
    def become_nobody():
        for server in servers():
            with Controller(server) as controller:
                send_to(controller, "hi")
                subjects([server.queue.get()])
        if os.getuid() == 0:
            os.setgid(100_000 + os.getpid())
            os.setuid(100_000 + os.getpid())
    def left():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), multiprocessing.active_children()
    @contextlib.contextmanager
    def limited(name, soft):
        kind = getattr(resource, name)
        before = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(kind, before)
    def fails(controller, name):
        before = left()
        try:
            controller.start()
        except StartError as error:
            assert name in str(error), error
            print("StartError")
        else:
            controller.stop()
            raise AssertionError(f"it starts beyond {name}")
        assert not controller.is_running
        assert left() == before, (left(), before)
"""


def run(script: str, said: str = "StartError\n") -> None:
    done = run_python("\n".join(map(textwrap.dedent, (PREPARED, script))))
    assert done.returncode == 0, done.stderr
    assert done.stdout == said


@pytest.mark.parametrize("method", START_METHODS)
def test_no_more_processes(method):
    run(f"""
        become_nobody()
        controller = QueueController("127.0.0.1", start_method={method!r})
        with limited("RLIMIT_NPROC", 0):
            fails(controller, "RLIMIT_NPROC (ulimit -u) is 0")
    """)


def test_no_thread_for_a_handler():
    """The client is refused, and what it sent is never handled."""
    run(
        """
        become_nobody()
        for kind in (Handling, Resetting):
            inbox = MessageQueue()
            with Controller(kind("localhost", 0, inbox)) as controller:
                resource.prlimit(controller.pid, resource.RLIMIT_NPROC, (0, 1000))
                try:
                    with connected(controller) as client:
                        if kind is Handling:
                            send(client, "refused")
                        controller.reset()
                except Exception as error:
                    print(type(error).__name__, "RLIMIT_NPROC (ulimit -u) is 0" in str(error))
                with contextlib.suppress(HandlerError):
                    controller.reset()
                resource.prlimit(controller.pid, resource.RLIMIT_NPROC, (1000, 1000))
                send_to(controller, "handled")
                print(subjects([inbox.get_nowait()]), inbox.empty())
        """,
        "SMTPDataError True\n['handled'] True\nHandlerError True\n['handled'] True\n",
    )


def test_no_thread_to_fill_a_queue():
    run("""
        become_nobody()
        controller = Controller(QueueServer("localhost", 0, queue.Queue()))
        with limited("RLIMIT_NPROC", 2):  # this process, and the server process
            fails(controller, "RLIMIT_NPROC (ulimit -u) is 2")
    """)


@pytest.mark.parametrize("method", START_METHODS)
def test_no_more_descriptors(method):
    """A start either has enough for all it does, or fails before it does anything."""
    run(
        f"""
        with QueueController(start_method={method!r}):  # the fork server, and such, stay
            pass
        controller = QueueController(start_method={method!r})
        held = []
        with limited("RLIMIT_NOFILE", 100):
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            while not controller.is_running:
                os.close(held.pop())
                before = left()
                try:
                    controller.start()
                except StartError as error:
                    assert "RLIMIT_NOFILE (ulimit -n) is 100" in str(error), error
                    assert left() == before
            print(70 > len(held) > 50)
            send_to(controller, "hi")
            print(subjects([controller.queue.get()]))
            controller.stop()
        """,
        "True\n['hi']\n",
    )


@pytest.mark.parametrize("method", START_METHODS)
def test_no_more_memory(method):
    """However much there is, it is enough or too little, and that is said."""
    run(
        f"""
        controller = QueueController(start_method={method!r})
        with controller:
            send_to(controller, "first")
            subjects([controller.queue.get()])
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        outcomes = set()
        for more in (0, 64, 256, 1024, 4096, 300_000):
            before = left()
            error = None
            with limited("RLIMIT_AS", used + more * 1024):
                try:
                    controller.start()
                except StartError as caught:
                    error = caught
            if error:
                assert "RLIMIT_AS (ulimit -v) is" in str(error), error
            else:
                send_to(controller, "hi")
                assert subjects([controller.queue.get()]) == ["hi"]
                controller.stop()
            outcomes.add(bool(error))
            del error
            assert left() == before
        print("started" if False in outcomes else "never")
        """,
        "started\n",
    )


def test_a_fork_server_that_has_ended():
    """It ends where a limit of its own is reached, and the next start has another one."""
    run("""
        from multiprocessing import forkserver
        controller = QueueController(start_method="forkserver")
        with controller:
            pass
        pid = forkserver._forkserver._forkserver_pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, 4))
        fails(controller, "RLIMIT_NOFILE (ulimit -n) is")
        until(lambda: gone(pid))
        with controller:
            send_to(controller, "hi")
    """)
