"""Python without its interpreter lock, which the suite may not have: what is decided for it."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig

import pytest
from helpers import send_to

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer
from lazr_smtptest._util import FREE_THREADED

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has a default of its own, and forks nothing"
)


def is_child(pid: int | None) -> bool:
    assert pid
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_it_is_known_by_its_build():
    assert bool(sysconfig.get_config_var("Py_GIL_DISABLED")) == FREE_THREADED


@pytest.mark.parametrize("free_threaded", [False, True])
def test_the_test_process_forks_by_default_if_it_has_the_lock(monkeypatch, free_threaded):
    monkeypatch.setattr("lazr_smtptest._parent.options.FREE_THREADED", free_threaded)
    with QueueController() as controller:
        assert is_child(controller.pid) is not free_threaded


class Counting(QueueServer):
    def handle_message(self, message):
        message["X-Frozen"] = str(gc.get_freeze_count())
        super().handle_message(message)


@pytest.mark.parametrize("free_threaded", [False, True])
def test_the_garbage_collector_freezes_what_there_is_if_it_has_the_lock(
    monkeypatch, free_threaded
):
    monkeypatch.setattr("lazr_smtptest._child.main.FREE_THREADED", free_threaded)
    inbox = MessageQueue()
    before = gc.get_freeze_count()
    with Controller(Counting("localhost", 0, inbox), start_method="fork") as controller:
        send_to(controller, "one")
        frozen = int(inbox.get(timeout=10)["X-Frozen"])
    # Of what was frozen before, some may be gone.
    assert (frozen > before) is not free_threaded
