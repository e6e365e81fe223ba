"""What an exception from a signal handler must not interrupt.  Test process."""

from __future__ import annotations

import signal
from _signal import pthread_sigmask  # signal's deals in enums
from collections.abc import Callable
from threading import get_ident, main_thread
from typing import Any, TypeVar

T = TypeVar("T")

#: Signals whose Python handlers often raise, or call in here: Ctrl-C, a test's
#: time limit, the end of a terminal.
RAISING = frozenset({signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP})


class _Undisturbed:
    """Does what an exception from a signal handler must not interrupt half way.

    What has left a pipe and is not yet in its place would be lost, and so would be a
    descriptor that no object has yet.  Only the main thread runs handlers.  (It runs them,
    too, for a signal that a thread received which does not block it.)  Greenlets that share
    it may switch meanwhile, and end in any order.
    """

    def __init__(self) -> None:
        #: How many are at it, and what was blocked before the first.
        self._inside = 0
        self._outside: set[Any] = set()

    def __call__(self, do: Callable[[], T]) -> T:
        if get_ident() != main_thread().ident:
            return do()
        mask = pthread_sigmask(signal.SIG_BLOCK, ())
        try:  # first, since to block may raise, for a signal that is there already
            pthread_sigmask(signal.SIG_BLOCK, RAISING)
            if not self._inside:
                self._outside = mask
            self._inside += 1
            try:
                return do()
            finally:
                self._inside -= 1
                mask = mask | RAISING if self._inside else self._outside
        finally:
            pthread_sigmask(signal.SIG_SETMASK, mask)


undisturbed = _Undisturbed()
