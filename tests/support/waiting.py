"""What tests of waiting for mail share: who waits, for what, and for how long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers import awaited, gone, until

#: Seconds within which "at once" is, on a machine that is busy, too.
SOON = 1.0

#: Longer than any test may take: who waits this long has not been woken.
LONG = 60.0


def begin(pool: ThreadPoolExecutor, controller: Any, call: Callable[..., Any], *args, **kwargs):
    """Call on a thread, and return when that waits."""
    future = pool.submit(call, *args, **kwargs)
    until(lambda: awaited(controller) or future.done())
    assert not future.done()
    return future


def kill(controller: Any) -> None:
    pid = controller.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))


class Stopwatch:
    def __init__(self) -> None:
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


#: A call of each kind that waits for what is not there.
CALLS: dict[str, Callable[[Any, float], Any]] = {
    "wait": lambda inbox, timeout: inbox.wait(timeout, subject="wanted"),
    "wait_many": lambda inbox, timeout: inbox.wait_many(2, timeout, subject="wanted"),
    "wait_for_each": lambda inbox, timeout: inbox.wait_for_each(
        ["lee@example.com"], timeout, subject="wanted"
    ),
    "expect_none": lambda inbox, timeout: inbox.expect_none(timeout, subject="wanted"),
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
