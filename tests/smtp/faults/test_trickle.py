"""Replies that come little by little: line by line, or octet by octet."""

from __future__ import annotations

import smtplib
import time

import pytest
from helpers import connected, fresh, send, send_to, subjects, until
from mail_libraries import with_nodemailer, with_phpmailer
from programs import Failed
from raw_client import CONTENT, MESSAGE, Wire, ehlo, greeted, silent

from lazr_smtptest import QueueController

#: Seconds between two pieces, where the second is not to come.
NEVER = 60.0


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


def first(wire, count: int) -> bytes:
    """Read so many octets, with which the server stops for now."""
    octets = wire.sock.recv(count)
    assert silent(wire)
    return octets


# What comes first.


def test_a_line(server):
    server.fault("NOOP", "250-one\n250-two\n250 three", trickle=NEVER)
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\n")
        assert first(wire, 100) == b"250-one\r\n"


@pytest.mark.parametrize(
    "options", [{"reply": "250 one line"}, {"raw": b"250-one\r\n250 two\r\n"}, {}]
)
def test_an_octet(server, options):
    server.fault("NOOP", **options, trickle=NEVER)
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP\r\n")
        assert first(wire, 100) == b"2"


def test_a_line_of_the_usual_reply_to_ehlo(server):
    server.fault("EHLO", trickle=NEVER)
    with Wire(server) as wire:
        wire.reply()
        wire.sock.sendall(b"EHLO x\r\n")
        assert first(wire, 100) == b"250-localhost\r\n"


def test_an_octet_of_the_greeting(server):
    server.fault("CONNECT", trickle=NEVER)
    with Wire(server) as wire:
        assert first(wire, 100) == b"2"


# All of it.


@pytest.mark.parametrize(
    ("options", "octets"),
    [
        ({"reply": "450 a\nb\nc"}, b"450-a\r\n450-b\r\n450 c\r\n"),
        ({"reply": "450 a"}, b"450 a\r\n"),
        ({"raw": b"450-a\r\n450 b\r\n"}, b"450-a\r\n450 b\r\n"),
        ({}, b"250 2.0.0 OK\r\n"),
    ],
)
def test_octets(server, options, octets):
    fault = server.fault("NOOP", **options, trickle=0.02, times=1)
    pieces = 3 if options.get("reply", "").count("\n") == 2 else len(octets)
    with greeted(server) as wire:
        began = time.monotonic()
        wire.sock.sendall(b"NOOP\r\nRSET\r\n")
        assert wire._replies.read(len(octets)) == octets
        assert time.monotonic() - began >= 0.02 * (pieces - 1) * 0.9
        assert wire.reply() == b"250 2.0.0 OK\r\n"
    assert fault.fired == 1


def test_the_usual_reply_to_ehlo(server):
    usual = ehlo(server)
    server.fault("EHLO", trickle=0.02)
    began = time.monotonic()
    assert ehlo(server) == usual
    assert time.monotonic() - began >= 0.02 * (len(usual) - 1) * 0.9


def test_the_greeting(server):
    server.fault("CONNECT", trickle=0.002)
    with Wire(server) as wire:
        assert wire.reply().startswith(b"220 ")
        assert wire.codes(b"HELO x", *MESSAGE, CONTENT) == [250, 250, 250, 354, 250]


def test_at_the_end_of_the_message(server):
    server.fault("EOM", trickle=0.01)
    send_to(server, "one", "two")
    assert subjects(server) == ["one", "two"]


def test_while_content_arrives(server):
    """The fault is made when the coroutine waits for the next command already."""
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: half\r\n")
        with server.fault("EOM", trickle=0.01):
            assert wire.codes(b".") == [250]
        assert wire.codes(b"NOOP") == [250]


@pytest.mark.parametrize(
    ("stage", "lines"), [("NOOP", [b"NOOP"]), ("VRFY", [b"VRFY x"]), ("EOM", [*MESSAGE, CONTENT])]
)
@pytest.mark.parametrize("following", [b"TURN", b"RSET", b"NOOP " + b"x" * 20_000])
def test_what_follows_is_answered_at_once(server, stage, lines, following):
    """Also a command that is none, and one that is too long."""
    server.fault(stage, trickle=0.5, times=1, reply="250-a\n250 b")
    with greeted(server) as wire:
        assert wire.codes(*lines)[-1] == 250
        began = time.monotonic()
        assert wire.codes(following)[0] in (250, 500)
        assert time.monotonic() - began < 5  # 14 octets, or more, would take 7


def test_with_a_drop_and_a_delay(server):
    server.fault("NOOP", "221-a\n221 b", trickle=0.05, delay=0.1, drop=True)
    server.fault("RSET", trickle=0.01, drop="after")
    with greeted(server) as wire:
        began = time.monotonic()
        wire.sock.sendall(b"NOOP\r\n")
        assert wire.rest() == b"221-a\r\n221 b\r\n"
        assert time.monotonic() - began >= 0.14
    with greeted(server) as wire:
        wire.sock.sendall(b"RSET\r\n")
        assert wire.rest() == b"250 2.0.0 OK\r\n"


def test_it_stalls_nobody_else(server):
    server.fault("MAIL", trickle=NEVER, when="slow@*")
    with greeted(server) as slow:
        slow.sock.sendall(b"MAIL FROM:<slow@example.com>\r\n")
        assert first(slow, 9) == b"2"
        send_to(server, "quick")
    assert server.queue.qsize() == 1


# The end of a session meanwhile.


def test_reset_ends_what_was_given_up(server):
    server.fault("EOM", "250-a\n250 b", trickle=NEVER)
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(CONTENT + b"\r\n")
        assert first(wire, 9) == b"250-a\r\n"
    until(lambda: server.sessions()[0].dialogue[-1].text == "the client sends no more")
    assert server.sessions()[0].ended == "open"
    server.reset()
    assert server.sessions() == []


@pytest.mark.parametrize("how", ["stop", "hang_up"])
def test_the_server_ends_it(how):
    with QueueController("127.0.0.1") as controller:
        controller.fault("NOOP", trickle=NEVER)
        with greeted(controller) as wire:
            wire.sock.sendall(b"NOOP\r\n")
            assert first(wire, 9) == b"2"
            began = time.monotonic()
            getattr(controller, how)()
            assert wire.rest() == b""
            assert time.monotonic() - began < 5


# Clients of others, and their time limits.


def test_under_tls(server):
    server.fault("NOOP", "250-a\n250 b", trickle=0.01)
    with connected(server) as client:
        client.starttls(context=server.client_context())
        assert client.noop() == (250, b"a\nb")


def test_smtplibs_time_limit_is_for_each_read(server):
    """So the whole takes longer than that, and nothing times out: the point of a trickle."""
    server.fault("RCPT", "550 5.1.1 No\n" + "\n".join("abcdefg"), trickle=0.5)
    began = time.monotonic()
    with smtplib.SMTP(server.host, server.port, timeout=3) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(client, "slow")
    assert time.monotonic() - began > 3.3


def test_curls_time_limit_is_for_all_of_it(server, programs):
    server.fault("EHLO", trickle=NEVER)
    with pytest.raises(Failed, match="timed out"):
        programs.curl(server, "--upload-file", programs.file(b"Subject: x\r\n"), "--max-time", "1")


def test_swaks_time_limit_is_for_each_reply(server, programs):
    server.fault("EHLO", trickle=0.4)
    with pytest.raises(Failed, match="Timeout"):
        programs.swaks(server, "--timeout", "1")


@pytest.mark.parametrize(
    ("client", "options", "says"),
    [
        (with_phpmailer, {"trickle": 0.6}, "EHLO"),  # a limit for all of a reply
        (with_nodemailer, {"trickle": 0.2}, None),  # one for each read
        (with_nodemailer, {"trickle": NEVER}, "Timeout"),
    ],
)
def test_libraries_and_their_time_limits(running, programs, client, options, says):
    running.reset()
    running.fault("EHLO", **options)
    if says is None:
        client(running, programs, timeout=1)
        assert running.queue.qsize() == 1
    else:
        with pytest.raises(Failed, match=says):
            client(running, programs, timeout=1)
