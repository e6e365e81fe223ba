"""Who may log in, where that is anybody, or a function of the test decides; and by what."""

from __future__ import annotations

import json
import smtplib
import threading

import pytest
from auth_client import LOGINS, MECHANISMS, AuthClient, b64, plain, user, xoauth2
from helpers import LOGIN, START_METHODS, connected, send, serving

from lazr_smtptest import (
    Controller,
    HandlerDataWarning,
    HandlerError,
    MessageQueue,
    QueueController,
    QueueServer,
)


def offered(controller: Controller) -> list[str]:
    """Return the mechanisms, in their order."""
    with connected(controller) as client:
        client.ehlo()
        return client.esmtp_features["auth"].split()


# Anybody.


@pytest.fixture(scope="module")
def anybody():
    with QueueController(auth=True) as controller:
        yield controller


@pytest.mark.parametrize("name", ["kim", "żółw", "kim@example.com", "a b"])
@pytest.mark.parametrize("password", ["", "whatever"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_anybody(anybody, mechanism, name, password):
    anybody.reset()
    with AuthClient(anybody) as client:
        assert client.log_in(mechanism, name, password).code == 235
        client.deliver(b"Subject: hello\r\n")
    assert anybody.queue.get_nowait().envelope.auth_user == name
    assert user(anybody) == name


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"])
def test_nobody_is_not_anybody(anybody, mechanism):
    anybody.reset()
    with AuthClient(anybody) as client:
        assert client.log_in(mechanism, "", "secret").code == 535
    assert user(anybody) is None


def test_what_is_malformed_is_refused_to_anybody(anybody):
    with AuthClient(anybody) as client:
        assert client.command(b"AUTH PLAIN !").code == 501
        assert client.command(b"AUTH PLAIN " + b64("kim")).code == 501
        assert client.command(b"AUTH NTLM").code == 504


def test_anybody_is_required_to_log_in():
    with QueueController(auth=True, auth_required=True) as controller:
        with connected(controller) as client:
            with pytest.raises(smtplib.SMTPSenderRefused):
                send(client, "no")
            client.login("kim", "anything")
            send(client, "yes")
        (message,) = controller
        assert (message["subject"], message.envelope.auth_user) == ("yes", "kim")


# A function.


def deciding(mechanism: str, user: str, secret: str) -> bool | str:
    """Lets in whose secret is the mechanism and the user; others have replies of their own."""
    if user == "locked":
        return "535 5.7.8 Locked,\nfor ever"
    if user == "busy":
        return "454 4.7.0 Later"
    if user == "banned":
        return "421 4.7.0 Go away"
    if user == "broken":
        raise LookupError("no such table")
    if user == "odd":
        return {}  # type: ignore[return-value]
    if user == "malformed":
        return "well, no"
    if user == "yes":
        return "235 2.7.0 Yes"
    return secret == f"{mechanism} {user}"


DECIDED = [name for name in MECHANISMS if name != "CRAM-MD5"]


@pytest.fixture(scope="module")
def decided():
    with QueueController(auth=deciding) as controller:
        yield controller


def test_what_is_offered_to_a_function(decided):
    """CRAM-MD5 has no secret that it could be asked about."""
    assert offered(decided) == sorted(DECIDED)


@pytest.mark.parametrize("mechanism", DECIDED)
def test_a_function_decides(decided, mechanism):
    decided.reset()
    with AuthClient(decided) as client:
        assert client.log_in(mechanism, "kim", "wrong").code == 535
        assert client.log_in(mechanism, "żółw", f"{mechanism} żółw").code == 235
        client.deliver(b"Subject: hello\r\n")
    assert decided.queue.get_nowait().envelope.auth_user == "żółw"
    assert (user(decided), decided.sessions()[-1].failed_logins) == ("żółw", 1)


@pytest.mark.parametrize("mechanism", DECIDED)
def test_replies_of_its_own(decided, mechanism):
    decided.reset()
    with AuthClient(decided) as client:
        reply = client.log_in(mechanism, "locked", "x")
        assert reply.code == 535
        assert "Locked" in reply.text
        assert client.log_in(mechanism, "busy", "x") == (454, "4.7.0 Later")
        assert decided.sessions()[-1].failed_logins == 2
        assert client.log_in(mechanism, "banned", "x") == (421, "4.7.0 Go away")
        assert client.sock.recv(1) == b""
    assert decided.sessions()[-1].ended == "dropped by the server"


BROKEN = {
    "broken": r"QueueServer\.auth raised LookupError: no such table",
    "odd": "raised TypeError: auth must return True, False or a refusal, .*, not a dict",
    "malformed": "raised ValueError: auth must return .*: reply must begin with a reply code",
    "yes": "raised ValueError: auth must return .*, not '235 2.7.0 Yes'",
}


@pytest.mark.parametrize(("name", "text"), BROKEN.items(), ids=BROKEN.keys())
@pytest.mark.parametrize("mechanism", DECIDED)
def test_a_function_that_fails(decided, mechanism, name, text):
    decided.reset()
    with AuthClient(decided) as client:
        assert client.log_in(mechanism, name, "hunter2").code == 451
        with pytest.raises(HandlerError, match=text):
            decided.queue.get_nowait()
        assert client.command(b"NOOP").code == 250
    assert user(decided) is None


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_function_in_a_process_that_is_not_forked(start_method):
    server = QueueServer("localhost", 0, MessageQueue(), auth=deciding)
    with Controller(server, start_method=start_method) as controller:
        with AuthClient(controller) as client:
            assert client.log_in("PLAIN", "kim", "PLAIN kim").code == 235


def test_a_function_that_blocks_holds_up_nobody_else():
    gate = threading.Event()

    def wait(mechanism, user, secret):
        return gate.wait(0.5)

    with QueueController(auth=wait, start_method="fork") as controller:
        with AuthClient(controller) as waiting, AuthClient(controller) as other:
            waiting.send(b"AUTH PLAIN " + plain("kim", "x") + b"\r\n")
            assert other.command(b"NOOP").code == 250
            other.deliver(b"Subject: meanwhile\r\n")
            assert controller.queue.get_nowait()["subject"] == "meanwhile"
            assert waiting.reply().code == 535


def test_a_handler_that_blocks_holds_up_no_login():
    class Slow(QueueServer):
        def handle_message(self, message):
            threading.Event().wait(1.0)
            super().handle_message(message)

    with serving(Slow, auth=lambda *args: True) as controller:
        with AuthClient(controller) as slow, AuthClient(controller) as client:
            slow.begin()
            slow.send(b"Subject: slow\r\n.\r\n")
            assert client.log_in("PLAIN", "kim", "x").code == 235
            assert controller.server.queue.empty()
            assert slow.reply().code == 250


# Which mechanisms, in which order.


@pytest.mark.parametrize(
    "names", [["LOGIN", "XOAUTH2"], ["XOAUTH2", "LOGIN"], ["PLAIN"], ["plain", "Login"]]
)
@pytest.mark.parametrize("auth", [dict([LOGIN]), True, deciding], ids=["known", "any", "decided"])
def test_chosen_mechanisms(auth, names):
    with QueueController(auth=auth, auth_mechanisms=iter(names)) as controller:
        wanted = [name.upper() for name in names]
        assert offered(controller) == wanted
        with AuthClient(controller) as client:
            for name in {*MECHANISMS} - {*wanted}:
                assert client.command(b"AUTH " + name.encode()).code == 504


class Badge(QueueServer):
    async def auth_X__BADGE(self, server, args):
        return False


def test_mechanisms_of_a_server_among_those_chosen():
    with serving(Badge, auth_mechanisms=["X-BADGE"]) as controller:
        assert offered(controller) == ["X-BADGE"]
    with serving(Badge, auth=True, auth_mechanisms=["XOAUTH2", "X-BADGE"]) as controller:
        assert offered(controller) == ["XOAUTH2", "X-BADGE"]
    with pytest.raises(ValueError, match="auth_mechanisms may have LOGIN, PLAIN, X-BADGE, not Y"):
        Badge("localhost", 0, MessageQueue(), auth_mechanisms=["Y"])


class Greeting(QueueServer):
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return responses


def test_the_order_reaches_hooks():
    with serving(Greeting, auth=True, auth_mechanisms=["PLAIN", "LOGIN"]) as controller:
        assert offered(controller) == ["PLAIN", "LOGIN"]


@pytest.mark.smtptest(auth=True, auth_mechanisms=("LOGIN",))
def test_by_the_marker(smtptest):
    assert offered(smtptest) == ["LOGIN"]
    with connected(smtptest) as client:
        client.login("kim", "anything")
    assert user(smtptest) == "kim"


# What is malformed, and why.


@pytest.mark.parametrize("response", ["kim s3cret", " kim s3cret", "kim kim s3cret"])
@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
def test_plain_with_spaces(server, client, response, initial):
    if initial:
        reply = client.command(b"AUTH PLAIN " + b64(response))
    else:
        client.ask(b"AUTH PLAIN")
        reply = client.command(b64(response))
    assert reply.code == 501
    assert "spaces in place of the NULs (RFC 4616)" in reply.text
    assert "kim" not in reply.text
    assert user(server) is None
    assert any("spaces in place of" in line.text for line in server.sessions()[-1].dialogue)


def test_words_in_the_clear(server, client):
    reply = client.command(b"AUTH PLAIN kim s3cret")
    assert reply.code == 501
    assert "one response in base64, and this has more words" in reply.text
    assert "s3cret" not in str(server.sessions())


def test_an_empty_initial_response(client):
    """RFC 4954, 4: "=" stands for it."""
    assert "0 NULs in place of two" in client.command(b"AUTH PLAIN =").text
    assert json.loads(client.ask(b"AUTH XOAUTH2 ="))["status"] == "401"
    assert client.command(b"").code == 535


# The dialogue.


SHOWN = {
    b"AUTH PLAIN": ["C AUTH PLAIN", "C ***"],
    b"AUTH PLAIN " + plain("kim", LOGINS["kim"]): ["C AUTH PLAIN ***"],
    b"auth Plain " + plain("kim", LOGINS["kim"]): ["C auth Plain ***"],
    b"AUTH LOGIN": ["C AUTH LOGIN", "C ***"],
    b"AUTH XOAUTH2 " + xoauth2("kim", "wrong"): ["C AUTH XOAUTH2 ***", "C "],
    b"AUTH NTLM abc": ["C AUTH NTLM ***"],
    b"AUTH s3cret": ["C AUTH ***"],
    b"AUTH": ["C AUTH"],
    b"AUTHPLAIN s3cret": ["C AUTH***"],
}


@pytest.mark.parametrize(("line", "shown"), SHOWN.items(), ids=map(repr, SHOWN))
def test_the_dialogue_has_auth_without_its_secret(server, client, line, shown):
    reply = client.command(line)
    if reply.code == 334:
        client.command(b"" if b"XOAUTH2" in line else b"!" if b"LOGIN" in line else b64("x"))
    said = [str(line)[9:] for line in server.sessions()[-1].dialogue if line.speaker == "C"]
    assert said[1:] == shown


# What a function leaves behind in the server process.


def test_what_only_the_test_would_read_is_warned_of():
    asked: list[str] = []

    def decide(mechanism, user, secret):
        asked.append(user)
        return True

    controller = QueueController(auth=decide, start_method="fork")
    with pytest.warns(HandlerDataWarning, match=r"QueueServer\.auth calls append\(\) of the list"):
        controller.start()
    controller.stop()


def test_what_it_reads_itself_is_its_own_business():
    asked: list[str] = []

    def decide(mechanism, user, secret):
        asked.append(user)
        return asked.count(user) > 1 or "454 4.7.0 Once more"

    with QueueController(auth=decide, start_method="fork") as controller:
        with AuthClient(controller) as client:
            assert client.log_in("PLAIN", "kim", "x").code == 454
            assert client.log_in("PLAIN", "kim", "x").code == 235
