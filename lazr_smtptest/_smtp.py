"""What is answered on the spot.  Server process, on its event loop.

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
import re

from lazr_smtptest._commands import PLAIN, Commands
from lazr_smtptest._content import Content
from lazr_smtptest._terms import Terms

__all__ = ["INSIDES", "SMTP"]


#: Attributes that the modules of a session use though they are not documented.
INSIDES = {
    "aiosmtpd.smtp.SMTP": {
        "_auth_methods",
        "_auth_required",
        "_call_handler_hook",
        "_cb_client_connected",
        "_ehlo_hook_ver",
        "_getaddr",
        "_handle_client",
        "_handle_hooks",
        "_reader",
        "_reset_timeout",
        "_set_post_data_state",
        "_set_rset_state",
        "_smtp_methods",
        "_timeout_cb",
        "_timeout_duration",
        "_timeout_handle",
        "_tls_handshake_okay",
        "_tls_protocol",
        "_writer",
    },
    "asyncio.StreamReader": {"_buffer", "_maybe_resume_transport", "_transport", "_waiter"},
    "asyncio.StreamWriter": {"_transport"},
}

_log = logging.getLogger("mail.log")

#: The commands that are answered on the spot.
_PLAIN_COMMAND = re.compile(
    (
        rf"(?:MAIL FROM:{PLAIN}((?: SIZE=[0-9]{{1,18}}| BODY=8BITMIME)*)"
        rf"|RCPT TO:{PLAIN}|DATA)\r\n"
    ).encode(),
    re.IGNORECASE,
)


class SMTP(Commands):
    """One session, complete.

    :param terms: What all sessions have in common.
    :param loop: The running loop.
    """

    _content_is_quick = False

    def __init__(self, terms: Terms, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(terms, loop=loop)
        hooks = {"MAIL", "RCPT", "DATA"} & set(self._handle_hooks)
        # A log that wants every command gets them from aiosmtpd.
        self._quick = not hooks and not _log.isEnabledFor(logging.INFO)
        self._quick_options = {"SIZE", "8BITMIME"} <= terms.extensions

    # What the client sends.

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; during DATA it does not go by lines."""
        while data:
            content = self._content
            if content is not None and not content.ended:
                data = content.feed(data)
                if content.ended:
                    self._end_content(content)
                continue
            rest = self._answer_quickly(data) if self._quick else data
            if rest and (self._content is None or self._content.ended):
                self._mid_line = not rest.endswith(b"\n")
                super().data_received(rest)
                return
            data = rest

    def _end_content(self, content: Content) -> None:
        if not self._content_is_quick:
            if self._content_ended is not None and not self._content_ended.done():
                self._content_ended.set_result(None)
        elif self._script.active:
            self._content = None
            self._content_is_quick = False
            # The coroutine waits for a command; it will wait for this first.
            self._finishing = self.loop.create_task(self._finish_slowly(content))
        else:
            self._finish_quickly(content)

    # The quick way.

    def _answer_quickly(self, data: bytes) -> bytes:
        """Answer commands on the spot, as many as are of that kind.

        :param data: What has just arrived.
        :return: What is left of it, about which nothing has been done.
        """
        if not self._may_answer_quickly():
            return data
        replies, end = b"", 0
        while self._content is None and (found := _PLAIN_COMMAND.match(data, end)):
            if found.end() - end > self.command_size_limit:
                break
            reply = self._answer(*found.groups())
            if reply is None:
                break
            replies += reply
            end = found.end()
        if not replies:
            return data
        self._reset_timeout()
        rest = data[end:]
        self._record.note(self._began, data[:end] if rest else data, replies)
        self._writer.write(replies)
        return rest

    def _may_answer_quickly(self) -> bool:
        stream = self._stream
        # Waiting, with nothing to read, and not for the rest of a line (which
        # is what it does about one that is too long): the coroutine is between
        # commands.
        if stream._waiter is None or stream._buffer or self._mid_line:
            return False
        if self._script.active or self._finishing is not None or self._is_busy:
            return False
        # A client that does not read has to wait, and only a coroutine can.
        if self.transport.get_write_buffer_size() or self.transport.is_closing():
            return False
        return self._may_take_mail()

    @property
    def _is_busy(self) -> bool:
        """Whether the coroutine waits for something else than a command."""
        return self._is_refused or self._is_to_drop or self._is_challenged

    def _may_take_mail(self) -> bool:
        session = self.session
        return bool(
            session.host_name
            and (session.authenticated or not self._auth_required)
            and self._tls_handshake_okay
            and (self._tls_protocol or not self.require_starttls)
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
        return self._terms.replies["MAIL"]

    def _rcpt_quickly(self, recipient: bytes) -> bytes | None:
        envelope = self.envelope
        if not envelope.mail_from or len(envelope.rcpt_tos) >= self._server.recipient_limit:
            return None
        envelope.rcpt_tos.append(recipient.decode("ascii"))
        return self._terms.replies["RCPT"]

    def _data_quickly(self) -> bytes | None:
        if not self.envelope.rcpt_tos or not self._terms.deliver.immediate:
            return None
        self._content = Content(self._server.data_size_limit, self._server.line_length_limit)
        self._content_is_quick = True
        return self._terms.replies["DATA"]

    def _finish_quickly(self, content: Content) -> None:
        self._content = None
        self._content_is_quick = False
        assert self._terms.deliver.immediate is not None
        try:
            raw = content.take()
        except ValueError as refused:
            status = str(refused)
        else:
            status = self._terms.deliver.immediate(self._seal(), raw)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        self._reset_timeout()
        reply = self._terms.replies.get(status) or self._terms.line(status, "EOM")
        self._record.note(self._began, content.size, reply)
        self._writer.write(reply)

    async def _finish_slowly(self, content: Content) -> None:
        try:
            await self._end_data(content)
            await self._drop_if_ordered()
        finally:
            self._finishing = None
