"""The queue of messages that a test reads.  Test process."""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._clock import now, seconds
from lazr_smtptest.errors import MessageNotReceived, NotRunning, UnexpectedMessage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lazr_smtptest._criteria import Criteria, Wanted
    from lazr_smtptest._home import HomeEnd
    from lazr_smtptest._parcel import Parcel
    from lazr_smtptest.message import Message

__all__ = ["Difference", "MessageQueue", "NearMiss"]

#: Seconds that `MessageQueue.get` waits when it is given no timeout.
DEFAULT_TIMEOUT = 60.0


class Difference(NamedTuple):
    """One criterion that a message does not meet.

    :ivar field: The criterion's name.
    :ivar explanation: What was wanted, what was found, and what the difference
        is, where that is hard to see.
    """

    field: str
    explanation: str


class NearMiss(NamedTuple):
    """A message that was not what was wanted.

    :ivar message: The message.
    :ivar differences: Each criterion that it does not meet.
    """

    message: Any
    differences: Sequence[Difference]


class MessageQueue:
    """The messages that a server has accepted, in that order.

    It reads like a `queue.Queue`, and any number of threads may read it.  It
    is filled by the server process of the controller whose `QueueServer` it
    was given to.  When a client has been told 250 for a message, the very next
    call here sees that message; no waiting is needed, and so there is no
    reason to call with ``block=True`` for a message that has been sent.

    For mail that a program sends when it gets to it, there are `wait`,
    `wait_many` and `expect_none`.  They look at all messages that are there,
    at first, and then at each that arrives.  All three take these keyword
    arguments, and want messages that meet every one of them:

    ``rcpt``
        a recipient of the envelope (RCPT), blind copies included
    ``sender``
        the sender of the envelope (MAIL); ``""`` is the null reverse-path
    ``to``
        an address in the header field To
    ``subject``
        the header field Subject, decoded
    ``where``
        a callable that takes the message and says whether it is wanted; only
        called for messages that meet all else

    The first four may be a callable that takes the text, or a compiled pattern
    to search for in it.  A string is a part of the subject, but the whole of
    an address, where the domain's case and the way of quoting are of no
    importance (RFC 5321, 2.4).

    What was accepted before `Controller.stop` can still be taken after it.

    >>> MessageQueue().qsize()
    0
    """

    def __init__(self) -> None:
        self._home: HomeEnd | None = None
        #: The last messages that were taken, where a report may want them.
        self._taken: deque[Parcel] = deque(maxlen=0)
        self._taken_count = 0
        #: Who waits for what the last test wanted gets nothing of this one's.
        self._generation = 0

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
        timeout = seconds("timeout", DEFAULT_TIMEOUT if timeout is None else timeout)
        started = now()
        home, is_wanted = self._home, self._waiter()
        parcel = None
        if home is not None:
            parcel = home.take(timeout if block else 0.0, is_wanted=is_wanted)
        if parcel is not None:
            self._note_taken(parcel)
            message: Message = parcel.open()
            return message
        raise queue.Empty(self._why_empty(now() - started if block else None))

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
        return 0 if self._home is None else self._home.waiting()

    def empty(self) -> bool:
        """Say whether there is no message.  See `qsize`.

        :return: Whether there is none.
        """
        return self.qsize() == 0

    @property
    def messages(self) -> list[Message]:
        """What is there now, in order, as a list.  Nothing is taken.

        Blocks like `get_nowait`.

        :raises HandlerError: See `get`.
        :raises ServerDied: See `get`.
        :raises ServerStuck: See `get`.
        """
        home = self._home
        if home is None:
            return []
        parcels, _ = home.look()
        if not parcels:
            home.check_death()
        return [parcel.open() for parcel in parcels]

    def wait(self, timeout: float = 5.0, **wanted: Unpack[Wanted]) -> Message:
        """Take the first message that is wanted; wait for it if need be.

        The others stay, in order.

        :param timeout: How long to wait at most, in seconds; at once when the
            message is there, and when no server is running any more.
        :param wanted: See the class; without any, each message will do.
        :return: The message.
        :raises MessageNotReceived: It has not come; the text is a report.
        :raises HandlerError: See `get`.
        :raises ServerDied: It is not here, and the server process died.
        :raises ServerStuck: See `get`.
        :raises TypeError: A criterion is unknown, or of a type it cannot be.
        :raises ValueError: The timeout is negative, or no finite number.
        """
        __tracebackhide__ = True  # for pytest
        return self.wait_many(1, timeout, **wanted)[0]

    def wait_many(
        self, count: int, timeout: float = 5.0, **wanted: Unpack[Wanted]
    ) -> list[Message]:
        """Take the first so many messages that are wanted, when all are there.

        If they do not all come, none is taken.

        :param count: How many.
        :param timeout: How long to wait at most for all of them, in seconds.
        :param wanted: See the class.
        :return: The messages, in the order in which they were accepted.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"count must be a whole number from 1 on, not {count!r}")
        search = _Search(self, wanted)
        deadline = search.started + seconds("timeout", timeout)
        while True:
            parcels = search.look()
            if len(parcels) < count:
                if not search.may_go_on(deadline):
                    raise search.failure(count)
            elif self._home is not None and self._home.claim(parcels[:count]):
                self._note_taken(*parcels[:count])
                return [parcel.open() for parcel in parcels[:count]]

    def expect_none(self, quiet: float = 0.2, **wanted: Unpack[Wanted]) -> None:
        """See to it that no message is there that is not wanted, nor comes.

        Nothing is taken.

        :param quiet: How long to watch, in seconds.  Less will do when no
            server is running any more.
        :param wanted: See the class; here, what is *not* to come.
        :raises UnexpectedMessage: Such a message was there, or came.
        :raises NotRunning: No server has ever filled this queue.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        if self._home is None:
            raise NotRunning("no message can come where no server was started: call start() first")
        search = _Search(self, wanted)
        deadline = search.started + seconds("quiet", quiet)
        while not (found := search.look()):
            if not search.may_go_on(deadline):
                return
        raise search.surprise(found[0], quiet)

    def _why_empty(self, waited: float | None) -> str:
        """Say that there is no message, and what to do.

        :param waited: How long was waited for one, in seconds; None if not at all.
        """
        place = self._place()
        if not place:
            return "no message is there, and no server was started: call start() first"
        if not self._may_get_more():
            return f"no message is there, and no server runs on {place}: call start() first"
        if waited is None:
            return f"no message is there, on {place}: wait() waits for one that is yet to come"
        return (
            f"no message came to {place} within {waited:.3g} seconds: "
            "give a longer timeout, or see in sessions() what clients did"
        )

    def _place(self) -> str:
        """Give the host and port, if a server has ever filled this queue."""
        return "" if self._home is None else "{host} port {port}".format(**self._home.where)

    def _may_get_more(self) -> bool:
        return self._home is not None and not self._home.ended

    def _attach(self, home: HomeEnd) -> None:
        """Be filled from another channel; what is left of the last one stays."""
        if self._home is not None:
            home.adopt(self._home)
        self._home = home

    def _keep_taken(self, limit: int) -> None:
        """Begin to keep the last messages that are taken from now on.

        :param limit: How many.
        """
        self._taken = deque(maxlen=limit)
        self._taken_count = 0

    def _begin_anew(self) -> None:
        """End all waiting: whoever waits now is of a test that is over."""
        self._generation += 1
        if self._home is not None:
            self._home.wake()

    def _waiter(self) -> Callable[[], bool]:
        generation = self._generation
        return lambda: self._generation == generation

    def _note_taken(self, *parcels: Parcel) -> None:
        self._taken.extend(parcels)
        self._taken_count += len(parcels)


class _Search:
    """One call's search: what it wants, and what it has seen so far.

    :param inbox: Where to look.
    :param wanted: The criteria, as the caller gave them.
    """

    def __init__(self, inbox: MessageQueue, wanted: Wanted) -> None:
        from lazr_smtptest._criteria import Criteria

        self._criteria: Criteria = Criteria(**wanted)
        self._inbox = inbox
        self._seen = 0
        self._is_last_look = False
        self._is_wanted = inbox._waiter()
        self._parcels: list[Parcel] = []
        #: Each message is looked at once, however long the search.
        self._unmet: dict[Parcel, list[str]] = {}
        self.started = now()

    def look(self) -> list[Parcel]:
        """Give what is wanted of that which is there."""
        home = self._inbox._home
        if home is None:
            self._is_last_look = True
            return []
        # Before looking: what came just before the end is to be seen.
        self._is_last_look = home.ended
        self._parcels, self._seen = home.look()
        known = self._unmet
        for parcel in self._parcels:
            if parcel not in known:
                known[parcel] = self._criteria.unmet(parcel.peek())
        return [parcel for parcel in self._parcels if not known[parcel]]

    def may_go_on(self, deadline: float) -> bool:
        """Wait for more.

        :param deadline: Until when.
        :return: Whether it is worth another look.
        :raises ServerDied: No more can come, since the server process died.
        """
        home = self._inbox._home
        left = deadline - now()
        if home is None:
            return False
        if left > 0 and not self._is_last_look and self._is_wanted():
            home.await_more(self._seen, left, self._is_wanted)
            return self._is_wanted()
        home.check_death()
        return False

    def failure(self, count: int) -> MessageNotReceived:
        """Make the error that reports a search in vain."""
        elapsed = now() - self.started
        found = [(parcel.peek(), self._unmet[parcel]) for parcel in self._parcels]
        place = self._inbox._place()
        text, misses = self._criteria.report(found, count, elapsed, place)
        if not self._inbox._may_get_more():
            text += "\nNo server is running, so none can come: call start() first"
        elif not found:
            text += (
                "\nDoes the program send there?  sessions() shows who connected; "
                "if it is slow, give a longer timeout"
            )
        else:
            text += (
                "\nIf it was yet to come, give a longer timeout; sessions() shows what clients did"
            )
        if _runs_in_event_loop():
            text += (
                "\nThe event loop of this thread stood still meanwhile; "
                "if one of its tasks sends, call this on another thread, by asyncio.to_thread()"
            )
        return MessageNotReceived(text, near_misses=misses, elapsed=elapsed, **self._where())

    def surprise(self, parcel: Parcel, quiet: float) -> UnexpectedMessage:
        """Make the error that reports a message that was not to come."""
        elapsed = now() - self.started
        message = parcel.peek()
        text = self._criteria.report_surprise(message, elapsed, quiet, self._inbox._place())
        text += "\nIf it was to come before, take it, or call reset(), before expect_none()"
        return UnexpectedMessage(text, message=message, elapsed=elapsed, **self._where())

    def _where(self) -> dict[str, Any]:
        home = self._inbox._home
        return {} if home is None else home.where


def _runs_in_event_loop() -> bool:
    """Say whether this thread runs an event loop of asyncio, which waits for us now."""
    asyncio = sys.modules.get("asyncio")  # a test that has none need not import it
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
