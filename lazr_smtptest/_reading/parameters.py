"""Parameters of Content-Type and Content-Disposition (RFC 2045, 5.1; RFC 2231)."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from lazr_smtptest._reading.charsets import decoded
from lazr_smtptest._reading.words import decode_words
from lazr_smtptest._util import lazy_pattern

QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
#: Comments nest (RFC 5322, 3.2.2), but hardly ever deeper.
COMMENT = r"\([^()\\]*(?:\\.[^()\\]*)*(?:\)|\\?\Z)"
for _ in range(2):
    COMMENT = rf"\([^()\\]*(?:(?:\\.|{COMMENT})[^()\\]*)*(?:\)|\\?\Z)"
# A quote that is not closed goes to the end, so that nothing is looked at twice.
_COMMENTS = lazy_pattern(rf"({QUOTED[:-1]}(?:\"|\\?\Z)|\\.)|{COMMENT}", re.DOTALL)
_ASIDES = lazy_pattern(
    rf"({QUOTED[:-1]}(?:\"|\\?\Z)|\\.)|(\A|[;=/]\s*){COMMENT}|{COMMENT}(?=\s*(?:[;=/]|\Z))",
    re.DOTALL,
)
PARAMETER = lazy_pattern(rf";\s*([^\s=;\"]+)\s*=\s*({QUOTED}|[^;]*)", re.DOTALL)

#: Without it a type is as good as none (RFC 2045, 5.2).
_TYPE = lazy_pattern(r"\s*([^\s/;,\"]+)\s*/\s*([^\s/;,\"]+)")
#: A parameter's own name, which piece of it this is, and whether it is encoded (RFC 2231).
_PIECE = lazy_pattern(r"([^*]+)(?:\*(\d{1,9}))?(\*)?")


def without_comments(text: str) -> str:
    return _COMMENTS.sub(lambda found: found[1] or " ", text) if "(" in text else text


def parameters(text: str) -> list[tuple[str, str]]:
    """Return the parameters with their quotes, in order."""
    found = PARAMETER.findall(without_asides(text))
    return [(name, value.strip()) for name, value in found]


def without_asides(text: str) -> str:
    """Remove comments, but leave "report (1).pdf" whole, which lacks its quotes."""
    return _ASIDES.sub(lambda found: found[1] or found[2] or " ", text) if "(" in text else text


class _Piece(NamedTuple):
    number: int
    is_encoded: bool
    text: str


def values(text: str) -> dict[str, str]:
    """Return the parameters by name in lower case, each decoded and in one piece.

    Of those with the same name the first counts, and what is written as RFC 2231
    wants it counts more than what is not.
    """
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, _Piece]] = {}
    for name, value in parameters(text):
        found = _PIECE.fullmatch(name.lower())
        if found and (found[2] or found[3]):
            piece = _Piece(int(found[2] or 0), bool(found[3]), unquoted(value))
            pieces.setdefault(found[1], {}).setdefault(piece.number, piece)
        else:
            plain.setdefault(name.lower(), decode_words(unquoted(value)))
    joined = {name: _joined(found) for name, found in pieces.items() if 0 in found}
    # One that is left empty, as in "filename*=", must not hide the plain one.
    return {**plain, **{name: value for name, value in joined.items() if value}}


def unquoted(value: str) -> str:
    if value[:1] != '"':
        return value
    value = value[1:-1] if value[-1:] == '"' and len(value) > 1 else value[1:]
    # Some programs write a path of Windows, whose backslashes are meant.
    return re.sub(r'\\(["\\])', r"\1", value)


def _joined(pieces: dict[int, _Piece]) -> str:
    first = pieces[0]
    charset, text = "", first.text
    if first.is_encoded and text.count("'") >= 2:
        charset, _, text = text.split("'", 2)
    texts = [first._replace(text=text)]
    while len(texts) in pieces:
        texts.append(pieces[len(texts)])
    octets = (
        urllib.parse.unquote_to_bytes(one.text.encode("utf-8", "surrogateescape"))
        if one.is_encoded
        else one.text.encode("utf-8", "surrogateescape")
        for one in texts
    )
    return decoded(b"".join(octets), charset)


def charset_in(found: Mapping[str, str]) -> str:
    # What follows a blank lacks its semicolon.
    return "".join(found.get("charset", "").split()[:1])


def media_type(text: str) -> str:
    """Return what Content-Type says, without parameters, in lower case; empty if that is none."""
    found = _TYPE.match(without_comments(text))
    return f"{found[1]}/{found[2]}".lower() if found else ""


def boundary(text: str, raw: bytes) -> str:
    """Return the boundary of a multipart, where nothing is decoded; empty if there is none.

    It may have blanks and lack its quotes: then it is as the lines of the message have it.
    """
    found = (value for name, value in parameters(text) if name.lower() == "boundary")
    plain = next(found, None)
    if plain is None:
        return values(text).get("boundary", "").rstrip()
    bare = re.match(r"[^\s,\"]*", plain)
    whole = unquoted(plain).rstrip()
    is_whole = plain[:1] == '"' or not bare or bare[0] == whole
    if is_whole or f"\n--{whole}".encode("utf-8", "surrogateescape") in raw:
        return whole
    # What follows may be the next parameter, without its semicolon.
    assert bare
    return bare[0]
