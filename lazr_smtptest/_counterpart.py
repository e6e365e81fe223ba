"""The server process, as errors tell of it.  Test process.

What was done to it, how it ended, and what to raise about that.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from lazr_smtptest._arrivals import Arrivals
from lazr_smtptest._ending import after_end, describe_end, describe_lost
from lazr_smtptest._process import ServerProcessHandle
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

    @property
    def exitcode(self) -> int | None:
        """The exit code of a process that is known to be gone."""
        return self._exitcode

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
                f"{self.name} belongs to process {self._owner}, which started it; "
                f"this is process {os.getpid()}, a child of that.  "
                "Connect to it from here, and call its controller there",
                **self.where,
            )

    def raise_silence(self, what: str, elapsed: float, option: str = "") -> NoReturn:
        """Raise the reason why something did not come.

        :param what: What it did not do.
        :param elapsed: Within how many seconds.
        :param option: The controller's option that says how long, if one does.
        """
        self.check_owner()
        if self._arrivals.ended and self.ended_well():
            raise NotRunning(
                f"{self.name} was stopped, by another thread, while this call waited for it: "
                "call stop() when no other thread uses it any more",
                **self.where,
            )
        if self._arrivals.ended:
            raise self.death()
        stack = self.show_stacks()
        text = f"{self.name} {what} within {elapsed:g} seconds"
        longer = f", or give a longer {option}" if option else ""
        if stack:
            text += f".  Look in its stack for what keeps it{longer}:\n{stack}"
        else:
            text += (
                ", and does not show its stack: is it stopped, or the machine overloaded?  "
                f"Run fewer things at once{longer}"
            )
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
        text = (
            f"{self.name} {describe_end(exitcode, forced=self._forced)}; {describe_lost(lost)}.  "
            f"{after_end(exitcode, forced=self._forced)}"
        )
        if stack:
            text += f".  Its last words:\n{stack}"
        return ServerDied(text, exitcode=exitcode, lost=lost, stack=stack, **self.where)
