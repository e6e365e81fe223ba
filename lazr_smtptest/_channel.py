"""What joins the two processes, and both ends of it.

Four pipes, all made in the test process:

``records``
    From the server process: messages, replies to requests, log records and
    failures, as frames, in the order in which they came about.
``requests``
    To the server process: reset, stop, acknowledgements.
``lifeline``
    To the server process, and nothing is ever written to it.  The test
    process alone holds its writing end, so its end of file says that the test
    process is gone, however it went.
``stacks``
    From the server process: what `faulthandler` writes about a process that
    can no longer speak for itself.

Beside them stand three numbers in shared memory, which only the server process
writes: how many messages it has put on ``records``, how many failures, and how
often it said that all before is to be forgotten.  It counts before it answers
the client.  So a test process that has seen the answer, and has read less than
was counted, knows that the rest is on its way, and one that has read as much
knows that there is no more.

A `multiprocessing.Queue` is not used for the records.  Its reader cannot give
up half way through a record, so a stopped server process would stop the test
process too; its writer is a thread, so a message could be accepted and still
die with the process; and the thread costs a third of the throughput.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._frames import FrameReader, encode
from lazr_smtptest.errors import HandlerError, NotRunning, ServerDied, ServerStuck

if TYPE_CHECKING:
    from ctypes import Array, c_uint64
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

__all__ = [
    "ACCEPTED",
    "FAILED",
    "FORGET",
    "FORGOTTEN",
    "STACK_SIGNAL",
    "HomeEnd",
    "ServerEnd",
    "open_channel",
]

#: The places of the shared numbers: how many messages the server process has
#: put, how many failures it has reported, and how often it was reset.
ACCEPTED, FAILED, FORGOTTEN = 0, 1, 2

#: Stands for a message where everything before it is to be forgotten, for a
#: reader that has passed some of it on.
FORGET = "forget"

#: Asks the server process for its stacks.
STACK_SIGNAL = signal.SIGUSR1

#: Seconds to wait for a record that is known to be on its way.  It lies in
#: the pipe already, or the server process is writing it.
TRANSIT_TIMEOUT = 5.0

#: Seconds to wait for a dead process to be reaped.  The kernel has only to
#: finish taking it apart.
_REAP_TIMEOUT = 5.0

#: Seconds to wait for the stacks of a stuck process, and how long silence
#: must last to mean that they are complete.
_STACK_TIMEOUT, _STACK_QUIET = 1.0, 0.05

_log = logging.getLogger("lazr_smtptest")


class ServerEnd(NamedTuple):
    """The server process's ends.  It goes there as an argument of the process."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Array[c_uint64]

    def pipes(self) -> tuple[Connection, ...]:
        """Give the pipes among the ends."""
        return self.records, self.requests, self.lifeline, self.stacks

    def close(self) -> None:
        """Close this process's copies."""
        for pipe in self.pipes():
            pipe.close()


def open_channel(context: BaseContext) -> tuple[HomeEnd, ServerEnd]:
    """Make a channel, in the test process.

    :param context: The multiprocessing context of the process to come.
    :return: The end to keep, and the end to hand over.
    :raises OSError: No descriptor or no memory was left; nothing stays open.
    """
    from ctypes import c_uint64

    with ExitStack() as stack:
        pipes = []
        for _ in range(4):
            pipe = context.Pipe(duplex=False)
            for end in pipe:
                stack.callback(end.close)
            pipes.append(pipe)
        records, requests, lifeline, stacks = pipes
        _enlarge(records[1].fileno())
        counters = context.RawArray(c_uint64, 3)
        home = HomeEnd(records[0], requests[1], lifeline[1], stacks[0], counters)
        stack.pop_all()
    return home, ServerEnd(records[1], requests[0], lifeline[0], stacks[1], counters)


def _enlarge(pipe: int) -> None:
    """Make a pipe as large as the system allows without privilege.

    What is in the pipe survives the server process.  Where the user's share
    of pipe memory is used up (pipe-user-pages-soft, see pipe(7)), the largest
    size that is still granted does.
    """
    if sys.platform != "linux":
        return
    try:
        with open("/proc/sys/fs/pipe-max-size") as limit:
            size = int(limit.read())
    except OSError:  # no procfs: the size that Linux has shipped since 2.6.35
        size = 1_048_576
    while size > 65_536:  # what a pipe has by itself
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2
        else:
            return


class HomeEnd:
    """The test process's end.  Any thread may use it.

    Nothing is read behind the test's back: each call takes in what has
    arrived.  When several threads wait, one of them watches the pipe and
    tells the others.
    """

    def __init__(
        self,
        records: Connection,
        requests: Connection,
        lifeline: Connection,
        stacks: Connection,
        counters: Array[c_uint64],
    ) -> None:
        self._records = records
        self._requests = requests
        self._lifeline = lifeline
        self._stacks = stacks
        self._counters = counters
        self._reader = FrameReader(records.fileno())
        os.set_blocking(requests.fileno(), False)
        os.set_blocking(stacks.fileno(), False)
        self._owner = os.getpid()
        self._process: BaseProcess | None = None
        self._pidfd: Connection | None = None
        self._where: dict[str, Any] = {}
        self._changed = threading.Condition(threading.Lock())
        self._watched = False
        self._ended = False
        self._closed = False
        self._asked_to_stop = False
        self._received = [0, 0, 0]
        self._messages: deque[Any] = deque()
        self._failures: deque[HandlerError] = deque()
        self._logs: deque[logging.LogRecord] = deque()
        self._replies: dict[int, Any] = {}
        self._request_count = 0
        self._exitcode: int | None = None
        self._last_words = ""
        _open_ends.add(self)

    def attach(self, process: BaseProcess, host: str, port: int) -> None:
        """Say which process is at the other end, and where it listens."""
        self._process = process
        self._pidfd = _open_pidfd(process.pid)
        self._where = {"host": host, "port": port, "pid": process.pid}

    # What there is.

    @property
    def ended(self) -> bool:
        """Whether the server process is known to be gone, or this end closed."""
        return self._ended

    def waiting(self) -> int:
        """Count the messages that can be taken, without a system call.

        Where some have not arrived yet, or a failure has not, those are
        awaited, or the reason why they never will be.

        :return: The number.
        :raises HandlerError: A handler has failed.
        :raises ServerDied: Nothing is left, and the server process is gone.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        if not self._ended and not self._in_transit():
            return len(self._messages)
        try:
            with self._changed:
                self._settle()
                self._raise_failure()
                if not self._messages:
                    self._raise_death()
                return len(self._messages) + self._in_transit()
        finally:
            self._pass_on_logs()

    def take(self, timeout: float = 0.0, *, failures: bool = True) -> Any | None:
        """Take the next message.

        :param timeout: How long to wait, in seconds, when none is there and
            none is on its way.
        :param failures: Whether to raise what handlers raised.
        :return: What was put, or None if there is nothing.
        :raises HandlerError: A handler has failed.
        :raises ServerDied: Nothing is left, and the server process is gone.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        try:
            with self._changed:
                if timeout > 0:
                    self._wait(lambda: self._messages or (failures and self._failures), timeout)
                self._settle()
                if failures:
                    self._raise_failure()
                if self._messages:
                    return self._messages.popleft()
                self._raise_death()
                return None
        finally:
            self._pass_on_logs()

    def remains(self) -> list[Any]:
        """Hand out all messages that have arrived."""
        with self._changed:
            remains = list(self._messages)
            self._messages.clear()
            return remains

    def request(self, what: str, *details: Any, timeout: float) -> Any:
        """Ask the server process for something, and wait for its answer.

        :param what: The request's name.
        :param details: Its arguments; picklable.
        :param timeout: How long to wait, in seconds.
        :return: The answer.
        :raises NotRunning: The channel is closed.
        :raises ServerDied: The server process is gone.
        :raises ServerStuck: It has not answered in time.
        """
        try:
            with self._changed:
                self._request_count += 1
                number = self._request_count
                self._post((number, what, *details), timeout)
                if not self._wait(lambda: number in self._replies, timeout):
                    raise self._silence(f"did not answer {what}()", timeout)
                return self._replies.pop(number)
        finally:
            self._pass_on_logs()

    def await_reply(self, number: int, timeout: float) -> Any:
        """Wait for an answer that nobody asked for: number 0 says ready."""
        with self._changed:
            if not self._wait(lambda: number in self._replies, timeout):
                raise self._silence("was not ready", timeout)
            return self._replies.pop(number)

    def tell(self, what: str, *details: Any) -> None:
        """Send something that has no answer; if nobody is there, that is that."""
        with self._changed:
            try:
                self._post((0, what, *details), TRANSIT_TIMEOUT)
            except (NotRunning, ServerDied):
                return

    def check(self) -> None:
        """Raise what a handler has raised, if it did and nobody knows yet.

        :raises HandlerError: A handler has failed.  Should several have, this
            is the first, and the others are dropped.
        :raises ServerStuck: A failure was on its way and has not come.
        """
        try:
            with self._changed:
                self._settle()
                try:
                    self._raise_failure()
                finally:
                    self._failures.clear()
        finally:
            self._pass_on_logs()

    def fail(self, failure: HandlerError) -> None:
        """Note a failure of code that was plugged in at this end."""
        with self._changed:
            self._failures.append(failure)
            self._changed.notify_all()

    # How it ends.

    def ask_to_stop(self, timeout: float) -> bool:
        """Ask the server process to end, and take in all it still has.

        :param timeout: How long to wait, in seconds.
        :return: Whether it has ended.
        """
        with self._changed:
            self._asked_to_stop = True
            try:
                self._post((0, "stop"), timeout)
            except ServerDied:
                return True
            except ServerStuck:
                return False
        return self.await_end(timeout)

    def await_end(self, timeout: float) -> bool:
        """Wait until the server process is gone and all it sent is here.

        :param timeout: How long to wait, in seconds.
        :return: Whether it has ended.
        """
        with self._changed:
            self._wait(lambda: self._ended, timeout)
            return self._ended

    def read_stacks(self, timeout: float = _STACK_TIMEOUT) -> str:
        """Have the server process show its stacks.

        :param timeout: How long to wait for them to begin, in seconds.

        :return: What it showed; empty if it did not, as a process that was
            stopped by a signal cannot.
        """
        pid = self._where.get("pid")
        if pid is None or self._ended:
            return ""
        try:
            os.kill(pid, STACK_SIGNAL)
        except ProcessLookupError:
            return ""
        return self._read_stacks(timeout)

    def close(self) -> None:
        """Close this end; what has arrived can still be taken.

        The server process, should it still run, is killed by that: the
        lifeline ends.
        """
        with self._changed:
            # Another thread may be watching the pipes.  With the process gone
            # it is about to notice; closing them under its feet would have it
            # watch whatever gets their numbers next.
            self._changed.wait_for(lambda: not self._watched, _REAP_TIMEOUT)
            self._ended = True
            self._close_pipes()
            self._changed.notify_all()
        self._pass_on_logs()

    def disown(self) -> None:
        """Close a forked child's copy; the child has no part in the channel.

        Takes no lock: the thread that held it may not exist here.
        """
        self._ended = True
        self._close_pipes()

    def _close_pipes(self) -> None:
        self._closed = True
        for pipe in (self._records, self._requests, self._lifeline, self._stacks, self._pidfd):
            if pipe is not None:
                pipe.close()

    # The machinery.  All of it runs with the lock held.

    def _in_transit(self) -> int:
        """Count what the server process has put and we have not received.

        A record may well be here before it is counted.  What a dead process
        counted stands in its death notice instead.
        """
        if self._ended:
            return 0
        return sum(
            max(self._counters[kind] - self._received[kind], 0)
            for kind in (ACCEPTED, FAILED, FORGOTTEN)
        )

    def _settle(self) -> None:
        """Take in what there is, and await what is known to be on its way.

        A message that is here already can be had without awaiting others, but
        not before a failure, nor when it is to be forgotten.
        """

        def settled() -> bool:
            for kind in (FAILED, FORGOTTEN):
                if self._counters[kind] > self._received[kind]:
                    return False
            return bool(self._messages) or self._counters[ACCEPTED] <= self._received[ACCEPTED]

        if self._closed or self._wait(settled, TRANSIT_TIMEOUT) or self._ended:
            return
        raise self._silence("had more to send but did not", TRANSIT_TIMEOUT)

    def _wait(self, ready: Callable[[], object], timeout: float) -> bool:
        """Take in records until something is so, or the time or the process ends."""
        deadline = time.monotonic() + timeout
        while True:
            self._take_in()
            if ready():
                return True
            left = deadline - time.monotonic()
            if self._ended or left <= 0:
                return False
            if self._watched:
                self._changed.wait(left)
            else:
                self._watch(left)

    def _watch(self, timeout: float) -> None:
        """Watch the pipe and the process, on behalf of every waiting thread."""
        pidfd = self._pidfd
        self._watched = True
        self._changed.release()
        try:
            readable = connection.wait([self._records, *([pidfd] if pidfd else [])], timeout)
        finally:
            self._changed.acquire()
            self._watched = False
            self._changed.notify_all()
        if pidfd in readable:
            # A grandchild may hold the pipe's writing end, so there may never
            # be an end of file; what the process itself wrote is there now.
            while self._take_in():
                pass
            self._note_end()

    def _take_in(self) -> bool:
        """Read once.  Say whether there was anything."""
        if self._ended:
            return False
        try:
            frames = self._reader.read()
        except EOFError:
            self._note_end()
            return False
        if frames is None:
            return False
        for frame in frames:
            self._sort(*frame)
        return True

    def _sort(self, kind: str, *content: Any) -> None:
        if kind == "message":
            self._received[ACCEPTED] += 1
            self._messages.append(content[0])
        elif kind == "reply":
            self._replies[content[0]] = content[1]
        elif kind == "log":
            self._logs.append(content[0])
        elif kind == "failed":
            self._received[FAILED] += 1
            self._failures.append(HandlerError(content[0], traceback=content[1], **self._where))
        elif kind == "forget":
            self._received[FORGOTTEN] += 1
            self._messages.clear()
        else:
            raise AssertionError(f"unknown record {kind!r}")

    def _note_end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._process is not None:
            self._exitcode = self._reap(self._process)
        self._last_words = self._read_stacks(0.0)
        self._changed.notify_all()

    def _reap(self, process: BaseProcess) -> int | None:
        """Wait for the exit code of a process that has closed its pipe.

        Not with join(): a forked server process lets go of the descriptor
        that join()'s own time limit depends on.
        """
        deadline = time.monotonic() + _REAP_TIMEOUT
        if self._pidfd:
            connection.wait([self._pidfd], _REAP_TIMEOUT)
        # From a fork server the exit code comes by way of the sentinel, a
        # little later; for a forked process this does not wait.
        connection.wait([process.sentinel], _REAP_TIMEOUT)
        while process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.001)  # there is nothing to wait on
        return process.exitcode

    def _post(self, request: tuple[Any, ...], timeout: float) -> None:
        self._check_owner()
        if self._closed:
            raise NotRunning("the server is not running: call start() first", **self._where)
        deadline = time.monotonic() + timeout
        left = memoryview(b"".join(encode(request)))
        while left:
            try:
                left = left[os.write(self._requests.fileno(), left) :]
            except BlockingIOError:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not _writable(self._requests, remaining):
                    raise self._silence("took no more requests", timeout) from None
            except BrokenPipeError:
                self._wait(lambda: False, _REAP_TIMEOUT)
                raise self._silence("closed its end", timeout) from None

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise NotRunning(
                f"this controller belongs to process {self._owner}, which started it; "
                f"this is process {os.getpid()}, a child of it.  Connect to the "
                "controller's host and port from here, and read messages there",
                **self._where,
            )

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._failures.popleft()

    def _raise_death(self) -> None:
        self._check_owner()
        if self._ended and not self._ended_well():
            raise self._death()

    def _lost(self) -> int:
        # Killed between putting and counting, the process counted one too few.
        return max(self._counters[ACCEPTED] - self._received[ACCEPTED], 0)

    def _ended_well(self) -> bool:
        return self._asked_to_stop and not self._lost()

    def _silence(self, what: str, elapsed: float) -> ServerDied | ServerStuck:
        """Say why something did not come."""
        if self._ended:
            return self._death()
        stack = self.read_stacks()
        text = f"{self._name()} {what} within {elapsed:g} seconds"
        if stack:
            text += f".  It was here:\n{stack}"
        else:
            text += ", and does not show its stack: is it stopped, or the machine overloaded?"
        return ServerStuck(text, stack=stack, elapsed=elapsed, **self._where)

    def _death(self) -> ServerDied:
        exitcode, stack, lost = self._exitcode, self._last_words, self._lost()
        how = "had to be killed" if self._asked_to_stop else "ended by itself"
        text = (
            f"{self._name()} {how}, with {_describe(exitcode)}; "
            f"{lost} accepted message{'s' if lost != 1 else ''} had not left it.  "
            "Call stop(), then start(), for a new one"
        )
        if stack:
            text += f".  Its last words were:\n{stack}"
        return ServerDied(text, exitcode=exitcode, lost=lost, stack=stack, **self._where)

    def _name(self) -> str:
        return (
            f"the server process {self._where.get('pid')} "
            f"on {self._where.get('host')} port {self._where.get('port')}"
        )

    def _read_stacks(self, timeout: float) -> str:
        pieces = []
        while self._stacks.poll(timeout):
            try:
                piece = os.read(self._stacks.fileno(), 65_536)
            except BlockingIOError:
                break
            if not piece:
                break
            pieces.append(piece)
            timeout = _STACK_QUIET
        return b"".join(pieces).decode("utf-8", "replace").strip()

    def _pass_on_logs(self) -> None:
        """Hand the server process's log records to this process's loggers.

        Without the lock: a log handler is other people's code.
        """
        while self._logs:
            try:
                record = self._logs.popleft()
            except IndexError:  # another thread was quicker
                return
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


def _open_pidfd(pid: int | None) -> Connection | None:
    """Open a descriptor that is readable when a process has ended.

    :return: The descriptor, in an object that closes it; None where there is
        no such thing (it takes Linux 5.3), and the pipe has to do alone.
    """
    if pid is None or not hasattr(os, "pidfd_open"):
        return None
    try:
        return connection.Connection(os.pidfd_open(pid), writable=False)
    except OSError:
        return None


def _writable(pipe: Connection, timeout: float) -> bool:
    import select

    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(timeout * 1000))


def _describe(exitcode: int | None) -> str:
    if exitcode is None:
        return "an unknown exit code"
    if exitcode < 0:
        try:
            return f"signal {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"signal {-exitcode}"
    return f"exit code {exitcode}"


#: The open ends of this process, for `_disown_all`.
_open_ends: weakref.WeakSet[HomeEnd] = weakref.WeakSet()


def _disown_all() -> None:
    """Close a forked child's copies of every channel.

    A child that kept the lifeline's writing end would keep the server process
    alive after the test process had died.  multiprocessing's own sentinel of
    the parent has that flaw.
    """
    for end in list(_open_ends):
        end.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
