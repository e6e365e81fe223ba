"""What clients send by BDAT (RFC 3030)."""

from __future__ import annotations

from collections.abc import Iterable

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<kim@example.com>\r\n"
BINARY = b"MAIL FROM:<kim@example.com> BODY=BINARYMIME\r\n"
RCPT = b"RCPT TO:<lee@example.com>\r\n"


def bdat(octets: bytes, *, last: bool = False) -> bytes:
    """Give a chunk, command and all."""
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def in_chunks(pieces: Iterable[bytes]) -> bytes:
    """Give a message in chunks, the last of them marked."""
    *before, last = pieces
    return b"".join(map(bdat, before)) + bdat(last, last=True)
