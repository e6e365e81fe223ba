"""The test process may be in any state: what it is a child of, its descriptors, its streams."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import textwrap

import pytest
from helpers import START_METHODS, connected, gone, send, send_to, subjects, until
from scripts import run_python

from lazr_smtptest import Controller, QueueController, Server

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
    done = run_python(
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
