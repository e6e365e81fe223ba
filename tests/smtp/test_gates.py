"""Gates: a session waits exactly where a test wants it to, and for as long."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import LOGIN, STAGES, fresh, send, send_to, subjects, until
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import GateTimeout, NotRunning, QueueController, ServerDied, SMTPTestError


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as executor:
        yield executor


def silent(wire: Wire) -> bool:
    """Whether nothing has come back.  No wait: the server is known to be parked."""
    wire.sock.setblocking(False)
    try:
        return not wire.sock.recv(1)
    except BlockingIOError:
        return True
    finally:
        wire.sock.settimeout(10)


#: What to say before, at the stage, and what is answered there.
WORDS = {
    "CONNECT": ([], None, b"220"),
    "EHLO": ([], b"EHLO x", b"250"),
    "HELO": ([], b"HELO x", b"250"),
    "STARTTLS": ([b"EHLO x"], b"STARTTLS", b"220"),
    "AUTH": ([b"EHLO x"], b"AUTH LOGIN", b"334"),
    "MAIL": ([b"EHLO x"], MESSAGE[0], b"250"),
    "RCPT": ([b"EHLO x", *MESSAGE[:1]], MESSAGE[1], b"250"),
    "DATA": ([b"EHLO x", *MESSAGE[:2]], MESSAGE[2], b"354"),
    "EOM": ([b"EHLO x", *MESSAGE], CONTENT, b"250"),
    "RSET": ([b"EHLO x"], b"RSET", b"250"),
    "NOOP": ([b"EHLO x"], b"NOOP", b"250"),
    "VRFY": ([b"EHLO x"], b"VRFY kim", b"252"),
    "EXPN": ([b"EHLO x"], b"EXPN staff", b"502"),
    "HELP": ([b"EHLO x"], b"HELP", b"214"),
    "QUIT": ([b"EHLO x"], b"QUIT", b"221"),
}


def arrive(controller, stage: str) -> Wire:
    """Come to a stage, and do not wait for its answer."""
    before, words, _ = WORDS[stage]
    wire = Wire(controller)
    if words is not None:
        assert wire.reply().startswith(b"220")
        assert wire.say(*before)[:1] in (b"2", b"3", b"")
        wire.sock.sendall(words + b"\r\n")
    return wire


@pytest.mark.parametrize("stage", STAGES)
def test_at_all_stages(server, stage):
    with server.gate(stage) as gate, arrive(server, stage) as wire:
        assert gate.wait_parked() == 1
        assert silent(wire)
        assert server.queue.qsize() == 0
        assert server.sessions()[0].ended == "open"
        assert gate.release(1) == 1
        assert wire.reply().startswith(WORDS[stage][2])
        assert server.queue.qsize() == (stage == "EOM")
        assert gate.release(1) == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_behind_a_gate(server, stage):
    """One that is made while the session is parked, too."""
    with server.gate(stage) as gate, arrive(server, stage) as wire:
        gate.wait_parked()
        fault = server.fault(stage, "451 4.7.1 Later")
        assert fault.fired == 0
        gate.release()
        assert wire.reply() == b"451 4.7.1 Later\r\n"
        assert fault.fired == 1
    assert server.queue.qsize() == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("drop", ["before", "instead"])
def test_a_drop_behind_a_gate(server, stage, drop):
    with server.gate(stage) as gate, arrive(server, stage) as wire:
        gate.wait_parked()
        server.fault(stage, drop=drop)
        assert silent(wire)
        gate.release()
        assert wire.reply() == b""
    assert server.queue.qsize() == (stage == "EOM" and drop == "instead")


@pytest.mark.parametrize("stage", STAGES)
def test_a_connection_that_is_reset_while_parked(server, stage):
    with server.gate(stage) as gate:
        leaver, stayer = arrive(server, stage), arrive(server, stage)
        with stayer:
            gate.wait_parked(count=2)
            peer = leaver.sock.getsockname()
            leaver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            leaver.close()
            until(lambda: gate.wait_parked() == 1)
            ended = {s.peer: s.ended for s in server.sessions()}
            assert ended[stayer.sock.getsockname()] == "open"
            until(lambda: {s.peer: s.ended for s in server.sessions()}[peer] != "open")
            ended = {s.peer: s.ended for s in server.sessions()}
            assert ended[peer] == "dropped by the client"
            assert gate.release() == 1
            assert stayer.reply().startswith(WORDS[stage][2])
    assert server.queue.qsize() == (stage == "EOM")


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_sends_no_more_while_parked(server, stage):
    """It may listen, and gets its answer; that it is gone shows only then."""
    with server.gate(stage) as gate:
        listener, leaver = arrive(server, stage), arrive(server, stage)
        with listener:
            gate.wait_parked(count=2)
            peer = leaver.sock.getsockname()
            listener.sock.shutdown(socket.SHUT_WR)
            leaver.close()
            until(lambda: [noted_eof(s) for s in server.sessions()] == [True, True])
            assert gate.wait_parked() == 2
            assert gate.release() == 2
            assert listener.reply().startswith(WORDS[stage][2])
            assert listener.reply() == b""
            until(lambda: all(s.ended != "open" for s in server.sessions()))
            ended = {s.peer: s.ended for s in server.sessions()}
            assert ended[peer] == ("QUIT" if stage == "QUIT" else "dropped by the client")
    assert server.queue.qsize() == (2 if stage == "EOM" else 0)


def noted_eof(session) -> bool:
    return any(line.text == "the client sends no more" for line in session.dialogue)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["reset", "stop"])
def test_reset_and_stop_while_parked(how, stage):
    with QueueController("127.0.0.1", tls="starttls", auth=dict([LOGIN])) as controller:
        gate = controller.gate(stage)
        with arrive(controller, stage) as wire:
            gate.wait_parked()
            began = time.monotonic()
            getattr(controller, how)()
            assert time.monotonic() - began < 1
            # What a session had begun does not go on after either.
            assert wire.reply() == b""
            assert controller.queue.qsize() == 0
            if how == "reset":
                with pytest.raises(GateTimeout):
                    gate.wait_parked(timeout=0)
                assert gate.release() == 0
                send_to(controller, "open")
                assert subjects(controller) == ["open"]


# Letting them go.


def test_release_lets_go_who_waited_longest(server):
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(server.gate("NOOP"))
        wires = []
        for number in range(1, 6):
            wires.append(stack.enter_context(arrive(server, "NOOP")))
            assert gate.wait_parked(count=number) == number
        assert gate.release(2) == 2
        assert [wire.reply()[:3] for wire in wires[:2]] == [b"250"] * 2
        assert all(map(silent, wires[2:]))
        assert gate.wait_parked(count=3) == 3
        assert gate.release(10) == 3  # and it stays closed
        assert [wire.reply()[:3] for wire in wires[2:]] == [b"250"] * 3
        wires[0].sock.sendall(b"NOOP\r\n")
        assert gate.wait_parked() == 1
        assert gate.release() == 1
        assert wires[0].reply().startswith(b"250")
        # Now it is open, for all that are still to come.
        assert wires[1].codes(b"NOOP") == [250]
        assert gate.release() == 0
        assert gate.release(1) == 0


def test_leaving_opens_it(server):
    with server.gate("NOOP") as gate, arrive(server, "NOOP") as wire:
        gate.wait_parked()
        with pytest.raises(LookupError), gate:
            raise LookupError
        assert wire.reply().startswith(b"250")
        assert wire.codes(b"NOOP") == [250]


def test_several_gates_in_a_row(server):
    with server.gate("NOOP") as first, server.gate("NOOP") as second:
        with arrive(server, "NOOP") as wire:
            first.wait_parked()
            with pytest.raises(GateTimeout):
                second.wait_parked(timeout=0)
            first.release(1)
            second.wait_parked()
            assert silent(wire)
            second.release(1)
            assert wire.reply().startswith(b"250")


def test_a_gate_that_is_opened_while_another_is_waited_at(server):
    with server.gate("NOOP") as first, server.gate("NOOP") as second:
        with arrive(server, "NOOP") as wire:
            first.wait_parked()
            second.release()
            first.release()
            assert wire.reply().startswith(b"250")


def test_gates_at_several_stages(server):
    stages = ["EHLO", "MAIL", "RCPT", "DATA", "EOM", "QUIT"]
    gates = [server.gate(stage) for stage in stages]
    thread = threading.Thread(target=send_to, args=(server, "stepwise"))
    thread.start()
    for stage, gate in zip(stages, gates, strict=True):
        gate.wait_parked()
        assert server.queue.qsize() == (stage == "QUIT")
        gate.release()
    thread.join()
    assert subjects(server) == ["stepwise"]


def test_when(server):
    with server.gate("RCPT", when="SLOW@*") as gate, greeted(server) as wire:
        assert wire.codes(*MESSAGE[:2]) == [250, 250]
        wire.sock.sendall(b"RCPT TO:<slow@example.com>\r\n")
        gate.wait_parked()
        send_to(server, "meanwhile")
        assert subjects(server) == ["meanwhile"]
        gate.release(1)
        assert wire.reply().startswith(b"250")


def test_in_the_midst_of_content(server):
    """A gate that is made when half of the content is there."""
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: half\r\n\r\n")
        with server.gate("EOM") as gate:
            wire.sock.sendall(b"Rest.\r\n.\r\nNOOP\r\nMAIL FROM:<a@b.c>\r\n")
            gate.wait_parked()
            assert server.queue.qsize() == 0
            assert silent(wire)
        assert [wire.reply()[:3] for _ in range(3)] == [b"250"] * 3
    assert subjects(server) == ["half"]


def test_pipelined_commands_wait_behind_it(server):
    with server.gate("RCPT") as gate, greeted(server) as wire:
        wire.sock.sendall(b"\r\n".join([*MESSAGE, CONTENT, b"QUIT", b""]))
        gate.wait_parked()
        assert wire.reply().startswith(b"250")
        assert silent(wire)
        gate.release()
        assert [wire.reply()[:3] for _ in range(4)] == [b"250", b"354", b"250", b"221"]
    assert server.queue.qsize() == 1


# Waiting.


def test_nobody_came(server):
    with server.gate("RCPT") as gate:
        began = time.monotonic()
        with pytest.raises(GateTimeout) as caught:
            gate.wait_parked(timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 2
    error = caught.value
    assert str(error) == (
        f"0 of 1 sessions came to the gate at RCPT on 127.0.0.1 port {server.port} "
        f"within {error.elapsed:.2f} seconds; "
        "sessions() shows what they did instead"
    )
    assert (error.host, error.port, error.pid) == ("127.0.0.1", server.port, server.pid)
    assert 0.2 <= error.elapsed < 2
    assert isinstance(error, (AssertionError, TimeoutError))
    assert isinstance(error, SMTPTestError)


def test_too_few_came(server):
    with server.gate("NOOP") as gate, arrive(server, "NOOP"):
        gate.wait_parked()
        with pytest.raises(GateTimeout, match="1 of 3 sessions came to the gate at NOOP"):
            gate.wait_parked(timeout=0.05, count=3)
        assert gate.wait_parked(timeout=0) == 1


def test_those_who_come_while_it_waits(server, pool):
    with server.gate("NOOP") as gate, contextlib.ExitStack() as stack:
        waiting = [pool.submit(gate.wait_parked, count=count) for count in (3, 1, 2)]
        for _ in range(3):
            stack.enter_context(arrive(server, "NOOP"))
        counts = [future.result(10) for future in waiting]
        assert counts[0] == 3
        assert counts[1] >= 1
        assert counts[2] >= 2


def test_one_that_is_open_is_not_waited_at_for_long(server):
    """And the error does not claim that it waited."""
    gate = server.gate("NOOP")
    gate.release()
    began = time.monotonic()
    with pytest.raises(GateTimeout) as caught:
        gate.wait_parked(timeout=3)
    took = time.monotonic() - began
    assert took < 1
    assert caught.value.elapsed < 1
    assert "within 3 seconds" not in str(caught.value)


def test_one_that_is_opened_while_it_is_waited_at(server, pool):
    gate = server.gate("NOOP")
    waiting = pool.submit(gate.wait_parked, timeout=0.5)
    gate.release()
    with pytest.raises(GateTimeout):
        waiting.result(10)


@pytest.mark.parametrize("timeout", [-1, -0.1, float("inf"), float("nan")])
def test_a_timeout_that_is_none(server, timeout):
    with server.gate("NOOP") as gate, pytest.raises(ValueError, match="timeout must be"):
        gate.wait_parked(timeout=timeout)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_that_is_none(server, count):
    with server.gate("NOOP") as gate:
        with pytest.raises(ValueError, match="count must be"):
            gate.wait_parked(count=count)
        with pytest.raises(ValueError, match="count must be"):
            gate.release(count)


def test_what_is_no_gate(server):
    with pytest.raises(ValueError, match="stage must be one of CONNECT, EHLO"):
        server.gate("VRFX")
    with pytest.raises(TypeError, match="when must be"):
        server.gate("MAIL", when=7)
    send_to(server, "open")


# Others.


@pytest.mark.parametrize("stage", STAGES)
def test_the_parked_stall_nobody_else(server, stage):
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(server.gate(stage))
        for _ in range(10):
            stack.enter_context(arrive(server, stage))
        gate.wait_parked(count=10)
        free = server.gate("HELO", when="nobody") if stage != "HELO" else gate
        began = time.monotonic()
        with greeted_elsewhere(server, stage) as wire:
            assert wire is None or wire.codes(b"TURN") == [500]
        assert server.sessions()
        assert time.monotonic() - began < 1
        free.release()


@contextlib.contextmanager
def greeted_elsewhere(controller, stage):
    """A session that does not come by the stage; None if all do."""
    if stage == "CONNECT":
        yield None
    else:
        with Wire(controller) as wire:
            assert wire.reply().startswith(b"220")
            assert wire.say(b"EHLO x" if stage == "HELO" else b"HELO x").startswith(b"250")
            yield wire


def test_a_client_with_a_time_limit(server):
    """It gives up while the server is certain to be silent."""
    with server.gate("EOM") as gate:
        client = smtplib.SMTP(server.host, server.port, "client.example", timeout=0.2)
        with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected), match="timed out"):
            send(client, "given up")
        client.close()
        until(lambda: noted_eof(server.sessions()[-1]))
        assert gate.wait_parked(timeout=0) == 1
        server.reset()
        with pytest.raises(GateTimeout):
            gate.wait_parked(timeout=0)
    until(lambda: all(session.ended != "open" for session in server.sessions()))
    assert server.queue.qsize() == 0


class Pool:
    """As many connections as are allowed; who wants one more waits."""

    def __init__(self, controller, size: int) -> None:
        self._controller = controller
        self._free: queue.Queue = queue.Queue()
        for _ in range(size):
            self._free.put(None)
        self.waiting = 0
        self._lock = threading.Lock()

    def send(self, subject: object) -> None:
        with self._lock:
            self.waiting += 1
        client = self._free.get(timeout=10)
        with self._lock:
            self.waiting -= 1
        try:
            if client is None:
                client = smtplib.SMTP(
                    self._controller.host, self._controller.port, "client.example", timeout=10
                )
            send(client, subject)
        finally:
            self._free.put(client)

    def close(self) -> None:
        while not self._free.empty():
            client = self._free.get()
            if client is not None:
                client.quit()


def test_a_connection_pool(server, pool):
    connections = Pool(server, 3)
    with server.gate("EOM") as gate:
        sending = [pool.submit(connections.send, number) for number in range(4)]
        assert gate.wait_parked(count=3) == 3
        # The fourth is not late: it has no connection to come with.
        until(lambda: connections.waiting == 1)
        with pytest.raises(GateTimeout, match="3 of 4"):
            gate.wait_parked(timeout=0.1, count=4)
        assert len(server.sessions()) == 3
        gate.release(1)
        assert gate.wait_parked(count=3) == 3
        assert connections.waiting == 0
        assert server.queue.qsize() == 1
    for future in sending:
        future.result(10)
    connections.close()
    assert sorted(subjects(server)) == ["0", "1", "2", "3"]
    assert len(server.sessions()) == 3


def test_a_thundering_herd(server, pool):
    """Twenty clients, let loose at the same moment."""
    with server.gate("EOM") as gate:
        sending = [pool.submit(send_to, server, number) for number in range(20)]
        assert gate.wait_parked(timeout=10, count=20) == 20
    for future in sending:
        future.result(10)
    assert sorted(map(int, subjects(server))) == list(range(20))


# The server's life.


def test_an_old_handle():
    controller = QueueController("127.0.0.1")
    with pytest.raises(NotRunning, match=r"gate\(\)"):
        controller.gate("MAIL")
    with controller:
        gate = controller.gate("MAIL")
    for _ in range(2):
        with pytest.raises(NotRunning):
            gate.wait_parked(timeout=0)
        with pytest.raises(NotRunning):
            gate.release()
        with contextlib.suppress(Exception):
            controller.start()
    send_to(controller, "open")
    assert subjects(controller) == ["open"]
    controller.stop()


def test_a_server_that_is_killed(pool):
    with contextlib.suppress(ServerDied):
        with QueueController("127.0.0.1") as controller:
            gate = controller.gate("NOOP")
            waiting = pool.submit(gate.wait_parked, timeout=60)
            until(lambda: waiting.running())
            os.kill(controller.pid, signal.SIGKILL)
            with pytest.raises(ServerDied):
                waiting.result(10)
            with pytest.raises(ServerDied):
                gate.release()


def test_a_server_that_is_stopped_while_a_gate_is_waited_at(pool):
    controller = QueueController("127.0.0.1")
    controller.start()
    gate = controller.gate("NOOP")
    waiting = pool.submit(gate.wait_parked, timeout=60)
    until(lambda: waiting.running())
    began = time.monotonic()
    controller.stop()
    with pytest.raises(NotRunning):
        waiting.result(10)
    assert time.monotonic() - began < 2
