"""OAUTHBEARER, as RFC 7628 has it."""

from __future__ import annotations

import json

import pytest
from auth_client import LOGINS, AuthClient, b64, oauthbearer, user

from lazr_smtptest import QueueController

TOKEN = LOGINS["kim"]


@pytest.mark.parametrize(
    "response",
    [
        f"n,a=kim,\1host=mail.example\1port=587\1auth=Bearer {TOKEN}\1\1",
        f"n,a=kim,\1auth=Bearer {TOKEN}\1\1",
        f"y,a=kim,\1auth=bearer {TOKEN}\1\1",
        f"n,,\1auth=Bearer {TOKEN}\1\1",
        f"n,a=kim,\1auth=Bearer {TOKEN}\1mthd=POST\1path=/\1post=\1qs=\1\1",
    ],
)
@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
def test_it_is_right(server, client, response, initial):
    if initial:
        reply = client.command(b"AUTH OAUTHBEARER " + b64(response))
    else:
        assert client.ask(b"AUTH OAUTHBEARER") == b""
        reply = client.command(b64(response))
    assert reply.code == 235
    assert user(server) == "kim"


@pytest.mark.parametrize("response", [oauthbearer("kim", "0ld"), b64("n,a=kim,\1auth=\1\1")])
@pytest.mark.parametrize("answer", [b"AQ==", b""], ids=["control-A", "empty"])
def test_a_token_that_is_wrong(server, client, response, answer):
    """The client is told why in a challenge, and answers that (3.2.2, 3.2.3)."""
    why = json.loads(client.ask(b"AUTH OAUTHBEARER " + response))
    assert why == {"status": "invalid_token", "scope": "https://mail.example/"}
    assert client.command(answer).code == 535
    assert server.sessions()[-1].failed_logins == 1
    assert client.command(b"AUTH OAUTHBEARER " + oauthbearer("kim", TOKEN)).code == 235


def test_the_error_can_be_cancelled(client):
    client.ask(b"AUTH OAUTHBEARER " + oauthbearer("kim", "0ld"))
    assert client.command(b"*").code == 501
    assert client.command(b"NOOP").code == 250


@pytest.mark.parametrize(
    "response",
    [
        "",
        "kim",
        f"user=kim\1auth=Bearer {TOKEN}\1\1",
        f"n,a=kim,\1auth=Bearer {TOKEN}\1",
        f"n,a=kim,\1auth=Bearer {TOKEN}",
        f"n,a=kim\1auth=Bearer {TOKEN}\1\1",
        f"p=tls-unique,a=kim,\1auth=Bearer {TOKEN}\1\1",
        f"n,a=k=im,\1auth=Bearer {TOKEN}\1\1",
        f"n,a=,\1auth=Bearer {TOKEN}\1\1",
        f"n,a=kim,\1auth=Basic {TOKEN}\1\1",
        "n,a=empty,\1auth=Bearer\1\1",
        "n,a=kim,\1auth\1\1",
        "n,a=kim,\1\1",
        f"\0kim\0{TOKEN}",
    ],
)
def test_what_is_malformed(server, client, response):
    client.ask(b"AUTH OAUTHBEARER")
    assert json.loads(client.ask(b64(response))) == {"status": "invalid_request"}
    assert client.command(b"AQ==").code == 535
    assert user(server) is None


def test_names_with_commas_and_equals_signs():
    name = "cn=kim,dc=example"
    with QueueController(auth={name: "t0ken"}) as controller, AuthClient(controller) as client:
        assert client.command(b"AUTH OAUTHBEARER " + oauthbearer(name, "t0ken")).code == 235
        assert user(controller) == name


def test_nobody_is_let_in_by_no_token(server, client):
    client.ask(b"AUTH OAUTHBEARER " + b64("n,,\1auth=Bearer \1\1"))
    assert client.command(b"AQ==").code == 535


def test_without_a_name_anybody_has_none():
    with QueueController(auth=True) as controller, AuthClient(controller) as client:
        assert client.command(b"AUTH OAUTHBEARER " + oauthbearer("", "t0ken")).code == 235
        assert user(controller) == ""
