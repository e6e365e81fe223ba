"""A search for messages: what it wants, what it has seen, what it says.  Test process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lazr_smtptest._names import is_refusal
from lazr_smtptest._parent.link import ServerLink, Steps, Wait
from lazr_smtptest._parent.matching import Criteria, CriteriaArgs, check_names, meant_by
from lazr_smtptest._util import now, seconds, whole_number
from lazr_smtptest.errors import MessageNotReceived, UnexpectedMessage
from lazr_smtptest.message import PickledItem

if TYPE_CHECKING:
    from lazr_smtptest.inbox import MessageQueue

__tracebackhide__ = is_refusal  # for pytest


class Goal(Protocol):
    """What a search is for."""

    def pick(self, found: Sequence[PickledItem]) -> list[PickledItem] | None:
        """Return what to take of what is wanted; None if that is not enough."""

    def report(
        self, found: Sequence[tuple[Any, list[str]]], elapsed: float, place: str
    ) -> tuple[str, dict[str, Any]]:
        """Return what a failed search found, each with what it does not meet: text, facts."""


class First:
    """The first ``count`` messages."""

    def __init__(self, criteria: Criteria, count: int) -> None:
        self._criteria = criteria
        self._count = count

    def pick(self, found: Sequence[PickledItem]) -> list[PickledItem] | None:
        return None if len(found) < self._count else list(found[: self._count])

    def report(
        self, found: Sequence[tuple[Any, list[str]]], elapsed: float, place: str
    ) -> tuple[str, dict[str, Any]]:
        text, misses = self._criteria.report(found, self._count, elapsed, place)
        return text, {"near_misses": tuple(misses)}


class Search:
    """One call's search: what it wants, and what it has seen so far.

    :param numbers: What else the call was given: its time limit in seconds, as ``timeout`` or
        ``quiet``, and perhaps a ``count``.
    """

    def __init__(
        self, inbox: MessageQueue, wanted: CriteriaArgs, numbers: Mapping[str, Any]
    ) -> None:
        #: How many messages are wanted.
        self.count = 1
        for name, value in numbers.items():
            try:
                if name == "count":
                    self.count = whole_number(name, value, 1)
                else:
                    self._limit = seconds(name, value)
            except (TypeError, ValueError) as error:  # it may be a criterion without its name
                raise type(error)(f"{error}{meant_by(name, value)}") from None
        check_names(wanted, numbers)
        self.criteria = Criteria(**wanted)
        self._inbox = inbox
        self._link: ServerLink | None = None
        self._seen = 0  # of what that has ever received
        self._is_last_look = self._has_caught_up = False
        self._is_wanted = inbox._waiter()
        self._items: list[PickledItem] = []
        #: Each message is looked at once, however long the search.
        self._unmet: dict[PickledItem, list[str]] = {}
        self.started = now()
        #: Whether the thread stands still meanwhile.
        self.blocks = True

    def look(self) -> Steps[list[PickledItem]]:
        """Return what is wanted of what is there."""
        link = self._inbox._link
        if link is None:
            self._is_last_look = True
            return []
        # Before looking: what came just before the end must be seen.
        self._is_last_look = link.ended
        self._link = link
        self._items, self._seen = yield from self._inbox._look(link)
        known = self._unmet
        for item in self._items:
            if item not in known:
                known[item] = self.criteria.unmet(item.peek())
        return [item for item in self._items if not known[item]]

    def may_go_on(self) -> Steps[bool]:
        """Wait for more, and return whether it is worth another look.

        :raises ServerDied: No more can come, since the server process died.
        """
        link = self._inbox._link
        left = self.started + self._limit - now()
        if link is None:
            return False
        if link is not self._link:  # another server process, since the last look
            return left > 0
        if left > 0 and not self._is_last_look and self._is_wanted():
            yield Wait(link, lambda: self._has_news(link) or None, left)
            return self._is_wanted()
        if self._is_wanted() and not self._has_caught_up:
            # One more look, at all that has been sent by now.
            self._has_caught_up = True
            link.catch_up()
            return True
        link.check_death()
        return False

    def _has_news(self, link: ServerLink) -> bool:
        return link.received > self._seen or bool(link.failures) or not self._is_wanted()

    def failure(self, goal: Goal) -> MessageNotReceived:
        """Make the error that reports a failed search."""
        elapsed = now() - self.started
        found = [(item.peek(), self._unmet[item]) for item in self._items]
        text, facts = goal.report(found, elapsed, self._inbox._place())
        if not self._inbox._may_get_more():
            why, advice = self._inbox._absence(), self._inbox._advice()
            text += f"\n{why}, so none can come: {advice}"
        elif not found:
            text += (
                "\nDoes the program send there?  sessions() shows who connected; "
                "if it is slow, give a longer timeout"
            )
        else:
            text += (
                "\nIf it was yet to come, give a longer timeout; sessions() shows what clients did"
            )
        if self.blocks and _runs_in_event_loop():
            text += (
                "\nThe event loop of this thread stood still meanwhile; "
                "if one of its tasks sends, await wait_async() instead"
            )
        return MessageNotReceived(text, elapsed=elapsed, **facts, **self._inbox._where())

    def surprise(self, item: PickledItem, quiet: float) -> UnexpectedMessage:
        """Make the error that reports a message that should not have come."""
        elapsed = now() - self.started
        message = item.peek()
        text = self.criteria.report_surprise(message, elapsed, quiet, self._inbox._place())
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
