"""The queue of messages that a test reads.  Test process."""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazr_smtptest._home import HomeEnd
    from lazr_smtptest.message import Message

__all__ = ["MessageQueue"]

#: Seconds that `MessageQueue.get` waits when it is given no timeout.
DEFAULT_TIMEOUT = 60.0


class MessageQueue:
    """The messages that a server has accepted, in that order.

    It reads like a `queue.Queue`, and any number of threads may read it.  It
    is filled by the server process of the controller whose `QueueServer` it
    was given to.  When a client has been told 250 for a message, the very next
    call here sees that message; no waiting is needed, and so there is no
    reason to call with ``block=True`` for a message that has been sent.

    What was accepted before `Controller.stop` can still be taken after it.

    >>> MessageQueue().qsize()
    0
    """

    def __init__(self) -> None:
        self._home: HomeEnd | None = None
        self._older: deque[Any] = deque()

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the next message.

        :param block: Whether to wait for one, if there is none.
        :param timeout: How long to wait at most, in seconds; without it, 60.
        :return: The message; or what an override of
            `QueueServer.handle_message` passed on in its place.
        :raises queue.Empty: There is none; and while no server is running,
            none can come, so then there is no waiting either.
        :raises HandlerError: A handler has failed since the last call.
        :raises ServerDied: None is left, and the server process died.
        :raises ServerStuck: An accepted message did not arrive in 5 seconds.
        :raises ValueError: The timeout is negative, or no finite number.
        """
        if timeout is None:
            timeout = DEFAULT_TIMEOUT
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
        started = time.monotonic()
        parcel = self._take(timeout if block else 0.0)
        if parcel is not None:
            message: Message = unpack(parcel)
            return message
        if not block:
            raise queue.Empty("no message is there")
        elapsed = time.monotonic() - started
        running = self._home is not None and not self._home.ended
        reason = "" if running else ": no server is running"
        raise queue.Empty(f"no message came within {elapsed:.3g} seconds{reason}")

    def get_nowait(self) -> Message:
        """Take the next message, without waiting for one.

        Blocks no longer than 5 seconds, and as a rule not at all: only what
        was accepted, and is still on its way, is awaited.

        :return: See `get`.
        :raises queue.Empty: There is none.
        :raises HandlerError: See `get`.
        :raises ServerDied: See `get`.
        :raises ServerStuck: See `get`.
        """
        return self.get(block=False)

    def qsize(self) -> int:
        """Count the messages that were accepted and not yet taken.

        This is exact.  It makes no system call, as a rule.

        :return: The number.
        :raises HandlerError: See `get`.
        :raises ServerDied: See `get`; where the death is known already.
        :raises ServerStuck: See `get`.
        """
        waiting = 0 if self._home is None else self._home.waiting()
        return len(self._older) + waiting

    def empty(self) -> bool:
        """Say whether there is no message.  See `qsize`.

        :return: Whether there is none.
        """
        return self.qsize() == 0

    def _take(self, timeout: float) -> Any | None:
        if self._older:
            with contextlib.suppress(IndexError):  # another thread was quicker
                return self._older.popleft()
        return None if self._home is None else self._home.take(timeout)

    def _is_fed(self) -> bool:
        """Say whether a running server fills this queue."""
        return self._home is not None and self._home.is_alive()

    def _attach(self, home: HomeEnd) -> None:
        """Be filled from another channel; what is left of the last one stays."""
        if self._home is not None:
            self._older.extend(self._home.remains())
        self._home = home

    def _forget_older(self) -> None:
        """Drop what came from servers before this one."""
        self._older.clear()


def unpack(parcel: bytes) -> Any:
    """Make what a test gets of what the server process sent.

    :param parcel: The pickle of a `Received`, or of what a handler passed on.
    :return: A message, as a rule.
    """
    # Not at the head: it takes the whole email package, and importing this one
    # is not to cost what reading a message does.
    import pickle

    from lazr_smtptest.message import Received, parse

    value = pickle.loads(parcel)
    return parse(*value) if type(value) is Received else value
