"""What has arrived from the server process, and what is still to come.

Test process.  Whoever calls holds the lock of `_watch.Watch`, except for the
questions whether something is in transit or incomplete: their answer is true
at that moment, and what comes later comes with a count of its own.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from lazr_smtptest._channel import ACCEPTED, COUNTED, FAILED, FORGOTTEN, LOGGED, Channel
from lazr_smtptest._frames import FrameReader
from lazr_smtptest._parcel import Parcel
from lazr_smtptest.errors import HandlerError

__all__ = ["Arrivals"]


class Arrivals:
    """All that was sent to the test process and that nobody has taken yet.

    :param channel: The channel.
    :param where: What errors say of the server.

    :ivar ended: Whether nothing can come any more: the server process is known
        to be gone, or the channel is closed.
    :ivar received: How many records of each counted kind have ever arrived.
    :ivar replies: The answers to requests, by the request's number.
    """

    def __init__(self, channel: Channel, where: dict[str, Any]) -> None:
        self._reader = FrameReader(channel.records.fileno())
        self._where = where
        self.counters = channel.counters
        self.received = [0 for _ in COUNTED]
        self.ended = False
        self.messages: deque[Parcel] = deque()
        self.failures: deque[HandlerError] = deque()
        self.logs: deque[logging.LogRecord] = deque()
        self.replies: dict[int, Any] = {}

    def read(self) -> bool:
        """Read from the pipe once, without blocking.

        :return: Whether there was anything.
        :raises EOFError: There never will be.
        """
        frames = self._reader.read()
        if frames is None:
            return False
        for frame in frames:
            if type(frame) is bytes:
                self.messages.append(Parcel(frame))
                self.received[ACCEPTED] += 1
            else:
                self._sort(*frame)
        return True

    def _sort(self, kind: str, *content: Any) -> None:
        if kind == "reply":
            self.replies[content[0]] = content[1]
        elif kind == "log":
            self.logs.append(content[0])
            self.received[LOGGED] += 1
        elif kind == "failed":
            self.fail(*content)
            self.received[FAILED] += 1
        elif kind == "forget":
            self.messages.clear()
            self.received[FORGOTTEN] += 1
        else:
            raise AssertionError(f"unknown record {kind!r}")

    def fail(self, what: str, traceback: str) -> None:
        """Note a failure of code that was plugged in.

        :param what: What raised, and what it raised, in one line.
        :param traceback: The whole traceback.
        """
        text = (
            f"{what}, for the server on {self._where['host']} port {self._where['port']}.  "
            f"Look at the end of this traceback, not at the call that tells of it:\n\n{traceback}"
        )
        self.failures.append(HandlerError(text, traceback=traceback, **self._where))

    # What is still to come.

    def in_transit(self) -> bool:
        """Say whether the server process has put what we have not received.

        A record may well be here before it is counted.  What a dead process
        counted stands in its death notice instead.
        """
        if self.ended:
            return False
        counters, received = self.counters, self.received
        return any(counters[kind] > received[kind] for kind in COUNTED)

    def is_incomplete(self) -> bool:
        """Say whether something must be awaited before any message is taken.

        That is a failure, a log record, or the word that what came before is
        to be forgotten; or a message, where there is none.
        """
        if self.ended:
            return False
        counters, received = self.counters, self.received
        for kind in (FAILED, FORGOTTEN, LOGGED):
            if counters[kind] > received[kind]:
                return True
        return not self.messages and counters[ACCEPTED] > received[ACCEPTED]

    def lost(self) -> int:
        """Count the messages that a process took with it when it ended."""
        # Killed between putting and counting, the process counted one too few.
        return max(self.counters[ACCEPTED] - self.received[ACCEPTED], 0)

    # What callers are told without asking for it.

    def raise_failure(self) -> None:
        """Raise what a handler has raised, if there is such a thing.

        :raises HandlerError: The first of them; it is told once.
        """
        if self.failures:
            raise self.failures.popleft()

    def pass_on_logs(self) -> None:
        """Hand the server process's log records to this process's loggers.

        Called without the lock: a log handler is other people's code.
        """
        while self.logs:
            try:
                record = self.logs.popleft()
            except IndexError:  # another thread was quicker
                return
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
