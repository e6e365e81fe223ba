"""Which messages a test wants, and how near the others came.  Test process."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

from lazr_smtptest._names import CRITERIA_ELSEWHERE, EXPECT_NONE_ELSEWHERE, hints, is_refusal
from lazr_smtptest._parent.describe import describe
from lazr_smtptest._reading.addresses import Mailbox, canonical, mailboxes
from lazr_smtptest._reading.markup import words
from lazr_smtptest._reading.words import decode_words, in_one_line
from lazr_smtptest._util import quoted
from lazr_smtptest.errors import Difference, NearMiss
from lazr_smtptest.message import Message, headline

__tracebackhide__ = is_refusal  # for pytest

#: Near misses that a report has.
_REPORTED = 5

#: What a text is compared with: a string, a pattern to search for, or a
#: callable that says.
Matcher = str | re.Pattern[str] | Callable[[str], object]


class CriteriaArgs(TypedDict, total=False):
    """The criteria, as keyword arguments."""

    rcpt: Matcher
    sender: Matcher
    to: Matcher
    cc: Matcher
    reply_to: Matcher
    subject: Matcher
    text: Matcher
    where: Callable[[Any], object]


def _anything(_message: Any) -> bool:
    return True


class Criteria:
    """What is wanted of a message; see `MessageQueue`.

    :raises TypeError: A criterion is unknown, or of a type it cannot be.
    """

    def __init__(self, *, where: Callable[[Any], object] = _anything, **fields: Matcher) -> None:
        check_names(fields)
        for name, matcher in fields.items():
            _check(name, matcher)
        if not callable(where):
            raise TypeError(f"where must be a callable that takes a message, not {where!r}")
        self._fields = {name: fields[name] for name in _TEXTS if name in fields}
        self._where = where

    def __str__(self) -> str:
        parts = [f"{name} {_in_words(name, wanted)}" for name, wanted in self._fields.items()]
        if self._where is not _anything:
            parts.append(f"where {_name(self._where)}")
        return " and ".join(parts)

    def unmet(self, message: Any) -> list[str]:
        """Return the criteria that a message does not meet; none if it is wanted."""
        found = [
            name
            for name, wanted in self._fields.items()
            if not any(_meets(name, wanted, text) for text in _texts(name, wanted, message))
        ]
        return found if found or self._where(message) else ["where"]

    def _difference(self, name: str, message: Any) -> Difference:
        if name == "where":
            return Difference(name, f"{_name(self._where)} did not want it")
        wanted = self._fields[name]
        texts = _texts(name, wanted, message)
        got = texts[:1] if name == "subject" else texts
        return Difference(name, _explain(name, wanted, got) + _as_it_came(name, message, texts))

    def report(
        self, found: Sequence[tuple[Any, list[str]]], count: int, elapsed: float, place: str = ""
    ) -> tuple[str, list[NearMiss]]:
        """Report that a message has not come, and what has, each with what it does not meet.

        Return the text, and the messages that came nearest, nearest first.
        """
        misses = [(message, unmet) for message, unmet in found if unmet]
        nearest, shown = self.near_misses(misses)
        matching = len(found) - len(misses)
        missing = f"only {matching} of {count} messages" if count > 1 else "no message"
        lines = [
            f"{missing}{self.suffix()} came{f' to {place}' if place else ''} "
            f"within {elapsed:.2f} seconds{_how_many(len(found))}"
        ]
        if not misses:
            lines[0] = lines[0].rstrip(":")
        return "\n".join(lines + shown), nearest

    def near_misses(
        self, misses: Sequence[tuple[Any, list[str]]]
    ) -> tuple[list[NearMiss], list[str]]:
        """Return the messages that came nearest, nearest first, and lines that show them."""
        nearest = [
            NearMiss(message, [self._difference(name, message) for name in unmet])
            for message, unmet in sorted(misses, key=lambda miss: len(miss[1]))[:_REPORTED]
        ]
        lines = []
        for miss in nearest:
            lines.append(f"- {headline(miss.message)}")
            lines += [f"    {name}: {explanation}" for name, explanation in miss.differences]
        if len(misses) > len(nearest):
            lines.append(f"- and {len(misses) - len(nearest)} more, which came no nearer")
        return nearest, lines

    def report_surprise(self, message: Any, elapsed: float, quiet: float, place: str = "") -> str:
        """Report that a message was there that should not be, for ``quiet`` seconds."""
        return (
            f"a message{self.suffix()} was there{f' on {place}' if place else ''} "
            f"after {elapsed:.2f} seconds, and none was to come for {quiet:g} seconds:\n"
            f"{describe(message)}"
        )

    def suffix(self) -> str:
        return f" with {self}" if str(self) else ""


def check_names(wanted: Iterable[str], beside: Collection[str] = ()) -> None:
    """Check that there are such criteria; the call has other arguments beside them."""
    known = [*_TEXTS, "where"]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        elsewhere = EXPECT_NONE_ELSEWHERE if "quiet" in beside else CRITERIA_ELSEWHERE
        if "count" not in beside:
            elsewhere = elsewhere | {"count": "wait_many()"}
        names, criteria = ", ".join(map(repr, unknown)), ", ".join(known)
        meant = hints(unknown, [*known, *beside], elsewhere)
        raise TypeError(f"a message has no {names} to look for; there is {criteria}{meant}")


def meant_by(name: str, value: object) -> str:
    """Return what a value that is not right for a name was meant to be, as the end of a text."""
    if name == "count" and isinstance(value, float):
        name = "timeout"
    elif isinstance(value, str) and not value.replace(".", "").isdecimal():
        name = "rcpt" if "@" in value else "subject"
    elif isinstance(value, re.Pattern):
        name = "subject"
    elif callable(value):
        return ": did you mean where=...?"
    else:
        return ""
    return f": did you mean {name}={value!r}?"


def _check(name: str, matcher: Matcher) -> None:
    if isinstance(matcher, re.Pattern) and isinstance(matcher.pattern, bytes):
        raise TypeError(f"{name} must be a pattern of str, not of bytes: {matcher!r}")
    if not isinstance(matcher, str | re.Pattern) and not callable(matcher):
        several = name == "rcpt" and isinstance(matcher, list | tuple | set)
        meant = f": did you mean wait_for_each({matcher!r})?" if several else ""
        raise TypeError(
            f"{name} must be a str, a compiled pattern or a callable, not {matcher!r}{meant}"
        )


def _how_many(count: int) -> str:
    if not count:
        return ""
    return "; 1 message is there:" if count == 1 else f"; {count} messages are there:"


# What is compared.


#: Header fields by the criterion that looks at them.
_HEADERS = {"to": "To", "cc": "Cc", "reply_to": "Reply-To", "subject": "Subject"}
#: Criteria that a str meets as a part; it is the whole of an address.
_PARTS = frozenset({"subject", "text"})


def _subject(message: Message) -> list[str]:
    value = next(iter(message._readable_values("Subject")), "")
    once = decode_words(in_one_line(value, always_one_blank=True))
    return list(dict.fromkeys([message.header("Subject"), once]))


def _all_text(message: Message) -> list[str]:
    html = message.html
    found = [message.text, *([words(html), html] if html else [])]
    return [text for text in found if text]


def _addresses_in(header: str) -> Callable[[Message], list[str]]:
    return lambda message: [one.address for one in _mailboxes(header, message)]


_TEXTS: dict[str, Callable[[Message], list[str]]] = {
    "rcpt": lambda message: list(message.envelope.rcpt_tos),
    "sender": lambda message: [message.envelope.mail_from],
    "to": _addresses_in("To"),
    "cc": _addresses_in("Cc"),
    "reply_to": _addresses_in("Reply-To"),
    "subject": _subject,
    "text": _all_text,
}


def _mailboxes(header: str, message: Message) -> list[Mailbox]:
    return [one for value in message._readable_values(header) for one in mailboxes(value)]


def _texts(field: str, wanted: Matcher, message: Any) -> list[str]:
    if not isinstance(message, Message):
        return []
    texts = _TEXTS[field](message)
    if field not in _PARTS and field in _HEADERS and isinstance(wanted, re.Pattern):
        # A pattern may be after the name; what is compared is the address.
        named = [one for one in _mailboxes(_HEADERS[field], message) if one.name]
        texts += [f"{one.name} <{one.address}>" for one in named]
    return texts


def _as_it_came(name: str, message: Any, texts: list[str]) -> str:
    """Quote a header field that a criterion looked at, unless what was read in it is all."""
    if name not in _HEADERS or not isinstance(message, Message):
        return ""
    fields = message.raw_headers(_HEADERS[name])
    if not fields or ", ".join(fields) in (", ".join(texts), *texts[:1]):
        return ""
    return f"; the header is {quoted(', '.join(fields))}"


def _meets(name: str, wanted: Matcher, text: str) -> bool:
    if isinstance(wanted, re.Pattern):
        return wanted.search(text) is not None
    if not isinstance(wanted, str):
        return bool(wanted(text))
    if name in _PARTS:
        return wanted in text
    return canonical(wanted) == canonical(text)


# What is said about it.


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _in_words(name: str, wanted: Matcher) -> str:
    if isinstance(wanted, re.Pattern):
        return f"matching {quoted(wanted.pattern)}"
    if not isinstance(wanted, str):
        return f"that {_name(wanted)} wants"
    return f"containing {quoted(wanted)}" if name in _PARTS else quoted(wanted)


def _explain(name: str, wanted: Matcher, texts: Iterable[str]) -> str:
    texts = list(texts)
    got = ", ".join(quoted(text) for text in _nearest_first(wanted, texts)[:_REPORTED])
    more = f" and {len(texts) - _REPORTED} more" if len(texts) > _REPORTED else ""
    hint = _hint(name, wanted, texts) if isinstance(wanted, str) else ""
    return f"wanted {_in_words(name, wanted)}, got {got or 'none'}{more}{hint}"


def _nearest_first(wanted: Matcher, texts: list[str]) -> list[str]:
    if not isinstance(wanted, str) or len(texts) < 2:
        return texts
    near = get_close_matches(wanted, texts, n=_REPORTED)
    return [*near, *(text for text in texts if text not in near)]


def _hint(name: str, wanted: str, texts: list[str]) -> str:
    """Point out a difference that is easily overlooked."""
    if not wanted.strip():
        return ""
    if any(wanted.casefold() in text.casefold() for text in texts):
        if name in _PARTS:
            return ", which differs in case"
        if any(wanted.casefold() == text.casefold() for text in texts):
            return ", which differs in the case of the local part"
        return "; a str is compared with the whole address, use a pattern for a part of it"
    squeezed = "".join(wanted.split())
    if any(squeezed in "".join(text.split()) for text in texts):
        return ", which differs in white space"
    return ""
