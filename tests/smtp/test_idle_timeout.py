"""A client that says nothing when it is its turn: 421, and on time (RFC 5321, 4.5.3.2.7)."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from helpers import EVENT_LOOPS, LOGIN, loop_name, until
from raw_client import CONTENT, MESSAGE, Wire, greeted
from tls_client import ImplicitClient, TLSClient

from lazr_smtptest import Controller, QueueController, Server

#: Seconds that the servers of these tests wait, and how late they may be.
IDLE = 0.4
LATE = 2.0

TIMED_OUT = b"421 4.4.2 Error: timeout exceeded\r\n"


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def uvloop(request):
    return request.param


@pytest.fixture(scope="module")
def running(uvloop):
    with QueueController(
        "127.0.0.1", auth=dict([LOGIN]), idle_timeout=IDLE, uvloop=uvloop
    ) as controller:
        yield controller


@pytest.fixture(params=["quick", "slow"])
def way(request, server):
    """Both ways of taking commands: a fault that never fires takes the slow one."""
    if request.param == "slow":
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    return request.param


def assert_ends(client: Wire | TLSClient, began: float, told: bytes = TIMED_OUT) -> None:
    """Check that it ends on time; ``began`` is no later than the server's wait."""
    assert client.rest() == told
    # uvloop counts in milliseconds.
    assert IDLE - 0.002 <= time.monotonic() - began < IDLE + LATE


def test_after_the_greeting(server, way):
    began = time.monotonic()
    with Wire(server) as wire:
        assert wire.reply().startswith(b"220")
        assert_ends(wire, began)
    session = server.sessions()[-1]
    assert session.ended == "dropped by the server"
    assert str(session.dialogue[-1]).endswith(" S 421 4.4.2 Error: timeout exceeded")


def test_many_at_a_time(server):
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        wires = [stack.enter_context(Wire(server)) for _ in range(50)]
        for wire in wires:
            assert wire.reply().startswith(b"220")
        for wire in wires:
            assert_ends(wire, began)


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ([b"NOOP"], b""),
        ([b"FOO"], b""),
        ([b"NOOP"], b"NOO"),
        (MESSAGE[:2], b""),
        (MESSAGE, b""),
        (MESSAGE, b"Subject: half\r\n"),
        ([*MESSAGE, CONTENT], b""),
        ([b"AUTH LOGIN"], b""),
        ([b"AUTH LOGIN", b"a2lt"], b"AAAA"),
        ([b"AUTH LOGIN", b"*"], b""),
    ],
    ids=lambda value: repr(value[-1:])[:20],
)
def test_later(server, way, before, last):
    with greeted(server) as wire:
        for line in before:
            time.sleep(IDLE / 4)  # what is said begins the time anew
            began = time.monotonic()
            assert wire.say(line)
        if last:
            time.sleep(IDLE / 4)
            if before is MESSAGE:  # each piece of the content does so, too
                began = time.monotonic()
            wire.sock.sendall(last)
        assert_ends(wire, began)
    assert server.queue.qsize() == (CONTENT in before)


def test_content_that_takes_long(server, way):
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        for _ in range(10):
            time.sleep(IDLE / 4)
            wire.sock.sendall(b"X: y\r\n")
        assert wire.say(b".").startswith(b"250")


def test_commands_that_take_long(server, way):
    with greeted(server) as wire:
        for _ in range(10):
            time.sleep(IDLE / 4)
            assert wire.say(b"NOOP").startswith(b"250")


# When it is not the client's turn.


class Slow(Server):
    def handle_message(self, message):
        time.sleep(2.5 * IDLE)


def test_a_handler_may_take_longer(uvloop):
    with Controller(Slow("127.0.0.1", idle_timeout=IDLE), uvloop=uvloop) as controller:
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
            assert wire.reply() == TIMED_OUT


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "EOM"])
@pytest.mark.parametrize("how", ["gate", "delay"])
def test_a_gate_or_a_delay_may_take_longer(server, stage, how):
    if how == "delay":
        server.fault(stage, delay=2.5 * IDLE)
    with server.gate(stage) as gate, Wire(server) as wire:
        if how == "delay":
            gate.release()
        wire.sock.sendall(b"\r\n".join([b"EHLO x", *MESSAGE, CONTENT, b""]))
        if how == "gate":
            gate.wait_parked()
            time.sleep(2.5 * IDLE)
            gate.release()
        codes = [wire.reply()[:3] for _ in range(6)]
        assert codes == [b"220", b"250", b"250", b"250", b"354", b"250"]
        assert wire.reply() == TIMED_OUT


def test_a_client_that_reads_nothing(server):
    """It cannot be told, either; its connection ends all the same."""
    server.fault("NOOP", "250 " + "y" * 30_000)
    with Wire(server) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.sock.sendall(b"EHLO deaf\r\n" + b"NOOP\r\n" * 1000)
        until(
            lambda: (
                ("deaf", "dropped by the server") in [(s.helo, s.ended) for s in server.sessions()]
            )
        )


# Under TLS.


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_under_tls(uvloop, mode):
    pytest.importorskip("trustme", reason="trustme is an extra")
    with QueueController("127.0.0.1", tls=mode, idle_timeout=IDLE, uvloop=uvloop) as controller:
        client = TLSClient(controller) if mode == "starttls" else ImplicitClient(controller)
        with client:
            if mode == "starttls":
                client.starttls()
            began = time.monotonic()
            assert client.command(b"EHLO client.example").code == 250
            assert_ends(client, began)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00"])
def test_in_the_handshake(uvloop, mode, sent):
    pytest.importorskip("trustme", reason="trustme is an extra")
    with QueueController("127.0.0.1", tls=mode, idle_timeout=IDLE, uvloop=uvloop) as controller:
        began = time.monotonic()
        with Wire(controller) as wire:
            if mode == "starttls":
                wire.reply()
                began = time.monotonic()
                assert wire.say(b"STARTTLS").startswith(b"220")
            wire.sock.sendall(sent)
            assert_ends(wire, began, b"")
        session = controller.sessions()[-1]
        assert session.ended == "dropped by the server"
        assert session.dialogue[-1].text == (
            "TLS failed: the client did not end the handshake within 0.4 seconds"
        )
