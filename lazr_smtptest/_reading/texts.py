"""Which parts a mail program shows as text, and what it shows of them."""

from __future__ import annotations

from collections.abc import Iterable

from lazr_smtptest._reading.charsets import decoded, is_readable
from lazr_smtptest._reading.markup import declared_charset
from lazr_smtptest._reading.structure import Mail, Part

PLAIN, HTML = "text/plain", "text/html"


def texts(mail: Mail, kind: str) -> list[Part]:
    """Return the parts that are shown as text of a kind, in order.

    Of alternatives that is the last one that has such a text, since it is the
    richest (RFC 2046, 5.1.4).
    """
    kinds = _kinds(mail)
    chosen: dict[Part | None, Part] = {}
    for part in mail.parts:
        around = part.parent
        if not around or around.type != "multipart/alternative" or kind not in kinds.get(part, ()):
            continue
        # What begins with another kind is an alternative of that, and no better here.
        if around not in chosen or kinds[part][0] == kind:
            chosen[around] = part
    open_parts: set[Part | None] = {None}
    for part in mail.parts:
        if part.parent in open_parts and chosen.get(part.parent, part) is part:
            open_parts.add(part)
    found = mail.shown & open_parts
    return [part for part in mail.parts if part in found and part.type == kind]


def _kinds(mail: Mail) -> dict[Part, list[str]]:
    """Return the kinds of text in each part that has any, in the order of their first texts."""
    kinds: dict[Part, list[str]] = {part: [part.type] for part in mail.shown}
    for part in reversed(mail.parts):  # each is behind what it is in
        if part in kinds and part.parent:
            around = kinds.get(part.parent, [])
            kinds[part.parent] = [*kinds[part], *(one for one in around if one not in kinds[part])]
    return kinds


def attachments(mail: Mail) -> list[Part]:
    """Return all other parts without parts, in order."""
    return [part for part in mail.parts if not part.parts and part not in mail.shown]


def text_of(part: Part) -> str:
    """Return a text, decoded, with LF for line ends, and paragraphs in one line each."""
    octets = part.octets
    charset = part.charset
    if part.type == HTML and not is_readable(charset):
        charset = declared_charset(octets)
    text = decoded(octets, charset).replace("\r\n", "\n")
    if part.type == PLAIN and part.parameters.get("format", "").lower() == "flowed":
        return unflowed(text, part.parameters.get("delsp", "").lower() == "yes")
    return text


def joined(found: Iterable[str]) -> str:
    """Return texts behind each other, each beginning with a line of its own."""
    whole = ""
    for text in found:
        whole += "\n" if whole and not whole.endswith("\n") else ""
        whole += text
    return whole


def unflowed(text: str, delsp: bool) -> str:
    """Return a text of format=flowed with each paragraph in one line (RFC 3676, 4)."""
    lines: list[list[str]] = []
    open_depth = -1  # of the paragraph that goes on
    for line in text.removesuffix("\n").split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")  # space-stuffing
        is_flowed = content.endswith(" ") and content != "-- "
        if depth != open_depth or content == "-- ":
            mark = ">" * depth
            lines.append([f"{mark} " if mark and content else mark])
        lines[-1].append(content[:-1] if is_flowed and delsp else content)
        open_depth = depth if is_flowed else -1
    return "\n".join(map("".join, lines)) + "\n" * text.endswith("\n")
