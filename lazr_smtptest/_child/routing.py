"""Which way mail and sessions go in a shared server: to the leases that they are for.

Server process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableSequence
from typing import Any

from lazr_smtptest._child.delivery import Outbox, PutRefused
from lazr_smtptest._child.leases import Lease, LeaseTable
from lazr_smtptest._smtp.transcript import Transcript, Transcripts
from lazr_smtptest._wire.ipc_queue import Sealed
from lazr_smtptest._wire.sharing import Unclaimed
from lazr_smtptest.message import Envelope
from lazr_smtptest.sessions import Session

#: Mail that is nobody's: how many messages are kept, and octets of each.
_UNCLAIMED = 1_000
_HEAD = 4_096

#: How many of them are compared with what leases have.
_COMPARED = 20

#: Messages of one session that are known; it may be a program's only one, for hours.
_MESSAGES = 10_000

#: Sessions that named nobody's recipients, of which a report has the last.
_STRANGERS = 3


class LeaseOutbox(Outbox):
    """Mail on its way to one lease after the other, of one test process, which may be gone.

    All ways of a server have the lock of its table: whose a message is stays so until it is
    sent, and a log record that comes up meanwhile may go another way.
    """

    def __init__(
        self,
        fd: int,
        counters: MutableSequence[int],
        on_backlog: Callable[[], object],
        table: LeaseTable,
    ) -> None:
        super().__init__(fd, counters, on_backlog, table.lock)
        self._waiting = 0

    def has_room(self, size: int, limit: int) -> bool:
        """Return whether this many octets more may wait for the reader."""
        if not self._writer.has_backlog:
            self._waiting = 0
        self._waiting += size
        if self._waiting > limit:  # perhaps: what was read meanwhile is in it, too
            self._waiting = self._writer.count_waiting() + size
        return self._waiting <= limit or self._waiting == size

    def deliver(self, sealed: Sealed) -> None:
        self._unless_gone(lambda: self._put(sealed))

    def send(self, kind: str, *content: Any) -> None:
        self._unless_gone(lambda: super(LeaseOutbox, self).send(kind, *content))

    def flush(self) -> bool:
        return self._unless_gone(self._writer.flush) is not False

    def _unless_gone(self, write: Callable[[], Any]) -> Any:
        with self._count:
            if self._writer.is_closed:
                return None
            try:
                return write()
            except OSError:  # the reader is gone, which its link is about to see
                self._writer.close()
                return None

    def close(self) -> None:
        """Send no more: the descriptor is about to be reused."""
        with self._count:
            super().close()
            self._writer.close()


class RoutingOutbox(Outbox):
    """The way of a message to its leases; all other records go to the owner of the run."""

    def __init__(
        self,
        fd: int,
        counters: MutableSequence[int],
        on_backlog: Callable[[], object],
        table: LeaseTable,
        unread_limit: int,
    ) -> None:
        super().__init__(fd, counters, on_backlog, table.lock)
        self._table = table
        self._unread_limit = unread_limit
        #: The last mail that is nobody's.
        self._unclaimed: deque[tuple[float, Envelope, bytes]] = deque(maxlen=_UNCLAIMED)

    def _deliver(self, sealed: Sealed, item: Any) -> None:
        envelope = getattr(item, "envelope", None)
        if not isinstance(envelope, Envelope):
            self._put(sealed)
            return
        with self._count:
            if self._is_closed:
                return
            leases = self._table.find_all(envelope.rcpt_tos)
            self._check_room(leases, len(sealed.octets) + len(sealed.buffer or b""))
            for lease in leases:
                lease.note(envelope.sequence)
                lease.outbox.deliver(sealed)
            if not leases:
                self._unclaimed.append((self._table.clock(), envelope, bytes(item.raw[:_HEAD])))

    def _check_room(self, leases: list[Lease], size: int) -> None:
        full = [x for x in leases if not x.outbox.has_room(size, self._unread_limit)]
        for lease in leases:
            if lease in full and not lease.is_refusing:
                lease.outbox.send("unread", self._unread_limit)
            lease.is_refusing = lease in full
        if full:
            raise PutRefused(
                f"452 4.2.2 Error: more than {self._unread_limit} octets of mail wait to be read "
                f"by {full[0].owner}"
            )

    def export_unclaimed(self, since: float) -> list[Unclaimed]:
        """Return mail that is nobody's, and came since then."""
        with self._count:
            kept = [*self._unclaimed]
        found = [(envelope, head) for at, envelope, head in kept if at >= since]
        few = len(found) - _COMPARED
        return [
            Unclaimed(*one, self._table.nearest(one[0].rcpt_tos) if n >= few else "")
            for n, one in enumerate(found)
        ]

    def _report(self, where: str, error: BaseException, envelope: Envelope | None) -> None:
        with self._count:  # another lease may be about to begin on the same way
            leases = [] if envelope is None else self._table.find_all(envelope.rcpt_tos)
            for lease in leases:
                lease.outbox.report(where, error)
        if not leases:
            super()._report(where, error, envelope)


class SharedTranscripts(Transcripts):
    """All sessions, and those of each lease."""

    def __init__(self, table: LeaseTable) -> None:
        super().__init__()
        self._table = table
        self._strangers: deque[tuple[float, Transcript]] = deque(maxlen=_STRANGERS)

    def open(self, peer: tuple[Any, ...], now: float) -> Transcript:
        transcript = super().open(peer, now)
        # More than elsewhere, since a lease knows its sessions by them.
        transcript.messages = deque(maxlen=_MESSAGES)
        return transcript

    def close(self, transcript: Transcript) -> None:
        leases = self._table.named_in(transcript)
        for lease in leases:
            lease.ended.append(transcript)
            lease.ended_count += 1
        if not leases:
            self._strangers.append((self._table.clock(), transcript))
        super().close(transcript)

    def export_strangers(self, since: float) -> list[Session]:
        """Return the last sessions that named nobody's recipients, and ended since then."""
        return [one.export() for at, one in self._strangers if at >= since]

    def of(self, lease: Lease) -> list[Transcript]:
        """Return the sessions that have named a lease's recipients."""
        still_open = [one for one in self._open if lease in self._table.named_in(one)]
        return sorted([*lease.ended, *still_open], key=lambda one: one.connected_at)
