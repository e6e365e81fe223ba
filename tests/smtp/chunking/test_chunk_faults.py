"""Faults and gates at stage BDAT, and at the end of a message that comes in chunks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from chunks import MAIL, RCPT, bdat, in_chunks
from helpers import EVENT_LOOPS, loop_name, only_message, until
from raw_client import Wire, greeted

from lazr_smtptest import QueueController

TEXT = b"Subject: chunks\r\n\r\nQUIT\r\nNOOP\r\n"
FIRST, SECOND = TEXT[:12], TEXT[12:]
MOE = b"RCPT TO:<moe@example.com>\r\n"


def codes(wire: Wire, octets: bytes, count: int) -> list[int]:
    wire.sock.sendall(octets)
    return [int(wire.reply()[:3] or 0) for _ in range(count)]


def begun(wire: Wire, mail: bytes = MAIL) -> None:
    assert codes(wire, mail + RCPT, 2) == [250, 250]


@pytest.mark.parametrize("reply", ["451 4.7.1 Later", "550 5.7.1 No", "250 2.0.0 Fine"])
def test_a_reply_ends_the_message(server, reply):
    """The chunk was read, and the command has no effect, whatever the reply says."""
    fault = server.fault("BDAT", reply, times=1)
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(in_chunks([FIRST, SECOND]))
        assert wire.reply() == f"{reply}\r\n".encode()
        assert wire.reply().startswith(b"503")
        assert fault.fired == 1
        assert codes(wire, MAIL + RCPT + in_chunks([FIRST, SECOND]), 4) == [250] * 4
    assert only_message(server).raw == TEXT


def test_a_reply_to_the_second_chunk(server):
    with greeted(server) as wire:
        begun(wire)
        assert codes(wire, bdat(FIRST), 1) == [250]
        with server.fault("BDAT", "452 4.3.1 Full"):
            assert codes(wire, bdat(SECOND), 1) == [452]
        assert codes(wire, bdat(SECOND, last=True), 1) == [503]
    assert server.queue.empty()


def test_it_is_answered_when_all_has_come(server):
    """A fault that was made in the middle of a chunk counts."""
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(b"BDAT 12 LAST\r\nhalf")
        until(lambda: server.sessions()[0].commands[-1].verb == "BDAT")
        fault = server.fault("BDAT", "451 4.7.1 Later")
        assert fault.fired == 0
        assert codes(wire, b"and half", 1) == [451]
        assert fault.fired == 1
    assert server.queue.empty()


@pytest.mark.parametrize("is_last", [True, False])
def test_a_delay_in_the_middle_of_a_chunk(server, is_last):
    """What is sent meanwhile waits."""
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(
            b"BDAT %d%s\r\n" % (len(FIRST), b" LAST" if is_last else b"") + FIRST[:3]
        )
        until(lambda: server.sessions()[0].commands[-1].verb == "BDAT")
        server.fault("BDAT", delay=0.05, times=1)
        rest = FIRST[3:] + (MAIL + RCPT if is_last else b"") + bdat(SECOND, last=True)
        count = 4 if is_last else 2
        assert codes(wire, rest, count) == [250] * count
    raws = [message.raw for message in server.messages]
    assert raws == ([FIRST, SECOND] if is_last else [TEXT])


@pytest.mark.parametrize("is_last", [True, False])
def test_a_trickle_is_for_the_reply_to_the_chunk(server, is_last):
    server.fault("BDAT", trickle=0.01)
    with greeted(server) as wire:
        begun(wire)
        began = time.monotonic()
        assert codes(wire, bdat(TEXT, last=is_last), 1) == [250]
        assert time.monotonic() - began >= 0.01 * (len("250 2.0.0 OK\r\n") - 1)


def test_a_trickle_at_the_end_replaces_that_of_the_chunk(server):
    server.fault("BDAT", trickle=30.0)
    server.fault("EOM", trickle=0.001)
    with greeted(server) as wire:
        begun(wire)
        assert codes(wire, bdat(TEXT, last=True), 1) == [250]


def test_a_trickle_that_is_over(server):
    """It is not that of a chunk which the next fault finds on its way."""
    server.fault("RCPT", "550", trickle=0.3, when="moe@*")
    with greeted(server) as wire:
        assert codes(wire, MAIL + RCPT + MOE, 3) == [250, 250, 550]
        server.reset()
        wire.sock.sendall(b"BDAT 12\r\nhalf")
        until(lambda: server.sessions()[0].commands[-1].verb == "BDAT")
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
        began = time.monotonic()
        assert codes(wire, b"and half", 1) == [250]
        assert time.monotonic() - began < 0.3 * len("250 2.0.0 12 octets received")


@pytest.mark.parametrize("drop", ["before", "instead", "after"])
@pytest.mark.parametrize("is_last", [True, False])
def test_drops(server, drop, is_last):
    server.fault("BDAT", drop=drop)
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(bdat(TEXT, last=is_last) + b"NOOP\r\n")
        replies = wire.rest()
    usual = b"250 2.0.0 OK\r\n" if is_last else b"250 2.0.0 %d octets received\r\n" % len(TEXT)
    assert replies == (usual if drop == "after" else b"")
    assert server.queue.qsize() == (is_last and drop != "before")
    assert server.sessions()[0].ended == "dropped by the server"


def test_421_closes(server):
    server.fault("BDAT", "421 4.3.2 Closing")
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(bdat(TEXT, last=True))
        assert wire.rest() == b"421 4.3.2 Closing\r\n"
    assert server.queue.empty()


@pytest.mark.parametrize("drop", ["instead", "after"])
def test_a_drop_at_bdat_is_not_forgotten_at_the_end_of_the_message(server, drop):
    server.fault("BDAT", drop=drop)
    fault = server.fault("EOM", delay=0.01)
    with greeted(server) as wire:
        begun(wire)
        wire.sock.sendall(bdat(TEXT, last=True) + b"NOOP\r\n")
        assert wire.rest() == (b"250 2.0.0 OK\r\n" if drop == "after" else b"")
    assert fault.fired == 1
    assert server.queue.qsize() == 1


@pytest.mark.parametrize("when", ["kim@*", "lee@EXAMPLE.com", None])
def test_when_is_for_the_sender_and_the_recipients(server, when):
    fault = server.fault("BDAT", "550 5.7.1 No", when=when)
    with greeted(server) as wire:
        begun(wire)
        assert codes(wire, bdat(TEXT, last=True), 1) == [550]
    fault.remove()
    with server.fault("BDAT", "550 5.7.1 No", when="no*") as fault, greeted(server) as wire:
        begun(wire)
        assert codes(wire, bdat(TEXT, last=True), 1) == [250]
        assert fault.fired == 0


def test_it_comes_before_what_else_is_wrong(server):
    """As at all stages: the fault replaces whatever would be said."""
    server.fault("BDAT", "451 4.7.1 Later")
    with greeted(server) as wire:
        assert codes(wire, bdat(TEXT), 1) == [451]
        assert codes(wire, b"NOOP\r\n", 1) == [250]
        wire.sock.sendall(b"BDAT x\r\nNOOP\r\n")
        assert wire.rest() == b"451 4.7.1 Later\r\n"


def test_the_end_of_the_message_is_a_stage_of_its_own(server):
    bdat_fault = server.fault("BDAT", delay=0.001)
    eom_fault = server.fault("EOM", "554 5.6.0 No", times=1)
    with greeted(server) as wire:
        begun(wire)
        assert codes(wire, in_chunks([FIRST, SECOND]), 2) == [250, 554]
        assert (bdat_fault.fired, eom_fault.fired) == (2, 1)
        assert codes(wire, MAIL + RCPT + in_chunks([FIRST, b""]), 4) == [250] * 4
    assert only_message(server).raw == FIRST


@pytest.mark.parametrize("stage", ["BDAT", "EOM"])
@pytest.mark.parametrize("is_early", [True, False])
def test_a_gate(server, stage, is_early):
    """Also one that was closed when the chunk had begun to come."""
    with greeted(server) as wire:
        begun(wire)
        sent = bdat(TEXT, last=True)
        if not is_early:
            wire.sock.sendall(sent[:-1])
            until(lambda: server.sessions()[0].commands[-1].verb == "BDAT")
            sent = sent[-1:]
        with server.gate(stage, when="lee@*") as gate:
            wire.sock.sendall(sent)
            assert gate.wait_parked(timeout=10) == 1
            dialogue = [line.text for line in server.sessions()[0].dialogue]
            assert dialogue[-1] == f"{len(TEXT)} octets of content"
            assert server.queue.empty()
            assert gate.release(1) == 1
            assert wire.reply() == b"250 2.0.0 OK\r\n"
    assert only_message(server).raw == TEXT


def test_two_sessions_at_a_gate(server):
    results = []

    def deliver() -> None:
        with greeted(server) as wire:
            begun(wire)
            results.append(codes(wire, in_chunks([FIRST, SECOND]), 2))

    with server.gate("BDAT") as gate:
        threads = [threading.Thread(target=deliver) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert gate.wait_parked(timeout=10, count=2) == 2
    for thread in threads:
        thread.join(15)
    assert results == [[250, 250]] * 2
    assert server.queue.qsize() == 2


def test_a_reset_drops_who_is_parked(server):
    with greeted(server) as wire:
        begun(wire)
        with server.gate("BDAT") as gate:
            wire.sock.sendall(bdat(TEXT, last=True))
            gate.wait_parked(timeout=10)
            server.reset()
            assert wire.rest() == b""
    assert server.queue.empty()


@pytest.mark.parametrize("call", ["fault", "gate"])
def test_there_is_no_such_stage_without_chunking(call):
    arguments = {"fault": ("BDAT", "451 4.7.1 Later"), "gate": ("BDAT",)}[call]
    with QueueController("127.0.0.1") as controller:
        with pytest.raises(
            ValueError, match=r"not 'BDAT': only a server with offer=\('CHUNKING',"
        ):
            getattr(controller, call)(*arguments)
        controller.restart(offer=("CHUNKING",))
        getattr(controller, call)(*arguments)


# By LMTP.


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def mailbox(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    options = {"offer": ("CHUNKING",), "data_size_limit": 1000, "uvloop": request.param}
    with QueueController("127.0.0.1", lmtp=True, **options) as controller:
        yield controller


LAST = bdat(TEXT, last=True)


def begun_for_two(wire: Wire) -> None:
    assert codes(wire, MAIL + MOE + RCPT, 3) == [250, 250, 250]


@pytest.mark.parametrize("delay", [None, 0.01])
@pytest.mark.parametrize("drop", ["instead", "after"])
def test_a_drop_comes_after_the_replies_to_all(mailbox, drop, delay):
    mailbox.fault("BDAT", drop=drop)
    if delay:
        mailbox.fault("EOM", delay=delay, when="lee@*")
    with greeted(mailbox) as wire:
        begun_for_two(wire)
        wire.sock.sendall(LAST + b"NOOP\r\n")
        assert wire.rest() == (b"250 2.0.0 OK\r\n" * 2 if drop == "after" else b"")
    assert len(only_message(mailbox).envelope.rcpt_tos) == 2


def test_a_drop_and_a_reply_at_the_end(mailbox):
    mailbox.fault("BDAT", drop="after")
    mailbox.fault("EOM", "550 5.2.1 No", when="moe@*")
    with greeted(mailbox) as wire:
        begun_for_two(wire)
        wire.sock.sendall(LAST + b"NOOP\r\n")
        assert wire.rest() == b"550 5.2.1 No\r\n250 2.0.0 OK\r\n"
    assert only_message(mailbox).envelope.rcpt_tos == ("lee@example.com",)


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_last_chunk_that_is_refused_is_so_for_each(mailbox, is_slow):
    """RFC 2033, 4.3; Dovecot does the same."""
    if is_slow:
        mailbox.fault("NOOP", "450 4.0.0 No", when="nobody")
    large = b"x" * 1001
    with greeted(mailbox) as wire:
        begun_for_two(wire)
        assert codes(wire, bdat(large, last=True) + b"NOOP\r\n", 3) == [552, 552, 250]
        assert codes(wire, bdat(TEXT, last=True) + b"NOOP\r\n", 2) == [503, 250]
        begun_for_two(wire)
        assert codes(wire, bdat(large) + LAST + b"NOOP\r\n", 3) == [552, 503, 250]
    assert mailbox.queue.empty()
