"""SCRAM-SHA-256 (RFC 7677), with scramp as the client."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
from base64 import b64decode

import pytest
from auth_client import AuthClient, b64, user
from helpers import START_METHODS

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer, Server

scramp = pytest.importorskip("scramp", reason="scramp is an extra")

LOGINS = {"kim": "s3cret", "lee": "with, commas = and signs", "żółw": "hasło", "a,b=c": "x"}
NAME = "SCRAM-SHA-256"


@pytest.fixture(scope="module")
def running():
    with QueueController(auth=LOGINS, auth_mechanisms=[NAME, "PLAIN"]) as controller:
        yield controller


def begin(name: str, password: str):
    return scramp.ScramClient([NAME], name, password)


def log_in(client: AuthClient, name: str, password: str, *, initial: bool = False):
    """Log in; return the last reply.  The server's proof is checked."""
    ours = begin(name, password)
    first = b64(ours.get_client_first())
    if initial:
        challenge = client.ask(b"AUTH SCRAM-SHA-256 " + first)
    else:
        assert client.ask(b"AUTH SCRAM-SHA-256") == b""
        challenge = client.ask(first)
    ours.set_server_first(challenge.decode())
    reply = client.command(b64(ours.get_client_final()))
    if reply.code != 334:
        return reply
    ours.set_server_final(b64decode(reply.text).decode())
    return client.command(b"")


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "asked for"])
@pytest.mark.parametrize(("name", "password"), LOGINS.items())
def test_logging_in(server, client, name, password, initial):
    assert log_in(client, name, password, initial=initial).code == 235
    client.deliver(b"Subject: hello\r\n")
    assert server.queue.get_nowait().envelope.auth_user == name
    assert (user(server), server.sessions()[-1].failed_logins) == (name, 0)


@pytest.mark.parametrize(
    ("name", "password"), [("kim", "wrong"), ("kim", "S3CRET"), ("nobody", "s3cret")]
)
def test_wrong_ones_are_refused(server, client, name, password):
    assert log_in(client, name, password).code == 535
    assert (user(server), server.sessions()[-1].failed_logins) == (None, 1)
    assert log_in(client, "kim", "s3cret").code == 235


def test_it_is_offered_where_it_was_asked_for(server, client):
    with QueueController(auth=LOGINS) as usual, AuthClient(usual) as other:
        assert other.command(b"AUTH SCRAM-SHA-256").code == 504
    assert f"AUTH {NAME} PLAIN" in str(server.sessions()[-1].dialogue)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"kim",
        b"n,,n=kim",
        b"n,,n=k=im,r=abc",
        b"x,,n=kim,r=abc",
        b"p=tls-unique,,n=kim,r=abc",
        b"n,a=,n=kim,r=abc",
        b"n,,r=abc,n=kim",
        b"n,,n=kim,r=a,m=x",
        b"n,,m=x,n=kim,r=abc",
        b"n,,n=\xff,r=abc",
        b"\0kim\0s3cret",
    ],
)
def test_a_first_message_that_is_malformed(server, client, first):
    client.ask(b"AUTH SCRAM-SHA-256")
    assert client.command(b64(first)).code == 501
    assert client.command(b"NOOP").code == 250
    assert "s3cret" not in str(server.sessions())
    assert log_in(client, "kim", "s3cret").code == 235


@pytest.mark.parametrize(
    "final", [b"", b"c=biws", b"c=biws,r=other,p=AAAA", b"c=!,r=x,p=!", b"\xff", b"p=,c=,r="]
)
def test_a_last_message_that_is_malformed(client, final):
    ours = begin("kim", "s3cret")
    client.ask(b"AUTH SCRAM-SHA-256 " + b64(ours.get_client_first()))
    assert client.command(b64(final)).code in (501, 535)
    assert client.command(b"NOOP").code == 250


@pytest.mark.parametrize("header", ["n,a=lee,", "y,a=k=2Cim,", "y,,"])
def test_an_authorization_identity_is_passed_over(server, client, header):
    """Who logs in is the one whose password it is; some clients send both names."""
    first = f"{header}n=kim,r=fyko"
    challenge = client.ask(b"AUTH SCRAM-SHA-256 " + b64(first)).decode()
    nonce, salt, count = (field[2:] for field in challenge.split(","))
    last = f"c={b64(header).decode()},r={nonce}"
    salted = hashlib.pbkdf2_hmac("sha256", b"s3cret", b64decode(salt), int(count))
    key = hmac.digest(salted, b"Client Key", "sha256")
    said = f"n=kim,r=fyko,{challenge},{last}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = b64(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    verifier = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
    assert client.ask(b64(f"{last},p={proof}")) == b"v=" + b64(verifier)
    assert client.command(b"").code == 235
    assert user(server) == "kim"


def test_another_header_in_the_last_message(client):
    ours = begin("kim", "s3cret")
    challenge = client.ask(b"AUTH SCRAM-SHA-256 " + b64(ours.get_client_first()))
    ours.set_server_first(challenge.decode())
    last = ours.get_client_final()
    assert last.startswith("c=biws,")
    assert "another header" in client.command(b64("c=eSws," + last[7:])).text


def test_a_proof_is_not_replayed(client):
    ours = begin("kim", "s3cret")
    ours.set_server_first(
        client.ask(b"AUTH SCRAM-SHA-256 " + b64(ours.get_client_first())).decode()
    )
    old = b64(ours.get_client_final())
    assert client.command(b"*").code == 501
    client.ask(b"AUTH SCRAM-SHA-256 " + b64(begin("kim", "x").get_client_first()))
    assert client.command(old).code in (501, 535)


def test_cancelling_at_the_end(server, client):
    ours = begin("kim", "s3cret")
    ours.set_server_first(
        client.ask(b"AUTH SCRAM-SHA-256 " + b64(ours.get_client_first())).decode()
    )
    client.ask(b64(ours.get_client_final()))
    assert client.command(b"*").code == 501
    assert user(server) is None


def test_the_dialogue_has_no_secret(server, client):
    assert log_in(client, "kim", "s3cret", initial=True).code == 235
    said = [line.text for line in server.sessions()[-1].dialogue if line.speaker == "C"]
    assert said[1:] == ["AUTH SCRAM-SHA-256 ***", "***", ""]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_each_way_to_start(start_method):
    server = QueueServer("localhost", 0, MessageQueue(), auth=LOGINS, auth_mechanisms=[NAME])
    with Controller(server, start_method=start_method) as controller:
        with AuthClient(controller) as client:
            assert log_in(client, "kim", "s3cret").code == 235


def test_a_password_that_it_cannot_have():
    """SASLprep forbids some (RFC 5802, 2.2); the error does not show it."""
    with pytest.raises(ValueError, match="SCRAM-SHA-256 cannot have the password of 'kim'"):
        Server(auth={"kim": "bell\7"}, auth_mechanisms=[NAME])


def test_without_scramp():
    code = (
        "import sys; sys.modules['scramp'] = None\n"
        "from lazr_smtptest import Server\n"
        "Server(auth={'kim': 'x'})\n"
        "try: Server(auth={'kim': 'x'}, auth_mechanisms=['SCRAM-SHA-256'])\n"
        "except ImportError as error: print(error.name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert done.stdout == (
        "scramp SCRAM-SHA-256 needs scramp: pip install 'lazr-smtptest[scram]', "
        "or leave it out of auth_mechanisms\n"
    ), done.stderr
