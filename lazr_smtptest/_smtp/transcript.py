"""What was said in each session.  Server process.

This is on the way of every command.  So an exchange is kept as it came, octets
and all, and made readable when a test asks for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from lazr_smtptest._util import time_of_day, utc
from lazr_smtptest.sessions import Line, Session

#: What is kept: exchanges and messages of a session, and sessions that ended.
_EXCHANGES = 200  # a command and its reply may come one by one
_MESSAGES = 100
_SESSIONS = 100

#: Octets that are kept of what came together, and of one line.
_OCTETS = 4000
_LINE = 1000

#: When, what the client sent, and what it was told; a number stands for so
#: many octets of content, a str for a remark.
Exchange = tuple[float, "bytes | int | str | None", "bytes | None"]


@dataclass(slots=True, eq=False)
class Transcript:
    """One session."""

    peer: tuple[Any, ...]
    began: float  # by the event loop's clock
    connected_at: float = field(default_factory=time_of_day)
    helo: str | None = None
    tls: str | None = None
    cipher: str | None = None
    auth_user: str | None = None
    failed_logins: int = 0
    messages: deque[int] = field(default_factory=lambda: deque(maxlen=_MESSAGES))
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=_EXCHANGES))
    ended: str = "open"
    #: Codes of `checks` for what no dialogue shows; a dict, for the order.
    noticed: dict[str, None] = field(default_factory=dict)

    def note(self, now: float, said: bytes | int | str | None, told: bytes | None) -> None:
        """Keep an exchange, or what is short enough of it; see `Exchange`."""
        if type(said) is bytes and len(said) > _OCTETS:
            said = said[:_OCTETS] + b"..."
        if told is not None and len(told) > _OCTETS:
            told = told[:_OCTETS] + b"..."
        self.exchanges.append((now, said, told))

    def export(self) -> Session:
        return Session(
            peer=self.peer,
            connected_at=utc(self.connected_at),
            helo=self.helo,
            tls=self.tls,
            cipher=self.cipher,
            auth_user=self.auth_user,
            failed_logins=self.failed_logins,
            messages=tuple(self.messages),
            dialogue=tuple(line for exchange in self.exchanges for line in self._lines(exchange)),
            ended=self.ended,
            noticed=tuple(self.noticed),
        )

    def _lines(self, exchange: Exchange) -> list[Line]:
        now, said, told = exchange
        at = round(now - self.began, 6)
        lines = []
        if isinstance(said, bytes):
            lines += [Line(at, "C", text) for text in _texts(said)]
        elif isinstance(said, int):
            lines.append(Line(at, "*", f"{said} octets of content"))
        elif said is not None:
            lines.append(Line(at, "*", said))
        if told is not None:
            lines += [Line(at, "S", text) for text in _texts(told)]
        return lines


class Transcripts:
    """All sessions: those that are open, and the last that were."""

    def __init__(self) -> None:
        self._open: dict[Transcript, None] = {}
        self._ended: deque[Transcript] = deque(maxlen=_SESSIONS)

    def open(self, peer: tuple[Any, ...], now: float) -> Transcript:
        transcript = Transcript(peer, now)
        self._open[transcript] = None
        return transcript

    def close(self, transcript: Transcript) -> None:
        if transcript in self._open:
            del self._open[transcript]
            self._ended.append(transcript)

    def clear(self) -> None:
        """Forget what has ended, and what was said so far."""
        self._ended.clear()
        for transcript in self._open:
            transcript.exchanges.clear()
            transcript.messages.clear()
            transcript.noticed.clear()
            transcript.failed_logins = 0

    def export(self) -> list[Session]:
        found = [*self._ended, *self._open]
        return [one.export() for one in sorted(found, key=lambda one: one.connected_at)]


def _texts(octets: bytes) -> list[str]:
    lines = octets.rstrip(b"\r\n").split(b"\n")
    return [line.rstrip(b"\r")[:_LINE].decode("utf-8", "backslashreplace") for line in lines]
