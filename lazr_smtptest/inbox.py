"""The queue of messages that a test reads.  Test process."""

from __future__ import annotations

import contextlib
import queue
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lazr_smtptest._util import now, seconds, whole_number
from lazr_smtptest.errors import Difference as Difference  # where they were in 3.0
from lazr_smtptest.errors import MessageNotReceived, NotRunning, UnexpectedMessage
from lazr_smtptest.errors import NearMiss as NearMiss

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest._parent.matching import CriteriaArgs
    from lazr_smtptest.message import Message, PickledItem

__all__ = ["MessageQueue"]

#: Seconds that `MessageQueue.get` waits when it is given no timeout.
DEFAULT_TIMEOUT = 60.0


class MessageQueue:
    """The messages that a server has accepted, in that order.

    It reads like a `queue.Queue`, and any number of threads may read it.  It
    is filled by the server process of the controller whose `QueueServer` it
    was given to.  Once a client has its 250 for a message, the very next call
    here sees that message.  No waiting is needed, so there is no reason to call
    with ``block=True`` for a message that has been sent.

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
        self._link: ServerLink | None = None
        #: The last messages that were taken, where a report may want them.
        self._taken: deque[PickledItem] = deque(maxlen=0)
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
        item = None if self._link is None else self._take(self._link, timeout if block else 0.0)
        if item is None:
            raise queue.Empty(self._why_empty(now() - started if block else None))
        self._note_taken(item)
        message: Message = item.load()
        return message

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
        link = self._link
        if link is None:
            return 0
        if not (link.ended or link.failures or link.logs or link.is_in_transit()):
            return len(link.messages)
        return self._count(link)

    def empty(self) -> bool:
        """Return whether there is no message.  See `qsize`.

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
        link = self._link
        if link is None:
            return []
        items, _ = self._look(link)
        if not items:
            link.check_death()
        return [item.load() for item in items]

    def wait(self, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]) -> Message:
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
        self, count: int, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]
    ) -> list[Message]:
        """Take the first ``count`` messages that are wanted, when all are there.

        If they do not all come, none is taken.

        :param count: How many.
        :param timeout: How long to wait at most for all of them, in seconds.
        :param wanted: See the class.
        :return: The messages, in the order in which they were accepted.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        whole_number("count", count, 1)
        search = _Search(self, wanted)
        deadline = search.started + seconds("timeout", timeout)
        while True:
            found = search.look()[:count]
            if len(found) < count:
                if not search.may_go_on(deadline):
                    raise search.failure(count)
            elif self._claim(found):
                self._note_taken(*found)
                return [item.load() for item in found]

    def expect_none(self, quiet: float = 0.2, **wanted: Unpack[CriteriaArgs]) -> None:
        """Check that no such message is there, and that none comes.

        Nothing is taken.

        :param quiet: How long to watch, in seconds.  Less will do when no
            server is running any more.
        :param wanted: See the class; here, what is *not* to come.
        :raises UnexpectedMessage: Such a message was there, or came.
        :raises NotRunning: No server has ever filled this queue.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        if self._link is None:
            raise NotRunning("no message can come where no server was started: call start() first")
        search = _Search(self, wanted)
        deadline = search.started + seconds("quiet", quiet)
        while not (found := search.look()):
            if not search.may_go_on(deadline):
                return
        raise search.surprise(found[0], quiet)

    # What is left and what is coming.

    def _count(self, link: ServerLink) -> int:
        """Count the messages that can be taken, where that takes a look.

        If some have not arrived yet, or a failure has not, those are awaited.
        """

        def count() -> int | None:
            if link.is_incomplete():
                return None
            link.raise_failure()
            coming = 0 if link.ended else max(link.accepted - link.received, 0)
            return len(link.messages) + coming

        found = link.await_transit(count)
        if not found:
            link.check_death(drained=True)
        return found

    def _take(self, link: ServerLink, timeout: float) -> PickledItem | None:
        """Take the next message, if one is there, on its way, or comes within the timeout."""
        if link.messages and not (link.logs or link.failures or link.is_incomplete()):
            # The next one is here, and so is all that must come first: the usual case,
            # and the quickest.
            with contextlib.suppress(IndexError), link.lock:  # another thread may be quicker
                return link.messages.popleft()

        def next_item() -> tuple[PickledItem, ...] | None:
            if link.is_incomplete():
                return None
            link.raise_failure()
            return (link.messages.popleft(),) if link.messages else None

        def next_item_or_none() -> tuple[PickledItem, ...] | None:
            # Empty if it is certain that there is no message.
            return next_item() or (None if link.is_in_transit() else ())

        found = None
        if timeout > 0:
            is_wanted = self._waiter()
            found = link.wait_for(lambda: next_item() if is_wanted() else (), timeout)
        if found is None:
            found = link.await_transit(next_item_or_none)
        if found:
            return found[0]
        link.check_death(drained=True)
        return None

    def _look(self, link: ServerLink) -> tuple[list[PickledItem], int]:
        """Return the messages that can be taken, and how many have ever arrived.

        What was accepted before the call is among them.
        """
        accepted = link.accepted

        def all_of_them() -> tuple[list[PickledItem], int] | None:
            if not link.ended and (link.received < accepted or link.is_incomplete()):
                return None
            link.raise_failure()
            return list(link.messages), link.received

        return link.await_transit(all_of_them)

    def _claim(self, wanted: list[PickledItem]) -> bool:
        """Take these messages, if all of them are still there; return whether they were."""
        link = self._link
        if link is None:
            return False
        with link.lock:
            if not set(link.messages).issuperset(wanted):  # another thread was quicker
                return False
            for item in wanted:
                link.messages.remove(item)
            return True

    def _attach(self, link: ServerLink) -> None:
        """Be filled by another server process; what is left of the last one stays."""
        old = self._link
        if old is not None:
            with old.lock:
                older = list(old.messages)
                old.messages.clear()
            with link.lock:
                link.messages.extendleft(reversed(older))
        self._link = link

    # What the plugin asks for.

    def _keep_taken(self, limit: int) -> None:
        """Keep the last messages that are taken from now on, up to a limit."""
        self._taken = deque(maxlen=limit)
        self._taken_count = 0

    def _begin_anew(self) -> None:
        """End all waiting: whoever waits now is of a test that is over."""
        self._generation += 1
        if self._link is not None:
            with self._link.lock:
                self._link.notify()

    def _waiter(self) -> Callable[[], bool]:
        generation = self._generation
        return lambda: self._generation == generation

    def _note_taken(self, *items: PickledItem) -> None:
        self._taken.extend(items)
        self._taken_count += len(items)

    # What errors say.

    def _why_empty(self, waited: float | None) -> str:
        # Without a time, there was no waiting.
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
        """Return the host and port, if a server has ever filled this queue."""
        return "" if self._link is None else "{host} port {port}".format(**self._where())

    def _where(self) -> dict[str, Any]:
        return {} if self._link is None else self._link.process.where

    def _may_get_more(self) -> bool:
        return self._link is not None and not self._link.ended


class _Search:
    """One call's search: what it wants, and what it has seen so far."""

    def __init__(self, inbox: MessageQueue, wanted: CriteriaArgs) -> None:
        from lazr_smtptest._parent.matching import Criteria

        self._criteria = Criteria(**wanted)
        self._inbox = inbox
        self._link: ServerLink | None = None
        self._seen = 0  # of what that has ever received
        self._is_last_look = False
        self._is_wanted = inbox._waiter()
        self._items: list[PickledItem] = []
        #: Each message is looked at once, however long the search.
        self._unmet: dict[PickledItem, list[str]] = {}
        self.started = now()

    def look(self) -> list[PickledItem]:
        """Return what is wanted of what is there."""
        link = self._inbox._link
        if link is None:
            self._is_last_look = True
            return []
        # Before looking: what came just before the end is to be seen.
        self._is_last_look = link.ended
        self._link = link
        self._items, self._seen = self._inbox._look(link)
        known = self._unmet
        for item in self._items:
            if item not in known:
                known[item] = self._criteria.unmet(item.peek())
        return [item for item in self._items if not known[item]]

    def may_go_on(self, deadline: float) -> bool:
        """Wait for more, and return whether it is worth another look.

        :param deadline: Until when.
        :raises ServerDied: No more can come, since the server process died.
        """
        link = self._inbox._link
        left = deadline - now()
        if link is None:
            return False
        if link is not self._link:  # another server process, since the last look
            return left > 0
        if left > 0 and not self._is_last_look and self._is_wanted():
            link.wait_for(lambda: self._has_news(link) or None, left)
            return self._is_wanted()
        link.check_death()
        return False

    def _has_news(self, link: ServerLink) -> bool:
        return link.received > self._seen or bool(link.failures) or not self._is_wanted()

    def failure(self, count: int) -> MessageNotReceived:
        """Make the error that reports a search in vain."""
        elapsed = now() - self.started
        found = [(item.peek(), self._unmet[item]) for item in self._items]
        text, misses = self._criteria.report(found, count, elapsed, self._inbox._place())
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
        return MessageNotReceived(
            text, near_misses=tuple(misses), elapsed=elapsed, **self._inbox._where()
        )

    def surprise(self, item: PickledItem, quiet: float) -> UnexpectedMessage:
        """Make the error that reports a message that was not to come."""
        elapsed = now() - self.started
        message = item.peek()
        text = self._criteria.report_surprise(message, elapsed, quiet, self._inbox._place())
        text += "\nIf it was to come before, take it, or call reset(), before expect_none()"
        return UnexpectedMessage(text, message=message, elapsed=elapsed, **self._inbox._where())


def _runs_in_event_loop() -> bool:
    """Whether this thread runs an event loop of asyncio, which waits for us now."""
    asyncio = sys.modules.get("asyncio")  # a test that has none need not import it
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
