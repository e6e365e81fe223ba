"""Sessions under TLS that end well or badly, and what is left of them."""

from __future__ import annotations

import contextlib
import logging
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import send, subjects, until
from tls_client import (
    MODES,
    ImplicitClient,
    TLSClient,
    assert_serves,
    ended,
    plain_socket,
    secured,
)

from lazr_smtptest import Controller, QueueController

pytest.importorskip("trustme", reason="trustme is an extra")


# Clients that do it wrong.


def test_a_plaintext_client_on_an_implicit_port(implicit, caplog):
    with plain_socket(implicit) as sock:
        sock.sendall(b"EHLO client.example\r\nMAIL FROM:<kim@example.com>\r\n")
        with contextlib.suppress(ConnectionResetError):
            while received := sock.recv(1000):
                assert not received.startswith(b"2")
    assert_serves(implicit)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_tls_client_on_a_plaintext_port(starttls):
    context = starttls.client_context()
    with pytest.raises(ssl.SSLError):
        smtplib.SMTP_SSL(starttls.host, starttls.port, timeout=10, context=context)
    assert_serves(starttls)


def test_a_plaintext_client_after_starttls(starttls, caplog):
    with TLSClient(starttls) as client:
        assert client.command(b"STARTTLS").code == 220
        client.send(b"EHLO client.example\r\n")
        assert b"250" not in client.rest()
    session = ended(starttls)
    assert session.ended == "dropped by the client"
    assert session.tls is None
    assert any(line.text.startswith("TLS failed") for line in session.dialogue)
    assert_serves(starttls)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("abruptly", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_client_that_leaves_in_the_handshake(server, caplog, sent, abruptly):
    with plain_socket(server) as sock:
        if server.server.tls.mode == "starttls":
            sock.recv(1000)
            sock.sendall(b"STARTTLS\r\n")
            assert sock.recv(1000).startswith(b"220")
        sock.sendall(sent)
        if abruptly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if server.server.tls.mode == "starttls":
        session = ended(server)
        assert session.ended == "dropped by the client"
        assert session.tls is None
    assert_serves(server)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("where", ["idle", "in a transaction", "in the content"])
def test_a_client_that_leaves_later(server, caplog, where):
    kind = TLSClient if server.server.tls.mode == "starttls" else ImplicitClient
    with kind(server) as c:
        if server.server.tls.mode == "starttls":
            c.starttls()
            assert c.command(b"EHLO client.example").code == 250
        if where == "in a transaction":
            assert c.command(b"MAIL FROM:<kim@example.com>").code == 250
        elif where == "in the content":
            c.begin()
            c.send(b"Subject: half\r\n")
    session = ended(server)
    assert session.ended == "dropped by the client"
    assert session.tls == "TLSv1.3"
    assert_serves(server)
    assert subjects(server) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_raw_client_under_implicit_tls_pipelines(implicit):
    with ImplicitClient(implicit) as client:
        client.send(
            b"MAIL FROM:<kim@example.com>\r\nRCPT TO:<lee@example.com>\r\nDATA\r\n"
            b"Subject: at once\r\n\r\n..\r\n.\r\nQUIT\r\n"
        )
        assert [client.reply().code for _ in range(5)] == [250, 250, 354, 250, 221]
        assert client.rest() == b""
    assert implicit.queue.get_nowait().raw == b"Subject: at once\r\n\r\n.\r\n"


# Ends.


@pytest.mark.parametrize("mode", MODES)
def test_stop_is_quick_with_sessions_open(mode, loop, caplog):
    with contextlib.ExitStack() as clients:
        controller = QueueController(tls=mode, uvloop=loop)
        controller.start()
        try:
            for number in range(8):
                client = clients.enter_context(contextlib.closing(opened(controller)))
                if number % 2:
                    client.begin()
                    client.send(b"Subject: half\r\n")
            # These two have yet to begin the handshake.
            clients.enter_context(plain_socket(controller))
            waiting = clients.enter_context(plain_socket(controller))
            if mode == "starttls":
                assert waiting.recv(1000).startswith(b"220 ")
                waiting.sendall(b"STARTTLS\r\n")
                assert waiting.recv(1000).startswith(b"220 ")
        finally:
            began = time.monotonic()
            controller.stop()
            elapsed = time.monotonic() - began
    assert elapsed < 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def opened(controller: Controller) -> TLSClient:
    """Give a client that has said EHLO under TLS."""
    implicit = controller.server.tls.mode == "implicit"
    client = ImplicitClient(controller) if implicit else TLSClient(controller)
    client.__enter__()
    if not implicit:
        client.starttls()
        assert client.command(b"EHLO client.example").code == 250
    return client


def descriptors(controller: Controller) -> int:
    return len(os.listdir(f"/proc/{controller.pid}/fd"))


def test_no_descriptors_are_left_open(server):
    assert_serves(server)
    before = until(lambda: _settled(server))
    for number in range(50):
        if number % 5 == 4:  # some leave in the midst of it
            with plain_socket(server) as sock:
                if server.server.tls.mode == "starttls":
                    sock.recv(1000)
                    sock.sendall(b"STARTTLS\r\n")
                    sock.recv(1000)
                sock.sendall(b"\x16\x03\x01")
        else:
            with secured(server) as client:
                send(client, number)
    assert len(subjects(server)) == 40
    until(lambda: descriptors(server) <= before)


def _settled(controller: Controller) -> int:
    """Give the number of descriptors once no session is open."""
    if any(session.ended == "open" for session in controller.sessions()):
        return 0
    return descriptors(controller)


TEMPORARY = """if True:
    import os, sys
    from lazr_smtptest import QueueController
    controller = QueueController(tls="implicit")
    controller.start()
    folder = os.path.dirname(controller.ca_file)
    if os.fork() == 0:
        sys.exit(0)  # with all that Python does at its end
    os.wait()
    print(folder, len(os.listdir(folder)) > 1, oct(os.stat(folder).st_mode & 0o777), flush=True)
    controller.stop()
    print(os.path.exists(folder))
"""


def test_files_are_removed_at_the_end_and_by_nobody_else():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TEMPORARY],
        check=True,
        timeout=15,
        capture_output=True,
        text=True,
    )
    folder, is_filled, mode, still_there = done.stdout.split()
    assert done.stderr == ""
    assert is_filled == "True"
    assert mode == "0o700"
    assert still_there == "True"
    assert Path(folder).is_absolute()
    assert not Path(folder).exists()
