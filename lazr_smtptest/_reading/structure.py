"""A message, read into its header fields and parts in one pass, however deep they are.

The octets that the client sent are read, since the standard library's parser mends what
a receiver would not, and gives up where one would read on.  It takes linear time.
"""

from __future__ import annotations

import re
import urllib.parse
from functools import cached_property
from typing import NamedTuple

from lazr_smtptest._reading.parameters import (
    boundary,
    charset_in,
    media_type,
    values,
    without_comments,
)
from lazr_smtptest._reading.transfer import undone
from lazr_smtptest._reading.words import as_text, readable
from lazr_smtptest._util import lazy_pattern

#: A field with its folded lines (RFC 5322, 2.2), and a blank before the colon (obsolete, 4.5).
_FIELD = lazy_pattern(rb"([!-9;-~]+)([ \t]*):([^\n]*(?:\n[ \t][^\n]*)*)\n?")
#: What may be passed over: a continuation of nothing, and the first line of a mailbox file.
_STRAY = lazy_pattern(rb"(?:[ \t:]|>?From )[^\n]*\n?")
_BLANK = lazy_pattern(rb"\r?(?:\n|\Z)")
_TOKEN = lazy_pattern(r"[^\s;,\"]+")
_HEADER_END = lazy_pattern(rb"(?:\A|\n)\r?\n")
_DASHES = lazy_pattern(rb"^--([^\n]*)", re.MULTILINE)


class Field(NamedTuple):
    """A header field: of which part, and where in the message."""

    part: Part
    name: str
    value: bytes
    start: int
    end: int

    @property
    def text(self) -> str:
        value = self.value.replace(b"\r", b"").replace(b"\n", b"")
        return value.decode("utf-8", "surrogateescape").strip()


class Part:
    """The message, or a part of it, which may be a message that is attached."""

    def __init__(self, mail: Mail, start: int, parent: Part | None) -> None:
        self.mail, self.start, self.parent = mail, start, parent
        self.parts: list[Part] = []
        self.number = len(parent.parts) + 1 if parent else 0
        self.fields: dict[str, list[Field]] = {}
        #: Where the first line is that is no field, and what to say of it.
        self.malformed: tuple[int, str] | None = None
        self.body = self._read_header(start)
        self.end = -1
        self.is_closed = False
        content_type = self.text("content-type")
        # RFC 2045, 5.2; RFC 2046, 5.1.5.
        other = "message/rfc822" if parent and parent.type == "multipart/digest" else "text/plain"
        self.type: str = media_type(content_type) or other
        self.is_multipart = self.type.startswith("multipart/")
        self.parameters = values(content_type)
        line = boundary(content_type, mail.raw) if self.is_multipart else ""
        self.boundary = line.encode("utf-8", "surrogateescape")

    def _read_header(self, at: int) -> int:
        raw = self.mail.raw
        while not (_BLANK.match(raw, at) or (raw[at] in b"-" and self.mail.is_delimiter(at))):
            found = _FIELD.match(raw, at)
            if found:
                field = Field(self, found[1].decode("ascii"), found[3], at, found.end())
                self.fields.setdefault(field.name.lower(), []).append(field)
            if not found or found[2]:
                fault = "has a blank before its colon" if found else "is no header field"
                self.malformed = self.malformed or (at, fault)
            found = found or _STRAY.match(raw, at)
            if not found:  # the body begins without a blank line
                return at
            at = found.end()
        blank = _BLANK.match(raw, at)
        return blank.end() if blank else at

    def text(self, name: str) -> str:
        return self.fields[name][0].text if name in self.fields else ""

    @property
    def charset(self) -> str:
        return charset_in(self.parameters)

    @property
    def declared_encoding(self) -> str:
        return without_comments(self.text("content-transfer-encoding")).strip().lower()

    @property
    def encoding(self) -> str:
        """The transfer encoding that a reader takes it for: nothing may follow it, and does."""
        found = _TOKEN.search(self.declared_encoding)
        return found[0] if found else ""

    @cached_property
    def disposition(self) -> str:
        """What Content-Disposition says, in lower case, without its parameters (RFC 2183)."""
        found = _TOKEN.search(without_comments(self.text("content-disposition").lower()))
        return found[0] if found else ""

    @cached_property
    def name(self) -> str:
        """The file name; empty if there is none."""
        filename = values(self.text("content-disposition")).get("filename")
        return as_text((filename or self.parameters.get("name") or "").strip(), self.charset)

    @cached_property
    def content_id(self) -> str:
        return readable(without_comments(self.text("content-id")).strip().strip("<>").strip())

    @property
    def is_related(self) -> bool:
        """Whether it belongs to another part, which shows it (RFC 2387)."""
        around = self.parent
        return (
            around is not None and around.type == "multipart/related" and self is not around.root
        )

    @property
    def is_inline_text(self) -> bool:
        has_id = bool(self.content_id) or "content-location" in self.fields
        is_text = self.type in ("text/plain", "text/html") and self.disposition != "attachment"
        return is_text and not (has_id and self.is_related)

    @cached_property
    def root(self) -> Part:
        """The part of a multipart/related that shows the others (RFC 2387, 3.2)."""
        start = comparable_id(self.parameters.get("start", ""))
        named = (part for part in self.parts if start == comparable_id(part.content_id))
        return next(named, self.parts[0]) if start else self.parts[0]

    @property
    def content(self) -> bytes:
        content = self.mail.raw[self.body : self.end]
        if self.end == len(self.mail.raw):
            return content
        # The line end before a delimiter belongs to that (RFC 2046, 5.1.1).
        return content.removesuffix(b"\n").removesuffix(b"\r")

    @property
    def octets(self) -> bytes:
        return undone(self.content, self.encoding)

    @property
    def path(self) -> str:
        """The numbers of the parts that lead to this one (RFC 9051, 6.4.5)."""
        numbers, part = [], self
        while part.parent:
            numbers.append(str(part.number))
            part = part.parent
        return ".".join(reversed(numbers))


def header_fields(raw: bytes) -> list[Field]:
    """Return the fields of a message itself, in order; its parts are not read."""
    end = _HEADER_END.search(raw)
    header = Mail(raw[: end.end()] if end else raw).parts[0]
    fields = (field for found in header.fields.values() for field in found)
    return sorted(fields, key=lambda field: field.start)


def comparable_id(text: str) -> str:
    """Return a Content-ID, or what a URL has of one (RFC 2392, 2), for comparison."""
    return urllib.parse.unquote(text).strip("<> ").lower()


class Mail:
    """A message, and all its parts in order, the message itself first."""

    def __init__(self, raw: bytes, smtp_utf8: bool = False) -> None:
        self.raw, self.smtp_utf8 = raw, smtp_utf8
        self.parts: list[Part] = []
        #: The multiparts around the place that is read, and their depths by boundary.
        self._open: list[Part] = []
        self._depths: dict[bytes, list[int]] = {}
        self._begin(0, None)
        for found in _DASHES.finditer(raw) if self._open else ():
            if found.start() >= self.parts[-1].body:
                self._read_dashes(found[1].rstrip(), found.start(), found.end())
        self._leave(0, len(raw))

    @cached_property
    def content_ids(self) -> frozenset[str]:
        return frozenset(filter(None, (comparable_id(part.content_id) for part in self.parts)))

    @cached_property
    def shown(self) -> frozenset[Part]:
        """The texts that are no files.

        Some programs name all texts, so one with a name is a file only beside one without.
        """
        found = [part for part in self.parts if part.is_inline_text]
        unnamed = {part.type for part in found if not part.name}
        return frozenset(part for part in found if not part.name or part.type not in unnamed)

    def is_delimiter(self, at: int) -> bool:
        line = _DASHES.match(self.raw, at)
        text = line[1].rstrip() if line else b""
        return bool(self._depths.get(text) or self._depths.get(text.removesuffix(b"--")))

    def _read_dashes(self, text: bytes, at: int, end: int) -> None:
        if self._depths.get(text):
            depth = self._depths[text][-1]
            self._leave(depth + 1, at)
            self._begin(end + 1, self._open[depth])
        elif text.endswith(b"--") and self._depths.get(text[:-2]):
            depth = self._depths[text[:-2]][-1]
            self._open[depth].is_closed = True
            self._leave(depth, at)

    def _begin(self, start: int, parent: Part | None) -> None:
        part = Part(self, start, parent)
        self.parts.append(part)
        if parent:
            parent.parts.append(part)
        if part.boundary:
            self._depths.setdefault(part.boundary, []).append(len(self._open))
            self._open.append(part)

    def _leave(self, depth: int, at: int) -> None:
        """End the part that is read, and all multiparts from a depth on."""
        if self.parts[-1].end < 0:
            self.parts[-1].end = at
        while len(self._open) > depth:
            self._depths[self._open.pop().boundary].pop()
