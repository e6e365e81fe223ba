"""The protocol: where it differs from aiosmtpd's, and where it must not."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import socket

import aiosmtpd.smtp
import pytest
from helpers import connected, send, session_context, until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_client import COMMANDS

from lazr_smtptest import QueueController
from lazr_smtptest._smtp import auth, commands, connection, session
from lazr_smtptest._smtp.session import INSIDES, SMTPSession


@pytest.fixture(scope="module")
def server():
    with QueueController("127.0.0.1", recipient_limit=2, data_size_limit=100_000) as controller:
        yield controller


def talk(controller, stream: bytes, *, piecewise: bool) -> bytes:
    """Send commands, at once or each when the last was answered; give all replies."""
    received = b""
    address = (controller.host, controller.port)
    with socket.create_connection(address, timeout=10) as sock, sock.makefile("rb") as replies:

        def reply() -> bytes:
            lines = b""
            while True:
                line = replies.readline()
                lines += line
                if line[3:4] != b"-":
                    return lines

        received += reply()
        if piecewise:
            for piece in stream.split(b"|"):
                sock.sendall(piece)
                received += reply()
        else:
            sock.sendall(stream.replace(b"|", b""))
        received += replies.read()
    return received


def stream_of(commands: list[bytes]) -> bytes:
    """Put a bar wherever an answer is due."""
    pieces = []
    for command in commands:
        head, crlf, content = command.partition(b"\r\n")
        pieces.append(head + b"\r\n")
        if crlf:
            pieces.append(content + b"\r\n")
    return b"|".join([*pieces, b"QUIT\r\n"])


def envelopes(controller) -> list[tuple]:
    return [(m.envelope[2:8], m.raw) for m in controller]


@settings(
    deadline=None, max_examples=150 if "CI" in os.environ else 60, derandomize="CI" in os.environ
)
@given(st.lists(st.sampled_from(COMMANDS), max_size=14))
@example(COMMANDS[:3] + COMMANDS[14:15] * 3 + COMMANDS[20:21] + COMMANDS[2:3])
@example([COMMANDS[0], COMMANDS[2], COMMANDS[14], COMMANDS[20]] * 3)
def test_the_quick_way_answers_as_the_long_one(server, commands):
    """One by one they are answered on the spot, all at once by the coroutine.

    And what is accepted is the same, in envelope and content.  A DATA that is
    refused would have its content taken for commands, so it has none then.
    """
    commands = _without_content_where_refused(server, commands)
    server.reset()
    one_by_one = talk(server, stream_of(commands), piecewise=True)
    accepted = envelopes(server)
    at_once = talk(server, stream_of(commands), piecewise=False)
    assert one_by_one == at_once
    assert accepted == envelopes(server)


def _without_content_where_refused(server, commands: list[bytes]) -> list[bytes]:
    """Ask the server itself which DATA it takes."""
    kept: list[bytes] = []
    with socket.create_connection((server.host, server.port), timeout=10) as sock:
        with sock.makefile("rb") as replies:

            def code() -> bytes:
                while (line := replies.readline())[3:4] == b"-":
                    continue
                return line[:3]

            code()
            for command in commands:
                head, crlf, content = command.partition(b"\r\n")
                sock.sendall(head + b"\r\n")
                taken = code() == b"354"
                if crlf and taken:
                    sock.sendall(content + b"\r\n")
                    code()
                kept.append(command if taken else head)
    return kept


def test_the_quick_way_is_taken_by_smtplib(server):
    """Or the benchmarks measure something else."""
    quick = []

    class Watched(SMTPSession):
        def _answer_quickly(self, data):
            left = super()._answer_quickly(data)
            quick.append((bytes(data[:4]), not left))
            return left

    async def main() -> None:
        loop = asyncio.get_running_loop()
        from lazr_smtptest._smtp.context import Delivery
        from lazr_smtptest.server import Server

        async def eventual(envelope, raw):
            return "250 OK"

        delivery = Delivery(eventual, lambda envelope, raw: "250 OK")
        listening = await loop.create_server(
            lambda: Watched(session_context(Server(), delivery, range(9)), loop=loop),
            "127.0.0.1",
            0,
        )
        port = listening.sockets[0].getsockname()[1]

        class Where:
            host = "127.0.0.1"

        where = Where()
        where.port = port

        def send_one() -> None:
            with connected(where) as client:
                send(client, "hello")

        await asyncio.to_thread(send_one)
        listening.close()

    asyncio.run(main())
    assert [verb for verb, answered in quick if answered] == [b"mail", b"rcpt", b"data"]


def test_a_log_at_info_gets_every_command(caplog):
    caplog.set_level(logging.INFO, "mail.log")
    with QueueController() as controller:
        with connected(controller) as client:
            send(client, "hello")
        assert controller.queue.get_nowait()["subject"] == "hello"
        text = caplog.text.lower()
        for verb in ("mail from:<kim@example.com>", "rcpt to:<lee@example.com>", "data"):
            assert f">> b'{verb}" in text


def test_the_insides_that_are_used_exist():
    """Fails when aiosmtpd or asyncio change what is used beyond their documents."""
    here = "".join(map(inspect.getsource, (auth, connection, commands, session)))
    for name in INSIDES["aiosmtpd.smtp"]:
        assert hasattr(aiosmtpd.smtp, name)
        assert name in here
    for name in INSIDES["asyncio.StreamReader"]:
        assert f"stream.{name}" in here
    reader = asyncio.StreamReader.__new__(asyncio.StreamReader)
    loop = asyncio.new_event_loop()
    try:
        reader = asyncio.StreamReader(loop=loop)
        for name in INSIDES["asyncio.StreamReader"]:
            assert hasattr(reader, name)
        assert reader._waiter is None
        assert reader._buffer == b""
        protocol = aiosmtpd.smtp.SMTP(object(), hostname="h", loop=loop)
        protocol._cb_client_connected(reader, None)
        for name in INSIDES["aiosmtpd.smtp.SMTP"]:
            assert hasattr(protocol, name), name
            assert re.search(rf"(self\.|super\(\)\.|def ){name}\b", here), name
        assert protocol._handle_hooks == {}
        assert protocol._timeout_handle is None
    finally:
        loop.close()


def test_limits_of_one_session_are_not_those_of_another(server):
    """In aiosmtpd, EHLO in one session changes them for all, again and again."""
    with connected(server) as client:
        for _ in range(100):
            client.ehlo()
        # 512 octets (RFC 5321, 4.5.3.1.4), and what the extensions add.
        code, _ = client.docmd("MAIL", "FROM:<kim@example.com> " + "X" * 1300)
        assert code == 500


def test_a_silent_session_is_ended():
    """After five minutes, which pass at once: the time is what we say it is."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        from lazr_smtptest.server import Server

        real, passed = loop.time, 0.0
        loop.time = lambda: real() + passed
        listening = await loop.create_server(
            lambda: SMTPSession(session_context(Server()), loop=loop), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        await reader.readline()
        for _ in range(3):  # each command begins the time anew
            passed += 200.0
            writer.write(b"NOOP\r\n")
            assert (await reader.readline()).startswith(b"250")
        passed += 301.0
        rest = await reader.read()
        writer.close()
        listening.close()
        return rest

    assert asyncio.run(main()) == b"421 4.4.2 Error: timeout exceeded\r\n"


def test_ehlo_is_answered_in_one_piece(server):
    with socket.create_connection((server.host, server.port), timeout=10) as sock:
        assert sock.recv(1000).startswith(b"220 ")
        sock.sendall(b"EHLO client.example\r\n")
        reply = sock.recv(1000)
        assert reply.endswith(b"250 HELP\r\n")
        assert reply.count(b"\r\n") >= 4


@pytest.mark.parametrize("uvloop", [False, True, None])
def test_either_event_loop(uvloop):
    if uvloop:
        pytest.importorskip("uvloop", reason="uvloop is an extra")
    with QueueController(uvloop=uvloop) as controller:
        with connected(controller) as client:
            send(client, "hello")
        assert controller.queue.get_nowait()["subject"] == "hello"
        with open(f"/proc/{controller.pid}/fd/0"):
            pass


def test_uvloop_that_is_not_there():
    try:
        import uvloop  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"lazr-smtptest\[speed\]"):
            QueueController(uvloop=True).start()


def test_replies_after_the_client_hung_up_harm_nobody(server):
    for _ in range(20):
        sock = socket.create_connection((server.host, server.port), timeout=10)
        sock.sendall(
            b"EHLO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n"
        )
        sock.close()
    with connected(server) as client:
        send(client, "alive")
    until(lambda: "alive" in [m["subject"] for m in server])


@pytest.mark.parametrize("uvloop", [False, None])
def test_the_rest_of_a_line_that_is_too_long_is_no_command(uvloop):
    with QueueController(uvloop=uvloop) as controller:
        address = (controller.host, controller.port)
        with socket.create_connection(address, timeout=10) as sock, sock.makefile("rb") as replies:
            replies.readline()
            sock.sendall(b"HELO x\r\n")
            assert replies.readline().startswith(b"250")
            sock.sendall(b"NOOP " + b"a" * 5000)
            # A whole command of another session: by then this much is read.
            with connected(controller) as client:
                client.noop()
            sock.sendall(b"MAIL FROM:<evil@example.com>\r\n")
            assert replies.readline() == b"500 5.5.2 Command line too long\r\n"
            sock.sendall(b"RCPT TO:<a@example.com>\r\n")
            assert replies.readline().startswith(b"503")


def test_ehlo_waits_for_a_client_that_does_not_read():
    with QueueController() as controller:
        with socket.create_connection((controller.host, controller.port), timeout=10) as sock:
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                for _ in range(400):
                    sock.sendall(b"EHLO x\r\n" * 10_000)
        with connected(controller) as client:
            send(client, "alive")
        assert controller.queue.get_nowait()["subject"] == "alive"


def test_help_lists_all_commands():
    with QueueController() as controller, connected(controller) as client:
        code, text = client.docmd("HELP")
        assert code == 214
        for verb in (b"DATA", b"EHLO", b"MAIL", b"RCPT", b"RSET"):
            assert verb in text.split()
