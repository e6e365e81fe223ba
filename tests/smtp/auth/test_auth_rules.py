"""When a client may log in, when it has to, and what MAIL and EHLO say of it."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import smtplib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from auth_client import LOGINS, MECHANISMS, AuthClient, advertised, b64, plain, user
from helpers import connected, send, subjects
from raw_client import RawClient

from lazr_smtptest import QueueController

HAS_TRUSTME = importlib.util.find_spec("trustme") is not None

needs_trustme = pytest.mark.skipif(not HAS_TRUSTME, reason="trustme is an extra")


# When.


def unopened(controller: QueueController) -> AuthClient:
    client = AuthClient(controller)
    assert client.reply().code == 220
    return client


def test_before_ehlo(server):
    with contextlib.closing(unopened(server)) as client:
        assert client.command(b"AUTH PLAIN " + plain("kim", LOGINS["kim"])).code == 503
        assert client.command(b"EHLO client.example").code == 250
        assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235


def test_after_helo(server):
    with contextlib.closing(unopened(server)) as client:
        assert client.command(b"HELO client.example").code == 250
        assert client.command(b"AUTH PLAIN " + plain("kim", LOGINS["kim"])).code in (500, 502, 503)
        assert user(server) is None


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_second_time(server, client, mechanism):
    assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
    for line in (
        b"AUTH " + mechanism.encode(),
        b"AUTH PLAIN " + plain("lee", LOGINS["lee"]),
        b"AUTH",
    ):
        reply = client.command(line)
        assert reply.code == 503
        assert reply.text.startswith("5.5.1 ")
    assert user(server) == "kim"


def test_it_outlasts_rset_and_ehlo(server, client):
    assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
    assert client.command(b"RSET").code == 250
    assert client.command(b"EHLO other.example").code == 250
    assert client.command(b"AUTH PLAIN").code == 503
    client.deliver(b"Subject: hello\r\n")
    assert server.queue.get_nowait().envelope.auth_user == "kim"


def test_in_a_mail_transaction(server, client):
    """It must be refused with 503 (RFC 4954, 4), and harm nothing."""
    assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
    assert client.command(b"AUTH PLAIN " + plain("kim", LOGINS["kim"])).code == 503
    assert client.command(b"RCPT TO:<lee@example.com>").code == 250
    assert client.command(b"AUTH LOGIN").code == 503
    assert client.command(b"DATA").code == 354
    client.send(b"Subject: hello\r\n.\r\n")
    assert client.reply().code == 250
    assert server.queue.get_nowait().envelope.auth_user is None
    assert client.log_in("LOGIN", "kim", LOGINS["kim"]).code == 235


def test_sessions_do_not_share_a_login(server):
    with AuthClient(server) as one, AuthClient(server) as other:
        assert one.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
        other.deliver(b"Subject: other\r\n")
        one.deliver(b"Subject: one\r\n")
        assert other.log_in("PLAIN", "lee", LOGINS["lee"]).code == 235
        other.deliver(b"Subject: other again\r\n")
    assert [m.envelope.auth_user for m in server] == [None, "kim", "lee"]


def test_smtplib_logs_in_by_what_it_likes_best(server):
    with connected(server) as client:
        assert client.login("kim", LOGINS["kim"])[0] == 235
        send(client, "hello")
    assert server.queue.get_nowait().envelope.auth_user == "kim"
    assert "CRAM-MD5" in str(server.sessions()[-1].dialogue)
    with connected(server) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("kim", "wrong")
        assert client.login("lee", LOGINS["lee"])[0] == 235
    assert server.sessions()[-1].failed_logins >= 1


# MAIL's parameter AUTH (RFC 4954, 5).


@pytest.mark.parametrize("value", ["<>", "kim@example.com", "e+3Dmc2@example.com", ""])
@pytest.mark.parametrize("logged_in", [False, True])
def test_the_parameter_of_mail(server, client, value, logged_in):
    if logged_in:
        assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
    if not value:
        assert client.command(b"MAIL FROM:<kim@example.com> AUTH=").code in (250, 501)
        return
    client.begin(mail_options=f"AUTH={value} SIZE=50")
    client.send(b"Subject: hello\r\n.\r\n")
    assert client.reply().code == 250
    envelope = server.queue.get_nowait().envelope
    assert set(envelope.mail_options) == {f"AUTH={value}", "SIZE=50"}
    # It is what the client says of the message's submitter, no login.
    assert envelope.auth_user == ("kim" if logged_in else None)


@pytest.mark.parametrize("value", ["a=b", "a+b", "+3d", "żółw", "a+"])
def test_the_parameter_of_mail_has_to_be_xtext(client, value):
    line = f"MAIL FROM:<kim@example.com> AUTH={value}".encode()
    assert client.command(line).code == 501
    client.begin()


def test_the_parameter_of_mail_only_once(client):
    assert client.command(b"MAIL FROM:<kim@example.com> AUTH=<> AUTH=<>").code == 501


def test_a_long_parameter_of_mail(server, client):
    """It may have 500 octets more than the command without it."""
    client.begin(mail_options="AUTH=" + "a" * 480 + "@example.com")
    client.send(b"Subject: hello\r\n.\r\n")
    assert client.reply().code == 250
    assert len(server.queue.get_nowait().envelope.mail_options[0]) == 497


def test_without_auth_there_is_no_such_parameter():
    with QueueController() as controller, RawClient(controller) as client:
        assert client.command(b"MAIL FROM:<kim@example.com> AUTH=<>").code == 555
        client.begin()


@needs_trustme
def test_before_auth_is_offered_there_is_no_such_parameter():
    with QueueController(auth=LOGINS, auth_require_tls=True, tls="starttls") as controller:
        with RawClient(controller) as client:
            assert client.command(b"MAIL FROM:<kim@example.com> AUTH=<>").code == 555
            client.begin()


# What is offered.


def test_every_mechanism_is_advertised(server):
    assert advertised(server) == set(MECHANISMS)


def test_nobody_can_log_in_where_nobody_is_known():
    with QueueController(auth={}) as controller:
        assert advertised(controller) == set(MECHANISMS)
        with AuthClient(controller) as client:
            for mechanism in MECHANISMS:
                assert client.log_in(mechanism, "", "").code == 535
                assert client.log_in(mechanism, "kim", "kim").code == 535


@pytest.mark.parametrize("options", [{}, {"auth": LOGINS, "hide": ["AUTH"]}], ids=["none", "hid"])
def test_not_offered(options):
    with QueueController(**options) as controller:
        assert advertised(controller) is None
        with AuthClient(controller) as client:
            for line in (b"AUTH PLAIN", b"AUTH PLAIN " + plain("kim", LOGINS["kim"]), b"AUTH"):
                reply = client.command(line)
                assert reply.code == 500
                assert "not recognized" in reply.text
            client.deliver(b"Subject: hello\r\n")
        with connected(controller) as smtp, pytest.raises(smtplib.SMTPNotSupportedError):
            smtp.login("kim", LOGINS["kim"])
        assert subjects(controller) == ["hello"]


# Required.


@pytest.fixture(scope="module")
def strict() -> Iterator[QueueController]:
    with QueueController(auth=LOGINS, auth_required=True) as controller:
        yield controller


def test_required(strict):
    strict.reset()
    with AuthClient(strict) as client:
        for command in (
            b"MAIL FROM:<kim@example.com>",
            b"MAIL FROM:<kim@example.com> SIZE=10 BODY=8BITMIME",
            b"MAIL FROM:<>",
            b"RCPT TO:<lee@example.com>",
            b"DATA",
        ):
            reply = client.command(command)
            assert reply == (530, "5.7.0 Authentication required"), command
        client.send(b"MAIL FROM:<kim@example.com>\r\nRCPT TO:<lee@example.com>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(3)] == [530] * 3
        assert client.command(b"NOOP").code == 250
        assert client.command(b"RSET").code == 250
        assert client.log_in("PLAIN", "kim", "wrong").code == 535
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
        assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
        assert client.deliver(b"Subject: hello\r\n").code == 250
        assert client.command(b"QUIT").code == 221
    (message,) = strict
    assert (message["subject"], message.envelope.auth_user) == ("hello", "kim")


def test_required_of_a_client_that_says_helo(strict):
    with contextlib.closing(unopened(strict)) as client:
        assert client.command(b"HELO client.example").code == 250
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 530


def test_nothing_is_logged_as_a_warning(caplog):
    """aiosmtpd warns of logins without TLS, and of its own attributes."""
    caplog.set_level(logging.DEBUG)
    with QueueController(auth=LOGINS, auth_required=True) as controller:
        for mechanism in MECHANISMS:
            with AuthClient(controller) as client:
                assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
                assert client.log_in(mechanism, "kim", "wrong").code == 535
                assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235
                client.deliver(b"Subject: hello\r\n")
    names = {record.name for record in caplog.records}
    assert "mail.log" in names  # or nothing can have been found
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_nothing_warns_in_the_server_process():
    script = f"""if True:
        import smtplib
        from lazr_smtptest import QueueController
        if __name__ == "__main__":
            with QueueController(auth={{"kim": "secret"}}, auth_required=True) as controller:
                with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
                    client.ehlo()
                    client.user, client.password = "kim", "secret"
                    for name in {MECHANISMS[:2]}:
                        client.auth(name, getattr(client, "auth_" + name.lower()))
                        client.sendmail("kim@example.com", ["lee@example.com"], "Subject: x\\n\\n")
                        client.quit()
                        client.connect(controller.host, controller.port)
                        client.ehlo()
                print(len(list(controller)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=15
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


@needs_trustme
def test_only_under_tls():
    options = {"auth": LOGINS, "auth_require_tls": True, "auth_required": True}
    with QueueController(tls="starttls", **options) as controller:
        assert advertised(controller) is None
        with AuthClient(controller) as client:
            for line in (b"AUTH PLAIN", b"AUTH LOGIN " + b64("kim"), b"AUTH CRAM-MD5"):
                reply = client.command(line)
                assert reply.code == 538
                assert reply.text.startswith("5.7.11 ")
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
        with connected(controller) as client:
            client.starttls(context=controller.client_context())
            client.ehlo()
            assert set(client.esmtp_features["auth"].split()) == set(MECHANISMS)
            client.login("kim", LOGINS["kim"])
            send(client, "hello")
        (message,) = controller
        assert message.envelope.auth_user == "kim"
        assert message.envelope.tls


@needs_trustme
def test_only_under_tls_that_is_there_from_the_start():
    with QueueController(tls="implicit", auth=LOGINS, auth_require_tls=True) as controller:
        context = controller.client_context()
        with smtplib.SMTP_SSL(
            controller.host, controller.port, timeout=10, context=context
        ) as client:
            client.login("kim", LOGINS["kim"])
            send(client, "hello")
        assert controller.queue.get_nowait().envelope.auth_user == "kim"


def test_the_mapping_is_copied():
    auth = {"kim": "secret"}
    controller = QueueController(auth=auth)
    auth.clear()
    with controller, AuthClient(controller) as client:
        assert client.log_in("PLAIN", "kim", "secret").code == 235
