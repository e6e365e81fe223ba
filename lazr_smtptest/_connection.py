"""A session, from its first octet to its last.  Server process.

What `Server` and its options mean is told to aiosmtpd here, and what happens
to the connection is taken down.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from typing import Any

import aiosmtpd.smtp

from lazr_smtptest._auth import Mechanisms
from lazr_smtptest._esmtp import AUTH_LINE
from lazr_smtptest._terms import Terms

__all__ = ["Connection"]


class Session(aiosmtpd.smtp.Session):
    """What aiosmtpd knows of a session."""

    #: There it is a property that logs that it is not to be used any more,
    #: and aiosmtpd itself uses it at each login.
    login_data: Any = None


@functools.cache
def _names(kind: type) -> list[str]:
    return dir(kind)


class Connection(Mechanisms, aiosmtpd.smtp.SMTP):
    """One session.

    :param terms: What all sessions have in common.
    :param loop: The running loop.
    """

    # A session has these from the moment it is connected.
    session: aiosmtpd.smtp.Session
    envelope: aiosmtpd.smtp.Envelope
    transport: asyncio.Transport

    #: What the coroutine has to wait for before it takes another command.
    _finishing: asyncio.Task[None] | None = None

    #: When the session has been silent for too long, by the loop's clock; and
    #: when the last command came.
    _deadline = _began = 0.0

    def __init__(self, terms: Terms, *, loop: asyncio.AbstractEventLoop) -> None:
        server = terms.server
        # aiosmtpd keeps these two on the class: one session's EHLO would
        # change the limits of all, and every new session would undo that.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        # How much of a line is read before that is given up; RFC 4954, 4 wants
        # an AUTH to have so much.  Content has a limit of its own.
        self.line_length_limit = max(server.line_length_limit, AUTH_LINE + len("\r\n"))
        self._terms = terms
        self._script = terms.script
        self._server = server
        self._logins = server._logins or {}
        offers_auth = "AUTH" in terms.extensions
        super().__init__(
            server,
            data_size_limit=server.data_size_limit if "SIZE" in terms.extensions else None,
            enable_SMTPUTF8="SMTPUTF8" in terms.extensions,
            hostname=server.hostname,
            ident=server.ident,
            tls_context=None if terms.tls_at_once else terms.tls_context,
            require_starttls=server.tls is not None and server.tls.required,
            auth_require_tls=server._needs_tls_for_auth or not offers_auth,
            authenticator=self._check_login,
            loop=loop,
        )
        # Not by way of the constructor, which warns that this is not safe
        # without TLS; in a test it is.
        self._auth_required = server._needs_auth
        self._forget_what_is_hidden()

    def __dir__(self) -> list[str]:
        # aiosmtpd looks for its commands here with every connection, and the
        # names of so many classes take longer to gather than all else it does.
        kind: type = type(self)
        return _names(kind)

    def _forget_what_is_hidden(self) -> None:
        for name in {"AUTH", "HELP", "STARTTLS"} - self._terms.extensions:
            self._smtp_methods.pop(name, None)
        # aiosmtpd takes whatever is named auth_* for a mechanism.
        self._auth_methods = {
            name: found for name, found in self._auth_methods.items() if callable(found.method)
        }
        if self._server._logins is None:
            # Those that are aiosmtpd's are for a handle_AUTH hook.
            for name in ("CRAM-MD5", "XOAUTH2"):
                self._auth_methods.pop(name, None)

    # Connecting.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a session."""
        now = self.loop.time()
        peer = transport.get_extra_info("peername")
        self._record = self._terms.records.open(peer, now)
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is not None:
            self._note_tls(transport)

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        # aiosmtpd only asks whether there is one.
        self._tls_protocol = transport  # type: ignore[assignment]
        names = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")
        self.session.ssl = {name: transport.get_extra_info(name) for name in names}
        record, tls = self._record, transport.get_extra_info("ssl_object")
        if tls is None:  # it has been closed meanwhile
            return
        record.tls = tls.version()
        record.cipher = (tls.cipher() or [None])[0]
        self._note(f"{record.tls} with {record.cipher}")

    def _user(self) -> str | None:
        user = self.session.login_data
        if user is None:
            return None
        return user.decode("utf-8", "replace") if isinstance(user, bytes) else str(user)

    def _create_session(self) -> Session:
        return Session(self.loop)

    # The end of it.

    def abort(self) -> None:
        """Hang up, without another word."""
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            self._note_end("dropped by the server")
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """End a session."""
        if self.transport is None:  # it has ended already
            return
        self._note_end("dropped by the client")
        self._terms.records.close(self._record)
        if self._finishing is not None:
            self._finishing.cancel()
        super().connection_lost(error)

    def eof_received(self) -> bool:
        """Take note that the client says no more."""
        if self._finishing is not None:
            self._finishing.cancel()
        super().eof_received()
        # That cancels the coroutine, which would hang up; but where it has not
        # begun yet, it never will.
        return False

    def _timeout_cb(self) -> None:
        self._note_end("dropped by the server")
        super()._timeout_cb()  # type: ignore[no-untyped-call]

    def _note_end(self, how: str) -> None:
        if self._record.ended == "open":
            self._record.ended = how

    # Between the two.

    def _note(self, said: bytes | int | str | None, told: bytes | None = None) -> None:
        self._record.note(self.loop.time(), said, told)

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Hang up on a session that is silent for so long.

        Each command begins the time anew.  Moving a number is cheaper than
        cancelling a timer and making another, so the timer stays and looks.
        """
        self._began = self.loop.time()
        self._deadline = self._began + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        if self.loop.time() < self._deadline:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)
        else:
            self._timeout_cb()
