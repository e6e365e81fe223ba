"""One message as a part of a page: as its reader sees it, and as it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from lazr_smtptest._pages.escape import (
    TOO_LARGE,
    Markup,
    Room,
    attribute,
    data_url,
    file_name,
    joined,
    left_out,
    shown,
    shown_octets,
)
from lazr_smtptest._pages.frame import frame
from lazr_smtptest._parent.describe import client
from lazr_smtptest.checks import Problem
from lazr_smtptest.message import Attachment, Envelope, Message, headline, parse

#: Characters of a text and of a header field; octets of a header, of a source, and of a
#: picture that is shown beside its name.
_TEXT = 100_000
_FIELD = 1000
_HEADER = 100_000
_SOURCE = 100_000
_PREVIEW = 200_000

#: How much longer it takes to read a header, and to look at HTML tag by tag, than the rest.
_HEADER_COSTS = 10
_HTML_COSTS = 5

#: Recipients, attachments, links and problems of one message.
_RECIPIENTS = 50
_ATTACHMENTS = 100
_LINKS = 100
_PROBLEMS = 100

_FIELDS = ("From", "Reply-To", "To", "Cc", "Date")
_HEADER_END = re.compile(rb"(?:\A|\n)\r?\n")
#: Pictures that are shown; another kind may come with the browser's own rules.
_SHOWN_PICTURES = frozenset(f"image/{name}" for name in ("gif", "jpeg", "png", "webp"))


def title_of(item: Any) -> str:
    """Return the subject, or what an item is if it is no message."""
    if not isinstance(item, Message):
        return headline(item)
    return _head(item).header("Subject").strip()[:_FIELD] or "(no subject)"


def _header(message: Message) -> bytes:
    end = _HEADER_END.search(message.raw)
    return message.raw[: end.end()] if end else message.raw


def _head(message: Message) -> Message:
    """Return a message of the header alone, or of its beginning if it is long."""
    return parse(message.envelope, _header(message)[:_HEADER])


def article(item: Any, name: str, room: Room, *, with_problems: bool = True) -> Markup:
    """Return a message, or what else a handler has passed on.

    :param name: The id that links lead to.
    :param room: What attachments, pictures and the message itself may take.
    """
    heading = f'<h4 id="{name}"><bdi>{shown(title_of(item), 300)}</bdi></h4>\n'
    inside = "".join(_inside(item, room, with_problems)) if isinstance(item, Message) else ""
    return Markup(f'<article aria-labelledby="{name}">\n{heading}{inside}</article>\n')


def _inside(message: Message, room: Room, with_problems: bool) -> Iterator[str]:
    yield facts(_facts(message))
    header = _header(message)
    if not room.read.take(len(message.raw) + _HEADER_COSTS * len(header)):
        yield '<p class="left-out">[too large: its content is left out]</p>\n'
        return
    attachments = message.attachments
    html, text = message.html, message.text
    is_checked = room.checked.take(len(message.raw) + _HTML_COSTS * len(html))
    if with_problems and is_checked:
        yield problems(message.problems)
    if not is_checked:
        yield '<p class="left-out">[too large to look for problems and links here]</p>\n'
    if html:
        label = attribute(f"HTML of: {title_of(message)[:100]}")
        yield _details("HTML", frame(html, label, attachments, room), is_open=True)
    if text or not html:
        yield _details("Text", _text(text, room), is_open=not html)
    if attachments:
        count = f"Attachments ({len(attachments):,})"
        yield _details(count, _attachments(attachments, room), is_open=True)
    if is_checked and (found := message.links()):
        items = [f"<li><code>{shown(link, _FIELD)}</code></li>" for link in found[:_LINKS]]
        yield _details(f"Links ({len(found):,})", _list("files", items, len(found)))
    yield _details("Headers as they came", _octets(header, _HEADER, room))
    source = _octets(message.raw, _SOURCE, room)
    yield _details("Source", Markup(_save_all(message, room) + source))


def _text(text: str, room: Room) -> Markup:
    if not text:
        return Markup('<p class="muted">This message has no text.</p>')
    if not room.kept.take(min(len(text), _TEXT)):
        return TOO_LARGE
    return Markup(f'<pre class="text" dir="auto">{shown(text, _TEXT)}</pre>')


def _octets(octets: bytes, limit: int, room: Room) -> Markup:
    if not room.kept.take(min(len(octets), limit)):
        return TOO_LARGE
    return Markup(f"<pre>{shown_octets(octets, limit)}</pre>")


def _facts(message: Message) -> Iterator[tuple[str, Markup]]:
    head = _head(message)
    for name in _FIELDS:
        for value in head.headers(name)[:1]:
            yield name, Markup(f"<bdi>{shown(value, _FIELD)}</bdi>")
    envelope = message.envelope
    yield "Sender", _addresses("MAIL FROM", [envelope.mail_from])
    yield "Recipients", _addresses("RCPT TO", envelope.rcpt_tos)
    if envelope.rcpt_refused:
        yield "Refused", _addresses("", envelope.rcpt_refused)
    yield "Received", Markup(f"{moment(envelope)}, {len(message.raw):,} octets")
    yield "Client", shown(_client(envelope), _FIELD)


def moment(envelope: Envelope) -> Markup:
    return shown(f"{envelope.received_at:%Y-%m-%d %H:%M:%S} UTC")


def _addresses(command: str, found: Iterable[str]) -> Markup:
    found = list(found)
    marked = [Markup(f"<bdi>&lt;{shown(one, _FIELD)}&gt;</bdi>") for one in found[:_RECIPIENTS]]
    more = len(found) - len(marked)
    text = joined(marked, ", ") + (f" {left_out(more, 'recipients')}" if more > 0 else "")
    return Markup(f'<span class="muted">{command}</span> {text}' if command else text)


def _client(envelope: Envelope) -> str:
    facts = [client(envelope.peer)]
    facts += [f"which calls itself {envelope.helo}"] if envelope.helo else []
    facts += [envelope.tls or "in the clear"]
    facts += [f"logged in as {envelope.auth_user}"] if envelope.auth_user is not None else []
    subject = envelope.client_cert_subject
    facts += [f"with the certificate {subject}"] if subject is not None else []
    return ", ".join(facts)


def facts(found: Iterable[tuple[str, Markup]]) -> Markup:
    rows = (f"<dt>{name}</dt><dd>{value}</dd>\n" for name, value in found)
    return Markup(f"<dl>\n{''.join(rows)}</dl>\n")


def problems(found: Iterable[Problem]) -> Markup:
    found = list(found)
    items = [
        f'<li class="{problem.level}"><strong>{problem.level}: {shown(problem.code)}</strong> '
        f"{shown(problem.text, _FIELD)}"
        + (f" ({shown(problem.where, _FIELD)})" if problem.where else "")
        + "</li>"
        for problem in found[:_PROBLEMS]
    ]
    return _list("problems", items, len(found), "Problems") if items else Markup("")


def _list(kind: str, items: list[str], count: int, label: str = "") -> Markup:
    more = count - len(items)
    items += [f"<li>{left_out(more, 'of them')}</li>"] if more > 0 else []
    named = f' aria-label="{label}"' if label else ""
    return Markup(f'<ul class="{kind}"{named}>\n' + "\n".join(items) + "\n</ul>\n")


def _details(summary: str, inside: Markup, *, is_open: bool = False) -> str:
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{summary}</summary>\n{inside}</details>\n"


# What can be saved.


def _attachments(found: list[Attachment], room: Room) -> Markup:
    items = [
        _attachment(one, f"attachment-{number}", room)
        for number, one in enumerate(found[:_ATTACHMENTS], 1)
    ]
    return _list("files", items, len(found))


def _attachment(one: Attachment, default: str, room: Room) -> str:
    name = shown(one.name, 200) if one.name else Markup("without a name")
    about = f"<bdi>{name}</bdi> ({shown(one.type, 100)}, {len(one.data):,} octets"
    about += f", Content-ID {shown(one.content_id, 200)})" if one.content_id else ")"
    if not room.kept.take(len(one.data)):
        return f"<li>{about} {TOO_LARGE}</li>"
    kept = file_name(one.name, default)
    preview = ""
    if one.type in _SHOWN_PICTURES and len(one.data) <= _PREVIEW and room.kept.take(len(one.data)):
        preview = f'<img src="{data_url(one.type, one.data)}" alt="{attribute(kept)}">'
    return f"<li>{about} {_save(one.data, kept)}{preview}</li>"


def _save_all(message: Message, room: Room) -> Markup:
    if not room.kept.take(len(message.raw)):
        return Markup(f"<p>The whole message: {TOO_LARGE}</p>\n")
    name = file_name(f"{title_of(message)[:60]}.eml", "message.eml")
    return Markup(f"<p>{_save(message.raw, name)}</p>\n")


def _save(octets: bytes, name: str) -> Markup:
    # No type that a browser would show in place of the page.
    url = data_url("application/octet-stream", octets)
    return Markup(
        f'<a href="{url}" download="{attribute(name)}">Save <bdi>{shown(name)}</bdi></a>'
    )
