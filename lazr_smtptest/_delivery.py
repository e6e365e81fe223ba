"""From the end of a message's data to the reply, in the server process.

Which of the three ways a message goes is settled once, by what the server is:

- A `QueueServer` as it is, with a queue of ours: the octets go home as they
  are, at once, on the event loop.
- Likewise, with a queue of somebody else's: they go home, and the reply waits
  until the test process has put the message there.
- Any other server: its `handle_message` runs on the one worker thread.

Putting and counting come before the reply, always: what the client was told
must be true by the time it reads it.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple

from lazr_smtptest._channel import ACCEPTED, FAILED, FORGET, FORGOTTEN, LOGGED, ServerEnd
from lazr_smtptest._frames import FrameWriter, pickled
from lazr_smtptest.message import Envelope, Received, parse
from lazr_smtptest.server import QueueServer, Server

__all__ = ["ACCEPTED_REPLY", "Delivery", "Outbox", "refusal", "way_of_delivery", "what_raised"]


class Delivery(NamedTuple):
    """A way for messages to go: takes envelope and content, gives the reply.

    :ivar eventual: The way, for a coroutine.
    :ivar immediate: The same, where it takes no waiting; else None.
    """

    eventual: Callable[[Envelope, bytes], Awaitable[str]]
    immediate: Callable[[Envelope, bytes], str] | None = None


ACCEPTED_REPLY = "250 OK"

#: Seconds that the test process's thread has to put a message into a foreign
#: queue.  The thread may be kept from running by a test that computes.
_PUT_TIMEOUT = 60.0

_COUNTED = {"failed": FAILED, "forget": FORGOTTEN, "log": LOGGED}

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def refusal(error: BaseException) -> str:
    """Give the reply that tells a client of an error in plugged-in code.

    :param error: What was raised.
    :return: 452 if it says that storage ran out, else 451 (RFC 5321, 4.2.3),
        with an enhanced code (RFC 3463), the exception's name, and its text.
    """
    text = " ".join(str(error).encode("ascii", "backslashreplace").decode().split())
    reason = f"({type(error).__name__}) {text[:400]}".rstrip()
    full = isinstance(error, queue.Full) or (
        isinstance(error, OSError) and error.errno in _NO_ROOM
    )
    return f"452 4.3.1 Error: {reason}" if full else f"451 4.3.0 Error: {reason}"


def what_raised(where: str, error: BaseException) -> str:
    """Say in one line what raised, and what it raised.

    :param where: What raised.
    :param error: What it raised.
    :return: The line; with the beginning of a long text.
    """
    text = " ".join(str(error).split())[:400]
    return f"{where} raised {type(error).__name__}{': ' if text else ''}{text}"


class RefusedAtHome(Exception):
    """A put failed in the test process, which knows all about it.

    :ivar reply: What to tell the client.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class Outbox:
    """The way to the test process.  Any thread may use it.

    In the server process it stands in for a `QueueServer`'s queue.

    :param end: The channel's end.
    :param on_backlog: Called when the pipe is full; see `FrameWriter`.
    """

    def __init__(self, end: ServerEnd, on_backlog: Callable[[], object]) -> None:
        self._writer = FrameWriter(end.records.fileno(), on_backlog)
        self._counters = end.counters
        # Reentrant: collecting garbage in here may log, and logging sends.
        self._count = threading.RLock()
        self.flush = self._writer.flush

    def put(self, item: Any) -> None:
        """Put a message into the queue of the test process.

        :param item: A message, or anything else that is picklable.
        :raises Exception: What pickle raises if it is not.
        """
        parcel = pickled(item)
        with self._count:
            self._writer.write(parcel, sealed=True)
            self._counters[ACCEPTED] += 1

    def send(self, kind: str, *content: Any) -> None:
        """Send a record, and count it if it is of a kind that is counted."""
        with self._count:
            self._writer.write((kind, *content))
            counter = _COUNTED.get(kind)
            if counter is not None:
                self._counters[counter] += 1

    async def forget(self) -> None:
        """Have the test process forget all messages that were put so far."""
        self.send("forget")

    def report(self, where: str, error: BaseException) -> str:
        """Tell the test process of an error in plugged-in code.

        :param where: What raised.
        :param error: What was raised.
        :return: The reply for the client.
        """
        lines = traceback.format_exception(error)
        self.send("failed", what_raised(where, error), "".join(lines))
        return refusal(error)


def _not_seen_to() -> TimeoutError:
    return TimeoutError(
        f"the test process did not see to its queue within {_PUT_TIMEOUT:g} seconds: "
        "does the queue's put wait, or do threads get no turn?"
    )


class AcknowledgedOutbox(Outbox):
    """The way to a queue that the test process has to fill itself.

    `put` returns when the message is there.
    """

    def __init__(self, end: ServerEnd, on_backlog: Callable[[], object]) -> None:
        super().__init__(end, on_backlog)
        self._loop_thread = threading.get_ident()
        self._awaited: dict[int, Future[None]] = {}
        self._number = 0

    def post(self, item: Any) -> Future[None]:
        """Send a message.

        :param item: The message; or `FORGET`.
        :return: A future, done when the queue has it, or has refused it.
        """
        # Pickled twice, so that one that cannot be unpickled has its number.
        parcel = pickled(item)
        future: Future[None] = Future()
        with self._count:
            self._number += 1
            number = self._number
            self._awaited[number] = future
        try:
            super().put((number, parcel))
        except BaseException:
            del self._awaited[number]
            raise
        return future

    def put(self, item: Any) -> None:
        """Put a message into the queue of the test process, and wait for it.

        :param item: A message, or anything else that is picklable.
        :raises RefusedAtHome: The queue's own ``put`` raised.
        :raises RuntimeError: This is the event loop's thread.
        :raises TimeoutError: The test process has not done it in 60 seconds.
        """
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError(
                "on the event loop, put() would wait for ever for what the loop has yet to read: "
                "await asyncio.get_running_loop().run_in_executor(None, self.queue.put, message)"
            )
        try:
            self.post(item).result(_PUT_TIMEOUT)
        except FutureTimeoutError:
            raise _not_seen_to() from None

    async def forget(self) -> None:
        """Have the test process empty the queue, and wait for it.

        :raises RefusedAtHome: The queue's own ``get_nowait`` raised.
        :raises TimeoutError: The test process has not done it in 60 seconds.
        """
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.post(FORGET)), _PUT_TIMEOUT)
        except asyncio.TimeoutError:
            raise _not_seen_to() from None

    def acknowledge(self, number: int, refused: str | None) -> None:
        """Take note of what the test process says of a message."""
        future = self._awaited.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if refused is None:
            future.set_result(None)
        else:
            future.set_exception(RefusedAtHome(refused))


def way_of_delivery(
    server: Server, outbox: Outbox, worker: ThreadPoolExecutor, on_exit: Callable[[int], object]
) -> Delivery:
    """Choose the way that a server's messages go.

    :param server: The server.
    :param outbox: The way to the test process.
    :param worker: The one thread for handlers.
    :param on_exit: Called, on the worker thread, with the exit code, if a
        handler asks the process to end.
    :return: The way.
    """
    if type(server).handle_message is not QueueServer.handle_message:
        return _handling(server, outbox, worker, on_exit)
    if isinstance(outbox, AcknowledgedOutbox):
        return _forwarding_acknowledged(outbox)
    return _forwarding(outbox)


def _forwarding(outbox: Outbox) -> Delivery:
    def forward(envelope: Envelope, raw: bytes) -> str:
        outbox.put(Received(envelope, raw))
        return ACCEPTED_REPLY

    async def forward_eventually(envelope: Envelope, raw: bytes) -> str:
        return forward(envelope, raw)

    return Delivery(forward_eventually, forward)


def _forwarding_acknowledged(outbox: AcknowledgedOutbox) -> Delivery:
    async def forward(envelope: Envelope, raw: bytes) -> str:
        placed = asyncio.wrap_future(outbox.post(Received(envelope, raw)))
        try:
            await asyncio.wait_for(placed, _PUT_TIMEOUT)
        except RefusedAtHome as error:
            return error.reply
        except asyncio.TimeoutError:
            return refusal(_not_seen_to())
        return ACCEPTED_REPLY

    return Delivery(forward)


def _handling(
    server: Server, outbox: Outbox, worker: ThreadPoolExecutor, on_exit: Callable[[int], object]
) -> Delivery:
    where = f"{type(server).__name__}.handle_message"

    def handle(envelope: Envelope, raw: bytes) -> str | None:
        # Everything is dealt with here and not where this is awaited: the
        # client may hang up, and nobody awaits it then.
        try:
            server.handle_message(parse(envelope, raw))
        except RefusedAtHome as error:
            return error.reply
        except SystemExit as error:
            on_exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            return None
        except BaseException as error:
            return outbox.report(where, error)
        return ACCEPTED_REPLY

    async def hand_over(envelope: Envelope, raw: bytes) -> str:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(worker, handle, envelope, raw)
        if reply is None:
            await loop.create_future()  # the process is ending
            raise AssertionError("unreachable")
        return reply

    return Delivery(hand_over)
