"""The channel's end in the test process, by which it asks and ends the other."""

from __future__ import annotations

import contextlib
import logging
import os
import select
from typing import Any

from lazr_smtptest._channel import Channel
from lazr_smtptest._clock import now
from lazr_smtptest._forks import FORKING, STARTING, disown_in_children
from lazr_smtptest._frames import encode
from lazr_smtptest._pickup import TRANSIT_TIMEOUT, Pickup
from lazr_smtptest._watch import LONGEST_WAIT
from lazr_smtptest.errors import NotRunning, ServerDied, ServerStuck

__all__ = ["HomeEnd"]

_log = logging.getLogger("lazr_smtptest")

#: Seconds to wait for a process that has closed its pipe to be gone.
_END_TIMEOUT = 5.0

#: Seconds, of those that stop() has, for each step after asking: showing the
#: stack, being terminated, being killed.
_LADDER_STEP = 1.0

#: Seconds until a killed process is gone, unless the kernel itself is stuck.
_KILL_TIMEOUT = 5.0


class HomeEnd(Pickup):
    """The test process's end: what has arrived, and the way to ask for things.

    :param channel: The channel, fresh.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._channel = channel
        os.set_blocking(channel.requests.fileno(), False)
        self._request_count = 0
        disown_in_children(self)

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
        replies = self._arrivals.replies

        def reply() -> tuple[Any] | None:
            return (replies.pop(number),) if number in replies else None

        found = self._watch.wait_for(reply, timeout)
        if found is None:
            self.counterpart.raise_silence(otherwise, timeout, option)
        return found[0]

    def tell(self, what: str, *details: Any) -> None:
        """Send something that has no answer; if nobody is there, that is that."""
        with contextlib.suppress(NotRunning, ServerDied):
            self._post((0, what, *details), TRANSIT_TIMEOUT)

    def _post(self, request: tuple[Any, ...], timeout: float, option: str = "") -> None:
        """Send a request.

        :raises NotRunning: The channel is closed.
        :raises ServerDied: The server process is gone.
        :raises ServerStuck: It takes no more.
        """
        self.counterpart.check_owner()
        deadline = now() + timeout
        try:
            with self._lock:
                if self._watch.is_closed:
                    raise NotRunning(
                        f"{self.name} has been stopped: call start(), "
                        "and make faults and gates anew",
                        **self.counterpart.where,
                    )
                self._write(b"".join(encode(request)), deadline)
        except BrokenPipeError:
            self.await_end(_END_TIMEOUT)
            self.counterpart.raise_silence(
                "closed the pipe for requests and did not end", _END_TIMEOUT
            )
        except BlockingIOError:
            self.counterpart.raise_silence("took no more requests", timeout, option)

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        pipe = self._channel.requests.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        while left:
            try:
                left = left[os.write(pipe, left) :]
            except BlockingIOError:
                remaining = min(deadline - now(), LONGEST_WAIT)
                if remaining <= 0 or not poll.poll(remaining * 1000):
                    raise

    # How it ends.

    def end(self, timeout: float) -> None:
        """End the server process, and close this end: ask, terminate, kill.

        :param timeout: How long all of it may take, in seconds.
        """
        step = min(_LADDER_STEP, timeout / 4)
        if not self.ask_to_stop(timeout - 3 * step):
            _log.warning(
                "%s did not stop when asked, and is terminated.  It was here:\n%s",
                self.name,
                self.counterpart.show_stacks(step) or "(it does not show its stack)",
            )
            self.counterpart.terminate()
            if not self.await_end(step):
                self.kill()
        self.close()

    def ask_to_stop(self, timeout: float) -> bool:
        """Ask the server process to end, and take in all it still has.

        :param timeout: How long to wait, in seconds.
        :return: Whether it has ended.
        """
        deadline = now() + timeout
        if self._watch.is_closed or not self.is_alive():
            return self.await_end(timeout)
        self.counterpart.asked_to_stop = True
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
        self._watch.wait_for(lambda: True if self.ended else None, timeout)
        return self.ended

    def kill(self) -> None:
        """End a server process that does not end otherwise."""
        self.counterpart.kill()
        self.await_end(_KILL_TIMEOUT)

    def close(self) -> None:
        """Close this end; what has arrived can still be taken.

        The server process, should it still run, is killed by that: the
        lifeline ends.
        """
        with self._lock:
            self._watch.call_off()
            with STARTING.lock:
                self._close_pipes()
        self._arrivals.pass_on_logs()

    def disown(self) -> None:
        """Close a forked child's copy; the child has no part in the channel.

        It has a lock of its own: the thread that held the other may not exist here.
        """
        self._watch.make_lock()
        self._lock = self._watch.lock
        self._arrivals.ended = True
        self._close_pipes()

    def _close_pipes(self) -> None:
        channel = self._channel
        with FORKING:
            self._watch.close()
            for pipe in (channel.records, channel.requests, channel.lifeline, channel.stacks):
                pipe.close()
            self.counterpart.close()
