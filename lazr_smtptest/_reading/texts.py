"""Which parts a mail program shows as text, and what it shows of them."""

from __future__ import annotations

from collections.abc import Iterable

from lazr_smtptest._reading.charsets import decoded
from lazr_smtptest._reading.markup import declared_charset
from lazr_smtptest._reading.structure import Mail, Part

PLAIN, HTML = "text/plain", "text/html"


def texts(mail: Mail, kind: str) -> list[Part]:
    """Return the parts that are shown as text of a kind, in order.

    Of alternatives that is the last one that has such a text, since it is the
    richest (RFC 2046, 5.1.4).
    """
    wanted = {part for part in _shown(mail) if part.type == kind}
    having = set(wanted)
    for part in reversed(mail.parts):  # each is behind what it is in
        if part in having and part.parent:
            having.add(part.parent)
    last: dict[Part | None, Part] = {
        part.parent: part
        for part in mail.parts
        if part in having and part.parent and part.parent.type == "multipart/alternative"
    }
    shown: set[Part | None] = {None}
    for part in mail.parts:
        if part.parent in shown and last.get(part.parent, part) is part:
            shown.add(part)
    return [part for part in mail.parts if part in wanted and part in shown]


def attachments(mail: Mail) -> list[Part]:
    """Return all other parts without parts, in order."""
    shown = set(_shown(mail))
    return [part for part in mail.parts if not part.parts and part not in shown]


def _shown(mail: Mail) -> list[Part]:
    """Return the texts that are no files.

    Some programs name all texts, so one with a name is a file only beside one without.
    """
    found = [part for part in mail.parts if part.type in (PLAIN, HTML) and _is_inline(part)]
    unnamed = {part.type for part in found if not part.name}
    return [part for part in found if not part.name or part.type not in unnamed]


def _is_inline(part: Part) -> bool:
    return part.disposition != "attachment" and not _is_resource(part)


def is_related(part: Part) -> bool:
    """Return whether it belongs to another part, which shows it (RFC 2387)."""
    around = part.parent
    return around is not None and around.type == "multipart/related" and part is not around.root


def _is_resource(part: Part) -> bool:
    has_name = bool(part.content_id) or "content-location" in part.fields
    return has_name and is_related(part)


def text_of(part: Part) -> str:
    """Return a text, decoded, with LF for line ends, and paragraphs in one line each."""
    octets = part.octets
    charset = part.charset
    if part.type == HTML:
        charset = charset or declared_charset(octets)
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
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")  # space-stuffing
        is_flowed = content.endswith(" ") and content != "-- "
        if depth != open_depth or content == "-- ":
            lines.append([f"{'>' * depth} "] if depth else [])
        lines[-1].append(content[:-1] if is_flowed and delsp else content)
        open_depth = depth if is_flowed else -1
    return "\n".join(map("".join, lines))
