"""LMTP in octets (RFC 2033): what is said, and what a test gets to read."""

from __future__ import annotations

import base64
import queue
import re

import pytest
from helpers import EVENT_LOOPS, LOGIN, connected, loop_name, only_message, serving
from raw_client import CONTENT, MESSAGE, Wire, ehlo, greeted, replies_by_lmtp, texts, to

from lazr_smtptest import (
    TLS,
    Controller,
    HandlerError,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
    __version__,
)

LEE, MOE, NED = "lee@example.com", "moe@example.com", "ned@example.com"
OK = "250 2.0.0 OK"


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def uvloop(request):
    return request.param


# How a session begins.


def test_greeting(server):
    with Wire(server) as wire:
        greeting = wire.reply().decode()
    assert greeting == f"220 localhost LMTP Python SMTP proxy version {__version__}\r\n"
    assert server.server.ident == greeting[14:-2]


def test_a_greeting_of_ones_own():
    with QueueController(lmtp=True, ident="ESMTP, or so") as server, Wire(server) as wire:
        assert wire.reply() == b"220 localhost ESMTP, or so\r\n"


def test_lhlo_is_told_what_ehlo_is(server):
    with QueueController("127.0.0.1", auth=dict([LOGIN])) as other:
        assert ehlo(server, b"LHLO") == ehlo(other)
    assert {"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} <= set(ehlo(server, b"LHLO"))


@pytest.mark.parametrize("command", [b"EHLO client.example", b"HELO client.example", b"EHLO"])
def test_ehlo_and_helo_are_no_commands(server, command):
    with Wire(server) as wire:
        wire.reply()
        verb = command[:4].decode()
        unknown = f'500 5.5.2 Error: command "{verb}" not recognized\r\n'
        assert wire.say(command).decode() == unknown
        assert wire.say(MESSAGE[0]) == b"503 5.5.1 Error: send LHLO first\r\n"
        assert wire.codes(b"LHLO client.example", MESSAGE[0]) == [250, 250]
        # Nor does one of them end a transaction.
        assert wire.say(command).decode() == unknown
        assert wire.codes(MESSAGE[1]) == [250]


def test_lhlo_is_no_command_of_smtp():
    with QueueController() as server, greeted(server) as wire:
        assert wire.say(b"LHLO x") == b'500 5.5.2 Error: command "LHLO" not recognized\r\n'


def test_lhlo_comes_first_and_has_a_name(server):
    with Wire(server) as wire:
        wire.reply()
        assert wire.codes(*MESSAGE, b"AUTH PLAIN") == [503] * 4
        assert wire.say(b"LHLO") == b"501 Syntax: LHLO hostname\r\n"
        assert wire.codes(MESSAGE[0], b"lhlo x", *MESSAGE) == [503, 250, 250, 250, 354]


def test_help(server):
    with greeted(server) as wire:
        (commands,) = texts(wire.say(b"HELP"))
        assert {"LHLO", "MAIL"} <= set(commands.split())
        assert not {"EHLO", "HELO"} & set(commands.split())
        assert wire.say(b"HELP LHLO") == b"214 2.0.0 Syntax: LHLO hostname\r\n"


# One reply for each recipient.


def test_a_reply_for_each(server):
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, LEE, MOE, NED) == [OK] * 3
        envelope = only_message(server).envelope
        assert (envelope.rcpt_tos, envelope.rcpt_refused) == ((LEE, MOE, NED), ())
        # Nothing comes behind them, and the next message is none the wiser.
        assert wire.say(b"NOOP") == b"250 2.0.0 OK\r\n"
        assert wire.codes(MESSAGE[2]) == [503]
        assert replies_by_lmtp(wire, MOE) == [OK]
        assert only_message(server).envelope.rcpt_tos == (MOE,)


def test_one_recipient_twice_has_two_replies(server):
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, LEE, MOE, LEE) == [OK] * 3
        assert only_message(server).envelope.rcpt_tos == (LEE, MOE, LEE)
        assert wire.codes(b"RSET") == [250]


def test_who_was_refused_by_rcpt_has_none(server):
    server.fault("RCPT", "550 5.1.1 No", when="moe@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, LEE, MOE, NED) == [OK] * 2
        assert wire.codes(b"RSET") == [250]
    envelope = only_message(server).envelope
    assert (envelope.rcpt_tos, envelope.rcpt_refused) == ((LEE, NED), ())


def test_data_with_no_recipient(server):
    server.fault("RCPT", "550 5.1.1 No", when="moe@*")
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0], to(MOE), b"DATA", to(LEE), b"DATA") == [
            250,
            550,
            503,
            250,
            354,
        ]


def test_many_recipients_in_one_piece(server):
    recipients = [f"{n}@example.com" for n in range(500)]
    commands = [MESSAGE[0], *map(to, recipients), MESSAGE[2]]
    with greeted(server) as wire:
        wire.sock.sendall(b"\r\n".join(commands) + b"\r\n")
        assert [wire.reply()[:3] for _ in commands] == [b"250"] * 501 + [b"354"]
        # Commands may follow the content, and are answered behind it.
        wire.sock.sendall(CONTENT + b"\r\nNOOP\r\nVRFY kim\r\n")
        assert [wire.reply()[:3] for _ in range(502)] == [b"250"] * 501 + [b"252"]
    assert only_message(server).envelope.rcpt_tos == tuple(recipients)
    (session,) = server.sessions()
    assert session.noticed == ()


def test_content_that_does_not_wait_for_its_354(server):
    with greeted(server) as wire:
        commands = [MESSAGE[0], to(LEE), to(MOE), b"DATA", CONTENT, b"QUIT"]
        wire.sock.sendall(b"\r\n".join(commands) + b"\r\n")
        codes = re.findall(rb"^(\d+) ", wire.rest(), re.M)
        assert codes == [b"250", b"250", b"250", b"354", b"250", b"250", b"221"]
    (session,) = server.sessions()
    assert session.noticed == ("early-talk",)
    assert only_message(server).envelope.rcpt_tos == (LEE, MOE)


@pytest.mark.parametrize("kind", ["plain", "handled", "theirs"])
def test_the_message_is_there_when_the_first_reply_is(kind, uvloop):
    class Handled(QueueServer):
        def handle_message(self, message):
            super().handle_message(message)

    theirs, ours = queue.Queue(), MessageQueue()
    made = {
        "plain": lambda: QueueServer("localhost", 0, ours, lmtp=True),
        "handled": lambda: Handled("localhost", 0, ours, lmtp=True),
        "theirs": lambda: QueueServer("localhost", 0, theirs, lmtp=True),
    }
    with Controller(made[kind](), uvloop=uvloop) as server:
        fault = server.fault("EOM", delay=3600, when="moe@*")
        with greeted(server) as wire:
            wire.codes(MESSAGE[0], to(LEE), to(MOE), MESSAGE[2])
            assert wire.say(CONTENT) == b"250 2.0.0 OK\r\n"
            message = (theirs if kind == "theirs" else ours).get_nowait()
            assert message.envelope.rcpt_tos == (LEE, MOE)
            assert fault.fired == 1


def test_each_start_method(start_method):
    with QueueController(lmtp=True, start_method=start_method) as server:
        server.fault("EOM", "550 5.1.1 No", when="lee@*")
        with greeted(server) as wire:
            assert replies_by_lmtp(wire, LEE, MOE) == ["550 5.1.1 No", OK]
        assert only_message(server).envelope.rcpt_refused == (LEE,)


# What refuses a message refuses it once for each.


@pytest.mark.parametrize(
    ("content", "options", "reply"),
    [
        (b"x" * 90 + b"\r\n", {"data_size_limit": 80}, "552 5.3.4 Error: Too much mail data"),
        (b"x" * 90 + b"\r\n", {"line_length_limit": 80}, "500 5.5.2 Line too long (see "),
        ("é\r\n".encode(), {"hide": ["8BITMIME"]}, "554 5.6.1 Error: 8-bit content, "),
    ],
)
def test_content_that_is_refused(content, options, reply, uvloop):
    with QueueController(lmtp=True, uvloop=uvloop, **options) as server:
        fault = server.fault("EOM", "550 5.1.1 No", when="moe@*")
        with greeted(server) as wire:
            first, second, third = replies_by_lmtp(wire, LEE, MOE, NED, content=content + b".")
            assert first.startswith(reply)
            assert (second, third) == ("550 5.1.1 No", first)
            assert replies_by_lmtp(wire, NED, content=b".") == [OK]
        assert only_message(server).envelope.rcpt_tos == (NED,)
        assert fault.fired == 1


class Deciding(QueueServer):
    """Does what the subject says."""

    def handle_message(self, message):
        if message["subject"].startswith("raise"):
            raise ValueError(message["subject"])
        super().handle_message(message)
        return "250 2.1.5 Fine,\nthanks" if "fine" in message["subject"] else message["subject"]


def about(subject: str) -> bytes:
    return f"Subject: {subject}\r\n\r\n.".encode()


def test_a_reply_of_the_handler_is_for_each(uvloop):
    with serving(Deciding, lmtp=True, uvloop=uvloop) as server, greeted(server) as wire:
        messages = server.server.queue
        said = replies_by_lmtp(wire, LEE, MOE, content=about("553 5.7.1 No"))
        assert said == ["553 5.7.1 No"] * 2
        assert messages.empty()
        said = replies_by_lmtp(wire, LEE, MOE, content=about("fine"))
        assert said == ["250-2.1.5 Fine,\r\n250 thanks"] * 2
        assert messages.get_nowait().envelope.rcpt_tos == (LEE, MOE)
        # It is asked about those whom no fault refuses.
        server.fault("EOM", "550 5.1.1 Gone", when="lee@*", times=1)
        said = replies_by_lmtp(wire, LEE, MOE, content=about("fine"))
        assert said == ["550 5.1.1 Gone", "250-2.1.5 Fine,\r\n250 thanks"]
        assert messages.get_nowait().envelope.rcpt_tos == (MOE,)
        said = replies_by_lmtp(wire, LEE, MOE, content=about("raise this"))
        assert said == ["451 4.3.0 Error: (ValueError) raise this"] * 2
        with pytest.raises(HandlerError, match="raised ValueError: raise this"):
            messages.get_nowait()
        assert messages.empty()


def test_421_is_said_once(uvloop):
    with serving(Deciding, lmtp=True, uvloop=uvloop) as server, greeted(server) as wire:
        said = replies_by_lmtp(wire, LEE, MOE, content=about("421 4.3.2 Off"))
        assert said == ["421 4.3.2 Off", ""]


# Hooks of aiosmtpd.


class Hooked(Server):
    """Returns by ``handle_DATA`` what the content is."""

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return [*responses[:-1], "250-XHOOKED", responses[-1]]

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == NED:
            return "550 5.1.1 Not by this hook"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 By this hook"

    async def handle_DATA(self, server, session, envelope):
        text = envelope.content.decode()
        if text.startswith("raise"):
            raise ValueError(text.strip())
        return text.format(*envelope.rcpt_tos).strip()


def test_hooks(uvloop):
    controller = Controller(Hooked(lmtp=True), uvloop=uvloop)
    with controller as server, greeted(server) as wire:
        assert "XHOOKED" in ehlo(server, b"LHLO")
        said = replies_by_lmtp(wire, LEE, NED, MOE, content=b"250 One for all\r\n.")
        assert said == ["250 One for all"] * 2
        said = replies_by_lmtp(wire, LEE, MOE, content=b"250-One\r\n250 for all\r\n.")
        assert said == ["250-One\r\n250 for all"] * 2
        # As handlers do whose server is aiosmtpd's own LMTP.
        said = replies_by_lmtp(wire, LEE, MOE, content=b"250 {0}\r\n550-{1}\r\n550 No\r\n.")
        assert said == [f"250 {LEE}", f"550-{MOE}\r\n550 No"]
        server.fault("EOM", "550 5.1.1 Gone", when="lee@*", times=1)
        said = replies_by_lmtp(wire, LEE, MOE, content=b"250 {0}\r\n.")
        assert said == ["550 5.1.1 Gone", f"250 {MOE}"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"raise this", "raise this"),
        (b"250 a\r\n250 b\r\n250 c", "one reply, or one for each recipient, 2 here, not 3"),
    ],
)
def test_a_hook_that_fails(content, why, uvloop):
    controller = Controller(Hooked(lmtp=True), uvloop=uvloop)
    with pytest.raises(HandlerError, match=why), controller as server:
        with greeted(server) as wire:
            said = replies_by_lmtp(wire, LEE, MOE, content=content + b"\r\n.")
            assert [reply[:29] for reply in said] == ["451 4.3.0 Error: (ValueError)"] * 2
            # The transaction is over.
            assert replies_by_lmtp(wire, LEE, content=b"250 ok\r\n.") == ["250 ok"]
        server.stop()


def test_a_hook_that_fails_ends_the_transaction_by_smtp_too(uvloop):
    with pytest.raises(HandlerError, match="raise this"):
        with Controller(Hooked(), uvloop=uvloop) as server:
            with greeted(server) as wire:
                assert wire.codes(*MESSAGE) == [250, 250, 354]
                assert wire.say(b"raise this\r\n.").startswith(b"451 4.3.0 Error: (ValueError)")
                assert wire.codes(*MESSAGE) == [250, 250, 354]
            server.stop()


def test_a_hook_of_smtp_returns_what_it_likes(uvloop):
    with Controller(Hooked(), uvloop=uvloop) as server, greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        assert wire.say(b"250 a\r\n250 b\r\n.") == b"250 a\r\n"
        assert wire.reply() == b"250 b\r\n"


# All else is as in SMTP.


def test_tls_comes_first_where_it_is_required(uvloop):
    tls = TLS("starttls", required=True)
    with QueueController(lmtp=True, tls=tls, uvloop=uvloop) as server:
        with Wire(server) as wire:
            wire.reply()
            assert wire.codes(b"MAIL", b"EHLO x") == [530, 500]
            assert "STARTTLS" in texts(wire.say(b"LHLO x"))
            assert wire.say(MESSAGE[0]).startswith(b"530 5.7.0 Must issue a STARTTLS")
            assert wire.codes(b"NOOP", b"VRFY kim", b"QUIT") == [250, 530, 221]


def test_a_login(server):
    secret = base64.b64encode("\0".join(("", *LOGIN)).encode())
    with greeted(server) as wire:
        assert wire.codes(b"AUTH PLAIN " + secret) == [235]
        assert replies_by_lmtp(wire, LEE, MOE) == [OK, OK]
    assert only_message(server).envelope.auth_user == LOGIN[0]


def test_parameters(server):
    with greeted(server) as wire:
        mail = b"MAIL FROM:<k\xc3\xa9m@example.com> SMTPUTF8 BODY=8BITMIME SIZE=100 RET=HDRS"
        rcpt = b"RCPT TO:<l\xc3\xa9e@example.com> NOTIFY=NEVER"
        assert wire.codes(mail, rcpt, to(MOE), b"DATA") == [250, 250, 250, 354]
        wire.sock.sendall("Subject: é\r\n\r\né\r\n.\r\n".encode())
        assert [wire.reply(), wire.reply()] == [b"250 2.0.0 OK\r\n"] * 2
    envelope = only_message(server).envelope
    assert envelope.rcpt_tos == ("lée@example.com", MOE)
    assert envelope.notify == (("NEVER",), None)
    assert (envelope.smtp_utf8, envelope.body, envelope.size) == (True, "8BITMIME", 100)


def test_hidden_extensions():
    with QueueController(lmtp=True, hide=["PIPELINING", "ENHANCEDSTATUSCODES"]) as server:
        assert not {"PIPELINING", "ENHANCEDSTATUSCODES"} & set(ehlo(server, b"LHLO"))
        with greeted(server) as wire:
            assert wire.say(b"EHLO x").startswith(b"500 Error")
            wire.sock.sendall(b"\r\n".join([MESSAGE[0], to(LEE), b""]))
            assert [wire.reply(), wire.reply()] == [b"250 OK\r\n"] * 2
        assert "early-talk" in server.sessions()[-1].noticed


def test_a_session(server):
    with greeted(server) as wire:
        replies_by_lmtp(wire, LEE, MOE)
        wire.say(b"QUIT")
    (session,) = server.sessions()
    assert session.helo == "client.example"
    assert session.problems == ()
    verbs = [command.verb for command in session.commands]
    assert verbs == ["LHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]
    assert [str(line)[9:] for line in session.dialogue[-5:]] == [
        f"* {len(CONTENT) - 1} octets of content",
        "S 250 2.0.0 OK",
        "S 250 2.0.0 OK",
        "C QUIT",
        "S 221 2.0.0 Bye",
    ]


def test_restart_with_the_other_protocol():
    with QueueController() as server:
        server.restart(lmtp=True)
        assert server.server.lmtp
        with greeted(server) as wire:
            assert replies_by_lmtp(wire, LEE, MOE) == [OK, OK]
        server.restart(lmtp=False)
        with connected(server) as client:
            assert client.ehlo()[0] == 250
            assert "ESMTP" in server.server.ident


@pytest.mark.smtptest(lmtp=True)
def test_the_fixture(smtptest):
    smtptest.fault("EOM", "550 5.1.1 No", when="lee@*")
    with greeted(smtptest) as wire:
        assert replies_by_lmtp(wire, LEE, MOE) == ["550 5.1.1 No", OK]
    assert smtptest.wait(timeout=10, rcpt=MOE).envelope.rcpt_refused == (LEE,)


def test_what_the_envelope_is_by_smtp():
    with QueueController() as server, greeted(server) as wire:
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
        assert only_message(server).envelope.rcpt_refused == ()
