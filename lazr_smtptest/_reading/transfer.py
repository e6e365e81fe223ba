"""Transfer encodings, undone (RFC 2045, 6), however they were declared."""

from __future__ import annotations

import binascii
import string

from lazr_smtptest._util import lazy_pattern

_UU = frozenset({"uuencode", "x-uuencode", "uue", "x-uue"})
_BASE64 = (string.ascii_letters + string.digits + "+/=").encode()
_STRAY = lazy_pattern(rb"=(?==)")
_NO_BASE64 = bytes(set(range(256)).difference(_BASE64))


def undone(octets: bytes, encoding: str) -> bytes:
    """Return octets without their transfer encoding; as they are if it is unknown.

    What is broken is read as far as it goes.
    """
    if encoding == "base64":
        return from_base64(octets)
    if encoding == "quoted-printable":
        return from_quoted_printable(b"\n".join(map(_without_blanks, octets.split(b"\n"))))
    return _from_uu(octets) if encoding in _UU else octets


def _without_blanks(line: bytes) -> bytes:
    # At the end of a line they were added on the way (RFC 2045, 6.7, rule 3).
    return line.rstrip(b" \t\r") + b"\r" * line.endswith(b"\r")


def from_quoted_printable(octets: bytes, is_word: bool = False) -> bytes:
    """Decode quoted-printable, or the Q of an encoded word.

    A mere ``=`` stands for itself (RFC 2045, 6.7); `binascii` makes one of two.
    """
    return binascii.a2b_qp(_STRAY.sub(b"=3D", octets), header=is_word)


def from_base64(octets: bytes) -> bytes:
    """Decode base64, and what follows its padding: some programs join encoded pieces."""
    pieces = octets.translate(None, _NO_BASE64).split(b"=")
    return b"".join(_quads(piece) for piece in pieces if piece)


def _quads(piece: bytes) -> bytes:
    # Six bits alone are no octet.
    whole = piece[:-1] if len(piece) % 4 == 1 else piece
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def _from_uu(octets: bytes) -> bytes:
    lines = iter(octets.splitlines())
    if not any(line.startswith(b"begin ") for line in lines):
        return octets
    decoded = []
    for line in lines:
        if line.strip() in (b"end", b"`", b""):
            break
        decoded.append(_uu_line(line))
    return b"".join(decoded)


def _uu_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:  # some encoders write more than the length says
        length = (((line[0] - 32) & 63) * 4 + 5) // 3
        try:
            return binascii.a2b_uu(line[: length + 1])
        except binascii.Error:
            return b""
