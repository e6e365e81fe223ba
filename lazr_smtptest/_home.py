"""The channel's end in the test process.

Nothing is read behind the test's back: each call takes in what has arrived.
Any thread may call.  When several wait, one of them watches the pipe and tells
the others; and whoever reads from it meanwhile wakes that one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lazr_smtptest._channel import (
    ACCEPTED,
    COUNTED,
    FAILED,
    FORGOTTEN,
    FORKING,
    LOGGED,
    Channel,
    disown_in_children,
)
from lazr_smtptest._clock import now
from lazr_smtptest._ending import after_end, describe_end, describe_lost
from lazr_smtptest._frames import FrameReader, encode
from lazr_smtptest._parcel import Parcel
from lazr_smtptest._process import ServerProcessHandle
from lazr_smtptest.errors import HandlerError, NotRunning, ServerDied, ServerStuck

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["HomeEnd"]

#: Seconds to wait for a record that is known to be on its way.  It lies in
#: the pipe already, or the server process is writing it.
TRANSIT_TIMEOUT = 5.0

#: Seconds to wait for a process that has closed its pipe to be gone.
_END_TIMEOUT = 5.0

#: Seconds to wait for a stuck process to show its stacks.
_STACK_TIMEOUT = 1.0

#: Seconds that one wait may take; poll(2) cannot count further than 24 days.
_LONGEST_WAIT = 86_400.0

#: Signals whose Python handlers often raise: Ctrl-C, a test's time limit.
_RAISING = frozenset({signal.SIGINT, signal.SIGALRM, signal.SIGTERM})

T = TypeVar("T")


def _always() -> bool:
    return True


class HomeEnd:
    """The test process's end.

    :param channel: The channel, fresh.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._counters = channel.counters
        self._reader = FrameReader(channel.records.fileno())
        os.set_blocking(channel.requests.fileno(), False)
        self._wake, self._waker = connection.Pipe(duplex=False)
        os.set_blocking(self._wake.fileno(), False)
        os.set_blocking(self._waker.fileno(), False)
        self._owner = os.getpid()
        self._process: ServerProcessHandle | None = None
        self._where: dict[str, Any] = {}
        # Reentrant, because a signal handler may call in here, too.  It is
        # taken as itself, because a Condition's own ``with`` is Python code,
        # where an exception from a signal handler would leave it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._watcher: int | None = None
        self._ended = self._closed = False
        self._asked_to_stop = self._forced = self._death_told = False
        self._exitcode: int | None = None
        self._last_words = ""
        self._received = [0 for _ in COUNTED]
        self._messages: deque[Parcel] = deque()
        self._failures: deque[HandlerError] = deque()
        self._logs: deque[logging.LogRecord] = deque()
        self._replies: dict[int, Any] = {}
        self._request_count = 0
        disown_in_children(self)

    def attach(self, process: BaseProcess, host: str, port: int) -> None:
        """Say which process is at the other end, and where it listens."""
        self._process = ServerProcessHandle(process, self._channel.stacks)
        self._where = {"host": host, "port": port, "pid": process.pid}

    # What there is.

    @property
    def ended(self) -> bool:
        """Whether the server process is known to be gone, or this end closed."""
        return self._ended

    @property
    def exitcode(self) -> int | None:
        """The exit code of a server process that is known to be gone."""
        return self._exitcode

    @property
    def pid(self) -> int | None:
        """The process id of the server process."""
        return None if self._process is None else self._process.pid

    def is_foreign(self) -> bool:
        """Say whether this is a forked child's copy."""
        return os.getpid() != self._owner

    def is_alive(self) -> bool:
        """Say whether the server process lives.  Does not block."""
        with self._lock:
            return not self._ended and self._process is not None and not self._process.is_gone()

    def waiting(self) -> int:
        """Count the messages that can be taken, without a system call.

        Where some have not arrived yet, or a failure has not, those are
        awaited, or the reason why they never will be.

        :return: The number.
        :raises HandlerError: A handler has failed.
        :raises ServerDied: Nothing is left, and the server process is gone.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        if not (self._ended or self._failures or self._logs or self._in_transit()):
            return len(self._messages)

        def counted() -> int | None:
            if self._is_incomplete():
                return None
            self._raise_failure()
            coming = self._counters[ACCEPTED] - self._received[ACCEPTED]
            return len(self._messages) + (0 if self._ended else max(coming, 0))

        count = self._await(counted, TRANSIT_TIMEOUT)
        if count is None:
            self._raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        if not count:
            self._raise_death()
        return count

    def take(
        self,
        timeout: float = 0.0,
        *,
        failures: bool = True,
        is_wanted: Callable[[], bool] = _always,
    ) -> Parcel | None:
        """Take the next message.

        :param timeout: How long to wait, in seconds, when none is there and
            none is on its way.
        :param failures: Whether to raise what handlers raised.
        :param is_wanted: Asked whether the caller still wants a message.
        :return: The message, or None if there is none.
        :raises HandlerError: A handler has failed.
        :raises ServerDied: Nothing is left, and the server process is gone.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        if self._messages and not (self._logs or self._failures or self._is_incomplete()):
            # The next one is here, and so is all that must come first.
            with contextlib.suppress(IndexError), self._lock:
                return self._messages.popleft()
        found = None
        if timeout > 0:
            found = self._await(lambda: self._next(failures) if is_wanted() else (), timeout)
        if found is None:
            found = self._await(lambda: self._next(failures) or self._nothing(), TRANSIT_TIMEOUT)
        if found:
            return found[0]
        if found is None and not self._ended:
            self._raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        self._raise_death()
        return None

    def _next(self, failures: bool) -> tuple[Parcel, ...] | None:
        """Take the next message or raise the next failure, if it may be done yet."""
        if self._is_incomplete():
            return None
        if failures:
            self._raise_failure()
        return (self._messages.popleft(),) if self._messages else None

    def _nothing(self) -> tuple[Parcel, ...] | None:
        """Give the empty tuple if it is certain that there is no message."""
        return None if self._in_transit() or self._ended else ()

    # What there is, looked at and not taken.

    def look(self) -> tuple[list[Parcel], int]:
        """Give all messages that can be taken, and take none.

        What was accepted before the call is among them.

        :return: The messages, and how many have ever arrived.
        :raises HandlerError: A handler has failed.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        accepted = self._counters[ACCEPTED]

        def all_of_them() -> tuple[list[Parcel], int] | None:
            received = self._received[ACCEPTED]
            if not self._ended and (received < accepted or self._is_incomplete()):
                return None
            self._raise_failure()
            return list(self._messages), received

        found = self._await(all_of_them, TRANSIT_TIMEOUT)
        if found is None:
            self._raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        return found

    @property
    def remains(self) -> list[Parcel]:
        """What has arrived, whatever else may be wrong."""
        with self._lock:
            return list(self._messages)

    def wake(self) -> None:
        """Have all that wait look again at what they wait for."""
        with self._lock:
            self._tell_waiting()

    def await_more(self, seen: int, timeout: float, is_wanted: Callable[[], bool]) -> None:
        """Wait until more have arrived than were seen, or something failed.

        :param seen: How many had ever arrived; see `look`.
        :param timeout: How long to wait, in seconds.
        :param is_wanted: See `take`.
        """

        def anything() -> bool | None:
            more = self._received[ACCEPTED] > seen or bool(self._failures)
            return True if more or not is_wanted() else None

        self._await(anything, timeout)

    def claim(self, wanted: Iterable[Parcel]) -> bool:
        """Take these messages, wherever they are; all of them or none.

        :param wanted: What `look` gave.
        :return: Whether they were still there.
        """
        wanted = list(wanted)
        with self._lock:
            if not set(self._messages).issuperset(wanted):  # another thread was quicker
                return False
            for parcel in wanted:
                self._messages.remove(parcel)
            return True

    def adopt(self, other: HomeEnd) -> None:
        """Take over what is left of another end; it came before all else."""
        with other._lock:
            older, other._messages = other._messages, deque()
        with self._lock:
            self._messages.extendleft(reversed(older))

    def check(self) -> None:
        """Raise what a handler has raised, if it did and nobody knows yet.

        :raises HandlerError: A handler has failed.  Should several have, this
            is the first, and the others are dropped.
        :raises ServerStuck: A failure was on its way and has not come.
        """
        self._await(lambda: None if self._is_incomplete() else True, TRANSIT_TIMEOUT)
        with self._lock:
            try:
                self._raise_failure()
            finally:
                self._failures.clear()

    def check_death(self, *, again: bool = True) -> None:
        """Raise that the server process has died, whatever is left to take.

        :param again: Whether to do so if a call has said so before.
        :raises ServerDied: It has.
        """
        if again or not self._death_told:
            self._raise_death(drained=False)

    def fail(self, what: str, traceback: str) -> None:
        """Note a failure of code that was plugged in.

        :param what: What raised, and what it raised, in one line.
        :param traceback: The whole traceback.
        """
        text = (
            f"{what}, for the server on {self._where['host']} port {self._where['port']}.  "
            f"Look at the end of this traceback, not at the call that tells of it:\n\n{traceback}"
        )
        with self._lock:
            self._failures.append(HandlerError(text, traceback=traceback, **self._where))
            self._tell_waiting()

    # What is asked of the server process.

    def request(self, what: str, *details: Any, timeout: float, option: str = "") -> Any:
        """Ask the server process for something, and wait for its answer.

        :param what: The request's name.
        :param details: Its arguments; picklable.
        :param timeout: How long to wait, in seconds.
        :param option: The controller's option that says so, if one does.
        :return: The answer.
        :raises NotRunning: The channel is closed.
        :raises ServerDied: The server process is gone.
        :raises ServerStuck: It has not answered in time.
        """
        with self._lock:
            self._request_count += 1
            number = self._request_count
        self._post((number, what, *details), timeout, option)
        return self.await_reply(number, timeout, f"did not answer {what}()", option)

    def await_reply(self, number: int, timeout: float, otherwise: str, option: str = "") -> Any:
        """Wait for the answer to a request; number 0 says ready, unasked.

        :param number: The request's number.
        :param timeout: How long to wait, in seconds.
        :param otherwise: What to say of the server process if none comes.
        :param option: See `request`.
        :return: The answer.
        :raises ServerDied: The server process is gone.
        :raises ServerStuck: It has not answered in time.
        """

        def reply() -> tuple[Any] | None:
            return (self._replies.pop(number),) if number in self._replies else None

        found = self._await(reply, timeout)
        if found is None:
            self._raise_silence(otherwise, timeout, option)
        return found[0]

    def tell(self, what: str, *details: Any) -> None:
        """Send something that has no answer; if nobody is there, that is that."""
        with contextlib.suppress(NotRunning, ServerDied):
            self._post((0, what, *details), TRANSIT_TIMEOUT)

    # How it ends.

    def ask_to_stop(self, timeout: float) -> bool:
        """Ask the server process to end, and take in all it still has.

        :param timeout: How long to wait, in seconds.
        :return: Whether it has ended.
        """
        deadline = now() + timeout
        if self._closed or not self.is_alive():
            return self.await_end(timeout)
        self._asked_to_stop = True
        try:
            self._post((0, "stop"), timeout)
        except (NotRunning, ServerDied):
            return True
        except ServerStuck:
            return False
        return self.await_end(deadline - now())

    def await_end(self, timeout: float) -> bool:
        """Wait until the server process is gone and all it sent is here.

        :param timeout: How long to wait, in seconds.
        :return: Whether it has ended.
        """
        self._await(lambda: True if self._ended else None, timeout)
        return self._ended

    def show_stacks(self, timeout: float = _STACK_TIMEOUT) -> str:
        """Have the server process show its stacks.

        :param timeout: How long to wait for them to begin, in seconds.
        :return: What it showed, if it did.
        """
        if self._process is None or self._ended:
            return ""
        return self._process.show_stacks(timeout)

    def terminate(self) -> None:
        """End the server process by SIGTERM, to which it does not listen."""
        if self._process is not None and not self._ended:
            self._forced = True
            self._process.terminate()

    def kill(self) -> None:
        """End the server process by SIGKILL."""
        if self._process is not None and not self._ended:
            self._forced = True
            self._process.kill()

    def close(self) -> None:
        """Close this end; what has arrived can still be taken.

        The server process, should it still run, is killed by that: the
        lifeline ends.
        """
        with self._lock:
            # Another thread may be watching the pipes.  Closing them under its
            # feet would have it watch whatever gets their numbers next.
            self._ended = True
            self._tell_waiting()
            self._changed.wait_for(self._nobody_else_watches, _END_TIMEOUT)
            self._close_pipes()
        self._pass_on_logs()

    def disown(self) -> None:
        """Close a forked child's copy; the child has no part in the channel.

        Takes no lock: the thread that held it may not exist here.
        """
        self._ended = True
        self._close_pipes()

    def _close_pipes(self) -> None:
        self._closed = True
        channel = self._channel
        with FORKING:
            for pipe in (
                channel.records,
                channel.requests,
                channel.lifeline,
                channel.stacks,
                self._wake,
                self._waker,
            ):
                pipe.close()
            if self._process is not None:
                self._process.disown() if self.is_foreign() else self._process.close()

    # Waiting.

    def _await(self, attempt: Callable[[], T | None], timeout: float) -> T | None:
        """Take in records until an attempt succeeds, or time or process end.

        :param attempt: Called with the lock held; gives None for "not yet".
        :param timeout: How long to wait, in seconds; one attempt is made
            whatever it is.
        :return: What the attempt gave, or None.
        """
        me = threading.get_ident()
        deadline = now() + timeout
        while True:
            # Log records first, and without the lock: a log handler is other
            # people's code.  What it raises must not cost a message.
            self._pass_on_logs()
            try:
                with self._lock:
                    took = self._take_in()
                    if self._logs:
                        continue
                    result = attempt()
                    left = min(deadline - now(), _LONGEST_WAIT)
                    if result is not None or self._ended or left <= 0:
                        return result
                    if took:
                        continue
                    if not self._nobody_else_watches():
                        self._changed.wait(left)
                        continue
                    self._watcher = me
                self._watch(left)
            finally:
                if self._watcher == me:
                    with self._lock:
                        self._watcher = None
                        self._changed.notify_all()

    def _nobody_else_watches(self) -> bool:
        return self._watcher in (None, threading.get_ident())

    def _watch(self, timeout: float) -> None:
        """Wait for the pipe, the process, or another thread to have news."""
        pidfd = None if self._process is None else self._process.pidfd
        watched = [self._channel.records, self._wake, *([pidfd] if pidfd else [])]
        try:
            readable = connection.wait(watched, timeout)
        except OSError:
            # A signal handler may have closed them, in this very thread.
            if not self._closed:
                raise
            return
        with self._lock:
            if self._closed:
                return
            if self._wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake.fileno(), 4096)
            if pidfd in readable:
                self._take_in_the_rest()

    def _tell_waiting(self) -> None:
        """Tell other threads that there is something new."""
        self._changed.notify_all()
        if not self._nobody_else_watches():
            with contextlib.suppress(BlockingIOError):  # it has been told before
                os.write(self._waker.fileno(), b"!")

    # Taking in.  All of it runs with the lock held.

    def _take_in(self) -> bool:
        """Read once.  Say whether there was anything.

        What has left the pipe and is not yet in its place would be lost if a
        signal handler raised just then; only the main thread runs those.
        """
        if self._ended:
            return False
        if threading.current_thread() is not threading.main_thread():
            return self._take_in_undisturbed()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
        try:
            return self._take_in_undisturbed()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _take_in_undisturbed(self) -> bool:
        try:
            frames = self._reader.read()
        except EOFError:
            self._note_end()
            return False
        if frames is None:
            return False
        for frame in frames:
            if type(frame) is bytes:
                self._messages.append(Parcel(frame))
                self._received[ACCEPTED] += 1
            else:
                self._sort(*frame)
        self._tell_waiting()
        return True

    def _take_in_the_rest(self) -> None:
        """Take in what a process left that is gone.

        A grandchild may hold the pipe's writing end, so there may never be an
        end of file; but what the process itself wrote is there.
        """
        while self._take_in():
            pass
        self._note_end()

    def _sort(self, kind: str, *content: Any) -> None:
        if kind == "reply":
            self._replies[content[0]] = content[1]
        elif kind == "log":
            self._logs.append(content[0])
            self._received[LOGGED] += 1
        elif kind == "failed":
            self.fail(*content)
            self._received[FAILED] += 1
        elif kind == "forget":
            self._messages.clear()
            self._received[FORGOTTEN] += 1
        else:
            raise AssertionError(f"unknown record {kind!r}")

    def _note_end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._process is not None:
            self._exitcode = self._process.reap()
            self._last_words = self._process.read_stacks()
        self._tell_waiting()

    def _in_transit(self) -> int:
        """Count what the server process has put and we have not received.

        A record may well be here before it is counted.  What a dead process
        counted stands in its death notice instead.
        """
        if self._ended:
            return 0
        return sum(max(self._counters[kind] - self._received[kind], 0) for kind in COUNTED)

    def _is_incomplete(self) -> bool:
        """Say whether something must be awaited before any message is taken.

        That is a failure, a log record, or the word that what came before is
        to be forgotten; or a message, where there is none.
        """
        if self._ended:
            return False
        counters, received = self._counters, self._received
        for kind in (FAILED, FORGOTTEN, LOGGED):
            if counters[kind] > received[kind]:
                return True
        return not self._messages and counters[ACCEPTED] > received[ACCEPTED]

    def _pass_on_logs(self) -> None:
        """Hand the server process's log records to this process's loggers."""
        while self._logs:
            try:
                record = self._logs.popleft()
            except IndexError:  # another thread was quicker
                return
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)

    # Sending.

    def _post(self, request: tuple[Any, ...], timeout: float, option: str = "") -> None:
        """Send a request.

        :raises NotRunning: The channel is closed.
        :raises ServerDied: The server process is gone.
        :raises ServerStuck: It takes no more.
        """
        self._check_owner()
        deadline = now() + timeout
        try:
            with self._lock:
                if self._closed:
                    raise NotRunning(
                        f"{self.name} has been stopped: call start(), "
                        "and make faults and gates anew",
                        **self._where,
                    )
                self._write(b"".join(encode(request)), deadline)
        except BrokenPipeError:
            self.await_end(_END_TIMEOUT)
            self._raise_silence("closed the pipe for requests and did not end", _END_TIMEOUT)
        except BlockingIOError:
            self._raise_silence("took no more requests", timeout, option)

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        pipe = self._channel.requests.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        while left:
            try:
                left = left[os.write(pipe, left) :]
            except BlockingIOError:
                remaining = min(deadline - now(), _LONGEST_WAIT)
                if remaining <= 0 or not poll.poll(remaining * 1000):
                    raise

    # What to raise.

    def _check_owner(self) -> None:
        if self.is_foreign():
            raise NotRunning(
                f"{self.name} belongs to process {self._owner}, which started it; "
                f"this is process {os.getpid()}, a child of that.  "
                "Connect to it from here, and call its controller there",
                **self._where,
            )

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._failures.popleft()

    def _raise_death(self, *, drained: bool = True) -> None:
        """Raise if the server process is gone, and should not be.

        :param drained: Whether what is left must have been taken first.
        """
        self._check_owner()
        with self._lock:
            if not self._ended and self._process is not None and self._process.is_gone():
                self._take_in_the_rest()
            if not self._ended or (drained and self._messages) or self._ended_well():
                return
            raise self._death()

    def _raise_silence(self, what: str, elapsed: float, option: str = "") -> NoReturn:
        """Raise the reason why something did not come.

        :param what: What the server process did not do.
        :param elapsed: How long was waited for it, in seconds.
        :param option: The controller's option that says how long, if one does.
        """
        self._check_owner()
        if self._ended and self._ended_well():
            raise NotRunning(
                f"{self.name} was stopped, by another thread, while this call waited for it: "
                "call stop() when no other thread uses it any more",
                **self._where,
            )
        if self._ended:
            raise self._death()
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
        raise ServerStuck(text, stack=stack, elapsed=elapsed, **self._where)

    def _lost(self) -> int:
        # Killed between putting and counting, the process counted one too few.
        return max(self._counters[ACCEPTED] - self._received[ACCEPTED], 0)

    def _ended_well(self) -> bool:
        """Say whether the end was what was asked for, and cost no message."""
        if not self._asked_to_stop or self._lost():
            return False
        return self._forced or self._exitcode in (0, None)

    def _death(self) -> ServerDied:
        self._death_told = True
        exitcode, stack, lost = self._exitcode, self._last_words, self._lost()
        text = (
            f"{self.name} {describe_end(exitcode, forced=self._forced)}; {describe_lost(lost)}.  "
            f"{after_end(exitcode, forced=self._forced)}"
        )
        if stack:
            text += f".  Its last words:\n{stack}"
        return ServerDied(text, exitcode=exitcode, lost=lost, stack=stack, **self._where)

    @property
    def where(self) -> dict[str, Any]:
        """What errors say of the server: host, port and pid."""
        return self._where.copy()

    @property
    def name(self) -> str:
        """What to call the server process."""
        return (
            f"the server process {self._where.get('pid')} "
            f"on {self._where.get('host')} port {self._where.get('port')}"
        )
