"""Messages and sessions in words, for reports.  Test process."""

from __future__ import annotations

from itertools import islice
from typing import Any

from lazr_smtptest._reading.markup import words
from lazr_smtptest._util import addresses, plain, quoted
from lazr_smtptest.checks import Problem
from lazr_smtptest.message import Message, headline
from lazr_smtptest.sessions import Line, Session

#: Lines of a message's text, and attachments, that a report shows.
_LINES = 5
_ATTACHMENTS = 10
_DEFECTS = 5
_PROBLEMS = 10

#: Lines of a session's dialogue that it shows, the last.
_DIALOGUE = 20


def problem_line(problem: Problem) -> str:
    where = f" ({plain(problem.where)})" if problem.where else ""
    return f"{problem.code}: {plain(problem.text)}{where}"


def describe(item: Any, with_problems: bool = False) -> str:
    """Return some lines about a message: its envelope, text and attachments."""
    lines = [headline(item)]
    if isinstance(item, Message):
        refused = item.envelope.rcpt_refused
        lines += [f"  refused for {addresses(refused)}"] if refused else []
        lines += [f"  | {plain(line)}" for line in _first_lines(item)]
        lines += [f"  defect: {plain(_defect(one))}" for one in _defects(item)]
        lines += [
            f"  attached: {quoted(found.name or found.content_id or '')} "
            f"({plain(found.type)}, {len(found.data)} bytes)"
            for found in item.attachments[:_ATTACHMENTS]
        ]
    if with_problems and isinstance(item, Message):
        lines += [f"  problem: {problem_line(problem)}" for problem in item.problems[:_PROBLEMS]]
    return "\n".join(lines)


def _defects(message: Message) -> list[Any]:
    found = (defect for part in message.walk() for defect in part.defects)
    return list(islice(found, _DEFECTS))


def _defect(defect: Any) -> str:
    return f"{type(defect).__name__}: {defect}".removesuffix(": ")


def _first_lines(message: Message) -> list[str]:
    lines = (message.text.strip() or words(message.html)).splitlines()
    return lines if len(lines) <= _LINES else [*lines[:_LINES], "..."]


def session_lines(session: Session) -> list[str]:
    helo = f", which calls itself {quoted(session.helo)}" if session.helo else ""
    subject = session.client_cert_subject
    shown = "" if subject is None else f", with the certificate {plain(subject)}"
    lines = [f"- {client(session.peer)}{helo}{shown}: {session.ended}"]
    if len(session.dialogue) > _DIALOGUE:
        lines.append("  ...")
    return lines + [f"  {_spoken(line)}" for line in session.dialogue[-_DIALOGUE:]]


def client(peer: tuple[Any, ...]) -> str:
    if peer[1:]:
        return f"{peer[0]} port {peer[1]}"
    # On a UNIX socket it has no address, as a rule, nor has one that had left at once.
    return plain(peer[0]) if any(peer) else "a client"


def _spoken(line: Line) -> str:
    # A remark is the server's own, and short enough.
    text = str(line)
    return text if line.speaker == "*" and text.isprintable() else plain(text)
