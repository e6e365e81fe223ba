"""What all sessions of a server have in common.  Server process."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from lazr_smtptest._smtp.auth import AuthMechanisms
from lazr_smtptest._smtp.faultscript import FaultScript, FaultScripts
from lazr_smtptest._smtp.protocol import (
    ACCEPTED_REPLY,
    GO_AHEAD,
    GREETINGS,
    with_enhanced_code,
    without_enhanced_code,
)
from lazr_smtptest._smtp.transcript import Transcript, Transcripts
from lazr_smtptest._wire.rules import missing_stages
from lazr_smtptest.message import Envelope
from lazr_smtptest.server import EXTENSIONS, Server


class Delivery(NamedTuple):
    """What becomes of a message: takes envelope and content, returns the reply."""

    eventual: Callable[[Envelope, bytearray], Awaitable[str]]
    immediate: Callable[[Envelope, bytearray], str] | None = None  # where it takes no waiting


@dataclass(kw_only=True)
class SessionContext:
    """What all sessions of a server have in common."""

    server: Server
    deliver: Delivery
    report: Callable[[str, BaseException], str]  # that a hook raised; returns the reply
    on_rset: Callable[[], Awaitable[None]] | None
    numbers: Iterator[int]  # of messages
    faults: FaultScript | FaultScripts
    transcripts: Transcripts
    tls_context: ssl.SSLContext | None
    run: Callable[..., Awaitable[Any]] = asyncio.to_thread  # a function that may block

    def __post_init__(self) -> None:
        server = self.server
        self.tls_at_once = server.tls is not None and server.tls.mode == "implicit"
        # Without a proxy's header before it, that is.
        self.tls_before_all = self.tls_at_once and not server.proxy_protocol
        self.mechanisms = AuthMechanisms(server, self.run, self.report)
        self.extensions = EXTENSIONS - server._hidden_extensions | server._offered_extensions
        if not server._offers_auth():
            self.extensions -= {"AUTH"}
        self.missing_commands = {"AUTH", "HELP", "STARTTLS"} - self.extensions
        # BDAT is known, and then it is refused (RFC 5321, 4.2.4).
        self.missing_commands |= missing_stages(server).keys() - {"BDAT"}
        #: Commands whose replies have no enhanced code (RFC 2034, 4); or the greeting.
        self.uncoded = {"", *GREETINGS} - self.missing_commands
        self.requires_tls = server.tls is not None and server.tls.required
        if server.lmtp:  # what is said on the spot is one reply
            self.deliver = self.deliver._replace(immediate=None)
        # What is said on the spot; the coroutine's words come to the same.
        self.replies = {
            "MAIL": self.line("250 OK", "MAIL"),
            "RCPT": self.line("250 OK", "RCPT"),
            "DATA": self.line(GO_AHEAD, "DATA"),
            ACCEPTED_REPLY: self.line(ACCEPTED_REPLY, "EOM"),
        }

    @functools.cached_property
    def hooks(self) -> SimpleNamespace:
        """What aiosmtpd looks for among all attributes of a server, with every connection."""
        names = [name for name in dir(self.server) if name.startswith(("auth_", "handle_"))]
        return SimpleNamespace(**{name: getattr(self.server, name) for name in names})

    def is_full(self, newest: Transcript) -> bool:
        """Whether as many others are connected already as may be."""
        most = self.server.max_connections
        return most is not None and self.transcripts.count_before(newest) >= most

    def line(self, text: str, command: str) -> bytes:
        return f"{self.reply(text, command)}\r\n".encode("ascii")

    def reply(self, text: str, command: str) -> str:
        """Return a reply, with an enhanced code if those are promised."""
        if "ENHANCEDSTATUSCODES" not in self.extensions:
            return without_enhanced_code(text)
        return with_enhanced_code(text, command)
