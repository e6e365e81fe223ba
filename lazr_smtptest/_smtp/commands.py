"""The commands that differ from aiosmtpd's.  Server process, on its event loop."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from datetime import datetime, timezone
from typing import Any

import aiosmtpd.smtp
from aiosmtpd.smtp import MISSING

from lazr_smtptest._smtp.connection import HookFailed, SMTPConnection
from lazr_smtptest._smtp.protocol import (
    EXTRA_COMMAND_SIZE,
    GO_AHEAD,
    PLAIN_PATH,
    DataReader,
    VerbatimReply,
    advertised,
    take_parameters,
)
from lazr_smtptest.message import Envelope

_log = logging.getLogger("mail.log")


class SMTPCommands(SMTPConnection):
    """One session, and what it makes of commands."""

    #: The content that is being received; and, where the coroutine waits for
    #: that, what says that it has ended.
    _content: DataReader | None = None
    _content_ended: asyncio.Future[None] | None = None

    # How a session begins.

    @aiosmtpd.smtp.syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str) -> None:
        """Answer EHLO; all lines of the reply in one piece."""
        self._corked = corked = bytearray()
        # The base class adds to these with every EHLO, and never takes away.
        self.command_size_limits.clear()
        for command, size in EXTRA_COMMAND_SIZE.items():
            self.command_size_limits[command] += size
        try:
            await super().smtp_EHLO(hostname)
        finally:
            self._corked = None
        self._transcript.helo = self.session.host_name
        if corked:
            lines = corked[:-2].decode("utf-8", "surrogateescape").split("\r\n")
            await self.push(VerbatimReply("\r\n".join(self._ehlo_reply(lines))))

    def _ehlo_reply(self, lines: list[str]) -> list[str]:
        extensions = self._context.extensions
        if "EHLO" not in self._handle_hooks and lines[0].startswith("250"):
            return advertised(lines, extensions)
        if self._ehlo_hook_ver == "old" and lines[1:]:
            *before, last = lines  # which is the hook's own
            return [f"250-{line[4:]}" for line in advertised(before, extensions)] + [last]
        return lines

    @aiosmtpd.smtp.syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str) -> None:
        await super().smtp_HELO(hostname)
        self._transcript.helo = self.session.host_name

    # TLS.

    @aiosmtpd.smtp.syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Begin TLS, and the session anew (RFC 3207)."""
        if arg:
            await self.push("501 Syntax: STARTTLS")
        elif self._tls_protocol:
            await self.push("503 Error: TLS is in use already")
        elif self.tls_context is None:
            await self.push("454 TLS not available")
        else:
            # What has been sent without waiting could have come from somebody
            # in between, and is not for us (RFC 3207, 4.2).  From here on
            # nothing is read but by start_tls().
            self.transport.pause_reading()
            self._stream._buffer.clear()
            self._mid_line = False
            await self.push("220 Ready to start TLS")
            await self._drop_if_due()
            await self._begin_tls(self.tls_context)

    async def _begin_tls(self, context: ssl.SSLContext) -> None:
        """Use TLS on this connection from now on, or else close it."""
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
        self._transcript.helo = self._transcript.auth_user = None
        self._note_tls(transport)
        hook = self._handle_hooks.get("STARTTLS")
        if hook is not None:
            try:
                self._tls_handshake_okay = hook(self, self.session, self.envelope)
            except Exception as error:
                self._report("handle_STARTTLS", error)
                self._tls_handshake_okay = False

    # Logging in.

    @aiosmtpd.smtp.syntax("AUTH <mechanism>")
    async def smtp_AUTH(self, arg: str | None) -> None:
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
            raise HookFailed(self._report(f"auth_{words[0]}", error)) from error
        if self.session.authenticated:
            self._transcript.auth_user = self._user()

    def _user(self) -> str | None:
        user = self.session.login_data
        if user is None:
            return None
        return user.decode("utf-8", "replace") if isinstance(user, bytes) else str(user)

    async def challenge_auth(
        self,
        challenge: str | bytes,
        encode_to_b64: bool = True,
        log_client_response: bool = False,  # noqa: ARG002
    ) -> Any:
        """Ask for more (RFC 4954, 4).

        aiosmtpd's own logs an answer that it cannot decode, and that may be a
        secret.  Return the answer, decoded; or ``MISSING``, and the client knows.
        """
        if self._is_mute:  # there is no asking without a word
            await self._drop_if_due()
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

    # The envelope.

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        plain = PLAIN_PATH.match(arg)
        if plain and not self.local_part_limit:
            return plain[1], plain[2]
        try:
            return super()._getaddr(arg)
        except (IndexError, ValueError):  # the parser of an older Python stumbles
            return None, None

    @aiosmtpd.smtp.syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        arg = await self._without_parameters("MAIL", arg)
        if arg is not None:
            await super().smtp_MAIL(arg or None)

    @aiosmtpd.smtp.syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take a recipient, unless there are enough (RFC 5321, 4.5.3.1.10)."""
        count = len(self.envelope.rcpt_tos)
        if count >= self.event_handler.recipient_limit:
            await self.push("452 4.5.3 Too many recipients")
            return
        arg = await self._without_parameters("RCPT", arg)
        if arg is None:
            return
        await super().smtp_RCPT(arg or None)
        if self._parameters and len(self.envelope.rcpt_tos) > count:
            by_recipient = vars(self.envelope).setdefault("parameters", {})
            by_recipient[count] = tuple(self._parameters)

    async def _without_parameters(self, command: str, arg: str | None) -> str | None:
        """Set the parameters aside that aiosmtpd does not know.

        Return what is left, or None if the client has been told why not.
        """
        self._parameters = []
        if not arg or not self.session.extended_smtp:
            return arg or ""
        extensions = self._context.extensions
        if self.event_handler._needs_tls_for_auth and not self._tls_protocol:
            extensions = extensions - {"AUTH"}
        try:
            arg, self._parameters = take_parameters(command, arg, extensions)
        except ValueError as error:
            await self.push(str(error))
            return None
        return arg

    # The content.

    @aiosmtpd.smtp.syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        if not await self._may_send_data(arg):
            return
        await self.push(GO_AHEAD)
        if self._is_to_drop:
            if not self._is_mute:  # in the midst of the content, that is
                await self._stream.read(1)
            await self._drop_if_due()
        await self._end_data(await self._receive_content())

    async def _may_send_data(self, arg: str | None) -> bool:
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return False
        if not self.envelope.rcpt_tos:
            await self.push("503 Error: need RCPT command")
        elif arg:
            await self.push("501 Syntax: DATA")
        else:
            return True
        return False

    def _open_content(self) -> DataReader:
        server = self.event_handler
        self._content = DataReader(server.data_size_limit, server.line_length_limit)
        return self._content

    async def _receive_content(self) -> DataReader:
        self._content_ended = self.loop.create_future()
        content = self._open_content()
        # A client that did not wait for the 354 has sent some of it already.
        stream = self._stream
        early = bytes(stream._buffer)
        stream._buffer.clear()
        self._mid_line = False
        stream._maybe_resume_transport()
        if early:
            self.data_received(early)
        try:
            await self._content_ended
        finally:
            self._content = self._content_ended = None
        return content

    async def _end_data(self, content: DataReader) -> None:
        self._command = "EOM"
        self._note(content.size)
        if await self._apply_faults("EOM", self._names("EOM")):
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            return
        try:
            raw = content.take()
        except ValueError as refused:
            status = str(refused)
        else:
            status = await self._deliver(raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(status)

    async def _deliver(self, raw: bytes) -> str:
        if "DATA" in self._handle_hooks:
            self.envelope.content = self.envelope.original_content = raw
            status = await self._call_handler_hook("DATA")
            return "250 OK" if status is MISSING else status
        return await self._context.deliver.eventual(self._make_envelope(), raw)

    def _make_envelope(self) -> Envelope:
        session, envelope = self.session, self.envelope
        peer: Any = session.peer
        sender = envelope.mail_from or ""
        number = next(self._context.numbers)
        self._transcript.messages.append(number)
        parameters = vars(envelope).get("parameters")
        return Envelope(
            sequence=number,
            peer=peer,
            helo=session.host_name,
            mail_from="" if sender == "<>" else sender,
            rcpt_tos=tuple(envelope.rcpt_tos),
            mail_options=tuple(envelope.mail_options),
            rcpt_options=tuple(envelope.rcpt_options),
            smtp_utf8=envelope.smtp_utf8,
            tls=self._transcript.tls,
            auth_user=self._user() if session.authenticated else None,
            received_at=datetime.now(timezone.utc),
            rcpt_parameters=()
            if parameters is None
            else tuple(parameters.get(n, ()) for n in range(len(envelope.rcpt_tos))),
        )

    # How a transaction or a session ends.

    @aiosmtpd.smtp.syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        """End the transaction, and reset the server if that was asked for."""
        if self._context.on_rset and not arg:
            await self._context.on_rset()
        await super().smtp_RSET(arg)

    @aiosmtpd.smtp.syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> None:
        if arg or self._is_mute:
            await super().smtp_QUIT(arg)
            return
        self._note_end("QUIT")
        try:
            await super().smtp_QUIT(arg)
        except Exception:  # of a hook, and the session goes on
            self._transcript.ended = "open"
            raise
