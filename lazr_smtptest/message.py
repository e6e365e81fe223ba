"""What a test reads: a message and the envelope it came in.  Both processes.

The server process sends an `Envelope` and the octets; whoever reads the
message parses it, so a message that nobody looks at costs no parsing.
"""

from __future__ import annotations

import email
import email.policy
import os
import re
import sys
from _pickle import loads  # pickle's may be a test's
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from email import message_from_bytes
from email.errors import MessageDefect
from email.message import EmailMessage
from email.message import Message as AnyMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lazr_smtptest._util import addresses, quoted, utc

if TYPE_CHECKING:
    from lazr_smtptest.checks import Problem

__all__ = ["Attachment", "Envelope", "Message", "ParserFailed", "Received", "parse"]

#: Headers that 2.x added, and so do we.  A sender may have forged them.
_X_PEER, _X_MAILFROM, _X_RCPTTO = "X-Peer", "X-MailFrom", "X-RcptTo"
_OURS = frozenset(name.lower() for name in (_X_PEER, _X_MAILFROM, _X_RCPTTO))

#: Changes nothing about a message but its line ends, which it has lost.
_AS_SENT = email.policy.default.clone(refold_source="none", utf8=True, linesep="\r\n")
#: All that `str.splitlines`, and so the parser of headers, takes for the end of a line.
_LINE_BREAKS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")

#: A URL in running text, and what may follow it there without being part of it.
_URL = re.compile(r"(?<![^\W_])https?://[^\s<>\"]{1,4000}", re.IGNORECASE)
_PUNCTUATION = ".,;:!?'*_"
_BRACKETS = {")": "(", "]": "[", "}": "{"}


T = TypeVar("T")


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
    :ivar received_at: When the message was complete; UTC, and the real time, whatever
        a test has frozen.
    :ivar rcpt_parameters: For each of ``rcpt_tos``, its own parameters; empty
        if none had any.
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
    rcpt_parameters: tuple[tuple[str, ...], ...] = ()

    @property
    def body(self) -> str:
        """What MAIL's BODY= says: ``"7BIT"``, or ``"8BITMIME"`` (RFC 6152)."""
        return (_value(self.mail_options, "BODY") or "7BIT").upper()

    @property
    def size(self) -> int | None:
        """How large MAIL's SIZE= says that the message is (RFC 1870), or None."""
        declared = _value(self.mail_options, "SIZE")
        return None if declared is None else int(declared)

    @property
    def ret(self) -> str | None:
        """How much a notification is to return (RFC 3461): FULL, HDRS or None."""
        ret = _value(self.mail_options, "RET")
        return None if ret is None else ret.upper()

    @property
    def envid(self) -> str | None:
        """The sender's own name for the message (RFC 3461), decoded, or None."""
        envid = _value(self.mail_options, "ENVID")
        return None if envid is None else _from_xtext(envid)

    @property
    def notify(self) -> tuple[tuple[str, ...] | None, ...]:
        """For each of ``rcpt_tos``, what to notify of (RFC 3461), or None.

        That is ``("NEVER",)``, or some of SUCCESS, FAILURE and DELAY.
        """
        found = (_value(parameters, "NOTIFY") for parameters in self._by_recipient())
        return tuple(None if value is None else tuple(value.upper().split(",")) for value in found)

    @property
    def orcpt(self) -> tuple[str | None, ...]:
        """For each of ``rcpt_tos``, the original recipient (RFC 3461), or None.

        That is a type of address, a semicolon, and the address, decoded.
        """
        found = (_value(parameters, "ORCPT") for parameters in self._by_recipient())
        return tuple(None if value is None else _from_orcpt(value) for value in found)

    def _by_recipient(self) -> tuple[tuple[str, ...], ...]:
        return self.rcpt_parameters or ((),) * len(self.rcpt_tos)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without a datetime, which pickle would make by what a test has in its place.
        return _unpickled, (*self[:-2], self.received_at.timestamp(), self.rcpt_parameters)


def _unpickled(*values: Any) -> Envelope:
    return Envelope._make((*values[:-2], utc(values[-2]), values[-1]))


def _value(parameters: Iterable[str], name: str) -> str | None:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.upper() == name:
            return value
    return None


def _from_xtext(text: str) -> str:
    """Decode xtext (RFC 3461, 4), but for what stands for no printable character."""
    return re.sub(r"\+([0-9A-F]{2})", _character, text)


def _from_orcpt(text: str) -> str:
    if not text.lower().startswith("utf-8;"):
        return _from_xtext(text)
    # RFC 6533, 3: beside xtext, the numbers of characters.
    return re.sub(r"\\x\{([0-9A-F]{2,6})\}", _character, _from_xtext(text))


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    character = chr(number) if number <= sys.maxunicode else ""
    return character if character.isprintable() and character else found[0]


class Received(NamedTuple):
    """A message as it comes from the server process, not parsed.

    :ivar envelope: The `Envelope`.
    :ivar raw: The content.
    """

    envelope: Envelope
    raw: bytes


class Attachment(NamedTuple):
    """A part of a message that is not its text.

    :ivar name: The file name, or None if the sender gave it none.
    :ivar type: The media type, such as ``"image/png"``, in lower case.
    :ivar data: The content, with its transfer encoding undone.
    """

    name: str | None
    type: str
    data: bytes


class Message(EmailMessage):
    """A received message: an `email.message.EmailMessage` and what it came in.

    As in 2.x, the headers X-Peer, X-MailFrom and X-RcptTo are added at the
    end; any that the sender wrote itself are taken out first.

    What this class adds to its base class raises nothing, however broken the
    mail is.

    :ivar envelope: The `Envelope`.
    :ivar raw: The content as the client sent it, octet for octet, with
        dot-stuffing undone (RFC 5321, 4.5.2).  It has none of our headers.
    """

    envelope: Envelope
    raw: bytes

    def __repr__(self) -> str:
        if not hasattr(self, "envelope"):  # not made by `parse`
            return super().__repr__()
        return f"<Message {headline(self)}>"

    def header(self, name: str, default: str = "") -> str:
        """Return a header field, unfolded and decoded (RFC 2047).

        :param name: The field's name, in any case.
        :param default: What to return if there is no such field.
        :return: The first such field.
        """
        return next(iter(self.headers(name)), default)

    def headers(self, name: str) -> list[str]:
        """Return all header fields of a name, unfolded and decoded (RFC 2047).

        :param name: The fields' name, in any case.
        :return: The fields, in order.
        """
        return [
            _decoded(self, key, value)
            for key, value in self.raw_items()
            if key.lower() == name.lower()
        ]

    def header_items(self) -> list[tuple[str, str]]:
        """Return all header fields that were sent, unfolded and decoded (RFC 2047).

        :return: The name and the value of each, in order.
        """
        return [
            (key, _decoded(self, key, value))
            for key, value in self.raw_items()
            if key.lower() not in _OURS
        ]

    @property
    def text(self) -> str:
        """The plain text, decoded, with LF for line ends; empty if there is none.

        SMTP has an end for the last line, too.
        """
        return _first_text(self, "text/plain")

    @property
    def html(self) -> str:
        """The HTML text, decoded, with LF for line ends; empty if there is none."""
        return _first_text(self, "text/html")

    @property
    def attachments(self) -> list[Attachment]:
        """All parts but the texts, pictures that the HTML shows included."""
        return [
            Attachment(_name(part), _type(part), _octets(part))
            for part in _leaves(self)
            if not _is_text(part)
        ]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the message, by name; :doc:`checks` lists what is looked for.

        It is found anew at each call, in the octets that the client sent.
        """
        from lazr_smtptest.checks import message_problems  # not needed to receive mail

        envelope = self.envelope
        return message_problems(self, self.raw, body=envelope.body, smtp_utf8=envelope.smtp_utf8)

    def links(self) -> list[str]:
        """Return the links in the HTML, and the web addresses in the plain text.

        :return: Each once, in the order in which they appear, HTML first.
        """
        finder = _LinkFinder()
        _read(lambda: finder.feed(self.html), None)
        found = finder.links + [_without_punctuation(url) for url in _URL.findall(self.text)]
        return list(dict.fromkeys(found))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a file, as it was sent; by custom, ``.eml``.

        :param path: The file.  What was in it is lost.
        :raises OSError: It cannot be written.
        """
        Path(path).write_bytes(self.raw)


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
        parsed = message_from_bytes(raw, policy=email.policy.default)
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


def headline(item: Any) -> str:
    """Return one line that says which message, or what else, an item is."""
    if not isinstance(item, Message):
        return quoted(repr(item))
    envelope = item.envelope
    return (
        f"from {addresses([envelope.mail_from])} to {addresses(envelope.rcpt_tos)}, "
        f"subject {quoted(item.header('Subject'))}"
    )


class PickledItem:
    """One item that the server process sent: pickled until somebody looks.

    Most messages are thrown away by a reset, or are looked at once.  So the
    octets are kept as they came, and what is made of them is made once: who
    looks again gets the same object.
    """

    __slots__ = ("_item", "_octets")

    def __init__(self, octets: bytes) -> None:
        #: The pickle of a `Received`, or of what a handler passed on.
        self._octets: bytes | None = octets

    def load(self) -> Any:
        """Return what a test gets: a message, as a rule.  Raises what unpickling raises.

        Two threads that call at once may get two objects, equal in all else.
        """
        octets = self._octets
        if octets is not None:
            value = loads(octets)
            self._item = parse(*value) if type(value) is Received else value
            self._octets = None
        return self._item

    def peek(self) -> Any:
        """Return the item, or `Unreadable` in its place."""
        try:
            return self.load()
        except Exception as error:  # whatever unpickling raises
            return Unreadable(f"{type(error).__name__}: {error}")


class Unreadable(NamedTuple):
    """Stands for an item that cannot be unpickled."""

    reason: str


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


# Reading what is, perhaps, broken.


def _read(read: Callable[[], T], otherwise: T) -> T:
    """Read something that the standard library's parser may give up on."""
    try:
        return read()
    except Exception:  # it raises whatever its code stumbles over
        return otherwise


def _decoded(message: EmailMessage, name: str, value: str) -> str:
    plain = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _read(
        lambda: str(message.policy.header_fetch_parse(name, value)), _LINE_BREAKS.sub("", plain)
    )


def _leaves(message: AnyMessage) -> Iterator[AnyMessage]:
    """Yield the parts that have no parts, in order.

    A message that is attached to this one is a part, and its parts are not.
    """
    waiting = [message]
    while waiting:
        part = waiting.pop()
        # Nobody asks for a payload that is a text: that would be decoded.
        if part.is_multipart() and _type(part).startswith("multipart/"):
            waiting += reversed(_inner(part))
        else:
            yield part


def _type(part: AnyMessage) -> str:
    return _read(part.get_content_type, "application/octet-stream")


def _name(part: AnyMessage) -> str | None:
    return _read(part.get_filename, None) or None


def _is_text(part: AnyMessage) -> bool:
    return (
        _type(part) in ("text/plain", "text/html")
        and _read(part.get_content_disposition, None) != "attachment"
        and _name(part) is None
    )


def _octets(part: AnyMessage) -> bytes:
    if part.is_multipart():  # a message, not to be looked into
        return b"".join(_as_sent(inner) for inner in _inner(part))
    payload: Any = _read(lambda: part.get_payload(decode=True), None)
    return payload if isinstance(payload, bytes) else b""


def _inner(part: AnyMessage) -> list[AnyMessage]:
    payload: Any = part.get_payload()
    return [inner for inner in payload if isinstance(inner, AnyMessage)]


def _as_sent(message: AnyMessage) -> bytes:
    return _read(lambda: message.as_bytes(policy=_AS_SENT), b"")


def _first_text(message: AnyMessage, content_type: str) -> str:
    for part in _leaves(message):
        if _type(part) == content_type and _is_text(part):
            return _text(part).replace("\r\n", "\n")
    return ""


def _text(part: AnyMessage) -> str:
    octets = _octets(part)
    charset = _read(lambda: part.get_content_charset("utf-8"), "utf-8")
    # There may be no such charset.
    return _read(lambda: octets.decode(charset, "replace"), octets.decode("utf-8", "replace"))


class _LinkFinder(HTMLParser):
    """Finds what can be clicked on."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link."""
        if tag in ("a", "area"):
            hrefs = [(value or "").strip() for name, value in attrs if name == "href"]
            self.links += filter(None, hrefs)


def _without_punctuation(url: str) -> str:
    """Cut off what ends the sentence, or closes a bracket opened before."""
    while url[-1] in _PUNCTUATION or url.count(url[-1]) > url.count(
        _BRACKETS.get(url[-1], url[-1])
    ):
        url = url[:-1]
    return url
