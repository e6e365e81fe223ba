"""Web addresses in running text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from lazr_smtptest._util import lazy_pattern

#: What begins one, and what it may have; the rest is seen to below.  In Markdown the URL
#: that is meant stands behind the one that is shown.
_URL = lazy_pattern(r"(?<![a-z0-9])https?://(?:(?!\]\()[^\s<>\"`\x00-\x1f\x7f])+", re.IGNORECASE)
#: A host, label by label, each in a script of its own.
_LABEL = r"(?:[^\W\x00-\x7f]+|[a-z0-9-]+)"
_HOST = lazy_pattern(rf"https?://{_LABEL}(?:\.{_LABEL})+", re.IGNORECASE)

#: What ends a sentence rather than a URL.
_PUNCTUATION = ".,;:!?'"
#: What is part of a URL, unless it stands before it as well, as emphasis or a rule does.
_MARKS = "_*-=~|"
_BRACKETS = {")": "(", "]": "[", "}": "{"}
#: As much as there is in a rule across a line.
_WIDTH = 80
#: Where emphasis begins in a line, and where it ends, as in Markdown.
_EMPHASIS = lazy_pattern(r"(?<![^\s(\[{\"'])(\*+|_+)(?=[^\s*_])|(?<=[^\s*_])(\*+|_+)(?![\w*])")
#: As much of a line before a URL as is looked at for that.
_LINE = 400
#: Marks before a URL; behind a word they are no emphasis, as in "next=https://example.com".
_OPENING = lazy_pattern(r"(?<![^\W_])[_*=~|'\"(\[{<-]+\Z")


def web_addresses(text: str) -> Iterator[str]:
    """Yield the web addresses, in order, without what only stands beside them."""
    for found in _URL.finditer(text):
        line = text[max(found.start() - _LINE, 0) : found.start()].rpartition("\n")[2]
        url = _without_what_follows(_in_its_script(found[0]), _marks_before(line))
        if url[-3:] != "://":
            yield url


def _marks_before(line: str) -> Counter[str]:
    """Return the marks that a URL behind a line may have to close."""
    opening = _OPENING.search(line, max(len(line) - _WIDTH, 0))
    marks = opening[0] if opening else ""
    return Counter(marks) + _open_emphasis(line[: len(line) - len(marks)])


def _open_emphasis(line: str) -> Counter[str]:
    """Return the marks of emphasis that has begun in a line, and not ended."""
    marks: Counter[str] = Counter()
    for begins, ends in _EMPHASIS.findall(line):
        mark = (begins or ends)[0]
        marks[mark] = marks[mark] + len(begins) if begins else max(marks[mark] - len(ends), 0)
    return marks


def _in_its_script(url: str) -> str:
    """End it where text in a script without blanks begins, or punctuation of another script."""
    if url.isascii():
        return url
    host = _HOST.match(url)
    start = host.end() if host else 0
    ends = (at for at in range(start, len(url)) if _ends(url[at]))
    return url[: next(ends, len(url))]


def _ends(character: str) -> bool:
    return not character.isascii() and (
        unicodedata.category(character)[0] in "PZC" or _is_wide(character)
    )


def _is_wide(character: str) -> bool:
    # Chinese, Japanese and Korean (Unicode Standard Annex 11); an emoji is wide, too.
    return unicodedata.east_asian_width(character) in "WFH"


def _without_what_follows(url: str, marks: Counter[str]) -> str:
    """Cut off what ends the sentence, closes a bracket opened before, or is emphasis."""
    counts = Counter(url)
    end = len(url)
    while True:
        last = url[end - 1]
        if last in _MARKS and marks[last]:
            marks[last] -= 1
        elif last not in _PUNCTUATION and counts[last] <= counts[_BRACKETS.get(last, last)]:
            return url[:end]
        counts[last] -= 1
        end -= 1
