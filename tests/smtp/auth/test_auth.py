"""AUTH: every mechanism, what is right for it, and what is wrong."""

from __future__ import annotations

import hmac
from base64 import b64decode

import pytest
from auth_client import LOGINS, MECHANISMS, AuthClient, b64, plain, user, xoauth2
from helpers import connected

from lazr_smtptest import QueueController


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
    assert server.sessions()[-1].failed_logins == 3 * len(MECHANISMS)


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


@pytest.mark.parametrize("initial", [[b"AUTH LOGIN", b64("kim")], [b"AUTH LOGIN " + b64("kim")]])
def test_login_asks_in_the_words_that_clients_know(client, initial):
    """To the letter, as Postfix, Exim and Exchange do: there are clients that compare."""
    challenges = [client.ask(line) for line in initial]
    assert challenges == [b"Username:", b"Password:"][-len(initial) :]
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
        "OAUTHBEARER": b"n,a=" + octets + b",\1auth=Bearer " + octets + b"\1\1",
    }[mechanism]
    reply = client.command(b64(answer))
    if mechanism in ("XOAUTH2", "OAUTHBEARER"):
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
