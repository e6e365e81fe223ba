"""What becomes of a message at the end of its data, up to the reply.  Server process.

`SMTPSession` and `SMTPCommands` ask for it, and send the reply.  Which of the three
ways a message goes is settled once, by what the server is:

- A `QueueServer` as it is, with a queue of ours: the octets are sent as they
  are, at once, on the event loop.
- Likewise, with a queue of somebody else's: they are sent, and the reply waits
  until the test process has put the message there.
- Any other server: its `handle_message` runs on the one worker thread.

Putting and counting come before the reply, always: a 250 must be true by the time
that the client reads it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from _pickle import PickleBuffer, dumps
from collections import deque
from collections.abc import Callable, MutableSequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NoReturn, TypeVar

from lazr_smtptest._limits import limit_behind
from lazr_smtptest._smtp.context import Delivery
from lazr_smtptest._smtp.protocol import ACCEPTED_REPLY, VerbatimReply
from lazr_smtptest._util import refusal, what_raised
from lazr_smtptest._wire.channel import ACCEPTED, COUNTED_KINDS
from lazr_smtptest._wire.ipc_queue import LARGE, RecordWriter, Sealed, pickled
from lazr_smtptest._wire.rules import encode_reply
from lazr_smtptest.message import Envelope, Message, Received, packed_item, packed_message, parse
from lazr_smtptest.server import QueueServer, Server

#: Seconds that the test process's thread has to put a message into a queue that
#: is not ours.  A test that computes may keep the thread from running.
_PUT_TIMEOUT = 60.0

T = TypeVar("T")


class PutRefused(Exception):
    """A put failed, and a test process knows; its text is the reply for the client."""


def seal(item: Any) -> Sealed:
    """Pickle an item; but not the content of a large message, which is sent as it lies there."""
    if _is_untouched(item):
        item = Received(item.envelope, item.raw)
    if type(item) is not Received:
        return Sealed(pickled(packed_item(item)))
    envelope, raw = item
    if len(raw) < LARGE:
        return Sealed(pickled(packed_message(envelope, bytes(raw))))
    content = PickleBuffer(raw)
    apart = packed_message(envelope, content)
    # What else has a buffer, in an envelope that a handler has changed, stays in the pickle.
    return Sealed(dumps(apart, -1, buffer_callback=lambda buffer: buffer is not content), raw)


def _is_untouched(item: Any) -> bool:
    """Whether this is a message that a handler has passed on as it came."""
    return (
        type(item) is Message
        and vars(item).keys() == {"envelope", "raw"}
        and type(item.envelope) is Envelope
        and type(item.raw) is bytes
    )


class _Held(threading.local):
    """What a thread has yet to send, pickled, and what it was; None if it sends at once."""

    sealed: list[tuple[Sealed, Any]] | None = None


class Outbox:
    """The way to the test process.  Any thread may use it.

    :param lock: A reentrant lock to hold while something is sent, if there is one already.
    """

    def __init__(
        self,
        fd: int,
        counters: MutableSequence[int],
        on_backlog: Callable[[], object],
        lock: threading.RLock | None = None,
    ) -> None:
        self._writer = RecordWriter(fd, on_backlog)
        self._counters = counters
        # Reentrant: collecting garbage in here may log, and logging sends.
        self._count = lock or threading.RLock()
        self._is_closed = False
        self._held = _Held()
        self.flush = self._writer.flush

    def close(self) -> None:
        """Refuse further messages: they might be counted, and never written."""
        with self._count:
            self._is_closed = True

    def put(self, item: Any) -> None:
        """Put a message, or whatever is picklable, into the queue of the test process."""
        self._deliver(seal(item), item)

    def put_if_accepted(self, item: Any) -> None:
        """Put it when this thread's handler has accepted its message, or at once if it has none.

        It is pickled now, as it is.
        """
        held = self._held.sealed
        if held is None:
            self.put(item)
        else:
            held.append((seal(item), item))

    def handle(self, handler: Callable[[], str]) -> str:
        """Run a handler; put what it passed on if it returns a reply that accepts."""
        held: list[tuple[Sealed, Any]] = []
        self._held.sealed = held
        try:
            reply = handler()
        finally:
            self._held.sealed = None
        for sealed, item in held if reply.startswith("2") else ():
            self._deliver(sealed, item)
        return reply

    def _deliver(self, sealed: Sealed, item: Any) -> None:  # noqa: ARG002 -- an override has it
        self._put(sealed)

    def _put(self, sealed: Sealed) -> None:
        with self._count:
            if self._is_closed:  # its client has been hung up on, and gets no 250
                return
            self._writer.write_sealed(sealed)
            self._counters[ACCEPTED] += 1

    def send(self, kind: str, *content: Any) -> None:
        """Send a record, and count it if it is of a kind that is counted."""
        with self._count:
            self._writer.write((kind, *content))
            counter = COUNTED_KINDS.get(kind)
            if counter is not None:
                self._counters[counter] += 1

    async def forget(self) -> None:
        """Make the test process forget all messages that were put so far."""
        self.send("forget")

    def report(self, where: str, error: BaseException, envelope: Envelope | None = None) -> str:
        """Send the test process an error of plugged-in code; return the reply for the client.

        The envelope is that of the message which the error is about, if it is about one.
        """
        self._report(where, error, envelope)
        return refusal(error)

    def _report(self, where: str, error: BaseException, envelope: Envelope | None) -> None:  # noqa: ARG002
        lines = traceback.format_exception(error)
        self.send("failed", what_raised(where, error), "".join(lines))


def _put_timed_out() -> TimeoutError:
    return TimeoutError(
        f"the test process did not fill its queue within {_PUT_TIMEOUT:g} seconds: "
        "does the queue's put wait, or do threads get no turn?"
    )


class AcknowledgedOutbox(Outbox):
    """The way to a queue that the test process has to fill itself.

    `put` returns when the message is there.
    """

    def __init__(
        self, fd: int, counters: MutableSequence[int], on_backlog: Callable[[], object]
    ) -> None:
        super().__init__(fd, counters, on_backlog)
        self._loop_thread = threading.get_ident()
        #: What has been sent and not acknowledged, which is done in this order.
        self._awaited: deque[Future[None]] = deque()

    def post(self, item: Any) -> Future[None]:
        """Send a message; the future is done when the queue has it, or has refused it."""
        return self._post(self._put, seal(item))

    def _post(self, send: Callable[..., None], *content: Any) -> Future[None]:
        future: Future[None] = Future()
        with self._count:  # the order of the futures is that of the records
            # First, since the acknowledgement may come before this goes on.
            self._awaited.append(future)
            try:
                send(*content)
            except BaseException:
                self._awaited.remove(future)
                raise
        return future

    def _deliver(self, sealed: Sealed, _item: Any) -> None:
        """Put a message into the queue of the test process, and wait for it.

        Blocks up to 60 seconds; raises PutRefused if the queue's own put raised.
        """
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError(
                "on the event loop, put() would wait for ever for what the loop has yet to read: "
                "await asyncio.get_running_loop().run_in_executor(None, self.queue.put, message)"
            )
        try:
            self._post(self._put, sealed).result(_PUT_TIMEOUT)
        except FutureTimeoutError:
            raise _put_timed_out() from None

    async def forget(self) -> None:
        """Make the test process empty the queue, and wait for it.  See `put`."""
        await _acknowledged(self._post(self.send, "forget"))

    def acknowledge(self, refused: str | None) -> None:
        """Note what became of the first message that is not acknowledged yet."""
        future = self._awaited.popleft()
        if not future.set_running_or_notify_cancel():
            return  # who waited has given up
        if refused is None:
            future.set_result(None)
        else:
            future.set_exception(PutRefused(refused))


async def _acknowledged(future: Future[None]) -> None:
    try:
        await asyncio.wait_for(asyncio.wrap_future(future), _PUT_TIMEOUT)
    except asyncio.TimeoutError:
        raise _put_timed_out() from None


class QueueStandIn(queue.Queue[Any]):
    """Stands in for a `QueueServer`'s queue.

    What is put goes to the test process; to read, it is a queue that is always
    empty.  So an override of ``reset`` may empty it, as it had to in 2.x.
    """

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    # The signatures are those of every queue.Queue.
    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        """Put something picklable into the real queue, which decides whether it waits."""
        self._outbox.put(item)

    def _put_if_accepted(self, item: Any) -> None:
        """Put what an override passes on to `QueueServer.handle_message`."""
        self._outbox.put_if_accepted(item)

    def get(self, block: bool = True, timeout: float | None = None) -> NoReturn:  # noqa: ARG002
        """Raise Empty at once: this queue is always empty."""
        raise queue.Empty


class HandlerThread:
    """The one thread that plugged-in code runs on, started when there is something to run."""

    _executor: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Run it behind what was submitted before; raise if there is no thread for it."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="handler")
        try:
            return self._executor.submit(work, *args)
        except (MemoryError, RuntimeError) as error:
            # It would still run this, should it have a thread one day; the client was refused.
            self._executor = None
            reasons = filter(None, [str(error), limit_behind(error)])
            raise type(error)("; ".join(reasons)) from error


def way_of_delivery(
    server: Server, outbox: Outbox, worker: HandlerThread, on_exit: Callable[[int], object]
) -> Delivery:
    """Choose the way that a server's messages go.

    If a handler asks the process to end, ``on_exit`` gets the exit code.
    """
    if type(server).handle_message is not QueueServer.handle_message:
        return _handling(server, outbox, worker, on_exit)
    if isinstance(outbox, AcknowledgedOutbox):
        return _forwarding_acknowledged(outbox)
    return _forwarding(outbox)


def _forwarding(outbox: Outbox) -> Delivery:
    def forward(envelope: Envelope, raw: bytearray) -> str:
        try:
            outbox.put(Received(envelope, raw))
        except PutRefused as error:
            return str(error)
        return ACCEPTED_REPLY

    async def forward_eventually(envelope: Envelope, raw: bytearray) -> str:
        return forward(envelope, raw)

    return Delivery(forward_eventually, forward)


def _forwarding_acknowledged(outbox: AcknowledgedOutbox) -> Delivery:
    async def forward(envelope: Envelope, raw: bytearray) -> str:
        try:
            await _acknowledged(outbox.post(Received(envelope, raw)))
        except PutRefused as error:
            return str(error)
        except TimeoutError as error:
            return refusal(error)
        return ACCEPTED_REPLY

    return Delivery(forward)


def _handling(
    server: Server, outbox: Outbox, worker: HandlerThread, on_exit: Callable[[int], object]
) -> Delivery:
    where = f"{type(server).__name__}.handle_message"

    def handle(envelope: Envelope, raw: bytearray) -> str | None:
        # Everything is dealt with here and not where this is awaited: the
        # client may hang up, and nobody awaits it then.
        try:
            return outbox.handle(
                lambda: _reply(server.handle_message(parse(envelope, bytes(raw))))
            )
        except PutRefused as error:
            return str(error)
        except SystemExit as error:
            on_exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            return None
        except BaseException as error:
            return outbox.report(where, error, envelope)

    async def hand_over(envelope: Envelope, raw: bytearray) -> str:
        try:
            work = worker.submit(handle, envelope, raw)
        except (MemoryError, RuntimeError) as error:
            return outbox.report(where, error, envelope)
        reply = await asyncio.wrap_future(work)
        if reply is None:
            await asyncio.get_running_loop().create_future()  # the process is ending
            raise AssertionError("unreachable")
        return reply

    return Delivery(hand_over)


def _reply(returned: object) -> str:
    """Return the reply for the client, given what `handle_message` has returned."""
    if returned is None:
        return ACCEPTED_REPLY
    must = "handle_message must return None or a reply, such as '553 5.7.1 No'"
    if not isinstance(returned, str):
        raise TypeError(f"{must}, not {returned!r}")
    try:
        reply = encode_reply(returned).decode("utf-8")
    except ValueError as error:
        raise ValueError(f"{must}: {error}") from None
    if reply.startswith("3"):  # the client would send more (RFC 5321, 4.3.2)
        raise ValueError(f"{must}, and none of 3xx, not {returned!r}")
    return VerbatimReply(reply)
