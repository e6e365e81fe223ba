"""HTML as browsers read it: its links and its words.

Tags are found as in the HTML Standard (WHATWG), 13.2.5.  The standard library's parser
differs from one Python to the next, and loses what follows a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from html.entities import html5
from typing import NamedTuple

from lazr_smtptest._reading.charsets import extends_ascii, is_readable
from lazr_smtptest._util import lazy_pattern

_NAME = lazy_pattern(r"</?([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = lazy_pattern(
    r"""[\s/]*(?:(?P<name>[^\s/>][^\s/>=]*)"""
    r"""(?:\s*=\s*(?:(?P<quote>["'])(?P<quoted>(?:(?!(?P=quote)).)*)(?P<closed>(?P=quote))?"""
    r"""|(?P<bare>[^\s>]*)))?)?""",
    re.DOTALL,
)
_COMMENT, _TAG = "a comment", "a tag"
#: Tags without an end, behind which others are still read to their own: each is a look at
#: the whole rest.
_MOST_OPEN = 10
_COMMENT_END = lazy_pattern(r"--!?>")
#: What is in them is no markup, and no words that are shown.
_RAW = frozenset("iframe noembed noframes script style textarea title xmp".split())
#: In these, elements of those names are like others (HTML Standard, 13.2.6.5).
_FOREIGN = frozenset({"svg", "math"})
#: What ends a line of text.
_BLOCKS = frozenset(
    "address article aside blockquote body br caption center dd details dialog dir div dl dt"
    " fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main menu"
    " nav ol optgroup option p pre section summary table tbody tfoot thead tr ul".split()
)
_CELLS = frozenset({"td", "th"})

_REFERENCE = lazy_pattern(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[a-zA-Z][a-zA-Z0-9]*;?)")
_META_CHARSET = lazy_pattern(r"charset\s*=\s*[\"']?([^\s\"';>]+)", re.IGNORECASE)
_XML_ENCODING = lazy_pattern(r"<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([^\"'>]+)[\"']")
#: As far as browsers look for it, and some more.
_PRESCAN = 4096


class Tag(NamedTuple):
    """A start tag, or an end tag, whose name has a slash before it; names in lower case."""

    name: str
    attributes: dict[str, str]


def declared_charset(octets: bytes) -> str:
    """Return the charset that a document says it is in; empty if it says none.

    As in the HTML Standard, 13.2.3.2, an XML declaration counts less than what follows it.
    """
    html = octets[:_PRESCAN].decode("latin-1")
    declared = _XML_ENCODING.match(html)
    said = [_meta_charset(token) for token in tokens(html) if isinstance(token, Tag)]
    said += [declared[1]] if declared else []
    charset = next(filter(is_readable, said), "")
    # It could be read, so it is no UTF-16, whatever name that has.
    return charset if extends_ascii(charset) or not charset else "utf-8"


def _meta_charset(tag: Tag) -> str:
    if tag.name != "meta":
        return ""
    is_pragma = tag.attributes.get("http-equiv", "").lower() == "content-type"
    found = _META_CHARSET.search(tag.attributes.get("content", "")) if is_pragma else None
    return tag.attributes.get("charset") or (found[1] if found else "")


def links(html: str) -> list[str]:
    """Return what can be clicked on, in order."""
    found = (
        token.attributes.get("href", "")
        for token in tokens(html)
        if isinstance(token, Tag) and token.name in ("a", "area")
    )
    return [link for link in map(_as_url, found) if link]


def _as_url(text: str) -> str:
    # URL Standard (WHATWG), 4.4.
    return re.sub("[\t\r\n]", "", text.strip("".join(map(chr, range(33)))))


def words(html: str) -> str:
    """Return the text that is shown, a line for each paragraph, row or the like."""
    pieces = []
    for token in _without_head(html):
        if isinstance(token, str):
            pieces.append(re.sub(r"\s+", " ", unescape(token)))
        elif token.name.lstrip("/") in _BLOCKS:
            pieces.append("\n")
        elif token.name in _CELLS:
            pieces.append(" ")
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    return "\n".join(filter(None, lines))


def _without_head(html: str) -> list[str | Tag]:
    found = list(tokens(html))
    names = [token.name if isinstance(token, Tag) else "" for token in found]
    if "head" not in names:
        return found
    begin = names.index("head")
    ends = (at for at, name in enumerate(names) if at > begin and name in ("/head", "body"))
    return found[:begin] + found[next(ends, begin) :]


def tokens(html: str) -> Iterator[str | Tag]:
    """Yield text and tags, in order; comments and the like are left out.

    What is not closed ends at its first ``>``, a comment at a ``<`` before that, so that
    nothing after it is lost.
    """
    return _Scanner(html).tokens()


def not_closed(html: str) -> str:
    """Return what has no end in a document, in words; empty if there is no such thing."""
    scanner = _Scanner(html)
    for _ in scanner.tokens():
        if scanner.missing:
            break
    return next(iter(scanner.missing), "")


class _Scanner:
    def __init__(self, html: str) -> None:
        self._html = html
        #: What has no end; it is not looked for again.
        self.missing: set[str] = set()
        self._open_tags = 0
        self._is_foreign = False

    def tokens(self) -> Iterator[str | Tag]:
        html, at = self._html, 0
        while (begin := html.find("<", at)) >= 0:
            if begin > at:
                yield html[at:begin]
            tag, at = self._read(begin)
            if tag:
                yield tag
                self._is_foreign = tag.name in _FOREIGN or (
                    self._is_foreign and tag.name[1:] not in _FOREIGN
                )
                if tag.name in _RAW and not self._is_foreign:
                    at = self._end_of_raw(tag.name, at)
            elif at == begin:  # a "<" that begins nothing
                yield "<"
                at += 1
        if at < len(html):
            yield html[at:]

    def _read(self, begin: int) -> tuple[Tag | None, int]:
        """Return the tag at a ``<``, if it is one, and where to read on."""
        name = _NAME.match(self._html, begin)
        if name:
            return self._tag(name)
        if self._html.startswith("<!--", begin):
            return None, self._end_of_comment(begin)
        if self._html.startswith(("<!", "<?", "</"), begin):
            return None, self._first_end(begin + 2)
        return None, begin

    def _tag(self, name: re.Match[str]) -> tuple[Tag | None, int]:
        slash = "/" if name[0][1] == "/" else ""
        if self._open_tags < _MOST_OPEN:
            attributes, end = self._attributes(name.end(), len(self._html))
            # A link with a tag in it lacks a quote: it ends before that tag.
            if end < len(self._html) and "<" not in attributes.get("href", ""):
                return Tag(slash + name[1].lower(), attributes), end + 1
            self._open_tags += 1
            self.missing.add(_TAG)
        end = self._first_end(name.end())
        attributes, _ = self._attributes(name.end(), max(end - 1, name.end()))
        return Tag(slash + name[1].lower(), attributes), end

    def _attributes(self, at: int, limit: int) -> tuple[dict[str, str], int]:
        """Return the attributes, and where the tag ends; that is the limit if it does not."""
        found: dict[str, str] = {}
        while at < limit and self._html[at] != ">":
            one = _ATTRIBUTE.match(self._html, at, limit)
            assert one
            if one["name"]:
                value = one["quoted"] if one["quote"] else one["bare"]
                found.setdefault(one["name"].lower(), _attribute_value(value or ""))
            if one["quote"] and not one["closed"]:
                return found, limit
            at = one.end()
        return found, at

    def _first_end(self, at: int) -> int:
        return self._html.find(">", at) + 1 or len(self._html)

    def _end_of_comment(self, begin: int) -> int:
        for short in ("<!-->", "<!--->"):
            if self._html.startswith(short, begin):
                return begin + len(short)
        if _COMMENT not in self.missing:
            end = _COMMENT_END.search(self._html, begin + 4)
            if end:
                return end.end()
            self.missing.add(_COMMENT)
        # A tag that comes before the first ">" is not part of the comment.
        next_tag = self._html.find("<", begin + 1)
        limit = next_tag if next_tag >= 0 else len(self._html)
        return self._html.find(">", begin, limit) + 1 or limit

    def _end_of_raw(self, name: str, at: int) -> int:
        """Return where an element ends whose content is no markup."""
        element = f"<{name}>"
        if element not in self.missing:
            end = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(self._html, at)
            if end:
                return end.start()
            self.missing.add(element)
        return at


def _attribute_value(value: str) -> str:
    return _REFERENCE.sub(_character, value) if "&" in value else value


def _character(found: re.Match[str]) -> str:
    reference = found[0]
    if reference[1] == "#" or (reference[1:] in html5 and reference.endswith(";")):
        return unescape(reference)
    following = found.string[found.end() : found.end() + 1]
    # Only a whole name counts here: "&copy=1" and "&times" are parameters (13.2.5.73).
    return reference if following == "=" or reference[1:] not in html5 else unescape(reference)
