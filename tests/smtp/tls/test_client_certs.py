"""Clients that show a certificate, or do not; and what is known of it."""

from __future__ import annotations

import contextlib
import datetime
import logging
import smtplib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import START_METHODS, send, subjects
from scripts import run_python
from tls_client import MODES, assert_serves, ended, plain_socket, secured

from lazr_smtptest import QueueController
from lazr_smtptest._parent.describe import session_lines
from lazr_smtptest._util import plain
from lazr_smtptest.tls import TLS

trustme = pytest.importorskip("trustme", reason="trustme is an extra")

VERSIONS = ["TLSv1_2", "TLSv1_3"]

#: What a client is told that shows no certificate, or one that is not trusted.
ALERTS = {
    ("TLSv1_2", "none"): "(?i)alert.handshake.failure",
    ("TLSv1_3", "none"): "(?i)alert.certificate.required",
    ("TLSv1_2", "untrusted"): "(?i)alert.unknown.ca",
    ("TLSv1_3", "untrusted"): "(?i)alert.unknown.ca",
    ("TLSv1_2", "expired"): "(?i)alert.certificate.expired",
    ("TLSv1_3", "expired"): "(?i)alert.certificate.expired",
}

REASONS = {
    "none": "the client has sent no certificate: [SSL: PEER_DID_NOT_RETURN_A_CERTIFICATE] "
    "peer did not return a certificate",
    "untrusted": "the client's certificate is not accepted: [SSL: CERTIFICATE_VERIFY_FAILED] "
    "certificate verify failed: unable to get local issuer certificate",
    "expired": "the client's certificate is not accepted: [SSL: CERTIFICATE_VERIFY_FAILED] "
    "certificate verify failed: certificate has expired",
}


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


def running(loop: bool, mode: str, client_cert: str) -> Iterator[QueueController]:
    with QueueController(tls=TLS(mode, client_cert=client_cert), uvloop=loop) as controller:
        yield controller


@pytest.fixture(scope="module")
def running_optional(loop: bool, mode: str) -> Iterator[QueueController]:
    yield from running(loop, mode, "optional")


@pytest.fixture(scope="module")
def running_required(loop: bool, mode: str) -> Iterator[QueueController]:
    yield from running(loop, mode, "required")


@pytest.fixture
def optional(running_optional: QueueController) -> QueueController:
    running_optional.reset()
    return running_optional


@pytest.fixture
def required(running_required: QueueController) -> QueueController:
    running_required.reset()
    return running_required


class Authority:
    """An authority of a user's own, whose clients' certificates the server is to trust."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "clients.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, **options: object) -> Callable[[ssl.SSLContext], None]:
        return self._ca.issue_cert(name, common_name=name, **options).configure_cert

    def expired(self, context: ssl.SSLContext) -> None:
        self.issue("kim@example.com", not_after=datetime.datetime(2001, 1, 1))(context)


def deliver(server: QueueController, context: ssl.SSLContext, subject: str = "hello") -> None:
    with secured(server, context) as client:
        send(client, subject)


def remarks(session) -> list[str]:
    return [line.text for line in session.dialogue if line.speaker == "*"]


# What is known of it.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("with_cert", "subject"),
    [
        (True, "CN=client@example.com"),
        ("kim@example.com", "CN=kim@example.com"),
        ("web1.example", "CN=web1.example"),
        ("Kim Müller, Sales", r"CN=Kim Müller\, Sales"),
    ],
)
def test_subject_is_on_envelope_and_session(optional, required, version, with_cert, subject):
    for server in (optional, required):
        context = server.client_context(with_cert=with_cert)
        context.maximum_version = ssl.TLSVersion[version]
        deliver(server, context)
        envelope = server.queue.get_nowait().envelope
        session = ended(server)
        assert envelope.client_cert_subject == session.client_cert_subject == subject
        assert envelope.tls == session.tls == version.replace("_", ".")
        assert remarks(session)[0] == (
            f"{session.tls} with {session.cipher}; the client's certificate is for {subject}"
        )
        description = session_lines(session)[0]
        assert description.endswith(f", with the certificate {plain(subject)}: QUIT")


def test_optional_means_that_none_will_do(optional):
    deliver(optional, optional.client_context())
    envelope, session = optional.queue.get_nowait().envelope, ended(optional)
    assert envelope.client_cert_subject is None
    assert session.client_cert_subject is None
    assert remarks(session)[0] == f"{session.tls} with {session.cipher}"


def test_sessions_do_not_share_one(optional):
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(secured(optional, optional.client_context(with_cert=name)))
            for name in ("kim@example.com", False, "lee@example.com")
        ]
        for number, client in enumerate(clients):
            send(client, number)
    found = [message.envelope.client_cert_subject for message in optional]
    assert found == ["CN=kim@example.com", None, "CN=lee@example.com"]


def test_it_is_not_asked_for_by_default(server):
    context = server.client_context()
    trustme.CA().issue_cert("kim@example.com").configure_cert(context)
    deliver(server, context)
    assert server.queue.get_nowait().envelope.client_cert_subject is None


def test_a_session_that_is_resumed_has_it_too():
    tls = TLS("implicit", client_cert="required", maximum_version="TLSv1.2")
    with QueueController(tls=tls) as controller:
        context = controller.client_context(with_cert=True)
        kept = None
        for is_resumed in (False, True):
            with plain_socket(controller) as sock:
                with context.wrap_socket(
                    sock, server_hostname=controller.host, session=kept
                ) as client:
                    assert client.recv(1000).startswith(b"220 ")
                    assert client.session_reused is is_resumed
                    kept = client.session
                    client.sendall(b"QUIT\r\n")
                    assert client.recv(1000).startswith(b"221 ")
        found = [session.client_cert_subject for session in controller.sessions()]
        assert found == ["CN=client@example.com"] * 2


@pytest.mark.parametrize("start_method", START_METHODS)
def test_every_way_to_start(start_method):
    tls = TLS(client_cert="required")
    with QueueController(tls=tls, start_method=start_method) as controller:
        deliver(controller, controller.client_context(with_cert=True))
        (message,) = controller
        (session,) = controller.sessions()
    assert message.envelope.client_cert_subject == "CN=client@example.com"
    assert session.client_cert_subject == "CN=client@example.com"


def test_nothing_is_logged_as_a_warning(required, caplog):
    """aiosmtpd warns of a server that requires a certificate."""
    deliver(required, required.client_context(with_cert=True))
    with pytest.raises((ssl.SSLError, smtplib.SMTPException)):
        deliver(required, required.client_context())
    ended(required)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_starttls_can_be_required_as_well():
    tls = TLS("starttls", required=True, client_cert="required")
    with QueueController(tls=tls) as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
            assert client.docmd("MAIL FROM:<kim@example.com>")[0] == 530
        deliver(controller, controller.client_context(with_cert=True))
        assert subjects(controller) == ["hello"]


# Handshakes that fail.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("client_cert", "shown"),
    [
        ("required", "none"),
        ("required", "untrusted"),
        ("required", "expired"),
        ("optional", "untrusted"),
        ("optional", "expired"),
    ],
)
def test_client_is_told_why(tmp_path, mode, loop, client_cert, shown, version):
    """Under TLS 1.3 it believes that all is well, until it reads the alert."""
    authority = Authority(tmp_path)
    tls = TLS(mode, client_cert=client_cert, client_ca_file=authority.file)
    with QueueController(tls=tls, uvloop=loop) as controller:
        context = controller.client_context()
        context.maximum_version = ssl.TLSVersion[version]
        if shown == "untrusted":
            trustme.CA().issue_cert("kim@example.com").configure_cert(context)
        elif shown == "expired":
            authority.expired(context)
        for _ in range(5):
            with pytest.raises(
                (ssl.SSLError, smtplib.SMTPServerDisconnected), match=ALERTS[version, shown]
            ):
                deliver(controller, context)
            # By then the test process can see it.
            session = controller.sessions()[-1]
            assert (session.tls, session.client_cert_subject) == (None, None)
            assert remarks(session) == [f"TLS failed: {REASONS[shown]}"]
            assert session.ended != "open"
        authority.issue("kim@example.com")(context)
        deliver(controller, context)
        assert subjects(controller) == ["hello"]


# Certificates that were not made here.


def test_an_authority_of_ones_own(tmp_path, mode):
    authority = Authority(tmp_path)
    tls = TLS(mode, client_cert="required", client_ca_file=authority.file)
    with QueueController(tls=tls) as controller:
        context = controller.client_context()
        authority.issue("kim@example.com", organization_name="Example")(context)
        deliver(controller, context)
        subject = controller.queue.get_nowait().envelope.client_cert_subject
    assert subject.startswith("CN=kim@example.com,OU=")
    assert subject.endswith(",O=Example")


def test_a_client_s_own_certificate_can_be_what_is_trusted(tmp_path):
    leaf = trustme.CA().issue_cert("kim@example.com", common_name="kim")
    trusted = tmp_path / "kim.pem"
    leaf.cert_chain_pems[0].write_to_path(trusted)
    with QueueController(tls=TLS(client_cert="required", client_ca_file=trusted)) as controller:
        context = controller.client_context()
        leaf.configure_cert(context)
        deliver(controller, context)
        assert subjects(controller) == ["hello"]
        with pytest.raises((ssl.SSLError, smtplib.SMTPException)):
            other = controller.client_context()
            trustme.CA().issue_cert("lee@example.com").configure_cert(other)
            deliver(controller, other)


def test_with_a_certificate_of_the_server_s_own(tmp_path):
    """The clients' certificates are made here all the same."""
    leaf = trustme.CA().issue_cert("localhost")
    certfile = tmp_path / "server.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(certfile)
    with QueueController(tls=TLS(certfile=certfile, client_cert="required")) as controller:
        assert_no_certificate(controller)
        deliver(controller, controller.client_context(with_cert=True))
        assert controller.ca_file == str(certfile)
        assert subjects(controller) == ["hello"]


def assert_no_certificate(controller: QueueController) -> None:
    with pytest.raises((ssl.SSLError, smtplib.SMTPException)):
        deliver(controller, controller.client_context())


@pytest.mark.parametrize("content", [None, b"", b"no PEM"], ids=["missing", "empty", "garbage"])
def test_a_client_ca_file_that_is_not_right(tmp_path, content):
    path = tmp_path / "clients.pem"
    if content is not None:
        path.write_bytes(content)
    controller = QueueController(tls=TLS(client_cert="optional", client_ca_file=path))
    with pytest.raises(OSError, match=r"cannot trust .*clients\.pem: .*; client_ca_file must"):
        controller.start()
    assert not controller.is_running


# What the controller has for clients.


def test_the_file_has_what_a_client_needs(required):
    path = Path(required.client_cert_file)
    assert path.read_text().count("-----BEGIN ") == 2
    assert path.stat().st_mode & 0o077 == 0
    assert required.client_cert_file == str(path)
    context = required.client_context()
    context.load_cert_chain(path)
    deliver(required, context)
    subject = required.queue.get_nowait().envelope.client_cert_subject
    assert subject == "CN=client@example.com"


def test_it_is_there_before_the_start():
    controller = QueueController(tls=TLS(client_cert="optional"))
    context = controller.client_context(with_cert=True)
    assert Path(controller.client_cert_file).exists()
    with controller:
        deliver(controller, context)
        assert subjects(controller) == ["hello"]


#: In a Python of its own, where there is none yet.
AT_ONCE = """
import threading
from concurrent.futures import ThreadPoolExecutor
from lazr_smtptest import TLS, QueueController

barrier = threading.Barrier(6)

def ask(controller):
    barrier.wait()
    return controller.ca_file, controller.client_cert_file

servers = [QueueController(tls=TLS(client_cert="required")) for _ in range(6)]
with ThreadPoolExecutor(6) as threads:
    print(len(set(threads.map(ask, servers))))
"""


def test_one_authority_for_all_threads():
    done = run_python(AT_ONCE)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_one_authority_for_all_clients(required):
    with QueueController(tls=TLS(client_cert="required")) as other:
        deliver(other, required.client_context(with_cert=True))
        assert subjects(other) == ["hello"]


def test_a_context_is_not_shared(optional):
    with_cert, without = optional.client_context(with_cert=True), optional.client_context()
    deliver(optional, without)
    deliver(optional, with_cert)
    found = [message.envelope.client_cert_subject for message in optional]
    assert found == [None, "CN=client@example.com"]


@pytest.mark.parametrize("with_cert", ["", "x" * 65, "ü" * 33, "line\nfeed", "\udcff"])
def test_names_that_no_certificate_can_have(optional, with_cert):
    with pytest.raises(ValueError, match="the name in a certificate must be printable, and"):
        optional.client_context(with_cert=with_cert)


@pytest.mark.parametrize("name", ["kim@lee@example.com", "kim,lee@example.com", "Kim (Lee)", "@a"])
def test_names_that_are_neither_addresses_nor_hosts(optional, name):
    deliver(optional, optional.client_context(with_cert=name))
    escaped = name.replace(",", "\\,")
    assert optional.queue.get_nowait().envelope.client_cert_subject == f"CN={escaped}"


def test_restart(tmp_path):
    with QueueController(tls="starttls") as controller:
        with pytest.raises(ValueError, match="asks for no certificate"):
            controller.client_context(with_cert=True)
        controller.restart(tls=TLS(client_cert="required"))
        assert_no_certificate(controller)
        deliver(controller, controller.client_context(with_cert=True))
        assert subjects(controller) == ["hello"]
        authority = Authority(tmp_path)
        controller.restart(tls=TLS(client_cert="required", client_ca_file=authority.file))
        context = controller.client_context()
        authority.issue("kim@example.com")(context)
        deliver(controller, context, "again")
        assert subjects(controller) == ["again"]
        controller.restart(tls="starttls")
        assert_serves(controller)
