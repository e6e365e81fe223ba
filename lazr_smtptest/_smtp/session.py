"""The usual commands, answered on the spot.  Server process, on its event loop.

Nearly every client says the same in the same words: a MAIL, RCPT or DATA with
nothing unusual about it.  That is answered here, in `data_received`, and not by
waking the session's coroutine; several that arrive together (RFC 2920) are
answered together.  The content, too, is taken as it arrives.

Whatever is not exactly so goes the way it always goes, and gets the same
answer; that way is aiosmtpd's, including its handler hooks.  What is used of
its inside, and of asyncio's, is named in `INSIDES` and held by a test.
"""

from __future__ import annotations

import asyncio
import logging

from lazr_smtptest._smtp.commands import SMTPCommands
from lazr_smtptest._smtp.content import PLAIN_CHUNK, Chunk, ChunkReader, DataReader, chunk_reply
from lazr_smtptest._smtp.context import SessionContext
from lazr_smtptest._smtp.protocol import PLAIN_COMMAND, Refused

#: Attributes that the modules of a session use though they are not documented.
INSIDES = {
    "aiosmtpd.smtp": ["_AuthMechAttr"],
    "aiosmtpd.smtp.SMTP": (
        "_auth_methods _auth_required _call_handler_hook _cb_client_connected _create_envelope "
        "_create_session _ehlo_hook_ver _getaddr _handle_client _handle_hooks "
        "_handler_coroutine _reader "
        "_reset_timeout _set_post_data_state _set_rset_state _smtp_methods _timeout_duration "
        "_timeout_handle _tls_handshake_okay _tls_protocol _writer"
    ).split(),
    "asyncio.StreamReader": ["_buffer", "_maybe_resume_transport", "_transport", "_waiter"],
    "asyncio.StreamWriter": ["_transport"],
}

_log = logging.getLogger("mail.log")


class SMTPSession(SMTPCommands):
    """One session, complete."""

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(context, loop=loop)
        hooks = {"MAIL", "RCPT", "DATA"} & set(self._handle_hooks)
        # A log that wants every command gets them from aiosmtpd.
        self._quick = not hooks and not _log.isEnabledFor(logging.INFO)
        self._quick_options = {"SIZE", "8BITMIME"} <= context.extensions

    # What the client sends.

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; content does not go by lines."""
        while data:
            content = self._content
            if content is not None and not content.ended:
                self._reset_timeout()
                data = content.feed(data)
                if content.ended:
                    self._end_content(content)
                continue
            rest = self._answer_quickly(data) if self._quick else data
            if rest and (self._content is None or self._content.ended):
                if self._offers_chunking and (end := self._begin_quickly(rest)):
                    data = rest[end:]
                    continue
                self._mid_line = not rest.endswith(b"\n")
                super().data_received(rest)
                return
            data = rest

    def _end_content(self, content: DataReader | ChunkReader) -> None:
        if self._content_ended is not None:  # the coroutine waits for it
            if not self._content_ended.done():
                self._content_ended.set_result(None)
            return
        self._content = None
        if self._faults.active:
            # The coroutine waits for a command; it will wait for this first.
            self._finishing = self.loop.create_task(self._finish_slowly(content))
        elif content.is_last:
            self._finish_quickly(content)
        else:
            self._reset_timeout()
            reply = self._context.line(chunk_reply(content.size), "BDAT")
            self.transcript.note(self._began, content.size, reply)
            self._writer.write(reply)

    # The quick way.

    def _answer_quickly(self, data: bytes) -> bytes:
        """Answer commands on the spot, as many as are of that kind.

        Return what is left, about which nothing has been done.
        """
        if self.envelope.chunks is not None or not self._may_answer_quickly():
            return data
        replies, end, count = b"", 0, 0
        while self._content is None and (found := PLAIN_COMMAND.match(data, end)):
            if found.end() - end > self.command_size_limit:
                break
            reply = self._answer(*found.groups())
            if reply is None:
                break
            replies += reply
            end = found.end()
            count += 1
        if not replies:
            return data
        self._reset_timeout()
        rest = data[end:]
        # Content before the 354, or commands together where that is not offered.
        if (rest and self._content) or (count > 1 and not self._may_pipeline()):
            self._notice("early-talk")
        self.transcript.note(self._began, data[:end] if rest else data, replies)
        self._writer.write(replies)
        return rest

    def _may_answer_quickly(self) -> bool:
        stream = self._stream
        # Waiting, with nothing to read, and not for the rest of a line (which
        # is what it does about one that is too long): the coroutine is between
        # commands.
        if stream._waiter is None or stream._buffer or self._mid_line:
            return False
        if self._faults.active or self._finishing is not None:
            return False
        # It waits for something else than a command.
        if self._is_refused or self._is_to_drop or self._is_challenged:
            return False
        # A client that does not read has to wait, and only a coroutine can.
        if self.transport.get_write_buffer_size() or self.transport.is_closing():
            return False
        session = self.session
        return bool(
            session.host_name
            and (session.authenticated or not self._auth_required)
            and self._tls_handshake_okay
            and (self._tls_protocol or not self._context.requires_tls)
        )

    def _answer(
        self, sender: bytes | None, options: bytes | None, recipient: bytes | None
    ) -> bytes | None:
        if sender is not None:
            return self._mail_quickly(sender, options or b"")
        return self._data_quickly() if recipient is None else self._rcpt_quickly(recipient)

    def _mail_quickly(self, sender: bytes, options: bytes) -> bytes | None:
        envelope = self.envelope
        if envelope.mail_from:
            return None
        if options and not (self.session.extended_smtp and self._quick_options):
            return None
        parameters = options.decode("ascii").upper().split()
        names = dict(parameter.split("=") for parameter in parameters)
        limit = self.data_size_limit
        if len(names) < len(parameters) or (limit and int(names.get("SIZE", 0)) > limit):
            return None
        envelope.mail_from = sender.decode("ascii")
        envelope.mail_options.extend(parameters)
        envelope.smtp_utf8 = False
        return self._context.replies["MAIL"]

    def _rcpt_quickly(self, recipient: bytes) -> bytes | None:
        envelope = self.envelope
        limit = self.event_handler.recipient_limit
        if not envelope.mail_from or len(envelope.rcpt_tos) >= limit:
            return None
        envelope.rcpt_tos.append(recipient.decode("ascii"))
        return self._context.replies["RCPT"]

    def _data_quickly(self) -> bytes | None:
        if not self.envelope.rcpt_tos or not self._context.deliver.immediate:
            return None
        self._open_content()
        return self._context.replies["DATA"]

    def _begin_quickly(self, data: bytes) -> int:
        """Begin to read a chunk, if that is what comes; return how long its command is."""
        found = PLAIN_CHUNK.match(data) if self._quick else None
        if (
            found is None
            or not (self._context.deliver.immediate and self._may_pipeline())
            or not self._may_answer_quickly()
        ):
            return 0
        chunk = Chunk(int(found[1]), found[2] is not None, True)
        if self._why_refused(chunk) is not None:
            return 0
        self._content = self._begin_chunk(chunk, None)
        self._reset_timeout()
        self.transcript.note(self._began, found[0], None)
        return found.end()

    def _finish_quickly(self, content: DataReader | ChunkReader) -> None:
        assert self._context.deliver.immediate is not None
        try:
            raw = content.take()
        except Refused as refused:
            status = str(refused)
        else:
            self._notice_octets(content, raw)
            status = self._context.deliver.immediate(self._make_envelope(), raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        self._reset_timeout()
        reply = self._context.replies.get(status) or self._context.line(status, "EOM")
        self.transcript.note(self._began, content.size, reply)
        self._writer.write(reply)

    async def _finish_slowly(self, content: DataReader | ChunkReader) -> None:
        try:
            self._note(content.size)
            if isinstance(content, ChunkReader):
                await self._end_chunk(content)
            else:
                await self._end_data(content)
            await self._drop_if_due()
        finally:
            self._finishing = None
            self._reset_timeout()
