"""A message for each of several recipients.  Test process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from lazr_smtptest._names import is_refusal
from lazr_smtptest._parent.matching import Criteria
from lazr_smtptest._reading.addresses import canonical
from lazr_smtptest._util import quoted
from lazr_smtptest.message import Message, PickledItem

__tracebackhide__ = is_refusal  # for pytest

#: Recipients that a report has, of each kind.
_REPORTED = 10

#: An address, so that those that mean the same are equal.
_Key = tuple[str, str]


class ForEach:
    """A number of messages for each recipient: a goal of a search.

    :raises TypeError: The recipients are not several addresses.
    :raises ValueError: There is none, or one is there twice.
    """

    def __init__(self, criteria: Criteria, recipients: Iterable[str], count: int) -> None:
        self._criteria = criteria
        self._names = _checked(recipients)
        self._count = count
        #: Whom each message is for; read once, however long the search.
        self._keys: dict[PickledItem, set[_Key]] = {}
        self._shares: dict[_Key, list[PickledItem]] = {}

    def pick(self, found: Sequence[PickledItem]) -> list[PickledItem] | None:
        shares: dict[_Key, list[PickledItem]] = {key: [] for key in self._names}
        for item in found:
            if item not in self._keys:
                self._keys[item] = _recipients(item.peek())
            for key in self._keys[item] & shares.keys():
                shares[key].append(item)
        self._shares = {key: items[: self._count] for key, items in shares.items()}
        if min(map(len, self._shares.values())) < self._count:
            return None
        wanted = {item for items in self._shares.values() for item in items}
        return [item for item in found if item in wanted]

    def messages(self) -> dict[str, list[Message]]:
        """Return the messages that were picked last, by recipient."""
        shares = self._shares.items()
        return {self._names[key]: [item.load() for item in items] for key, items in shares}

    def report(
        self, found: Sequence[tuple[Any, list[str]]], elapsed: float, place: str
    ) -> tuple[str, dict[str, Any]]:
        counts, others = self._counts(message for message, unmet in found if not unmet)
        missing = {key for key, number in counts.items() if number < self._count}
        misses = [
            (message, unmet)
            for message, unmet in found
            if unmet and _recipients(message) & missing
        ]
        nearest, shown = self._criteria.near_misses(misses)
        lines = [self._headline(len(missing), elapsed, place)]
        lines += self._in_words(counts, missing)
        lines += _cut(
            [
                f"- {quoted(name)}, for whom none was to come, had {number}"
                for name, number in others.items()
            ]
        )
        names = tuple(self._names[key] for key in self._names if key in missing)
        return "\n".join(lines + shown), {"near_misses": tuple(nearest), "missing": names}

    def _counts(self, messages: Iterable[Any]) -> tuple[Counter[_Key], Counter[str]]:
        """Return how many messages each recipient had, and each address that is no recipient."""
        counts, others = Counter(dict.fromkeys(self._names, 0)), Counter[str]()
        for message in messages:
            counts.update(_recipients(message) & self._names.keys())
            named = {canonical(name): name for name in _names(message)}
            others.update(name for key, name in named.items() if key not in self._names)
        return counts, others

    def _headline(self, missing: int, elapsed: float, place: str) -> str:
        number = "a message" if self._count == 1 else f"{self._count} messages"
        return (
            f"only {len(self._names) - missing} of {len(self._names)} recipients had {number}"
            f"{self._criteria.suffix()}{f' on {place}' if place else ''} "
            f"within {elapsed:.2f} seconds:"
        )

    def _in_words(self, counts: Counter[_Key], missing: set[_Key]) -> list[str]:
        few = [key for key in self._names if key in missing]
        many = [key for key in self._names if counts[key] > self._count]
        return [
            line
            for keys in (few, many)
            for line in _cut(
                [f"- {quoted(self._names[key])} had {counts[key] or 'none'}" for key in keys]
            )
        ]


def _checked(recipients: Iterable[str]) -> dict[_Key, str]:
    if isinstance(recipients, str | bytes) or not isinstance(recipients, Iterable):
        raise TypeError(
            "recipients must be several addresses, such as "
            f"['kim@example.com', 'lee@example.com'], not {recipients!r}"
        )
    names: dict[_Key, str] = {}
    for name in recipients:
        if not isinstance(name, str):
            raise TypeError(f"recipients must be addresses, each a str, not {name!r}")
        if not name.strip():
            raise ValueError("recipients must be addresses, and none may be empty")
        if (key := canonical(name)) in names:
            raise ValueError(
                f"recipients must be different, and {quoted(names[key])} and {quoted(name)} "
                "are the same: for several messages to each, pass count"
            )
        names[key] = name
    if not names:
        raise ValueError("recipients must have an address at least, and there is none")
    return names


def _names(message: Any) -> list[str]:
    return list(message.envelope.rcpt_tos) if isinstance(message, Message) else []


def _recipients(message: Any) -> set[_Key]:
    return {canonical(name) for name in _names(message)}


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _REPORTED
    return [*lines[:_REPORTED], f"- and so on, {more} more"] if more > 0 else lines
