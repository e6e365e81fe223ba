"""The test process's end of what joins it with the server process.

`ServerLink` reads what the server process sends, waits for it, asks for things,
and ends the process.  Taking and looking at messages is `MessageQueue`'s part.

Nothing is read behind the test's back: each call takes in what has arrived.
Any thread may call.  When several wait, one of them watches the pipes and
notifies the others; and a thread that reads meanwhile wakes that one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from _pickle import loads  # pickle's may be a test's
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from multiprocessing import connection
from os import readv, set_blocking, writev
from threading import Condition, RLock, get_ident
from typing import Any, NamedTuple, NoReturn, TypeVar

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._names import SPELLING, is_refusal, or_longer
from lazr_smtptest._parent.forks import FORKING, STARTING, disown_in_children
from lazr_smtptest._parent.process import ENDING, ServerProcess
from lazr_smtptest._parent.signals import undisturbed
from lazr_smtptest._util import now, wait_ready
from lazr_smtptest._wire.channel import (
    ACCEPTED,
    CAUGHT_UP,
    COUNTED,
    COUNTED_KINDS,
    FAILED,
    FORGOTTEN,
    LOGGED,
    UNASKED,
    ParentEnds,
)
from lazr_smtptest._wire.ipc_queue import Record, RecordReader, RecordWriter, Sealed
from lazr_smtptest.errors import HandlerError, NotRunning, ServerDied, ServerStuck, SMTPTestError
from lazr_smtptest.message import PickledItem
from lazr_smtptest.sessions import Session

__tracebackhide__ = is_refusal  # for pytest

_log = logging.getLogger("lazr_smtptest")

#: Seconds that one wait may take; poll(2) cannot count further than 24 days.
LONGEST_WAIT = 86_400.0

#: Seconds to wait for a record that is known to be on its way.  It lies in
#: the pipe already, or the server process is writing it.
_TRANSIT_TIMEOUT = 5.0

#: Seconds between two looks whether the process lives, where nothing says so by itself.
#: The pipe's end of file does as a rule, unless a grandchild holds the pipe.
LOOK_INTERVAL = 0.05

#: Seconds that the thread that watches has to stop doing so.
_LEAVE_TIMEOUT = 5.0

#: Seconds, of those that stop() has, for each step after asking: showing the
#: stack, being terminated, being killed.
_LADDER_STEP = 1.0

#: Seconds until a killed process is gone, unless the kernel itself is stuck.
_KILL_TIMEOUT = 5.0

#: Stands among the messages for a record to forget those before it, where somebody has
#: passed on some of them.
FORGET = PickledItem(b"")

T = TypeVar("T")


class Wait(NamedTuple):
    """What a call waits for: see `ServerLink.wait_for`."""

    link: ServerLink
    attempt: Callable[[], Any]
    timeout: float


#: A call that waits, apart from how: it yields each `Wait`, and is sent what came of it.
#: `block` runs it on this thread, `event_loop.run` on an event loop.
Steps = Generator[Wait, Any, T]


def block(steps: Steps[T]) -> T:
    """Run a call, and block this thread while it waits."""
    __tracebackhide__ = True  # for pytest
    came: Any = None
    while True:
        try:
            awaited = steps.send(came)
        except StopIteration as done:
            result: T = done.value
            return result
        came = awaited.link.wait_for(awaited.attempt, awaited.timeout)


class ServerLink:
    """The pipes to a server process, what has come through them, and who waits.

    Whoever looks at what has arrived holds the lock, except for the questions
    whether something is in transit or incomplete: their answer is true at that
    moment, and what comes later is counted when it comes.
    """

    process: ServerProcess
    has_begun = False

    def __init__(self, ends: ParentEnds, *, keeps_forgets: bool = False) -> None:
        self._ends = ends
        self._reader = RecordReader(ends.records.fileno())
        self._counters = ends.counters
        self._received = [0 for _ in COUNTED]
        #: What is awaited: None, or the answer in a tuple.
        self._replies: dict[int, tuple[Any] | None] = {UNASKED: None}
        self._numbers = itertools.count(UNASKED + 1)
        #: What has arrived, and nobody has taken, raised or handled yet.
        self.messages: deque[PickledItem] = deque()
        self.failures: deque[SMTPTestError] = deque()
        self.logs: deque[logging.LogRecord] = deque()
        #: What clients did, pickled: the last that is sent before an orderly end.
        self._sessions: bytes | None = None
        self.last_connections: int | None = None
        #: Whether a record to forget all messages before it becomes one of them: `FORGET`.
        self._keeps_forgets = keeps_forgets
        #: Whether nothing can come any more: the server process is known to be
        #: gone, or the pipes are closed.
        self.ended = False
        self.is_closed = False
        self._wake, self._waker = undisturbed(partial(connection.Pipe, duplex=False))
        set_blocking(self._wake.fileno(), False)
        set_blocking(self._waker.fileno(), False)
        self._make_lock()
        # With the same lock: two could be taken in the wrong order by a signal handler.
        self._writer = RecordWriter(ends.requests.fileno(), lock=self.lock)

    def begin(self, process: Any) -> None:
        """Be joined with a process, which has just been started."""
        self.process = process
        self.has_begun = True
        disown_in_children(self)

    def _make_lock(self) -> None:
        # Reentrant, because a signal handler may call in here, too.  It is
        # taken as itself, because a Condition's own ``with`` is Python code,
        # where an exception from a signal handler would leave it locked.
        self.lock = RLock()
        self._changed = Condition(self.lock)
        #: The id of the thread that watches the pipes, if one does.
        self.watcher: int | None = None
        #: Called when there is news, with the lock held; event loops, which watch too, add these.
        self.listeners: list[Callable[[], object]] = []

    def is_alive(self) -> bool:
        """Whether the server process lives.  Does not block."""
        with self.lock:
            return not self.ended and not self.process.is_gone()

    # What has arrived, and what is still to come.

    @property
    def accepted(self) -> int:
        return self._counters[ACCEPTED]

    @property
    def received(self) -> int:
        return self._received[ACCEPTED]

    def is_in_transit(self) -> bool:
        """Whether the server process has sent what we have not received.

        A record may well be here before it is counted.  What a dead process
        counted is lost, and `ServerDied` says how much that is.
        """
        if self.ended:
            return False
        counters, received = self._counters, self._received
        return any(counters[kind] > received[kind] for kind in COUNTED)

    def is_incomplete(self) -> bool:
        """Whether something must be awaited before any message is taken.

        That is a failure, a log record, or a record to forget what came before;
        or a message, where there is none.
        """
        if self.ended:
            return False
        counters, received = self._counters, self._received
        for kind in (FAILED, FORGOTTEN, LOGGED, CAUGHT_UP):
            if counters[kind] > received[kind]:
                return True
        return not self.messages and counters[ACCEPTED] > received[ACCEPTED]

    def _lost(self) -> int:
        # Killed between putting and counting, the process counted one too few.
        return max(self.accepted - self.received, 0)

    def _sort(self, kind: str, *content: Any) -> None:
        note: Callable[..., None] = getattr(self, f"_note_{kind}")
        note(*content)
        counted = COUNTED_KINDS.get(kind)
        if counted is not None:
            self._received[counted] += 1

    # What records are of each kind.

    def _note_reply(self, number: int, answer: Any) -> None:
        if number in self._replies:  # or else who asked has given up
            self._replies[number] = (answer,)

    def _note_log(self, record: logging.LogRecord) -> None:
        self.logs.append(record)

    def _note_session(self, event: bytes) -> None:
        # One of the messages, for their order, and yet none that is counted.
        self.messages.append(PickledItem(event))

    def _note_sessions(self, sessions: bytes, connections: int) -> None:
        self._sessions, self.last_connections = sessions, connections

    def _note_failed(self, what: str, traceback: str) -> None:
        self.fail(what, traceback)

    def _note_forget(self) -> None:
        if self._keeps_forgets:
            self.messages.append(FORGET)
        else:
            self.messages.clear()

    def fail(self, what: str, traceback: str) -> None:
        """Note that plugged-in code raised: what, in one line, and the whole traceback."""
        text = (
            f"{what}, for the server on {self.process.endpoint}.  "
            f"Look at the end of this traceback, not at the call that raised this:\n\n{traceback}"
        )
        self.note_failure(HandlerError(text, traceback=traceback, **self.process.where))

    def note_failure(self, error: SMTPTestError) -> None:
        """Make the next call raise an error."""
        with self.lock:
            self.failures.append(error)
            self.notify()

    def _pass_on_logs(self) -> None:
        while self.logs:
            try:
                record = self.logs.popleft()
            except IndexError:  # another thread was quicker
                return
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)

    def last_sessions(self) -> list[Session] | None:
        """Return what clients had done by the end; None where the process did not say."""
        return None if self._sessions is None else loads(self._sessions)

    def death(self, more: str = "") -> ServerDied:
        """Make the error that says how the process ended, and what that cost."""
        return self.process.death(self._lost(), more)

    def catch_up(self) -> None:
        """Bring the counters up to date; with shared memory they always are."""

    # Waiting.

    def wait_for(self, attempt: Callable[[], T | None], timeout: float) -> T | None:
        """Read records until an attempt succeeds, or until time or process end.

        The attempt is called with the lock held, at least once, and returns
        None for "not yet".
        """
        me = get_ident()
        # A signal handler may call in here while this thread watches.
        outer = me if self.watcher == me else None
        deadline = now() + timeout
        while True:
            # Log records first, and without the lock: a log handler is other people's
            # code, and what it raises must not cost a message.
            self._pass_on_logs()
            try:
                with self.lock:
                    if self._writer.has_backlog and not self.ended:
                        self._flush()
                    has_read = self._read()
                    if self.logs and now() < deadline:
                        continue
                    result = attempt()
                    left = min(deadline - now(), LONGEST_WAIT)
                    if result is not None or self.ended or left <= 0:
                        return result
                    if has_read:
                        continue
                    if not self._nobody_else_watches():
                        self._changed.wait(left)
                        continue
                    self.watcher = me
                self._poll(left)
            finally:
                if self.watcher == me:
                    with self.lock:
                        self.watcher = outer
                        self._changed.notify_all()

    def try_now(self, attempt: Callable[[], T | None]) -> T | None:
        """Do what `wait_for` does, without waiting."""
        while True:
            with self.lock:
                self._read_the_end()
            came = self.wait_for(lambda: None if self.logs else attempt(), 0.0)
            if came is not None or not self.logs:  # those come first
                return came

    def await_transit(self, attempt: Callable[[], T | None]) -> T:
        """Wait for what only lacks a record that is on its way.  Blocks up to 5 seconds."""
        return block(self.transit(attempt))

    def transit(self, attempt: Callable[[], T | None]) -> Steps[T]:
        """See `await_transit`."""
        result: T | None = yield Wait(self, attempt, _TRANSIT_TIMEOUT)
        if result is None:
            self.raise_silence("had more to send and did not send it", _TRANSIT_TIMEOUT)
        return result

    def _nobody_else_watches(self) -> bool:
        return self.watcher in (None, get_ident())

    def _poll(self, timeout: float) -> None:
        """Wait until the pipes, the process, or another thread has news."""
        try:
            ready = self._select(timeout)
        except (OSError, ValueError):
            # A signal handler may have closed them, in this very thread.
            if not self.is_closed:
                raise
            return
        with self.lock:
            if self.is_closed:
                return
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    readv(self._wake.fileno(), [bytearray(4096)])
            if self._ends.requests in ready:
                self._flush()
            self._read_the_end()

    def watched(self) -> list[int]:
        """Return the descriptors that have news; none where none can come."""
        pidfd = self.process.pidfd
        readable = [self._ends.records, *([pidfd] if pidfd else [])]
        return [] if self.ended else [one.fileno() for one in readable]

    @property
    def tells_its_end(self) -> bool:
        """Whether those have all news, without another look now and then."""
        return not (self.process.must_be_looked_at or self._writer.has_backlog)

    def _select(self, timeout: float) -> list[connection.Connection]:
        pidfd = self.process.pidfd
        readers = [self._ends.records, self._wake, *([pidfd] if pidfd else [])]
        writers = [self._ends.requests] if self._writer.has_backlog else []
        if self.process.must_be_looked_at:
            timeout = min(timeout, LOOK_INTERVAL)
        return wait_ready(readers, writers, timeout=timeout)

    # All of what follows, to the next heading, is called with the lock held.

    def notify(self) -> None:
        """Wake all threads that wait, to look again at what they wait for."""
        self._changed.notify_all()
        for listener in tuple(self.listeners):
            listener()
        if not self._nobody_else_watches():
            with contextlib.suppress(BlockingIOError):  # it has been woken before
                writev(self._waker.fileno(), [b"!"])

    def _read(self) -> bool:
        """Read once, without blocking; return whether there was anything."""
        return False if self.ended else undisturbed(self._read_undisturbed)

    def _read_undisturbed(self) -> bool:
        if self.ended:  # a signal handler may have closed the pipe just before
            return False
        try:
            records = self._reader.read()
        except EOFError:
            self._note_end()
            return False
        if records is None:
            return False
        for record in records:
            if type(record) is Sealed:
                self.messages.append(PickledItem(*record))
                self._received[ACCEPTED] += 1
            else:
                self._sort(*record)
        self.notify()
        return True

    def _read_the_end(self) -> None:
        if not self.ended and self.process.is_gone():
            self._read_the_rest()

    def _read_the_rest(self) -> None:
        # Of a process that is gone.  A grandchild may hold the pipe's writing
        # end, so there may never be an end of file; but what the process itself
        # wrote is there.
        while self._read():
            pass
        self._note_end()

    def _note_end(self) -> None:
        if not self.ended:
            self.ended = True
            self.process.note_end()
            self.notify()

    # What is asked of the server process.

    def request(self, what: str, *details: Any, timeout: float, option: str = "") -> Any:
        """Ask the server process for something, and wait for its answer.

        A request that gives up is taken back, wherever it is by then.  ``option``
        is the controller's option that sets the timeout, if one does.
        """
        self.process.check_owner()
        with self.lock:
            if self.is_closed:
                raise NotRunning(self.process.closed, **self.process.where)
            number = next(self._numbers)
        found: tuple[Any] | None = None
        record: Record | None = None
        silence = f"did not answer{SPELLING.get().call(what)}"
        try:
            with self.lock:
                self._replies[number] = None
                record = self._send(number, what, *details)
            found = self.wait_for(lambda: self._replies[number], timeout)
        finally:
            with self.lock:
                self._replies.pop(number, None)
                if found is None and not self.ended:
                    if self._writer.has_backlog:
                        silence = "took no more requests"
                    # What the server process may have begun, it undoes, if it can.
                    if not (record and self._writer.withdraw(record)):
                        self._send(UNASKED, "cancel", number)
        if found is None:
            self.raise_silence(silence, timeout, option)
        return found[0]

    def await_ready(self, timeout: float) -> Any:
        """Wait for the report that the server process serves: None, or why it cannot."""
        found = self.wait_for(lambda: self._replies[UNASKED], timeout)
        if found is None:
            self.raise_silence("was not ready", timeout)
        return found[0]

    def send(self, what: str, *details: Any) -> None:
        """Send what has no answer, unless the server process has ended."""
        with self.lock:
            if not self.ended:
                self._send(UNASKED, what, *details)

    def _send(self, *request: Any) -> Record | None:
        record = self._until_broken(lambda: self._writer.write(request))
        if self._writer.has_backlog:
            self.notify()
        return record

    def _flush(self) -> None:
        self._until_broken(self._writer.flush)

    def _until_broken(self, write: Callable[[], T]) -> T | None:
        try:
            return write()
        except ConnectionError:  # the process is ending, which `wait_for` notes
            self._writer.close()
        except ValueError:
            if not self._writer.is_closed:
                raise
        return None

    # How it ends.

    def end(self, timeout: float) -> None:
        """End the server process, and close the pipes: ask, terminate, kill."""
        step = min(_LADDER_STEP, timeout / 4)
        if self.is_alive():
            self.process.asked_to_stop = True
            self.send("stop")
        if not self.await_end(timeout - 3 * step):
            _log.warning(
                "%s did not stop when asked, and is terminated.  It was here:\n%s",
                self.process.name,
                self.process.show_stacks(step) or "(it does not show its stack)",
            )
            self.process.terminate()
            if not self.await_end(step):
                self.kill()
        self.close()

    def await_end(self, timeout: float) -> bool:
        """Wait until the process is gone and all it sent is here; return whether it is."""
        self.wait_for(lambda: True if self.ended else None, timeout)
        return self.ended

    def kill(self) -> None:
        """Kill the server process, and wait for its end.  Blocks up to 5 seconds."""
        self.process.kill()
        self.await_end(_KILL_TIMEOUT)

    def abandon(self) -> None:
        """Kill a server process that never served, and close the pipes."""
        try:
            self.kill()
        finally:  # a log handler may raise
            self.close()

    def close(self) -> None:
        """Close the pipes; what has arrived can still be taken.

        The server process, should it still run, is killed by that: the
        lifeline ends.
        """
        with self.lock:
            # Another thread may be watching the pipes.  Closing them under its
            # feet would have it watch whatever gets their numbers next.
            self.ended = True
            self.notify()
            deadline = now() + _LEAVE_TIMEOUT
            while not self._nobody_else_watches() and (left := deadline - now()) > 0:
                self._changed.wait(left)
            with without_fakes(*ENDING), STARTING.lock:
                undisturbed(self._close_pipes)  # or what is half closed would stay so
            # Nobody changes them any more, and shared memory may have a descriptor.  It goes
            # when the last reference does: a signal handler that calls this may have
            # interrupted code that reads them.
            self._counters = self._ends.counters = memoryview(bytes(self._counters)).cast("Q")
        self._pass_on_logs()

    def disown(self) -> None:
        """Close a forked child's copy; the child has no part in this.

        It has a lock of its own: the thread that held the other may not exist here.
        """
        self._make_lock()
        self._writer.disown(self.lock)
        self.ended = True
        self._close_pipes()

    def _close_pipes(self) -> None:
        with FORKING:
            self.is_closed = True
            self._writer.close()
            self.close_wake()
            self._ends.close()
            self.process.close()

    def close_wake(self) -> None:
        self._wake.close()
        self._waker.close()

    # What to raise.

    def raise_failure(self) -> None:
        """Raise what plugged-in code has raised, if no call has yet."""
        if self.failures:
            raise self.failures.popleft()

    def check(self) -> None:
        """Raise what plugged-in code has raised, and drop what else it has."""
        if self.logs or self.is_incomplete():
            self.await_transit(lambda: None if self.is_incomplete() else True)
        with self.lock:
            try:
                self.raise_failure()
            finally:
                self.failures.clear()

    def check_death(self, *, drained: bool = False) -> None:
        """Raise that the server process died, if it did.

        With ``drained``, only when nothing is left to take.
        """
        self.process.check_owner()
        with self.lock:
            self._read_the_end()
            is_more_left = drained and self.messages
            lost = self._lost()
            if self.ended and not is_more_left and not self.process.ended_well(lost):
                raise self.process.death(lost)

    def raise_silence(self, what: str, elapsed: float, option: str = "") -> NoReturn:
        """Raise the reason why something did not come within ``elapsed`` seconds."""
        process = self.process
        process.check_owner()
        lost = self._lost()
        if self.ended and process.ended_well(lost):
            raise NotRunning(
                f"{process.name} was stopped, by another thread, while this call waited for it: "
                "call stop() when no other thread uses it any more",
                **process.where,
            )
        if self.ended:
            raise process.death(lost)
        stack = process.show_stacks()
        text = f"{process.name} {what} within {elapsed:g} seconds"
        longer = or_longer(option) if option else ""
        if stack:
            text += f".  Look in its stack for what keeps it{longer}:\n{stack}"
        else:
            text += (
                ", and does not show its stack: is it stopped, or the machine overloaded?  "
                f"Run fewer things at once{longer}"
            )
        raise ServerStuck(text, stack=stack, elapsed=elapsed, **process.where)
