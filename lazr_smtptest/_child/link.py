"""The server process's end of what joins it with a reader of its mail.  Server process.

`ChildLink` takes requests and sends records, for the test process that started the server
and for each lease alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lazr_smtptest._child.delivery import Outbox
from lazr_smtptest._wire.channel import UNASKED
from lazr_smtptest._wire.ipc_queue import RecordReader

#: Requests that are known by their numbers afterwards, which their answers take first.
_NUMBERED = ("claim", "fault", "gate", "reset")


#: Octets that one read takes at most: requests are small, and leases may be many.
_READ_SIZE = 4_096


class ChildLink:
    """Requests from one reader of the mail, and records to it, on the event loop.

    :ivar answers: What can be asked for, by name: functions, and coroutine functions.
    :ivar undo: Called with the number of a request that somebody gave up on; returns whether
        the task that works on it may be cancelled.
    """

    def __init__(
        self,
        requests: int,
        records: int,
        make_outbox: Callable[[int, Callable[[], object]], Outbox],
    ) -> None:
        self._requests = requests
        self._records = records
        self._reader = RecordReader(requests, _READ_SIZE)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._has_room = asyncio.Event()
        self._is_gone = False
        self.answers: dict[str, Callable[..., Any]] = {}
        self.undo: Callable[[int], bool] = lambda _number: True
        self.outbox = make_outbox(records, self._on_backlog)

    def listen(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], object]) -> None:
        """Take requests from now on; call ``on_end`` when no more can come."""
        self._loop = loop
        self._loop.add_reader(self._requests, self._read, on_end)

    def _read(self, on_end: Callable[[], object]) -> None:
        try:
            requests = self._reader.read() or ()
        except EOFError:
            self._loop.remove_reader(self._requests)
            on_end()
            return
        # Who asked may have given up before this was read.
        cancelled = [details[0] for _, what, *details in requests if what == "cancel"]
        for number, what, *details in requests:
            if what == "cancel":
                self._cancel(*details)
            elif number == UNASKED:
                self.answers[what](*details)
            elif number not in cancelled:
                self._answer(number, what, *details)

    def _answer(self, number: int, what: str, *details: Any) -> None:
        if what in _NUMBERED:
            details = (number, *details)
        answer = self.answers[what](*details)
        if not asyncio.iscoroutine(answer):
            self.outbox.send("reply", number, answer)
            return
        self._tasks[number] = self._loop.create_task(self._answer_later(number, answer))

    async def _answer_later(self, number: int, answer: Coroutine[Any, Any, Any]) -> None:
        self.outbox.send("reply", number, await answer)
        del self._tasks[number]

    def _cancel(self, number: int) -> None:
        """Undo a request that somebody gave up on."""
        may_cancel = self.undo(number)
        if number in self._tasks and may_cancel:
            self._tasks.pop(number).cancel()

    def _on_backlog(self) -> None:
        self._loop.call_soon_threadsafe(self._await_room)

    def _await_room(self) -> None:
        if not self._is_gone:
            self._loop.add_writer(self._records, self._on_room)

    def _on_room(self) -> None:
        if self.outbox.flush():
            self._loop.remove_writer(self._records)
            self._has_room.set()

    async def flush(self) -> None:
        """Wait until all is written: for as long as the reader takes to read, or lives."""
        while not self.outbox.flush():
            self._has_room.clear()
            await self._has_room.wait()

    def close(self) -> None:
        """Close this end; the reader is gone."""
        self._is_gone = True
        self.outbox.close()
        self._loop.remove_reader(self._requests)
        self._loop.remove_writer(self._records)
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
