"""gevent and eventlet, which make greenlets of the test process's threads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import SUPPORT
from scripts import run_python

from lazr_smtptest._child.loop import EventLoop
from lazr_smtptest._parent.signals import RAISING, undisturbed

#: What replaces things, when, and how servers are started.
WAYS = [
    ("gevent", "before", "fork"),
    ("gevent", "after", "fork"),
    ("gevent", "before", "spawn"),
    ("eventlet", "before", "fork"),
    ("eventlet", "after", "fork"),
    ("eventlet", "before", "spawn"),
]


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a program with greenlets says; nothing may go to its standard error."""
    pids: Path = tmp_path_factory.mktemp("pids") / "pids"
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "greenlets.py"), *request.param],
        env={**os.environ, "PIDS": str(pids)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


pytestmark = pytest.mark.timeout(90)


def test_handlers_handle_more_than_a_few_messages(results):
    assert results["many_messages"] == [["0", "1", "2", "3", "4"], "1"]


def test_a_server_is_started_by_a_greenlet(results):
    assert results["in_a_greenlet"] == [["0", "1", "2", "3", "4"], "1"]


def test_greenlets_run_in_the_test_process_alone(results):
    assert results["steps_of_a_greenlet"] == [25, 1]


def test_the_event_loop_is_that_of_asyncio(results):
    assert results["event_loop"] == EventLoop.__module__


def test_waiting_lets_greenlets_run(results):
    assert results["waiting_lets_greenlets_run"] == [
        "while wait() waits",
        "while wait_parked() waits",
    ]


def test_a_queue_of_ones_own_has_each_message_at_once(results):
    assert results["foreign_queue"] == "all there at once"


def test_leases_are_taken_and_waited_on(results):
    assert results["leases"] == ["one", "one"]


def test_signals_are_not_blocked_once_servers_have_stopped(results):
    assert results["blocked_signals"] == []


def blocked() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_last_of_greenlets_on_one_thread_unblocks_signals():
    # As where a program has gevent or eventlet, and has not replaced threads.
    greenlet = pytest.importorskip("greenlet")
    outside, switch = blocked(), greenlet.getcurrent().switch
    first, second = (greenlet.greenlet(lambda: undisturbed(switch)) for _ in range(2))
    found = []
    for one in (first, second, first, second):
        one.switch()
        found.append(blocked())
    assert found == [outside | RAISING] * 3 + [outside]


def test_all_but_the_threads_are_replaced():
    """What the server process runs is made of queues, too."""
    done = run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        from gevent import monkey
        monkey.patch_all(thread=False)
        import smtplib
        from lazr_smtptest import SharedController, connect

        with SharedController() as shared, connect(shared.address, shared.key) as lease:
            with smtplib.SMTP(shared.host, shared.port, timeout=10) as client:
                client.sendmail("from@example.com", [lease.address("kim")], "Subject: hi\\n\\n")
            print([message["subject"] for message in lease])
        """
    )
    assert (done.stdout, done.stderr) == ("['hi']\n", "")
