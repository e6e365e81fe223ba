"""Header fields as their reader sees them: unfolded, and encoded words decoded (RFC 2047)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from lazr_smtptest._reading.charsets import decoded, extends_ascii, is_unicode, may_be_in
from lazr_smtptest._reading.transfer import from_base64, from_quoted_printable
from lazr_smtptest._util import lazy_pattern

#: All that `str.splitlines` takes for the end of a line.
LINE_BREAKS = lazy_pattern("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_LINE_END = lazy_pattern("\r?\n")

_BEGIN = lazy_pattern(r"=\?([^?\s]+)\?([bq])\?", re.IGNORECASE)


def as_text(value: str, charset: str = "") -> str:
    """Return a value of the parser's, which has a surrogate for each 8-bit octet.

    It is UTF-8 if it can be, and else in the charset, unless that is of Unicode, too, or has
    other octets for ASCII, which fields are in.
    """
    if value.isascii():
        return value
    octets = value.encode("utf-8", "surrogateescape")
    if may_be_in(octets, "utf-8") or is_unicode(charset) or not extends_ascii(charset):
        charset = ""
    return decoded(octets, charset)


def readable(text: str) -> str:
    """Return a text of whose octets some are no UTF-8, as a reader sees it."""
    return text if text.isascii() else as_text(text)


def unfolded(value: str) -> str:
    """Remove the line ends of folding, and nothing else (RFC 5322, 2.2.3)."""
    return value.replace("\r\n", "").replace("\n", "") if "\n" in value else value


def in_one_line(value: str, always_one_blank: bool = False) -> str:
    """Return a field's value as one line, not decoded.

    Where a line is folded, a tab stands for a blank, since nobody writes one himself.
    All white space there can be one blank, since no reader sees how much there is.
    """
    first, *others = _LINE_END.split(as_text(value).lstrip(" \t\r\n"))
    pieces = [first]
    for line in others:
        text = line.lstrip(" \t")
        if always_one_blank or "\t" in line[: len(line) - len(text)]:
            pieces[-1] = pieces[-1].rstrip(" \t")
            line = f" {text}"
        pieces.append(line)
    return "".join(pieces)


class _Word(NamedTuple):
    charset: str
    octets: bytes


def decode_words(text: str) -> str:
    """Return one line, with each encoded word decoded (RFC 2047).

    Words beside each other are joined before they are decoded, since some programs cut
    them within a character.  What has no end is as it came.
    """
    if "=?" not in text:
        return LINE_BREAKS.sub(" ", text)
    pieces: list[str] = []
    run: list[_Word] = []
    for between, word in _words(text):
        if run and (between or word is None or word.charset != run[0].charset):
            pieces.append(decoded(b"".join(one.octets for one in run), run[0].charset))
            run.clear()
        pieces.append(between)
        run += [word] if word else []
    return LINE_BREAKS.sub(" ", "".join(pieces))


def _words(text: str) -> Iterator[tuple[str, _Word | None]]:
    """Yield each encoded word with the text before it, and the text behind the last."""
    at = end = 0
    begins = [*_BEGIN.finditer(text), None]
    for begin, following in pairwise(begins):
        assert begin
        if begin.start() < at:  # within the last word
            continue
        # The next end is looked for once, or a line of beginnings would take for ever.
        end = text.find("?=", begin.end()) if begin.end() > end else end
        if end < 0:
            break
        if following and following.start() < end:  # it has no end of its own
            continue
        between = text[at : begin.start()]
        # Blanks between two words are none (RFC 2047, 6.2).
        word = _word(begin[1], begin[2], text[begin.end() : end])
        yield "" if at and between.isspace() else between, word
        at = end + 2
    yield text[at:], None


def _word(charset: str, encoding: str, text: str) -> _Word:
    octets = text.encode("utf-8", "surrogateescape")
    octets = from_base64(octets) if encoding in "bB" else from_quoted_printable(octets, True)
    return _Word(charset.partition("*")[0].lower(), octets)  # a language may follow (RFC 2231, 5)
