"""Handshakes that fail: the client sees the alert, and the session says why."""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import ssl
import warnings

import pytest
from helpers import until
from tls_client import LOGINS, assert_serves, ended, plain_socket, secured

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")


def remarks(session) -> list[str]:
    return [line.text for line in session.dialogue if line.speaker == "*"]


def test_no_version_in_common(server):
    context = server.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or the client itself would not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    for _ in range(10):
        with pytest.raises(ssl.SSLError) as caught, secured(server, context):
            pass
        assert caught.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
        # By then the test process can see it.
        session = server.sessions()[-1]
        assert (session.tls, session.ended) == (None, "dropped by the client")
        assert remarks(session) == [
            "TLS failed: the client has no TLS version in common with the server: "
            "[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol"
        ]
    assert len(server.sessions()) == 10
    assert_serves(server)


def test_no_cipher_in_common(server):
    context = server.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and the server has an EC key
    with pytest.raises(ssl.SSLError) as caught, secured(server, context):
        pass
    assert caught.value.reason.endswith("ALERT_HANDSHAKE_FAILURE")
    assert "no cipher in common" in remarks(server.sessions()[-1])[-1]


DISTRUST = {
    "untrusted": "the client does not trust the authority that signed the certificate: ",
    "expired": "the client does not accept the certificate: it has expired: ",
    "wrong-host": "the client does not accept the certificate: ",
}


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("variant", DISTRUST)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_client_that_does_not_accept_the_certificate(loop, mode, variant, version):
    tls = TLS(mode, variant=variant)
    with QueueController(tls=tls, auth=LOGINS, uvloop=loop) as controller:
        context = controller.client_context()
        context.maximum_version = ssl.TLSVersion[version]
        with pytest.raises(ssl.SSLCertVerificationError), secured(controller, context):
            pass
        session = controller.sessions()[-1]
        assert session.ended == "dropped by the client"
        assert session.tls is None
        (remark,) = remarks(session)
        assert remark.startswith(f"TLS failed: {DISTRUST[variant]}[SSL: ")
        assert "ALERT" in remark


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"EHLO client.example\r\n", "what the client sends is not TLS: "),
        (b"GET / HTTP/1.1\r\n\r\n", "the client speaks HTTP: "),
        (b"EHLO x\r\n" * 50_000, "what the client sends is not TLS: "),
    ],
)
def test_a_client_in_the_clear(implicit, said, why):
    with plain_socket(implicit) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(said)
        with contextlib.suppress(ConnectionError):
            while sock.recv(1000):
                pass
    session = ended(implicit)
    assert session.ended == "dropped by the client"
    assert remarks(session)[0].startswith(f"TLS failed: {why}[SSL: ")
    assert len(session.dialogue) == 1
    assert_serves(implicit)


def test_a_client_that_waits_for_a_greeting_in_the_clear(implicit):
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
        smtplib.SMTP(implicit.host, implicit.port, timeout=0.2)
    session = ended(implicit)
    assert session.ended == "dropped by the client"
    assert [line.text for line in session.dialogue] == [
        "TLS failed: the client ended the connection before the handshake was over"
    ]


@pytest.mark.parametrize("abruptly", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_client_that_leaves(implicit, sent, abruptly):
    with plain_socket(implicit) as sock:
        sock.sendall(sent)
        until(implicit.sessions)
        if abruptly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    session = ended(implicit)
    assert session.ended == "dropped by the client"
    assert len(session.dialogue) == 1
    assert session.dialogue[0].text.startswith("TLS failed: the client ended the connection")


def test_a_record_that_is_wrong(server):
    """After the handshake: what arrives was not encrypted with the key that was agreed on."""
    with secured(server) as client:
        with socket.socket(fileno=client.sock.fileno()) as sock:
            sock.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            sock.detach()
        with pytest.raises((ssl.SSLError, smtplib.SMTPServerDisconnected)):
            client.noop()
        client.close()
    session = ended(server)
    assert session.tls == "TLSv1.3"
    assert "TLS failed: " in remarks(session)[-1]
    assert_serves(server)


def test_a_client_that_does_not_close(server):
    """It has its alert; and the connection ends after a while, whatever it does."""
    assert_serves(server)
    folder = f"/proc/{server.pid}/fd"
    until(lambda: all(session.ended != "open" for session in server.sessions()))
    before = len(os.listdir(folder))
    with plain_socket(server) as sock:
        if server.server.tls.mode == "starttls":
            sock.recv(1000)
            sock.sendall(b"STARTTLS\r\n")
            sock.recv(1000)
        sock.sendall(b"\x16\x03\x01\x00\x05hello")
        assert sock.recv(1000)[:1] == b"\x15"
        assert sock.recv(1000) == b""
        assert server.sessions()[-1].ended == "dropped by the client"
        until(lambda: len(os.listdir(folder)) <= before)
