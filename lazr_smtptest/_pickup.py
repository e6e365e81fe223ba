"""Where the test process takes messages, and looks at them.  Test process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from lazr_smtptest._arrivals import Arrivals
from lazr_smtptest._channel import ACCEPTED, Channel
from lazr_smtptest._counterpart import Counterpart
from lazr_smtptest._parcel import Parcel
from lazr_smtptest._watch import Watch

__all__ = ["TRANSIT_TIMEOUT", "Pickup"]

#: Seconds to wait for a record that is known to be on its way.  It lies in
#: the pipe already, or the server process is writing it.
TRANSIT_TIMEOUT = 5.0


def _always() -> bool:
    return True


class Pickup:
    """The part of the test process's end that hands out what has arrived.

    :param channel: The channel, fresh.

    :ivar counterpart: The process at the other end.
    """

    def __init__(self, channel: Channel) -> None:
        where: dict[str, Any] = {}
        self._arrivals = arrivals = Arrivals(channel, where)
        self.counterpart = Counterpart(arrivals, channel.stacks, where)
        self._watch = Watch(channel.records, arrivals, self.counterpart)
        # By names of their own: taking a message is not to be slower than need be.
        self._lock = self._watch.lock
        self._messages = arrivals.messages
        self._failures = arrivals.failures
        self._logs = arrivals.logs
        self._is_incomplete = arrivals.is_incomplete

    @property
    def ended(self) -> bool:
        """Whether the server process is known to be gone, or this end closed."""
        return self._arrivals.ended

    @property
    def name(self) -> str:
        """What to call the server process."""
        return self.counterpart.name

    @property
    def where(self) -> dict[str, Any]:
        """What errors say of the server: host, port and pid."""
        return self.counterpart.where.copy()

    def is_alive(self) -> bool:
        """Say whether the server process lives.  Does not block."""
        with self._lock:
            return not self._arrivals.ended and self.counterpart.is_alive()

    # Taking.

    def waiting(self) -> int:
        """Count the messages that can be taken, without a system call.

        Where some have not arrived yet, or a failure has not, those are
        awaited, or the reason why they never will be.

        :return: The number.
        :raises HandlerError: A handler has failed.
        :raises ServerDied: Nothing is left, and the server process is gone.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        arrivals = self._arrivals
        if not (arrivals.ended or self._failures or self._logs or arrivals.in_transit()):
            return len(self._messages)
        count = self._watch.wait_for(self._count, TRANSIT_TIMEOUT)
        if count is None:
            self.counterpart.raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        if not count:
            self._raise_death()
        return count

    def _count(self) -> int | None:
        """Count the messages that are here or are coming, if it may be done yet."""
        if self._is_incomplete():
            return None
        arrivals = self._arrivals
        arrivals.raise_failure()
        coming = arrivals.counters[ACCEPTED] - arrivals.received[ACCEPTED]
        return len(self._messages) + (0 if arrivals.ended else max(coming, 0))

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
        wait_for = self._watch.wait_for
        found = None
        if timeout > 0:
            found = wait_for(lambda: self._next(failures) if is_wanted() else (), timeout)
        if found is None:
            found = wait_for(lambda: self._next(failures) or self._nothing(), TRANSIT_TIMEOUT)
        if found:
            return found[0]
        if found is None and not self._arrivals.ended:
            self.counterpart.raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        self._raise_death()
        return None

    def _next(self, failures: bool) -> tuple[Parcel, ...] | None:
        """Take the next message or raise the next failure, if it may be done yet."""
        if self._is_incomplete():
            return None
        if failures:
            self._arrivals.raise_failure()
        return (self._messages.popleft(),) if self._messages else None

    def _nothing(self) -> tuple[Parcel, ...] | None:
        """Give the empty tuple if it is certain that there is no message."""
        return None if self._arrivals.in_transit() or self._arrivals.ended else ()

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

    def adopt(self, other: Pickup) -> None:
        """Take over what is left of another end; it came before all else."""
        with other._lock:
            older = list(other._messages)
            other._messages.clear()
        with self._lock:
            self._messages.extendleft(reversed(older))

    # Looking.

    def look(self) -> tuple[list[Parcel], int]:
        """Give all messages that can be taken, and take none.

        What was accepted before the call is among them.

        :return: The messages, and how many have ever arrived.
        :raises HandlerError: A handler has failed.
        :raises ServerStuck: What was on its way has not come within 5 seconds.
        """
        arrivals = self._arrivals
        accepted = arrivals.counters[ACCEPTED]

        def all_of_them() -> tuple[list[Parcel], int] | None:
            received = arrivals.received[ACCEPTED]
            if not arrivals.ended and (received < accepted or self._is_incomplete()):
                return None
            arrivals.raise_failure()
            return list(self._messages), received

        found = self._watch.wait_for(all_of_them, TRANSIT_TIMEOUT)
        if found is None:
            self.counterpart.raise_silence("had more to send and did not send it", TRANSIT_TIMEOUT)
        return found

    @property
    def remains(self) -> list[Parcel]:
        """What has arrived, whatever else may be wrong."""
        with self._lock:
            return list(self._messages)

    def await_more(self, seen: int, timeout: float, is_wanted: Callable[[], bool]) -> None:
        """Wait until more have arrived than were seen, or something failed.

        :param seen: How many had ever arrived; see `look`.
        :param timeout: How long to wait, in seconds.
        :param is_wanted: See `take`.
        """

        def anything() -> bool | None:
            more = self._arrivals.received[ACCEPTED] > seen or bool(self._failures)
            return True if more or not is_wanted() else None

        self._watch.wait_for(anything, timeout)

    def wake(self) -> None:
        """Have all that wait look again at what they wait for."""
        with self._lock:
            self._watch.tell()

    # What has gone wrong.

    def fail(self, what: str, traceback: str) -> None:
        """Note a failure of code that was plugged in at this end.

        :param what: What raised, and what it raised, in one line.
        :param traceback: The whole traceback.
        """
        with self._lock:
            self._arrivals.fail(what, traceback)
            self._watch.tell()

    def check(self) -> None:
        """Raise what a handler has raised, if it did and nobody knows yet.

        :raises HandlerError: A handler has failed.  Should several have, this
            is the first, and the others are dropped.
        :raises ServerStuck: A failure was on its way and has not come.
        """
        self._watch.wait_for(lambda: None if self._is_incomplete() else True, TRANSIT_TIMEOUT)
        with self._lock:
            try:
                self._arrivals.raise_failure()
            finally:
                self._failures.clear()

    def check_death(self, *, again: bool = True) -> None:
        """Raise that the server process has died, whatever is left to take.

        :param again: Whether to do so if a call has said so before.
        :raises ServerDied: It has.
        """
        if again or not self.counterpart.death_told:
            self._raise_death(drained=False)

    def _raise_death(self, *, drained: bool = True) -> None:
        """Raise if the server process is gone, and should not be.

        :param drained: Whether what is left must have been taken first.
        """
        self.counterpart.check_owner()
        with self._lock:
            self._watch.look_for_end()
            is_more_left = drained and self._messages
            if self._arrivals.ended and not is_more_left and not self.counterpart.ended_well():
                raise self.counterpart.death()
