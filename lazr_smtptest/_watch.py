"""Waiting for the server process.  Test process.

Nothing is read behind the test's back: each call takes in what has arrived.
Any thread may call.  When several wait, one of them watches the pipe and tells
the others; and whoever reads from it meanwhile wakes that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import TypeVar

from lazr_smtptest._arrivals import Arrivals
from lazr_smtptest._clock import now
from lazr_smtptest._counterpart import Counterpart

__all__ = ["LONGEST_WAIT", "RAISING", "Watch"]

#: Seconds that one wait may take; poll(2) cannot count further than 24 days.
LONGEST_WAIT = 86_400.0

#: Seconds that the thread that watches has to stop doing so.
_LEAVE_TIMEOUT = 5.0

#: Signals whose Python handlers often raise, or call in here: Ctrl-C, a test's
#: time limit, the end of a terminal.
RAISING = frozenset({signal.SIGINT, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP})

T = TypeVar("T")


class Watch:
    """The pipe, the process, and the threads that wait for them.

    :param records: The pipe from the server process.
    :param arrivals: Where that goes which comes through it.
    :param counterpart: The process.

    :ivar lock: To be held while arrivals are taken or looked at.
    :ivar watcher: The thread that watches the pipe, if one does.
    :ivar is_closed: Whether the pipes are closed.
    """

    def __init__(
        self, records: connection.Connection, arrivals: Arrivals, counterpart: Counterpart
    ) -> None:
        self._records = records
        self._arrivals = arrivals
        self._counterpart = counterpart
        self._wake, self._waker = connection.Pipe(duplex=False)
        os.set_blocking(self._wake.fileno(), False)
        os.set_blocking(self._waker.fileno(), False)
        self.is_closed = False
        self.make_lock()

    def make_lock(self) -> None:
        """Have a lock that no thread holds, and nobody who watches.

        A forked child needs a new one: threads that hold the old one do not
        exist there.
        """
        # Reentrant, because a signal handler may call in here, too.  It is
        # taken as itself, because a Condition's own ``with`` is Python code,
        # where an exception from a signal handler would leave it locked.
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self.watcher: int | None = None

    def wait_for(self, attempt: Callable[[], T | None], timeout: float) -> T | None:
        """Take in records until an attempt succeeds, or time or process end.

        :param attempt: Called with the lock held; gives None for "not yet".
        :param timeout: How long to wait, in seconds; one attempt is made
            whatever it is.
        :return: What the attempt gave, or None.
        """
        me = threading.get_ident()
        arrivals = self._arrivals
        deadline = now() + timeout
        while True:
            # Log records first, and without the lock: a log handler is other
            # people's code.  What it raises must not cost a message.
            arrivals.pass_on_logs()
            try:
                with self.lock:
                    took = self._take_in()
                    if arrivals.logs:
                        continue
                    result = attempt()
                    left = min(deadline - now(), LONGEST_WAIT)
                    if result is not None or arrivals.ended or left <= 0:
                        return result
                    if took:
                        continue
                    if not self._nobody_else_watches():
                        self._changed.wait(left)
                        continue
                    self.watcher = me
                self._look_out(left)
            finally:
                if self.watcher == me:
                    with self.lock:
                        self.watcher = None
                        self._changed.notify_all()

    def _nobody_else_watches(self) -> bool:
        return self.watcher in (None, threading.get_ident())

    def _look_out(self, timeout: float) -> None:
        """Wait for the pipe, the process, or another thread to have news."""
        pidfd = self._counterpart.pidfd
        watched = [self._records, self._wake, *([pidfd] if pidfd else [])]
        try:
            readable = connection.wait(watched, timeout)
        except OSError:
            # A signal handler may have closed them, in this very thread.
            if not self.is_closed:
                raise
            return
        with self.lock:
            if self.is_closed:
                return
            if self._wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake.fileno(), 4096)
            if pidfd in readable:
                self._take_in_the_rest()

    # All of what follows is called with the lock held.

    def tell(self) -> None:
        """Tell other threads that there is something new."""
        self._changed.notify_all()
        if not self._nobody_else_watches():
            with contextlib.suppress(BlockingIOError):  # it has been told before
                os.write(self._waker.fileno(), b"!")

    def look_for_end(self) -> None:
        """Take note of the process's end, if it has come.  Does not wait for it."""
        if not self._arrivals.ended and self._counterpart.is_gone():
            self._take_in_the_rest()

    def call_off(self) -> None:
        """End all waiting, so that the pipes can be closed.

        Another thread may be watching the pipes.  Closing them under its feet
        would have it watch whatever gets their numbers next.
        """
        self._arrivals.ended = True
        self.tell()
        self._changed.wait_for(self._nobody_else_watches, _LEAVE_TIMEOUT)

    def close(self) -> None:
        """Close what threads are woken by; the other pipes are about to be."""
        self.is_closed = True
        self._wake.close()
        self._waker.close()

    # Taking in.

    def _take_in(self) -> bool:
        """Read once.  Say whether there was anything.

        What has left the pipe and is not yet in its place would be lost if a
        signal handler raised just then; only the main thread runs those.
        """
        if self._arrivals.ended:
            return False
        if threading.current_thread() is not threading.main_thread():
            return self._take_in_undisturbed()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, RAISING)
        try:
            return self._take_in_undisturbed()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _take_in_undisturbed(self) -> bool:
        if self._arrivals.ended:  # a signal handler may have closed the pipe just before
            return False
        try:
            took = self._arrivals.read()
        except EOFError:
            self._note_end()
            return False
        if took:
            self.tell()
        return took

    def _take_in_the_rest(self) -> None:
        """Take in what a process left that is gone.

        A grandchild may hold the pipe's writing end, so there may never be an
        end of file; but what the process itself wrote is there.
        """
        while self._take_in():
            pass
        self._note_end()

    def _note_end(self) -> None:
        if self._arrivals.ended:
            return
        self._arrivals.ended = True
        self._counterpart.note_end()
        self.tell()
