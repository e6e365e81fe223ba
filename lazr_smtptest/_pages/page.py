"""Whole pages, each in one file: what a test's servers had, one message, sessions, an index.

Functions of what they are handed, without files and clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from lazr_smtptest._pages.escape import Markup, Room, attribute, left_out, shown
from lazr_smtptest._pages.frame import HEAD
from lazr_smtptest._pages.message import article, facts, title_of
from lazr_smtptest._pages.session import session_article
from lazr_smtptest._pages.style import STYLE
from lazr_smtptest._parent.describe import Remark
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Session

#: How each page begins, by which it is known to be one.
BEGINNING = (
    "<!DOCTYPE html>\n<!-- lazr-smtptest wrote this page, and its next run removes it -->\n"
)

INDEX = "index.html"

#: Messages and sessions of a server, and entries of an index, that are shown.
MESSAGES = 100
SESSIONS = 50
ENTRIES = 1000

#: Characters of what a test's failure says.
_FAILURE = 50_000


class MailOfServer(NamedTuple):
    """What one server had when a test failed.

    :ivar where: Where it listens, in words.
    :ivar errors: What is wrong with the server itself.
    :ivar taken: The last messages that the test read, and what else a handler passed on.
    :ivar taken_count: How many it read in all.
    :ivar left: The first of those that it left unread.
    :ivar left_count: How many there are.
    :ivar sessions: What clients did, or None if that is not known.
    :ivar remarks: What there is beside that.
    """

    where: str
    errors: tuple[str, ...]
    taken: Sequence[Any]
    taken_count: int
    left: Sequence[Any]
    left_count: int
    sessions: Sequence[Session] | None
    remarks: Sequence[Remark] = ()


class Entry(NamedTuple):
    """One line of an index.

    :ivar group: Under which heading it is; none if empty.
    :ivar page: The name of its page.
    :ivar title: What its link says.
    :ivar about: Facts about it, in one line.
    :ivar text: One line more, or an empty string.
    """

    group: str
    page: str
    title: str
    about: str
    text: str = ""


def page(title: str, body: str, *, is_index: bool = False) -> str:
    """Return a page: its head, a heading, and what is handed over."""
    back = f'<nav aria-label="Pages"><a href="{INDEX}">All pages</a></nav>\n'
    return (
        f'{BEGINNING}<html lang="en">\n<head>\n<meta charset="utf-8">\n{HEAD}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{attribute(title[:100])} - lazr-smtptest</title>\n<style>{STYLE}</style>\n"
        f'</head>\n<body>\n<a class="skip" href="#main">Skip to the content</a>\n<header>\n'
        f"{'' if is_index else back}<h1><bdi>{shown(title, 300)}</bdi></h1>\n</header>\n"
        f'<main id="main">\n{body}</main>\n</body>\n</html>\n'
    )


# Of a test.


def page_of_test(
    test: str,
    about: Iterable[tuple[str, str]],
    failure: str,
    servers: Sequence[MailOfServer],
    *,
    with_problems: bool = True,
) -> str:
    """Return the page of a test that failed.

    :param test: Its node id.
    :param about: More facts, by name.
    :param failure: What pytest says of the failure.
    :param servers: What each of its servers had.
    :param with_problems: Whether problems of messages and sessions are named.
    """
    room = Room()
    sections = [
        _server(server, f"s{number}", room, with_problems)
        for number, server in enumerate(servers, 1)
    ]
    named = facts((shown(name), shown(text, 1000)) for name, text in about)
    said = failure[-_FAILURE:]
    more = f"{left_out(len(failure) - len(said), 'characters')}\n" if said != failure else ""
    body = (
        f'{named}{_contents(servers)}<section aria-labelledby="failure">\n'
        f'<h2 id="failure">Failure</h2>\n<pre class="failure">{more}{shown(said)}</pre>\n'
        f"</section>\n{''.join(sections)}"
    )
    return page(test, body)


def _contents(servers: Sequence[MailOfServer]) -> Markup:
    links = ['<li><a href="#failure">Failure</a></li>']
    for number, server in enumerate(servers, 1):
        kept = [*server.taken[-MESSAGES:], *server.left[:MESSAGES]]
        for at, item in enumerate(kept, 1):
            name = shown(title_of(item), 100)
            links.append(f'<li>Message: <a href="#s{number}-m{at}"><bdi>{name}</bdi></a></li>')
        links.append(
            f'<li><a href="#s{number}-sessions">Sessions on {shown(server.where, 200)}</a></li>'
        )
        links += [
            f'<li><a href="#s{number}-r{at}">{shown(remark.heading, 200)}</a></li>'
            for at, remark in enumerate(server.remarks, 1)
        ]
    return Markup('<nav aria-label="On this page"><ul>\n' + "\n".join(links) + "\n</ul></nav>\n")


def _server(server: MailOfServer, name: str, room: Room, with_problems: bool) -> Markup:
    errors = "".join(
        f'<pre class="error">{shown(error, 10_000)}</pre>\n' for error in server.errors
    )
    taken, left = server.taken[-MESSAGES:], server.left[:MESSAGES]
    anchors = [f"{name}-m{number}" for number in range(1, len(taken) + len(left) + 1)]
    links = {
        item.envelope.sequence: f"#{anchor}"
        for anchor, item in zip(anchors, [*taken, *left], strict=True)
        if isinstance(item, Message)
    }

    def articles(items: Iterable[Any], ids: Iterable[str]) -> Iterator[Markup]:
        for item, anchor in zip(items, ids, strict=True):
            yield article(item, anchor, room, with_problems=with_problems)

    inside = [
        _group(
            f"Read by the test ({server.taken_count:,})",
            [*_missing(server.taken_count - len(taken)), *articles(taken, anchors[: len(taken)])],
        ),
        _group(
            f"Left unread ({server.left_count:,})",
            [*articles(left, anchors[len(taken) :]), *_missing(server.left_count - len(left))],
        ),
    ]
    if not any(inside):
        inside.append('<p class="muted">No message has arrived.</p>\n')
    return Markup(
        f'<section aria-labelledby="{name}">\n'
        f'<h2 id="{name}">Server on {shown(server.where, 200)}</h2>\n'
        f"{errors}{''.join(inside)}"
        f'<h3 id="{name}-sessions">Sessions</h3>\n'
        f"{_sessions(server.sessions, name, links, with_problems)}"
        f"{''.join(_remarks(server.remarks, name, with_problems))}</section>\n"
    )


def _remarks(remarks: Sequence[Remark], name: str, with_problems: bool) -> Iterator[str]:
    for number, remark in enumerate(remarks, 1):
        anchor = f"{name}-r{number}"
        yield f'<h3 id="{anchor}">{shown(remark.heading, 200)}</h3>\n'
        if remark.points:
            points = "".join(f"<li>{shown(point, 1000)}</li>\n" for point in remark.points)
            yield f'<ul class="points">\n{points}</ul>\n'
        if remark.sessions:
            yield _sessions(remark.sessions, anchor, {}, with_problems)


def _group(heading: str, inside: list[Markup]) -> str:
    return f"<h3>{heading}</h3>\n{''.join(inside)}" if inside else ""


def _missing(count: int, unit: str = "messages") -> list[Markup]:
    return [Markup(f"<p>{left_out(count, unit)}</p>\n")] if count > 0 else []


def _sessions(
    sessions: Sequence[Session] | None, name: str, links: dict[int, str], with_problems: bool
) -> Markup:
    if sessions is None:
        return Markup('<p class="muted">What clients did is not known.</p>\n')
    if not sessions:
        return Markup('<p class="muted">No client has connected.</p>\n')
    last = sessions[-SESSIONS:]
    pieces = _missing(len(sessions) - len(last), "sessions")
    pieces += [
        session_article(one, f"{name}-c{number}", links, with_problems=with_problems)
        for number, one in enumerate(last, 1)
    ]
    return Markup("".join(pieces))


# Of what arrives at the command line.


def page_of_message(number: int, message: Message) -> str:
    """Return the page of one message."""
    body = f"<h2>Message {number:,}</h2>\n{article(message, 'm', Room())}"
    return page(title_of(message), body)


def page_of_sessions(sessions: Sequence[Session], links: dict[int, str]) -> str:
    """Return the page of what clients did.

    :param links: The pages of messages, by sequence.
    """
    shown_ones = _sessions(sessions, "s", links, with_problems=True)
    return page("Sessions", f"<h2>What clients did</h2>\n{shown_ones}")


# Indexes.


def index(title: str, remarks: Iterable[str], entries: Sequence[Entry]) -> str:
    """Return the page that leads to all others.

    :param remarks: What to say above the entries, a paragraph each.
    :param entries: They are shown in this order, those of one group under one heading.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries[:ENTRIES]:
        groups.setdefault(entry.group, []).append(entry)
    body = "".join(f"<p>{shown(remark, 1000)}</p>\n" for remark in remarks)
    for name, found in groups.items():
        body += f"<h2>{shown(name, 200)}</h2>\n" if name else ""
        body += f'<ul class="entries">\n{"".join(map(_entry, found))}</ul>\n'
    body += "".join(_missing(len(entries) - ENTRIES, "pages, which are beside this one,"))
    return page(title, body, is_index=True)


@lru_cache(maxsize=2 * ENTRIES)  # an index that grows has most of them again
def _entry(entry: Entry) -> str:
    text = f"<p>{shown(entry.text, 300)}</p>" if entry.text else ""
    return (
        f'<li><a href="{entry.page}"><bdi>{shown(entry.title, 300)}</bdi></a>'
        f'<p class="muted">{shown(entry.about, 500)}</p>{text}</li>\n'
    )
