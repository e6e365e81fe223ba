"""The commands, where they differ from aiosmtpd's.  Server process.

Those that begin or end a session or a transaction are here.
"""

from __future__ import annotations

import re

import aiosmtpd.smtp

from lazr_smtptest._data import DataCommands
from lazr_smtptest._esmtp import EXTRA_COMMAND_SIZE, take_parameters
from lazr_smtptest._replies import AsGiven
from lazr_smtptest._security import SecurityCommands

__all__ = ["PLAIN", "Commands"]

#: ``<local-part@domain>`` where both are dot-atoms of ASCII letters, digits
#: and the commonest specials: these mean the same to every parser.
PLAIN = r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"

#: Such an address, and parameters.
_PLAIN_PATH = re.compile(PLAIN + r"((?: [^\r\n()]*)?)\Z")


class Commands(SecurityCommands, DataCommands):
    """One session, and what it makes of commands."""

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
        self._record.helo = self.session.host_name
        if corked:
            lines = corked[:-2].decode("utf-8", "surrogateescape").split("\r\n")
            if "EHLO" not in self._handle_hooks and lines[0].startswith("250"):
                lines = self._advertised(lines)
            elif self._ehlo_hook_ver == "old" and lines[1:]:
                *before, last = lines  # which is the hook's own
                lines = [f"250-{line[4:]}" for line in self._advertised(before)] + [last]
            await self.push(AsGiven("\r\n".join(lines)))

    @aiosmtpd.smtp.syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str) -> None:
        """Answer HELO."""
        await super().smtp_HELO(hostname)
        self._record.helo = self.session.host_name

    # Mail.

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        plain = _PLAIN_PATH.match(arg)
        if plain and not self.local_part_limit:
            return plain[1], plain[2]
        try:
            return super()._getaddr(arg)
        except (IndexError, ValueError):  # the parser of an older Python stumbles
            return None, None

    @aiosmtpd.smtp.syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        """Begin a message."""
        arg = await self._without_parameters("MAIL", arg)
        if arg is not None:
            await super().smtp_MAIL(arg or None)

    @aiosmtpd.smtp.syntax("RCPT TO: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take a recipient, unless there are enough (RFC 5321, 4.5.3.1.10)."""
        count = len(self.envelope.rcpt_tos)
        if count >= self._server.recipient_limit:
            await self.push("452 4.5.3 Too many recipients")
            return
        arg = await self._without_parameters("RCPT", arg)
        if arg is None:
            return
        await super().smtp_RCPT(arg or None)
        if self._parameters and len(self.envelope.rcpt_tos) > count:
            self._parameters_by_recipient()[count] = tuple(self._parameters)

    def _parameters_by_recipient(self) -> dict[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = vars(self.envelope).setdefault("parameters", {})
        return found

    async def _without_parameters(self, command: str, arg: str | None) -> str | None:
        """Set the parameters aside that aiosmtpd does not know.

        :return: What is left, or None if the client has been told why not.
        """
        self._parameters = []
        if not arg or not self.session.extended_smtp:
            return arg or ""
        extensions = self._terms.extensions
        if self._server._needs_tls_for_auth and not self._tls_protocol:
            extensions = extensions - {"AUTH"}
        try:
            arg, self._parameters = take_parameters(command, arg, extensions)
        except ValueError as error:
            await self.push(str(error))
            return None
        return arg

    @aiosmtpd.smtp.syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:
        """End the transaction, and reset the server if that was asked for."""
        if self._terms.on_rset and not arg:
            await self._terms.on_rset()
        await super().smtp_RSET(arg)

    @aiosmtpd.smtp.syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> None:
        """End the session."""
        if arg or self._is_mute:
            await super().smtp_QUIT(arg)
            return
        self._note_end("QUIT")
        try:
            await super().smtp_QUIT(arg)
        except Exception:  # of a hook, and the session goes on
            self._record.ended = "open"
            raise
