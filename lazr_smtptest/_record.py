"""Sessions, taken down.  Server process.

This is on the way of every command.  So an exchange is kept as it came, octets
and all, and made readable when a test asks for it.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timezone
from typing import Any

from lazr_smtptest.sessions import Line, Session

__all__ = ["Record", "Records"]

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


class Record:
    """One session.

    :param peer: The client's socket address.
    :param now: The event loop's time.
    """

    __slots__ = (
        "_began",
        "_connected_at",
        "auth_user",
        "cipher",
        "ended",
        "exchanges",
        "failed_logins",
        "helo",
        "messages",
        "peer",
        "tls",
    )

    def __init__(self, peer: tuple[Any, ...], now: float) -> None:
        self.peer = peer
        self._began = now
        self._connected_at = time.time()
        self.helo: str | None = None
        self.tls: str | None = None
        self.cipher: str | None = None
        self.auth_user: str | None = None
        self.failed_logins = 0
        self.messages: deque[int] = deque(maxlen=_MESSAGES)
        self.exchanges: deque[Exchange] = deque(maxlen=_EXCHANGES)
        self.ended = "open"

    def note(self, now: float, said: bytes | int | str | None, told: bytes | None) -> None:
        """Keep an exchange, or what is short enough of it.

        :param now: The event loop's time.
        :param said: What the client sent; see `Exchange`.
        :param told: The replies.
        """
        if type(said) is bytes and len(said) > _OCTETS:
            said = said[:_OCTETS] + b"..."
        if told is not None and len(told) > _OCTETS:
            told = told[:_OCTETS] + b"..."
        self.exchanges.append((now, said, told))

    def export(self) -> Session:
        """Make it readable."""
        return Session(
            peer=self.peer,
            connected_at=datetime.fromtimestamp(self._connected_at, timezone.utc),
            helo=self.helo,
            tls=self.tls,
            cipher=self.cipher,
            auth_user=self.auth_user,
            failed_logins=self.failed_logins,
            messages=tuple(self.messages),
            dialogue=tuple(line for exchange in self.exchanges for line in self._lines(exchange)),
            ended=self.ended,
        )

    def _lines(self, exchange: Exchange) -> list[Line]:
        now, said, told = exchange
        at = round(now - self._began, 6)
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


class Records:
    """All sessions: those that are open, and the last that were."""

    def __init__(self) -> None:
        self._open: dict[Record, None] = {}
        self._ended: deque[Record] = deque(maxlen=_SESSIONS)

    def open(self, peer: tuple[Any, ...], now: float) -> Record:
        """Begin to take down a session."""
        record = Record(peer, now)
        self._open[record] = None
        return record

    def close(self, record: Record) -> None:
        """Note that a session has ended."""
        if record in self._open:
            del self._open[record]
            self._ended.append(record)

    def clear(self) -> None:
        """Forget what has ended, and what was said so far."""
        self._ended.clear()
        for record in self._open:
            record.exchanges.clear()
            record.messages.clear()
            record.failed_logins = 0

    def export(self) -> list[Session]:
        """Give all sessions, in the order in which the clients connected."""
        records = [*self._ended, *self._open]
        return [record.export() for record in sorted(records, key=lambda r: r._connected_at)]


def _texts(octets: bytes) -> list[str]:
    lines = octets.rstrip(b"\r\n").split(b"\n")
    return [line.rstrip(b"\r")[:_LINE].decode("utf-8", "backslashreplace") for line in lines]
