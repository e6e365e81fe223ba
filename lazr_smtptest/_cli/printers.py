"""What the command line prints, for people and for programs.

Mail may have anything in it, terminal escapes included; what is printed for people is made
harmless first.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import TYPE_CHECKING, Any, TextIO

from lazr_smtptest._parent.describe import client, failure, problem_line
from lazr_smtptest._reading.markup import links, words
from lazr_smtptest._wire.endpoint import ALL_INTERFACES
from lazr_smtptest.controller import QueueController
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Line, Session, SessionEvent

if TYPE_CHECKING:
    from lazr_smtptest.shared import SharedController, UnclaimedMail

#: Columns of a title, at most.
_WIDTH = 72

#: Characters that change how a terminal shows others, or that it cannot show.
_UNSAFE = re.compile(
    r"[^\n\t -~\xa0-\U0010ffff]"
    r"|[\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """Escape what could do something to a terminal, but for tabs and line feeds."""
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def announcement(controller: QueueController | SharedController) -> str:
    """Return where a server listens, in a line or two; and one for each file of its TLS."""
    lines = [f"listening on {controller._endpoint}"]
    if controller.unix_socket is None and controller.server.host in ALL_INTERFACES:
        lines.append("clients elsewhere can use any address of this machine")
    tls = controller.server.tls
    if tls is not None:
        lines.append(f"clients have to trust {controller.ca_file}")
        if tls.client_cert is not None and tls.client_ca_file is None:
            may = "may" if tls.client_cert == "optional" else "have to"
            shown = controller.client_cert_file
            lines.append(f"clients {may} show a certificate, such as {shown}")
    return "\n".join(lines)


class Printer:
    """Prints messages for people.

    In colour on a terminal, if rich is installed and NO_COLOR is not set.

    :param raw: Whether messages are printed as they were sent.
    """

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        self._stream = stream
        self._raw = raw
        self._messages = self._sessions = self._failures = 0
        self._console = _console(stream) if stream.isatty() else None

    def __call__(self, number: int, message: Message) -> None:
        self._messages += 1
        self._print(self._title(f" message {number} "), "bold cyan")
        for line in _circumstances(message):
            self._print_line(line, "cyan")
        self._print("")
        if self._raw:
            self._print(_source(message))
        else:
            self._print_content(message)
        for problem in message.problems:
            self._print_line(f"{problem.level}: {problem_line(problem)}", "yellow")
        self._print("")
        self._stream.flush()

    def _print_content(self, message: Message) -> None:
        for name, value in message.header_items():
            self._print_line(f"{name}: {value}", "bold" if name.lower() == "subject" else "")
        html = message.html
        text = (message.text if message.text.strip() else words(html)).rstrip()
        if text:
            self._print(f"\n{text}")
        if html:
            octets = _counted(len(html.encode("utf-8", "surrogatepass")), "octet")
            found = _counted(len(set(links(html))), "link")
            self._print_line(f"HTML: {octets}, {found}", "dim")
        for part in message.attachments:
            size = _counted(len(part.data), "octet")
            where = "inline" if part.inline else "attached"
            self._print_line(
                f"{where}: {part.name or 'without a name'} ({part.type}, {size})", "dim"
            )

    def event(self, event: SessionEvent) -> None:
        """Print what was said in a session, or that it has begun."""
        for line in event.lines:
            self._print_line(f"session {event.number} {line}", "dim")
        if not event.lines:
            self._print_line(f"session {event.number}: {client(event.peer)} has connected", "dim")
        self._stream.flush()

    def session(self, number: int, session: Session) -> None:
        """Print what is wrong with a session that has ended."""
        self._sessions += 1
        failed = failure(session)
        if failed:
            self._failures += 1
            who = session.helo or client(session.peer)
            self._print_line(f"session {number} failed: {failed} ({who})", "red")
        for problem in session.problems:
            self._print_line(
                f"session {number}: {problem.level}: {problem_line(problem)}", "yellow"
            )
        self._stream.flush()

    def summary(self) -> None:
        """Print how much there was."""
        if self._stream.isatty():
            self._print("")  # behind the ^C that it shows
        counted = [_counted(self._messages, "message"), _counted(self._sessions, "session")]
        self._print(f"{', '.join(counted)}, {self._failures:,} failed", "bold")
        self._stream.flush()

    def unclaimed(self, found: list[UnclaimedMail]) -> None:
        """Print what no lease was for."""
        for one in found:
            self._print_line(f"nobody leased mail {one}", "yellow")
        self._stream.flush()

    def _title(self, text: str) -> str:
        # Asked for each time: a window may have changed its size.
        columns = _WIDTH
        if self._stream.isatty():
            columns = min(columns, os.get_terminal_size(self._stream.fileno()).columns)
        return text.center(columns, "-")

    def _print_line(self, text: str, style: str) -> None:
        # Encoded words may have line feeds, which would make lines of their own.
        self._print(text.replace("\n", "\\n"), style)

    def _print(self, text: str, style: str = "") -> None:
        text = harmless(text)
        if self._console is None:
            self._stream.write(f"{text}\n")
        else:
            self._console.out(text, style=style or None, highlight=False)


def _console(stream: TextIO) -> Any:
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _source(message: Message) -> str:
    text = message.raw.decode("utf-8", "backslashreplace")
    return text.replace("\r\n", "\n").removesuffix("\n")


def _circumstances(message: Message) -> list[str]:
    envelope = message.envelope
    recipients = ", ".join(f"<{address}>" for address in envelope.rcpt_tos)
    user = "" if envelope.auth_user is None else f", logged in as {envelope.auth_user}"
    subject = envelope.client_cert_subject
    shown = "" if subject is None else f", with the certificate {subject}"
    at = envelope.received_at.astimezone()
    return [
        f"from <{envelope.mail_from}> to {recipients}",
        f"at {at:%Y-%m-%d %H:%M:%S %z}, {envelope.tls or 'in the clear'}{shown}{user}",
    ]


class JSONPrinter:
    """Prints messages and sessions for programs, as one line of JSON each.

    In ASCII, so that it is the same in all encodings.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, _number: int, message: Message) -> None:
        self._print(_facts(message))

    def event(self, event: SessionEvent) -> None:
        """Print each line that was said."""
        for line in event.lines:
            self._print(_line_facts(event.number, line))

    def session(self, number: int, session: Session) -> None:
        """Print a session that has ended, without what was said."""
        self._print(_session_facts(number, session))

    def unclaimed(self, found: list[UnclaimedMail]) -> None:
        """Print what no lease was for."""
        for message, nearest in found:
            self._print({**_facts(message), "kind": "unclaimed", "nearest": nearest or None})

    def _print(self, facts: dict[str, Any]) -> None:
        self._stream.write(f"{json.dumps(facts)}\n")
        self._stream.flush()


def _line_facts(number: int, line: Line) -> dict[str, Any]:
    return {"kind": "line", "session": number, **line._asdict()}


def _session_facts(number: int, session: Session) -> dict[str, Any]:
    return {
        "kind": "session",
        "session": number,
        "connected_at": session.connected_at.isoformat(),
        "peer": session.peer,
        "helo": session.helo,
        "tls": session.tls,
        "client_cert_subject": session.client_cert_subject,
        "auth_user": session.auth_user,
        "failed_logins": session.failed_logins,
        "messages": session.messages,
        "ended": session.ended,
        "failure": failure(session) or None,
        "problems": [problem._asdict() for problem in session.problems],
    }


def _facts(message: Message) -> dict[str, Any]:
    envelope = message.envelope
    return {
        "kind": "message",
        "sequence": envelope.sequence,
        "received_at": envelope.received_at.isoformat(),
        "peer": envelope.peer,
        "helo": envelope.helo,
        "tls": envelope.tls,
        "client_cert_subject": envelope.client_cert_subject,
        "auth_user": envelope.auth_user,
        "mail_from": envelope.mail_from,
        "rcpt_tos": envelope.rcpt_tos,
        "subject": message.header("Subject"),
        "headers": message.header_items(),
        "text": message.text,
        "html": message.html,
        "links": message.links(),
        "attachments": [
            {"name": found.name, "type": found.type, "size": len(found.data)}
            for found in message.attachments
        ],
        "problems": [problem._asdict() for problem in message.problems],
        "raw": base64.b64encode(message.raw).decode("ascii"),
    }
