"""One session as a part of a page, line by line."""

from __future__ import annotations

from collections.abc import Mapping

from lazr_smtptest._pages.escape import Markup, joined, shown
from lazr_smtptest._pages.message import facts, problems
from lazr_smtptest._parent.describe import client
from lazr_smtptest.sessions import Line, Session

#: Characters of a line.
_LINE = 1000

_SPEAKERS = {"C": "client", "S": "server", "*": "note"}


def session_article(
    session: Session, name: str, links: Mapping[int, str], *, with_problems: bool = True
) -> Markup:
    """Return a session.

    :param name: The id that links lead to.
    :param links: For sequences of messages, where the page has them.
    """
    whose = client(session.peer) + (f", which calls itself {session.helo}" if session.helo else "")
    dialogue = joined(map(_row, session.dialogue))
    return Markup(
        f'<article aria-labelledby="{name}">\n'
        f'<h4 id="{name}">{shown(whose, 300)}</h4>\n'
        + facts(_facts(session, links))
        + (problems(session.problems) if with_problems else "")
        + '<table class="dialogue"><caption>What was said</caption>\n'
        '<thead><tr><th scope="col">Seconds</th><th scope="col">Who</th>'
        f'<th scope="col">Line</th></tr></thead>\n<tbody>\n{dialogue}</tbody></table>\n'
        "</article>\n"
    )


def _row(line: Line) -> Markup:
    return Markup(
        f"<tr><td>{line.at:.3f}</td><td>{_SPEAKERS.get(line.speaker, 'note')}</td>"
        f"<td>{shown(line.text, _LINE)}</td></tr>\n"
    )


def _facts(session: Session, links: Mapping[int, str]) -> list[tuple[str, Markup]]:
    found = [
        ("Connected", shown(f"{session.connected_at:%Y-%m-%d %H:%M:%S} UTC")),
        ("Ended", shown(session.ended)),
        ("TLS", shown(f"{session.tls}, {session.cipher}" if session.tls else "none")),
    ]
    if session.auth_user is not None:
        found.append(("Logged in as", shown(session.auth_user, _LINE)))
    if session.failed_logins:
        found.append(("Failed logins", shown(f"{session.failed_logins:,}")))
    if session.client_cert_subject is not None:
        found.append(("Certificate", shown(session.client_cert_subject, _LINE)))
    if session.messages:
        found.append(("Messages", joined((_link(n, links) for n in session.messages), ", ")))
    return found


def _link(sequence: int, links: Mapping[int, str]) -> Markup:
    place = links.get(sequence)
    return Markup(f'<a href="{place}">{sequence}</a>' if place else f"{sequence}")
