"""The server process as a process of the system: is it alive, its stacks, how it ended.

Test process.  What ends it step by step is `ServerLink.end`.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection, process
from os import getpid, kill, readv, set_blocking
from select import POLLIN
from time import sleep
from typing import TYPE_CHECKING, Any

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._names import SPELLING
from lazr_smtptest._util import new_poll, now, wait_ready
from lazr_smtptest._wire.channel import STACK_SIGNAL
from lazr_smtptest.errors import NotRunning, ServerDied

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from select import poll

    from lazr_smtptest._wire.endpoint import Endpoint, SocketFile

#: Whose functions multiprocessing calls for a process that has ended.
ENDING = (builtins, os, select, selectors, time)

#: Seconds to wait for a dead process to be reaped.  The kernel has only to
#: finish taking it apart.
_REAP_TIMEOUT = 5.0

#: Seconds that another thread has to store the exit code that it has got.
_STORE_TIMEOUT = 0.05

#: Seconds to wait for a stuck process to show its stacks.
_STACK_TIMEOUT = 1.0

#: Seconds of silence that mean that a stack is complete.
_STACK_QUIET = 0.05

#: Signals that a process brings on itself.
_CRASHES = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})


class ServerProcess:
    """A server process that was started: watches it and, if need be, ends it.

    A `multiprocessing.Process` alone does not do: a forked server process points
    the descriptor at the null device by which its sentinel, and so the time limit
    of ``join``, would know of its end.
    """

    def __init__(
        self,
        process: BaseProcess,
        stacks: Connection,
        endpoint: Endpoint,
        socket_files: Sequence[SocketFile],
        on_close: Callable[[], object] | None = None,
    ) -> None:
        set_blocking(stacks.fileno(), False)
        pid = process.pid
        assert pid is not None
        self._process = process
        self._stacks = stacks
        self._socket_files = socket_files
        # What was made for it goes as late as this: after a fork, to free memory is to copy it.
        self._on_close = on_close
        self._owner = getpid()
        self.pid: int = pid
        self.endpoint = endpoint
        self.exitcode: int | None = None  # as soon as it is known to be gone
        self.asked_to_stop = self.death_was_raised = False
        self._has_ended = self._was_forced = False
        self._last_words = ""
        #: What becomes readable when it ends; None where the system has no such thing.
        self.pidfd = _open_pidfd(pid)
        #: Whether to look for its end now and then.
        self.must_be_looked_at = self.pidfd is None
        self._poll: poll | None = None
        if self.pidfd:
            self._poll = _poll_for_reading(self.pidfd)

    #: What errors say of a server that is gone, and what a call needs first that finds it so.
    absence = "No server is running"
    advice = "call start() first"

    @property
    def where(self) -> dict[str, Any]:
        """What errors say of it."""
        return {**self.endpoint.facts, "pid": self.pid}

    @property
    def name(self) -> str:
        return f"the server process {self.pid} on {self.endpoint}"

    @property
    def closed(self) -> str:
        """What errors say when it has been stopped."""
        return f"{self.name} has been stopped: call start(), and make faults and gates anew"

    def is_inherited(self) -> bool:
        return getpid() != self._owner

    def check_owner(self) -> None:
        """Raise NotRunning in a child of the process that started it."""
        if self.is_inherited():
            raise NotRunning(
                f"{self.name} belongs to process {self._owner}, which started it; "
                f"this is process {getpid()}, a child of that.  "
                "Connect to it from here, and call its controller there",
                **self.where,
            )

    def is_gone(self) -> bool:
        """Whether the process has ended.  Does not block."""
        watch = self._poll  # a signal handler may close it meanwhile
        if watch is not None:
            return bool(watch.poll(0))
        try:
            with without_fakes():
                # To multiprocessing, a process is alive whose exit code somebody else has got.
                return not (self._process.is_alive() and _exists(self.pid))
        except ValueError:  # it was closed, which it is when it has ended
            return True

    # Its stacks.

    def show_stacks(self, timeout: float = _STACK_TIMEOUT) -> str:
        """Ask the process for its stacks.  The timeout is for their beginning.

        A process that was stopped by a signal writes none.
        """
        if self._has_ended:
            return ""
        with contextlib.suppress(ProcessLookupError):
            kill(self.pid, STACK_SIGNAL)
        return self._read_stacks(timeout)

    def _read_stacks(self, timeout: float = 0.0) -> str:
        pieces = bytearray()
        while _is_readable(self._stacks, timeout):
            scratch = bytearray(4096)
            try:
                count = readv(self._stacks.fileno(), [scratch])
            except BlockingIOError:  # another thread was quicker
                break
            if not count:
                break
            pieces += scratch[:count]
            timeout = _STACK_QUIET
        return pieces.decode("utf-8", "replace").strip()

    # Its end.

    def terminate(self) -> None:
        """End it by SIGTERM, which it does not handle."""
        self._end_by(self._process.terminate)

    def kill(self) -> None:
        self._end_by(self._process.kill)

    def _end_by(self, strike: Callable[[], None]) -> None:
        # One that is gone may have been reaped by others, and its number be another's now.
        if not self._has_ended and not self.is_gone():
            self._was_forced = True
            with without_fakes():
                strike()

    def note_end(self) -> None:
        """Find out how it ended; it is doing so, or has.  Blocks up to 10 seconds."""
        self.exitcode = self._reap()
        self._last_words = self._read_stacks()
        self._has_ended = True

    def _reap(self) -> int | None:
        # None if somebody else has the exit code, as happens where SIGCHLD is ignored.
        deadline = now() + _REAP_TIMEOUT
        if self.pidfd:
            _is_readable(self.pidfd, _REAP_TIMEOUT)
        while not self.is_gone() and now() < deadline:
            sleep(0.001)  # there is nothing to wait on
        # From a fork server the exit code comes by way of the sentinel, a little later; for
        # a forked process this does not wait.
        exitcode = self._poll_exitcode()
        if exitcode is None:
            _is_readable(self._process.sentinel, _REAP_TIMEOUT)
            # Another thread may be about to store the code that it has got.
            deadline = now() + _STORE_TIMEOUT
            while (exitcode := self._poll_exitcode()) is None and now() < deadline:
                sleep(0.001)
        return exitcode

    def _poll_exitcode(self) -> int | None:
        with without_fakes(*ENDING):
            return self._process.exitcode

    def ended_well(self, lost: int) -> bool:
        """Whether the end was what was asked for, and cost no message."""
        if not self.asked_to_stop or lost:
            return False
        return self._was_forced or self.exitcode in (0, None)

    def death(self, lost: int, more: str = "") -> ServerDied:
        """Make the error for an end that was not asked for, and how many messages that cost."""
        self.death_was_raised = True
        text = (
            f"{self.name} {describe_end(self.exitcode, forced=self._was_forced)}; "
            f"{_describe_lost(lost)}{more}.  {_advice(self.exitcode, forced=self._was_forced)}"
        )
        if self._last_words:
            text += f".  Its last words:\n{self._last_words}"
        return ServerDied(
            text, exitcode=self.exitcode, lost=lost, stack=self._last_words, **self.where
        )

    def close(self) -> None:
        """Close what this process has of it; a forked child, its copy."""
        if not self.is_inherited():
            # It is an error for multiprocessing if the process has no exit code.
            with contextlib.suppress(ValueError):
                self._process.close()
            for file in self._socket_files:
                file.remove()
            if self._on_close is not None:
                self._on_close()
                self._on_close = None
        # At its end, multiprocessing kills the children that it knows.  This one
        # may be gone with its exit code, and then the process id may be
        # another's; or this may be a forked child, of which it is no child.
        children: set[BaseProcess] = getattr(process, "_children", set())
        children.discard(self._process)
        self._poll = None
        if self.pidfd is not None:
            self.pidfd.close()


def _is_readable(pipe: Connection | int, timeout: float) -> bool:
    # `multiprocessing.connection` measures its timeouts by a clock that a test may have
    # stopped.  And eventlet raises if two greenlets wait for one descriptor.
    return bool(_poll_for_reading(pipe).poll(0) or wait_ready([pipe], timeout=timeout))


def _poll_for_reading(pipe: Connection | int) -> poll:
    watch: poll = new_poll()
    watch.register(pipe, POLLIN)
    return watch


def _exists(pid: int) -> bool:
    try:
        kill(pid, 0)
    except OSError:  # none has this number; or one that we did not start, and may not signal
        return False
    return True


def _open_pidfd(pid: int) -> Connection | None:
    # In an object that closes it.  It takes Linux 5.3, and some sandboxes refuse it.
    # Elsewhere, the pipe's end of file has to do, and a look now and then.
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return connection.Connection(os.pidfd_open(pid), writable=False)
    except OSError:
        return None


# How it ended, in words.


def describe_end(exitcode: int | None, *, forced: bool = False) -> str:
    """Return words for how a process ended; forced from here, if it did not stop."""
    if exitcode is None:
        return "ended with an unknown exit code"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    if forced:
        return f"did not stop when asked, and was ended by {_signal_name(-exitcode)}"
    if -exitcode in _CRASHES:
        return f"crashed with {_signal_name(-exitcode)}"
    return f"was killed by {_signal_name(-exitcode)}"


def _advice(exitcode: int | None, *, forced: bool) -> str:
    if forced:
        longer = SPELLING.get().longer("stop_timeout")
        return f"The log shows what kept it{longer and f'; if it was only slow, {longer}'}"
    if exitcode is None:
        look = "Do not ignore SIGCHLD, so that there is an exit code"
    elif exitcode >= 0:
        look = f"Look for what exits{' in its handlers' if SPELLING.get().is_program else ''}"
    elif -exitcode in _CRASHES:
        look = "Look for the call into C code that did it"
    else:
        look = "Look for what killed it (the system itself does so when memory runs out)"
    return f"{look}, and {SPELLING.get().anew}"


def _describe_lost(count: int) -> str:
    noun, verb = ("messages", "are") if count > 1 else ("message", "is")
    return f"{count or 'no'} {noun} that it had accepted {verb} lost"


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")  # real-time signals have none
