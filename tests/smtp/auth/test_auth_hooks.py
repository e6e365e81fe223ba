"""Mechanisms of one's own, as aiosmtpd's manual has them."""

from __future__ import annotations

import pytest
from aiosmtpd.smtp import MISSING, AuthResult, LoginPassword, auth_mechanism
from auth_client import LOGINS, MECHANISMS, AuthClient, advertised, b64, plain, user
from helpers import serving

from lazr_smtptest import HandlerError, QueueServer


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
    with serving(Own) as controller:
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
    with serving(Own, auth=LOGINS, auth_required=True) as controller:
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
    with serving(Own, auth_required=True) as controller, AuthClient(controller) as client:
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
        assert client.command(b"AUTH X-DOORMAT a2V5").code == 235
        assert client.deliver(b"Subject: hello\r\n").code == 250


class OwnPlain(QueueServer):
    """Has another idea of PLAIN."""

    async def auth_PLAIN(self, server, args):
        return AuthResult(success=True, auth_data=LoginPassword(b"anybody", b""))


def test_a_method_in_place_of_ours():
    with serving(OwnPlain, auth=LOGINS) as controller, AuthClient(controller) as client:
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
    with serving(OwnHook, auth={"kim": "letmein"}) as controller:
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
    with serving(OwnHook) as controller, AuthClient(controller) as client:
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
    with serving(kind) as controller, AuthClient(controller) as client:
        assert client.command(b"AUTH BROKEN" if kind is Broken else b"AUTH PLAIN").code == 451
        with pytest.raises(HandlerError, match=f"{kind.__name__}.{name} raised LookupError"):
            controller.server.queue.get_nowait()
        assert client.command(b"RSET").code == 250
