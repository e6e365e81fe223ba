"""TLS: both ways to begin it, what it forgets, and who trusts the certificate."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import pickle
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import START_METHODS, connected, send, subjects, until
from raw_client import RawClient

from lazr_smtptest import Controller, HandlerError, QueueController, QueueServer, Server
from lazr_smtptest.inbox import MessageQueue
from lazr_smtptest.tls import TLS

trustme = pytest.importorskip("trustme", reason="trustme is an extra")

LOOPS = [
    pytest.param(False, id="asyncio"),
    pytest.param(
        True,
        id="uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="uvloop is an extra"
        ),
    ),
]
MODES = ["starttls", "implicit"]
LOGINS = {"kim": "a secret"}

#: Of OpenSSL's x509_vfy.h.
CERTIFICATE_HAS_EXPIRED, NO_ISSUER_CERTIFICATE, HOSTNAME_MISMATCH = 10, 20, 62

GARBAGE = b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def running_starttls(loop: bool) -> Iterator[QueueController]:
    with QueueController(tls="starttls", auth=LOGINS, uvloop=loop) as controller:
        yield controller


@pytest.fixture(scope="module")
def running_implicit(loop: bool) -> Iterator[QueueController]:
    with QueueController(tls="implicit", uvloop=loop) as controller:
        yield controller


@pytest.fixture
def starttls(running_starttls: QueueController) -> QueueController:
    running_starttls.reset()
    return running_starttls


@pytest.fixture
def implicit(running_implicit: QueueController) -> QueueController:
    running_implicit.reset()
    return running_implicit


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, starttls: QueueController, implicit: QueueController
) -> QueueController:
    return {"starttls": starttls, "implicit": implicit}[request.param]


@contextlib.contextmanager
def secured(controller: Any, context: ssl.SSLContext | None = None) -> Iterator[smtplib.SMTP]:
    """Give a client that is connected, and under TLS."""
    context = context or controller.client_context()
    where = (controller.host, controller.port, "client.example")
    if controller.server.tls.mode == "implicit":
        with smtplib.SMTP_SSL(*where, timeout=10, context=context) as client:
            yield client
    else:
        with smtplib.SMTP(*where, timeout=10) as client:
            assert client.starttls(context=context)[0] == 220
            yield client


class TLSClient(RawClient):
    """Sends just the octets it is told to, in TLS or in the clear."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._host, self._context = controller.host, controller.client_context()

    def secure(self) -> None:
        self._replies.close()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._host)
        self._replies = self.sock.makefile("rb")

    def starttls(self) -> None:
        assert self.command(b"STARTTLS").code == 220
        self.secure()

    def rest(self) -> bytes:
        """Give what the server says until it hangs up."""
        with contextlib.suppress(ConnectionResetError):
            return self._replies.read()
        return b""


@contextlib.contextmanager
def plain_socket(controller: Any) -> Iterator[socket.socket]:
    with socket.create_connection((controller.host, controller.port), timeout=10) as sock:
        yield sock


def versions(**limits: Any) -> Callable[[Any], ssl.SSLContext]:
    def make(controller: Any) -> ssl.SSLContext:
        context = controller.client_context()
        for name, version in limits.items():
            setattr(context, name, version)
        return context

    return make


def assert_serves(controller: Any) -> None:
    """See to it that whatever has happened did no harm."""
    with secured(controller) as client:
        send(client, "alive")
    assert "alive" in subjects(controller)


def ended(controller: Any) -> Any:
    """Give the last session, once it has ended."""
    return until(lambda: [s for s in controller.sessions()[-1:] if s.ended != "open"])[0]


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
    # Neither event loop sends OpenSSL's alert: it just hangs up.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with secured(server, context):
            pass
    if server.server.tls.mode == "starttls":
        session = ended(server)
        assert any("UNSUPPORTED_PROTOCOL" in line.text for line in session.dialogue)
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


# Files of your own.


class Files:
    """A certificate for localhost, in files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("localhost")
        self.ca = folder / "my-ca.pem"
        self.cert = folder / "my-cert.pem"
        self.key = folder / "my-key.pem"
        self.both = folder / "my-both.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key)
        leaf.private_key_and_cert_chain_pem.write_to_path(self.both)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("as_path", [str, Path])
def test_own_files(files, mode, as_path):
    tls = TLS(
        mode,
        certfile=as_path(files.cert),
        keyfile=as_path(files.key),
        ca_file=as_path(files.ca),
    )
    with QueueController(tls=tls) as controller:
        assert controller.ca_file == str(files.ca)
        assert_serves(controller)
        with secured(controller, ssl.create_default_context(cafile=files.ca)) as client:
            send(client, "hello")
        assert subjects(controller) == ["hello"]


def test_one_own_file_for_both(files):
    tls = TLS("implicit", certfile=files.both, ca_file=files.ca)
    with QueueController(tls=tls) as controller:
        assert_serves(controller)


def test_an_own_certificate_is_trusted_itself(files):
    tls = TLS(certfile=files.cert, keyfile=files.key)
    with QueueController(tls=tls) as controller:
        assert controller.ca_file == str(files.cert)
        assert_serves(controller)
        with pytest.raises(ssl.SSLCertVerificationError):
            with secured(controller, ssl.create_default_context()):
                pass


@pytest.mark.parametrize("start_method", START_METHODS)
def test_own_files_with_every_start_method(files, start_method):
    tls = TLS(certfile=files.both, ca_file=files.ca)
    with QueueController(tls=tls, start_method=start_method) as controller:
        assert_serves(controller)


def start_fails(tls: TLS, kind: type[OSError], name: object) -> None:
    controller = QueueController(tls=tls)
    with pytest.raises(kind) as caught:
        controller.start()
    assert Path(str(name)).name in str(caught.value)
    assert not controller.is_running
    assert controller.pid is None
    controller.stop()


@pytest.mark.parametrize("missing", ["cert", "key", "both"])
def test_a_file_that_is_missing(files, missing):
    path = getattr(files, missing)
    path.unlink()
    tls = (
        TLS(certfile=files.both)
        if missing == "both"
        else TLS(certfile=files.cert, keyfile=files.key)
    )
    start_fails(tls, FileNotFoundError, path)


def test_a_key_of_another_certificate(files):
    files.authority.issue_cert("localhost").private_key_pem.write_to_path(files.key)
    start_fails(TLS(certfile=files.cert, keyfile=files.key), ssl.SSLError, files.key)


def test_a_certificate_without_its_key(files):
    start_fails(TLS(certfile=files.cert), ssl.SSLError, files.cert)


@pytest.mark.parametrize("content", [b"", b"\0\1\2", GARBAGE], ids=["empty", "binary", "PEM"])
@pytest.mark.parametrize("which", ["cert", "key"])
def test_garbage(files, which, content):
    path = getattr(files, which)
    path.write_bytes(content)
    start_fails(TLS(certfile=files.cert, keyfile=files.key), ssl.SSLError, path)


def test_a_directory(files, tmp_path):
    start_fails(TLS(certfile=tmp_path), OSError, tmp_path)


@pytest.mark.parametrize("content", [None, b"", GARBAGE], ids=["missing", "empty", "garbage"])
def test_a_ca_file_that_is_not_right(files, content):
    if content is None:
        files.ca.unlink()
    else:
        files.ca.write_bytes(content)
    controller = QueueController(tls=TLS(certfile=files.both, ca_file=files.ca))
    with pytest.raises(OSError, match="my-ca.pem"):
        controller.client_context()


def test_a_key_with_a_passphrase_is_an_error_and_no_question(files):
    """OpenSSL would ask at the terminal, and wait for an answer."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    script = """if True:
        import sys
        from lazr_smtptest import QueueController
        from lazr_smtptest.tls import TLS
        try:
            QueueController(tls=TLS(certfile=sys.argv[1], keyfile=sys.argv[2])).start()
        except OSError as error:
            print(error)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, files.cert, files.key],
        stdin=subprocess.PIPE,  # nothing comes, and no end
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # without a terminal
    ) as process:
        try:
            process.wait(10)
            said = process.stdout.read().decode()
        finally:
            process.kill()
    assert "my-key.pem" in said
    assert "pass phrase" not in said


NO_TRUSTME = """if True:
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "trustme":
                raise ModuleNotFoundError("blocked", name=name)
    sys.meta_path.insert(0, Blocker())
    from lazr_smtptest import Controller, QueueController, Server
    from lazr_smtptest.tls import TLS
"""


def without_trustme(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_TRUSTME + script, *map(str, arguments)],
        capture_output=True,
        timeout=15,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("call", ["start()", "client_context()", "ca_file"])
def test_without_trustme_it_says_what_to_install(call):
    said = without_trustme(f"""
    controller = QueueController(tls="starttls")
    try:
        controller.{call}
    except ImportError as error:
        print(error.name, error)
    assert not controller.is_running
    """)
    assert said.startswith("trustme ")
    assert "pip install 'lazr-smtptest[tls]'" in said
    assert "certfile" in said


def test_without_trustme_own_files_do(files):
    said = without_trustme(
        """
    import smtplib
    with QueueController(tls=TLS(certfile=sys.argv[1], ca_file=sys.argv[2])) as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
            client.starttls(context=controller.client_context())
            client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hello\\n\\n")
        print(controller.queue.get_nowait().envelope.tls)
    """,
        files.both,
        files.ca,
    )
    assert said == "TLSv1.3\n"


# STARTTLS, the command.


def test_ehlo_tells_of_starttls_only_while_it_is_of_use(starttls):
    with connected(starttls) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client.starttls(context=starttls.client_context())
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.has_extn("pipelining")


def test_ehlo_under_implicit_tls(implicit):
    with secured(implicit) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] in (454, 500, 502, 503)
        send(client, "hello")
    assert subjects(implicit) == ["hello"]


@pytest.mark.parametrize("mode", MODES)
def test_ehlo_tells_of_no_auth_where_there_is_none(mode, loop):
    with QueueController(tls=mode, uvloop=loop) as controller:
        with secured(controller) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH", "PLAIN")[0] == 500


def test_starttls_twice(starttls):
    with TLSClient(starttls) as client:
        client.starttls()
        assert client.command(b"EHLO client.example").code == 250
        reply = client.command(b"STARTTLS")
        assert reply.code == 503
        assert reply.text.startswith("5.5.1 ")
        client.deliver(b"Subject: hello\r\n")
    assert starttls.queue.get_nowait().envelope.tls == "TLSv1.3"


def test_starttls_takes_no_argument(starttls):
    with TLSClient(starttls) as client:
        reply = client.command(b"STARTTLS now")
        assert reply.code == 501
        assert reply.text.startswith("5.5.4 ")
        client.deliver(b"Subject: in the clear\r\n")
        client.starttls()
        assert client.command(b"EHLO client.example").code == 250
        client.deliver(b"Subject: in TLS\r\n")
    assert [(m["subject"], m.envelope.tls) for m in starttls] == [
        ("in the clear", None),
        ("in TLS", "TLSv1.3"),
    ]


def test_starttls_in_lower_case(starttls):
    with TLSClient(starttls) as client:
        assert client.command(b"starttls").code == 220
        client.secure()
        assert client.command(b"NOOP").code == 250


def test_starttls_hidden(loop):
    with QueueController(tls="starttls", hide=["starttls"], uvloop=loop) as controller:
        with connected(controller) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            assert client.docmd("STARTTLS")[0] == 500
            with pytest.raises(smtplib.SMTPNotSupportedError):
                client.starttls()
            send(client, "hello")
        assert subjects(controller) == ["hello"]


def test_without_tls_there_is_no_starttls():
    with QueueController() as controller:
        with connected(controller) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            assert client.docmd("STARTTLS")[0] in (454, 500, 502)


def test_required(loop):
    with QueueController(tls=TLS(required=True), uvloop=loop) as controller:
        with TLSClient(controller) as client:
            for command in (
                b"MAIL FROM:<kim@example.com>",
                b"MAIL FROM:<kim@example.com> SIZE=10",
                b"RCPT TO:<lee@example.com>",
                b"DATA",
                b"HELO client.example",
                b"RSET",
                b"VRFY kim@example.com",
            ):
                reply = client.command(command)
                assert reply.code == 530, command
                if not command.startswith(b"HELO"):  # RFC 2034, 4
                    assert reply.text.startswith("5.7.0 "), command
            assert client.command(b"NOOP").code == 250
            assert client.command(b"EHLO client.example").code == 250
            # All together, too.
            client.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\n")
            assert [client.reply().code for _ in range(3)] == [530] * 3
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.deliver(b"Subject: hello\r\n").code == 250
            assert client.command(b"QUIT").code == 221
        (message,) = controller
        assert message["subject"] == "hello"
        assert message.envelope.tls == "TLSv1.3"
        assert controller.sessions()[0].ended == "QUIT"


def test_required_does_not_matter_with_implicit_tls():
    with QueueController(tls=TLS("implicit", required=True)) as controller:
        assert_serves(controller)


# What it forgets (RFC 3207, 4.2).


INJECTIONS = {
    "a command": b"NOOP\r\n",
    "many commands": b"NOOP\r\n" * 500,  # more than a stream's limit
    "an unfinished command": b"NOO",
    "a long line": b"X" * 3000,
    "a message": b"EHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<lee@example.com>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n",
    "the head of a message": b"EHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<evil@example.com>\r\nDATA\r\nSubject: evil\r\n",
    "a message without EHLO": b"MAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<lee@example.com>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n",
    "a login": b"AUTH PLAIN AGtpbQBhIHNlY3JldA==\r\n",
    "STARTTLS": b"STARTTLS\r\n",
    "QUIT": b"QUIT\r\n",
}


@pytest.mark.parametrize("injected", INJECTIONS.values(), ids=INJECTIONS.keys())
@pytest.mark.parametrize("before", [b"", b"NOOP\r\n", b"MAIL FROM:<kim@example.com>\r\n"])
def test_what_is_sent_with_starttls_is_discarded(starttls, before, injected):
    with TLSClient(starttls) as client:
        client.send(before + b"STARTTLS\r\n" + injected)
        for _ in range(before.count(b"\n")):
            assert client.reply().code == 250
        assert client.reply().code == 220
        client.secure()
        # The replies are to these commands, and to no others.
        assert client.command(b"STARTTLS").code == 503
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 503
        assert client.command(b"EHLO client.example").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503
        assert client.deliver(b"Subject: mine\r\n").code == 250
        assert client.command(b"QUIT").code == 221
        assert client.rest() == b""
    (message,) = starttls
    assert message.raw == b"Subject: mine\r\n"
    assert message.envelope[2:5] == ("client.example", "kim@example.com", ("lee@example.com",))
    assert message.envelope.auth_user is None


def test_what_is_sent_in_the_midst_of_starttls_is_discarded(starttls):
    stream = b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n"
    with TLSClient(starttls) as client:
        client.send_in_pieces(stream, [4, 9])
        assert client.reply().code == 220
        client.secure()
        assert client.command(b"EHLO client.example").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503


def test_the_session_begins_anew(starttls):
    with TLSClient(starttls) as client:
        assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
        session = starttls.sessions()[-1]
        assert (session.helo, session.auth_user) == ("client.example", "kim")
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 250
        client.starttls()
        session = starttls.sessions()[-1]
        assert session.tls == "TLSv1.3"
        assert session.helo is None
        assert session.auth_user is None
        for command in (
            b"DATA",
            b"RCPT TO:<lee@example.com>",
            b"MAIL FROM:<kim@example.com>",
            b"AUTH PLAIN AGtpbQBhIHNlY3JldA==",
        ):
            assert client.command(command).code == 503, command
        assert client.command(b"EHLO other.example").code == 250
        assert client.command(b"DATA").code == 503
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503
        client.deliver(b"Subject: one\r\n")
        assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
        client.deliver(b"Subject: two\r\n")
    assert [m.envelope[2:5] + m.envelope[8:10] for m in starttls] == [
        ("other.example", "kim@example.com", ("lee@example.com",), "TLSv1.3", None),
        ("other.example", "kim@example.com", ("lee@example.com",), "TLSv1.3", "kim"),
    ]
    session = starttls.sessions()[-1]
    assert (session.helo, session.auth_user) == ("other.example", "kim")


def test_what_it_was_allowed_is_forgotten():
    with QueueController(tls="starttls", auth=LOGINS, auth_required=True) as controller:
        with TLSClient(controller) as client:
            assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530


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
    with TLSClient(server) if server.server.tls.mode == "starttls" else _Implicit(server) as c:
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


class _Implicit(TLSClient):
    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self.secure()


def test_a_raw_client_under_implicit_tls_pipelines(implicit):
    with _Implicit(implicit) as client:
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
                client = clients.enter_context(contextlib.closing(_open(controller)))
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


def _open(controller: Controller) -> TLSClient:
    """Give a client that has said EHLO under TLS."""
    implicit = controller.server.tls.mode == "implicit"
    client = _Implicit(controller) if implicit else TLSClient(controller)
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


# Hooks.


class Particular(QueueServer):
    """Tells what it was given, and refuses TLS 1.2."""

    def handle_STARTTLS(self, server, session, envelope):
        self.queue.put(
            (
                session.ssl["ssl_object"].version(),
                session.host_name,
                session.peer is not None,
                envelope.mail_from,
                server.session is session,
            )
        )
        return session.ssl["cipher"][1] == "TLSv1.3"


@contextlib.contextmanager
def run(kind: type[QueueServer], loop: bool, **options: Any) -> Iterator[Controller]:
    server = kind("localhost", 0, MessageQueue(), **options)
    with Controller(server, uvloop=loop) as controller:
        yield controller


def test_the_hook_for_starttls(loop):
    with run(Particular, loop, tls="starttls") as controller:
        queue = controller.server.queue
        with connected(controller) as client:
            client.ehlo()
            client.mail("kim@example.com")  # to be forgotten
            client.starttls(context=controller.client_context())
            send(client, "hello")
        assert queue.get_nowait() == ("TLSv1.3", None, True, None, True)
        assert queue.get_nowait()["subject"] == "hello"
        context = versions(maximum_version=ssl.TLSVersion.TLSv1_2)(controller)
        with secured(controller, context) as client:
            assert client.docmd("EHLO", "client.example")[0] == 554
            assert client.docmd("MAIL", "FROM:<kim@example.com>")[0] == 554
            assert client.docmd("QUIT")[0] == 221
        assert queue.get_nowait() == ("TLSv1.2", None, True, None, True)
        assert queue.empty()


class Raising(QueueServer):
    def handle_STARTTLS(self, server, session, envelope):
        raise LookupError("I have lost my list")


def test_a_hook_for_starttls_that_raises(loop):
    """The test is told; and the client gets a reply to what it sends, only."""
    with run(Raising, loop, tls="starttls") as controller:
        with TLSClient(controller) as client:
            client.starttls()
            client.send(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
            replies = client.rest().splitlines()
        assert len(replies) <= 3 or replies[2][3:4] == b"-"
        with pytest.raises(HandlerError, match="handle_STARTTLS raised LookupError"):
            controller.server.queue.get_nowait()


class Looking(QueueServer):
    """Says in its reply to MAIL what it knows of TLS."""

    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return f"250 2.1.0 {session.ssl and session.ssl['cipher'][1]}"


def test_hooks_see_tls_in_the_session(loop):
    with run(Looking, loop, tls="starttls") as controller:
        with TLSClient(controller) as client:
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 None"
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 TLSv1.3"
    with run(Looking, loop, tls="implicit") as controller:
        with _Implicit(controller) as client:
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 TLSv1.3"


# Values.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mode": "ssl"}, "mode must be 'starttls' or 'implicit', not 'ssl'"),
        ({"mode": None}, "mode must be"),
        ({"mode": "STARTTLS"}, "mode must be"),
        ({"variant": "revoked"}, "variant must be .*'wrong-host'.*not 'revoked'"),
        ({"variant": None}, "variant must be"),
        ({"keyfile": "key.pem"}, "keyfile needs a certfile"),
        ({"ca_file": "ca.pem"}, "ca_file needs a certfile"),
        ({"certfile": "cert.pem", "variant": "expired"}, "give no certfile"),
    ],
)
def test_values_that_cannot_be(arguments, text):
    with pytest.raises(ValueError, match=text):
        TLS(**arguments)


def test_a_server_takes_a_mode_or_a_value():
    assert Server(tls="implicit").tls == TLS("implicit")
    assert Server(tls=TLS(required=True)).tls == TLS("starttls", required=True)
    assert Server().tls is None
    with pytest.raises(ValueError, match="mode must be"):
        Server(tls="ssl")
    for value in (True, 5, ssl.create_default_context(), {"mode": "implicit"}):
        with pytest.raises(TypeError, match="tls must be a TLS, 'starttls' or 'implicit'"):
            Server(tls=value)


def test_only_the_mode_goes_without_a_name():
    with pytest.raises(TypeError):
        TLS("starttls", True)


def test_a_value_stays_as_it_is():
    tls = TLS("implicit", certfile=Path("cert.pem"))
    # A TypeError in Python 3.10, where slots do not go well with freezing.
    with pytest.raises((AttributeError, TypeError)):
        tls.mode = "starttls"
    assert tls.mode == "implicit"
    assert hash(tls) == hash(TLS("implicit", certfile=Path("cert.pem")))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_can_be_pickled(protocol):
    tls = TLS("implicit", required=True, certfile=Path("a.pem"), keyfile="b.pem", ca_file="c.pem")
    assert pickle.loads(pickle.dumps(tls, protocol)) == tls
    assert copy.deepcopy(tls) == tls
