"""A session, and what is done to it from outside.  Server process.

aiosmtpd's session takes a line, and says what it makes of it.  This one has
something between that and the wire: there a session is taken down, and what a
test has ordered by `Controller.fault` and `Controller.gate` is carried out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from lazr_smtptest._hooks import HookedSMTP
from lazr_smtptest._replies import AsGiven
from lazr_smtptest.faults import STAGES

__all__ = ["StagedSMTP"]

#: The stages that are commands.
_COMMANDS = frozenset(STAGES) - {"CONNECT", "EOM"}

_PATH = re.compile(r"<([^>]*)>")


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


class StagedSMTP(HookedSMTP):
    """One session, and what comes between it and the wire."""

    #: The command that is being answered; empty before the first.
    _command = ""

    #: The lines of a reply that are to be sent together.
    _corked: bytearray | None = None

    # What a fault has left to be done: say nothing; close the connection
    # after this command; send no greeting; refuse all commands.
    _is_mute = _is_to_drop = _is_greeted = _is_refused = False

    #: Whether what is in the reader's buffer ends in the midst of a line.
    _mid_line = False

    #: Whether the rest of a line that was too long is still to come.
    _is_discarding = False

    #: Whether an answer to AUTH's challenge is to come.
    _is_challenged = False

    #: Whether no other command has come since AUTH.
    _is_after_auth = False

    # Connecting.

    def _cb_client_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super()._cb_client_connected(reader, writer)
        self._stream: Any = reader
        self._reader: Any = CommandReader(reader, self._next_command, self._next_answer)

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
