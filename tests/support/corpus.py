"""Messages beside what their reader sees, and how such messages are written down.

The messages are in the modules `corpus_*`.  They are made as programs make them, and what
is expected is what the standards say, or where programs disagree, the best reading.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from lazr_smtptest.message import Attachment

HEAD = (
    "From: Kim <kim@example.com>\nTo: lee@example.com\nSubject: Lunch\n"
    "Date: Thu, 29 Feb 2024 23:59:59 +0000\nMessage-ID: <1@example.com>\nMIME-Version: 1.0\n"
)
#: The beginning of a picture: it has line ends and a NUL, as pictures have.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


class Case(NamedTuple):
    """A message and what a mail program shows of it.

    :ivar raw: The message; a str has LF for CRLF, and octets that are not UTF-8 as surrogates.
    :ivar header: Header fields, as shown.
    :ivar problems: Codes that must be among the problems.
    :ivar meets: Criteria that it meets, with strings for values.
    :ivar misses: Criteria that it does not meet.
    """

    id: str
    raw: str | bytes
    text: str = ""
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    links: tuple[str, ...] = ()
    header: dict[str, str] = {}
    problems: tuple[str, ...] = ()
    meets: tuple[tuple[str, str], ...] = ()
    misses: tuple[tuple[str, str], ...] = ()

    @property
    def octets(self) -> bytes:
        if isinstance(self.raw, bytes):
            return self.raw
        return self.raw.replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def octets(data: bytes) -> str:
    """Return octets as they may stand in a message that is a str."""
    return data.decode("utf-8", "surrogateescape")


def b64(data: bytes | str, charset: str = "utf-8") -> str:
    data = data if isinstance(data, bytes) else data.encode(charset)
    return base64.encodebytes(data).decode().rstrip("\n")


def qp(text: str, charset: str = "utf-8") -> str:
    """Encode all that is not a letter, digit, blank or line end."""
    octets = (bytes([octet]) for octet in text.encode(charset))
    return "".join(
        one.decode() if one.isalnum() or one in b" \n" else f"={one[0]:02X}" for one in octets
    )


def word(text: str, charset: str = "utf-8", encoding: str = "b") -> str:
    """Return an encoded word (RFC 2047)."""
    if encoding == "b":
        return f"=?{charset}?b?{base64.b64encode(text.encode(charset)).decode()}?="
    return f"=?{charset}?q?{qp(text, charset).replace(' ', '_')}?="


def part(kind: str, content: str, *lines: str) -> str:
    """Return a part, or the end of a message: its header and what is in it."""
    return "".join(f"{line}\n" for line in (f"Content-Type: {kind}", *lines)) + f"\n{content}"


def binary(kind: str, data: bytes | str, *lines: str) -> str:
    """Return a part in base64."""
    return part(kind, b64(data), "Content-Transfer-Encoding: base64", *lines)


def attached(name: str) -> str:
    return f'Content-Disposition: attachment; filename="{name}"'


def multi(*parts: str, kind: str = "mixed", boundary: str = "b1", end: str | None = None) -> str:
    """Return a multipart of parts.

    :param kind: The subtype, and parameters beside the boundary.
    :param end: What stands in place of the closing line.
    """
    between = "".join(f"--{boundary}\n{one}\n" for one in parts)
    end = f"--{boundary}--\n" if end is None else end
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{between}{end}'
