"""Receiving for the command line.  In the place of the test process.

A signal, or the end of the time, stops the server, whatever is under way here.
What it had accepted until then is still handed on: a client that was told 250
finds its message printed and kept.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from types import FrameType

from lazr_smtptest._clock import now
from lazr_smtptest._describe import session_lines
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import ServerDied
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Session

__all__ = ["Sink"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Sessions that the report shows.
_SESSIONS = 3


class Sink:
    """Takes messages from a server until there are enough.

    :param controller: The server's controller, which does not run yet.
    :param count: How many are enough, or None.
    :param timeout: How long they may take, in seconds, or None.

    :ivar uses: What is done with each message, in this order; called with
        how many it makes, and the message.
    """

    def __init__(
        self,
        controller: QueueController,
        count: int | None,
        timeout: float | None,
    ) -> None:
        self.uses: list[Callable[[int, Message], None]] = []
        self._controller = controller
        self._count = count
        self._timeout = timeout
        self._number = 0
        self._receiving = self._time_is_up = False
        self._sessions: list[Session] = []

    def run(
        self, faults: Iterable[tuple[str, str]], announce: Callable[[QueueController], None]
    ) -> bool:
        """Run the server, and take what comes.

        :param faults: The stage and the reply of each fault.
        :param announce: Called when it serves.
        :return: Whether all came that was to come.
        :raises OSError: The server cannot listen, or a message cannot be kept.
        :raises SMTPTestError: The server failed.
        """
        with self._until_signalled(), self._controller as controller:
            for stage, reply in faults:
                controller.fault(stage, reply)
            announce(controller)
            self._receiving = True
            self._receive()
        return self._is_enough() if self._count else not self._time_is_up

    def report(self) -> list[str]:
        """Say what came when not all did, and what clients did instead.

        :return: Some lines.
        """
        wanted = "" if self._count is None else f" of {self._count}"
        came = f"{self._number}{wanted} messages came"
        where = f"to {self._controller.host} port {self._controller.port}"
        if not self._time_is_up:
            return [f"interrupted when {came} {where}"]
        lines = [f"{came} {where} within {self._timeout:g} seconds"]
        if not self._sessions:
            lines.append("No client has connected: see which host and port it was told to use.")
        for session in self._sessions[-_SESSIONS:]:
            lines += session_lines(session)
        return lines

    def _is_enough(self) -> bool:
        return self._number == self._count

    def _receive(self) -> None:
        deadline = math.inf if self._timeout is None else now() + self._timeout
        while not self._is_enough():
            left = deadline - now()
            if left <= 0 and self._controller.is_running:
                self._time_is_up = True
                self._sessions = self._controller.sessions()
                self._controller.stop()
            try:
                message = self._controller.queue.get(timeout=min(max(left, 0.0), 60.0))
            except Empty:
                if not self._controller.is_running:
                    return
                continue
            except ServerDied as error:
                # Whoever ends a process group ends the server process, too.
                if error.exitcode == -signal.SIGTERM and not error.lost:
                    return
                raise
            self._number += 1
            for use in self.uses:
                use(self._number, message)

    @contextlib.contextmanager
    def _until_signalled(self) -> Iterator[None]:
        before = [(number, signal.signal(number, self._end)) for number in _SIGNALS]
        try:
            yield
        except KeyboardInterrupt:
            pass  # nothing had come yet
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """Stop the server, on a signal; that ends the waiting for messages."""
        # Once is enough: stopping is under way, and is bounded in time.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if not self._receiving:
            raise KeyboardInterrupt
        self._controller.stop()
