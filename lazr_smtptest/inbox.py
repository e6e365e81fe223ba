"""The queue of messages that a test reads.  Test process."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from lazr_smtptest._names import CONTROLLERS_ELSEWHERE, CRITERIA_ELSEWHERE, checked, is_refusal
from lazr_smtptest._util import Found, now, seconds
from lazr_smtptest.errors import Difference as Difference  # where they were in 3.0
from lazr_smtptest.errors import NearMiss as NearMiss
from lazr_smtptest.errors import NotRunning

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lazr_smtptest._parent.link import ServerLink, Steps
    from lazr_smtptest._parent.matching import CriteriaArgs
    from lazr_smtptest._parent.search import Goal, Search
    from lazr_smtptest.message import Message, PickledItem

__all__ = ["MessageQueue"]

__tracebackhide__ = is_refusal  # for pytest

#: Seconds that `MessageQueue.get` waits when it is given no timeout.
DEFAULT_TIMEOUT = 60.0

#: What each call that looks for messages takes by name, beside what is its own.
_CRITERIA = tuple("rcpt sender to cc reply_to subject text where".split())


@checked(
    attributes=CONTROLLERS_ELSEWHERE,
    also=_CRITERIA,
    wait=CRITERIA_ELSEWHERE,
    wait_many=CRITERIA_ELSEWHERE,
    wait_for_each=CRITERIA_ELSEWHERE,
    expect_none=CRITERIA_ELSEWHERE,
    wait_async=CRITERIA_ELSEWHERE,
    wait_many_async=CRITERIA_ELSEWHERE,
    expect_none_async=CRITERIA_ELSEWHERE,
)
class InboxCalls:
    """The calls that read a queue: those of the queue, and those of its controller."""

    @property
    def _inbox(self) -> MessageQueue:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Message]:
        """Take the messages that are there now.

        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()

    @property
    def messages(self) -> list[Message]:
        """A list of what is there now, in order.  Takes nothing.

        Its IndexError says what to do about it.  Blocks like `MessageQueue.get_nowait`.

        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        return self._inbox._messages()

    def wait(self, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]) -> Message:
        """Take the first message that matches; wait for it if necessary.

        The others stay, in order.

        :param timeout: How long to wait at most, in seconds.  It does not wait once the
            message is there, nor if no server is running any more.
        :param wanted: See `MessageQueue`; without any, every message matches.
        :return: The message.
        :raises MessageNotReceived: It did not come; the text says what came instead.
        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: It is not here, and the server process died.
        :raises ServerStuck: See `MessageQueue.get`.
        :raises TypeError: A criterion is unknown, or of the wrong type.
        :raises ValueError: The timeout is negative, or no finite number.
        """
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.link import block

        return block(self._inbox._wait_many({"timeout": timeout}, wanted))[0]

    def wait_many(
        self, count: int, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]
    ) -> list[Message]:
        """Take the first ``count`` messages that match, once all are there.

        If they do not all come, it takes none.

        :param count: How many.
        :param timeout: How long to wait at most for all of them, in seconds.
        :param wanted: See `MessageQueue`.
        :return: The messages, in the order in which they were accepted.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.link import block

        return block(self._inbox._wait_many({"count": count, "timeout": timeout}, wanted))

    @overload
    def wait_for_each(
        self,
        recipients: Iterable[str],
        timeout: float = 5.0,
        *,
        count: None = None,
        **wanted: Unpack[CriteriaArgs],
    ) -> dict[str, Message]: ...

    @overload
    def wait_for_each(
        self,
        recipients: Iterable[str],
        timeout: float = 5.0,
        *,
        count: int,
        **wanted: Unpack[CriteriaArgs],
    ) -> dict[str, list[Message]]: ...

    def wait_for_each(
        self,
        recipients: Iterable[str],
        timeout: float = 5.0,
        *,
        count: int | None = None,
        **wanted: Unpack[CriteriaArgs],
    ) -> dict[str, Message] | dict[str, list[Message]]:
        """Take a message for each recipient, once all are there.

        That is the first matching message whose envelope (RCPT) names the
        recipient.  A message to several of them counts for each, and is taken
        once.  All other messages stay: further ones for the same recipient,
        and those for others.  If they do not all come, it takes none.

        :param recipients: The addresses, each once.
        :param timeout: How long to wait at most for all of them, in seconds.
        :param count: How many for each; if you pass it, you get a list for
            each, in the order in which they were accepted.
        :param wanted: See `MessageQueue`, without ``rcpt``.
        :return: The message of each recipient, in the order of ``recipients``.
        :raises MessageNotReceived: They did not all come; ``missing`` has the
            recipients, and the text says who had too many, and who else had one.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.link import block

        found = block(self._inbox._wait_for_each(recipients, timeout, count, wanted))
        return found if count is not None else {name: one for name, (one,) in found.items()}

    def expect_none(self, quiet: float = 0.2, **wanted: Unpack[CriteriaArgs]) -> None:
        """Check that no such message is there, and that none comes.

        Takes nothing.

        :param quiet: How long to watch, in seconds; shorter if no
            server is running any more.
        :param wanted: See `MessageQueue`; here, what must *not* come.
        :raises UnexpectedMessage: Such a message was there, or came.
        :raises NotRunning: No server has ever filled this queue.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.link import block

        block(self._inbox._expect_none(quiet, wanted))

    async def wait_async(self, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]) -> Message:
        """Take the first message that matches; the event loop runs meanwhile.

        Any number of tasks may wait at once, and each message goes to one.  A
        task that is cancelled while it waits takes none.

        :param timeout: See `wait`.
        :param wanted: See `MessageQueue`.
        :return: See `wait`.
        :raises RuntimeError: No event loop of asyncio runs here.
        :raises Exception: See `wait`.
        """
        __tracebackhide__ = True  # for pytest
        return (await self._wait_many_async("wait", {"timeout": timeout}, wanted))[0]

    async def wait_many_async(
        self, count: int, timeout: float = 5.0, **wanted: Unpack[CriteriaArgs]
    ) -> list[Message]:
        """Take this many messages that match; the event loop runs meanwhile.

        :param count: See `wait_many`.
        :param timeout: See `wait_many`.
        :param wanted: See `MessageQueue`.
        :return: See `wait_many`.
        :raises Exception: See `wait_async`.
        """
        __tracebackhide__ = True  # for pytest
        numbers = {"count": count, "timeout": timeout}
        return await self._wait_many_async("wait_many", numbers, wanted)

    async def expect_none_async(self, quiet: float = 0.2, **wanted: Unpack[CriteriaArgs]) -> None:
        """Check that no such message comes; the event loop runs meanwhile.

        :param quiet: See `expect_none`.
        :param wanted: See `MessageQueue`; here, what must *not* come.
        :raises RuntimeError: No event loop of asyncio runs here.
        :raises Exception: See `expect_none`.
        """
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.event_loop import run

        await run(self._inbox._expect_none(quiet, wanted), "expect_none")

    async def _wait_many_async(
        self, name: str, numbers: Mapping[str, float], wanted: CriteriaArgs
    ) -> list[Message]:
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.event_loop import run

        steps = self._inbox._wait_many(numbers, wanted, blocks=False)
        return await run(steps, name)


@checked(get={name: f"wait({name}=...)" for name in _CRITERIA})
class MessageQueue(InboxCalls):
    """The messages that a server has accepted, in that order.

    You read it like a `queue.Queue`, in any number of threads.  The server
    process of the controller that runs its `QueueServer` fills it.  Once a client
    has its 250 for a message, the very next call here sees that message.

    For mail that a program sends later, there are `wait`,
    `wait_many`, `wait_for_each` and `expect_none`; and for coroutines
    `wait_async`, `wait_many_async` and `expect_none_async`.  They look at all
    messages that are there first, and then at each that arrives.  All take
    these keyword arguments, and look for messages that match all of them:

    ``rcpt``
        a recipient of the envelope (RCPT), blind copies included
    ``sender``
        the sender of the envelope (MAIL); ``""`` is the null reverse-path
    ``to``, ``cc``, ``reply_to``
        an address in the header field To, Cc or Reply-To
    ``subject``
        the header field Subject, decoded
    ``text``
        the plain text, the words of the HTML, or its source
    ``where``
        a callable that takes the message and returns whether you want it; it is
        only called for messages that match everything else

    All but ``where`` may be a callable that takes the string, or a compiled
    pattern to search for in it.  A string matches any part of the subject or the
    text, but an address must match whole; its domain's case and its quoting are
    ignored (RFC 5321, 2.4).

    After `Controller.stop` you can still take what was accepted before it.

    >>> MessageQueue().qsize()
    0
    """

    def __init__(self) -> None:
        self._link: ServerLink | None = None
        #: The last messages that were taken, where a report may want them.
        self._taken: deque[PickledItem] = deque(maxlen=0)
        self._taken_count = 0
        #: A call that waits for mail of the last test gets none of this one's.
        self._generation = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """Take the next message.

        :param block: Whether to wait for one, if there is none.
        :param timeout: How long to wait at most, in seconds; by default 60.
        :return: The message; or what an override of
            `QueueServer.handle_message` passed on instead.
        :raises queue.Empty: There is none.  If no server is running, none can come, so
            this is raised without waiting.
        :raises HandlerError: A handler has failed since the last call.
        :raises ServerDied: None is left, and the server process died.
        :raises ServerStuck: An accepted message did not arrive in 5 seconds.
        :raises TypeError: ``block`` is no bool.
        :raises ValueError: The timeout is negative, or no finite number.
        """
        if block not in (True, False):  # it would wait
            meant = f": did you mean timeout={block!r}?" if isinstance(block, int | float) else ""
            raise TypeError(f"block must be True or False, not {block!r}{meant}")
        timeout = seconds("timeout", DEFAULT_TIMEOUT if timeout is None else timeout)
        return self._get(timeout if block else None)

    def get_nowait(self) -> Message:
        """Take the next message, without waiting for one.

        Blocks for 5 seconds at most, and usually not at all: it waits only for
        what was accepted and is still on its way.

        :return: See `MessageQueue.get`.
        :raises queue.Empty: There is none.
        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        return self._get(None)

    def _get(self, timeout: float | None) -> Message:
        """Take the next message; wait for one, unless the timeout is None."""
        link = self._link
        item = None if link is None else self._take_at_once(link)
        if item is None:
            item = self._wait_and_take(timeout)
        self._taken.append(item)
        self._taken_count += 1
        message: Message = item.load()
        return message

    def _wait_and_take(self, timeout: float | None) -> PickledItem:
        started = now()
        item = None if self._link is None else self._take(self._link, timeout or 0.0)
        if item is None:
            raise queue.Empty(self._why_empty(None if timeout is None else now() - started))
        return item

    def qsize(self) -> int:
        """Count the messages that were accepted and not yet taken.

        This is exact.  It usually makes no system call.

        :return: The number.
        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`; if the death is known already.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        link = self._link
        if link is None:
            return 0
        link.catch_up()
        if not (link.ended or link.failures or link.logs or link.is_in_transit()):
            return len(link.messages)
        return self._count(link)

    def empty(self) -> bool:
        """Return whether there is no message.  See `qsize`.

        :return: Whether there is none.
        """
        return self.qsize() == 0

    # What `InboxCalls` are made of.

    @property
    def _inbox(self) -> MessageQueue:
        return self

    def _messages(self) -> list[Message]:
        link = self._link
        if link is None:
            return Found((), self._why_empty(None))
        from lazr_smtptest._parent.link import block

        link.catch_up()
        items, _ = block(self._look(link))
        if not items:
            link.check_death()
            return Found((), self._why_empty(None))
        count = f"{len(items)} message{'s' if items[1:] else ''}"
        why = f"there is no more than {count}, on {self._place()}: wait_many() waits for more"
        return Found([item.load() for item in items], why)

    def _wait_many(
        self, numbers: Mapping[str, float], wanted: CriteriaArgs, *, blocks: bool = True
    ) -> Steps[list[Message]]:
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.search import First, Search

        search = Search(self, wanted, numbers)
        search.blocks = blocks
        found = yield from self._find(search, First(search.criteria, search.count))
        return [item.load() for item in found]

    def _wait_for_each(
        self, recipients: Iterable[str], timeout: float, count: int | None, wanted: CriteriaArgs
    ) -> Steps[dict[str, list[Message]]]:
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.recipients import ForEach
        from lazr_smtptest._parent.search import Search

        if "rcpt" in wanted:
            raise TypeError("wait_for_each() has its recipients already: leave rcpt out")
        each = 1 if count is None else count
        search = Search(self, wanted, {"timeout": timeout, "count": each})
        goal = ForEach(search.criteria, recipients, search.count)
        yield from self._find(search, goal)
        return goal.messages()

    def _find(self, search: Search, goal: Goal) -> Steps[list[PickledItem]]:
        """Take what a goal picks."""
        __tracebackhide__ = True  # for pytest
        if self._link is not None:  # an error that was sent by now comes first
            self._link.catch_up()
        while True:
            found = goal.pick((yield from search.look()))
            if found is None:
                if not (yield from search.may_go_on()):
                    raise search.failure(goal)
            elif self._claim(found):
                self._note_taken(*found)
                return found

    def _expect_none(self, quiet: float, wanted: CriteriaArgs) -> Steps[None]:
        __tracebackhide__ = True  # for pytest
        from lazr_smtptest._parent.search import Search

        search = Search(self, wanted, {"quiet": quiet})
        if self._link is None:
            raise NotRunning("no message can come where no server was started: call start() first")
        while not (found := (yield from search.look())):
            if not (yield from search.may_go_on()):
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

    def _take_at_once(self, link: ServerLink) -> PickledItem | None:
        """Take the next message if it is here, and all that must come first: the usual case."""
        if link.messages and not (link.logs or link.failures or link.is_incomplete()):
            try:
                with link.lock:
                    return link.messages.popleft()
            except IndexError:  # another thread, or a signal handler, was quicker
                return None
        return None

    def _take(self, link: ServerLink, timeout: float) -> PickledItem | None:
        """Take the next message, if one is there, on its way, or comes within the timeout."""

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
            link.catch_up()
            found = link.await_transit(next_item_or_none)
        if found:
            return found[0]
        link.check_death(drained=True)
        return None

    def _look(self, link: ServerLink) -> Steps[tuple[list[PickledItem], int]]:
        """Return the messages that can be taken, and how many have ever arrived.

        What was accepted before the call is among them.
        """
        accepted = link.accepted

        def all_of_them() -> tuple[list[PickledItem], int] | None:
            if not link.ended and (link.received < accepted or link.is_incomplete()):
                return None
            link.raise_failure()
            return list(link.messages), link.received

        return (yield from link.transit(all_of_them))

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
        """Read from another server process from now on; what is left of the last one stays."""
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
        """End all waiting: a call that waits now belongs to a test that is over."""
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
            return f"no message is there, and no server runs on {place}: {self._advice()}"
        if waited is None:
            return f"no message is there, on {place}: wait() waits for one that is yet to come"
        return (
            f"no message came to {place} within {waited:.3g} seconds: "
            "give a longer timeout, or see in sessions() what clients did"
        )

    def _place(self) -> str:
        """Return where the server is that fills this queue, if one ever did."""
        return "" if self._link is None else str(self._link.process.endpoint)

    def _absence(self) -> str:
        return "No server is running" if self._link is None else self._link.process.absence

    def _advice(self) -> str:
        return "call start() first" if self._link is None else self._link.process.advice

    def _where(self) -> dict[str, Any]:
        return {} if self._link is None else self._link.process.where

    def _may_get_more(self) -> bool:
        return self._link is not None and not self._link.ended
