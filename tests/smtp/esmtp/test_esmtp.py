"""ESMTP's extensions: what is promised is kept, and what is hidden is not there."""

from __future__ import annotations

import pytest
from helpers import LOGIN, send_to
from raw_client import CONTENT, MAIL, MESSAGE, RCPT, ehlo, greeted, texts

from lazr_smtptest import QueueController, QueueServer

EXTENSIONS = {
    "SIZE": "SIZE 33554432",
    "8BITMIME": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "STARTTLS": "STARTTLS",
    "AUTH": "AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2",
    "PIPELINING": "PIPELINING",
    "ENHANCEDSTATUSCODES": "ENHANCEDSTATUSCODES",
    "DSN": "DSN",
    "HELP": "HELP",
}


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
            "SIZE 0",
            "8BITMIME",
            "SMTPUTF8",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "HELP",
        ]


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
            "AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2",
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
            "AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "FOUR",
        ]
