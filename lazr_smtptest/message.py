"""What a test reads: a message and the envelope it came in.  Both processes.

The server process sends an `Envelope` and the octets; whoever reads the
message parses it, so a message that nobody looks at costs no parsing.
"""

from __future__ import annotations

import email
import email.policy
import re
from datetime import datetime
from email.errors import MessageDefect
from email.message import EmailMessage
from typing import Any, NamedTuple

__all__ = ["Envelope", "Message", "ParserFailed", "Received", "parse"]

#: Headers that 2.x added, and so do we.  A sender may have forged them.
_X_PEER, _X_MAILFROM, _X_RCPTTO = "X-Peer", "X-MailFrom", "X-RcptTo"
_OURS = frozenset(name.lower() for name in (_X_PEER, _X_MAILFROM, _X_RCPTTO))

_LINE_BREAKS = re.compile(r"[\r\n]+")


class Envelope(NamedTuple):
    """What the client said around the message, in SMTP's own terms.

    :ivar sequence: The message's number, from 1, in the order in which this
        server process got messages whole; one that it then refused has one too.
    :ivar peer: The client's socket address: host and port, and two more
        numbers under IPv6.
    :ivar helo: What the client gave with EHLO or HELO.
    :ivar mail_from: The reverse-path, without angle brackets; empty for the
        null reverse-path (RFC 5321, 4.5.5).
    :ivar rcpt_tos: The forward-paths, in the order of the RCPT commands; Bcc
        recipients are here, and nowhere else.
    :ivar mail_options: The parameters of MAIL, such as ``SIZE=1000``.
    :ivar rcpt_options: The parameters of all RCPT commands.
    :ivar smtp_utf8: Whether MAIL had the parameter SMTPUTF8 (RFC 6531).
    :ivar tls: The TLS version of the session, or None if it was in the clear.
    :ivar auth_user: The name the client authenticated with, or None.
    :ivar received_at: When the message was complete; UTC.
    """

    sequence: int
    peer: tuple[Any, ...]
    helo: str | None
    mail_from: str
    rcpt_tos: tuple[str, ...]
    mail_options: tuple[str, ...]
    rcpt_options: tuple[str, ...]
    smtp_utf8: bool
    tls: str | None
    auth_user: str | None
    received_at: datetime


class Received(NamedTuple):
    """A message as it comes from the server process, not parsed."""

    envelope: Envelope
    raw: bytes


class Message(EmailMessage):
    """A received message: an `email.message.EmailMessage` and what it came in.

    As in 2.x, the headers X-Peer, X-MailFrom and X-RcptTo are added at the
    end; any that the sender wrote itself are taken out first.

    :ivar envelope: The `Envelope`.
    :ivar raw: The content as the client sent it, octet for octet, with
        dot-stuffing undone (RFC 5321, 4.5.2).  It has none of our headers.
    """

    envelope: Envelope
    raw: bytes


class ParserFailed(MessageDefect):
    """A defect: the standard library's parser raised an exception on a message."""


def parse(envelope: Envelope, raw: bytes) -> Message:
    """Make a `Message` of what was received.  Never raises.

    :param envelope: What the client said around the message.
    :param raw: The content.
    :return: The message.  What is wrong with its MIME structure is in its
        ``defects``.  Content that breaks the parser of the standard library
        gives a message without headers, with a `ParserFailed` among its
        ``defects``.
    """
    try:
        parsed = email.message_from_bytes(raw, policy=email.policy.default)
    except Exception as error:  # whatever the parser trips over, mail is mail
        parsed = EmailMessage()
        parsed.set_payload(raw.decode("ascii", "surrogateescape"))
        parsed.defects.append(ParserFailed(f"{type(error).__name__}: {error}"))
    # The parser's factory would be used for each part too, and a part has no
    # envelope; so the whole message alone changes its class, afterwards.
    parsed.__class__ = Message
    assert isinstance(parsed, Message)
    parsed.envelope = envelope
    parsed.raw = raw
    _add_headers(parsed)
    return parsed


def _add_headers(message: Message) -> None:
    """Replace the X- headers of 2.x by true ones."""
    if not _OURS.isdisjoint([name.lower() for name in message.keys()]):  # noqa: SIM118
        for name in (_X_PEER, _X_MAILFROM, _X_RCPTTO):
            del message[name]
    envelope = message.envelope
    # set_raw() is how the parser itself adds a header: the value is parsed
    # when it is read.  Item assignment would parse all three at once, which
    # takes as long as parsing a small message.
    for name, value in (
        (_X_PEER, ":".join(map(str, envelope.peer[:2]))),
        (_X_MAILFROM, envelope.mail_from),
        (_X_RCPTTO, ", ".join(envelope.rcpt_tos)),
    ):
        message.set_raw(name, value if value.isascii() and value.isprintable() else _safe(value))


def _safe(value: str) -> str:
    """Make a header's value of any text: one line, and octets as the parser has them."""
    text = _LINE_BREAKS.sub(" ", value)
    return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
