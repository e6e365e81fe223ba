"""What a client said, the replies it got, and what is wrong with that.  Both processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._names import ENVELOPES_ELSEWHERE, checked
from lazr_smtptest._util import lazy_pattern, quoted, utc

if TYPE_CHECKING:
    from lazr_smtptest.checks import Problem

__all__ = ["SESSION_CODES", "Command", "Line", "Session"]

#: Each code of a problem of a session: its level, what it means, and where that is written.
#: Beside these, a session has those of its messages that their octets alone show.
SESSION_CODES: dict[str, tuple[str, str, str]] = {
    "path-without-brackets": ("error", "a path without its angle brackets", "RFC 5321 4.1.2"),
    "path-odd": ("advice", "a path that is wrong, but that servers accept", "RFC 5321 4.1.2"),
    "encoded-word-in-path": ("error", "an encoded word as an address", "RFC 2047 5"),
    "control-character-in-path": ("error", "a control character in a path", "RFC 5321 4.1.2"),
    "early-talk": ("error", "a command or content before the reply", "RFC 5321 4.3.1, RFC 2920"),
    "starttls-not-used": ("advice", "mail in the clear, though TLS was offered", "RFC 8314 3"),
    "password-in-clear": (
        "error",
        "a password in the clear, where TLS was offered",
        "RFC 4954 14",
    ),
    "no-quit": ("advice", "a connection closed without QUIT", "RFC 5321 4.1.1.10"),
    "no-final-crlf": ("advice", "content in chunks that does not end in CRLF", "RFC 3030 2"),
    "size-exceeded-by-declared": ("advice", "more content than SIZE= said", "RFC 1870 6"),
}

_QUOTED = r'"(?:[^"\\]|\\.)*"'
#: MAIL or RCPT: the verb, the path in brackets or without, and what follows.
_COMMAND = lazy_pattern(
    rf'(MAIL FROM|RCPT TO):[ \t]*(?:<((?:{_QUOTED}|[^">])*)>?|((?:{_QUOTED}|[^"\s])*))(.*)',
    re.IGNORECASE | re.DOTALL,
)
_SIZE = lazy_pattern(r"\sSIZE=(\d+)", re.IGNORECASE)
_CONTENT = lazy_pattern(r"(\d+) octets of content")
#: Mechanisms that show the secret to anybody who listens in.
_CLEAR = lazy_pattern(r"AUTH (?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER)\b", re.IGNORECASE)

#: An AUTH command, and an answer to a challenge or its refusal, as the dialogue has them.
_AUTH = lazy_pattern(r"AUTH\b(?: +([^\s*]*))?.*", re.IGNORECASE)
_ANSWERS = ("***", "*")

_ENCODED_WORD = lazy_pattern(r"=\?[^?]+\?[bq]\?[^?]*\?=", re.IGNORECASE)

#: A dot-string or a quoted string, an at sign and a domain (RFC 5321, 4.1.2; RFC 6531, 3.3).
_MAILBOX = lazy_pattern(
    r'(?:[^\s"(),.:;<>@\[\\\]]+(?:\.[^\s"(),.:;<>@\[\\\]]+)*|"(?:[^"\\]|\\.)*")'
    r"@(?:\[[^\[\]]+\]|[^\s_.]+(?:\.[^\s_.]+)*)"
)


class Line(NamedTuple):
    """One line of a session.

    :ivar at: Seconds since the client connected.
    :ivar speaker: ``"C"`` for the client, ``"S"`` for the server, and ``"*"``
        for a remark on what is not a line: content, TLS, what may be a secret.
    :ivar text: The line, without its end.  ``***`` replaces a secret.
    """

    at: float
    speaker: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.speaker} {self.text}"


class Command(NamedTuple):
    """One command of a client.

    :ivar verb: Its first word, in capitals.
    :ivar argument: What follows; for MAIL and RCPT the address, without angle brackets,
        and for AUTH the mechanism.
    :ivar parameters: The parameters of MAIL and RCPT, such as ``SIZE=1000``.
    """

    verb: str
    argument: str = ""
    parameters: tuple[str, ...] = ()


@checked(attributes=ENVELOPES_ELSEWHERE)
class Session(NamedTuple):
    """One connection of a client.

    :ivar peer: The client's socket address; see `Envelope.peer`.
    :ivar connected_at: When it connected; UTC, and the real time.
    :ivar helo: The name in its last EHLO, HELO or LHLO, or None.
    :ivar tls: The TLS version, such as ``"TLSv1.3"``, or None.
    :ivar cipher: The name of the TLS cipher, or None.
    :ivar auth_user: The name that it logged in with, or None.
    :ivar failed_logins: How many of its logins failed.
    :ivar messages: The `Envelope.sequence` of each message; the last 100.
    :ivar dialogue: Each `Line`, without secrets and without the content of
        messages; the last 100 exchanges.
    :ivar ended: ``"QUIT"``, ``"dropped by the server"``, ``"dropped by the
        client"``, or ``"open"``.
    :ivar noticed: Codes for `problems` that only the server could see.
    :ivar client_cert_subject: The subject of the certificate that the client showed, such
        as ``"CN=kim@example.com"`` (RFC 4514), or None.
    """

    peer: tuple[Any, ...]
    connected_at: datetime
    helo: str | None
    tls: str | None
    cipher: str | None
    auth_user: str | None
    failed_logins: int
    messages: tuple[int, ...]
    dialogue: tuple[Line, ...]
    ended: str
    noticed: tuple[str, ...] = ()
    client_cert_subject: str | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands in `dialogue`, without what was sent after AUTH's mechanism."""
        found = (_command(line) for line in self.dialogue)
        return tuple(command for command in found if command is not None)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with what the client said; each once, in order.

        It is checked when you read this, which raises nothing.
        """
        from lazr_smtptest.checks import CODES, Problem

        found = [
            Problem(code, SESSION_CODES[code][0], text, where)
            for code, text, where in (*_of_dialogue(self), *_of_the_whole(self))
        ]
        levels = {**CODES, **SESSION_CODES}
        found += [
            Problem(code, levels[code][0], _NOTICED[code], "")
            for code in self.noticed
            if code in _NOTICED
        ]
        return tuple(dict.fromkeys(found))

    def __reduce__(self) -> tuple[Any, ...]:
        # Without a datetime, which pickle would make by what a test has in its place.
        return _unpickled, (self.peer, self.connected_at.timestamp(), *self[2:])


class SessionEvent(NamedTuple):
    """What has happened in a session: it has begun, something was said, or it is over.

    :ivar number: Which one it is: the first client that connected has 1.
    :ivar peer: See `Session.peer`.
    :ivar lines: What was said, as it is in `Session.dialogue`.
    :ivar session: The whole session, when it is over; else None.
    """

    number: int
    peer: tuple[Any, ...]
    lines: tuple[Line, ...] = ()
    session: Session | None = None


def as_peer(name: Any) -> tuple[Any, ...]:
    """Return a socket address as a tuple, also where the system has a path, or none."""
    if name is None:  # the client has gone
        return ()
    return name if isinstance(name, tuple) else (os.fsdecode(name),)


def _unpickled(peer: tuple[Any, ...], connected_at: float, *values: Any) -> Session:
    return Session(peer, utc(connected_at), *values)


def _command(line: Line) -> Command | None:
    if line.speaker == "C" and (auth := _AUTH.fullmatch(line.text)):
        return Command("AUTH", (auth[1] or "").upper())
    if line.speaker == "C" and line.text in _ANSWERS:
        return None
    verb, _, rest = line.text.strip().partition(" ")
    if line.speaker != "C" or not verb:
        return None
    if found := _COMMAND.match(line.text.strip()):
        path = found[3] if found[2] is None else found[2]
        return Command(verb.upper(), path, tuple(found[4].split()))
    return Command(verb.upper(), rest.strip())


#: What the server process notices.
_NOTICED = {
    "early-talk": "The client went on before the server's reply: wait for the greeting, for the "
    "354 before content, and for each reply where PIPELINING is not offered",
    "8bit-undeclared": "Content had 8-bit octets: declare them by BODY=8BITMIME, or encode them",
    "bare-cr": "Content had a CR without an LF: end lines by CRLF",
    "bare-lf": "Content had lines that end in LF alone: end lines by CRLF",
    "nul": "Content had a NUL: encode binary data in base64",
    "line-too-long": "Content had a line of over 998 octets: encode it, or fold it",
    "no-final-crlf": "Content in chunks did not end in CRLF: end its last line, too, by that",
}

_Found = Iterator[tuple[str, str, str]]


def _of_dialogue(session: Session) -> _Found:
    reader = _Reader()
    for line in session.dialogue:
        for code, text in reader.read(line):
            yield code, text, f"{line.at:.3f} s: {line.text[:60]}"


class _Reader:
    """Reads a dialogue, and knows what was offered and declared so far."""

    def __init__(self) -> None:
        self._is_offered = self._is_encrypted = False
        self._declared = self._received = 0

    def read(self, line: Line) -> Iterator[tuple[str, str]]:
        if line.speaker == "S":
            self._is_offered |= line.text[4:].strip().upper() == "STARTTLS"
        elif line.speaker == "*":
            yield from self._remark(line.text)
        elif _CLEAR.match(line.text):
            if self._is_offered and not self._is_encrypted:
                text = "A password went in the clear: send STARTTLS before AUTH"
                yield "password-in-clear", text
        elif found := _COMMAND.match(line.text):
            if found[1].upper() == "MAIL FROM":
                yield from self._mail(found[4])
            yield from _of_path(found[2], found[3])

    def _remark(self, text: str) -> Iterator[tuple[str, str]]:
        self._is_encrypted |= text.startswith("TLSv")
        content = _CONTENT.match(text)
        if not content:
            return
        self._received += int(content[1])  # it may come in chunks
        # RFC 1870, 5: it is an estimate.  Dots that transparency adds are counted here.
        if self._declared and self._received > self._declared * 1.05 + 100:
            yield (
                "size-exceeded-by-declared",
                f"MAIL declared {self._declared} octets, and {self._received} came",
            )
            self._declared = 0  # further chunks are no further problem

    def _mail(self, parameters: str) -> Iterator[tuple[str, str]]:
        size = _SIZE.search(parameters)
        self._declared, self._received = int(size[1]) if size else 0, 0
        if self._is_offered and not self._is_encrypted:
            yield "starttls-not-used", "TLS was offered: send STARTTLS before MAIL"


def _of_path(bracketed: str | None, bare: str | None) -> Iterator[tuple[str, str]]:
    path = bracketed if bare is None else bare
    assert path is not None
    if bracketed is None and path:
        yield "path-without-brackets", f"{quoted(path)} needs angle brackets around it"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", path):
        yield "control-character-in-path", f"{quoted(path)} has a control character in it"
    elif _ENCODED_WORD.search(path):
        text = f"{quoted(path)} is an encoded word, which nobody decodes in an address"
        yield "encoded-word-in-path", f"{text}: use SMTPUTF8, or an ASCII address"
    elif path and path.lower() != "postmaster" and not _is_mailbox(path):
        yield "path-odd", f"{quoted(path)} is no address by the grammar: some servers refuse it"


def _is_mailbox(path: str) -> bool:
    path = re.sub(r"\A@[^:]+:", "", path)  # a source route
    return bool(_MAILBOX.fullmatch(path)) and len(path.rpartition("@")[0].encode()) <= 64


def _of_the_whole(session: Session) -> _Found:
    if session.ended == "dropped by the client" and session.messages:
        text = "The client closed the connection without QUIT: a reply may have been lost"
        yield "no-quit", text, ""
