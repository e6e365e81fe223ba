"""The server process's event loop, and what hangs on it.  Server process."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import socket
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lazr_smtptest._channel import ServerEnd
from lazr_smtptest._delivery import AcknowledgedOutbox, Outbox, RefusedAtHome, way_of_delivery
from lazr_smtptest._frames import FrameReader
from lazr_smtptest._listen import BACKLOG
from lazr_smtptest._record import Records
from lazr_smtptest._script import Script
from lazr_smtptest._shipment import Shipment
from lazr_smtptest._smtp import SMTP
from lazr_smtptest._terms import Terms
from lazr_smtptest.server import QueueServer, Server
from lazr_smtptest.tls import server_context

__all__ = ["EX_SOFTWARE", "ServerProcess"]

#: What the process exits with when it could not even begin.
EX_SOFTWARE = 70


class ServerProcess:
    """The event loop and what hangs on it.

    :param end: The channel to the test process.
    :param sockets: Bound and listening.
    :param acknowledged: See `_child.main`.
    :param loop: The event loop.
    """

    def __init__(
        self,
        end: ServerEnd,
        sockets: list[socket.socket],
        acknowledged: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._end = end
        self._sockets = sockets
        self._loop = loop
        outbox = AcknowledgedOutbox if acknowledged else Outbox
        self.outbox = outbox(end, self._on_backlog)
        self._requests = FrameReader(end.requests.fileno())
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="handler")
        self._script = Script()
        self._records = Records()
        self._stopped: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self._has_room = asyncio.Event()

    def run(self, shipment: Shipment) -> int:
        """Serve until asked to stop.

        :return: The exit code.
        """
        try:
            self._server = shipment.unpack()
        except Exception as error:
            self.outbox.send(
                "reply",
                0,
                f"could not unpickle its server: {error!r}.  All that the server has must be "
                "importable and picklable there, or use start_method='fork'",
            )
            return EX_SOFTWARE
        if isinstance(self._server, QueueServer):
            self._server.queue = self.outbox
        self._deliver = way_of_delivery(self._server, self.outbox, self._worker, self._exit)
        credentials = self._server._credentials
        self._terms = Terms(
            self._server,
            deliver=self._deliver,
            report=self.outbox.report,
            on_rset=self._reset_server if self._server.reset_on_rset else None,
            numbers=itertools.count(1),
            script=self._script,
            records=self._records,
            tls_context=None if credentials is None else server_context(credentials),
        )
        if type(self._server) not in (QueueServer, Server):
            # aiosmtpd looks at all attributes of a server, and at its hooks'
            # signatures, when a client connects.  Better it does so now.
            try:
                self._open_session()
            except Exception as error:
                name = type(self._server).__name__
                self.outbox.send(
                    "reply",
                    0,
                    f"could not make a session for {name}: {error!r}.  "
                    "Mend what a session needs of it: its attributes, and its aiosmtpd hooks",
                )
                return EX_SOFTWARE
        return self._loop.run_until_complete(self._serve())

    async def _serve(self) -> int:
        loop = self._loop
        loop.add_reader(self._end.lifeline, os._exit, 0)
        loop.add_reader(self._end.requests, self._on_requests)
        servers = [
            await loop.create_server(
                self._open_session,
                sock=sock,
                backlog=BACKLOG,
                ssl=self._terms.tls_context if self._terms.tls_at_once else None,
            )
            for sock in self._sockets
        ]
        self.outbox.send("reply", 0, None)
        code = await self._stopped
        for server in servers:
            server.close()
        for session in list(self._sessions):
            session.abort()
        # Waits for as long as the test process takes to read, or lives.
        while not self.outbox.flush():
            self._has_room.clear()
            await self._has_room.wait()
        return code

    def _open_session(self) -> SMTP:
        session = SMTP(self._terms, loop=self._loop)
        self._sessions.add(session)
        return session

    def _exit(self, code: int) -> None:
        """End the process, in order; from any thread."""
        self._loop.call_soon_threadsafe(self._stop, code)

    def _stop(self, code: int) -> None:
        if not self._stopped.done():
            self._stopped.set_result(code)

    # What does not fit into the pipe.

    def _on_backlog(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.add_writer, self._end.records, self._on_room)

    def _on_room(self) -> None:
        if self.outbox.flush():
            self._loop.remove_writer(self._end.records)
            self._has_room.set()

    # What the test process asks for.

    def _on_requests(self) -> None:
        try:
            requests = self._requests.read() or ()
        except EOFError:
            self._loop.remove_reader(self._end.requests)
            return
        for number, what, *details in requests:
            task = self._loop.create_task(self._answer(number, what, *details))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @functools.cached_property
    def _at_once(self) -> dict[str, Callable[..., Any]]:
        """What can be answered on the spot."""
        return {
            "fault": self._script.add_rule,
            "fired": self._script.fired,
            "gate": self._script.add_gate,
            "release": self._script.release,
            "remove": self._script.withdraw,
            "sessions": self._records.export,
        }

    async def _answer(self, number: int, what: str, *details: Any) -> None:
        if what == "stop":
            self._stop(0)
        elif what == "reset":
            await self._reset()
            self.outbox.send("reply", number, None)
        elif what == "put":
            assert isinstance(self.outbox, AcknowledgedOutbox)
            self.outbox.acknowledge(*details)
        elif what == "wait_parked":
            self.outbox.send("reply", number, await self._script.parked(*details))
        else:
            self.outbox.send("reply", number, self._at_once[what](*details))

    async def _reset(self) -> None:
        """Reset all there is."""
        try:
            await self._reset_server()
        finally:
            self._script.clear()
            self._records.clear()

    async def _reset_server(self) -> None:
        """Reset the server object, behind the handlers that are running.

        That is all that a client's RSET may do.
        """
        try:
            # The thread is idle where messages do not go by way of it.
            nothing_to_do = type(self._server).reset is Server.reset
            if not (nothing_to_do and self._deliver.immediate):
                await self._loop.run_in_executor(self._worker, self._server.reset)
            await self.outbox.forget()
        except RefusedAtHome:
            return
        except Exception as error:
            self.outbox.report(f"{type(self._server).__name__}.reset", error)
