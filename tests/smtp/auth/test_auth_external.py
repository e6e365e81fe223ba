"""EXTERNAL (RFC 4422, appendix A): who logs in is known by the certificate that was shown."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest
from auth_client import AuthClient, b64, plain, user
from helpers import START_METHODS, connected, send

from lazr_smtptest import QueueController, QueueServer
from lazr_smtptest.tls import TLS

trustme = pytest.importorskip("trustme", reason="trustme is an extra")

AUTH = {"kim": "CN=kim@example.com", "lee": "s3cret", "max": "CN=max"}
BOTH = ("EXTERNAL", "PLAIN")


class ExternalClient(AuthClient):
    """Has begun TLS, perhaps with a certificate, and said EHLO after it."""

    def __init__(self, controller: QueueController, with_cert: bool | str = False) -> None:
        super().__init__(controller)
        self._controller, self._with_cert = controller, with_cert

    def __enter__(self) -> ExternalClient:
        super().__enter__()
        assert self.command(b"STARTTLS").code == 220
        self._replies.close()
        context = self._controller.client_context(with_cert=self._with_cert)
        self.sock = context.wrap_socket(self.sock, server_hostname=self._controller.host)
        self._replies = self.sock.makefile("rb")
        self.features = self.command(b"EHLO client.example").text
        return self

    def external(self, name: str | bytes = "") -> Any:
        return self.command(b"AUTH EXTERNAL " + (b64(name) if name else b"="))


def running(auth: Any, client_cert: str = "optional", **options: Any) -> QueueController:
    mechanisms = options.pop("auth_mechanisms", BOTH)
    tls = TLS(client_cert=client_cert)
    return QueueController(tls=tls, auth=auth, auth_mechanisms=mechanisms, **options)


@pytest.fixture(scope="module")
def running_known() -> Iterator[QueueController]:
    with running(AUTH) as controller:
        yield controller


@pytest.fixture
def known(running_known: QueueController) -> QueueController:
    running_known.reset()
    return running_known


# When it is offered.


def test_it_is_offered_to_clients_with_a_certificate(known):
    with AuthClient(known) as client:
        assert "AUTH PLAIN\n" in client.command(b"EHLO client.example").text
        assert client.command(b"AUTH EXTERNAL =").code == 504
    with ExternalClient(known) as client:
        assert "AUTH PLAIN\n" in client.features
        assert client.external().code == 504
        assert client.command(b"AUTH PLAIN " + plain("lee", "s3cret")).code == 235
    with ExternalClient(known, "kim@example.com") as client:
        assert "AUTH EXTERNAL PLAIN\n" in client.features
        assert client.external().code == 235
    assert user(known) == "kim"


def test_it_is_offered_under_implicit_tls_at_once():
    tls = TLS("implicit", client_cert="required")
    with QueueController(tls=tls, auth=True, auth_mechanisms=["plain", "external"]) as controller:
        context = controller.client_context(with_cert=True)
        where = (controller.host, controller.port)
        with smtplib.SMTP_SSL(*where, timeout=10, context=context) as client:
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["PLAIN", "EXTERNAL"]
            assert client.docmd("AUTH EXTERNAL =")[0] == 235


def test_it_alone_leaves_nothing_to_offer_without_a_certificate():
    with running(AUTH, auth_mechanisms=["EXTERNAL"], auth_required=True) as controller:
        with connected(controller) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH EXTERNAL =")[0] == 504
            assert client.docmd("MAIL FROM:<kim@example.com> AUTH=<>")[0] == 530
        with ExternalClient(controller) as client:
            assert "AUTH" not in client.features
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
        with ExternalClient(controller, "kim@example.com") as client:
            assert "AUTH EXTERNAL\n" in client.features
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
            assert client.external().code == 235
            assert client.deliver(b"Subject: hello\r\n").code == 250
        envelope = controller.queue.get_nowait().envelope
        assert (envelope.auth_user, envelope.client_cert_subject) == ("kim", "CN=kim@example.com")


def test_the_parameter_of_mail_is_there_where_auth_is_offered():
    with running(AUTH, auth_mechanisms=["EXTERNAL"]) as controller:
        for with_cert, code in ((False, 555), (True, 250)):
            with ExternalClient(controller, with_cert) as client:
                assert client.command(b"MAIL FROM:<kim@example.com> AUTH=<>").code == code


def test_it_is_not_offered_by_default():
    tls = TLS(client_cert="required")
    with QueueController(tls=tls, auth=AUTH) as controller:
        with ExternalClient(controller, True) as client:
            assert "EXTERNAL" not in client.features
            assert client.external().code == 504


class Own(QueueServer):
    async def auth_EXTERNAL(self, server, args):
        await server.push("535 5.7.8 Mine")


class OwnController(QueueController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Own(host, port, self.queue, **self.server_options)


def test_a_hook_comes_before_it():
    with OwnController(auth=AUTH, auth_mechanisms=["EXTERNAL"]) as controller:
        with AuthClient(controller) as client:
            reply = client.command(b"AUTH EXTERNAL =")
            assert reply == (535, "5.7.8 Mine")


# Who logs in.


@pytest.mark.parametrize(
    ("with_cert", "name", "code", "logged_in"),
    [
        ("kim@example.com", "", 235, "kim"),  # whose subject this is
        ("kim@example.com", "kim", 235, "kim"),
        ("kim@example.com", "max", 535, None),
        ("kim@example.com", "lee", 535, None),
        ("kim@example.com", "nobody", 535, None),
        ("kim@example.com", "kim@example.com", 535, None),
        ("max", "", 235, "max"),
        (True, "", 535, None),
        (True, "kim", 535, None),
    ],
)
def test_passwords_are_subjects(known, with_cert, name, code, logged_in):
    with ExternalClient(known, with_cert) as client:
        assert client.external(name).code == code
        client.deliver(b"Subject: hello\r\n")
    assert user(known) == known.queue.get_nowait().envelope.auth_user == logged_in
    assert known.sessions()[-1].failed_logins == (code == 535)


@pytest.mark.parametrize(
    ("with_cert", "name", "logged_in"),
    [
        (True, "", "client@example.com"),
        ("kim@example.com", "", "kim@example.com"),
        ("web1.example", "żółw", "żółw"),
    ],
)
def test_anybody_with_a_certificate(with_cert, name, logged_in):
    with running(True) as controller, ExternalClient(controller, with_cert) as client:
        assert client.external(name).code == 235
        assert user(controller) == logged_in


def test_a_certificate_without_a_common_name(tmp_path):
    """Its alternative name stands for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = TLS("implicit", client_cert="required", client_ca_file=tmp_path / "ca.pem")
    with QueueController(tls=tls, auth=True, auth_mechanisms=["EXTERNAL"]) as controller:
        context = controller.client_context()
        authority.issue_cert("lee@example.com").configure_cert(context)
        where = (controller.host, controller.port)
        with smtplib.SMTP_SSL(*where, timeout=10, context=context) as client:
            client.ehlo()
            assert client.docmd("AUTH EXTERNAL =")[0] == 235
        assert user(controller) == "lee@example.com"


def decide(mechanism: str, user: str, secret: str) -> bool | str:
    if user == "locked":
        return "535 5.7.8 This account is locked"
    return (mechanism, user, secret) in {
        ("EXTERNAL", "kim@example.com", "CN=kim@example.com"),
        ("EXTERNAL", "shop", "CN=kim@example.com"),
    }


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_function_gets_the_subject(start_method):
    with running(decide, start_method=start_method) as controller:
        for with_cert, name, reply in (
            ("kim@example.com", "", 235),
            ("kim@example.com", "shop", 235),
            ("kim@example.com", "lee", 535),
            (True, "shop", 535),
        ):
            with ExternalClient(controller, with_cert) as client:
                assert client.external(name).code == reply
        with ExternalClient(controller, True) as client:
            assert client.external("locked") == (535, "5.7.8 This account is locked")


# What is said.


def test_without_an_initial_response(known):
    with ExternalClient(known, "kim@example.com") as client:
        assert client.ask(b"AUTH EXTERNAL") == b""
        assert client.command(b"").code == 235
    with ExternalClient(known, "kim@example.com") as client:
        assert client.ask(b"AUTH external") == b""
        assert client.command(b64("kim")).code == 235
    with ExternalClient(known, "kim@example.com") as client:
        client.ask(b"AUTH EXTERNAL")
        assert client.command(b"*").code == 501
        assert client.external().code == 235


@pytest.mark.parametrize("response", [b"k\0im", b"\0", b"k\xffm"])
def test_what_is_malformed(known, response):
    with ExternalClient(known, "kim@example.com") as client:
        reply = client.external(response)
        assert reply == (501, "5.5.2 EXTERNAL takes a name in UTF-8, without NUL (RFC 4422)")
        assert client.command(b"AUTH EXTERNAL k").code == 501
        assert client.external().code == 235
    assert known.sessions()[-1].failed_logins == 0


def test_the_dialogue(known):
    with ExternalClient(known, "kim@example.com") as client:
        assert client.external("kim").code == 235
    lines = [line.text for line in known.sessions()[-1].dialogue if line.speaker == "C"]
    assert "AUTH EXTERNAL ***" in lines
    assert known.sessions()[-1].problems == ()


def test_it_may_be_for_tls_alone():
    """It goes with auth_require_tls, where AUTH is not there before."""
    with running(AUTH, "required", auth_require_tls=True) as controller:
        with AuthClient(controller) as client:
            assert client.command(b"AUTH EXTERNAL =").code == 538
        with ExternalClient(controller, "kim@example.com") as client:
            assert client.external().code == 235


def test_smtplib_by_a_method_of_ones_own(known):
    with connected(known) as client:
        client.starttls(context=known.client_context(with_cert="kim@example.com"))
        client.ehlo()
        assert client.auth("EXTERNAL", lambda challenge=None: "kim")[0] == 235
        send(client, "hello")
    assert known.queue.get_nowait().envelope.auth_user == "kim"


def test_restart():
    with QueueController(auth=AUTH) as controller:
        with pytest.raises(ValueError, match="EXTERNAL of auth_mechanisms needs a certificate"):
            controller.restart(auth_mechanisms=BOTH)
        controller.restart(auth_mechanisms=BOTH, tls=TLS(client_cert="optional"))
        with ExternalClient(controller, "kim@example.com") as client:
            assert client.external().code == 235
        with pytest.raises(ValueError, match="EXTERNAL of auth_mechanisms needs a certificate"):
            controller.restart(tls="starttls")
        with ExternalClient(controller, "kim@example.com") as client:
            assert client.external().code == 235
