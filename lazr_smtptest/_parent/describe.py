"""Messages and sessions in words, for reports.  Test process."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from lazr_smtptest._reading.markup import words
from lazr_smtptest._util import addresses, plain, quoted
from lazr_smtptest.checks import Problem
from lazr_smtptest.message import Attachment, Message, headline
from lazr_smtptest.sessions import Line, Session

#: Lines of a message's text, and attachments, that a report shows.
_LINES = 5
_ATTACHMENTS = 10
_DEFECTS = 5
_PROBLEMS = 10

#: Lines of a session's dialogue that it shows, the last.
_DIALOGUE = 20

#: Remarks in a dialogue that say that a session came to nothing.
_HOPELESS = ("TLS failed", "TLS ClientHello", "an HTTP request")

#: Stands for what was said, where that was the content of a message.
_CONTENT = "the content"
_OF_MAIL = ("MAIL", "RCPT", "DATA", "BDAT", _CONTENT.upper())


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
        lines += [f"  {_attachment(found)}" for found in item.attachments[:_ATTACHMENTS]]
    if with_problems and isinstance(item, Message):
        lines += [f"  problem: {problem_line(problem)}" for problem in item.problems[:_PROBLEMS]]
    return "\n".join(lines)


def _attachment(found: Attachment) -> str:
    where = "inline" if found.inline else "attached"
    name = quoted(found.name or found.content_id or "")
    return f"{where}: {name} ({plain(found.type)}, {len(found.data)} bytes)"


def _defects(message: Message) -> list[Any]:
    found = (defect for part in message.walk() for defect in part.defects)
    return list(islice(found, _DEFECTS))


def _defect(defect: Any) -> str:
    return f"{type(defect).__name__}: {defect}".removesuffix(": ")


def _first_lines(message: Message) -> list[str]:
    lines = _visible_lines(message.text) or _visible_lines(words(message.html))
    return lines if len(lines) <= _LINES else [*lines[:_LINES], "..."]


def _visible_lines(text: str) -> list[str]:
    """Return the first lines that a reader sees; HTML has others, to fill up a preview."""
    found = (line for line in text.splitlines() if any(map(_is_visible, line)))
    return list(islice(found, _LINES + 1))


def _is_visible(character: str) -> bool:
    is_blank = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs")
    return not is_blank and character != "\u034f"  # which joins, and is a mark by category


def session_lines(session: Session) -> list[str]:
    helo = f", which calls itself {quoted(session.helo)}" if session.helo else ""
    subject = session.client_cert_subject
    shown = "" if subject is None else f", with the certificate {plain(subject)}"
    lines = [f"- {client(session.peer)}{helo}{shown}: {session.ended}"]
    if len(session.dialogue) > _DIALOGUE:
        lines.append("  ...")
    return lines + [f"  {_spoken(line)}" for line in session.dialogue[-_DIALOGUE:]]


class Remark(NamedTuple):
    """What a report has to say beside the messages and sessions of one inbox.

    :ivar heading: What it is about.
    :ivar points: Facts, a line each.
    :ivar sessions: Sessions, the last.
    """

    heading: str
    points: Sequence[str] = ()
    sessions: Sequence[Session] = ()

    @property
    def lines(self) -> list[str]:
        said = [line for session in self.sessions for line in session_lines(session)]
        return [f"{self.heading}:", *(f"- {point}" for point in self.points), *said]


def failure(session: Session) -> str:
    """Return what went wrong in a session, in one line; empty if nothing did.

    That is TLS, a login with no other after it, mail that was refused, or for some of its
    recipients, and a connection that was dropped: by the server, or by a client that had
    said something and sent no message.  Other commands may be refused, such as EHLO, if a
    message came all the same.
    """
    reasons = [line.text for line in session.dialogue if line.speaker == "*" if _is_hopeless(line)]
    logins, mail, others = _refusals(session)
    if logins and session.auth_user is None:
        reasons.append(f"login failed: {plain(logins[-1][1])}")
    for refused in (mail, () if session.messages else others):
        reasons += [_refused(*first) for first in refused[:1]]
        reasons += [f"{len(refused) - 1} more refused"] if len(refused) > 1 else []
    is_left = session.ended == "dropped by the client" and not session.messages
    has_spoken = any(line.speaker == "C" for line in session.dialogue)
    if session.ended == "dropped by the server" or (is_left and has_spoken and not reasons):
        reasons.append(session.ended)
    return "; ".join(reasons)


def _refused(said: str, reply: str) -> str:
    return f"{plain(said)} refused: {plain(reply)}" if said else f"refused: {plain(reply)}"


def _is_hopeless(line: Line) -> bool:
    return line.text.startswith(_HOPELESS)


_Exchanges = list[tuple[str, str]]


def _refusals(session: Session) -> tuple[_Exchanges, _Exchanges, _Exchanges]:
    """Return what was said and refused, and the replies: of logins, of mail, and others."""
    logins: _Exchanges = []
    mail: _Exchanges = []
    others: _Exchanges = []
    for said, reply in _replies(session.dialogue):
        if reply.startswith(("4", "5")):
            verb = said.upper()
            is_login = verb.startswith("AUTH") or said in ("***", "*")
            kind = logins if is_login else mail if verb.startswith(_OF_MAIL) else others
            kind.append((said, reply))
    return logins, mail, others


def _replies(dialogue: tuple[Line, ...]) -> Iterator[tuple[str, str]]:
    """Yield what was said, or nothing before it was, and the last line of each reply to it."""
    unanswered: deque[str] = deque()
    said = ""
    for line in dialogue:
        # Behind BDAT it is a part of that.
        is_content = line.text.endswith("octets of content") and not unanswered
        if line.speaker == "C" or (line.speaker == "*" and is_content):
            unanswered.append(line.text if line.speaker == "C" else _CONTENT)
        elif _is_reply(line):
            if unanswered or said != _CONTENT:  # in LMTP there is one for each recipient
                said = unanswered.popleft() if unanswered else ""
            yield said, line.text


def _is_reply(line: Line) -> bool:
    if line.speaker == "*":
        return line.text.startswith("sent as it is")
    return line.text[3:4] != "-"


def client(peer: tuple[Any, ...]) -> str:
    if peer[1:]:
        return f"{peer[0]} port {peer[1]}"
    # On a UNIX socket it has no address, as a rule, nor has one that had left at once.
    return plain(peer[0]) if any(peer) else "a client"


def _spoken(line: Line) -> str:
    # A remark is the server's own, and short enough.
    text = str(line)
    return text if line.speaker == "*" and text.isprintable() else plain(text)
