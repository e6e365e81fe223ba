"""The protocol: aiosmtpd's, with another way to read a message.

Server process.  Everything here runs on its event loop.  aiosmtpd reads the
content line by line; `Content` takes it in the pieces in which it arrives.
Addresses that need no parser skip it.  All else is aiosmtpd's, including its
handler hooks.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import aiosmtpd.smtp

from lazr_smtptest._delivery import Delivery
from lazr_smtptest.message import Envelope
from lazr_smtptest.server import Server

__all__ = ["SMTP", "Content"]

_END = b"\r\n.\r\n"

#: ``<local-part@domain>`` where both are dot-atoms of ASCII letters, digits
#: and the commonest specials: these mean the same to every parser.  Behind
#: it, parameters.
_PLAIN_PATH = re.compile(
    r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"
    r"((?: [^\r\n()]*)?)\Z"
)


class Content:
    """The octets from DATA's 354 to the end of data, as they come.

    The end is CRLF, dot, CRLF, and nothing else (RFC 5321, 4.1.1.4): a bare
    CR or LF is an octet like any other, so there is nothing to smuggle with.
    No more than the size limit is kept in memory.

    :param size_limit: The octets that are allowed, or None.
    :param line_limit: The octets that a line may have, CRLF included.
    """

    def __init__(self, size_limit: int | None, line_limit: int) -> None:
        self._size_limit = size_limit
        self._line_limit = line_limit
        # The CRLF that ended the DATA command also begins the shortest end
        # of data there is.
        self._octets = bytearray(b"\r\n")
        self._too_much = False
        self.ended = False

    def feed(self, piece: bytes) -> bytes:
        """Take a piece.

        :param piece: What has arrived.
        :return: What lies behind the end of data, when that is in; until
            then, nothing.
        """
        octets = self._octets
        start = max(0, len(octets) - len(_END) + 1)
        octets += piece
        end = octets.find(_END, start)
        if end < 0:
            if self._size_limit is not None and len(octets) > self._size_limit + 2 * len(_END):
                self._too_much = True
                del octets[: 1 - len(_END)]
            return b""
        self.ended = True
        rest = bytes(octets[end + len(_END) :])
        del octets[end + 2 :]
        return rest

    def take(self) -> bytes:
        """Give the content, with its transparency undone (RFC 5321, 4.5.2).

        :return: The octets that the client meant.
        :raises ValueError: There were too many, or a line was too long; the
            text is the reply.
        """
        octets = self._octets
        size = len(octets) - 2
        if self._too_much or (self._size_limit is not None and size > self._size_limit):
            raise ValueError("552 Error: Too much mail data")
        if self._has_long_line():
            raise ValueError("500 Line too long (see RFC5321 4.5.3.1.6)")
        if octets.find(b"\r\n.") >= 0:
            octets = octets.replace(b"\r\n.", b"\r\n")
        with memoryview(octets) as view:
            return bytes(view[2:])

    def _has_long_line(self) -> bool:
        """Look for a line over the limit, leaping from line end to line end.

        As long as some line ends within the next so many octets, none of the
        lines in them was too long; the last of those ends is the next start.
        """
        octets, limit = self._octets, self._line_limit
        position, size = 2, len(octets)
        while size - position > limit:
            found = octets.rfind(b"\r\n", position, position + limit)
            if found < 0:
                return True
            position = found + 2
        return False


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
        self._content_ended: asyncio.Future[bytes] | None = None
        super().__init__(
            server,
            data_size_limit=server.data_size_limit,
            enable_SMTPUTF8=True,
            hostname=server.hostname,
            ident=server.ident,
            loop=loop,
        )

    def abort(self) -> None:
        """Hang up, without another word."""
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; during DATA it does not go by lines."""
        content = self._content
        if content is None or content.ended:
            super().data_received(data)
            return
        rest = content.feed(data)
        if content.ended:
            self._content_is_whole(rest)

    def _content_is_whole(self, rest: bytes) -> None:
        assert self._content_ended is not None
        if rest:
            self._reader.feed_data(rest)
        if not self._content_ended.done():
            self._content_ended.set_result(b"")

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        plain = _PLAIN_PATH.match(arg)
        if plain and not self.local_part_limit:
            return plain[1], plain[2]
        return super()._getaddr(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take a recipient, unless there are enough (RFC 5321, 4.5.3.1.10)."""
        if len(self.envelope.rcpt_tos) >= self._server.recipient_limit:
            await self.push("452 4.5.3 Too many recipients")
            return
        await super().smtp_RCPT(arg)

    async def smtp_RSET(self, arg: str | None) -> None:
        """End the transaction, and reset the server if that was asked for."""
        if self._on_rset and not arg:
            await self._on_rset()
        await super().smtp_RSET(arg)

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
        return await self._deliver(self._seal(), raw)

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
