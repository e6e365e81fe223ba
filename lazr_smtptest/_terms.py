"""What all sessions of a server have in common.  Server process."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator

from lazr_smtptest._delivery import ACCEPTED_REPLY, Delivery
from lazr_smtptest._record import Records
from lazr_smtptest._replies import with_enhanced_code, without_enhanced_code
from lazr_smtptest._script import Script
from lazr_smtptest.server import EXTENSIONS, Server

__all__ = ["GO_AHEAD", "Terms"]

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"


class Terms:
    """What all sessions of a server have in common.

    :param server: The server, which is aiosmtpd's handler object too.
    :param deliver: What becomes of a message.
    :param report: What becomes of an exception in a hook; gives the reply.
    :param on_rset: Awaited when a client sends RSET.
    :param numbers: Where a message gets its number.
    :param script: What a test has ordered.
    :param records: Where sessions are taken down.
    :param tls_context: For TLS, if there is any.

    :ivar extensions: What the server has, hidden extensions left out.
    """

    def __init__(
        self,
        server: Server,
        *,
        deliver: Delivery,
        report: Callable[[str, BaseException], str],
        on_rset: Callable[[], Awaitable[None]] | None,
        numbers: Iterator[int],
        script: Script,
        records: Records,
        tls_context: ssl.SSLContext | None,
    ) -> None:
        self.server = server
        self.deliver = deliver
        self.report = report
        self.on_rset = on_rset
        self.numbers = numbers
        self.script = script
        self.records = records
        self.tls_context = tls_context
        self.tls_at_once = server.tls is not None and server.tls.mode == "implicit"
        self.extensions = EXTENSIONS - server._hidden_extensions
        if not server._offers_auth:
            self.extensions -= {"AUTH"}
        # What is said on the spot; the coroutine's words come to the same.
        self.replies = {
            "MAIL": self.line("250 OK", "MAIL"),
            "RCPT": self.line("250 OK", "RCPT"),
            "DATA": self.line(GO_AHEAD, "DATA"),
            ACCEPTED_REPLY: self.line(ACCEPTED_REPLY, "EOM"),
        }

    def line(self, text: str, command: str) -> bytes:
        """Give a reply as it is sent."""
        return f"{self.reply(text, command)}\r\n".encode("ascii")

    def reply(self, text: str, command: str) -> str:
        """Give a reply, with an enhanced code if those are promised."""
        if "ENHANCEDSTATUSCODES" not in self.extensions:
            return without_enhanced_code(text)
        return with_enhanced_code(text, command)
