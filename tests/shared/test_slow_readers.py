"""Leases whose mail nobody reads: it waits, up to a limit, and holds up nobody."""

from __future__ import annotations

import os
import signal
import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import connected, refused, send_for, state, subjects, until
from lease_programs import lease_program

from lazr_smtptest import Lease, LeaseError, ServerDied, SharedController, connect

pytestmark = pytest.mark.timeout(90)

#: Octets that may wait, beside those that a socket has room for.
LIMIT = 1_000_000

#: A message, of which a socket holds few, and the limit has room for 16.
MAIL = b"Subject: large\r\n\r\n" + (b"y" * 78 + b"\r\n") * 750


@pytest.fixture
def shared() -> Iterator[SharedController]:
    with SharedController(unread_limit=LIMIT) as shared:
        yield shared


@pytest.fixture
def own(shared: SharedController) -> Iterator[Lease]:
    with connect(shared.address, shared.key, name="own") as lease:
        yield lease


def fill(controller: SharedController, address: str) -> int:
    """Send until it is refused; return how many messages were taken."""
    with connected(controller) as client:
        for count in range(200):
            try:
                client.sendmail("", [address], MAIL)
            except smtplib.SMTPDataError as error:
                assert error.smtp_code == 452
                assert b"4.2.2 Error: more than 1000000 octets of mail wait" in error.smtp_error
                return count
    raise AssertionError("nothing was refused")


def test_unread_mail_is_refused_beyond_a_limit(shared: SharedController, own: Lease) -> None:
    with connect(shared.address, shared.key, name="test_slow, gw3") as slow:
        address = slow.address("kim")
        count = fill(shared, address)
        assert LIMIT // len(MAIL) <= count < 100
        with connected(shared) as client:
            with pytest.raises(smtplib.SMTPDataError, match="by test_slow, gw3"):
                client.sendmail("", [own.address("kim"), address], MAIL)
            client.sendmail("", [own.address("kim")], MAIL)
        assert own.queue.qsize() == 1
        # It is told once, and goes on.
        with pytest.raises(LeaseError, match="refused mail with 452.*larger unread_limit"):
            slow.wait(0)
        assert len(slow.wait_many(count, 30)) == count
        send_for(shared, "small", [address])
        assert slow.wait(30)["subject"] == "small"
        # If it happens again, it is told again.
        fill(shared, address)
        with pytest.raises(LeaseError, match="refused mail with 452"):
            slow.reset()
        assert slow.messages == []
        send_for(shared, "after the reset", [address])
        assert subjects(slow) == ["after the reset"]


def test_one_message_may_be_larger_than_the_limit(shared: SharedController, own: Lease) -> None:
    large = MAIL * (2 * LIMIT // len(MAIL) + 1)
    with connected(shared) as client:
        for _ in range(2):
            client.sendmail("", [own.address("kim")], large)
            assert own.wait(0).raw == large


def test_a_reader_that_is_stopped_holds_up_nobody(shared: SharedController, own: Lease) -> None:
    with lease_program(shared) as program:
        address = program.tell("lease.address('kim')")
        os.kill(program.pid, signal.SIGSTOP)
        until(lambda: state(program.pid) == "T")
        before = memory(shared.pid)
        count = fill(shared, address)
        for n in range(100):
            send_for(shared, n, [own.address("kim")])
            assert own.wait(0)["subject"] == str(n)
        assert fill(shared, address) <= 1  # of the last one's octets some were less
        assert memory(shared.pid) - before < 30 * LIMIT
        own.reset()
        os.kill(program.pid, signal.SIGCONT)
        assert program.tell("lease.messages").startswith("LeaseError: ")
        assert program.tell("len(lease.messages)") >= count


def test_a_reader_that_is_dead_holds_up_nobody(shared: SharedController, own: Lease) -> None:
    with lease_program(shared) as program:
        address = program.tell("lease.address('kim')")
        os.kill(program.pid, signal.SIGSTOP)
        fill(shared, address)
        program.kill()
        until(lambda: own.unclaimed or send_for(shared, "late", [address]))
    assert own.unclaimed[0].nearest.endswith("a program, which is over")


def test_what_waits_at_the_end_can_be_read(own: Lease, shared: SharedController) -> None:
    """The server waits a while for leases to read what it has said 250 for."""
    count = 10
    with connected(shared) as client:
        for _ in range(count):
            client.sendmail("", [own.address("kim")], MAIL)
    port = shared.port
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(shared.stop)
        until(lambda: refused(port))
        assert len(own.wait_many(count, 30)) == count
        stopping.result()


def test_leases_that_do_not_read_keep_no_server(own: Lease, shared: SharedController) -> None:
    fill(shared, own.address("kim"))
    shared.stop()
    with pytest.raises(ServerDied, match="mail that was on its way is lost"):
        list(own)


def memory(pid: int | None) -> int:
    """Octets that a process has in memory."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
