"""STARTTLS, the command, and what is forgotten with it."""

from __future__ import annotations

import smtplib

import pytest
from helpers import connected, send, subjects
from tls_client import LOGINS, MODES, TLSClient, assert_serves, secured

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")


# STARTTLS, the command.


def test_ehlo_tells_of_starttls_only_while_it_is_of_use(starttls):
    with connected(starttls) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client.starttls(context=starttls.client_context())
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.has_extn("pipelining")


def test_ehlo_under_implicit_tls(implicit):
    with secured(implicit) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] in (454, 500, 502, 503)
        send(client, "hello")
    assert subjects(implicit) == ["hello"]


@pytest.mark.parametrize("mode", MODES)
def test_ehlo_tells_of_no_auth_where_there_is_none(mode, loop):
    with QueueController(tls=mode, uvloop=loop) as controller:
        with secured(controller) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH", "PLAIN")[0] == 500


def test_starttls_twice(starttls):
    with TLSClient(starttls) as client:
        client.starttls()
        assert client.command(b"EHLO client.example").code == 250
        reply = client.command(b"STARTTLS")
        assert reply.code == 503
        assert reply.text.startswith("5.5.1 ")
        client.deliver(b"Subject: hello\r\n")
    assert starttls.queue.get_nowait().envelope.tls == "TLSv1.3"


def test_starttls_takes_no_argument(starttls):
    with TLSClient(starttls) as client:
        reply = client.command(b"STARTTLS now")
        assert reply.code == 501
        assert reply.text.startswith("5.5.4 ")
        client.deliver(b"Subject: in the clear\r\n")
        client.starttls()
        assert client.command(b"EHLO client.example").code == 250
        client.deliver(b"Subject: in TLS\r\n")
    assert [(m["subject"], m.envelope.tls) for m in starttls] == [
        ("in the clear", None),
        ("in TLS", "TLSv1.3"),
    ]


def test_starttls_in_lower_case(starttls):
    with TLSClient(starttls) as client:
        assert client.command(b"starttls").code == 220
        client.secure()
        assert client.command(b"NOOP").code == 250


def test_starttls_hidden(loop):
    with QueueController(tls="starttls", hide=["starttls"], uvloop=loop) as controller:
        with connected(controller) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            assert client.docmd("STARTTLS")[0] == 500
            with pytest.raises(smtplib.SMTPNotSupportedError):
                client.starttls()
            send(client, "hello")
        assert subjects(controller) == ["hello"]


def test_without_tls_there_is_no_starttls():
    with QueueController() as controller:
        with connected(controller) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            assert client.docmd("STARTTLS")[0] in (454, 500, 502)


def test_required(loop):
    with QueueController(tls=TLS(required=True), uvloop=loop) as controller:
        with TLSClient(controller) as client:
            for command in (
                b"MAIL FROM:<kim@example.com>",
                b"MAIL FROM:<kim@example.com> SIZE=10",
                b"RCPT TO:<lee@example.com>",
                b"DATA",
                b"HELO client.example",
                b"RSET",
                b"VRFY kim@example.com",
            ):
                reply = client.command(command)
                assert reply.code == 530, command
                if not command.startswith(b"HELO"):  # RFC 2034, 4
                    assert reply.text.startswith("5.7.0 "), command
            assert client.command(b"NOOP").code == 250
            assert client.command(b"EHLO client.example").code == 250
            # All together, too.
            client.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\n")
            assert [client.reply().code for _ in range(3)] == [530] * 3
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.deliver(b"Subject: hello\r\n").code == 250
            assert client.command(b"QUIT").code == 221
        (message,) = controller
        assert message["subject"] == "hello"
        assert message.envelope.tls == "TLSv1.3"
        assert controller.sessions()[0].ended == "QUIT"


def test_required_does_not_matter_with_implicit_tls():
    with QueueController(tls=TLS("implicit", required=True)) as controller:
        assert_serves(controller)


# What it forgets (RFC 3207, 4.2).


INJECTIONS = {
    "a command": b"NOOP\r\n",
    "many commands": b"NOOP\r\n" * 500,  # more than a stream's limit
    "an unfinished command": b"NOO",
    "a long line": b"X" * 3000,
    "a message": b"EHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<lee@example.com>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n",
    "the head of a message": b"EHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<evil@example.com>\r\nDATA\r\nSubject: evil\r\n",
    "a message without EHLO": b"MAIL FROM:<evil@example.com>\r\n"
    b"RCPT TO:<lee@example.com>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n",
    "a login": b"AUTH PLAIN AGtpbQBhIHNlY3JldA==\r\n",
    "STARTTLS": b"STARTTLS\r\n",
    "QUIT": b"QUIT\r\n",
}


@pytest.mark.parametrize("injected", INJECTIONS.values(), ids=INJECTIONS.keys())
@pytest.mark.parametrize("before", [b"", b"NOOP\r\n", b"MAIL FROM:<kim@example.com>\r\n"])
def test_what_is_sent_with_starttls_is_discarded(starttls, before, injected):
    with TLSClient(starttls) as client:
        client.send(before + b"STARTTLS\r\n" + injected)
        for _ in range(before.count(b"\n")):
            assert client.reply().code == 250
        assert client.reply().code == 220
        client.secure()
        # The replies are to these commands, and to no others.
        assert client.command(b"STARTTLS").code == 503
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 503
        assert client.command(b"EHLO client.example").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503
        assert client.deliver(b"Subject: mine\r\n").code == 250
        assert client.command(b"QUIT").code == 221
        assert client.rest() == b""
    (message,) = starttls
    assert message.raw == b"Subject: mine\r\n"
    assert message.envelope[2:5] == ("client.example", "kim@example.com", ("lee@example.com",))
    assert message.envelope.auth_user is None


def test_what_is_sent_in_the_midst_of_starttls_is_discarded(starttls):
    stream = b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n"
    with TLSClient(starttls) as client:
        client.send_in_pieces(stream, [4, 9])
        assert client.reply().code == 220
        client.secure()
        assert client.command(b"EHLO client.example").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503


def test_the_session_begins_anew(starttls):
    with TLSClient(starttls) as client:
        assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
        session = starttls.sessions()[-1]
        assert (session.helo, session.auth_user) == ("client.example", "kim")
        assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
        assert client.command(b"RCPT TO:<lee@example.com>").code == 250
        client.starttls()
        session = starttls.sessions()[-1]
        assert session.tls == "TLSv1.3"
        assert session.helo is None
        assert session.auth_user is None
        for command in (
            b"DATA",
            b"RCPT TO:<lee@example.com>",
            b"MAIL FROM:<kim@example.com>",
            b"AUTH PLAIN AGtpbQBhIHNlY3JldA==",
        ):
            assert client.command(command).code == 503, command
        assert client.command(b"EHLO other.example").code == 250
        assert client.command(b"DATA").code == 503
        assert client.command(b"RCPT TO:<lee@example.com>").code == 503
        client.deliver(b"Subject: one\r\n")
        assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
        client.deliver(b"Subject: two\r\n")
    assert [m.envelope[2:5] + m.envelope[8:10] for m in starttls] == [
        ("other.example", "kim@example.com", ("lee@example.com",), "TLSv1.3", None),
        ("other.example", "kim@example.com", ("lee@example.com",), "TLSv1.3", "kim"),
    ]
    session = starttls.sessions()[-1]
    assert (session.helo, session.auth_user) == ("other.example", "kim")


def test_what_it_was_allowed_is_forgotten():
    with QueueController(tls="starttls", auth=LOGINS, auth_required=True) as controller:
        with TLSClient(controller) as client:
            assert client.command(b"AUTH PLAIN AGtpbQBhIHNlY3JldA==").code == 235
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 250
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.command(b"MAIL FROM:<kim@example.com>").code == 530
