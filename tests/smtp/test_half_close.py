"""A client that sends no more, and reads what it is told (RFC 9293, 3.6).

Exim says QUIT together with the end of a message, and that it sends no more; ``nc -N`` says
everything at once.  What was read is finished and answered, and then the connection is closed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from auth_client import b64
from helpers import EVENT_LOOPS, LOGIN, fresh, loop_name, subjects, until
from programs import PATH, missing
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer, Server

USER, PASSWORD = LOGIN
ALL = b"\r\n".join([b"HELO client.example", *MESSAGE, CONTENT, b"QUIT", b""])


class Slow(QueueServer):
    def handle_message(self, message):
        time.sleep(0.1)
        super().handle_message(message)


class Hooked(QueueServer):
    async def handle_DATA(self, server, session, envelope):
        return "250 2.6.0 From a hook"


class SlowSink(Server):
    def handle_message(self, message):
        time.sleep(0.1)


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def uvloop(request):
    return request.param


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


def said(wire: Wire) -> list[int]:
    """Give the codes of all that the server says until it closes the connection."""
    codes = []
    while reply := wire.reply():
        codes.append(int(reply[:3]))
    return codes


def as_exim(controller) -> list[int]:
    """Send a message, and QUIT with its end; give what comes after 354."""
    with greeted(controller) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(CONTENT + b"\r\nQUIT\r\n")
        wire.sock.shutdown(socket.SHUT_WR)
        return said(wire)


def at_once(controller) -> list[int]:
    with Wire(controller) as wire:
        wire.sock.sendall(ALL)
        wire.sock.shutdown(socket.SHUT_WR)
        codes = said(wire)
    assert codes[:5] == [220, 250, 250, 250, 354]
    return codes[5:]


def by_netcat(controller) -> list[int]:
    program = shutil.which("nc.openbsd", path=PATH)
    if program is None:
        missing("the program nc.openbsd is not installed: Debian has it in netcat-openbsd")
    done = subprocess.run(
        [program, "-N", controller.host, str(controller.port)],
        input=ALL,
        capture_output=True,
        timeout=15,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    codes = [int(line[:3]) for line in done.stdout.splitlines()]
    assert codes[:5] == [220, 250, 250, 250, 354]
    return codes[5:]


@pytest.fixture(params=[as_exim, at_once, by_netcat])
def client(request) -> Callable[[object], list[int]]:
    return request.param


# Whatever it is that takes its time.


@contextlib.contextmanager
def serving(kind: str, uvloop: bool) -> Iterator[tuple[Controller, queue.Queue | MessageQueue]]:
    inbox = queue.Queue() if kind == "foreign queue" else MessageQueue()
    make = {"handler": Slow, "hook": Hooked}.get(kind, QueueServer)
    with Controller(make("127.0.0.1", 0, inbox), uvloop=uvloop) as controller:
        yield controller, inbox


@pytest.mark.parametrize("kind", ["queue", "foreign queue", "handler", "hook"])
@pytest.mark.parametrize("fault", [None, "for nobody", "delay"])
def test_it_is_answered(client, kind, fault, uvloop):
    with serving(kind, uvloop) as (controller, inbox):
        if fault == "for nobody":
            controller.fault("RCPT", "550 5.1.1 No", when="nobody@*")
        elif fault == "delay":
            controller.fault("EOM", delay=0.1)
        for _ in range(3):
            assert client(controller) == [250, 221]
        assert [session.ended for session in controller.sessions()] == ["QUIT"] * 3
        assert inbox.qsize() == 3 * (kind != "hook")


def test_without_a_queue(client, uvloop):
    with Controller(SlowSink("127.0.0.1", 0), uvloop=uvloop) as controller:
        assert client(controller) == [250, 221]


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_it_is_refused(client, server, delay):
    server.fault("EOM", "451 4.3.0 Later", delay=delay)
    assert client(server) == [451, 221]
    assert server.queue.qsize() == 0


@pytest.mark.parametrize(
    ("client", "stage"),
    [
        *((client, stage) for client in (at_once, by_netcat) for stage in ("MAIL", "DATA")),
        *(
            (client, stage)
            for client in (as_exim, at_once, by_netcat)
            for stage in ("EOM", "QUIT")
        ),
    ],
)
def test_it_is_parked(server, client, stage):
    codes: list[int] = []
    with server.gate(stage) as gate:
        thread = threading.Thread(target=lambda: codes.extend(client(server)))
        thread.start()
        gate.wait_parked()
        until(lambda: any("sends no more" in line.text for line in parked(server).dialogue))
        assert parked(server).ended == "open"
    thread.join()
    assert codes == [250, 221]
    assert server.queue.qsize() == 1
    assert parked(server).ended == "QUIT"


def parked(controller):
    return controller.sessions()[-1]


def test_many_at_a_time(server):
    server.fault("EOM", delay=0.05)
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(as_exim(server))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[250, 221]] * 20
    assert server.queue.qsize() == 20


# What it has sent, and what it has not.


@pytest.fixture(params=["quick", "slow"])
def way(request, server):
    """Both ways of taking commands: a fault that never fires takes the slow one."""
    if request.param == "slow":
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    return request.param


def ending(controller, *before: bytes, last: bytes) -> list[int]:
    """Say some lines, and then the last octets; give what they are told."""
    with greeted(controller) as wire:
        for line in before:
            assert wire.say(line)
        wire.sock.sendall(last)
        wire.sock.shutdown(socket.SHUT_WR)
        return said(wire)


def test_no_quit(server, way):
    assert ending(server, *MESSAGE, last=CONTENT + b"\r\n") == [250]
    assert server.sessions()[-1].ended == "dropped by the client"
    assert "no-quit" in [problem.code for problem in server.sessions()[-1].problems]
    assert server.queue.qsize() == 1


def test_nothing_at_all(server, way):
    with Wire(server) as wire:
        wire.sock.shutdown(socket.SHUT_WR)
        assert said(wire) == [220]
    assert server.sessions()[-1].ended == "dropped by the client"


@pytest.mark.parametrize(
    "content", [b"", b"Subject: half\r\n\r\nHello", CONTENT, CONTENT + b"\r", CONTENT + b"\n"]
)
@pytest.mark.parametrize("together", [False, True])
def test_content_without_its_end_is_no_message(server, way, content, together):
    if together:
        lines = b"".join(line + b"\r\n" for line in MESSAGE)
        assert ending(server, last=lines + content) == [250, 250, 354]
    else:
        assert ending(server, *MESSAGE, last=content) == []
    assert server.queue.qsize() == 0
    session = server.sessions()[-1]
    assert (session.ended, session.messages) == ("dropped by the client", ())


@pytest.mark.parametrize("last", [b"QUIT", b"QUIT\r", b"NOOP\r\nQUIT", b"x" * 20_000])
def test_a_command_without_its_end_is_none(server, way, last):
    assert ending(server, last=last) == [250] * last.count(b"\n")
    assert server.sessions()[-1].ended == "dropped by the client"


def test_many_commands(server, way):
    assert ending(server, last=b"NOOP\r\n" * 5000 + b"QUIT\r\n") == [250] * 5000 + [221]


def test_two_messages(server, way):
    twice = b"\r\n".join([*MESSAGE, CONTENT, *MESSAGE, CONTENT, b"QUIT", b""])
    assert ending(server, last=twice) == [250, 250, 354, 250] * 2 + [221]
    assert server.queue.qsize() == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"])
@pytest.mark.parametrize("answer", [b"", b"AAAA", b"*\r\n"])
def test_amid_a_login(server, mechanism, answer):
    begin = f"AUTH {mechanism}\r\n".encode()
    # What is no whole line is no answer; the asterisk ends the exchange, and all is said.
    assert ending(server, last=begin + answer) == [334, 501][: 1 + answer.count(b"\n")]
    assert server.sessions()[-1].ended == "dropped by the client"
    assert server.sessions()[-1].failed_logins == 0


def test_a_login(server):
    lines = [b"AUTH LOGIN", b64(USER), b64(PASSWORD), *MESSAGE, CONTENT, b"QUIT", b""]
    assert ending(server, last=b"\r\n".join(lines)) == [334, 334, 235, 250, 250, 354, 250, 221]
    assert server.queue.get_nowait().envelope.auth_user == USER


@pytest.mark.parametrize("client", [as_exim, at_once])
@pytest.mark.parametrize("delay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("drop", "reply", "codes", "count"),
    [
        ("before", None, [], 0),
        ("instead", None, [], 1),
        ("after", None, [250], 1),
        (True, "421 4.3.2 Closing", [421], 0),
        ("after", "451 4.3.0 Later", [451], 0),
    ],
)
def test_drops(client, server, delay, drop, reply, codes, count):
    server.fault("EOM", reply, drop=drop, delay=delay)
    assert client(server) == codes
    assert server.queue.qsize() == count
    assert server.sessions()[-1].ended == "dropped by the server"


@pytest.mark.parametrize("reply", ["221 2.0.0 So long", "421 4.3.2 Closing", "500 5.5.1 Stay"])
def test_replies_to_quit(client, server, reply):
    server.fault("QUIT", reply)
    assert client(server) == [250, int(reply[:3])]
    assert server.queue.qsize() == 1
    assert server.sessions()[-1].ended != "open"


def test_starttls_and_no_more(server):
    began = time.monotonic()
    assert ending(server, last=b"STARTTLS\r\n") == [220]
    assert time.monotonic() - began < 5
    session = server.sessions()[-1]
    assert session.ended == "dropped by the client"
    assert session.dialogue[-1].text == (
        "TLS failed: the client ended the connection before the handshake was over"
    )


# Clients that are gone.


@pytest.mark.parametrize("kind", ["handler", "foreign queue", "delay"])
def test_a_reset_of_the_connection_ends_it(kind, uvloop, caplog):
    """Of one that had said before that it sends no more; when it is told something."""
    with serving(kind, uvloop) as (controller, _):
        controller.fault("EOM", delay=0.1)
        for _ in range(5):
            with greeted(controller) as wire:
                assert wire.codes(*MESSAGE) == [250, 250, 354]
                wire.sock.sendall(CONTENT + b"\r\nQUIT\r\n")
                wire.sock.shutdown(socket.SHUT_WR)
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: all(session.ended != "open" for session in controller.sessions()))
        assert as_exim(controller) == [250, 221]
    assert caplog.records == []


def test_nothing_is_left(uvloop):
    with QueueController("127.0.0.1", uvloop=uvloop) as controller:
        assert as_exim(controller) == [250, 221]
        folder = f"/proc/{controller.pid}/fd"
        before = len(os.listdir(folder))
        controller.fault("EOM", delay=0.02)
        for number in range(60):
            if number % 3 == 0:
                as_exim(controller)
            elif number % 3 == 1:
                ending(controller, *MESSAGE, last=b"Subject: half\r\n")
            else:
                with greeted(controller) as wire:  # and does not look back
                    wire.sock.sendall(b"\r\n".join([*MESSAGE, CONTENT, b"QUIT", b""]))
        until(lambda: all(session.ended != "open" for session in controller.sessions()))
        until(lambda: len(os.listdir(folder)) <= before)


def test_mail_of_a_client_that_gave_up_is_not_in_the_next_test(server):
    server.fault("EOM", delay=0.3)
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(CONTENT + b"\r\n")
        until(lambda: "octets" in server.sessions()[-1].dialogue[-1].text)
    until(lambda: "sends no more" in server.sessions()[-1].dialogue[-1].text)
    server.reset()
    server.queue.expect_none(quiet=0.5)


# Under TLS.


class TLSWire:
    """A client that can say that it sends no more, by TLS or by TCP, and reads on."""

    def __init__(self, controller) -> None:
        self.sock = socket.create_connection((controller.host, controller.port), 10)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = controller.client_context()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=controller.host)

    def _do(self, action, *arguments):
        while True:
            try:
                return action(*arguments)
            except ssl.SSLWantReadError:
                self._flush()
                if octets := self.sock.recv(65_536):
                    self._in.write(octets)
                else:
                    self._in.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            self.sock.sendall(self._out.read())

    def begin(self) -> None:
        self._do(self._tls.do_handshake)

    def send(self, octets: bytes) -> None:
        self._do(self._tls.write, octets)

    def read(self) -> bytes:
        return self._do(self._tls.read, 65_536)

    def rest(self) -> bytes:
        """Give what comes until the server has said by TLS that no more does."""
        found = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while piece := self.read():
                found += piece
        return found

    def end_by_tls(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def end_by_tcp(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("how", ["end_by_tls", "end_by_tcp"])
@pytest.mark.parametrize("delay", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_under_tls(uvloop, mode, how, delay):
    pytest.importorskip("trustme", reason="trustme is an extra")
    with QueueController("127.0.0.1", tls=mode, uvloop=uvloop) as controller:
        if delay:
            controller.fault("EOM", delay=delay)
        wire = TLSWire(controller)
        with contextlib.closing(wire.sock):
            if mode == "starttls":
                assert wire.sock.recv(1000).startswith(b"220")
                wire.sock.sendall(b"STARTTLS\r\n")
                assert wire.sock.recv(1000).startswith(b"220")
            wire.begin()
            if mode == "implicit":
                assert wire.read().startswith(b"220")
            wire.send(ALL)
            getattr(wire, how)()
            told = wire.rest().splitlines()
        assert [line[:3] for line in told] == [b"250", b"250", b"250", b"354", b"250", b"221"]
        assert subjects(controller) == ["wire"]
        assert controller.sessions()[-1].ended == "QUIT"
