"""A session, and what is done to it from outside.  Server process.

aiosmtpd's session takes a line, and says what it makes of it.  This one has
something between that and the wire: there a session is taken down, and what a
test has ordered by `Controller.fault` and `Controller.gate` is carried out.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiosmtpd.smtp

from lazr_smtptest._auth import Mechanisms
from lazr_smtptest._delivery import ACCEPTED_REPLY, Delivery
from lazr_smtptest._esmtp import AUTH_LINE, advertised
from lazr_smtptest._record import Records
from lazr_smtptest._replies import AsGiven, with_enhanced_code, without_enhanced_code
from lazr_smtptest._script import Script
from lazr_smtptest.faults import STAGES
from lazr_smtptest.server import EXTENSIONS, Server

__all__ = ["StagedSMTP", "Terms"]

GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"

#: The stages that are commands.
_COMMANDS = frozenset(STAGES) - {"CONNECT", "EOM"}

_PATH = re.compile(r"<([^>]*)>")


class HookFailed(Exception):
    """A hook raised, and the test process has been told.

    :ivar reply: What to tell the client.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class Terms:
    """What all sessions of a server have in common.

    :param server: The server, which is aiosmtpd's handler object too.
    :param deliver: What becomes of a message.
    :param report: What becomes of an exception in a hook; gives the reply.
    :param on_rset: Awaited when a client sends RSET.
    :param numbers: Where a message gets its number.
    :param script: What a test has ordered.
    :param records: Where sessions are taken down.
    :param tls_context: For TLS, if there is any.
    """

    def __init__(
        self,
        server: Server,
        *,
        deliver: Delivery,
        report: Callable[[str, BaseException], str],
        on_rset: Callable[[], Awaitable[None]] | None,
        numbers: Iterator[int],
        script: Script,
        records: Records,
        tls_context: ssl.SSLContext | None,
    ) -> None:
        self.server = server
        self.deliver = deliver
        self.report = report
        self.on_rset = on_rset
        self.numbers = numbers
        self.script = script
        self.records = records
        self.tls_context = tls_context
        self.tls_at_once = server.tls is not None and server.tls.mode == "implicit"
        self.extensions = EXTENSIONS - server._hidden_extensions
        # What is said on the spot; the coroutine's words come to the same.
        self.replies = {
            "MAIL": self.line("250 OK", "MAIL"),
            "RCPT": self.line("250 OK", "RCPT"),
            "DATA": self.line(GO_AHEAD, "DATA"),
            ACCEPTED_REPLY: self.line(ACCEPTED_REPLY, "EOM"),
        }

    def line(self, text: str, command: str) -> bytes:
        """Give a reply as it is sent."""
        return f"{self.reply(text, command)}\r\n".encode("ascii")

    def reply(self, text: str, command: str) -> str:
        """Give a reply, with an enhanced code if those are promised."""
        if "ENHANCEDSTATUSCODES" not in self.extensions:
            return without_enhanced_code(text)
        return with_enhanced_code(text, command)


class Session(aiosmtpd.smtp.Session):
    """What aiosmtpd knows of a session."""

    #: There it is a property that logs that it is not to be used any more,
    #: and aiosmtpd itself uses it at each login.
    login_data: Any = None


class CommandReader:
    """What aiosmtpd reads from, so that commands come by way of us.

    :param stream: The reader behind it.
    :param next_command: Gives the next command's line.
    :param next_answer: Gives the next line that answers a challenge.
    """

    def __init__(
        self,
        stream: asyncio.StreamReader,
        next_command: Callable[[], Awaitable[bytes]],
        next_answer: Callable[[], Awaitable[bytes]],
    ) -> None:
        self.read = stream.read
        self._next_command = next_command
        self.readline = next_answer

    async def readuntil(self) -> bytes:
        """Give the next line that aiosmtpd has to see."""
        return await self._next_command()


class StagedSMTP(Mechanisms, aiosmtpd.smtp.SMTP):
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

    #: The command that is being answered; empty before the first.
    _command = ""

    #: Parameters of that command which aiosmtpd does not know.
    _parameters: list[str] | tuple[()] = ()

    #: The lines of a reply that are to be sent together.
    _corked: bytearray | None = None

    #: When the session has been silent for too long, by the loop's clock; and
    #: when the last command came.
    _deadline = _began = 0.0

    # What a fault has left to be done: say nothing; close the connection
    # after this command; send no greeting; refuse all commands.
    _is_mute = _is_to_drop = _is_greeted = _is_refused = False

    #: Whether the rest of a line that was too long is still to come.
    _is_discarding = False

    #: Whether an answer to AUTH's challenge is to come.
    _is_challenged = False

    #: Whether no other command has come since AUTH.
    _is_after_auth = False

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
        offers_auth = server._offers_auth and "AUTH" in terms.extensions
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
        self._forget_what_is_hidden(offers_auth)

    def _forget_what_is_hidden(self, offers_auth: bool) -> None:
        if not offers_auth:
            self._smtp_methods.pop("AUTH", None)
        if "HELP" not in self._terms.extensions:
            self._smtp_methods.pop("HELP", None)
        # aiosmtpd takes whatever is named auth_* for a mechanism.
        self._auth_methods = {
            name: found for name, found in self._auth_methods.items() if callable(found.method)
        }
        if self._server._logins is None:
            # Those that are aiosmtpd's are for a handle_AUTH hook.
            for name in ("CRAM-MD5", "XOAUTH2"):
                self._auth_methods.pop(name, None)
        if "STARTTLS" not in self._terms.extensions:
            self._smtp_methods.pop("STARTTLS", None)

    def abort(self) -> None:
        """Hang up, without another word."""
        transport: asyncio.Transport | None = self.transport
        if transport is not None:
            self._note_end("dropped by the server")
            transport.abort()

    # Connecting, and the end of it.

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

    def _create_session(self) -> Session:
        return Session(self.loop)

    def _cb_client_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super()._cb_client_connected(reader, writer)
        self._stream: Any = reader
        self._reader: Any = CommandReader(reader, self._next_command, self._next_answer)

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

    async def _handle_client(self) -> None:
        try:
            await self._greet()
            await super()._handle_client()
        except asyncio.CancelledError:  # as the base class does, in its own part
            self._writer.close()
            raise

    async def _greet(self) -> None:
        peer = self._record.peer
        if await self._is_struck("CONNECT", [str(peer[0])] if peer else []):
            # What comes next is the greeting, and the client has had one.
            self._is_greeted = True

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

    # What it says.

    async def push(self, status: str | bytes) -> None:
        """Send a reply, or add it to those that are sent together."""
        if self._is_greeted and not self._command:
            return
        if self._is_mute:
            return
        if isinstance(status, str):
            if not isinstance(status, AsGiven) and self._command not in ("", "EHLO", "HELO"):
                status = self._terms.reply(status, self._command)
            if self._command == "AUTH" and status.startswith("535"):
                self._record.failed_logins += 1
            status = status.encode("utf-8", "surrogateescape")
        if self._corked is None:
            self._note(None, status)
            await super().push(status)
        else:
            self._corked += status + b"\r\n"

    def _note(self, said: bytes | int | str | None, told: bytes | None = None) -> None:
        self._record.note(self.loop.time(), said, told)

    def _advertised(self, lines: list[str]) -> list[str]:
        extras = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")
        # Under TLS aiosmtpd always tells of AUTH.
        absent = frozenset() if self._server._offers_auth else {"AUTH"}
        return advertised(lines, extras, self._server._hidden_extensions | absent)

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        if command in ("MAIL", "RCPT"):
            args[1].extend(self._parameters)
        elif command == "EHLO" and len(args) > 1:
            args = (args[0], self._advertised(args[1]))
        try:
            status = await super()._call_handler_hook(command, *args)
        except Exception as error:
            if hasattr(self.event_handler, "handle_exception"):
                raise  # that is aiosmtpd's own way to deal with it
            where = f"{type(self._server).__name__}.handle_{command}"
            raise HookFailed(self._terms.report(where, error)) from error
        return AsGiven(status) if isinstance(status, str) else status

    async def handle_exception(self, error: Exception) -> str:
        """Say what to reply when a command raised."""
        if hasattr(self.event_handler, "handle_exception"):
            return AsGiven(await super().handle_exception(error))
        if isinstance(error, HookFailed):
            return error.reply
        return await super().handle_exception(error)

    # Faults, gates and taking down.

    async def _next_command(self) -> bytes:
        """Read a line, and do with it what was ordered.

        :return: The first that aiosmtpd has to see.
        """
        while True:
            line = await self._read_line()
            if self._is_discarding:  # the rest of a line that was too long
                self._is_discarding = False
                return line
            verb, _, argument = line.rstrip(b"\r\n").partition(b" ")
            command = verb.upper().decode("ascii", "replace")
            self._command = command or "?"
            is_secret = self._is_secret(command, line)
            if self._is_refused and command != "QUIT":
                await self.push("503 There is no service here")
            elif is_secret:
                await self.push("500 Error: bad syntax")
            elif command not in _COMMANDS or not await self._is_struck(
                command, self._names(command, argument)
            ):
                return line

    async def _next_answer(self) -> bytes:
        """Read what answers AUTH's challenge, and do not take it down."""
        stream = self._stream
        is_too_long = False
        while True:
            try:
                line: bytes = await stream.readuntil()
                break
            except asyncio.LimitOverrunError as error:
                is_too_long = True
                await stream.read(error.consumed)
        self._note("an answer to the challenge (left out)")
        if is_too_long:
            raise ValueError("an answer that is too long")
        return line

    async def _read_line(self) -> bytes:
        """Read a line, when all that came before it is done with."""
        await self._drop_if_ordered()
        if self.transport.is_closing():  # aiosmtpd would go on
            await self._hang_up(abruptly=False)
        try:
            line: bytes = await self._stream.readuntil()
        except asyncio.LimitOverrunError:
            self._command = "?"
            if not self._is_discarding:
                self._note("a line that is too long")
            self._is_discarding = True
            raise
        if self._finishing is not None:
            await asyncio.wait([self._finishing])
        return line

    def _is_secret(self, command: str, line: bytes) -> bool:
        """Take down a line from the client, but no secrets (RFC 4954, 4).

        :param command: Its first word.
        :param line: The line.
        :return: Whether it may have a secret in it that is in the wrong place;
            then nobody else is to see it.
        """
        words = line.split(None, 2)
        if words and words[0].upper().startswith(b"AUTH"):
            mechanism = b"".join(words[1:2]).decode("ascii", "replace").upper()
            known = f" {mechanism}" if mechanism in self._auth_methods else ""
            self._note(f"AUTH{known} (and what follows is left out)")
            self._is_after_auth = True
            return command != "AUTH"
        if self._is_after_auth and command not in self._smtp_methods:
            self._note("no command, but perhaps an answer to a challenge (left out)")
            return True
        self._is_after_auth = False
        self._note(line)
        return False

    def _names(self, stage: str, argument: bytes = b"") -> list[str]:
        """Give what a fault's glob is matched with."""
        if stage in ("DATA", "EOM"):
            return [(self.envelope.mail_from or "").strip("<>"), *self.envelope.rcpt_tos]
        text = argument.decode("utf-8", "replace").strip()
        if stage in ("MAIL", "RCPT"):
            path = _PATH.search(text)
            return [path[1] if path else text.partition(":")[2].strip()]
        if stage in ("EHLO", "HELO"):
            return [text]
        if stage == "AUTH":
            return [text.partition(" ")[0]]
        return [self.session.host_name or ""]

    async def _is_struck(self, stage: str, names: list[str]) -> bool:
        """Do at a stage what was ordered for it.

        :param stage: The stage.
        :param names: What a glob is matched with.
        :return: Whether that was all, and nothing else is to be done.
        """
        if not self._script.active:
            return False
        if not await self._script.pass_gates(stage, names):
            await self._hang_up(abruptly=True)
        rule = self._script.strike(stage, names)
        if rule is None:
            return False
        if rule.delay:
            await asyncio.sleep(rule.delay)
        if rule.drop == "before":
            await self._hang_up(abruptly=True)
        self._is_to_drop = rule.closes
        self._is_mute = rule.drop == "instead"
        if rule.reply is None:
            return False
        if stage == "AUTH" and rule.reply.startswith(b"535"):
            self._record.failed_logins += 1
        await self.push(rule.reply)
        await self._drop_if_ordered()
        # Another greeting than 220 means that nothing else will be had
        # (RFC 5321, 3.1).
        self._is_refused = stage == "CONNECT" and not rule.reply.startswith(b"220")
        return True

    async def _drop_if_ordered(self) -> None:
        if self._is_to_drop:
            await self._hang_up(abruptly=self._is_mute)

    async def _hang_up(self, *, abruptly: bool) -> None:
        """Close the connection.  What was written is sent, if not abruptly."""
        self._note_end("dropped by the server")
        if abruptly:
            self.transport.abort()
        else:
            self.transport.close()
        # The end of the connection cancels whoever waits here.
        await self.loop.create_future()
