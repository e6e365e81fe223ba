"""AUTH: every mechanism, who is refused, and that secrets stay secret."""

from __future__ import annotations

import contextlib
import hmac
import importlib.util
import logging
import smtplib
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.smtp import MISSING, AuthResult, LoginPassword, auth_mechanism
from helpers import connected, send, subjects
from raw_client import RawClient, Reply

from lazr_smtptest import Controller, HandlerError, QueueController, QueueServer, Server
from lazr_smtptest.inbox import MessageQueue

LOGINS = {
    "kim": "s3cret-of-kim",
    "lee": "s3cret=of lee, with \\ and : in it",
    "żółw": "hasło-🐢",
    "empty": "",
}
MECHANISMS = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"]

HAS_TRUSTME = importlib.util.find_spec("trustme") is not None
needs_trustme = pytest.mark.skipif(not HAS_TRUSTME, reason="trustme is an extra")


def b64(text: str | bytes) -> bytes:
    return b64encode(text.encode() if isinstance(text, str) else text)


def plain(user: str, password: str, identity: str = "") -> bytes:
    return b64(f"{identity}\0{user}\0{password}")


def xoauth2(user: str, token: str) -> bytes:
    return b64(f"user={user}\1auth=Bearer {token}\1\1")


class AuthClient(RawClient):
    """Logs in, octet by octet."""

    def ask(self, line: bytes) -> bytes:
        """Say something that is to be answered by a challenge; give that."""
        reply = self.command(line)
        assert reply.code == 334, reply
        return b64decode(reply.text, validate=True)

    def log_in(self, mechanism: str, user: str, password: str) -> Reply:
        """Log in, without an initial response; give the reply to it all."""
        name = mechanism.upper()
        challenge = self.ask(b"AUTH " + mechanism.encode())
        if name == "PLAIN":
            assert challenge == b""
            return self.command(plain(user, password))
        if name == "LOGIN":
            self.ask(b64(user))
            return self.command(b64(password))
        if name == "CRAM-MD5":
            digest = hmac.new(password.encode(), challenge, "md5").hexdigest()
            return self.command(b64(f"{user} {digest}"))
        assert name == "XOAUTH2"
        assert challenge == b""
        reply = self.command(xoauth2(user, password))
        return self.command(b"") if reply.code == 334 else reply


@pytest.fixture(scope="module")
def running() -> Iterator[QueueController]:
    with QueueController(auth=LOGINS) as controller:
        yield controller


@pytest.fixture
def client(server: QueueController) -> Iterator[AuthClient]:
    with AuthClient(server) as client:
        yield client


@contextlib.contextmanager
def run(kind: type[QueueServer], **options: Any) -> Iterator[Controller]:
    server = kind("localhost", 0, MessageQueue(), **options)
    with Controller(server) as controller:
        yield controller


def user(controller: Controller) -> str | None:
    """Give who the last client logged in as."""
    return controller.sessions()[-1].auth_user


def advertised(controller: Controller) -> set[str] | None:
    """Give the mechanisms that EHLO's reply tells of."""
    with connected(controller) as client:
        client.ehlo()
        return set(client.esmtp_features["auth"].split()) if client.has_extn("auth") else None


# Each mechanism.


@pytest.mark.parametrize("user_name", LOGINS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_logging_in(server, client, mechanism, user_name):
    reply = client.log_in(mechanism, user_name, LOGINS[user_name])
    assert reply == (235, "2.7.0 Authentication successful")
    client.deliver(b"Subject: one\r\n")
    client.deliver(b"Subject: two\r\n")
    assert [m.envelope.auth_user for m in server] == [user_name] * 2
    assert user(server) == user_name
    assert server.sessions()[-1].failed_logins == 0


WRONG = {
    "wrong password": ("kim", "wrong"),
    "other user's password": ("kim", LOGINS["lee"]),
    "password in other case": ("kim", LOGINS["kim"].upper()),
    "part of the password": ("kim", LOGINS["kim"][:-1]),
    "password and more": ("kim", LOGINS["kim"] + " "),
    "no password": ("kim", ""),
    "unknown user": ("nobody", LOGINS["kim"]),
    "user in other case": ("KIM", LOGINS["kim"]),
    "unknown user without a password": ("nobody", ""),
    "no user": ("", ""),
}


@pytest.mark.parametrize(("user_name", "password"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_wrong_ones_are_refused(server, client, mechanism, user_name, password):
    reply = client.log_in(mechanism, user_name, password)
    assert reply.code == 535
    assert reply.text.startswith("5.7.8 ")
    assert user(server) is None
    assert server.sessions()[-1].failed_logins == 1
    client.deliver(b"Subject: anonymous\r\n")
    assert server.queue.get_nowait().envelope.auth_user is None
    assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235
    client.deliver(b"Subject: kim's\r\n")
    assert server.queue.get_nowait().envelope.auth_user == "kim"
    session = server.sessions()[-1]
    assert (session.auth_user, session.failed_logins) == ("kim", 1)


def test_failed_logins_are_counted(server, client):
    for count, mechanism in enumerate(MECHANISMS * 3, 1):
        assert client.log_in(mechanism, "kim", "wrong").code == 535
        assert server.sessions()[-1].failed_logins == count
    assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235
    assert server.sessions()[-1].failed_logins == 12


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_name_of_a_mechanism_in_any_case(server, client, mechanism):
    assert client.log_in(mechanism.lower(), "kim", LOGINS["kim"]).code == 235
    assert user(server) == "kim"


def test_the_command_in_lower_case(server, client):
    assert client.command(b"auth plain " + plain("kim", LOGINS["kim"])).code == 235
    assert user(server) == "kim"


def test_an_unknown_mechanism(client):
    for name in (b"GSSAPI", b"CRAM__MD5", b"PLAINER", b"X"):
        reply = client.command(b"AUTH " + name)
        assert reply.code == 504
        assert reply.text.startswith("5.5.4 ")


@pytest.mark.parametrize("line", [b"AUTH", b"AUTH ", b"AUTH PLAIN a b", b"AUTH PLAIN AGEAYg== x"])
def test_a_wrong_number_of_words(client, line):
    assert client.command(line).code == 501
    assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235


INITIAL = {
    "PLAIN": plain("kim", LOGINS["kim"]),
    "PLAIN UTF-8": plain("żółw", LOGINS["żółw"]),
    "PLAIN no password": plain("empty", ""),
    "XOAUTH2": xoauth2("kim", LOGINS["kim"]),
    "XOAUTH2 UTF-8": xoauth2("żółw", LOGINS["żółw"]),
}


@pytest.mark.parametrize(("what", "response"), INITIAL.items(), ids=INITIAL.keys())
def test_an_initial_response(server, client, what, response):
    assert client.command(b"AUTH " + what.split()[0].encode() + b" " + response).code == 235
    assert user(server) in ("kim", "żółw", "empty")


def test_login_with_an_initial_response(server, client):
    client.ask(b"AUTH LOGIN " + b64("żółw"))
    assert client.command(b64(LOGINS["żółw"])).code == 235
    assert user(server) == "żółw"


def test_login_asks_in_the_words_that_clients_know(client):
    # Some take a NUL at their end, some do not; none looks.
    assert client.ask(b"AUTH LOGIN").rstrip(b"\0:").lower() in (b"user name", b"username")
    assert client.ask(b64("kim")).rstrip(b"\0:").lower() == b"password"
    assert client.command(b64("wrong")).code == 535


def test_plain_with_an_authorization_identity(server, client):
    """Who logs in is the one whose password it is (RFC 4616, 2)."""
    response = plain("kim", LOGINS["kim"], identity="lee")
    assert client.command(b"AUTH PLAIN " + response).code == 235
    assert user(server) == "kim"
    client.deliver(b"Subject: hello\r\n")
    assert server.queue.get_nowait().envelope.auth_user == "kim"


def test_plain_with_an_identity_and_a_wrong_password(server, client):
    for response in (
        plain("kim", LOGINS["lee"], identity="lee"),
        plain("kim", "", identity="kim"),
        plain("", LOGINS["kim"], identity="kim"),
    ):
        assert client.command(b"AUTH PLAIN " + response).code == 535
    assert user(server) is None


@pytest.mark.parametrize(
    "response",
    [b64("kim"), b64("kim\0s3cret-of-kim"), b64("\0kim\0s3cret-of-kim\0"), b64("\0" * 5), b"="],
)
@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
def test_plain_with_a_wrong_number_of_nuls(server, client, response, initial):
    if initial:
        reply = client.command(b"AUTH PLAIN " + response)
    else:
        client.ask(b"AUTH PLAIN")
        reply = client.command(response)
    assert reply.code == 501
    assert reply.text.startswith("5.5.2 ")
    assert user(server) is None
    assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235


BAD_BASE64 = [b"AGtpbQ", b"!!!!", b"AGtpbQBh IHNl", "żółw".encode(), b"AGtpbQ==AGtp"]


@pytest.mark.parametrize("response", BAD_BASE64)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_malformed_base64(server, client, mechanism, response):
    client.ask(b"AUTH " + mechanism.encode())
    assert client.command(response).code == 501
    assert client.command(b"NOOP").code == 250
    assert user(server) is None
    assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235


@pytest.mark.parametrize("response", [r for r in BAD_BASE64 if b" " not in r])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
def test_malformed_base64_in_an_initial_response(server, client, mechanism, response):
    assert client.command(b"AUTH " + mechanism.encode() + b" " + response).code == 501
    assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235
    assert user(server) == "kim"


def test_malformed_base64_for_the_second_answer(client):
    client.ask(b"AUTH LOGIN")
    client.ask(b64("kim"))
    assert client.command(b"!").code == 501
    assert client.log_in("LOGIN", "kim", LOGINS["kim"]).code == 235


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_cancelling(server, client, mechanism):
    client.ask(b"AUTH " + mechanism.encode())
    assert client.command(b"*").code == 501
    assert client.command(b"NOOP").code == 250
    session = server.sessions()[-1]
    assert (session.auth_user, session.failed_logins) == (None, 0)
    assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235


def test_cancelling_the_second_answer(client):
    client.ask(b"AUTH LOGIN")
    client.ask(b64("kim"))
    assert client.command(b"*").code == 501
    assert client.command(b"NOOP").code == 250


@pytest.mark.parametrize("octets", [b"\xff\xfe", b"kim\xff"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_octets_that_are_no_text(server, client, mechanism, octets):
    client.ask(b"AUTH " + mechanism.encode())
    if mechanism == "LOGIN":
        client.ask(b64(octets))
    answer = {
        "PLAIN": b"\0" + octets + b"\0" + octets,
        "LOGIN": octets,
        "CRAM-MD5": octets + b" 0123456789abcdef0123456789abcdef",
        "XOAUTH2": b"user=" + octets + b"\1auth=Bearer " + octets + b"\1\1",
    }[mechanism]
    reply = client.command(b64(answer))
    if mechanism == "XOAUTH2":
        assert reply.code == 334
        reply = client.command(b"")
    assert reply.code == 535
    assert server.sessions()[-1].failed_logins == 1
    assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235


def test_cram_md5_takes_no_initial_response(server, client):
    assert client.command(b"AUTH CRAM-MD5 " + b64("kim 0123")).code == 501
    assert client.log_in("CRAM-MD5", "kim", LOGINS["kim"]).code == 235


def test_cram_md5_challenges(client):
    challenges = set()
    for _ in range(10):
        challenge = client.ask(b"AUTH CRAM-MD5")
        assert challenge.startswith(b"<")
        assert challenge.endswith(b"@localhost>")
        assert client.command(b"*").code == 501
        challenges.add(challenge)
    assert len(challenges) == 10


def test_cram_md5_is_not_replayed(client):
    def answer(challenge: bytes) -> bytes:
        return b64(f"kim {hmac.new(LOGINS['kim'].encode(), challenge, 'md5').hexdigest()}")

    old = answer(client.ask(b"AUTH CRAM-MD5"))
    assert client.command(b"*").code == 501
    client.ask(b"AUTH CRAM-MD5")
    assert client.command(old).code == 535
    digest = answer(client.ask(b"AUTH CRAM-MD5"))
    assert client.command(b64(b64decode(digest).upper().replace(b"KIM", b"kim"))).code == 235


@pytest.mark.parametrize("response", ["", "kim", "kim ", " ", "kim 0 0", "kim\0" + "0" * 32])
def test_cram_md5_in_a_wrong_format(server, client, response):
    client.ask(b"AUTH CRAM-MD5")
    assert client.command(b64(response)).code in (501, 535)
    assert user(server) is None
    assert client.log_in("CRAM-MD5", "kim", LOGINS["kim"]).code == 235


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
def test_xoauth2_says_why_in_a_challenge(server, client, initial):
    response = xoauth2("kim", "expired-token")
    if initial:
        why = client.ask(b"AUTH XOAUTH2 " + response)
    else:
        client.ask(b"AUTH XOAUTH2")
        why = client.ask(response)
    assert b'"status": "401"' in why
    assert b"expired-token" not in why
    assert client.command(b"").code == 535
    assert server.sessions()[-1].failed_logins == 1
    assert client.command(b"AUTH XOAUTH2 " + xoauth2("kim", LOGINS["kim"])).code == 235


def test_xoauth2_scheme_in_any_case(server, client):
    response = b64(f"user=kim\1auth=bearer {LOGINS['kim']}\1\1")
    assert client.command(b"AUTH XOAUTH2 " + response).code == 235


@pytest.mark.parametrize(
    "response",
    [
        "",
        "kim",
        "user=kim\1\1",
        "auth=Bearer s3cret-of-kim\1\1",
        "user=kim\1auth=s3cret-of-kim\1\1",
        "user=kim\1auth=Basic s3cret-of-kim\1\1",
        "user=kim auth=Bearer s3cret-of-kim",
        "user=kim\1auth=Bearer\1\1",
        "user=empty\1auth=Basic\1\1",
        "user\1auth\1\1",
        "\1\1",
        "\0kim\0s3cret-of-kim",
    ],
)
def test_xoauth2_in_a_wrong_format(server, client, response):
    client.ask(b"AUTH XOAUTH2")
    reply = client.command(b64(response))
    if reply.code == 334:
        reply = client.command(b"")
    assert reply.code in (501, 535)
    assert user(server) is None
    assert client.log_in("XOAUTH2", "kim", LOGINS["kim"]).code == 235


LONG = "t0ken" * 600


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2"])
def test_long_secrets(mechanism, initial):
    """Tokens of 3,000 octets are common; RFC 4954, 4 has lines of up to 12,288."""
    response = (plain if mechanism == "PLAIN" else xoauth2)("kim", LONG)
    assert len(response) < 12_288 - 20
    with QueueController(auth={"kim": LONG}) as controller, AuthClient(controller) as client:
        if initial:
            reply = client.command(f"AUTH {mechanism} ".encode() + response)
        else:
            client.ask(b"AUTH " + mechanism.encode())
            reply = client.command(response)
        assert reply.code == 235
        client.deliver(b"Subject: hello\r\n")
        assert controller.queue.get_nowait().envelope.auth_user == "kim"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_an_answer_that_is_far_too_long(server, client, mechanism):
    client.ask(b"AUTH " + mechanism.encode())
    reply = client.command(b"QUFB" * 10_000)
    assert 500 <= reply.code < 600
    assert client.command(b"NOOP").code == 250
    assert user(server) is None
    assert "QUFBQUFB" not in str(server.sessions())


def test_an_answer_that_is_far_too_long_and_comes_in_pieces(server, client):
    client.ask(b"AUTH LOGIN")
    client.send(b"QUFB" * 10_000)
    with connected(server) as other:  # by then this much is read
        other.noop()
    client.send(b"\r\n")
    assert 500 <= client.reply().code < 600
    assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
    assert "QUFBQUFB" not in str(server.sessions())


# When.


def test_before_ehlo(server):
    with contextlib.closing(_unopened(server)) as client:
        assert client.command(b"AUTH PLAIN " + plain("kim", LOGINS["kim"])).code == 503
        assert client.command(b"EHLO client.example").code == 250
        assert client.log_in("PLAIN", "kim", LOGINS["kim"]).code == 235


def test_after_helo(server):
    with contextlib.closing(_unopened(server)) as client:
        assert client.command(b"HELO client.example").code == 250
        assert client.command(b"AUTH PLAIN " + plain("kim", LOGINS["kim"])).code in (500, 502, 503)
        assert user(server) is None


def _unopened(controller: Controller) -> AuthClient:
    client = AuthClient(controller)
    assert client.reply().code == 220
    return client


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
    with contextlib.closing(_unopened(strict)) as client:
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


# Mechanisms of one's own, as aiosmtpd's manual has them.


class Own(QueueServer):
    """Has mechanisms in each of the ways that there are."""

    async def auth_SESAME(self, server, args):
        answer = await server.challenge_auth("Say the word")
        if answer is MISSING:
            return AuthResult(success=False)
        if answer == b"open":
            return AuthResult(success=True, auth_data=LoginPassword(b"ali", answer))
        return AuthResult(success=False, handled=False)

    @auth_mechanism("X-Doormat")
    async def auth_key(self, server, args):
        if args[1:] == ["a2V5"]:
            return AuthResult(success=True, auth_data={"any": "thing"})
        return AuthResult(success=False, handled=False, message="535 5.7.8 Not that mat")

    async def auth_DOUBLE__BARRELLED(self, server, args):
        await server.push("454 4.7.0 I have a headache")
        return AuthResult(success=False, handled=True)


def test_methods_of_a_server():
    with run(Own) as controller:
        assert advertised(controller) >= {"SESAME", "X-DOORMAT", "DOUBLE-BARRELLED"}
        assert "XOAUTH2" not in advertised(controller)
        with AuthClient(controller) as client:
            assert client.ask(b"AUTH SESAME") == b"Say the word"
            assert client.command(b64("barley")).code == 535
            client.ask(b"AUTH SESAME")
            assert client.command(b"*").code == 501
            reply = client.command(b"AUTH X-DOORMAT bGFtcA==")
            assert reply == (535, "5.7.8 Not that mat")
            assert client.command(b"AUTH double-barrelled") == (454, "4.7.0 I have a headache")
            assert client.command(b"AUTH PLAIN " + plain("kim", "kim")).code == 535
            client.ask(b"AUTH SESAME")
            assert client.command(b64("open")).code == 235
            client.deliver(b"Subject: hello\r\n")
        assert controller.server.queue.get_nowait().envelope.auth_user == "ali"
        session = controller.sessions()[-1]
        assert (session.auth_user, session.failed_logins) == ("ali", 3)
        with AuthClient(controller) as client:
            assert client.command(b"AUTH x-doormat a2V5").code == 235
            client.deliver(b"Subject: hello\r\n")
        assert controller.server.queue.get_nowait().envelope.auth_user is None


def test_methods_of_a_server_beside_ours():
    with run(Own, auth=LOGINS, auth_required=True) as controller:
        assert advertised(controller) >= {"SESAME", *MECHANISMS}
        for mechanism in MECHANISMS:
            with AuthClient(controller) as client:
                assert client.log_in(mechanism, "kim", LOGINS["kim"]).code == 235
        with AuthClient(controller) as client:
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
            client.ask(b"AUTH SESAME")
            assert client.command(b64("open")).code == 235
            client.deliver(b"Subject: hello\r\n")
        assert controller.server.queue.get_nowait().envelope.auth_user == "ali"


def test_methods_of_a_server_are_enough_to_require_auth():
    with run(Own, auth_required=True) as controller, AuthClient(controller) as client:
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
        assert client.command(b"AUTH X-DOORMAT a2V5").code == 235
        assert client.deliver(b"Subject: hello\r\n").code == 250


class OwnPlain(QueueServer):
    """Has another idea of PLAIN."""

    async def auth_PLAIN(self, server, args):
        return AuthResult(success=True, auth_data=LoginPassword(b"anybody", b""))


def test_a_method_in_place_of_ours():
    with run(OwnPlain, auth=LOGINS) as controller, AuthClient(controller) as client:
        assert client.command(b"AUTH PLAIN").code == 235
        assert user(controller) == "anybody"


class OwnHook(QueueServer):
    """Answers every AUTH, but leaves LOGIN to others."""

    async def handle_AUTH(self, server, session, envelope, args):
        if args[0] == "LOGIN":
            return MISSING
        if args[1:] != ["letmein"]:
            return "535 5.7.8 Says the hook"
        session.authenticated = True
        session.auth_data = LoginPassword(b"guest", b"letmein")
        session.login_data = b"guest"
        return "235 2.7.0 Welcome, says the hook"


def test_a_hook():
    with run(OwnHook, auth={"kim": "letmein"}) as controller:
        with AuthClient(controller) as client:
            assert client.command(b"AUTH PLAIN nothing") == (535, "5.7.8 Says the hook")
            assert client.log_in("LOGIN", "kim", "wrong").code == 535
            assert client.command(b"AUTH plain letmein").text == "2.7.0 Welcome, says the hook"
            assert client.command(b"AUTH PLAIN letmein").code == 503
            client.deliver(b"Subject: hello\r\n")
        assert controller.server.queue.get_nowait().envelope.auth_user == "guest"
        session = controller.sessions()[-1]
        assert (session.auth_user, session.failed_logins) == ("guest", 2)
        with AuthClient(controller) as client:
            assert client.log_in("LOGIN", "kim", "letmein").code == 235
            assert user(controller) == "kim"


def test_a_hook_is_enough_to_offer_auth():
    with run(OwnHook) as controller, AuthClient(controller) as client:
        assert advertised(controller) >= {"LOGIN", "PLAIN"}
        assert client.command(b"AUTH PLAIN letmein").code == 235


class Broken(QueueServer):
    async def auth_BROKEN(self, server, args):
        raise LookupError("no such user table")


class BrokenHook(QueueServer):
    async def handle_AUTH(self, server, session, envelope, args):
        raise LookupError("no such user table")


@pytest.mark.parametrize(("kind", "name"), [(Broken, "auth_BROKEN"), (BrokenHook, "handle_AUTH")])
def test_one_that_raises(kind, name):
    with run(kind) as controller, AuthClient(controller) as client:
        assert client.command(b"AUTH BROKEN" if kind is Broken else b"AUTH PLAIN").code == 451
        with pytest.raises(HandlerError, match=f"{kind.__name__}.{name} raised LookupError"):
            controller.server.queue.get_nowait()
        assert client.command(b"RSET").code == 250


# Secrets.


SECRETS = {"kim": "hunter2-PaSsWoRd"}


def traces(secret: str, user_name: str = "kim") -> list[str]:
    """Give the ways in which a secret can be written."""
    bare = secret.rstrip("=")
    encoded = [b64(secret), plain(user_name, secret), xoauth2(user_name, secret)]
    # The last group of four depends on what follows.
    return [bare, *(text.decode()[: len(text) // 4 * 4 - 4] for text in encoded)]


CONVERSATIONS = {
    "PLAIN": [b"AUTH PLAIN", plain("kim", SECRETS["kim"])],
    "PLAIN, initial": [b"AUTH PLAIN " + plain("kim", SECRETS["kim"])],
    "plain, initial": [b"auth  plain  " + plain("kim", SECRETS["kim"])],
    "PLAIN, refused": [b"AUTH PLAIN " + plain("lee", SECRETS["kim"])],
    "PLAIN, too many NULs": [b"AUTH PLAIN " + b64("\0kim\0x\0hunter2-PaSsWoRd")],
    "PLAIN, too many words": [b"AUTH PLAIN x " + plain("kim", SECRETS["kim"])],
    "LOGIN": [b"AUTH LOGIN", b64("kim"), b64(SECRETS["kim"])],
    "LOGIN, refused": [b"AUTH LOGIN", b64("lee"), b64(SECRETS["kim"])],
    "LOGIN, not encoded": [b"AUTH LOGIN", b64("kim"), SECRETS["kim"].encode()],
    "PLAIN, not encoded": [b"AUTH PLAIN", b"\0kim\0" + SECRETS["kim"].encode()],
    "PLAIN, initial, not encoded": [b"AUTH PLAIN " + SECRETS["kim"].encode()],
    "XOAUTH2": [b"AUTH XOAUTH2", xoauth2("kim", SECRETS["kim"])],
    "XOAUTH2, initial": [b"AUTH XOAUTH2 " + xoauth2("kim", SECRETS["kim"])],
    "XOAUTH2, refused": [b"AUTH XOAUTH2 " + xoauth2("lee", SECRETS["kim"]), b""],
    "CRAM-MD5, initial": [b"AUTH CRAM-MD5 " + b64(SECRETS["kim"])],
    "unknown": [b"AUTH SESAME " + b64(SECRETS["kim"])],
    "a tab": [b"AUTH\tPLAIN " + plain("kim", SECRETS["kim"])],
    "a space in front": [b" AUTH PLAIN " + plain("kim", SECRETS["kim"])],
}


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "pipelined"])
@pytest.mark.parametrize("lines", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_secrets_stay_secret(caplog, lines, pipelined):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "mail.log")
    with QueueController(auth=SECRETS) as controller:
        with AuthClient(controller) as client:
            around = [b"NOOP", *lines, b"NOOP again", b"QUIT"]
            if pipelined:
                client.send(b"".join(line + b"\r\n" for line in around))
                while client.reply().code != 221:
                    continue
            else:
                replies = [client.command(line) for line in around]
                assert replies[-1].code == 221
        shown = "\n".join(
            [
                str(controller.sessions()),
                *(str(line) for line in controller.sessions()[-1].dialogue),
                repr(controller),
                repr(controller.server),
                caplog.text,
                *(f"{vars(record)}" for record in caplog.records),
            ]
        )
    shown += caplog.text
    assert "NOOP again" in caplog.text  # or there is no log to look at
    assert "NOOP again" in shown
    assert [trace for trace in traces(SECRETS["kim"]) if trace in shown] == []
    assert [trace for trace in traces(SECRETS["kim"], "lee") if trace in shown] == []


def test_cram_md5_answers_are_left_out(server, client):
    challenge = client.ask(b"AUTH CRAM-MD5")
    digest = hmac.new(LOGINS["kim"].encode(), challenge, "md5").hexdigest()
    answer = b64(f"kim {digest}")
    assert client.command(answer).code == 235
    dialogue = server.sessions()[-1].dialogue
    text = "\n".join(line.text for line in dialogue)
    assert answer.decode() not in text
    assert digest not in text
    assert "AUTH CRAM-MD5" in text
    assert [line.text for line in dialogue if line.speaker == "S"][-1].startswith("235 ")


def test_the_envelope_and_the_messages_have_no_secret():
    with QueueController(auth=SECRETS) as controller:
        with AuthClient(controller) as client:
            assert client.log_in("PLAIN", "kim", SECRETS["kim"]).code == 235
            client.deliver(b"Subject: hello\r\n")
        message = controller.queue.get_nowait()
    assert SECRETS["kim"] not in repr(message.envelope) + message.as_string()


class Nosy(QueueServer):
    """Looks for a secret in what hooks are given."""

    async def handle_NOOP(self, server, session, envelope, arg):
        return "250 " + repr((session.auth_data, session.login_data, vars(session)))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_hooks_see_who_it_is(mechanism):
    with run(Nosy, auth=SECRETS) as controller, AuthClient(controller) as client:
        assert client.log_in(mechanism, "kim", SECRETS["kim"]).code == 235
        reply = client.command(b"NOOP")
        assert "b'kim'" in reply.text
        assert SECRETS["kim"] not in reply.text


# Values.


@pytest.mark.parametrize(
    "auth",
    [
        "kim:secret",
        [("kim", "secret")],
        ("kim", "secret"),
        5,
        True,
        {"kim": b"secret"},
        {b"kim": "secret"},
        {"kim": None},
        {None: "secret"},
        {1: "2"},
    ],
)
def test_values_of_the_wrong_type(auth):
    with pytest.raises(TypeError, match="auth must map names to passwords"):
        Server(auth=auth)


@pytest.mark.parametrize("auth", [{"": "secret"}, {"k\0m": "secret"}, {"kim": "sec\0ret"}])
def test_values_that_cannot_be(auth):
    with pytest.raises(ValueError, match="auth must not"):
        Server(auth=auth)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"auth_required": True}, "auth_required needs auth"),
        ({"auth_require_tls": True, "auth": {"kim": "x"}}, "auth_require_tls needs tls"),
    ],
)
def test_options_that_do_not_go_together(options, text):
    with pytest.raises(ValueError, match=text):
        Server(**options)


@pytest.mark.parametrize("auth", ["kim:hunter2", [("kim", "hunter2")], {"kim": b"hunter2"}])
def test_errors_have_no_secret(auth):
    with pytest.raises(TypeError) as caught:
        Server(auth=auth)
    assert "hunter2" not in str(caught.value)


def test_the_mapping_is_copied():
    auth = {"kim": "secret"}
    controller = QueueController(auth=auth)
    auth.clear()
    with controller, AuthClient(controller) as client:
        assert client.log_in("PLAIN", "kim", "secret").code == 235
