"""The commands STARTTLS and AUTH.  Server process."""

from __future__ import annotations

import base64
import logging
from typing import Any

import aiosmtpd.smtp
from aiosmtpd.smtp import MISSING

from lazr_smtptest._hooks import HookFailed
from lazr_smtptest._staged import StagedSMTP

__all__ = ["SecurityCommands"]

_log = logging.getLogger("mail.log")


class SecurityCommands(StagedSMTP):
    """One session, and how it comes to be encrypted and logged in."""

    # TLS.

    @aiosmtpd.smtp.syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Begin TLS, and the session anew (RFC 3207)."""
        if arg:
            await self.push("501 Syntax: STARTTLS")
        elif self._tls_protocol:
            await self.push("503 Error: TLS is in use already")
        elif self._terms.tls_context is None:
            await self.push("454 TLS not available")
        else:
            # What has been sent without waiting could have come from somebody
            # in between, and is not for us (RFC 3207, 4.2).  From here on
            # nothing is read but by start_tls().
            self.transport.pause_reading()
            self._stream._buffer.clear()
            self._mid_line = False
            await self.push("220 Ready to start TLS")
            await self._drop_if_ordered()
            await self._begin_tls()

    async def _begin_tls(self) -> None:
        """Have TLS on this connection from now on, or else close it."""
        context = self._terms.tls_context
        assert context is not None
        # Some may be here before start_tls() returns; if it is too much, the
        # reader must not pause the transport that it is not going to resume.
        self._stream._transport = None
        try:
            transport = await self.loop.start_tls(self.transport, self, context, server_side=True)
        except OSError as error:
            self._note(f"TLS failed: {error}")
            self._note_end("dropped by the client")
            _log.info("%r TLS handshake failed: %s", self.session.peer, error)
            self.connection_lost(error)
            return
        assert transport is not None
        writer: Any = self._writer
        self._stream._transport = writer._transport = self.transport = transport
        # What was said in the clear is forgotten (RFC 3207, 4.2).
        self._set_rset_state()  # type: ignore[no-untyped-call]
        peer = self.session.peer
        self.session = self._create_session()
        self.session.peer = peer
        self._record.helo = self._record.auth_user = None
        self._note_tls(transport)
        hook = self._handle_hooks.get("STARTTLS")
        if hook is not None:
            try:
                self._tls_handshake_okay = hook(self, self.session, self.envelope)
            except Exception as error:
                self._terms.report(f"{type(self._server).__name__}.handle_STARTTLS", error)
                self._tls_handshake_okay = False

    # AUTH.

    @aiosmtpd.smtp.syntax("AUTH <mechanism>")
    async def smtp_AUTH(self, arg: str | None) -> None:
        """Have the client log in."""
        words = (arg or "").split()
        if self.envelope.mail_from:
            await self.push("503 Error: AUTH not allowed in a mail transaction")  # RFC 4954, 4
            return
        if words:
            arg = " ".join([words[0].upper(), *words[1:]])
        try:
            await super().smtp_AUTH(arg)
        except HookFailed:
            raise
        except Exception as error:
            if hasattr(self.event_handler, "handle_exception"):
                raise
            where = f"{type(self._server).__name__}.auth_{words[0]}"
            raise HookFailed(self._terms.report(where, error)) from error
        if self.session.authenticated:
            self._record.auth_user = self._user()

    async def challenge_auth(
        self,
        challenge: str | bytes,
        encode_to_b64: bool = True,
        log_client_response: bool = False,  # noqa: ARG002
    ) -> Any:
        """Ask for more (RFC 4954, 4).

        aiosmtpd's own logs an answer that it cannot decode, and that may be a
        secret.

        :param challenge: What to ask.
        :param encode_to_b64: Whether that has to be encoded.
        :param log_client_response: No answer is logged, whatever this is.
        :return: The answer, decoded; or ``MISSING``, and the client was told.
        """
        if self._is_mute:  # there is no asking without a word
            await self._drop_if_ordered()
        octets = challenge.encode() if isinstance(challenge, str) else challenge
        await self.push(b"334 " + (base64.b64encode(octets) if encode_to_b64 else octets))
        self._is_challenged = True
        try:
            answer = (await self._next_answer()).strip()
        except ValueError:
            await self.push("500 5.5.6 Authentication exchange line is too long")
            return MISSING
        finally:
            self._is_challenged = False
        if answer == b"*":
            await self.push("501 5.7.0 Auth aborted")
            return MISSING
        try:
            return base64.b64decode(answer, validate=True)
        except ValueError:
            await self.push("501 5.5.2 Can't decode base64")
            return MISSING
