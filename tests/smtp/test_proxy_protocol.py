"""Connections that a proxy makes on behalf of clients, and says so."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import struct

import pytest
from helpers import subjects, until
from programs import Programs
from raw_client import Wire

from lazr_smtptest import Controller, HandlerError, MessageQueue, QueueController, QueueServer

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAIL = b"Subject: hello\r\n\r\nHello.\r\n"


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 25)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 4711, 25)
)
#: As PP2_TYPE_AUTHORITY has it, behind the addresses.
TLV = b"\x02\x00\x0bexample.com"

HEADERS = {
    "1, IPv4": (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n", ("192.0.2.7", 4711)),
    "1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", ("2001:db8::7", 4711)),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown, with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "2, IPv4": (version_2(1, 0x11, IPV4), ("192.0.2.7", 4711)),
    "2, IPv6": (version_2(1, 0x21, IPV6), ("2001:db8::7", 4711)),
    "2, with more": (version_2(1, 0x11, IPV4 + TLV), ("192.0.2.7", 4711)),
    "2, local": (version_2(0, 0x00, b""), None),
    "2, local, with addresses": (version_2(0, 0x11, IPV4), None),
    "2, UNIX": (version_2(1, 0x31, b"/run/a".ljust(108, b"\0") + bytes(108)), None),
}


@pytest.fixture(params=[False, None], ids=["asyncio", "uvloop"])
def loop(request):
    if request.param is None:
        pytest.importorskip("uvloop", reason="uvloop is an extra")
    return request.param


@pytest.fixture
def controller(loop):
    with QueueController("127.0.0.1", proxy_protocol=True, uvloop=loop) as controller:
        yield controller


def deliver(client: smtplib.SMTP) -> None:
    client.sendmail("kim@example.com", ["lee@example.com"], MAIL)
    client.quit()


class Proxied(smtplib.SMTP):
    """smtplib's client, behind a proxy that sends a header."""

    def __init__(self, header: bytes, *args: object, pieces: int = 1, **options: object) -> None:
        self._header, self._pieces = header, pieces
        super().__init__(*args, timeout=10, **options)

    def _get_socket(self, host, port, timeout):
        sock = socket.create_connection((host, port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(self._header) // self._pieces)
        for start in range(0, len(self._header), size):
            sock.sendall(self._header[start : start + size])
        return sock


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("pieces", [1, 7])
def test_the_client_is_who_the_proxy_says(controller, kind, pieces):
    header, peer = HEADERS[kind]
    with Proxied(header, controller.host, controller.port, pieces=pieces) as client:
        own = client.sock.getsockname()
        deliver(client)
    message = controller.queue.get_nowait()
    assert message.envelope.peer == (peer or own)
    assert message.raw == MAIL
    (session,) = controller.sessions()
    assert session.peer == (peer or own)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("kind", ["1, IPv4", "2, IPv4"])
def test_before_tls(loop, mode, kind):
    pytest.importorskip("trustme", reason="trustme is an extra")
    header, peer = HEADERS[kind]
    with QueueController("127.0.0.1", proxy_protocol=True, tls=mode, uvloop=loop) as controller:
        context = controller.client_context()
        if mode == "starttls":
            with Proxied(header, controller.host, controller.port) as client:
                client.starttls(context=context)
                deliver(client)
        else:
            sock = socket.create_connection((controller.host, controller.port), 10)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname=controller.host)
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            # In one piece, so that the server has read what comes after the header, too.
            sock.sendall(header + outgoing.read())
            while True:
                incoming.write(sock.recv(65536))
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                else:
                    break
            tls.write(b"QUIT\r\n")
            sock.sendall(outgoing.read())
            until(lambda: [one.ended for one in controller.sessions()] == ["QUIT"])
            sock.close()
        (session,) = controller.sessions()
        assert (session.peer, session.tls) == (peer, "TLSv1.3")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"EHLO client.example.com\r\n", "PROXY unrecognized signature"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n", "PROXY exception: pop from an empty deque"),
        (b"PROXY TCP4 192.0.2.7 2001:db8::1 4711 25\r\n", "PROXYv1 address not IPv4"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 70000\r\n", "PROXYv1 dst port out of bounds"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\n", "PROXYv1 malformed"),
        (b"PROXY UNKNOWN" + b" " * 200 + b"\r\n", "PROXYv1 header too long"),
        (version_2(2, 0x11, IPV4), "PROXYv2 unsupported command"),
        (version_2(1, 0x11, IPV4[:4]), "PROXYv2 truncated address"),
        (SIGNATURE[:8] + b"HELO", "PROXYv2 wrong signature"),
    ],
)
def test_what_is_no_header_ends_the_connection(controller, header, reason):
    with socket.create_connection((controller.host, controller.port), 10) as client:
        client.sendall(header)
        assert client.makefile("rb").read() == b""
    (session,) = controller.sessions()
    assert session.ended == "dropped by the server"
    assert f"no PROXY header: {reason}" in [line.text for line in session.dialogue]


def test_a_client_that_waits_for_its_greeting(loop):
    with (
        QueueController(
            "127.0.0.1", proxy_protocol=True, idle_timeout=0.2, uvloop=loop
        ) as controller,
        socket.create_connection((controller.host, controller.port), 10) as client,
    ):
        assert client.makefile("rb").read().startswith(b"421 4.4.2 ")


def test_nothing_is_said_in_the_clear_where_tls_is_to_come(loop):
    with (
        QueueController(
            "127.0.0.1", proxy_protocol=True, tls="implicit", idle_timeout=0.5, uvloop=loop
        ) as controller,
        socket.create_connection((controller.host, controller.port), 10) as client,
    ):
        assert client.makefile("rb").read() == b""
        (session,) = controller.sessions()
        assert session.dialogue[-1].text == (
            "TLS failed: the client did not begin with a PROXY header within 0.5 seconds"
        )
        controller.restart(idle_timeout=300.0)
        with socket.create_connection((controller.host, controller.port), 10) as other:
            assert controller.hang_up("421 4.3.2 Bye") == 1
            assert other.makefile("rb").read() == b""


class Deliberate(QueueServer):
    """A server whose hook takes its time."""

    async def handle_PROXY(self, server, session, envelope, proxy_data):
        await asyncio.sleep(0.2)
        return True


def test_a_client_that_goes_before_tls(loop):
    server = Deliberate("127.0.0.1", 0, MessageQueue(), proxy_protocol=True, tls="implicit")
    with (
        Controller(server, uvloop=loop) as controller,
        socket.create_connection((controller.host, controller.port), 10) as client,
    ):
        client.sendall(HEADERS["1, IPv4"][0])
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b""
        until(lambda: [one.ended for one in controller.sessions()] == ["dropped by the client"])


def test_a_client_that_goes(controller):
    with socket.create_connection((controller.host, controller.port), 10) as client:
        client.sendall(b"PRO")
    until(lambda: [one.ended for one in controller.sessions()] == ["dropped by the client"])


def test_faults_at_connect_are_for_the_address_of_the_client(controller):
    fault = controller.fault("CONNECT", "554 5.7.1 No", when="192.0.2.*")
    with pytest.raises(smtplib.SMTPConnectError):
        Proxied(HEADERS["1, IPv4"][0], controller.host, controller.port)
    with Proxied(HEADERS["1, IPv6"][0], controller.host, controller.port) as client:
        deliver(client)
    assert fault.fired == 1


class Choosy(QueueServer):
    """A server whose hook looks at the header."""

    async def handle_PROXY(self, server, session, envelope, proxy_data):
        if proxy_data.version == 2:
            raise LookupError("what is this?")
        return str(proxy_data.src_addr) == "192.0.2.7"


def test_hooks_have_the_header(loop):
    server = Choosy("127.0.0.1", 0, MessageQueue(), proxy_protocol=True)
    with Controller(server, uvloop=loop) as controller:
        with Proxied(HEADERS["1, IPv4"][0], controller.host, controller.port) as client:
            deliver(client)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            Proxied(HEADERS["1, IPv6"][0], controller.host, controller.port)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            Proxied(HEADERS["2, IPv4"][0], controller.host, controller.port)
        with pytest.raises(HandlerError, match=r"Choosy\.handle_PROXY raised LookupError"):
            controller.reset()


def test_without_it_a_header_is_no_command():
    with QueueController("127.0.0.1") as controller, Wire(controller) as wire:
        assert wire.reply().startswith(b"220")
        wire.sock.sendall(HEADERS["1, IPv4"][0])
        assert wire.reply().startswith(b"500")


@pytest.mark.parametrize("version", [1, 2])
def test_swaks(controller, programs: Programs, version):
    family = {1: "TCP4", 2: "AF_INET"}[version]
    programs.swaks(
        controller,
        f"--proxy-version={version}",
        f"--proxy-family={family}",
        "--proxy-source=192.0.2.7",
        "--proxy-source-port=4711",
        "--proxy-dest=192.0.2.1",
        "--proxy-dest-port=25",
        "--header=Subject: hello",
    )
    (message,) = controller.messages
    assert message.envelope.peer == ("192.0.2.7", 4711)
    assert subjects(controller) == ["hello"]
