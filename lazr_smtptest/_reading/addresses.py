"""Lists of addresses, as any mail program reads them, well-formed or not (RFC 5322, 3.4).

The standard library's parsers find none in a field with one mistake in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from lazr_smtptest._reading.parameters import COMMENT, QUOTED, unquoted, without_comments
from lazr_smtptest._reading.words import decode_words, in_one_line
from lazr_smtptest._util import lazy_pattern

#: What a list is made of: a comment, a quoted string, a bracketed address, a literal, a
#: mark, or other text.  A quote or comment that is not closed goes to the end, so that no
#: octet is looked at again and again.
_TOKEN = lazy_pattern(
    rf"""(?P<comment>{COMMENT})"""
    r"""|(?P<quoted>"(?:[^"\\]|\\.)*(?:"|\\?\Z))"""
    r"""|<(?P<bracketed>(?:"(?:[^"\\]|\\.)*"|[^<>"])*)>|<(?P<open>[^<>,;]*)|(?P<literal>\[[^\[\]]*\])"""
    r"""|(?P<mark>[,;:])|(?P<text>[^(",;:<\[]+|.)""",
    re.DOTALL,
)
#: What a name has only in quotes (RFC 5322, 3.2.3), or encoded.
_SPECIAL = lazy_pattern(r'[()<>@,:;.\\"\[\]]')
_ROUTE = lazy_pattern(r"\A\s*@[^:]*:")
_SCHEME = lazy_pattern(r"\Amailto:", re.IGNORECASE)
_WORD = lazy_pattern(rf"(?:{QUOTED}|\S)+", re.DOTALL)

#: A domain that is an address of the network (RFC 5321, 4.1.3), and no set of characters.
_LITERAL = lazy_pattern(r"(?:@|\A(?=.*[.:]))\[(?:ipv6:)?[0-9a-f.:]+\]\Z", re.IGNORECASE)

#: An address in angle brackets, and perhaps a name before it.
_NAMED = lazy_pattern(r'\s*(?:"(?:[^"\\]|\\.)*"|[^"<>])*<([^<>]*)>\s*', re.DOTALL)


class Mailbox(NamedTuple):
    """A name, decoded, and the address as it was written; what is left out is empty."""

    name: str
    address: str


def mailboxes(field: str) -> Iterator[Mailbox]:
    """Yield those with an address, in order.

    Encoded words are decoded afterwards: nobody decodes them in an address.
    """
    before: list[str] = []
    words: list[str] = []
    bracketed: str | None = None
    for token in _tokens(f"{in_one_line(field)},"):
        opened = token["open"] if token["bracketed"] is None else token["bracketed"]
        if opened is not None:
            if bracketed is not None:  # a comma is missing
                yield from _mailbox(before, bracketed)
            before, words, bracketed = words, [], opened
        elif token["mark"]:
            if token["mark"] != ":":  # else what was before it is a group's name
                yield from _mailbox(before + words, bracketed)
            before, words, bracketed = [], [], None
        elif not token["comment"]:
            words.append(token[0])


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Yield what a list is made of; a quote or comment that is not closed is none."""
    for token in _TOKEN.finditer(text):
        opening = token[0][0]
        if (token["comment"] or token["quoted"]) and not _is_closed(token[0]):
            # Nothing behind it closes one, so this is done once for each of the two.
            others = {'"': '"', "(": "()"}[opening]
            yield from _tokens(token[0][1:].translate(dict.fromkeys(map(ord, others))))
        else:
            yield token


def _is_closed(text: str) -> bool:
    inner = text[1:-1]
    is_escaped = (len(inner) - len(inner.rstrip("\\"))) % 2
    return len(text) > 1 and text[-1] in '")' and not is_escaped


def _mailbox(words: list[str], bracketed: str | None) -> Iterator[Mailbox]:
    # A route before the address must be ignored (RFC 5322, 4.4).
    if bracketed is None:
        yield from (Mailbox("", one.strip(">")) for one in _bare("".join(words)) if "@" in one)
    elif "@" in bracketed:
        name, address = _name(words), _ROUTE.sub("", without_comments(bracketed))
        # Only in quotes has an address a comma.
        for one in [address] if '"' in address else re.split("[,;]", address):
            yield Mailbox(name, _SCHEME.sub("", "".join(_words(one))))


def in_words(field: str) -> str:
    """Return a list as its reader sees it: in one line, decoded, with quotes where needed."""
    pieces: list[str] = []
    words: list[str] = []
    for token in _TOKEN.finditer(in_one_line(field)):
        if token["bracketed"] is not None:
            name, address = _shown_name(words), token["bracketed"]
            pieces.append(" " if words and words[0][:1].isspace() else "")
            pieces.append(f"{name} <{address}>" if name else address)
        elif token["mark"] or token["comment"]:
            pieces.append(decode_words("".join(words) + token[0]))
        else:
            words.append(token[0])
            continue
        words = []
    return "".join([*pieces, decode_words("".join(words))])


def _name(words: list[str]) -> str:
    return decode_words("".join(map(unquoted, words))).strip()


def _shown_name(words: list[str]) -> str:
    name = _name(words)
    if not _SPECIAL.search(name) or name == "".join(words).strip():
        return name
    return '"' + re.sub(r'([\\"])', r"\\\1", name) + '"'


def _bare(text: str) -> list[str]:
    """Return the words of a text without brackets; blanks in an address are obsolete (4.4)."""
    found: list[list[str]] = []
    is_domain = False
    for word in _words(text):
        last = found[-1][-1][-1:] if found else ""
        goes_on = "@" in (last, word[0]) or (is_domain and "." in (last, word[0]))
        if goes_on and found:
            found[-1].append(word)
        else:
            found.append([word])
            is_domain = False
        is_domain |= "@" in word
    return ["".join(pieces) for pieces in found]


def _words(text: str) -> list[str]:
    """Split at blanks that are not quoted."""
    return [word[0] for word in _WORD.finditer(text)]


def canonical(text: str) -> tuple[str, str]:
    """Split an address in two, so that those that mean the same are equal.

    The domain knows no case (RFC 5321, 2.4), may be written in its own script
    or in ASCII (RFC 5890), and a local part may be quoted though it need not be
    (RFC 5321, 4.1.2).
    """
    named = _NAMED.fullmatch(text)
    address = named[1] if named else text.strip()
    local, at, domain = address.rpartition("@")
    if not at:
        return address, ""
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    if domain.isascii():
        return local, domain.lower()
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:  # an address literal, or no domain at all
        return local, domain.casefold()
    return local, domain.lower()


def normal(address: str) -> str:
    """Return an address so that those that reach one mailbox are equal.

    Its case is of no importance in a test: programs change it.
    """
    return "@".join(filter(None, canonical(address))).casefold()


def is_glob(text: str) -> bool:
    return any(mark in _LITERAL.sub("", text) for mark in "*?[")


def for_fnmatch(glob: str) -> str:
    """Return a glob so that `fnmatch` takes no address of the network for a set of characters."""
    return _LITERAL.sub(lambda found: found[0].replace("[", "[[]"), glob)


def matches(address: str, glob: str) -> bool:
    """Whether an address, or another name, is one of a glob's, however either is written."""
    as_written, in_general = (address.lower(), glob.lower()), (normal(address), normal(glob))
    if not is_glob(glob):
        return str.__eq__(*as_written) or str.__eq__(*in_general)
    return any(fnmatchcase(name, for_fnmatch(like)) for name, like in (as_written, in_general))
