"""The commands that differ from aiosmtpd's.  Server process, on its event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import aiosmtpd.smtp
from aiosmtpd.smtp import MISSING

from lazr_smtptest._smtp.connection import LAST_WORDS, HookFailed, SMTPConnection
from lazr_smtptest._smtp.content import (
    Chunk,
    ChunkReader,
    DataReader,
    InterruptedReader,
    chunk_reply,
    parse_chunk,
)
from lazr_smtptest._smtp.protocol import (
    EXTRA_COMMAND_SIZE,
    GO_AHEAD,
    Refused,
    VerbatimReply,
    as_recorded,
    check_parameters,
    one_for_each,
    parse_path,
)
from lazr_smtptest._smtp.tls_transport import tls_failure
from lazr_smtptest._util import time_of_day, utc
from lazr_smtptest._wire.rules import Rule
from lazr_smtptest.message import Envelope

_log = logging.getLogger("mail.log")

#: Why what comes behind the end is not kept; it is shown nowhere.
_DROPPED = "dropped"

#: Said of a chunk whose size is not read; then the connection is closed, as by Postfix.
_NO_SIZE = "521 5.5.4 Syntax: BDAT size [LAST]"


class SMTPCommands(SMTPConnection):
    """One session, and what it makes of commands."""

    #: A chunk that has come, and that the session has not accepted.
    _chunk: ChunkReader | None = None

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
        self.transcript.helo = self.session.host_name
        if corked:
            lines = corked[:-2].decode("utf-8", "surrogateescape").split("\r\n")
            await self.push(VerbatimReply("\r\n".join(self._ehlo_reply(lines))))

    def _ehlo_reply(self, lines: list[str]) -> list[str]:
        if "EHLO" not in self._handle_hooks and lines[0].startswith("250"):
            return self._advertised(lines)
        if self._ehlo_hook_ver == "old" and lines[1:]:
            *before, last = lines  # which is the hook's own
            return [f"250-{line[4:]}" for line in self._advertised(before)] + [last]
        return lines

    @aiosmtpd.smtp.syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str) -> None:
        """Answer LHLO, which is what EHLO is in SMTP (RFC 2033, 4.1)."""
        if hostname:
            await self.smtp_EHLO(hostname)
        else:
            await self.push("501 Syntax: LHLO hostname")

    async def check_helo_needed(self, helo: str = "HELO") -> bool:
        needed: bool = await super().check_helo_needed("LHLO" if self.event_handler.lmtp else helo)
        return needed

    @aiosmtpd.smtp.syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str) -> None:
        await super().smtp_HELO(hostname)
        self.transcript.helo = self.session.host_name

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
            # in between, and is not for us (RFC 3207, 4.2).
            self.transport.pause_reading()
            self._stream._buffer.clear()
            self._mid_line = False
            await self.push("220 Ready to start TLS")
            await self._drop_if_due()
            await self._begin_tls()
            self._tls_handshake_okay = self._is_tls_wanted()

    async def _begin_tls(self, octets: bytes = b"") -> None:
        """Use TLS from now on; the octets are what the client has sent of it already."""
        if self._is_at_eof:
            self._note(f"TLS failed: {tls_failure(None)}")
            await self._end_with_client()
        wire, writer = self.transport, self._writer
        assert isinstance(writer, asyncio.StreamWriter)
        self._stream._buffer.clear()
        transport = self._secure(wire)
        self._stream._transport = writer._transport = self.transport = transport  # type: ignore[attr-defined]
        wire.resume_reading()
        if octets:
            transport.data_received(octets)
        assert self._handshake is not None
        self._reset_timeout()
        await self._handshake

    def _is_tls_wanted(self) -> bool:
        """Ask the server's own hook, if it has one."""
        hook = self._handle_hooks.get("STARTTLS")
        try:
            return hook is None or hook(self, self.session, self.envelope)
        except Exception as error:
            self._report("handle_STARTTLS", error)
            return False

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
            self.transcript.auth_user = self._user()

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
        # For VRFY, where brackets may be there or not, and no keyword is.
        try:
            path, rest = parse_path("RCPT", f"TO:{arg}")
        except Refused:
            return None, None
        return path, rest

    @aiosmtpd.smtp.syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed("MAIL"):
            return
        envelope = self.envelope
        if envelope.mail_from:
            await self.push("503 Error: nested MAIL command")
            return
        try:
            path, parameters, values = self._parse("MAIL", arg)
            if (limit := self.data_size_limit) and int(values.get("SIZE") or 0) > limit:
                raise Refused("552 Error: message size exceeds fixed maximum message size")
        except Refused as refused:
            await self.push(str(refused))
            return
        envelope.smtp_utf8 = "SMTPUTF8" in values
        # aiosmtpd, and its hooks, have a null path like this.
        path = path or "<>"
        status = await self._call_handler_hook("MAIL", path, parameters)
        if status is MISSING:
            envelope.mail_from = path
            envelope.mail_options.extend(parameters)
            status = "250 OK"
        if "BODY=BINARYMIME" in envelope.mail_options:
            envelope.chunks = self._make_chunk_reader()
        _log.info("%r sender: %s", self.session.peer, path)
        await self.push(status)

    @aiosmtpd.smtp.syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        if await self.check_helo_needed() or await self.check_auth_needed("RCPT"):
            return
        envelope = self.envelope
        count = len(envelope.rcpt_tos)
        try:
            if not envelope.mail_from:
                raise Refused("503 Error: need MAIL command")
            if envelope.chunks is not None and envelope.chunks.has_begun:
                raise Refused("503 Error: RCPT after BDAT")
            if count >= self.event_handler.recipient_limit:  # RFC 5321, 4.5.3.1.10
                raise Refused("452 4.5.3 Too many recipients")
            path, parameters, _ = self._parse("RCPT", arg)
        except Refused as refused:
            await self.push(str(refused))
            return
        status = await self._call_handler_hook("RCPT", path, parameters)
        if status is MISSING:
            envelope.rcpt_tos.append(path)
            envelope.rcpt_options.extend(parameters)
            status = "250 OK"
        if parameters and len(envelope.rcpt_tos) > count:
            by_recipient = vars(envelope).setdefault("parameters", {})
            by_recipient[count] = tuple(parameters)
        _log.info("%r recip: %s", self.session.peer, path)
        await self.push(status)

    def _parse(self, command: str, arg: str | None) -> tuple[str, list[str], dict[str, str]]:
        """Return the path of MAIL or RCPT, its parameters, and what they mean."""
        path, rest = parse_path(command, arg or "")
        words = rest.replace("\t", " ").split(" ")
        parameters = [word for word in words if word]
        if parameters and not self.session.extended_smtp:
            raise Refused(f"501 5.5.4 Error: {command} has parameters after EHLO only")
        extensions = self._context.extensions
        needs_tls = self.event_handler._needs_tls_for_auth and not self._tls_protocol
        if needs_tls or not self._auth_methods:
            extensions = extensions - {"AUTH"}
        values = check_parameters(command, parameters, extensions)
        is_utf8 = "SMTPUTF8" in values if command == "MAIL" else self.envelope.smtp_utf8
        if not path.isascii() and not is_utf8:  # RFC 6531, 3.5
            raise Refused("553 5.6.7 Error: a path that is not ASCII needs SMTPUTF8")
        return path, as_recorded(parameters), values

    # The content.

    @aiosmtpd.smtp.syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        if not await self._may_send_data(arg):
            return
        await self.push(GO_AHEAD)
        if self._is_to_drop:
            if not self._is_mute:  # that is, within the content
                await self._stream.read(1)
            await self._drop_if_due()
        rule = self._faults.match("DATA", self._names("DATA"), self.transcript, amid_content=True)
        kind = rule and functools.partial(InterruptedReader, rule, self._go_on_with_content)
        content = self._open_content(kind or DataReader)
        if self._stream._buffer:  # a client that did not wait for the 354
            self._notice("early-talk")
        await self._receive(content)
        if content.is_answered:
            self._set_post_data_state()  # type: ignore[no-untyped-call]
        else:
            await self._end_data(content)

    async def _may_send_data(self, arg: str | None) -> bool:
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return False
        if not self.envelope.rcpt_tos:
            await self.push("503 Error: need RCPT command")
        elif arg:
            await self.push("501 Syntax: DATA")
        elif self.envelope.chunks is not None:  # RFC 3030, 2 and 3
            has_begun = self.envelope.chunks.has_begun
            why = "DATA after BDAT" if has_begun else "BODY=BINARYMIME needs BDAT"
            await self.push(f"503 Error: {why}")
        else:
            return True
        return False

    def _may_be_8bit(self) -> bool:
        # RFC 6152, 3.  SMTPUTF8 brings 8BITMIME with it (RFC 6531, 3.1).
        return "8BITMIME" in self._context.extensions or self.envelope.smtp_utf8

    def _open_content(self, kind: Callable[..., DataReader] = DataReader) -> DataReader:
        server = self.event_handler
        self._content = content = kind(
            server.data_size_limit, server.line_length_limit, may_be_8bit=self._may_be_8bit()
        )
        return content

    async def _receive(self, content: DataReader | ChunkReader) -> None:
        """Read content to its end."""
        self._content = content
        stream = self._stream
        if stream._buffer and not content.ended:
            stream._buffer[:] = content.feed(bytes(stream._buffer))
            self._mid_line = bool(stream._buffer) and not stream._buffer.endswith(b"\n")
            stream._maybe_resume_transport()
        if isinstance(content, InterruptedReader):
            await self._interrupt(content)
        await self._await_content(lambda: content.ended)
        self._content_ended = None
        if not content.ended:  # what has no end is no message (RFC 5321, 4.1.1.4)
            await self._end_with_client()
        self._content = None
        self._note(content.size)

    async def _await_content(self, is_there: Callable[[], bool]) -> None:
        """Wait until enough of it has come, or the client sends no more."""
        while True:
            self._content_ended = self.loop.create_future()
            if is_there() or self._is_at_eof:
                self._content_ended.set_result(None)
                return
            self._reset_timeout()
            await self._content_ended

    def _go_on_with_content(self) -> None:
        if self._content_ended is not None and not self._content_ended.done():
            self._content_ended.set_result(None)

    async def _interrupt(self, content: InterruptedReader) -> None:
        """Carry out a fault within the content."""
        rule = content.rule
        await self._await_content(lambda: content.is_reached)
        if not content.is_reached:
            return
        so_far = content.size if content.ended else content.arrived
        self._note(f"{so_far} octets of content so far")
        if rule.delay:  # the client cannot go on, either, once it has filled what is between
            self.transport.pause_reading()
            await self._pace.wait(rule.delay)
            self.transport.resume_reading()
        if rule.octets is None:
            if rule.closes:
                await self._hang_up(abruptly=True)
            return
        content.discard()
        self._pace.trickle = rule.trickle
        await self._say(rule.octets, is_raw=not rule.code)
        if rule.closes:
            await self._hang_up_amid(content)

    async def _drop_if_due(self) -> None:
        if self._is_to_drop and not self._is_mute:  # what the client has sent ahead is not kept
            self._content = rest = self._make_chunk_reader()
            rest.begin(sys.maxsize, is_last=False, refusal=_DROPPED)
            await self._hang_up_amid(rest)
        await super()._drop_if_due()

    async def _hang_up_amid(self, content: DataReader | ChunkReader) -> None:
        """Close the connection, and take what still comes for a while.

        To close with something unread would have TCP take back what was said.
        """
        self._note_end("dropped by the server")
        if not content.ended and not self._tls_protocol:  # whose transport does this by itself
            with contextlib.suppress(OSError):  # the connection is gone, unnoticed so far
                self.transport.write_eof()
                self.transport.resume_reading()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._await_content(lambda: content.ended), LAST_WORDS)
        await self._hang_up(abruptly=False)

    async def _end_data(self, content: DataReader | ChunkReader, trickle: float = 0.0) -> None:
        """Send the reply to a message; by LMTP, one for each recipient (RFC 2033, 4.2).

        Faults fire for each reply by itself.  The message is for the recipients that none
        refuses, and has arrived before the first of them gets a reply.
        """
        self._begin("EOM")
        # What a fault at BDAT has begun is for all replies.
        closes, self._is_to_drop = self._is_to_drop, False
        rules = await self._faults_at_end()
        refused = self._leave_out(rules) if self.event_handler.lmtp else ()
        replies: Iterator[str] | None = None
        # A fault may put time, or the end, between one reply and the next.
        self._corked = corked = None if any(rules) else bytearray()
        try:
            for rule in rules:
                self._pace.trickle = trickle  # or it has that of the reply before this
                if rule is not None and await self._carry_out(rule):
                    continue
                if replies is None:
                    replies = iter(await self._take_in(content, refused))
                await self.push(next(replies))
                if self._is_to_drop:
                    break
        finally:
            self._corked = None
            self._is_to_drop |= closes
            self._set_post_data_state()  # type: ignore[no-untyped-call]
        if corked:
            await self.push(bytes(corked[:-2]))

    async def _faults_at_end(self) -> list[Rule | None]:
        """Return the fault for each reply, if any, up to one that closes the connection."""
        sender, *recipients = names = self._names("EOM")
        subjects = [[sender, one] for one in recipients] if self.event_handler.lmtp else [names]
        if not self._faults.active:
            return [None] * len(subjects)
        await self._pass_gates("EOM", names)
        rules = []
        for subject in subjects:
            rule = self._faults.match("EOM", subject, self.transcript)
            rules.append(rule)
            # With "instead", all is done.
            if rule is not None and rule.closes and rule.drop != "instead":
                break
        return rules

    def _leave_out(self, rules: list[Rule | None]) -> tuple[str, ...]:
        """Remove the recipients that get no message from the envelope; return them."""
        envelope = self.envelope
        paths = envelope.rcpt_tos
        kept = [n for n, rule in enumerate(rules) if rule is None or not rule.prevents]
        if len(kept) == len(paths):
            return ()
        given = vars(envelope).get("parameters", {})
        parameters = {new: given[old] for new, old in enumerate(kept) if old in given}
        vars(envelope)["parameters"] = parameters
        envelope.rcpt_options = [one for found in parameters.values() for one in found]
        envelope.rcpt_tos = [paths[n] for n in kept]
        return tuple(paths[n] for n in sorted({*range(len(paths))} - {*kept}))

    async def _take_in(
        self, content: DataReader | ChunkReader, refused: tuple[str, ...]
    ) -> list[str]:
        """Deliver a message; return its reply, or by LMTP one for each recipient."""
        count = len(self.envelope.rcpt_tos) if self.event_handler.lmtp else 1
        try:
            raw = content.take()
        except Refused as error:
            return [str(error)] * count
        self._notice_octets(content, raw)
        try:
            if "DATA" in self._handle_hooks:
                self.envelope.content = self.envelope.original_content = bytes(raw)
                return await self._call_data_hook(count)
            envelope = self._make_envelope()
            if refused:
                envelope = envelope._replace(rcpt_refused=refused)
            return [await self._context.deliver.eventual(envelope, raw)] * count
        except Exception as error:
            return [await self.handle_exception(error)] * count

    async def _call_data_hook(self, count: int) -> list[str]:
        status = await self._call_handler_hook("DATA")
        if not self.event_handler.lmtp:
            return [status]
        try:
            return one_for_each(status, count)
        except Exception as error:
            raise HookFailed(self._report("handle_DATA", error)) from error

    def _notice_octets(self, content: DataReader | ChunkReader, raw: bytearray) -> None:
        codes = content.codes(
            raw,
            is_8bitmime="BODY=8BITMIME" in self.envelope.mail_options,
            smtp_utf8=self.envelope.smtp_utf8,
            line_limit=self.event_handler.line_length_limit,
        )
        if codes:
            self._notice(*codes)

    def _make_envelope(self) -> Envelope:
        session, envelope = self.session, self.envelope
        peer: Any = session.peer
        sender = envelope.mail_from or ""
        number = next(self._context.numbers)
        self.transcript.messages.append(number)
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
            tls=self.transcript.tls,
            auth_user=self._user() if session.authenticated else None,
            received_at=utc(time_of_day()),
            rcpt_parameters=()
            if not parameters
            else tuple(parameters.get(n, ()) for n in range(len(envelope.rcpt_tos))),
            client_cert_subject=self.transcript.client_cert_subject,
        )

    # The content in chunks (RFC 3030).

    def _make_chunk_reader(self) -> ChunkReader:
        return ChunkReader(
            self.event_handler.line_length_limit,
            may_be_8bit=self._may_be_8bit(),
            is_binary="BODY=BINARYMIME" in self.envelope.mail_options,
        )

    def _begin_chunk(self, chunk: Chunk, refusal: str | None) -> ChunkReader:
        reader = self.envelope.chunks or self._make_chunk_reader()
        if refusal is None:
            self.envelope.chunks = reader
        reader.begin(chunk.size or 0, is_last=chunk.is_last, refusal=refusal)
        return reader

    def _why_refused(self, chunk: Chunk) -> str | None:
        """Return the reply to a chunk that is not accepted, or None."""
        if not self._offers_chunking:
            return "502 Error: command not implemented"
        if not self.session.extended_smtp:
            return f"503 Error: send {'LHLO' if self.event_handler.lmtp else 'EHLO'} first"
        if self._auth_required and not self.session.authenticated:
            return "530 Authentication required"
        if chunk.size is None:  # nobody knows where the next command begins
            return _NO_SIZE
        if not chunk.is_valid:
            return "501 Syntax: BDAT size [LAST]"
        if not self.envelope.rcpt_tos:
            return "503 Error: need RCPT command"
        chunks, limit = self.envelope.chunks, self.event_handler.data_size_limit
        total = chunk.size + (0 if chunks is None else chunks.total)
        if limit is not None and total > limit:
            return "552 Error: Too much mail data"
        return None

    async def _receive_octets(self, command: str, argument: bytes) -> None:
        if command != "BDAT":
            return
        chunk = parse_chunk(argument)
        self._chunk = self._begin_chunk(chunk, self._why_refused(chunk))
        if chunk.size is None:
            self._is_to_drop = True
        else:
            await self._receive(self._chunk)

    async def _read_line(self) -> bytes:
        if self._chunk is not None:  # refused, by whomever: so is the message
            self._chunk = None
            self._set_post_data_state()  # type: ignore[no-untyped-call]
        is_new = not self._is_discarding
        try:
            return await super()._read_line()
        except asyncio.LimitOverrunError:
            if is_new and self._stream._buffer[:5].upper() == b"BDAT ":
                await self.push(_NO_SIZE)
                await self._hang_up(abruptly=False)
            raise

    @aiosmtpd.smtp.syntax("BDAT <size> [LAST]", when="_offers_chunking")
    async def smtp_BDAT(self, _arg: str | None) -> None:
        chunk = self._chunk
        assert chunk is not None
        if chunk.refusal is None or not self._offers_chunking:
            self._chunk = None  # the transaction goes on
        if chunk.refusal is None:
            await self._accept_chunk(chunk)
            return
        # By LMTP the last has a reply for each recipient (RFC 2033, 4.3), where it is known.
        is_for_each = self.event_handler.lmtp and chunk.is_last and self._offers_chunking
        for _ in self.envelope.rcpt_tos if is_for_each and self.envelope.rcpt_tos else [None]:
            await self.push(chunk.refusal)

    async def _accept_chunk(self, chunk: ChunkReader) -> None:
        if chunk.is_last:
            await self._end_data(chunk, self._pace.trickle)
        else:
            await self.push(chunk_reply(chunk.size))

    async def _end_chunk(self, chunk: ChunkReader) -> None:
        """Answer a chunk whose command nobody has looked at."""
        self._begin("BDAT")
        if await self._apply_faults("BDAT", self._names("BDAT")):
            self._set_post_data_state()  # type: ignore[no-untyped-call]
        else:
            await self._accept_chunk(chunk)

    # How a transaction or a session ends.

    @aiosmtpd.smtp.syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        """End the transaction, and reset the server with ``reset_on_rset``."""
        if self._context.on_rset and not arg:
            await self._context.on_rset()
        await super().smtp_RSET(arg)

    @aiosmtpd.smtp.syntax("QUIT")
    async def smtp_QUIT(self, _arg: str | None) -> None:
        # An argument makes it no other command, and leaves nothing to say.
        if self._is_mute:
            await super().smtp_QUIT(None)
            return
        self._note_end("QUIT")
        try:
            await super().smtp_QUIT(None)
        except Exception:  # of a hook, and the session goes on
            self.transcript.ended = "open"
            raise
