"""Octets to an `email.message.EmailMessage`, however broken they are, in linear time.

`email.policy.default` reads Content-Type and the like while it parses.  That takes
quadratic time, and one parameter that it cannot read is an exception and no message.  So
the parser gets a policy and a class that read only what parsing needs.
"""

from __future__ import annotations

from contextlib import suppress
from email.errors import MessageDefect
from email.feedparser import BytesFeedParser
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy
from functools import partial
from typing import Any

from lazr_smtptest._reading.parameters import boundary, media_type, without_comments
from lazr_smtptest._reading.words import as_text, unfolded

#: The characters that a media type has at most, with comments: a line (RFC 5322, 2.1.1).
_LONGEST_TYPE = 998

#: Parts within parts that are read; the parser calls itself for each.
_DEEPEST = 100


class ParserFailed(MessageDefect):
    """A defect: the standard library's parser cannot read a message, or not all of it."""


class ReadPolicy(EmailPolicy):
    """`email.policy.default`, where a header field that breaks it is a str, as it came.

    A Content-Disposition has no parameters then.
    """

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Return a field, parsed if that can be done."""
        if not _is_endless_type(name, value):
            with suppress(Exception):  # it raises whatever its code stumbles over
                return super().header_fetch_parse(name, value)
        if name.lower() == "content-disposition":
            # `EmailMessage.is_attachment` asks for what a str has not.
            with suppress(Exception):
                return super().header_fetch_parse(name, _without_parameters(value))
        return unfolded(as_text(value))

    def fold(self, name: str, value: Any) -> str:
        """Return a field for `as_string`; one that breaks the policy is in one line."""
        try:
            return str(super().fold(name, value))
        except Exception:
            return f"{name}: {unfolded(str(value))}{self.linesep}"

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return a field for `as_bytes`; one that breaks the policy is in one line."""
        try:
            return super().fold_binary(name, value)
        except Exception:
            line = f"{name}: {unfolded(str(value))}{self.linesep}"
            return line.encode("utf-8" if self.utf8 else "ascii", "surrogateescape")


def _is_endless_type(name: str, value: str) -> bool:
    """Whether this should be a media type and is none; the policy reads it in quadratic time."""
    return name.lower() == "content-type" and len(value.partition(";")[0]) > _LONGEST_TYPE


def _without_parameters(value: str) -> str:
    return without_comments(value).partition(";")[0].strip()


class _ParsePolicy(EmailPolicy):
    def header_fetch_parse(self, name: str, value: str) -> Any:  # noqa: ARG002
        return value


class _Part(EmailMessage):
    """What the parser makes, until it is done."""

    def __init__(self, raw: bytes, policy: Any = None) -> None:
        super().__init__(policy)
        self.depth = 0
        self.whole = raw

    def attach(self, payload: Any) -> None:
        super().attach(payload)
        payload.depth = self.depth + 1

    def get_content_type(self) -> str:
        value = self.get("content-type", "")
        found = (value and media_type(value)) or self.get_default_type()
        if value and value.partition(";")[0].strip().lower() not in (found, ""):
            # There is a comment or the like: this must agree with what the policy says later.
            found = _type_by_policy(value)
        if self.depth < _DEEPEST or not _has_parts(found):
            return found
        self.defects[:] = [ParserFailed(f"there are parts within {_DEEPEST} others")]
        return "application/octet-stream"

    def get_boundary(self, failobj: Any = None) -> Any:
        return boundary(self.get("content-type", ""), self.whole) or failobj


class _OnePart(_Part):
    """One whose header names no type that has parts, so that nobody need look for its type."""

    def get_content_type(self) -> str:
        return "text/plain"


_PARSE = _ParsePolicy()
_READ = ReadPolicy()
# As `email.policy.default` does: the class has one, and this would be in each pickle.
del _READ.header_factory


def _type_by_policy(value: str) -> str:
    message = EmailMessage(policy=_READ)
    message.set_raw("Content-Type", value)
    return message.get_content_type()


def parsed(raw: bytes) -> EmailMessage:
    """Return the message that octets are."""
    message: EmailMessage | None = _one_part(raw)
    if message is None:
        message = _fed(_Part, raw, raw)
    waiting: list[Any] = [message]
    while waiting:
        part = waiting.pop()
        part.__class__ = EmailMessage
        part.policy = _READ
        del part.depth, part.whole
        if part.defects and type(part.defects[0]) is ParserFailed:
            message.defects.append(part.defects.pop())
        waiting += part.get_payload() if part.is_multipart() else ()
    return message


def _fed(kind: type[_Part], raw: bytes, octets: bytes) -> _Part:
    parser = BytesFeedParser(partial(kind, raw), policy=_PARSE)
    parser.feed(octets)
    message = parser.close()
    assert isinstance(message, _Part)
    return message


def _one_part(raw: bytes) -> _Part | None:
    """Return a message that has no parts, or None if it may have some.

    The parser goes through the body line by line, and makes of it what it was.  So the
    body is left out.  Whether the header ends where it seems to, the parser says.
    """
    header, blank_line, body = raw.partition(b"\r\n\r\n")
    names = header.lower()
    if not blank_line or b"multipart" in names or b"message/" in names:
        return None
    message = _fed(_OnePart, raw, header + blank_line)
    if vars(message).get("_payload") != "":  # or get_payload(), which takes a tenth of all this
        return None
    if b"content-type" in names and _has_parts(_Part.get_content_type(message)):
        return None
    message.set_payload(body.decode("ascii", "surrogateescape"))
    return message


def _has_parts(content_type: str) -> bool:
    return content_type.startswith(("message/", "multipart/"))


def parsed_header(raw: bytes) -> EmailMessage:
    """Return a message whose parts are not looked for."""
    message = BytesHeaderParser(EmailMessage, policy=_READ).parsebytes(raw)
    assert isinstance(message, EmailMessage)
    return message
