"""What takes messages from the command line's server, and when that ends.

A signal, the end of the time, or enough messages stop the server, whatever is
under way here.  What it had accepted until then is still handed on: a client
that got its 250 finds its message printed and kept.

That waits for whoever reads what is printed, and as soon as it is to end, it
does so for a limited time: a system call that blocks is ended by a SIGALRM.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from types import FrameType
from typing import TYPE_CHECKING, Any

from lazr_smtptest._parent.describe import problem_line, session_lines
from lazr_smtptest._util import now
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import ServerDied, SMTPTestError, StartError
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Session, SessionEvent

if TYPE_CHECKING:
    from lazr_smtptest.shared import SharedController, UnclaimedMail

#: A terminal that goes away sends SIGHUP.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Exit codes of a process that these have ended.
_KILLED = tuple(-number for number in _SIGNALS)

#: Seconds that handing on one message may take once it is to end.
_PATIENCE = 10.0

#: Seconds that clients have to QUIT when enough messages have come.  One that is cut off
#: there may well report that it has failed.
_GRACE = 5.0

#: Seconds that a timer can be set to, more or less, on any system.
_LONGEST_TIMER = 1e8

#: Sessions that the report shows.
_SESSIONS = 3


class OutputStuck(OSError):
    """Nobody reads what is printed."""


class MailSink:
    """Takes messages from a server until there are enough, or the time is up."""

    def __init__(
        self,
        controller: QueueController | SharedController,
        count: int | None,
        timeout: float | None,
    ) -> None:
        #: What is done with each message, in this order; called with its number, too.
        self.uses: list[Callable[[int, Message], None]] = []
        #: What is done with each session that has ended; called with its number, too.
        self.session_uses: list[Callable[[int, Session], None]] = []
        #: What is done with what happens in a session before.
        self.event_uses: list[Callable[[SessionEvent], None]] = []
        #: What is done when all has come.
        self.last_uses: list[Callable[[], None]] = []
        #: What is wrong, by `check`, in the order in which it came.
        self.errors: list[str] = []
        self._controller = controller
        self._count = count
        self._timeout = timeout
        self._deadline = self._limited_from = self._grace_ends = math.inf
        self._open_sessions: set[int] = set()
        self._number = 0
        self._receiving = self._told_to_end = self._time_is_up = False
        self._sessions: list[Session] | None = []

    def run(self, faults: Iterable[dict[str, Any]], announce: Callable[[Any], None]) -> bool:
        """Run the server, and take what comes; return whether all came that was to come.

        ``announce`` is called when it serves.
        """
        with self._until_signalled(), self._controller as controller:
            # timeout(1), and a terminal that goes away, signal the whole process
            # group; what the server process had not handed on would be lost.
            assert controller.pid is not None
            # It can be done to what was forked, and not to what was spawned since.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(controller.pid, 0)
            controller._ask(controller._running("run()"), "watch", bool(self.event_uses))
            for fault in faults:
                controller.fault(**fault)
            if self._timeout is not None:
                self._deadline = now() + self._timeout
                self._limited_from = min(self._limited_from, self._deadline)
            self._receiving = True  # clients may know the port already, and do from here on
            if not self._told_to_end:
                announce(controller)
            self._receive()
            with self._time_limit():
                for use in self.last_uses:
                    use()
        return self._count is None or self._is_enough()

    def check(self) -> None:
        """Look for errors in all messages and sessions."""
        self.uses.append(lambda number, message: self._add_errors(f"message {number}", message))
        self.session_uses.append(
            lambda number, session: self._add_errors(f"session {number}", session)
        )

    def _add_errors(self, what: str, thing: Message | Session) -> None:
        self.errors += [
            f"{what}: {problem_line(problem)}"
            for problem in thing.problems
            if problem.level == "error"
        ]

    def report(self) -> list[str]:
        """Return lines on what came when not all did, and what clients did instead."""
        came = f"{self._number} of {self._count} messages came"
        where = f"to {self._controller._endpoint}"
        if not self._time_is_up:
            return [f"interrupted when {came} {where}"]
        lines = [f"{came} {where} within {self._timeout:g} seconds"]
        if self._sessions is None:
            return [*lines, "What clients did is not known."]
        if not self._sessions:
            lines.append("No client has connected: see where it was told to send its mail.")
        for session in self._sessions[-_SESSIONS:]:
            lines += session_lines(session)
        return lines

    def _is_enough(self) -> bool:
        return self._count is not None and self._number >= self._count

    def _is_over(self) -> bool:
        """Return whether it is to end."""
        if self._told_to_end:
            return True
        if self._is_enough():
            return not self._open_sessions or now() >= self._grace_ends
        self._time_is_up = now() >= self._deadline
        return self._time_is_up

    def _receive(self) -> None:
        while True:
            was_running = self._controller.is_running
            if was_running and self._is_over():
                self._stop()
            left = max((self._grace_ends if self._is_enough() else self._deadline) - now(), 0.0)
            try:
                self._hand_on(self._controller.queue.get(timeout=min(left, 60.0)))
            except Empty:
                if not was_running:  # a signal may have come, and messages, since
                    return
            except ServerDied as error:
                if error.exitcode in _KILLED and not error.lost:
                    return
                raise

    def _stop(self) -> None:
        """Stop the server, and keep what clients did."""
        try:
            self._controller.stop()
        finally:
            _, self._sessions = self._controller._diagnose(0)

    def _hand_on(self, item: Message | SessionEvent) -> None:
        with self._time_limit():
            if isinstance(item, SessionEvent):
                self._note_session(item)
            else:
                self._number += 1
                for use in self.uses:
                    use(self._number, item)
                if self._number == self._count:
                    self._grace_ends = now() + _GRACE

    def _note_session(self, event: SessionEvent) -> None:
        if event.session is None:
            self._open_sessions.add(event.number)
            for use_event in self.event_uses:
                use_event(event)
        else:
            self._open_sessions.discard(event.number)
            for use in self.session_uses:
                use(event.number, event.session)

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        self._limit_time()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _limit_time(self) -> None:
        """Call `_give_up` when a message has taken too long."""
        if self._limited_from < math.inf:
            left = max(self._limited_from - now(), 0.0) + _PATIENCE
            signal.setitimer(signal.ITIMER_REAL, min(left, _LONGEST_TIMER))

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        raise OutputStuck(f"nobody has read what was printed for {_PATIENCE:g} seconds")

    @contextlib.contextmanager
    def _until_signalled(self) -> Iterator[None]:
        handlers = dict.fromkeys(_SIGNALS, self._end) | {signal.SIGALRM: self._give_up}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup was asked to see to that
            del handlers[signal.SIGHUP]
        before = [(number, signal.signal(number, handlers[number])) for number in handlers]
        try:
            yield
        except (ServerDied, StartError):
            # Whoever ends a process group ends the server process, too.
            if self._receiving or not self._told_to_end:
                raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before:
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """Stop the server, on a signal; that ends the waiting for messages.

        While it starts, that has to wait: an exception that a handler raises
        can come up anywhere, in a callback that cannot pass it on, too.
        """
        # Once is enough: stopping is under way, and is bounded in time.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._told_to_end = True
        self._limited_from = now()
        if self._receiving:
            self._stop()
            self._limit_time()


class LeasingSink(MailSink):
    """Keeps a shared server running, and notes what nobody has leased."""

    def __init__(self, controller: SharedController, timeout: float | None) -> None:
        super().__init__(controller, None, timeout)
        self._shared = controller
        self.unclaimed: list[UnclaimedMail] = []

    def _stop(self) -> None:
        # A second time there is nobody to ask; and if the server is gone, stopping says so.
        with contextlib.suppress(SMTPTestError):
            self.unclaimed = self._shared.unclaimed
        super()._stop()
