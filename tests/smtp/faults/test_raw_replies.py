"""Replies that are none: octets that a server sends in their place, as they are."""

from __future__ import annotations

import asyncio
import re
import smtplib

import aiosmtplib
import pytest
from helpers import LOGIN, connected, fresh
from mail_libraries import with_nodemailer, with_phpmailer
from programs import RECIPIENTS, SENDER, Failed, unix
from raw_client import CONTENT, MESSAGE, Wire, greeted

RAWS = [
    b"250-no end\r\n",
    b"250-no end",
    b"25",
    b"250 OK\n",
    b"250 OK\r",
    b"\xff\xfe\0\r\n",
    b"\r\n",
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"250 one\r\n250 two\r\n",
    b"250-one\r\n550 two\r\n",
    b"250 " + b"x" * 100_000 + b"\r\n",
]


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


def read(wire, count: int) -> bytes:
    return wire._replies.read(count)


@pytest.mark.parametrize("raw", RAWS)
def test_octets(server, raw):
    fault = server.fault("NOOP", raw=raw)
    with greeted(server) as wire:
        for _ in range(2):
            wire.sock.sendall(b"NOOP\r\n")
            assert read(wire, len(raw)) == raw
        # Nothing comes behind it, and the session goes on.
        assert wire.say(b"RSET") == b"250 2.0.0 OK\r\n"
    assert fault.fired == 2


@pytest.mark.parametrize("drop", [True, "after"])
def test_octets_and_the_connection_is_closed(server, drop):
    server.fault("NOOP", raw=b"250-no", drop=drop)
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\n")
        assert wire.rest() == b"250-no"
    assert server.sessions()[0].ended == "dropped by the server"


def test_no_octets(server):
    """A server that says nothing, and waits for the next command."""
    server.fault("NOOP", raw=b"")
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\nRSET\r\n")
        assert wire.reply() == b"250 2.0.0 OK\r\n"


@pytest.mark.parametrize("raw", [b"", b"220\r\n", b"554 No\r\n", b"\0\r\n"])
def test_in_place_of_the_greeting(server, raw):
    server.fault("CONNECT", raw=raw, times=1)
    with Wire(server) as wire:
        assert read(wire, len(raw)) == raw
        # Nothing is made of it: not even that there is no service.
        assert wire.codes(b"HELO x", *MESSAGE, CONTENT, b"QUIT") == [250, 250, 250, 354, 250, 221]
    assert server.queue.qsize() == 1


def test_the_command_has_no_effect(server):
    server.fault("EOM", raw=b"250 2.0.0 Taken, not\n", times=1)
    server.fault("MAIL", raw=b"250\n", times=1)
    with greeted(server) as wire:
        wire.sock.sendall(MESSAGE[0] + b"\r\n")
        assert read(wire, 4) == b"250\n"
        assert wire.codes(MESSAGE[1], *MESSAGE) == [503, 250, 250, 354]
        wire.sock.sendall(CONTENT + b"\r\n")
        assert read(wire, 21) == b"250 2.0.0 Taken, not\n"
        assert wire.codes(b"DATA", *MESSAGE, CONTENT) == [503, 250, 250, 354, 250]
    assert server.queue.qsize() == 1


def test_no_code_is_looked_at(server):
    server.fault("NOOP", raw=b"421 4.3.2 Closing\r\n")
    server.fault("AUTH", raw=b"535 5.7.8 No\r\n")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"AUTH PLAIN", b"RSET") == [421, 535, 250]
    assert server.sessions()[0].failed_logins == 0


def test_at_data(server):
    with pytest.raises(ValueError, match="a fault at DATA that says 354"):
        server.fault("DATA", raw=b"354 Go\n")
    server.fault("DATA", raw=b"354\n", drop=True, times=1)
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE[:2]) == [250, 250]
        wire.sock.sendall(b"DATA\r\n")
        assert wire.rest() == b"354\n"


def test_it_is_taken_down(server):
    server.fault("NOOP", raw=b"250-\xff\0'\r\n")
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\n")
        read(wire, 9)
    line = server.sessions()[0].dialogue[-1]
    assert (line.speaker, line.text) == ("*", r'''sent as it is: b"250-\xff\x00'\r\n"''')


def test_much_is_taken_down_in_part(server):
    server.fault("NOOP", raw=b"x" * 100_000, drop=True)
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\n")
        assert len(wire.rest()) == 100_000
    line = server.sessions()[0].dialogue[-1]
    assert line.text == f"sent as it is: b'{'x' * 2000}'..."


def test_under_tls(server):
    server.fault("NOOP", raw=b"25", drop="after")
    with connected(server) as client:
        client.starttls(context=server.client_context())
        assert client.noop()[0] == 25  # as smtplib has it when the connection is closed
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()


def test_at_starttls_and_auth(server):
    server.fault("STARTTLS", raw=b"220\r\n", times=1)
    server.fault("AUTH", raw=b"\0\r\n", times=1)
    with greeted(server) as wire:
        assert wire.say(b"STARTTLS") == b"220\r\n"
        wire.sock.sendall(b"AUTH PLAIN AGtpbQB4\r\n")
        assert read(wire, 3) == b"\0\r\n"
        assert wire.codes(b"RSET") == [250]
    with connected(server) as client:
        client.login(*LOGIN)


# What clients of others make of them.


MAIL = b"From: kim@example.com\r\nTo: lee@example.com\r\nSubject: raw\r\n\r\nHello.\r\n"


def with_smtplib(server, _mailers) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=10) as client:
        client.sendmail(SENDER, RECIPIENTS, MAIL)


def with_aiosmtplib(server, _mailers) -> None:
    place = {"hostname": server.host, "port": server.port, "timeout": 10}
    asyncio.run(aiosmtplib.send(MAIL, sender=SENDER, recipients=[*RECIPIENTS], **place))


def with_curl(server, mailers) -> None:
    mailers.curl(server, "--upload-file", mailers.file(MAIL), "--max-time", "1")


def with_swaks(server, mailers) -> None:
    mailers.swaks(server, "--data", "@" + mailers.file(MAIL), "--timeout", "1")


def with_msmtp(server, mailers) -> None:
    mailers.msmtp(server, "--timeout=1", "--", *RECIPIENTS, given=unix(MAIL))


def with_go(server, mailers) -> None:
    mailers.go(server, MAIL)


HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"

#: What each client says to HTTP in place of a greeting, and to a code of two digits.
SAYS = {
    with_smtplib: (r"\(-1, b'/1.1 400 Bad Request'\)", r"\(25, b''"),
    with_aiosmtplib: ("Malformed SMTP response line: HTTP/1.1 400", r"\(25, ''"),
    with_curl: ("timed out", "timed out"),
    with_swaks: ("Timeout", r"MAIL FROM:<kim@example.com>\s+<\*\* Timeout"),
    with_msmtp: ("invalid reply", "invalid reply"),
    with_go: ("short response: HTTP/1.1 400 Bad Request", "short response: 25"),
    with_nodemailer: ("Invalid greeting", "recipients were rejected: 503 5.5.1"),
    with_phpmailer: ("Could not connect", "MAIL FROM command failed"),
}


@pytest.mark.parametrize(("stage", "raw"), [("CONNECT", HTTP), ("MAIL", b"25\r\n")])
@pytest.mark.parametrize("client", SAYS)
def test_clients(running, mailers, client, stage, raw):
    running.reset()
    running.fault(stage, raw=raw)
    with pytest.raises((Failed, smtplib.SMTPException, aiosmtplib.SMTPException)) as caught:
        client(running, mailers)
    assert re.search(SAYS[client][stage == "MAIL"], str(caught.value)), caught.value
    assert running.queue.qsize() == 0


def test_smtplib_takes_a_second_reply_for_the_next_commands(running, mailers):
    running.reset()
    running.fault("EOM", raw=b"250 2.0.0 OK\r\n250 2.0.0 OK\r\n")
    with pytest.raises(smtplib.SMTPResponseException, match="250"):
        with_smtplib(running, mailers)  # which has 250 for its QUIT
    with_curl(running, mailers)


def test_a_greeting_without_a_text(running, mailers):
    """RFC 5321, 4.2: the text is optional, and clients should take the code alone."""
    running.reset()
    running.fault("CONNECT", raw=b"220\r\n")
    for client in (with_smtplib, with_aiosmtplib):
        client(running, mailers)
    for client in (with_nodemailer, with_phpmailer):
        client(running, mailers, timeout=10)
    mailers.curl(running, "--upload-file", mailers.file(MAIL))
    assert running.queue.qsize() == 5
    for client, says in ((with_msmtp, "invalid reply"), (with_go, "short response: 220")):
        with pytest.raises(Failed, match=says):
            client(running, mailers)
