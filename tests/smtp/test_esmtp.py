"""ESMTP's extensions: what is promised is kept, and what is hidden is not there."""

from __future__ import annotations

import re
import socket
import time

import pytest
from helpers import EVENT_LOOPS, LOGIN, fresh, loop_name, send_to
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_client import COMMANDS, CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import QueueController, QueueServer

EXTENSIONS = {
    "SIZE": "SIZE 33554432",
    "8BITMIME": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "STARTTLS": "STARTTLS",
    "AUTH": "AUTH CRAM-MD5 LOGIN PLAIN XOAUTH2",
    "PIPELINING": "PIPELINING",
    "ENHANCEDSTATUSCODES": "ENHANCEDSTATUSCODES",
    "DSN": "DSN",
    "HELP": "HELP",
}


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


def texts(reply: bytes) -> list[str]:
    """Take a reply of several lines apart, and see to its form."""
    lines = reply.decode().split("\r\n")
    assert lines.pop() == ""
    assert all(line[:4] == f"{lines[0][:3]}-" for line in lines[:-1])
    assert lines[-1][:4] == f"{lines[0][:3]} "
    return [line[4:] for line in lines]


def ehlo(controller) -> list[str]:
    with Wire(controller) as wire:
        wire.reply()
        return texts(wire.say(b"EHLO x"))


# EHLO.


def test_all_lines_in_order(server):
    assert ehlo(server) == ["localhost", *EXTENSIONS.values()]
    with greeted(server) as wire:  # and once more
        assert texts(wire.say(b"ehlo y")) == ["localhost", *EXTENSIONS.values()]


@pytest.mark.parametrize(
    "hide", [(name,) for name in EXTENSIONS] + [tuple(EXTENSIONS), ("size", "Dsn")]
)
def test_hidden_ones_are_not_told_of(hide):
    with QueueController("127.0.0.1", tls="starttls", auth=dict([LOGIN]), hide=hide) as controller:
        left = [line for name, line in EXTENSIONS.items() if name not in {*map(str.upper, hide)}]
        assert ehlo(controller) == ["localhost", *left]
        send_to(controller, "hello")
        assert controller.queue.qsize() == 1


def test_what_the_server_does_not_have_is_not_told_of():
    with QueueController("127.0.0.1", data_size_limit=None, hostname="mx.example") as controller:
        assert ehlo(controller) == [
            "mx.example",
            "8BITMIME",
            "SMTPUTF8",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "HELP",
        ]


MAIL = b"MAIL FROM:<kim@example.com> "
RCPT = b"RCPT TO:<lee@example.com> "


@pytest.mark.parametrize(
    ("hide", "lines", "code"),
    [
        ("SIZE", [MAIL + b"SIZE=10"], 555),
        ("SIZE", [b"MAIL FROM:kim@example.com SIZE=10"], 555),
        ("8BITMIME", [MAIL + b"BODY=8BITMIME"], 555),
        ("8BITMIME", [MAIL + b"BODY=7BIT"], 555),
        ("8BITMIME", [b"MAIL FROM:kim@example.com BODY=8BITMIME"], 555),
        ("SMTPUTF8", [MAIL + b"SMTPUTF8"], 555),
        ("DSN", [MAIL + b"RET=HDRS"], 555),
        ("DSN", [MAIL + b"ENVID=a"], 555),
        ("DSN", [MAIL, RCPT + b"NOTIFY=NEVER"], 555),
        ("DSN", [MAIL, RCPT + b"ORCPT=rfc822;a@b.c"], 555),
        ("AUTH", [MAIL + b"AUTH=<>"], 555),
        ("AUTH", [b"AUTH PLAIN"], 500),
        ("AUTH", [b"AUTH CRAM-MD5"], 500),
        ("STARTTLS", [b"STARTTLS"], 500),
        ("HELP", [b"HELP"], 500),
        # What is not hidden works on.
        ("SMTPUTF8", [MAIL + b"SIZE=10 BODY=8BITMIME RET=FULL AUTH=<>"], 250),
        ("PIPELINING", [MAIL + b"SIZE=10 BODY=8BITMIME RET=FULL SMTPUTF8"], 250),
        ("HELP", [b"AUTH PLAIN AGtpbQB3cmVuLWFuZC1yb2Jpbg=="], 235),
    ],
)
def test_hidden_ones_are_refused(hide, lines, code):
    with QueueController(
        "127.0.0.1", tls="starttls", auth=dict([LOGIN]), hide=(hide,)
    ) as controller:
        with greeted(controller) as wire:
            *before, last = wire.codes(*(line.strip() for line in lines))
            assert set(before) <= {250}
            assert last == code
            assert wire.codes(b"RSET", *MESSAGE, CONTENT) == [250, 250, 250, 354, 250]


def test_a_hidden_command_is_not_helped_with():
    with QueueController(
        "127.0.0.1", tls="starttls", auth=dict([LOGIN]), hide=("AUTH", "STARTTLS")
    ) as controller:
        with greeted(controller) as wire:
            reply = wire.say(b"HELP")
            assert b"MAIL" in reply
            assert b"AUTH" not in reply
            assert b"STARTTLS" not in reply


# SIZE, 8BITMIME, SMTPUTF8.


@pytest.mark.parametrize("hide", [(), ("SIZE",)])
@pytest.mark.parametrize("way", ["quick", "slow"])
def test_size(hide, way):
    with QueueController("127.0.0.1", data_size_limit=1000, hide=hide) as controller:
        if way == "slow":
            controller.fault("NOOP", "450 4.0.0 No", when="nobody")
        with greeted(controller) as wire:
            declared = wire.codes(*(MAIL + b"SIZE=%d" % n for n in (1001, 10**18 - 1, 10**19)))
            assert declared == [555 if hide else 552] * 3
            for octets, code in ((1000, 250), (1001, 552), (200_000, 552), (1000, 250)):
                content = (b"x" * 98 + b"\r\n") * (octets // 100)
                content += b"y" * max(octets % 100 - 2, 0)
                content = content if octets % 100 else content[:-2]
                if octets == 1001:
                    content = content[:-1] + b"y" if content.endswith(b"\n") else content
                    content = b"z" + (b"x" * 98 + b"\r\n") * 9 + b"x" * 98
                assert len(content) + 2 == octets
                assert wire.codes(*MESSAGE, content + b"\r\n.") == [250, 250, 354, code]
        assert [len(m.raw) for m in controller] == [1000, 1000]


@pytest.mark.parametrize(
    ("options", "body", "size", "utf8"),
    [
        (b"", "7BIT", None, False),
        (b"BODY=8BITMIME", "8BITMIME", None, False),
        (b"body=8bitmime size=100", "8BITMIME", 100, False),
        (b"BODY=7BIT", "7BIT", None, False),
        (b"SIZE=0", "7BIT", 0, False),
        (b"SMTPUTF8", "7BIT", None, True),
        (b"SMTPUTF8 BODY=8BITMIME SIZE=5", "8BITMIME", 5, True),
    ],
)
@pytest.mark.parametrize("way", ["quick", "slow"])
def test_mail_parameters(server, way, options, body, size, utf8):
    if way == "slow":
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    with greeted(server) as wire:
        assert wire.codes((MAIL + options).strip(), *MESSAGE[1:], CONTENT) == [250, 250, 354, 250]
    envelope = server.queue.get_nowait().envelope
    assert (envelope.body, envelope.size, envelope.smtp_utf8) == (body, size, utf8)
    assert (envelope.ret, envelope.envid) == (None, None)
    assert envelope.notify == envelope.orcpt == (None,)
    assert envelope.mail_options == tuple(options.decode().upper().split())


@pytest.mark.parametrize(
    "body", ["BODY=BINARYMIME", "BODY=", "BODY", "SMTPUTF8=1", "SIZE=x", "FOO=1"]
)
def test_mail_parameters_that_are_none(server, body):
    with greeted(server) as wire:
        assert wire.codes(MAIL + body.encode())[0] in (501, 504, 555)
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    assert server.queue.get_nowait().envelope.mail_options == ()


def test_smtputf8(server):
    with greeted(server) as wire:
        lines = [
            "MAIL FROM:<jürgen@bücher.example> SMTPUTF8",
            "RCPT TO:<用户@例子.example>",
            "DATA",
        ]
        assert wire.codes(*(line.encode() for line in lines)) == [250, 250, 354]
        assert wire.codes("Subject: Grüße\r\n\r\nHallo, 世界\r\n.".encode()) == [250]
    message = server.queue.get_nowait()
    assert message.envelope.mail_from == "jürgen@bücher.example"
    assert message.envelope.rcpt_tos == ("用户@例子.example",)
    assert message.envelope.smtp_utf8
    assert message["Subject"] == "Grüße"
    assert "世界".encode() in message.raw


@pytest.mark.parametrize("path", ["<@>", "<kim@", "<kim@@example.com>"])
def test_malformed_addresses(server, path):
    """Also those that the parser of an older Python stumbles over."""
    with greeted(server) as wire:
        assert wire.say(f"MAIL FROM:{path}".encode()).startswith(b"553 5.1.3 ")
        assert wire.codes(MESSAGE[0], f"RCPT TO:{path}".encode()) == [250, 553]


# Enhanced status codes.

EVERYTHING = [
    *(command for command in COMMANDS if b"client.example" not in command),
    b"RCPT TO:<lee@example.com> FOO=1",
    b"MAIL FROM:<kim@example.com> RET=BOTH",
    b"MAIL FROM:<@>",
    b"EXPN list",
    b"HELP",
    b"HELP FOO",
    b"VRFY",
    b"VRFY <kim@example.com>",
    b"FOO",
    b"\xff\xff",
    b"NOOP " + b"x" * 600,
    b"NOOP " + b"x" * 20_000,
    b"QUIT now",
    b"RSET now",
    b"AUTH",
    b"AUTH FOO",
    b"AUTH PLAIN a b",
    b"AUTH PLAIN ====",
    b"AUTH PLAIN AGEAYg==",
    b"AUTH PLAIN AGtpbQB3cmVuLWFuZC1yb2Jpbg==",
    b"STARTTLS now",
    b"QUIT",
]

ENHANCED = re.compile(r"([245])[0-9]{2} \1\.[0-9]{1,3}\.[0-9]{1,3}(?: .*)?")
LOOKS_ENHANCED = re.compile(r"[0-9]{3}[ -][245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |\Z)")


def everything(controller) -> list[tuple[bytes, bytes]]:
    """Have a server say all that it can say; give commands and replies."""
    said = []
    for start in (b"NOOP", b"EHLO client.example", b"HELO client.example"):
        commands = [start]
        for command in EVERYTHING:
            # Each of them: as it is, after MAIL, and after RCPT.
            commands += [
                command,
                b"RSET",
                MESSAGE[0],
                command,
                b"RSET",
                *MESSAGE[:2],
                command,
                b"RSET",
            ]
        wire = Wire(controller)
        greeting = wire.reply()
        assert greeting.startswith(b"220")
        wire.say(start)
        unknown = 0
        for command in commands:
            head, _, content = command.partition(b"\r\n")
            reply = wire.say(head)
            said.append((head, reply))
            if reply.startswith(b"354"):
                said.append((b"EOM", wire.say(content)))
            elif reply.startswith(b"334"):
                said.append((b"AUTH", wire.say(b"*")))
            unknown += b"not recognized" in reply
            if head == b"QUIT" or unknown > 10 or not reply:
                wire.close()
                wire = Wire(controller)
                wire.reply()
                wire.say(start)
                unknown = 0
        wire.close()
    return said


def test_every_reply_has_an_enhanced_code():
    with QueueController(
        "127.0.0.1", auth=dict([LOGIN]), recipient_limit=1, data_size_limit=10_000
    ) as controller:
        said = everything(controller)
    codes = set()
    for command, reply in said:
        verb = command.split(b" ")[0].upper()
        for line in reply.decode().splitlines():
            codes.add(line[:3])
            if line[0] == "3" or verb in (b"EHLO", b"HELO"):
                assert not LOOKS_ENHANCED.match(line), (command, line)
            else:
                assert ENHANCED.fullmatch(line), (command, line)
    assert codes >= set("221 235 250 252 334 354 452 500 501 502 503 504 535 552 553 555".split())  # noqa: SIM905


def test_no_reply_has_one_when_hidden():
    with QueueController(
        "127.0.0.1",
        auth=dict([LOGIN]),
        recipient_limit=1,
        data_size_limit=10_000,
        hide=("ENHANCEDSTATUSCODES",),
    ) as controller:
        said = everything(controller)
    assert {(c[:40], r) for c, r in said if LOOKS_ENHANCED.match(r.decode())} == set()


def test_no_reply_has_one_when_hidden_and_all_is_refused():
    with QueueController("127.0.0.1", hide=("ENHANCEDSTATUSCODES",)) as controller:
        controller.fault("CONNECT", "554 No")
        with Wire(controller) as wire:
            wire.reply()
            assert not LOOKS_ENHANCED.match(wire.say(b"EHLO x").decode())


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"MAIL FROM:<kim@example.com>", b"250 2.1.0 OK"),
        (b"RCPT TO:<lee@example.com>", b"250 2.1.5 OK"),
        (b"DATA", b"354 End data with <CR><LF>.<CR><LF>"),
        (CONTENT, b"250 2.0.0 OK"),
        (b"RSET", b"250 2.0.0 OK"),
        (b"NOOP", b"250 2.0.0 OK"),
        (b"QUIT", b"221 2.0.0 Bye"),
    ],
)
def test_the_common_replies(server, line, reply):
    lines = [*MESSAGE, CONTENT, b"RSET", b"NOOP", b"QUIT"]
    for way in ("quick", "slow"):
        if way == "slow":
            server.fault("NOOP", "450 4.0.0 No", when="nobody")
        with greeted(server) as wire:
            replies = dict(zip(lines, map(wire.say, lines), strict=True))
        assert replies[line] == reply + b"\r\n"


# DSN.


def dsn(controller, mail: str, *rcpts: str):
    with greeted(controller) as wire:
        mail = f"MAIL FROM:<kim@example.com> {mail}".strip()
        codes = wire.codes(mail.encode(), *(f"RCPT TO:{r}".encode() for r in rcpts), b"DATA")
        assert codes[0] == 250
        assert codes[-1] == 354
        assert wire.codes(CONTENT) == [250]
    return controller.queue.get_nowait().envelope


@pytest.mark.parametrize(
    ("sent", "envid"),
    [
        ("ENVID=QQ314159", "QQ314159"),
        ("envid=MixedCase", "MixedCase"),
        ("ENVID=a+2Bb+3Dc", "a+b=c"),
        ("ENVID=+20", " "),
        ("ENVID=a+2B41", "a+41"),
        ("ENVID=" + "x" * 100, "x" * 100),
        ("ENVID=a>b", "a>b"),
        ("ENVID=<1@x>", "<1@x>"),
        ('ENVID=a(b)"c', 'a(b)"c'),
        ("ENVID=a/b@c;d", "a/b@c;d"),
    ],
)
def test_envid(server, sent, envid):
    envelope = dsn(server, sent, "<lee@example.com>")
    assert envelope.envid == envid
    assert envelope.mail_options == (sent,)


@pytest.mark.parametrize(("sent", "ret"), [("RET=HDRS", "HDRS"), ("ret=full", "FULL"), ("", None)])
def test_ret(server, sent, ret):
    assert dsn(server, sent, "<lee@example.com>").ret == ret


def test_all_parameters_together(server):
    envelope = dsn(
        server,
        "SIZE=30 RET=FULL BODY=8BITMIME ENVID=x SMTPUTF8 AUTH=kim+40example.com",
        "<lee@example.com> NOTIFY=SUCCESS,delay ORCPT=rfc822;Lee+2Bx@example.com",
    )
    assert (envelope.size, envelope.ret, envelope.body) == (30, "FULL", "8BITMIME")
    assert (envelope.envid, envelope.smtp_utf8) == ("x", True)
    assert set(envelope.mail_options) == {
        "SIZE=30",
        "RET=FULL",
        "BODY=8BITMIME",
        "ENVID=x",
        "SMTPUTF8",
        "AUTH=kim+40example.com",
    }
    assert envelope.notify == (("SUCCESS", "DELAY"),)
    assert envelope.orcpt == ("rfc822;Lee+x@example.com",)
    assert envelope.rcpt_parameters == (
        ("NOTIFY=SUCCESS,delay", "ORCPT=rfc822;Lee+2Bx@example.com"),
    )
    assert envelope.rcpt_options == envelope.rcpt_parameters[0]


def test_parameters_are_those_of_their_recipient(server):
    """Also where recipients before and between are refused, by whatever way."""
    server.fault("RCPT", "550 5.1.1 No", when="nobody*")
    server.fault("RCPT", "250 2.1.5 Sure", when="swallowed*")
    envelope = dsn(
        server,
        "",
        "<nobody1@example.com> NOTIFY=SUCCESS",
        "<ann@example.com>",
        "<bob@example.com> NOTIFY=NEVER",
        "<malformed@example.com> NOTIFY=NEVER,SUCCESS",
        "<swallowed@example.com> NOTIFY=DELAY",
        "bad address> NOTIFY=DELAY",
        "<cat@example.com>",
        "<unknown@example.com> FOO=1 NOTIFY=DELAY",
        "<dan@example.com> ORCPT=rfc822;dan@old.example NOTIFY=FAILURE,DELAY",
    )
    names = [f"{name}@example.com" for name in ("ann", "bob", "cat", "dan")]
    assert list(envelope.rcpt_tos) == names
    assert envelope.notify == (None, ("NEVER",), None, ("FAILURE", "DELAY"))
    assert envelope.orcpt == (None, None, None, "rfc822;dan@old.example")
    assert envelope.rcpt_parameters == (
        (),
        ("NOTIFY=NEVER",),
        (),
        ("ORCPT=rfc822;dan@old.example", "NOTIFY=FAILURE,DELAY"),
    )


def test_parameters_do_not_outlive_a_transaction(server):
    with greeted(server) as wire:
        wire.say(MAIL + b"RET=HDRS ENVID=x", RCPT + b"NOTIFY=NEVER", b"RSET")
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
        wire.say(MAIL + b"RET=HDRS ENVID=x", RCPT + b"NOTIFY=NEVER", b"DATA", CONTENT)
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    first, second, third = (message.envelope for message in server)
    for envelope in (first, third):
        assert (envelope.ret, envelope.envid, envelope.notify) == (None, None, (None,))
        assert envelope.rcpt_parameters == envelope.rcpt_options == envelope.mail_options == ()
    assert (second.ret, second.envid, second.notify) == ("HDRS", "x", (("NEVER",),))


@pytest.mark.parametrize(
    "parameters",
    [
        "RET=",
        "RET",
        "RET=BOTH",
        "RET=FULL RET=FULL",
        "RET=FULL ret=HDRS",
        "ENVID=",
        "ENVID",
        "ENVID=a+",
        "ENVID=a+2",
        "ENVID=a+2b",
        "ENVID=a=b",
        "ENVID=" + "x" * 101,
        "ENVID=a ENVID=a",
        "AUTH=",
        "AUTH=a+xx",
    ],
)
def test_malformed_parameters_of_mail(server, parameters):
    with greeted(server) as wire:
        assert wire.say(MAIL + parameters.encode()).startswith(b"501 5.5.4 ")
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY=",
        "NOTIFY",
        "NOTIFY=ALWAYS",
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,SUCCESS",
        "NOTIFY=SUCCESS,",
        "NOTIFY=,SUCCESS",
        "NOTIFY=NEVER NOTIFY=NEVER",
        "ORCPT=",
        "ORCPT=a@b.c",
        "ORCPT=rfc822;",
        "ORCPT=;a@b.c",
        "ORCPT=rfc822;a+4",
        "ORCPT=rfc822;a=b",
        "ORCPT=rfc822;a ORCPT=rfc822;a",
        "ORCPT=rfc822;" + "x" * 500,
    ],
)
def test_malformed_parameters_of_rcpt(server, parameters):
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0]) == [250]
        assert wire.say(RCPT + parameters.encode()).startswith(b"501 5.5.4 ")
        assert wire.codes(MESSAGE[1], b"DATA", CONTENT) == [250, 354, 250]
    assert server.queue.get_nowait().envelope.rcpt_parameters == ()


def test_parameters_at_the_wrong_command(server):
    with greeted(server) as wire:
        assert wire.codes(MAIL + b"NOTIFY=NEVER", MAIL + b"ORCPT=rfc822;a") == [555, 555]
        assert wire.codes(MESSAGE[0], RCPT + b"RET=FULL", RCPT + b"ENVID=a") == [250, 555, 555]


def test_parameters_after_helo(server):
    with Wire(server) as wire:
        wire.reply()
        assert wire.codes(b"HELO x", MAIL + b"RET=FULL", MAIL + b"SIZE=1") == [250, 501, 501]
        assert wire.codes(MESSAGE[0], RCPT + b"NOTIFY=NEVER") == [250, 501]
        assert wire.codes(*MESSAGE[1:], CONTENT) == [250, 354, 250]


def test_the_longest_commands(server):
    """As long as RFC 3461, 4.3 and 4.4 want them to be taken."""
    address = "x" * 60 + "@" + ".".join(["y" * 60] * 3) + ".example"
    with greeted(server) as wire:
        mail = f"MAIL FROM:<{address}> RET=HDRS ENVID={'e' * 100} SIZE=10 BODY=8BITMIME SMTPUTF8"
        orcpt = "rfc822;" + "o" * 493
        rcpt = f"RCPT TO:<{address}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={orcpt}"
        assert wire.codes(mail.encode(), rcpt.encode(), b"DATA", CONTENT) == [250, 250, 354, 250]
    envelope = server.queue.get_nowait().envelope
    assert envelope.orcpt == (orcpt,)
    assert envelope.envid == "e" * 100


# Hooks.


class Hooks(QueueServer):
    """Writes what its hooks see into what the client is told."""

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return f"250 {'|'.join(mail_options)}"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.startswith("nobody"):
            return "550 no enhanced code of mine"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(rcpt_options)
        return f"250 {'|'.join(rcpt_options)}"


class FourArguments(QueueServer):
    async def handle_EHLO(self, server, session, envelope, hostname):
        session.host_name = hostname
        return "250 FOUR"


class FiveArguments(QueueServer):
    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return [*responses[:-1], f"250-SEEN {len(responses)}", responses[-1]]


def serve(kind, **options) -> QueueController:
    class Serving(QueueController):
        def _make_server(self, host, port):
            self.server = kind(host, port, self.queue, **self.server_options)

    return Serving("127.0.0.1", **options)


def test_hooks_see_the_parameters():
    with serve(Hooks) as controller, greeted(controller) as wire:
        assert (
            wire.say(MAIL + b"RET=HDRS SIZE=10 ENVID=Abc") == b"250 SIZE=10|RET=HDRS|ENVID=Abc\r\n"
        )
        assert wire.say(b"RCPT TO:<nobody@example.com> NOTIFY=NEVER") == (
            b"550 no enhanced code of mine\r\n"
        )
        assert wire.say(RCPT + b"NOTIFY=NEVER") == b"250 NOTIFY=NEVER\r\n"
        assert wire.say(b"RCPT TO:<moe@example.com>") == b"250 \r\n"
        assert wire.codes(b"DATA", CONTENT) == [354, 250]
        envelope = controller.queue.get_nowait().envelope
    assert envelope.notify == (("NEVER",), None)
    assert (envelope.ret, envelope.envid, envelope.size) == ("HDRS", "Abc", 10)
    assert envelope.rcpt_options == ("NOTIFY=NEVER",)


def test_an_ehlo_hook_with_five_arguments():
    with serve(FiveArguments, auth=dict([LOGIN]), hide=("8BITMIME", "DSN")) as controller:
        assert ehlo(controller) == [
            "localhost",
            "SIZE 33554432",
            "SMTPUTF8",
            "AUTH CRAM-MD5 LOGIN PLAIN XOAUTH2",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "SEEN 7",
            "HELP",
        ]
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
        assert controller.sessions()[0].helo == "x"


def test_an_ehlo_hook_with_four_arguments():
    """Its reply comes behind the lines, and those are what the server has."""
    with serve(FourArguments, auth=dict([LOGIN]), hide=("8BITMIME", "DSN")) as controller:
        assert ehlo(controller) == [
            "localhost",
            "SIZE 33554432",
            "SMTPUTF8",
            "AUTH CRAM-MD5 LOGIN PLAIN XOAUTH2",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "FOUR",
        ]


# PIPELINING.

#: What may come in any order.  What is behind a CRLF is content, sent if it is
#: asked for; what is behind a bar is an answer to a challenge, likewise.
PIPELINED = [
    *COMMANDS,
    b"MAIL FROM:<kim@example.com> RET=HDRS ENVID=a+2Bb",
    b"MAIL FROM:<kim@example.com> RET=HDRS RET=FULL",
    b"MAIL FROM:<kim@example.com> AUTH=<> SIZE=1",
    b"MAIL FROM:<kim@example.com> ENVID=Case size=2 body=7bit",
    b"RCPT TO:<lee@example.com> ORCPT=rfc822;Lee@example.com NOTIFY=SUCCESS,DELAY",
    b"RCPT TO:<lee@example.com> NOTIFY=NEVER,DELAY",
    b"RCPT TO:<lee@example.com> FOO=1",
    b"AUTH PLAIN AGtpbQB3cmVuLWFuZC1yb2Jpbg==",
    b"AUTH PLAIN AGtpbQB3cm9uZw==",
    b"AUTH LOGIN|a2lt|d3Jlbi1hbmQtcm9iaW4=",
    b"AUTH PLAIN|MAIL FROM:<kim@example.com>",
    b"AUTH LOGIN|DATA|RCPT TO:<lee@example.com>",
    b"AUTH XOAUTH2|*",
    b"MAIL FROM:<" + b"x" * 500 + b"@example.com>",
    b"VRFY <kim@example.com>",
]


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def three_ways(request):
    """Servers of one kind; the second has the quick way switched off."""
    options = {"recipient_limit": 2, "data_size_limit": 100_000, "auth": dict([LOGIN])}
    with QueueController("127.0.0.1", uvloop=request.param, **options) as quick:
        with QueueController("127.0.0.1", uvloop=request.param, **options) as slow:
            yield quick, slow


def one_by_one(controller, commands: list[bytes]) -> tuple[bytes, bytes]:
    """Send each when the last was answered.

    :return: All replies, and all that was sent.
    """
    sent = []
    with Wire(controller, timeout=3) as wire:
        replies = wire.reply()

        def say(line: bytes) -> bytes:
            nonlocal replies
            sent.append(line + b"\r\n")
            reply = wire.say(line)
            replies += reply
            return reply

        for command in commands:
            command, *answers = command.split(b"|")
            head, crlf, content = command.partition(b"\r\n")
            reply = say(head)
            if crlf and reply.startswith(b"354"):
                say(content)
            for answer in answers:
                if reply.startswith(b"334"):
                    reply = say(answer)
            if not reply or not say(b"NOOP"):
                break
        say(b"QUIT")
        replies += wire.reply()
    return replies, b"".join(sent)


def in_pieces(controller, octets: bytes, cuts: list[int]) -> bytes:
    with Wire(controller, timeout=3) as wire:
        position = 0
        try:
            for cut in (*sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)):
                wire.sock.sendall(octets[position:cut])
                position = cut
        except ConnectionError:
            pass
        replies = b""
        while reply := wire.reply():
            replies += reply
    return replies


def arrived(controller) -> list[tuple]:
    return [(*m.envelope[2:8], *m.envelope[9:10], m.envelope[11], m.raw) for m in controller]


SETTINGS = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SETTINGS
@given(
    st.lists(st.sampled_from(PIPELINED), max_size=14),
    st.lists(st.integers(0, 10_000), max_size=5),
)
@example([b"EHLO x", b"AUTH PLAIN|MAIL FROM:<kim@example.com>", *MESSAGE[:2]], [])
@example([b"EHLO x", *MESSAGE[:2], b"DATA\r\nSubject: a\r\n\r\n."] * 3, [20, 70])
@example([b"EHLO x", b"MAIL FROM:<kim@example.com> RET=HDRS", *PIPELINED[34:36], b"DATA\r\n."], [])
def test_pipelined_is_as_one_by_one(three_ways, commands, cuts):
    quick, slow = three_ways
    for controller in three_ways:
        controller.reset()
    slow.fault("NOOP", "450 4.0.0 No", when="nobody")  # the quick way is off
    replies, sent = one_by_one(quick, commands)
    messages = arrived(quick)
    assert in_pieces(quick, sent, []) == replies
    assert arrived(quick) == messages
    assert in_pieces(quick, sent, cuts) == replies
    assert arrived(quick) == messages
    assert one_by_one(slow, commands) == (replies, sent)
    assert arrived(slow) == messages
    assert in_pieces(slow, sent, cuts) == replies
    assert arrived(slow) == messages


def test_several_transactions_in_one_packet(server):
    group = b"\r\n".join([*MESSAGE, CONTENT, b""])
    with greeted(server) as wire:
        wire.sock.sendall(group * 20 + b"QUIT\r\n")
        replies = [wire.reply()[:3] for _ in range(81)]
        assert wire.reply() == b""
    assert replies == [b"250", b"250", b"354", b"250"] * 20 + [b"221"]
    messages = list(server)
    assert [m["subject"] for m in messages] == ["wire"] * 20
    sequence = [m.envelope.sequence for m in messages]
    assert sequence == list(range(sequence[0], sequence[0] + 20))


def test_a_fault_that_is_made_between_two_packets(server):
    """From the quick way to the slow one and back, in the midst of a group."""
    with greeted(server) as wire:
        for number in range(20):
            wire.sock.sendall(MESSAGE[0] + b"\r\n" + MESSAGE[1] + b"\r\nDA")
            assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
            with server.fault("NOOP", "450 4.0.0 No", when="nobody"):
                wire.sock.sendall(b"TA\r\n")
                assert wire.reply().startswith(b"354")
                if number % 2:
                    wire.sock.sendall(CONTENT[:10])
            wire.sock.sendall((CONTENT[10:] if number % 2 else CONTENT) + b"\r\nNOOP\r\n")
            assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
    assert [m["subject"] for m in server] == ["wire"] * 20


def test_a_group_is_answered_in_one_packet(server):
    with greeted(server) as wire:
        whole = 0
        for _ in range(20):
            wire.sock.sendall(MESSAGE[0] + b"\r\n" + (MESSAGE[1] + b"\r\n") * 10 + b"DATA\r\n")
            received = wire.sock.recv(10_000)
            whole += received.count(b"\r\n") == 12
            while received.count(b"\r\n") < 12:
                received += wire.sock.recv(10_000)
            assert wire.say(CONTENT).startswith(b"250")
    assert whole > 10


def test_pipelining_is_not_slower(server):
    count = 500

    def by_groups() -> None:
        with greeted(server) as wire:
            for _ in range(count):
                wire.sock.sendall(b"\r\n".join([*MESSAGE, b""]))
                for _ in range(3):
                    wire.reply()
                wire.say(CONTENT)

    def by_commands() -> None:
        with greeted(server) as wire:
            for _ in range(count):
                wire.say(*MESSAGE, CONTENT)

    def timed(send) -> float:
        began = time.perf_counter()
        send()
        return time.perf_counter() - began

    ratios = []
    for _ in range(3):
        ratios.append(timed(by_commands) / timed(by_groups))
        if ratios[-1] >= 0.8:
            break
    assert max(ratios) >= 0.8, ratios
    assert server.queue.qsize() == len(ratios) * 2 * count


def test_a_client_that_pipelines_and_does_not_read(server):
    """It is answered when it reads, and nobody is held up meanwhile."""
    with greeted(server) as wire:
        wire.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(400):
                wire.sock.sendall((MESSAGE[0] + b"\r\nRSET\r\n") * 2000)
        assert ehlo(server)[0] == "localhost"
        wire.sock.shutdown(socket.SHUT_RDWR)
