"""What a test reads: a message and the envelope it came in.  Both processes.

The server process sends an `Envelope` and the bytes.  A message is parsed when
somebody reads it, so one that nobody looks at costs no parsing.
"""

from __future__ import annotations

import os
import re
import sys
from _pickle import loads  # pickle's may be a test's
from collections.abc import Iterable, Iterator
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._names import (
    ENVELOPES_ELSEWHERE,
    MESSAGES_ELSEWHERE,
    checked,
    hint,
    is_refusal,
    no_attribute,
)
from lazr_smtptest._reading.parser import ParserFailed, parsed, parsed_header
from lazr_smtptest._util import addresses, quoted, utc
from lazr_smtptest.errors import AttachmentNotFound

if TYPE_CHECKING:
    from lazr_smtptest._reading.structure import Mail, Part
    from lazr_smtptest.checks import Problem

__all__ = ["Attachment", "Envelope", "Message", "ParserFailed", "Received", "parse"]

__tracebackhide__ = is_refusal  # for pytest

#: Headers that 2.x added, and so do we.  A sender may have forged them.
_X_PEER, _X_MAILFROM, _X_RCPTTO = "X-Peer", "X-MailFrom", "X-RcptTo"
_OURS = frozenset(name.lower() for name in (_X_PEER, _X_MAILFROM, _X_RCPTTO))

#: Fields that are lists of addresses (RFC 5322, 3.6).
_ADDRESSES = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "resent-")
    for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
)


@checked(attributes=ENVELOPES_ELSEWHERE)
class Envelope(NamedTuple):
    """What the client said around the message, in SMTP's own terms.

    :ivar sequence: The message's number, from 1, in the order in which this
        server process received them; a message that it then refused has one, too.
    :ivar peer: The client's socket address: host and port, and two more
        numbers under IPv6.  On a UNIX socket it is a tuple of one: the path that the client
        has bound its own end to, or usually ``("",)``.  With ``proxy_protocol``, it is what
        the proxy says.
    :ivar helo: The name in the client's EHLO, HELO or LHLO.
    :ivar mail_from: The reverse-path, without angle brackets; empty for the
        null reverse-path (RFC 5321, 4.5.5).
    :ivar rcpt_tos: The forward-paths, in the order of the RCPT commands; Bcc
        recipients are here, and nowhere else.
    :ivar mail_options: The parameters of MAIL, such as ``SIZE=1000``.
    :ivar rcpt_options: The parameters of all RCPT commands.
    :ivar smtp_utf8: Whether MAIL had the parameter SMTPUTF8 (RFC 6531).
    :ivar tls: The TLS version of the session, or None if it was in the clear.
    :ivar auth_user: The name that the client logged in with, or None.
    :ivar received_at: When the message was complete; UTC, and the real time, whatever
        a test has frozen.
    :ivar rcpt_parameters: For each of ``rcpt_tos``, its own parameters; empty
        if none had any.
    :ivar rcpt_refused: The forward-paths that the server accepted at RCPT, but refused after the
        content, as LMTP can (RFC 2033, 4.2).  They are not in ``rcpt_tos``.
    :ivar client_cert_subject: The subject of the certificate that the client showed, such
        as ``"CN=kim@example.com"`` (RFC 4514), or None.
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
    rcpt_refused: tuple[str, ...] = ()
    client_cert_subject: str | None = None

    @property
    def body(self) -> str:
        """What MAIL declared: ``"7BIT"``, ``"8BITMIME"`` (RFC 6152) or ``"BINARYMIME"``."""
        return (_value(self.mail_options, "BODY") or "7BIT").upper()

    @property
    def size(self) -> int | None:
        """The size that MAIL declared with SIZE= (RFC 1870), or None."""
        declared = _value(self.mail_options, "SIZE")
        return None if declared is None else int(declared)

    @property
    def ret(self) -> str | None:
        """How much a notification should return (RFC 3461): FULL, HDRS or None."""
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
        return _unpacked, ([*self._packed()],)

    def _packed(self) -> tuple[Any, ...]:
        # Without a datetime, which pickle would make by what a test has in its place.
        at = self.received_at.timestamp()
        return (*self[:_RECEIVED_AT], at, *self[_RECEIVED_AT + 1 :])


_RECEIVED_AT = Envelope._fields.index("received_at")


def _unpacked(values: list[Any]) -> Envelope:
    values[_RECEIVED_AT] = utc(values[_RECEIVED_AT])
    return Envelope._make(values)  # counts them: they may be another version's


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
    raw: Any  # bytes; in the server process, whatever buffer they are in


class Attachment(NamedTuple):
    """A part of a message that is not its text.

    :ivar name: The file name, or None if it has none.
    :ivar type: The media type, such as ``"image/png"``, in lower case.
    :ivar data: The content, with its transfer encoding undone.
    :ivar content_id: Its Content-ID, without angle brackets, or None; HTML shows it as
        ``cid:`` and this (RFC 2392).
    :ivar charset: The charset as it was declared, or None.
    :ivar inline: Whether it belongs into the message, not beside it (RFC 2183, 2):
        its disposition says so, or it has none and belongs to a ``multipart/related``.
    """

    name: str | None
    type: str
    data: bytes
    content_id: str | None = None
    charset: str | None = None
    inline: bool = False


class Message(EmailMessage):
    """A received message: an `email.message.EmailMessage` with its envelope.

    As in 2.x, the headers X-Peer, X-MailFrom and X-RcptTo are added at the
    end; any that the sender wrote itself are removed first.

    What this class adds to its base class is read from ``raw``.  However broken
    the mail is, that raises nothing but `AttachmentNotFound`.  What the base class
    offers is parsed when you first use it.

    :ivar envelope: The `Envelope`.
    :ivar raw: The content as the client sent it, byte for byte, with
        dot-stuffing undone (RFC 5321, 4.5.2) and without the added headers.
    """

    envelope: Envelope
    raw: bytes

    def __repr__(self) -> str:
        if not hasattr(self, "envelope"):  # not made by `parse`
            return super().__repr__()
        return f"<Message {headline(self)}>"

    def __getattr__(self, name: str) -> Any:
        # Called for what is missing: for the base class's attributes, until there are any.
        if name not in _PARSED or "raw" not in self.__dict__:
            return no_attribute(self, name, MESSAGES_ELSEWHERE)
        for key, value in _parsed(self.envelope, self.raw).items():
            self.__dict__.setdefault(key, value)  # another thread may have been quicker
        return self.__dict__[name]

    def header(self, name: str, default: str = "") -> str:
        """Return a header field as a mail program shows it: on one line, decoded (RFC 2047).

        In a list of addresses a name has quotes only if it needs them.

        :param name: The field's name, in any case.
        :param default: What to return if there is no such field.
        :return: The first such field.
        """
        return next(iter(self.headers(name)), default)

    def headers(self, name: str) -> list[str]:
        """Return all header fields of a name, each as by `header`.

        :param name: The fields' name, in any case.
        :return: The fields, in order.
        """
        return [_shown(name, value) for value in self._readable_values(name)]

    def header_items(self) -> list[tuple[str, str]]:
        """Return all header fields that were sent, each as by `header`.

        :return: The name and the value of each, in order.
        """
        items = list(self._sent_items())
        values = self._readable(value for _, value in items)
        return [(key, _shown(key, value)) for (key, _), value in zip(items, values, strict=True)]

    def raw_header(self, name: str, default: str = "") -> str:
        """Return a header field as it was sent, only unfolded (RFC 5322, 2.2.3).

        :param name: The field's name, in any case.
        :param default: What to return if there is no such field.
        :return: The first such field.  Bytes that are not UTF-8 are surrogates in it, as
            from the error handler ``surrogateescape``.
        """
        return next(iter(self.raw_headers(name)), default)

    def raw_headers(self, name: str) -> list[str]:
        """Return all header fields of a name, each as by `raw_header`.

        :param name: The fields' name, in any case.
        :return: The fields, in order.
        """
        from lazr_smtptest._reading.words import unfolded

        return [
            unfolded(value).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
            for value in self._values_of(name)
        ]

    def _values_of(self, name: str) -> list[str]:
        name = _name(name, "Subject").lower()
        items = self.raw_items() if name in _OURS else self._sent_items()
        return [value for key, value in items if key.lower() == name]

    def _readable_values(self, name: str) -> list[str]:
        return self._readable(self._values_of(name))

    def _readable(self, values: Iterable[str]) -> list[str]:
        """Return values with 8-bit octets decoded, if need be by what the text is in."""
        from lazr_smtptest._reading import parameters, words

        found = list(values)
        if all(map(str.isascii, found)):
            return found
        content_type = next(iter(self._values_of("Content-Type")), "")
        charset = parameters.charset_in(parameters.values(words.unfolded(content_type)))
        return [words.as_text(value, charset) for value in found]

    def _sent_items(self) -> Iterator[tuple[str, str]]:
        """Yield the fields as the parser has them, with a surrogate for each 8-bit octet."""
        from lazr_smtptest._reading.structure import header_fields

        # The parser stops at what a reader gets over, such as "Subject : x".
        for field in header_fields(self._octets()):
            if field.name.lower() not in _OURS:
                value = field.value.decode("ascii", "surrogateescape")
                yield field.name, value.lstrip(" \t\r\n").removesuffix("\r")

    @property
    def text(self) -> str:
        """The plain text that a mail program shows; empty if there is none.

        It is decoded, with LF for line ends, and with each paragraph of ``format=flowed``
        in one line (RFC 3676).  If there are several such parts, such as the footer of a
        mailing list, this is all of them; of several alternatives it is one.
        """
        return self._text("text/plain")

    @property
    def html(self) -> str:
        """The HTML that a mail program shows; empty if there is none.

        It is decoded, with LF for line ends.  If there are several such parts, this is all
        of them, one after the other; of several alternatives it is one.
        """
        return self._text("text/html")

    def _text(self, kind: str) -> str:
        from lazr_smtptest._reading import texts  # not needed to receive mail

        return texts.joined(map(texts.text_of, texts.texts(self._structure(), kind)))

    @property
    def attachments(self) -> list[Attachment]:
        """All parts but the texts, pictures that the HTML shows included."""
        from lazr_smtptest._reading.texts import attachments

        return [_attachment(part) for part in attachments(self._structure())]

    def attachment(self, name: str) -> Attachment:
        """Return the attachment with a file name, or else with a Content-ID.

        :param name: The name, or the Content-ID; with or without ``cid:`` and angle
            brackets.
        :return: The first one.
        :raises AttachmentNotFound: There is none.  The error lists those that there are.
        """
        from lazr_smtptest._reading.structure import comparable_id

        found = self.attachments
        content_id = comparable_id(re.sub("(?i)^cid:", "", _name(name, "invoice.pdf")))
        named = [one for one in found if one.name == name]
        identified = [one for one in found if comparable_id(one.content_id or "") == content_id]
        if named or (identified and content_id):
            return (named or identified)[0]
        raise AttachmentNotFound(_no_attachment(name, found))

    def _structure(self) -> Mail:
        from lazr_smtptest._reading.structure import Mail

        return Mail(self._octets())

    def _octets(self) -> bytes:
        # Where no line ends in LF, all end in CR, as they did on some systems.
        return self.raw if b"\n" in self.raw else self.raw.replace(b"\r", b"\n")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the message, by name; :doc:`checks` lists what is looked for.

        It is checked anew at each call, in the bytes that the client sent.
        """
        from lazr_smtptest.checks import message_problems  # not needed to receive mail

        envelope = self.envelope
        return message_problems(self, self.raw, body=envelope.body, smtp_utf8=envelope.smtp_utf8)

    def links(self) -> list[str]:
        """Return the links in the HTML, and the web addresses in the plain text.

        :return: Each once, in the order in which they appear, HTML first.
        """
        from lazr_smtptest._reading.links import web_addresses
        from lazr_smtptest._reading.markup import links

        return list(dict.fromkeys([*links(self.html), *web_addresses(self.text)]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a file, as it was sent; its name usually ends in ``.eml``.

        :param path: The file.  It is overwritten.
        :raises OSError: It cannot be written.
        """
        Path(path).write_bytes(self.raw)


def parse(envelope: Envelope, raw: bytes) -> Message:
    """Make a `Message` of what was received.  Never raises.

    :param envelope: What the client said around the message.
    :param raw: The content.
    :return: The message.  What is wrong with its MIME structure is in its
        ``defects``.  Content that breaks the parser of the standard library
        gives a message without parts, with a `ParserFailed` among its
        ``defects``.
    """
    message = Message.__new__(Message)
    message.envelope = envelope
    message.raw = raw
    return message


#: The attributes that the parser sets.
_PARSED = frozenset(vars(EmailMessage()))


def _parsed(envelope: Envelope, raw: bytes) -> dict[str, Any]:
    try:
        message = parsed(raw)
    except Exception as error:  # whatever the parser trips over, mail is mail
        message = parsed_header(raw)
        message.defects.append(ParserFailed(f"{type(error).__name__}: {error}"))
    _add_headers(message, envelope)
    return vars(message)


def headline(item: Any) -> str:
    """Return one line that says which message, or what else, an item is."""
    if not isinstance(item, Message):
        return quoted(repr(item))
    envelope = item.envelope
    return (
        f"from {addresses([envelope.mail_from])} to {addresses(envelope.rcpt_tos)}, "
        f"subject {quoted(item.header('Subject'))}"
    )


def _name(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, such as {example!r}, not {value!r}")
    return value


def packed_message(envelope: Envelope, raw: Any) -> tuple[Any, ...]:
    """Return what `PickledItem` takes for a message: nothing that pickle has to look up."""
    return (raw, *envelope._packed())


def packed_item(item: Any) -> tuple[Any, ...]:
    """Return what `PickledItem` takes for whatever else a handler passed on."""
    return (item,)


class PickledItem:
    """One item that the server process sent: pickled until somebody looks.

    A reset throws most messages away, and most others are looked at once.  So the
    octets are kept as they came, and parsed once: a second look gets the same object.
    """

    __slots__ = ("_item", "_pickled")

    def __init__(self, octets: bytes, buffer: bytes | bytearray | None = None) -> None:
        #: The pickle of a `packed_message` or a `packed_item`, and the buffer that it lacks
        #: if it lacks one.  Together: another thread may be done with both at any time.
        self._pickled: tuple[bytes, bytes | bytearray | None] | None = octets, buffer

    def load(self) -> Any:
        """Return what a test gets: a message, as a rule.  Raises what unpickling raises.

        Two threads that call at once may get two objects, equal in all else.
        """
        pickled = self._pickled
        if pickled is not None:
            octets, buffer = pickled
            first, *fields = loads(octets, buffers=(buffer,))
            self._item = parse(_unpacked(fields), first) if fields else first
            self._pickled = None
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


def _add_headers(message: EmailMessage, envelope: Envelope) -> None:
    """Replace the X- headers of 2.x, which may be forged, by our own."""
    if not _OURS.isdisjoint([name.lower() for name in message.keys()]):  # noqa: SIM118
        for name in (_X_PEER, _X_MAILFROM, _X_RCPTTO):
            del message[name]
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
    from lazr_smtptest._reading.words import LINE_BREAKS

    text = LINE_BREAKS.sub(" ", value)
    return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")


# What was sent, in words.


def _shown(name: str, value: str) -> str:
    from lazr_smtptest._reading.addresses import in_words
    from lazr_smtptest._reading.words import decode_words, in_one_line

    if name.lower() in _ADDRESSES:
        return in_words(value)
    return decode_words(in_one_line(value))


def _attachment(part: Part) -> Attachment:
    from lazr_smtptest._reading.words import readable

    return Attachment(
        name=part.name or None,
        type=readable(part.type),
        data=part.octets,
        content_id=part.content_id or None,
        charset=part.charset or None,
        inline=part.disposition == "inline" or (not part.disposition and part.is_related),
    )


def _no_attachment(name: str, found: list[Attachment]) -> str:
    known = ", ".join(quoted(one.name or one.content_id or f"({one.type})") for one in found)
    names = [text for one in found for text in (one.name, one.content_id) if text]
    return (
        f"no attachment has the name or Content-ID {quoted(name)}; there is {known or 'none'}"
        f"{hint(name, names)}"
    )
