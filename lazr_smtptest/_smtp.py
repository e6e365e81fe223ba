"""The protocol: aiosmtpd's, with another way to read a message.

Server process.  Everything here runs on its event loop.  Three things make it
faster than its base class:

- The content is read by `Content`, in the pieces in which it arrives.
- Addresses that need no parser skip it.
- What nearly every client says, it says in the same words, and waits for the
  answer: a MAIL, RCPT or DATA with nothing unusual about it, alone in its
  piece.  That is answered on the spot, in `data_received`, and not by waking
  the session's coroutine.

Whatever is not exactly so goes the way it always goes, and gets the same
answer; that way is aiosmtpd's, including its handler hooks.  What is used of
its inside, and of asyncio's, is named in `INSIDES` and held by a test.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import aiosmtpd.smtp

from lazr_smtptest._content import Content
from lazr_smtptest._delivery import Delivery
from lazr_smtptest.message import Envelope
from lazr_smtptest.server import Server

__all__ = ["INSIDES", "SMTP"]

#: Attributes that this module uses though they are not documented.
INSIDES = {
    "aiosmtpd.smtp.SMTP": {
        "_auth_required",
        "_call_handler_hook",
        "_getaddr",
        "_handle_hooks",
        "_reader",
        "_reset_timeout",
        "_set_post_data_state",
        "_timeout_cb",
        "_timeout_duration",
        "_timeout_handle",
        "_tls_handshake_okay",
        "_tls_protocol",
        "_writer",
    },
    "asyncio.StreamReader": {"_buffer", "_maybe_resume_transport", "_waiter"},
}

_log = logging.getLogger("mail.log")

#: ``<local-part@domain>`` where both are dot-atoms of ASCII letters, digits
#: and the commonest specials: these mean the same to every parser.  Behind
#: it, parameters.
_PLAIN = r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"
_PLAIN_PATH = re.compile(_PLAIN + r"((?: [^\r\n()]*)?)\Z")

#: The commands that are answered on the spot, each whole.
_PLAIN_COMMAND = re.compile(
    (
        rf"(?:MAIL FROM:{_PLAIN}((?: SIZE=[0-9]{{1,18}}| BODY=8BITMIME)*)"
        rf"|RCPT TO:{_PLAIN}|DATA)\r\n\Z"
    ).encode(),
    re.IGNORECASE,
)


class HookFailed(Exception):
    """A hook raised, and the test process has been told.

    :ivar reply: What to tell the client.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class SMTP(aiosmtpd.smtp.SMTP):
    """One session.

    :param server: The server, which is aiosmtpd's handler object too.
    :param deliver: What becomes of a message.
    :param report: What becomes of an exception in a hook; gives the reply.
    :param on_rset: Awaited when a client sends RSET.
    :param numbers: Where a message gets its number; all sessions share it.
    :param loop: The running loop.
    """

    # A session has these from the moment it is connected.
    session: aiosmtpd.smtp.Session
    envelope: aiosmtpd.smtp.Envelope
    transport: asyncio.Transport

    def __init__(
        self,
        server: Server,
        *,
        deliver: Delivery,
        report: Callable[[str, BaseException], str],
        on_rset: Callable[[], Any] | None,
        numbers: Iterator[int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # aiosmtpd keeps these two on the class: one session's EHLO would
        # change the limits of all, and every new session would undo that.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        self.line_length_limit = server.line_length_limit
        self._server = server
        self._deliver = deliver
        self._report = report
        self._on_rset = on_rset
        self._numbers = numbers
        self._content: Content | None = None
        self._content_ended: asyncio.Future[None] | None = None
        self._content_is_quick = False
        self._corked: bytearray | None = None
        self._deadline = 0.0
        self._mid_line = False
        super().__init__(
            server,
            data_size_limit=server.data_size_limit,
            enable_SMTPUTF8=True,
            hostname=server.hostname,
            ident=server.ident,
            loop=loop,
        )
        hooks = {"MAIL", "RCPT", "DATA"} & set(self._handle_hooks)
        # A log that wants every command gets them from aiosmtpd.
        self._quick = not hooks and not _log.isEnabledFor(logging.INFO)

    def abort(self) -> None:
        """Hang up, without another word."""
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; during DATA it does not go by lines."""
        content = self._content
        if content is None or content.ended:
            if not (self._quick and self._answered(data)):
                self._mid_line = not data.endswith(b"\n")
                super().data_received(data)
            return
        rest = content.feed(data)
        if not content.ended:
            return
        if self._content_is_quick:
            self._finish_quickly(content)
        elif self._content_ended is not None and not self._content_ended.done():
            self._content_ended.set_result(None)
        if rest:
            self.data_received(rest)

    # The quick way.

    def _answered(self, data: bytes) -> bool:
        """Answer a command on the spot, if it is one of those.

        :param data: What has just arrived.
        :return: Whether it was; if not, nothing has been done about it.
        """
        reader: Any = self._reader
        # Waiting, with nothing to read, and not for the rest of a line (which
        # is what it does about one that is too long): the coroutine is between
        # commands, or in the midst of an AUTH, whose answers are never these.
        if reader._waiter is None or reader._buffer or self._mid_line:
            return False
        if len(data) > self.command_size_limit:
            return False
        # A client that does not read has to wait, and only a coroutine can.
        if self.transport.get_write_buffer_size():
            return False
        command = _PLAIN_COMMAND.match(data)
        if command is None or not self._may_take_mail():
            return False
        sender, options, recipient = command.groups()
        if sender is not None:
            reply = self._mail_quickly(sender, options)
        elif recipient is not None:
            reply = self._rcpt_quickly(recipient)
        else:
            reply = self._data_quickly()
        if reply is None:
            return False
        self._reset_timeout()
        self._writer.write(reply)
        return True

    def _may_take_mail(self) -> bool:
        session = self.session
        return bool(
            session.host_name
            and (session.authenticated or not self._auth_required)
            and self._tls_handshake_okay
            and (self._tls_protocol or not self.require_starttls)
        )

    def _mail_quickly(self, sender: bytes, options: bytes) -> bytes | None:
        envelope = self.envelope
        if envelope.mail_from or (options and not self.session.extended_smtp):
            return None
        parameters = options.decode("ascii").upper().split()
        names = dict(parameter.split("=") for parameter in parameters)
        limit = self.data_size_limit
        if len(names) < len(parameters) or (limit and int(names.get("SIZE", 0)) > limit):
            return None
        envelope.mail_from = sender.decode("ascii")
        envelope.mail_options.extend(parameters)
        envelope.smtp_utf8 = False
        return b"250 OK\r\n"

    def _rcpt_quickly(self, recipient: bytes) -> bytes | None:
        envelope = self.envelope
        if not envelope.mail_from or len(envelope.rcpt_tos) >= self._server.recipient_limit:
            return None
        envelope.rcpt_tos.append(recipient.decode("ascii"))
        return b"250 OK\r\n"

    def _data_quickly(self) -> bytes | None:
        if not self.envelope.rcpt_tos or not self._deliver.immediate:
            return None
        self._content = Content(self.data_size_limit, self.line_length_limit)
        self._content_is_quick = True
        return b"354 End data with <CR><LF>.<CR><LF>\r\n"

    def _finish_quickly(self, content: Content) -> None:
        self._content = None
        self._content_is_quick = False
        assert self._deliver.immediate is not None
        try:
            raw = content.take()
        except ValueError as refused:
            status = str(refused)
        else:
            status = self._deliver.immediate(self._seal(), raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        self._reset_timeout()
        self._writer.write(status.encode("ascii") + b"\r\n")

    # What is cheaper than in the base class.

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Hang up on a session that is silent for so long.

        Each command begins the time anew.  Moving a number is cheaper than
        cancelling a timer and making another, so the timer stays and looks.
        """
        self._deadline = self.loop.time() + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        if self.loop.time() < self._deadline:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)
        else:
            self._timeout_cb()  # type: ignore[no-untyped-call]

    async def push(self, status: str | bytes) -> None:
        """Send a reply, or add it to those that are sent together."""
        line = status.encode("utf-8") if isinstance(status, str) else status
        if self._corked is None:
            await super().push(line)
        else:
            self._corked += line + b"\r\n"

    @aiosmtpd.smtp.syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str) -> None:
        """Answer EHLO; all lines of the reply in one piece."""
        self._corked = corked = bytearray()
        # The base class adds to these with every EHLO, and never takes away.
        self.command_size_limits.clear()
        try:
            await super().smtp_EHLO(hostname)
        finally:
            self._corked = None
        if corked:
            await super().push(bytes(corked[:-2]))

    # What differs from the base class.

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        plain = _PLAIN_PATH.match(arg)
        if plain and not self.local_part_limit:
            return plain[1], plain[2]
        return super()._getaddr(arg)

    @aiosmtpd.smtp.syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take a recipient, unless there are enough (RFC 5321, 4.5.3.1.10)."""
        if len(self.envelope.rcpt_tos) >= self._server.recipient_limit:
            await self.push("452 4.5.3 Too many recipients")
            return
        await super().smtp_RCPT(arg)

    @aiosmtpd.smtp.syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        """End the transaction, and reset the server if that was asked for."""
        if self._on_rset and not arg:
            await self._on_rset()
        await super().smtp_RSET(arg)

    @aiosmtpd.smtp.syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        """Take the content, and have it delivered."""
        if not await self._may_send_data(arg):
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        content = await self._receive_content()
        try:
            raw = content.take()
        except ValueError as refused:
            status = str(refused)
        else:
            status = await self._hand_over(raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(status)

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

    async def _receive_content(self) -> Content:
        content = Content(self.data_size_limit, self.line_length_limit)
        self._content_ended = self.loop.create_future()
        self._content = content
        # A client that did not wait for the 354 has sent some of it already.
        reader: Any = self._reader
        early = bytes(reader._buffer)
        reader._buffer.clear()
        self._mid_line = False
        reader._maybe_resume_transport()
        if early:
            self.data_received(early)
        try:
            await self._content_ended
        finally:
            self._content = None
        return content

    async def _hand_over(self, raw: bytes) -> str:
        if "DATA" in self._handle_hooks:
            self.envelope.content = self.envelope.original_content = raw
            status = await self._call_handler_hook("DATA")
            return "250 OK" if status is aiosmtpd.smtp.MISSING else status
        if self._deliver.immediate:
            return self._deliver.immediate(self._seal(), raw)
        return await self._deliver.eventual(self._seal(), raw)

    def _seal(self) -> Envelope:
        session, envelope = self.session, self.envelope
        peer: Any = session.peer
        sender = envelope.mail_from or ""
        return Envelope(
            sequence=next(self._numbers),
            peer=peer,
            helo=session.host_name,
            mail_from="" if sender == "<>" else sender,
            rcpt_tos=tuple(envelope.rcpt_tos),
            mail_options=tuple(envelope.mail_options),
            rcpt_options=tuple(envelope.rcpt_options),
            smtp_utf8=envelope.smtp_utf8,
            tls=None,
            auth_user=None,
            received_at=datetime.now(timezone.utc),
        )

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        try:
            return await super()._call_handler_hook(command, *args)
        except Exception as error:
            if hasattr(self.event_handler, "handle_exception"):
                raise  # that is aiosmtpd's own way to deal with it
            where = f"{type(self._server).__name__}.handle_{command}"
            raise HookFailed(self._report(where, error)) from error

    async def handle_exception(self, error: Exception) -> str:
        """Say what to reply when a command raised."""
        if hasattr(self.event_handler, "handle_exception"):
            return await super().handle_exception(error)
        if isinstance(error, HookFailed):
            return error.reply
        return await super().handle_exception(error)
