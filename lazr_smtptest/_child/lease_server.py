"""Accepts clients that want a lease of a shared server, and answers them.  Server process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableSequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

from lazr_smtptest._child.leases import OF_ADDRESSES, OF_SESSIONS, Lease, LeaseTable
from lazr_smtptest._child.link import ChildLink
from lazr_smtptest._child.routing import LeaseOutbox, RoutingOutbox, SharedTranscripts
from lazr_smtptest._limits import limit_behind
from lazr_smtptest._smtp.session import SMTPSession
from lazr_smtptest._wire.channel import COUNTED, UNASKED
from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest._wire.rules import Rule
from lazr_smtptest._wire.sharing import Sharing, Strays, Welcome, known_of, prove
from lazr_smtptest.server import Server
from lazr_smtptest.sessions import Session

_log = logging.getLogger("lazr_smtptest")

#: Seconds for each step by which a client shows that it has the key.
_PROOF_TIMEOUT = 5.0

#: How many may be proving that at once; others wait.
_PROVING = 256

#: Seconds that leases have at the end to read what waits for them.
_LAST_FLUSH = 1.0


class LeaseClient:
    """A process that has leases, one after the other, and what it asks for."""

    def __init__(self, server: LeaseServer, pipe: Connection) -> None:
        self._server = server
        self._pipe = pipe
        self._table = table = server.table
        self._lease: Lease | None = None
        #: The number of the last request to claim, and what it added.
        self._last_claim: tuple[int, list[str]] = UNASKED, []
        counters = [0 for _ in COUNTED]
        fd = pipe.fileno()
        self.link = ChildLink(
            fd, fd, lambda fd, backlog: LeaseOutbox(fd, counters, backlog, table)
        )
        outbox = self.link.outbox
        assert isinstance(outbox, LeaseOutbox)
        self.outbox = outbox
        self.link.undo = self._undo
        self.link.answers = {
            "begin": self._begin,
            "catch_up": lambda number: outbox.send("caught_up", number),
            "claim": self._claim,
            "connections": lambda: self._count_connections(self.lease),
            "end": self._end,
            "fault": self._fault,
            "fired": lambda number: self.lease.faults.fired(number),
            "gate": self._gate,
            "hang_up": self._hang_up,
            "release": lambda number, count: self.lease.faults.release(number, count),
            "remove": lambda number: self.lease.faults.withdraw(number),
            "reset": lambda _number: self._reset(self.lease),
            "sessions": lambda: self._export_sessions(self.lease),
            "unclaimed": lambda: server.export_strays(self.lease.began),
            "wait_parked": lambda *details: self.lease.faults.parked(*details),
        }

    @property
    def lease(self) -> Lease:
        assert self._lease is not None
        return self._lease

    def _undo(self, number: int) -> bool:
        if self._lease is not None:
            self._lease.faults.withdraw(number)
            if self._last_claim[0] == number:
                self._table.withdraw(self._lease, self._last_claim[1])
                self._last_claim = UNASKED, []
        return True

    def _claim(self, number: int, claims: list[str]) -> str | None:
        lease = self.lease
        before = len(lease.claims)
        refused = self._table.claim(lease, claims)
        self._last_claim = number, lease.claims[before:]
        return refused

    def _begin(self, owner: str) -> str:
        """Begin a lease in place of the one before; return its label."""
        with self._table.lock:  # a handler may have a message for the one before
            self._end()
            self._lease = self._table.begin(owner, self.outbox)
            self.outbox.send("forget")
        return self._lease.label

    def _end(self) -> None:
        self._last_claim = UNASKED, []
        if self._lease is not None:
            self._table.end(self._lease)

    def close(self) -> None:
        """End the lease of a process that is gone: its claims are free."""
        self._end()
        self.link.close()
        self._pipe.close()

    def _fault(self, number: int, rule: Rule) -> int | str:
        refused = self._why_not_mine(rule.stage, rule.when)
        return refused or self.lease.faults.add_rule(number, rule)

    def _gate(self, number: int, stage: str, when: str | None) -> int | str:
        return self._why_not_mine(stage, when) or self.lease.faults.add_gate(number, stage, when)

    def _why_not_mine(self, stage: str, when: str | None) -> str:
        """Return why this lease cannot have a fault or a gate, if so, and what to do."""
        if self._table.is_over(self.lease):
            return "is for a lease that is over: ask the lease of the test that runs"
        why = self._why_not_apart(stage, when)
        return why and (
            f"could affect other leases' mail: {why}.  Use a stage from RCPT on; or let faults "
            "affect all mail: faults='all', or smtptest_shared_faults = all in the ini file"
        )

    def _why_not_apart(self, stage: str, when: str | None) -> str:
        """Return why a fault or a gate may affect the mail of others, if it may."""
        if self._table.scope == "all" or stage in ("RCPT", "DATA", "BDAT", "EOM", *OF_SESSIONS):
            return ""
        if stage not in OF_ADDRESSES:
            return f"at {stage} the server cannot know whose mail a session will bring"
        what = "sender" if stage == "MAIL" else "address"
        if when is None:
            return f"at {stage} it needs a when= that is an address of this lease"
        if not self.lease.has(when):
            return f"when={when!r} is no address of this lease: claim() the {what} first"
        return ""

    # Another lease may have begun by the time that these run.

    async def _reset(self, lease: Lease) -> None:
        await self._server.wait_for_handlers()
        if lease is not self._lease:  # what is forgotten would be the other's
            return
        abandoned = self._server.sessions_of(lease)
        lease.forget()
        self.outbox.send("forget")
        for session in abandoned:
            session.abort_if_abandoned()

    async def _export_sessions(self, lease: Lease) -> list[Session]:
        await asyncio.sleep(0)  # see ServerLoop
        return self._server.export_sessions(lease)

    async def _count_connections(self, lease: Lease) -> int:
        return lease.ended_count + len(self._server.sessions_of(lease))

    def _hang_up(self, reply: bytes | None) -> int:
        return sum(one.hang_up(reply) for one in self._server.sessions_of(self.lease))


class LeaseServer:
    """Accepts clients that want a lease, and has the table of all leases."""

    def __init__(self, sharing: Sharing) -> None:
        self.table = LeaseTable(sharing, lambda: self._loop.time())
        self.transcripts = SharedTranscripts(self.table)
        self._sharing = sharing
        self._links: set[LeaseClient] = set()
        self._provers = ThreadPoolExecutor(_PROVING, thread_name_prefix="lease")
        self._listening: list[socket.socket] = []

    def make_outbox(
        self, fd: int, counters: MutableSequence[int], on_backlog: Callable[[], object]
    ) -> RoutingOutbox:
        self._outbox = RoutingOutbox(
            fd, counters, on_backlog, self.table, self._sharing.unread_limit
        )
        return self._outbox

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        welcome: Welcome,
        sessions: Callable[[], Iterable[SMTPSession]],
        wait_for_handlers: Callable[[], Awaitable[None]],
    ) -> None:
        """Accept them from now on."""
        self._loop = loop
        self._welcome = welcome
        self._sessions = sessions
        self.wait_for_handlers = wait_for_handlers
        self._listening = [passed.open() for passed in self._sharing.sockets]
        for sock in self._listening:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, sock)

    def welcome(self, server: Server, endpoint: Endpoint) -> Welcome:
        sharing = self._sharing
        return Welcome(os.getpid(), endpoint, known_of(server), sharing.template, sharing.trust)

    async def close(self) -> None:
        """Announce to all leases that the server stops, as it was asked to.

        Those with unread mail have a second to read it.
        """
        for sock in self._listening:
            self._loop.remove_reader(sock)
            sock.close()
        for one in self._links:
            one.outbox.send("stopped")
        flushing = [self._loop.create_task(one.link.flush()) for one in self._links]
        if flushing:
            await asyncio.wait(flushing, timeout=_LAST_FLUSH)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor is left, and trying again at once is of no use
            where, why = self._welcome.endpoint, limit_behind(error) or error
            _log.error("the shared server on %s cannot take another lease: %s", where, why)
            self._loop.remove_reader(listening)
            self._loop.call_later(1.0, self._loop.add_reader, listening, self._accept, listening)
            return
        proof = self._provers.submit(self._prove, sock)
        proof.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._open, proof))

    def _prove(self, sock: socket.socket) -> Connection | None:
        """Accept a client that proves to have the key; on a thread, since this blocks."""
        where = self._welcome.endpoint
        try:
            return prove(sock, self._sharing.key, _PROOF_TIMEOUT, is_server=True)
        except AuthenticationError:
            _log.warning("whoever wanted a lease of the server on %s had a wrong key", where)
        except OSError as error:
            reason = error.strerror or error
            text = "whoever wanted a lease of the server on %s did not show a key: %s"
            _log.warning(text, where, reason)
        return None

    def _open(self, proof: Future[Connection | None]) -> None:
        pipe = proof.result()
        if pipe is not None:
            one = LeaseClient(self, pipe)
            self._links.add(one)
            one.link.listen(self._loop, lambda: self._close(one))
            one.outbox.send("reply", UNASKED, self._welcome)

    def _close(self, one: LeaseClient) -> None:
        self._links.discard(one)
        one.close()

    def export_strays(self, since: float = 0.0) -> Strays:
        """Return what is nobody's since then: mail, and the last sessions."""
        return self._outbox.export_unclaimed(since), self.transcripts.export_strangers(since)

    # What leases ask for.

    def sessions_of(self, lease: Lease) -> list[SMTPSession]:
        """Return the open sessions that have named a lease's recipients."""
        found = (one for one in self._sessions() if one.transport is not None)
        return [one for one in found if lease in self.table.named_in(one.transcript)]

    def export_sessions(self, lease: Lease) -> list[Session]:
        return [one.export(lease.since, lease.sequences) for one in self.transcripts.of(lease)]
