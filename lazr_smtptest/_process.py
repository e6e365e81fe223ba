"""The server process, seen from the test process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from multiprocessing import connection, process
from typing import TYPE_CHECKING

from lazr_smtptest._clock import now

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

__all__ = ["STACK_SIGNAL", "ServerProcessHandle"]

#: Asks the server process for its stacks.
STACK_SIGNAL = signal.SIGUSR1

#: Seconds to wait for a dead process to be reaped.  The kernel has only to
#: finish taking it apart.
_REAP_TIMEOUT = 5.0

#: Seconds of silence that mean that a stack is complete.
_STACK_QUIET = 0.05


class ServerProcessHandle:
    """Watches a process and, if need be, ends it.

    A `multiprocessing.Process` alone does not do: a forked server process
    lets go of the descriptor by which its sentinel, and so the time limit of
    ``join``, would know of its end.

    :param process: The started process.
    :param stacks: Where it writes its stacks to.
    """

    def __init__(self, process: BaseProcess, stacks: Connection) -> None:
        self._process = process
        self._stacks = stacks
        os.set_blocking(stacks.fileno(), False)
        assert process.pid is not None
        self.pid: int = process.pid
        self.pidfd = _open_pidfd(self.pid)
        self._poll: select.poll | None = None
        if self.pidfd:
            self._poll = select.poll()
            self._poll.register(self.pidfd, select.POLLIN)

    def is_gone(self) -> bool:
        """Say whether the process has ended.  Does not block."""
        poll = self._poll  # a signal handler may close it meanwhile
        if poll is not None:
            return bool(poll.poll(0))
        return not self._process.is_alive()

    def reap(self) -> int | None:
        """Wait for the exit code of a process that is ending.

        :return: The exit code; None if somebody else has it, as happens where
            SIGCHLD is ignored.
        """
        if self.pidfd:
            connection.wait([self.pidfd], _REAP_TIMEOUT)
            # From a fork server the exit code comes by way of the sentinel, a
            # little later; for a forked process this does not wait.
            connection.wait([self._process.sentinel], _REAP_TIMEOUT)
            return self._process.exitcode
        deadline = now() + _REAP_TIMEOUT
        while self._process.exitcode is None and now() < deadline:
            time.sleep(0.001)  # there is nothing to wait on
        return self._process.exitcode

    def show_stacks(self, timeout: float) -> str:
        """Have the process show its stacks.

        :param timeout: How long to wait for them to begin, in seconds.
        :return: What it showed; empty if it did not, as a process that was
            stopped by a signal cannot.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACK_SIGNAL)
        return self.read_stacks(timeout)

    def read_stacks(self, timeout: float = 0.0) -> str:
        """Read what the process has written there, last words included.

        :param timeout: How long to wait for it to begin, in seconds.
        :return: What it has written.
        """
        pieces = []
        while self._stacks.poll(timeout):
            try:
                piece = os.read(self._stacks.fileno(), 65_536)
            except BlockingIOError:  # another thread was quicker
                break
            if not piece:
                break
            pieces.append(piece)
            timeout = _STACK_QUIET
        return b"".join(pieces).decode("utf-8", "replace").strip()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def close(self) -> None:
        """Close what this process has of it."""
        # It is an error for multiprocessing if the process has no exit code.
        with contextlib.suppress(ValueError):
            self._process.close()
        self.disown()

    def disown(self) -> None:
        """Have multiprocessing forget it: at the end, it kills what it knows.

        The process may be gone with its exit code, and then the process id may
        be another's; or this may be a forked child, of which it is no child.
        """
        children: set[BaseProcess] = getattr(process, "_children", set())
        children.discard(self._process)
        self._poll = None
        if self.pidfd is not None:
            self.pidfd.close()


def _open_pidfd(pid: int) -> Connection | None:
    """Open a descriptor that is readable when a process has ended.

    :return: The descriptor, in an object that closes it; None where there is
        no such thing (it takes Linux 5.3), and the pipe has to do alone.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return connection.Connection(os.pidfd_open(pid), writable=False)
    except OSError:
        return None
