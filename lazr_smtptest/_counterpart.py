"""The server process, as errors tell of it.  Test process.

What was done to it, how it ended, and what to raise about that.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from lazr_smtptest._arrivals import Arrivals
from lazr_smtptest._process import ServerProcessHandle, describe_exit
from lazr_smtptest.errors import NotRunning, ServerDied, ServerStuck

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["Counterpart"]

#: Seconds to wait for a stuck process to show its stacks.
_STACK_TIMEOUT = 1.0


class Counterpart:
    """The process at the other end; there is none before `attach`.

    :param arrivals: What it has sent.
    :param stacks: The pipe that it writes its stacks to.
    :param where: What errors say of it; `attach` fills this in.

    :ivar asked_to_stop: Whether it was asked to end.
    :ivar death_told: Whether a call has raised that it died.
    """

    def __init__(self, arrivals: Arrivals, stacks: Connection, where: dict[str, Any]) -> None:
        self._arrivals = arrivals
        self._stacks = stacks
        self._owner = os.getpid()
        self._process: ServerProcessHandle | None = None
        self._forced = False
        self._exitcode: int | None = None
        self._last_words = ""
        self.where = where
        self.asked_to_stop = self.death_told = False

    def attach(self, process: BaseProcess, host: str, port: int) -> None:
        """Say which process it is, and where it listens."""
        self._process = ServerProcessHandle(process, self._stacks)
        self.where.update(host=host, port=port, pid=process.pid)

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    @property
    def pidfd(self) -> Connection | None:
        """What becomes readable when it ends, where the system has that."""
        return None if self._process is None else self._process.pidfd

    @property
    def name(self) -> str:
        """What to call it."""
        return (
            f"the server process {self.where.get('pid')} "
            f"on {self.where.get('host')} port {self.where.get('port')}"
        )

    def is_foreign(self) -> bool:
        """Say whether this is a forked child's copy."""
        return os.getpid() != self._owner

    def is_alive(self) -> bool:
        """Say whether the process is there and has not ended.  Does not block."""
        return self._process is not None and not self._process.is_gone()

    def is_gone(self) -> bool:
        """Say whether the process was there and has ended.  Does not block."""
        return self._process is not None and self._process.is_gone()

    # What is done to it.

    def show_stacks(self, timeout: float = _STACK_TIMEOUT) -> str:
        """Have it show its stacks.

        :param timeout: How long to wait for them to begin, in seconds.
        :return: What it showed, if it did.
        """
        if self._process is None or self._arrivals.ended:
            return ""
        return self._process.show_stacks(timeout)

    def terminate(self) -> None:
        """End it by SIGTERM, to which it does not listen."""
        if self._process is not None and not self._arrivals.ended:
            self._forced = True
            self._process.terminate()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None and not self._arrivals.ended:
            self._forced = True
            self._process.kill()

    def note_end(self) -> None:
        """Find out how it ended; it is doing so, or has."""
        if self._process is not None:
            self._exitcode = self._process.reap()
            self._last_words = self._process.read_stacks()

    def close(self) -> None:
        """Close what this process has of it; a forked child, its copy."""
        if self._process is not None:
            self._process.disown() if self.is_foreign() else self._process.close()

    # What to raise.

    def check_owner(self) -> None:
        """See to it that this is the process that started it.

        :raises NotRunning: It is a child of that one.
        """
        if self.is_foreign():
            raise NotRunning(
                f"this controller belongs to process {self._owner}, which started it; "
                f"this is process {os.getpid()}, a child of it.  Connect to the "
                "controller's host and port from here, and read messages there",
                **self.where,
            )

    def raise_silence(self, what: str, elapsed: float) -> NoReturn:
        """Raise the reason why something did not come.

        :param what: What it did not do.
        :param elapsed: Within how many seconds.
        """
        self.check_owner()
        if self._arrivals.ended and self.ended_well():
            raise NotRunning("the server has been stopped meanwhile", **self.where)
        if self._arrivals.ended:
            raise self.death()
        stack = self.show_stacks()
        text = f"{self.name} {what} within {elapsed:g} seconds"
        if stack:
            text += f".  It was here:\n{stack}"
        else:
            text += ", and does not show its stack: is it stopped, or the machine overloaded?"
        raise ServerStuck(text, stack=stack, elapsed=elapsed, **self.where)

    def ended_well(self) -> bool:
        """Say whether the end was what was asked for, and cost no message."""
        if not self.asked_to_stop or self._arrivals.lost():
            return False
        return self._forced or self._exitcode in (0, None)

    def death(self) -> ServerDied:
        """Make the error that tells of an end that was not asked for."""
        self.death_told = True
        exitcode, stack, lost = self._exitcode, self._last_words, self._arrivals.lost()
        how = "had to be killed" if self._forced else "ended by itself"
        text = (
            f"{self.name} {how}, with {describe_exit(exitcode)}; "
            f"{lost} accepted message{'s' if lost != 1 else ''} had not left it.  "
            "Call stop(), then start(), for a new one"
        )
        if stack:
            text += f".  Its last words were:\n{stack}"
        return ServerDied(text, exitcode=exitcode, lost=lost, stack=stack, **self.where)
