"""Leases: what part of a shared server is whose.  Server process."""

from __future__ import annotations

import fnmatch
import functools
import itertools
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lazr_smtptest._reading.addresses import for_fnmatch, is_glob, normal
from lazr_smtptest._smtp.faultscript import FaultScript, FaultScripts
from lazr_smtptest._smtp.protocol import split_path
from lazr_smtptest._smtp.transcript import Transcript
from lazr_smtptest._wire.sharing import LABEL, AddressTemplate, Sharing, overlap

if TYPE_CHECKING:
    from lazr_smtptest._child.routing import LeaseOutbox

#: Leases that are over, and are known by their names for a while.
_REMEMBERED = 1_000

#: Claims that mail for nobody is compared with.
_CLAIMS = 300

#: Sessions that are kept for a lease when they are over.
_SESSIONS = 100

#: Messages of a lease by which it is known which sessions brought it some.
_SEQUENCES = 10_000

#: Claims whatever nobody else does.
_REST = "*"

#: Stages whose subject is an address, which is a lease's own, or is not.
OF_ADDRESSES = frozenset(("MAIL", "RCPT", "DATA", "BDAT", "EOM", "VRFY", "EXPN"))

#: Stages of a session that may have named somebody by then.
OF_SESSIONS = frozenset(("RSET", "NOOP", "QUIT"))

_LABEL = re.compile(LABEL)
_RCPT = re.compile(rb"^RCPT[ \t]+([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class Lease:
    """One test's part of the server.

    :ivar label: Its name in addresses; no other lease of the run ever has it.
    :ivar owner: Whose it is, in words.
    :ivar sequences: The numbers of the last messages that it got.
    """

    def __init__(self, label: str, owner: str, outbox: LeaseOutbox, table: LeaseTable) -> None:
        self.label = label
        self.owner = owner
        self.outbox = outbox
        self.claims: list[str] = []
        self.faults = FaultScript(self._is_mine, table.faults.settle)
        self.began = table.clock()
        self._table = table
        self.sequences: OrderedDict[int, None] = OrderedDict()
        self.forget()

    def forget(self) -> None:
        """Forget what has been so far; faults and gates, too."""
        #: Whether the last message was refused, since too many waited.
        self.is_refusing = False
        self.since = self._table.clock()
        self._table.forget(self, len(self.sequences))
        self.ended: deque[Transcript] = deque(maxlen=_SESSIONS)
        self.ended_count = 0
        self.faults.clear()

    def note(self, sequence: int) -> None:
        """Note the number of a message that it gets."""
        with self._table.lock:
            if sequence in self.sequences:  # a handler has passed it on twice
                return
            self.sequences[sequence] = None
            self._table.takers.setdefault(sequence, []).append(self)
            self._table.forget(self, len(self.sequences) - _SEQUENCES)

    def has(self, address: str) -> bool:
        return self._table.find(normal(address)) is self

    def _is_mine(self, stage: str, names: Iterable[str], transcript: Transcript) -> bool:
        """Return whether a fault or a gate is for what is about to be done in a session."""
        if self._table.scope == "all":
            return True
        if stage in OF_ADDRESSES:
            return any(self.has(name) for name in names)
        return stage in OF_SESSIONS and self in self._table.named_in(transcript)


def _named(transcript: Transcript) -> Iterator[tuple[float, str]]:
    """Yield the recipients that a session has named, and when."""
    for at, said, _ in list(transcript.exchanges):
        if isinstance(said, bytes):
            for argument in _RCPT.findall(said):
                found = split_path("RCPT", argument.decode("utf-8", "surrogateescape"))
                if found:
                    yield at, found[0]


@functools.lru_cache(10_000)  # fnmatch's own may have room for a few hundred
def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(for_fnmatch(glob))).match


class LeaseTable:
    """Which lease has which recipients.  Any thread may ask.

    An address that is made for a lease is that lease's alone, whatever others claim; and
    nobody's when the lease is over.
    """

    def __init__(self, sharing: Sharing, clock: Callable[[], float]) -> None:
        self.clock = clock  # the event loop's, as in transcripts
        self.template = AddressTemplate(sharing.template)
        self.scope = sharing.scope
        self.faults = FaultScripts()
        self.lock = threading.RLock()
        self._run = sharing.run
        self._numbers = itertools.count(1)
        self._by_label: dict[str, Lease] = {}
        self._literals: dict[str, Lease] = {}
        self._globs: dict[str, Lease] = {}
        #: Who has each message that somebody got, by number.
        self.takers: dict[int, list[Lease]] = {}
        #: Whose the labels and the claims were that are over.
        self._former_labels: dict[str, str] = {}
        self._former_claims: deque[tuple[str, str]] = deque(maxlen=_CLAIMS)

    def __iter__(self) -> Iterator[Lease]:
        with self.lock:
            return iter(list(self._by_label.values()))

    def begin(self, owner: str, outbox: LeaseOutbox) -> Lease:
        with self.lock:
            label = f"t{next(self._numbers)}-{self._run}"
            lease = self._by_label[label] = Lease(label, owner, outbox, self)
            return lease

    def is_over(self, lease: Lease) -> bool:
        with self.lock:
            return self._by_label.get(lease.label) is not lease

    def end(self, lease: Lease) -> None:
        """End a lease: its addresses are nobody's from now on, its claims free."""
        with self.lock:
            if self._by_label.pop(lease.label, None) is None:
                return
            self._former_claims.extend((normal(claim), lease.owner) for claim in lease.claims)
            self.withdraw(lease, [*lease.claims])
            self._former_labels[lease.label] = lease.owner
            for old in list(self._former_labels)[:-_REMEMBERED]:
                del self._former_labels[old]
        lease.forget()

    def forget(self, lease: Lease, count: int) -> None:
        """Forget that a lease got the first ``count`` of the messages that are known."""
        with self.lock:
            for _ in range(count):
                sequence, _ = lease.sequences.popitem(last=False)
                takers = self.takers[sequence]
                takers.remove(lease)
                if not takers:
                    del self.takers[sequence]

    def _claims_like(self, claim: str) -> dict[str, Lease]:
        return self._globs if is_glob(claim) else self._literals

    def claim(self, lease: Lease, claims: list[str]) -> str | None:
        """Add claims; return why none of them was added, if so."""
        with self.lock:
            if self.is_over(lease):
                return None  # the client gets no mail any more
            for claim in claims:
                held = self._holder(normal(claim), lease)
                if held is not None:
                    what, holder = held
                    like = "" if what == normal(claim) else f", by {what!r}"
                    return f"{claim!r} is claimed already{like}, by {holder.owner}"
            for claim in claims:
                if normal(claim) not in self._claims_like(claim):
                    self._claims_like(claim)[normal(claim)] = lease
                    lease.claims.append(claim)
            return None

    def withdraw(self, lease: Lease, claims: list[str]) -> None:
        """Withdraw claims of a lease."""
        with self.lock:
            for claim in claims:
                del self._claims_like(claim)[normal(claim)]
                lease.claims.remove(claim)

    def _holder(self, claim: str, lease: Lease) -> tuple[str, Lease] | None:
        """Return which claim or address of another lease a claim would share mail with."""
        made = self._by_label.get(self.template.label_in(claim) or "")
        if made is not None and made is not lease:
            return claim, made
        same = self._claims_like(claim).get(claim)
        if same is not None and same is not lease:
            return claim, same
        if claim == _REST:
            return None
        others = [self._globs, self._literals] if is_glob(claim) else [self._globs]
        for other, holder in itertools.chain.from_iterable(each.items() for each in others):
            if holder is not lease and other != _REST and overlap(claim, other):
                return other, holder
        return None

    def find(self, address: str) -> Lease | None:
        """Return whose an address is, that is as `normal` has it."""
        with self.lock:
            label = self.template.label_in(address)
            if label is not None:
                return self._by_label.get(label)
            found = self._literals.get(address)
            if found is None:
                matching = [glob for glob in self._globs if _matcher(glob)(address)]
                found = self._globs[min(matching, key=_REST.__eq__)] if matching else None
            return found

    def find_all(self, addresses: Iterable[str]) -> list[Lease]:
        found = (self.find(normal(address)) for address in addresses)
        return list(dict.fromkeys(lease for lease in found if lease is not None))

    def named_in(self, transcript: Transcript) -> set[Lease]:
        """Return the leases that a session has named since they began, or were reset."""
        with self.lock:
            # Of a long session, only the last lines are known.
            found = {one for n in transcript.messages for one in self.takers.get(n, ())}
        for at, address in _named(transcript):
            lease = self.find(normal(address))
            if lease is not None and at >= lease.since:
                found.add(lease)
        return found

    def nearest(self, addresses: Iterable[str]) -> str:
        """Return whose mail to these addresses was, or may have been meant to be, in words."""
        with self.lock:
            labels = {label: lease.owner for label, lease in self._by_label.items()}
            claims = dict(self._former_claims)
            claims.update((normal(c), one.owner) for one in self for c in one.claims[-_CLAIMS:])
        for address in addresses:
            found = _LABEL.search(address.casefold())
            if found is None:
                near = get_close_matches(normal(address), list(claims)[-_CLAIMS:], 1, 0.8)
                if near:
                    return f"{address} looks like an address of {claims[near[0]]}: {near[0]}"
            elif found[0] in labels:
                return f"{address} looks like an address of {labels[found[0]]}"
            elif found[0] in self._former_labels:
                owner = self._former_labels[found[0]]
                return f"{address} looks like an address of {owner}, which is over"
            elif found[0].endswith(f"-{self._run}"):
                return f"{address} looks like an address of a test that is over"
            else:
                return f"{address} looks like an address of another run"
        return ""
