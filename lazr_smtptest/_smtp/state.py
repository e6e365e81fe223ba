"""What aiosmtpd knows of a session and a transaction, and what it reads from.  Server process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiosmtpd.smtp

from lazr_smtptest._smtp.content import ChunkReader


class CommandReader(NamedTuple):
    """What aiosmtpd reads from, so that commands come by way of us."""

    read: Callable[[int], Awaitable[bytes]]  # the stream's own
    readuntil: Callable[[], Awaitable[bytes]]  # the next command's line
    readline: Callable[[], Awaitable[bytes]]  # the next line that answers a challenge


class SessionState(aiosmtpd.smtp.Session):
    """What aiosmtpd knows of a session."""

    #: There it is a property that logs that it is not to be used any more,
    #: and aiosmtpd itself uses it at each login.
    login_data: Any = None


class TransactionState(aiosmtpd.smtp.Envelope):
    """What aiosmtpd knows of a transaction."""

    #: What reads its content, if that comes in chunks.
    chunks: ChunkReader | None = None
