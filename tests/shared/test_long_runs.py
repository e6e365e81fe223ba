"""What a server keeps that is shared for hours: no more than it did in the first of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast
from unittest import mock

import pytest

from lazr_smtptest._child.lease_server import LeaseServer
from lazr_smtptest._child.leases import Lease, LeaseTable
from lazr_smtptest._child.routing import LeaseOutbox, RoutingOutbox, SharedTranscripts
from lazr_smtptest._util import now
from lazr_smtptest._wire.endpoint import SocketFile
from lazr_smtptest._wire.sharing import ADDRESS, Sharing

#: More than is kept of anything.
MANY = 30_000


@pytest.fixture
def table() -> LeaseTable:
    unused: Any = None
    return LeaseTable(Sharing([], unused, b"", ADDRESS, "abcdef", "own", 1, None), now)


@pytest.fixture
def lease(table: LeaseTable) -> Lease:
    return table.begin("test_it", mock.create_autospec(LeaseOutbox, instance=True))


def test_a_lease_that_stays_knows_the_last_of_its_messages(
    table: LeaseTable, lease: Lease
) -> None:
    for n in range(MANY):
        lease.note(n)
    assert 1_000 < len(lease.sequences) == len(table.takers) < MANY / 2
    assert MANY - 1 in lease.sequences
    table.end(lease)
    assert (table.takers, [*lease.sequences]) == ({}, [])


def test_leases_have_the_clock_of_the_sessions() -> None:
    """uvloop's counts milliseconds; by a finer one, a lease would begin after its sessions."""
    sharing = Sharing([], cast("SocketFile", None), b"", ADDRESS, "abcdef", "own", 1, None)
    server = LeaseServer(sharing)
    loop = mock.create_autospec(asyncio.AbstractEventLoop, instance=True)
    loop.time.return_value = 12.0
    server.listen(loop, mock.sentinel.welcome, list, mock.AsyncMock())
    assert server.table.clock() == 12.0


def test_a_message_that_was_passed_on_twice_is_forgotten(table: LeaseTable, lease: Lease) -> None:
    lease.note(1)
    lease.note(1)
    table.end(lease)
    assert table.takers == {}


def test_a_session_that_stays_knows_the_last_of_its_messages(
    table: LeaseTable, lease: Lease
) -> None:
    transcript = SharedTranscripts(table).open(("127.0.0.1", 1), now())
    lease.note(MANY - 1)
    transcript.messages.extend(range(MANY))
    assert 1_000 < len(transcript.messages) < MANY / 2
    assert table.named_in(transcript) == {lease}


def test_a_handler_s_error_is_no_other_lease_s(
    table: LeaseTable, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None begins, in place of the one whose mail it was, until the error is sent."""
    outbox: Any = RoutingOutbox.__new__(RoutingOutbox)
    outbox._table, outbox._count = table, table.lock
    beginning = threading.Thread(target=table.begin, args=("next", lease.outbox))

    def find_all(_addresses: object) -> list[Lease]:
        beginning.start()
        beginning.join(0.2)
        return [lease]

    def report(*_: object) -> None:
        assert beginning.is_alive()

    monkeypatch.setattr(table, "find_all", find_all)
    monkeypatch.setattr(lease.outbox, "report", report)
    outbox._report("handle_message", LookupError(), mock.Mock())
    beginning.join(10)
    assert [one.owner for one in table] == ["test_it", "next"]
