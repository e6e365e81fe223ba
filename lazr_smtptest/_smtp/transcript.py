"""What was said in each session.  Server process.

This is on the way of every command.  So an exchange is kept as it came, octets
and all, and made readable when a test asks for it.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lazr_smtptest._util import time_of_day, utc
from lazr_smtptest.sessions import Line, Session, SessionEvent

#: What is kept: exchanges and messages of a session, and sessions that ended.
_EXCHANGES = 200  # a command and its reply may come one by one
_MESSAGES = 100
_SESSIONS = 100

#: Octets that are kept of what came together, and of one line.
_OCTETS = 4000
_LINE = 1000

#: The first octets of TLS (RFC 8446, 5.1): a handshake, and a version that is 3.x for ever.
_CLIENT_HELLO = re.compile(rb"\x16\x03[\x00-\x04]")
_TLS = (
    "TLS ClientHello: the client speaks TLS at once, "
    "and this server was not made with tls='implicit'"
)
_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d")
_CONTROLS = bytes(set(range(32)) - {9}) + b"\x7f"

#: When, what the client sent, and the reply; a number stands for that many
#: octets of content, a str for a remark.
Exchange = tuple[float, "bytes | int | str | None", "bytes | None"]


@dataclass(slots=True, eq=False)
class Transcript:
    """One session."""

    peer: tuple[Any, ...]
    began: float  # by the event loop's clock
    number: int  # of the client, in the order in which they connected
    connected_at: float = field(default_factory=time_of_day)
    helo: str | None = None
    tls: str | None = None
    cipher: str | None = None
    auth_user: str | None = None
    failed_logins: int = 0
    messages: deque[int] = field(default_factory=lambda: deque(maxlen=_MESSAGES))
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=_EXCHANGES))
    ended: str = "open"
    #: Codes of `checks` for what no dialogue shows, and when that was last.
    noticed: dict[str, float] = field(default_factory=dict)
    client_cert_subject: str | None = None

    def note(self, now: float, said: bytes | int | str | None, told: bytes | None) -> None:
        """Keep an exchange, or what is short enough of it; see `Exchange`."""
        if type(said) is bytes and len(said) > _OCTETS:
            said = said[:_OCTETS] + b"..."
        if told is not None and len(told) > _OCTETS:
            told = told[:_OCTETS] + b"..."
        self.exchanges.append((now, said, told))

    def note_unread(self, now: float, octets: bytes) -> None:
        """Keep what no line end came for, if it is binary: a text may be a secret."""
        if _CLIENT_HELLO.match(octets) or (octets and _is_binary(octets)):
            self.note(now, octets, None)

    def export(self, since: float = 0.0, of: Container[int] | None = None) -> Session:
        """Return what was said from a moment on, by the event loop's clock.

        Of the messages that is the last, or those ``of`` these numbers.
        """
        messages = [n for n in self.messages if of is None or n in of]
        said = [exchange for exchange in self.exchanges if exchange[0] >= since]
        return Session(
            peer=self.peer,
            connected_at=utc(self.connected_at),
            helo=self.helo,
            tls=self.tls,
            cipher=self.cipher,
            auth_user=self.auth_user,
            failed_logins=self.failed_logins,
            messages=tuple(messages[-_MESSAGES:]),
            dialogue=tuple(line for exchange in said for line in self._lines(exchange)),
            ended=self.ended,
            noticed=tuple(code for code, at in self.noticed.items() if at >= since),
            client_cert_subject=self.client_cert_subject,
        )

    def _lines(self, exchange: Exchange) -> list[Line]:
        now, said, told = exchange
        at = round(now - self.began, 6)
        lines = []
        if isinstance(said, bytes):
            lines += [Line(at, *one) for one in _said(said)]
        elif isinstance(said, int):
            lines.append(Line(at, "*", f"{said} octets of content"))
        elif said is not None:
            lines.append(Line(at, "*", said))
        if told is not None:
            lines += [Line(at, "S", text) for text in _texts(told)]
        return lines


@dataclass(slots=True, eq=False, kw_only=True)
class WatchedTranscript(Transcript):
    """One session, whose lines somebody wants to have at once."""

    send: Callable[[SessionEvent], object]

    def note(self, now: float, said: bytes | int | str | None, told: bytes | None) -> None:
        Transcript.note(self, now, said, told)
        lines = tuple(self._lines(self.exchanges[-1]))
        self.send(SessionEvent(self.number, self.peer, lines))


class Transcripts:
    """All sessions: those that are open, and the last that were."""

    def __init__(self) -> None:
        self._open: dict[Transcript, None] = {}
        self._ended: deque[Transcript] = deque(maxlen=_SESSIONS)
        #: How many clients have connected.
        self.connections = 0
        self._new: Callable[..., Transcript] = Transcript
        self._send: Callable[[SessionEvent], object] | None = None

    def watch(self, send: Callable[[SessionEvent], object], with_lines: bool) -> None:
        """Send what happens from now on: that a session has begun, or ended; or lines, too.

        Sessions that have begun before are sent without their lines.
        """
        self._send = send
        self._new = partial(WatchedTranscript, send=send) if with_lines else Transcript
        for transcript in self._open:
            send(SessionEvent(transcript.number, transcript.peer))

    def stop_watching(self) -> None:
        """Send the sessions that are open, as they are."""
        for transcript in self._open:
            self._send_whole(transcript)
        self._send = None

    def _send_whole(self, transcript: Transcript) -> None:
        if self._send is not None:
            session = transcript.export()
            self._send(SessionEvent(transcript.number, session.peer, session=session))

    def open(self, peer: tuple[Any, ...], now: float) -> Transcript:
        self.connections += 1
        transcript = self._new(peer, now, self.connections)
        self._open[transcript] = None
        if self._send is not None:
            self._send(SessionEvent(transcript.number, peer))
        return transcript

    def close(self, transcript: Transcript) -> None:
        if transcript in self._open:
            del self._open[transcript]
            self._ended.append(transcript)
            self._send_whole(transcript)

    def count_before(self, transcript: Transcript) -> int:
        """Count the sessions that began before one, and go on."""
        older = itertools.takewhile(lambda one: one is not transcript, self._open)
        return sum(one.ended == "open" for one in older)

    def clear(self) -> None:
        """Forget what has ended, and what was said so far."""
        self._ended.clear()
        self.connections = 0
        for transcript in list(self._open):
            if transcript.ended != "open":  # and the client has yet to close its end
                del self._open[transcript]
            transcript.exchanges.clear()
            transcript.messages.clear()
            transcript.noticed.clear()
            transcript.failed_logins = 0

    def export(self) -> list[Session]:
        found = [*self._ended, *self._open]
        return [one.export() for one in sorted(found, key=lambda one: one.connected_at)]


def _texts(octets: bytes) -> list[str]:
    return [_text(line) for line in _lines_of(octets)]


def _text(line: bytes) -> str:
    return line[:_LINE].decode("utf-8", "backslashreplace")


def _lines_of(octets: bytes) -> list[bytes]:
    return [line.rstrip(b"\r") for line in octets.rstrip(b"\r\n").split(b"\n")]


def _said(octets: bytes) -> list[tuple[str, str]]:
    """Return the lines of a client, and in place of what is no text what it is."""
    if _CLIENT_HELLO.match(octets):
        return [("*", _TLS)]
    lines = []
    for line in _lines_of(octets):
        lines.append(("*", _as_binary(line)) if _is_binary(line) else ("C", _text(line)))
        if _HTTP.match(line):
            lines.append(("*", "an HTTP request: the client takes this for a web server"))
    return lines


def _is_binary(line: bytes) -> bool:
    # Keys that somebody pressed in a terminal are no text, either, and are no data.
    share = 1 - len(line.translate(None, _CONTROLS)) / max(len(line), 1)
    return share > (0.3 if _is_utf8(line) else 0.05) and len(line) > 3


def _is_utf8(line: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        return bool(line.decode() or True)
    return False


def _as_binary(line: bytes) -> str:
    zeros = line.count(0)
    of_them = f", {'all' if zeros == len(line) else zeros} of them NUL" if zeros else ""
    return f"octets that are no text: {len(line)}{of_them}"
