"""What a client said and was told, for a test to read.  Both processes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

__all__ = ["Line", "Session"]


class Line(NamedTuple):
    """One line of a session.

    :ivar at: Seconds since the client connected.
    :ivar speaker: ``"C"`` for the client, ``"S"`` for the server, and ``"*"``
        for a remark on what is no line: content, TLS, a secret.
    :ivar text: The line, without its end.
    """

    at: float
    speaker: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.speaker} {self.text}"


class Session(NamedTuple):
    """One connection of a client.

    :ivar peer: The client's socket address.
    :ivar connected_at: When it connected; UTC.
    :ivar helo: What it gave with EHLO or HELO last, or None.
    :ivar tls: The TLS version, such as ``"TLSv1.3"``, or None.
    :ivar cipher: The name of the TLS cipher, or None.
    :ivar auth_user: The name that it authenticated with, or None.
    :ivar failed_logins: How often it failed to.
    :ivar messages: The `Envelope.sequence` of each message; the last 100.
    :ivar dialogue: Each `Line`, without secrets and without the content of
        messages; the last 100 exchanges.
    :ivar ended: ``"QUIT"``, ``"dropped by the server"``, ``"dropped by the
        client"``, or ``"open"`` if it has not.
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
