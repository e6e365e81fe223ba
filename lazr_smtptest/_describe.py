"""Messages in words, for reports.  Test process.

What comes from a client is quoted: it may have control characters in it, or be
without an end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Session

__all__ = ["addresses", "describe", "headline", "plain", "quoted", "session_lines"]

#: Characters of a text that a report shows.
_WIDTH = 100

#: Lines of a message's text, addresses, and attachments that it shows.
_LINES = 5
_ADDRESSES = 5
_ATTACHMENTS = 10

#: Lines of a session's dialogue that it shows, the last.
_DIALOGUE = 20


def quoted(text: str) -> str:
    """Give a text as a Python literal, cut if it is long."""
    return repr(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}...")


def plain(text: str) -> str:
    """Give a text without its quotes, as long as it needs none."""
    return text if text.isprintable() and len(text) <= _WIDTH else quoted(text)


def addresses(found: Iterable[str]) -> str:
    """Give addresses as SMTP writes them."""
    texts = [f"<{plain(address)}>" for address in found]
    more = len(texts) - _ADDRESSES
    shown = ", ".join(texts[:_ADDRESSES])
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"


def headline(item: Any) -> str:
    """Say in one line which message it is.

    :param item: A `Message`, or what a handler passed on in its place.
    """
    if not isinstance(item, Message):
        return quoted(repr(item))
    envelope = item.envelope
    return (
        f"from {addresses([envelope.mail_from])} to {addresses(envelope.rcpt_tos)}, "
        f"subject {quoted(item.header('Subject'))}"
    )


def describe(item: Any) -> str:
    """Say in some lines what a message is: its envelope, text and attachments.

    :param item: A `Message`, or what a handler passed on in its place.
    """
    lines = [headline(item)]
    if isinstance(item, Message):
        lines += [f"  | {plain(line)}" for line in _first_lines(item)]
        lines += [
            f"  attached: {quoted(found.name or '')} "
            f"({plain(found.type)}, {len(found.data)} bytes)"
            for found in item.attachments[:_ATTACHMENTS]
        ]
    return "\n".join(lines)


def _first_lines(message: Message) -> list[str]:
    lines = (message.text or message.html).strip().splitlines()
    return lines if len(lines) <= _LINES else [*lines[:_LINES], "..."]


def session_lines(session: Session) -> list[str]:
    """Say in some lines what a session was: its client, its end, its dialogue."""
    helo = f", which calls itself {quoted(session.helo)}" if session.helo else ""
    lines = [f"- {session.peer[0]} port {session.peer[1]}{helo}: {session.ended}"]
    if len(session.dialogue) > _DIALOGUE:
        lines.append("  ...")
    return lines + [f"  {plain(str(line))}" for line in session.dialogue[-_DIALOGUE:]]
