"""A session, and what stands between aiosmtpd and the wire.  Server process.

aiosmtpd's session takes a line, and replies.  This class applies the options of
`Server`, records what goes in and out, and carries out what a test has asked for by
`Controller.fault` and `Controller.gate`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from abc import abstractmethod
from collections import defaultdict
from typing import Any, NoReturn

import aiosmtpd.smtp
from aiosmtpd.proxy_protocol import V2_CMD, ProxyData, get_proxy

from lazr_smtptest._smtp.client_cert import subject_of
from lazr_smtptest._smtp.content import ChunkReader, DataReader
from lazr_smtptest._smtp.context import SessionContext
from lazr_smtptest._smtp.faultscript import Pace
from lazr_smtptest._smtp.protocol import (
    AUTH_LINE,
    BEFORE_TLS,
    GREETINGS,
    KNOWN_MECHANISMS,
    VerbatimReply,
    advertised,
    corrected,
    says_no,
    split_path,
    split_query,
    what_is_bad,
)
from lazr_smtptest._smtp.state import CommandReader, SessionState, TransactionState
from lazr_smtptest._smtp.tls_transport import TLSTransport, tls_failure
from lazr_smtptest._util import plain
from lazr_smtptest._wire.rules import STAGES, Rule
from lazr_smtptest.server import Server
from lazr_smtptest.sessions import as_peer

_log = logging.getLogger("mail.log")

#: The stages that are commands.
_COMMANDS = frozenset(STAGES) - {"CONNECT", "EOM"}

#: Commands whose hooks return the reply, and nothing else.
_REPLYING = {"HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "QUIT"}

#: Stands in a transcript for what may be a secret.
_MASK = b"***"

#: Octets that are kept of what had no line end.
_UNREAD = 2000

#: Seconds that a client has to read the last reply, when it was silent for too long.
LAST_WORDS = 5.0

#: RFC 5321, 4.2.2: it may come at any time, when the server has to close.
_TIMED_OUT = "421 4.4.2 Error: timeout exceeded"
_FULL = "421 4.7.0 Error: too many connections"


class HookFailed(Exception):
    """A hook raised, and the test process knows; its text is the reply for the client."""


@functools.cache
def _names_of_commands(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith(("smtp_", "auth_"))]


class SMTPConnection(aiosmtpd.smtp.SMTP):
    """One session, and what comes between aiosmtpd and the wire."""

    # A session has these from the moment it is connected.
    session: aiosmtpd.smtp.Session
    envelope: TransactionState
    transport: asyncio.Transport
    _handler_coroutine: asyncio.Task[None]

    event_handler: Server

    #: What the coroutine has to wait for before it takes another command.
    _finishing: asyncio.Task[None] | None = None

    #: The content that is being received; and, where the coroutine waits for
    #: that, what says that no more comes.
    _content: DataReader | ChunkReader | None = None
    _content_ended: asyncio.Future[None] | None = None

    #: Done when TLS has begun; None where it has not been asked for.
    _handshake: asyncio.Future[None] | None = None

    #: When the session has been silent for too long, by the loop's clock; and
    #: when the last command came.
    _deadline = _began = 0.0

    _command = ""  # the one that is being answered; empty before the first
    _corked: bytearray | None = None  # lines of a reply that wait to be sent together

    # What a fault has left to be done: say nothing; close the connection
    # after this command; send no greeting; refuse all commands.
    _is_mute = _is_to_drop = _is_greeted = _is_refused = False

    _mid_line = False  # what is in the reader's buffer ends within a line
    _is_discarding = False  # the rest of a line that was too long is still to come
    _is_challenged = False  # an answer to AUTH's challenge is to come
    _is_after_auth = False  # no other command has come since AUTH

    #: The client sends no more (RFC 9293, 3.6), and may still read.
    _is_at_eof = False

    def __init__(self, context: SessionContext, *, loop: asyncio.AbstractEventLoop) -> None:
        server = context.server
        # aiosmtpd keeps these two on the class: one session's EHLO would
        # change the limits of all, and every new session would undo that.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        # How much of a line is read before that is given up; RFC 4954, 4 wants
        # an AUTH to have so much.  Content has a limit of its own.
        self.line_length_limit = max(server.line_length_limit, AUTH_LINE + len("\r\n"))
        self._context = context
        self._faults = context.faults
        self._offers_chunking = "CHUNKING" in context.extensions
        self._pace = Pace()
        super().__init__(
            context.hooks,
            data_size_limit=server.data_size_limit if "SIZE" in context.extensions else None,
            enable_SMTPUTF8="SMTPUTF8" in context.extensions,
            hostname=server.hostname,
            ident=server.ident,
            timeout=server.idle_timeout,
            auth_require_tls=server._needs_tls_for_auth or "AUTH" not in context.extensions,
            authenticator=context.mechanisms.check_login,
            loop=loop,
        )
        self.event_handler = server
        # Not by way of the constructor, which warns: that AUTH is not safe without TLS, and
        # that not all clients have a certificate.  In a test it is, and they are to have one.
        self._auth_required = server._needs_auth
        self.tls_context = None if context.tls_at_once else context.tls_context
        for name in context.missing_commands:
            self._smtp_methods.pop(name, None)
        # aiosmtpd takes whatever is named auth_* for a mechanism.
        self._auth_hooks = {
            name: found for name, found in self._auth_methods.items() if not found.is_builtin
        }
        self._auth_methods = context.mechanisms.offered(self._auth_hooks)

    def __dir__(self) -> list[str]:
        # aiosmtpd looks for its commands and mechanisms here with every connection, and at
        # each attribute that there is, which takes longer than all else it does.
        kind: type = type(self)
        return _names_of_commands(kind)

    # Connecting.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        now = self.loop.time()
        peer = as_peer(transport.get_extra_info("peername"))
        self.transcript = self._context.transcripts.open(peer, now)
        wire: Any = transport
        super().connection_made(self._secure(wire) if self._context.tls_before_all else wire)
        self.session.peer = peer  # type: ignore[assignment]

    def _create_session(self) -> SessionState:
        return SessionState(self.loop)

    def _create_envelope(self) -> TransactionState:
        return TransactionState()

    def _cb_client_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super()._cb_client_connected(reader, writer)
        self._stream: Any = reader
        self._reader: Any = CommandReader(reader.read, self._next_command, self._next_answer)

    def _secure(self, wire: asyncio.Transport) -> TLSTransport:
        """Begin TLS; `secured` is called when it is there."""
        assert self._context.tls_context is not None
        self._handshake = self.loop.create_future()
        return TLSTransport(wire, self, self._context.tls_context, self.loop)

    @abstractmethod
    async def _begin_tls(self, octets: bytes = b"") -> None:
        """Use TLS from now on, or else close the connection."""

    async def _read_proxy_header(self) -> None:
        """Read on whose behalf a proxy connects; close the connection if it does not say.

        The header comes before all else, TLS included (PROXY protocol, 2).
        """
        self._reset_timeout()
        try:
            header = self.session.proxy_data = await get_proxy(self._stream)
        except asyncio.IncompleteReadError:
            await self._end_with_client()
        if header.error:
            self._note(f"no PROXY header: {header.error}")
            await self._hang_up(abruptly=False)
        if header.src_port is not None and header.command != V2_CMD.LOCAL:
            peer: Any = (str(header.src_addr), header.src_port)
            self.session.peer = self.transcript.peer = peer
            self._note(f"PROXY for {peer[0]} port {peer[1]}")
        if not await self._is_wanted(header):
            await self._hang_up(abruptly=False)
        if self._context.tls_at_once:
            await self._begin_tls(bytes(self._stream._buffer))

    async def _is_wanted(self, header: ProxyData) -> bool:
        """Ask the server's own hook, if it has one."""
        hook = self._handle_hooks.get("PROXY")
        if hook is None:
            return True
        try:
            return bool(await hook(self, self.session, self.envelope, header))
        except Exception as error:
            self._report("handle_PROXY", error)
            return False

    def secured(self, transport: TLSTransport) -> None:
        """Begin anew under TLS: what was said in the clear is forgotten (RFC 3207, 4.2)."""
        self._set_rset_state()  # type: ignore[no-untyped-call]
        before, self.session = self.session, self._create_session()
        self.session.peer, self.session.proxy_data = before.peer, before.proxy_data
        # aiosmtpd only asks whether there is one.
        self._tls_protocol = transport  # type: ignore[assignment]
        names = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")
        self.session.ssl = {name: transport.get_extra_info(name) for name in names}
        transcript, tls = self.transcript, transport.get_extra_info("ssl_object")
        transcript.helo = transcript.auth_user = None
        transcript.tls, transcript.cipher = tls.version(), tls.cipher()[0]
        remark = f"{transcript.tls} with {transcript.cipher}"
        if certificate := self.session.ssl["peercert"]:
            transcript.client_cert_subject = subject_of(certificate)
            remark += f"; the client's certificate is for {plain(transcript.client_cert_subject)}"
            mechanisms = self._context.mechanisms
            self._auth_methods = mechanisms.offered(self._auth_hooks, has_cert=True)
        self._note(remark)
        assert self._handshake is not None
        self._handshake.set_result(None)

    async def _handle_client(self) -> None:
        try:
            if self._context.server.proxy_protocol:
                await self._read_proxy_header()
            if self._handshake is not None:
                await self._handshake
            peer = self.transcript.peer
            if self._context.is_full(self.transcript):
                await self.push(self._context.reply(_FULL, ""))
                await self._hang_up(abruptly=False)
            if await self._apply_faults("CONNECT", [str(part) for part in peer[:1]]):
                # What comes next is the greeting, and the client has had one.
                self._is_greeted = True
            elif self._stream._buffer:  # RFC 5321, 3.1: it is to wait for the greeting
                self._notice("early-talk")
            await super()._handle_client()
        except asyncio.CancelledError:  # as the base class does, in its own part
            self._writer.close()
            raise

    # What the client says.

    async def _next_command(self) -> bytes:
        """Return the next line that aiosmtpd has to see.

        Those that a fault has answered it does not.
        """
        while True:
            line = await self._read_line()
            if self._is_discarding:  # the rest of a line that was too long
                self._is_discarding = False
                return line
            verb, _, argument = line.rstrip(b"\r\n").partition(b" ")
            command = verb.upper().decode("ascii", "replace")
            self._begin(command or "?")
            may_be_secret = self._note_command(command, line)
            await self._receive_octets(command, argument)
            if self._stream._buffer and not self._may_pipeline():
                self._notice("early-talk")
            refusal = "500 Error: bad syntax" if may_be_secret else what_is_bad(line)
            if self._is_refused and command != "QUIT":
                await self.push("503 There is no service here")
            elif refusal:
                await self.push(refusal)
            elif command in _COMMANDS and await self._apply_faults(
                command, self._names(command, argument)
            ):
                continue
            elif self._context.requires_tls and not (self._tls_protocol or command in BEFORE_TLS):
                await self.push("530 Must issue a STARTTLS command first")
            else:
                return line

    @abstractmethod
    async def _receive_octets(self, command: str, argument: bytes) -> None:
        """Read what comes with a command beside its line, before anything is said about it."""

    async def _read_line(self) -> bytes:
        """Read a line, when all that came before it is done with."""
        await self._drop_if_due()
        if self.transport.is_closing():  # aiosmtpd would go on
            await self._hang_up(abruptly=False)
        self._reset_timeout()
        try:
            line: bytes = await self._stream.readuntil()
        except asyncio.LimitOverrunError:
            self._begin("?")
            if not self._is_discarding:
                self._note("a line that is too long")
            self._is_discarding = True
            raise
        except asyncio.IncompleteReadError as error:
            self._note_unread(error.partial)
            line = b""  # what is not whole is no command
        if self._finishing is not None:
            await asyncio.wait([self._finishing])
        return line or await self._end_with_client()

    def _begin(self, command: str) -> None:
        self._command = command
        self._pace.trickle = 0.0

    async def _next_answer(self) -> bytes:
        """Read what answers AUTH's challenge, which no transcript may show."""
        stream = self._stream
        is_too_long = False
        self._reset_timeout()
        while True:
            try:
                line: bytes = await stream.readuntil()
                break
            except asyncio.LimitOverrunError as error:
                is_too_long = True
                await stream.read(error.consumed)
            except asyncio.IncompleteReadError:
                await self._end_with_client()
        answer = line.strip()
        self._note(answer if answer in (b"", b"*") else _MASK)  # RFC 4954, 4: "*" cancels
        if is_too_long:
            raise ValueError("an answer that is too long")
        return line

    def _note_command(self, command: str, line: bytes) -> bool:
        """Note a line from the client, but no secrets (RFC 4954, 4).

        Return whether it may have a secret in it that is in the wrong place;
        then nobody else is to see it.
        """
        words = line.split(None, 2)
        if words and words[0].upper().startswith(b"AUTH"):
            self._note(self._masked(words))
            self._is_after_auth = True
            return command != "AUTH"
        if self._is_after_auth and command not in self._smtp_methods:
            self._note("no command, but perhaps an answer to a challenge (left out)")
            return True
        self._is_after_auth = False
        self._note(line)
        return False

    def _masked(self, words: list[bytes]) -> bytes:
        """Return what may be shown of AUTH: what no secret can be."""
        verb, *rest = words
        if len(verb) > len("AUTH"):
            return verb[: len("AUTH")] + _MASK
        name = b"".join(rest[:1]).decode("ascii", "replace").upper()
        is_known = name in self._auth_methods or name in KNOWN_MECHANISMS
        shown = rest[:1] if is_known else []
        return b" ".join([verb, *shown, *([_MASK] if len(rest) > len(shown) else [])])

    def _note_unread(self, octets: bytes | bytearray) -> None:
        self.transcript.note_unread(self.loop.time(), bytes(octets[:_UNREAD]))

    def _may_pipeline(self) -> bool:
        # RFC 2920: where the server offers it.
        return self.session.extended_smtp and "PIPELINING" in self._context.extensions

    def _notice(self, *codes: str) -> None:
        self.transcript.noticed.update(dict.fromkeys(codes, self.loop.time()))

    def _note(self, said: bytes | int | str | None, told: bytes | None = None) -> None:
        self.transcript.note(self.loop.time(), said, told)

    # What the server replies.

    async def push(self, status: str | bytes) -> None:
        """Send a reply, or add it to those that are sent together."""
        if self._is_mute or (self._is_greeted and not self._command):
            return
        if isinstance(status, str):
            status = self._encoded(status)
        if self._corked is None:
            self._note(None, status)
            if self._pace.trickle:
                await self._pace.send(self._writer, status + b"\r\n")
            else:
                await super().push(status)
        else:
            self._corked += status + b"\r\n"

    def _encoded(self, status: str) -> bytes:
        if isinstance(status, VerbatimReply):
            self._is_to_drop |= status.startswith("421")  # RFC 5321, 3.8: that is what it says
        elif self._command not in self._context.uncoded:
            status = self._context.reply(corrected(status, self._command), self._command)
        if self._command == "AUTH" and says_no(status):
            self.transcript.failed_logins += 1
        return status.encode("utf-8", "surrogateescape")

    # Faults and gates.

    async def _apply_faults(self, stage: str, names: list[str]) -> bool:
        """Do at a stage what a test asked for; the names are for its glob.

        Return whether that was all, and the command must not be carried out.
        """
        if not self._faults.active:
            return False
        await self._pass_gates(stage, names)
        rule = self._faults.match(stage, names, self.transcript)
        return rule is not None and await self._carry_out(rule)

    async def _pass_gates(self, stage: str, names: list[str]) -> None:
        if not await self._faults.pass_gates(stage, names, self.transcript):
            await self._hang_up(abruptly=True)

    async def _carry_out(self, rule: Rule) -> bool:
        """Do what a fault says, up to its reply; return whether there was one."""
        await self._pace.wait(rule.delay)
        if rule.drop == "before":
            await self._hang_up(abruptly=True)
        self._is_to_drop |= rule.closes
        self._is_mute |= rule.drop == "instead"
        self._pace.trickle = rule.trickle
        if rule.octets is None:
            return False
        if rule.stage == "AUTH" and rule.code == "535":
            self.transcript.failed_logins += 1
        await self._say(rule.octets, is_raw=not rule.code)
        await self._drop_if_due()
        # Another greeting than 220 means that nothing else will be had
        # (RFC 5321, 3.1).
        self._is_refused = rule.stage == "CONNECT" and rule.code not in ("", "220")
        return True

    async def _say(self, octets: bytes, *, is_raw: bool) -> None:
        """Send the reply of a fault."""
        if not is_raw:
            await self.push(octets[:-2])
        elif not self._is_mute:
            more = "..." if len(octets) > _UNREAD else ""
            self._note(f"sent as it is: {octets[:_UNREAD]!r}{more}")
            await self._pace.send(self._writer, octets, is_raw=True)

    def _names(self, stage: str, argument: bytes = b"") -> list[str]:
        if stage in ("DATA", "BDAT", "EOM"):
            return [(self.envelope.mail_from or "").strip("<>"), *self.envelope.rcpt_tos]
        text = argument.decode("utf-8", "surrogateescape").strip()
        if stage in ("MAIL", "RCPT"):
            # As it will be recorded; if it cannot be, as it is.
            path = split_path(stage, text)
            return [path[0] if path else text.partition(":")[2].strip()]
        if stage in (*GREETINGS, "HELP"):
            return [text]
        if stage in ("VRFY", "EXPN"):
            return [split_query(text)]
        if stage == "AUTH":
            return [text.partition(" ")[0]]
        return [self.session.host_name or ""]

    async def _drop_if_due(self) -> None:
        if self._is_to_drop:
            await self._hang_up(abruptly=self._is_mute)

    async def _end_with_client(self) -> NoReturn:
        """Close the connection: the client sends no more, and all it has sent is answered."""
        self._note_end("dropped by the client")
        await self._hang_up(abruptly=False)

    async def _hang_up(self, *, abruptly: bool) -> NoReturn:
        """Close the connection.  What was written is sent, if not abruptly."""
        self._note_end("dropped by the server")
        if self.transport is None:  # asyncio.wait_for may take no notice of being cancelled
            raise asyncio.CancelledError
        close = self.transport.abort if abruptly else self.transport.close
        close()
        # The end of the connection cancels what waits here.
        await self.loop.create_future()
        raise AssertionError("unreachable")

    # The server's own hooks, and what becomes of them when they raise.

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        if command == "EHLO" and len(args) > 1:
            args = (args[0], self._advertised(args[1]))
        try:
            status = await super()._call_handler_hook(command, *args)
            if status is None and command in _REPLYING:
                raise TypeError(
                    f"handle_{command} must return a reply, such as '250 OK', not None"
                )
        except Exception as error:
            if hasattr(self.event_handler, "handle_exception"):
                raise  # that is aiosmtpd's own way to deal with it
            raise HookFailed(self._report(f"handle_{command}", error)) from error
        return VerbatimReply(status) if isinstance(status, str) else status

    def _advertised(self, lines: list[str]) -> list[str]:
        return advertised(lines, self._context.extensions, self._auth_methods)

    def _report(self, hook: str, error: Exception) -> str:
        return self._context.report(f"{type(self.event_handler).__name__}.{hook}", error)

    async def handle_exception(self, error: Exception) -> str:
        if hasattr(self.event_handler, "handle_exception"):
            return VerbatimReply(await super().handle_exception(error))
        if isinstance(error, HookFailed):
            return str(error)
        return await super().handle_exception(error)

    # Time limits.

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Hang up on a client that is silent for ``idle_timeout``.

        The time begins anew whenever the session waits for the client.  Moving a number
        is cheaper than cancelling a timer and making another, so the timer stays and looks.
        """
        self._began = self.loop.time()
        self._deadline = self._began + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        if self.loop.time() >= self._deadline:
            is_over = self.transcript.ended == "dropped by the server"
            if is_over or self.transport.is_closing() or self.transport.get_write_buffer_size():
                self.abort()  # it does not read, either
                return
            if self._is_awaiting_client():
                self._time_out()
            else:
                self._reset_timeout()
        self._timeout_handle = self.loop.call_at(self._deadline, self._check_deadline)

    def _is_awaiting_client(self) -> bool:
        """Whether it is the client's turn, and not a handler's, a gate's or a fault's."""
        if self._handshake is not None and not self._handshake.done():
            return True
        if self._content_ended is not None:
            return not self._content_ended.done()
        return self._stream._waiter is not None and self._finishing is None

    def _is_before_tls(self) -> bool:
        """Whether TLS is yet to begin, or to be agreed upon, and nothing can be said before."""
        if self._handshake is None:
            return self._context.tls_at_once
        return not self._handshake.done()

    def _time_out(self) -> None:
        if self._is_before_tls():
            what = "end the handshake" if self._handshake else "begin with a PROXY header"
            seconds = self._timeout_duration
            self._note(f"TLS failed: the client did not {what} within {seconds:g} seconds")
        else:
            reply = self._context.line(_TIMED_OUT, "")
            self._note(None, reply)
            self._writer.write(reply)
        self._note_end("dropped by the server")
        self.transport.close()
        self._reset_timeout(LAST_WORDS)

    # The end of it.

    def abort(self) -> None:
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            self._note_end("dropped by the server")
            transport.abort()

    def hang_up(self, reply: bytes | None) -> bool:
        """Close the connection, after a reply if there is one; return whether it was open."""
        if self.transcript.ended != "open":
            return False
        if reply and not (self._is_before_tls() or self._pace.is_amid_reply):
            self._note(None, reply)
            self._writer.write(reply)
        self._note_end("dropped by the server")
        self.transport.close()
        self._reset_timeout(LAST_WORDS)
        # The connection may go on for a while, until the client has read what it was sent.
        self._cancel()
        return True

    def _cancel(self) -> None:
        """Cancel what the client must not get a reply to any more."""
        if self._finishing is not None:
            self._finishing.cancel()
        self._handler_coroutine.cancel()

    def abort_if_abandoned(self) -> None:
        """End a session that a fault delays, and whose client may well have given up.

        Amid the content nothing is read meanwhile, and nobody knows.
        """
        if self._pace.is_waiting and (self._is_at_eof or self._content is not None):
            self.abort()

    def eof_received(self) -> bool:
        """Go on to answer what was read: no more commands come, and that is all it means.

        Exim, for one, says QUIT in one piece with the end of a message, and no more after it.
        """
        if not self._is_awaiting_client():
            self._note("the client sends no more")
        self._is_at_eof = True
        self._stream.feed_eof()
        if self._content_ended is not None and not self._content_ended.done():
            self._content_ended.set_result(None)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is None:  # it has ended already
            return
        self._note_unread(self._stream._buffer)
        if self.transcript.ended == "open" and (
            self._is_before_tls() or isinstance(error, ssl.SSLError)
        ):
            self._note(f"TLS failed: {tls_failure(error)}")
            _log.info("%r TLS failed: %s", self.session.peer, error)
        self._note_end("dropped by the client")
        self._context.transcripts.close(self.transcript)
        self._cancel()
        super().connection_lost(error)

    def _note_end(self, how: str) -> None:
        if self.transcript.ended == "open":
            self.transcript.ended = how
