"""A server's own hooks, and what becomes of them when they raise.  Server process."""

from __future__ import annotations

from typing import Any

from lazr_smtptest._connection import Connection
from lazr_smtptest._esmtp import advertised
from lazr_smtptest._replies import AsGiven
from lazr_smtptest.server import EXTENSIONS

__all__ = ["HookFailed", "HookedSMTP"]

#: Commands whose hooks return the reply, and nothing else.
_REPLYING = {"HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "VRFY", "QUIT"}


class HookFailed(Exception):
    """A hook raised, and the test process has been told.

    :ivar reply: What to tell the client.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class HookedSMTP(Connection):
    """One session, and the hooks that aiosmtpd calls for its commands."""

    #: Parameters of the command in hand which aiosmtpd does not know.
    _parameters: list[str] | tuple[()] = ()

    def _advertised(self, lines: list[str]) -> list[str]:
        """Make the lines of EHLO's reply of those that aiosmtpd has."""
        extras = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")
        return advertised(lines, extras, EXTENSIONS - self._terms.extensions)

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        if command in ("MAIL", "RCPT"):
            args[1].extend(self._parameters)
        elif command == "EHLO" and len(args) > 1:
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
