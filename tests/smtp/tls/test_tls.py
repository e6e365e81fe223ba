"""TLS: both ways to begin it, and who trusts the certificate."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from helpers import START_METHODS, connected, send, subjects
from tls_client import MODES, assert_serves, ended, secured, versions

from lazr_smtptest import Controller, QueueController, Server
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")

#: Of OpenSSL's x509_vfy.h.
CERTIFICATE_HAS_EXPIRED, NO_ISSUER_CERTIFICATE, HOSTNAME_MISMATCH = 10, 20, 62


# It works.


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_start(mode, start_method, loop):
    with QueueController(tls=mode, start_method=start_method, uvloop=loop) as controller:
        with secured(controller) as client:
            send(client, "hello", "...\r\n")
            version = client.sock.version()
            cipher = client.sock.cipher()[0]
        message = controller.queue.get_nowait()
        (session,) = controller.sessions()
    assert message["subject"] == "hello"
    assert message.raw == b"Subject: hello\r\n\r\n...\r\n"
    assert message.envelope.tls == version == "TLSv1.3"
    assert message.envelope.auth_user is None
    assert (session.tls, session.cipher, session.ended) == (version, cipher, "QUIT")
    assert session.messages == (message.envelope.sequence,)


@pytest.mark.parametrize(
    ("version", "name"),
    [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
    ids=["1.2", "1.3"],
)
def test_versions(server, version, name):
    context = versions(minimum_version=version, maximum_version=version)(server)
    with secured(server, context) as client:
        assert client.sock.version() == name
        send(client, "hello")
    message = server.queue.get_nowait()
    assert message.envelope.tls == name
    assert server.sessions()[-1].tls == name


def test_an_old_version_is_refused(server):
    context = server.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or the client itself would not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
        with secured(server, context):
            pass
    session = ended(server)
    assert session.dialogue[-1].text == (
        "TLS failed: the client has no TLS version in common with the server: "
        "[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol"
    )
    assert_serves(server)


def test_without_tls_the_envelope_says_so(starttls):
    with connected(starttls) as client:
        send(client, "in the clear")
    assert starttls.queue.get_nowait().envelope.tls is None
    session = starttls.sessions()[-1]
    assert (session.tls, session.cipher) == (None, None)


def test_a_big_message(server):
    line = b"0123456789" * 7 + b"\r\n"
    content = b"Subject: big\r\n\r\n" + line * (5_000_000 // len(line))
    with secured(server) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], content)
    assert server.queue.get_nowait().raw == content


def test_many_messages_in_one_session(server):
    with secured(server) as client:
        for number in range(200):
            send(client, number)
    messages = list(server)
    assert subjects(messages) == [str(number) for number in range(200)]
    assert {message.envelope.tls for message in messages} == {"TLSv1.3"}


def test_ten_sessions_at_once(server):
    together = threading.Barrier(10)
    failures = []

    def run(number: int) -> None:
        try:
            with secured(server) as client:
                together.wait(10)
                for step in range(5):
                    send(client, f"{number} {step}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = subjects(server)
    assert sorted(found) == sorted(f"{n} {step}" for n in range(10) for step in range(5))
    for number in range(10):  # in the order of each session
        own = [subject for subject in found if subject.split()[0] == str(number)]
        assert own == [f"{number} {step}" for step in range(5)]


def test_it_starts_again_with_the_same_certificate():
    with QueueController(tls="implicit") as controller:
        context = controller.client_context()
    with controller, secured(controller, context) as client:
        send(client, "again")
    assert subjects(controller) == ["again"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", ""])
def test_the_certificate_is_for_the_host(host):
    with QueueController(host, tls="implicit") as controller:
        assert_serves(controller)


# Who trusts it.


@pytest.mark.parametrize("mode", MODES)
def test_the_default_context_does_not_trust(mode):
    with QueueController(tls=mode) as controller:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            with secured(controller, ssl.create_default_context()):
                pass
        assert caught.value.verify_code == NO_ISSUER_CERTIFICATE
        assert_serves(controller)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("variant", "code"),
    [
        ("expired", CERTIFICATE_HAS_EXPIRED),
        ("wrong-host", HOSTNAME_MISMATCH),
        ("untrusted", NO_ISSUER_CERTIFICATE),
    ],
)
def test_variants_are_refused_by_the_client(mode, variant, code, loop):
    with QueueController(tls=TLS(mode, variant=variant), uvloop=loop) as controller:
        for _ in range(3):  # and the server goes on
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                with secured(controller):
                    pass
            assert caught.value.verify_code == code
        context = controller.client_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with secured(controller, context) as client:
            send(client, "whoever you are")
        assert subjects(controller) == ["whoever you are"]


def test_client_context_checks(server):
    context = server.client_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context is not server.client_context()  # to be changed at will


def test_ca_file_is_for_other_programs(server):
    script = """if True:
        import smtplib, ssl, sys
        host, port, mode = sys.argv[1:]
        context = ssl.create_default_context()
        if mode == "implicit":
            client = smtplib.SMTP_SSL(host, int(port), timeout=10, context=context)
        else:
            client = smtplib.SMTP(host, int(port), timeout=10)
            client.starttls(context=context)
        client.sendmail("kim@example.com", ["lee@example.com"], "Subject: elsewhere\\n\\n")
        client.quit()
    """
    command = [sys.executable, "-c", script, server.host, str(server.port), server.server.tls.mode]
    subprocess.run(command, check=True, env={"SSL_CERT_FILE": server.ca_file}, timeout=15)
    message = server.queue.get_nowait()
    assert message["subject"] == "elsewhere"
    assert message.envelope.tls == "TLSv1.3"


def test_client_context_can_be_had_before_start_and_after_stop():
    controller = QueueController(tls="starttls")
    before = controller.client_context()
    assert Path(controller.ca_file).read_text().startswith("-----BEGIN CERTIFICATE-----")
    with controller, secured(controller, before) as client:
        send(client, "hello")
    assert controller.client_context().get_ca_certs() == before.get_ca_certs()


def test_one_authority_for_all_servers():
    with QueueController(tls="implicit") as one, QueueController(tls="starttls") as other:
        assert one.ca_file == other.ca_file
        with secured(one, other.client_context()) as client:
            send(client, "hello")
        assert subjects(one) == ["hello"]


def test_without_tls_there_is_no_client_context():
    controller = Controller(Server())
    with pytest.raises(ValueError, match="no TLS"):
        controller.client_context()
    with pytest.raises(ValueError, match="no TLS"):
        _ = controller.ca_file
