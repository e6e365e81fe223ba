"""The server process's event loop: listening, requests, the end.  Server process."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import weakref
from asyncio.tasks import sleep  # asyncio's may be a test's
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from lazr_smtptest._child.delivery import (
    AcknowledgedOutbox,
    HandlerThread,
    Outbox,
    PutRefused,
    QueueStandIn,
    seal,
    way_of_delivery,
)
from lazr_smtptest._child.link import ChildLink
from lazr_smtptest._limits import check_memory
from lazr_smtptest._smtp.context import SessionContext
from lazr_smtptest._smtp.faultscript import FaultScript, FaultScripts
from lazr_smtptest._smtp.session import SMTPSession
from lazr_smtptest._smtp.transcript import Transcripts
from lazr_smtptest._util import now, wait_ready
from lazr_smtptest._wire.channel import BACKLOG, UNASKED, ChildEnds
from lazr_smtptest._wire.ipc_queue import pickled
from lazr_smtptest._wire.startup import PickledServer
from lazr_smtptest.server import QueueServer, Server
from lazr_smtptest.sessions import Session
from lazr_smtptest.tls import server_context

if TYPE_CHECKING:
    from lazr_smtptest._child.lease_server import LeaseServer

#: What the process exits with when it could not even begin.
EX_SOFTWARE = 70


#: Turns of the loop that asyncio takes from accepting a client to its session.
_ACCEPTING = 3

#: Turns until a connection that is closed is so for its client, too.
_CLOSING = 3


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with a clock that no handler can stop; uvloop's has one."""

    def time(self) -> float:
        return now()


class ServerLoop:
    """What hangs on the event loop; see `main` for the arguments.

    The test process makes and prepares it for a process that is forked, before that is: there,
    each page of memory that is touched has to be copied.
    """

    _loop: asyncio.AbstractEventLoop
    _is_prepared = False

    def __init__(
        self, ends: ChildEnds, acknowledged: bool, lease_server: Callable[[], LeaseServer] | None
    ) -> None:
        self._ends = ends
        self._sockets: list[socket.socket] = []
        self._leases = None if lease_server is None else lease_server()
        self._worker = HandlerThread()
        self._auth_worker = HandlerThread()  # nobody's login waits for a message
        self._faults = FaultScript()
        self._transcripts = Transcripts()
        self._all_faults: FaultScript | FaultScripts = self._faults
        if self._leases is not None:
            self._all_faults = self._leases.table.faults
            self._faults = FaultScript(on_change=self._all_faults.settle)
            self._transcripts = self._leases.transcripts
        make_outbox: Any = AcknowledgedOutbox if acknowledged else Outbox
        if self._leases is not None:
            make_outbox = self._leases.make_outbox
        numbers = ends.counters.numbers
        self._link = ChildLink(
            ends.requests.fileno(),
            ends.records.fileno(),
            lambda fd, on_backlog: make_outbox(fd, numbers, on_backlog),
        )
        self._link.answers = self._answers()
        self._link.undo = self._undo
        self.outbox = self._link.outbox
        self._resets: dict[int, Future[None]] = {}
        self._sessions: weakref.WeakSet[SMTPSession] = weakref.WeakSet()

    def prepare(self, server: Server) -> None:
        """Make what all sessions have in common."""
        self._is_prepared = True
        self._server = server
        self._queue = QueueStandIn(self.outbox)
        self._deliver = way_of_delivery(server, self.outbox, self._worker, self._exit)
        self._context = self._make_context(server)

    def drop(self) -> None:
        """Let go of everything, in the test process: of all messages, for one."""
        # All have references to themselves, and the outbox, the shared memory.
        for one in (self.outbox, self._link, self):
            vars(one).clear()

    def run(
        self, loop: asyncio.AbstractEventLoop, sockets: list[socket.socket], server: PickledServer
    ) -> int:
        """Serve until asked to stop; return the exit code."""
        self._loop, self._sockets, self._endpoint = loop, sockets, server.endpoint
        self._stopped: asyncio.Future[int] = loop.create_future()
        problem = self._take_over(server)
        if problem is not None:
            self.outbox.send("reply", UNASKED, problem)
            return EX_SOFTWARE
        return loop.run_until_complete(self._serve())

    def _take_over(self, pickled: PickledServer) -> str | None:
        """Have the server in this process; return what is wrong, if something is."""
        try:
            server = pickled.load()
        except Exception as error:
            return (
                f"could not unpickle its server: {error!r}.  All that the server has must be "
                "importable and picklable there, or use start_method='fork'"
            )
        if not self._is_prepared:
            self.prepare(server)
        if isinstance(server, QueueServer):
            server.queue = self._queue
        if type(server) not in (QueueServer, Server):
            # aiosmtpd looks at all attributes of a server, and at its hooks'
            # signatures, when a client connects.  Better it does so now.
            try:
                self._open_session()
            except Exception as error:
                return (
                    f"could not make a session for {type(server).__name__}: {error!r}.  "
                    "Mend what a session needs of it: its attributes, and its aiosmtpd hooks"
                )
        return None

    def _make_context(self, server: Server) -> SessionContext:
        tls, credentials = server.tls, server._credentials
        return SessionContext(
            server=server,
            deliver=self._deliver,
            report=self.outbox.report,
            run=lambda *work: asyncio.wrap_future(self._auth_worker.submit(*work)),
            on_rset=self._reset_server if server.reset_on_rset else None,
            numbers=itertools.count(1),
            faults=self._all_faults,
            transcripts=self._transcripts,
            tls_context=server_context(tls, credentials) if tls and credentials else None,
        )

    async def _serve(self) -> int:
        loop = self._loop
        loop.add_reader(self._ends.lifeline, os._exit, 0)
        self._link.listen(loop, lambda: None)
        servers = [
            await (
                loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            )(self._open_session, sock=sock, backlog=BACKLOG)
            for sock in self._sockets
        ]
        if self._leases is not None:
            self._leases.listen(
                loop,
                self._leases.welcome(self._server, self._endpoint),
                lambda: list(self._sessions),
                self._wait_for_handlers,
            )
        check_memory()
        self.outbox.send("reply", UNASKED, None)
        code = await self._stopped
        for server in servers:
            server.close()
        transcripts = self._transcripts
        transcripts.stop_watching()
        for session in list(self._sessions):
            session.abort()
        self.outbox.send("sessions", pickled(transcripts.export()), transcripts.connections)
        if self._leases is not None:
            await self._leases.close()
        self.outbox.close()
        await self._link.flush()
        return code

    def _open_session(self) -> SMTPSession:
        session = SMTPSession(self._context, loop=self._loop)
        self._sessions.add(session)
        return session

    def _exit(self, code: int) -> None:
        """End the process in an orderly way; from any thread."""
        self._loop.call_soon_threadsafe(self._stop, code)

    def _stop(self, code: int) -> None:
        if not self._stopped.done():
            self._stopped.set_result(code)

    # What the test process asks for.

    def _answers(self) -> dict[str, Callable[..., Any]]:
        """What can be asked for: functions, and coroutine functions."""
        return {
            "acknowledge": self._acknowledge,
            "connections": self._count_connections,
            "fault": self._faults.add_rule,
            "fired": self._faults.fired,
            "gate": self._faults.add_gate,
            "hang_up": self._hang_up,
            "release": self._faults.release,
            "remove": self._faults.withdraw,
            "reset": self._reset,
            "sessions": self._export_sessions,
            "stop": lambda: self._stop(0),
            "wait_parked": self._faults.parked,
            "watch": self._watch,
            **({"unclaimed": self._leases.export_strays} if self._leases else {}),
        }

    def _acknowledge(self, refused: str | None) -> None:
        assert isinstance(self.outbox, AcknowledgedOutbox)
        self.outbox.acknowledge(refused)

    def _undo(self, number: int) -> bool:
        """Undo a request that somebody gave up on; return whether it must end."""
        self._faults.withdraw(number)
        work = self._resets.get(number)
        # A reset that has begun is finished: half of one would be worse than all of it.
        return work is None or work.cancel()

    async def _export_sessions(self) -> list[Session]:
        # A client for whom the TLS handshake is over, or has failed, is ahead of us
        # by what it sent last, which is read in this turn of the loop.
        await sleep(0)
        return self._transcripts.export()

    def _watch(self, with_lines: bool) -> None:
        # Pickled apart: it waits its turn among the messages.
        self._transcripts.watch(
            lambda event: self.outbox.send("session", seal(event).octets), with_lines
        )

    async def _count_connections(self) -> int:
        await self._accept_all()
        return self._transcripts.connections

    async def _hang_up(self, reply: bytes | None) -> int:
        await self._accept_all()
        open_ones = [one for one in list(self._sessions) if one.transport is not None]
        count = sum(one.hang_up(reply) for one in open_ones)
        for _ in range(_CLOSING):
            await sleep(0)
        return count

    async def _accept_all(self) -> None:
        """Accept the clients that wait in the backlog."""
        for _ in range(BACKLOG):
            if not self._is_backlog():
                break
            await sleep(0)
        for _ in range(_ACCEPTING):
            await sleep(0)

    def _is_backlog(self) -> bool:
        return bool(wait_ready(self._sockets, timeout=0))

    async def _reset(self, number: int) -> None:
        try:
            await self._reset_server(number)
        finally:
            self._resets.pop(number, None)
        self._faults.clear()
        for session in list(self._sessions):
            session.abort_if_abandoned()
        self._transcripts.clear()

    async def _reset_server(self, number: int | None = None) -> None:
        """Reset the server object, behind the handlers that are running.

        That is all that a client's RSET may do.
        """
        try:
            # The thread is idle where messages do not go by way of it.
            nothing_to_do = type(self._server).reset is Server.reset
            if not (nothing_to_do and self._deliver.immediate):
                work = self._worker.submit(self._server.reset)
                if number is not None:
                    self._resets[number] = work
                await asyncio.wrap_future(work)
            await self.outbox.forget()
        except PutRefused:
            return
        except Exception as error:
            self.outbox.report(f"{type(self._server).__name__}.reset", error)

    async def _wait_for_handlers(self) -> None:
        """Wait until the handler is done with what came so far, where there is one."""
        if not self._deliver.immediate:
            await asyncio.wrap_future(self._worker.submit(int))
