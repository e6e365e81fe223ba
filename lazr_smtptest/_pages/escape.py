"""What was sent, made harmless for a page.  Nothing of it gets there in another way."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from typing import NewType

#: Markup: what is ours, or went through a function of this module.
Markup = NewType("Markup", str)

#: What a reader cannot see, or what changes how the rest is seen: control characters, those
#: of the bidirectional algorithm (Unicode Standard Annex 9), and halves of characters.
_ODD = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff]+"
)

#: What file systems or their users do not like in a name.
_NOT_IN_NAMES = re.compile(r"[\t\n\r/\\:*?\"<>|]+")

#: Characters of a file name.
_NAME = 100


def shown(text: str, limit: int | None = None, unit: str = "characters") -> Markup:
    """Return a text as markup, with odd characters as Python writes them.

    :param limit: Show this many characters, and say how many are left out.
    """
    kept = text[:limit]
    markup = _ODD.sub(_in_words, html.escape(kept))
    if len(kept) < len(text):
        markup += f" {left_out(len(text) - len(kept), unit)}"
    return Markup(markup)


def shown_octets(octets: bytes, limit: int) -> Markup:
    """Return lines of octets as markup: UTF-8 as text, and others by their numbers."""
    kept = octets[:limit]
    text = kept.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    more = len(octets) - len(kept)
    return Markup(shown(text) + (f"\n{left_out(more, 'octets')}" if more else ""))


def _in_words(found: re.Match[str]) -> str:
    return f'<span class="odd">{"".join(map(_escaped, found[0]))}</span>'


def _escaped(character: str) -> str:
    number = ord(character)
    # A surrogate in this range stands for an octet.
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else repr(character)[1:-1]


def attribute(text: str) -> Markup:
    """Return a text as the value of an attribute, without its quotes."""
    return Markup(html.escape(_ODD.sub("\ufffd", text)))


def document(text: str) -> Markup:
    """Return a document as the value of an attribute, as it is but for what cannot be."""
    return Markup(html.escape(re.sub("[\0\ud800-\udfff]", "\ufffd", text)))


TOO_LARGE = Markup('<span class="left-out">[too large to be kept here]</span>')


def left_out(count: int, unit: str) -> Markup:
    return Markup(f'<span class="left-out">[{count:,} more {unit} are left out]</span>')


def counted(count: int, unit: str) -> str:
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"


def joined(pieces: Iterable[Markup], between: str = "") -> Markup:
    return Markup(between.join(pieces))


def file_name(name: str | None, default: str) -> str:
    """Return a name for a file that is saved: no path, and nothing that looks like another."""
    kept = _NOT_IN_NAMES.sub("_", _ODD.sub("_", name or "")).strip("._ ")
    stem, dot, extension = kept.rpartition(".")
    if len(kept) > _NAME and dot and len(extension) < _NAME // 2:
        kept = f"{stem[: _NAME - len(extension) - 1]}.{extension}"
    return kept[:_NAME] or default


def data_url(kind: str, octets: bytes) -> Markup:
    """Return a data: URL (RFC 2397).  ``kind`` is ours."""
    return Markup(f"data:{kind};base64,{base64.b64encode(octets).decode('ascii')}")


class Allowance:
    """A number of octets that may be used up."""

    def __init__(self, octets: int) -> None:
        self._left = octets

    def take(self, octets: int) -> bool:
        """Return whether this many are left; if they are, use them up."""
        if octets > self._left:
            return False
        self._left -= octets
        return True


class Room:
    """What one page may have, whatever was sent.

    :ivar kept: Octets that it keeps, of texts, attachments, pictures and whole messages.
    :ivar read: Octets of messages that are read for it.
    :ivar checked: Octets of messages in which problems and links are looked for.
    """

    def __init__(self) -> None:
        self.kept = Allowance(10_000_000)
        self.read = Allowance(50_000_000)
        self.checked = Allowance(10_000_000)
