"""The command DATA, and what becomes of the content.  Server process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import aiosmtpd.smtp
from aiosmtpd.smtp import MISSING

from lazr_smtptest._content import Content
from lazr_smtptest._staged import StagedSMTP
from lazr_smtptest._terms import GO_AHEAD
from lazr_smtptest.message import Envelope

__all__ = ["DataCommands"]


class DataCommands(StagedSMTP):
    """One session, and how it takes a message's content."""

    #: The content that is being received.
    _content: Content | None = None
    _content_ended: asyncio.Future[None] | None = None

    @aiosmtpd.smtp.syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        """Take the content, and have it delivered."""
        if not await self._may_send_data(arg):
            return
        await self.push(GO_AHEAD)
        if self._is_to_drop:
            if not self._is_mute:  # in the midst of the content, that is
                await self._stream.read(1)
            await self._drop_if_ordered()
        await self._end_data(await self._receive_content())

    async def _end_data(self, content: Content) -> None:
        self._command = "EOM"
        self._note(content.size)
        if await self._is_struck("EOM", self._names("EOM")):
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            return
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
        content = Content(self._server.data_size_limit, self._server.line_length_limit)
        self._content_ended = self.loop.create_future()
        self._content = content
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
            self._content = None
        return content

    async def _hand_over(self, raw: bytes) -> str:
        if "DATA" in self._handle_hooks:
            self.envelope.content = self.envelope.original_content = raw
            status = await self._call_handler_hook("DATA")
            return "250 OK" if status is MISSING else status
        if self._terms.deliver.immediate:
            return self._terms.deliver.immediate(self._seal(), raw)
        return await self._terms.deliver.eventual(self._seal(), raw)

    def _seal(self) -> Envelope:
        session, envelope = self.session, self.envelope
        peer: Any = session.peer
        sender = envelope.mail_from or ""
        number = next(self._terms.numbers)
        self._record.messages.append(number)
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
            tls=self._record.tls,
            auth_user=self._user() if session.authenticated else None,
            received_at=datetime.now(timezone.utc),
            rcpt_parameters=()
            if parameters is None
            else tuple(parameters.get(n, ()) for n in range(len(envelope.rcpt_tos))),
        )
