"""DSN: the parameters that ask for delivery status notifications, and where they end up."""

from __future__ import annotations

import pytest
from raw_client import CONTENT, MAIL, MESSAGE, RCPT, Wire, greeted


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
        # What is not printable stays as it was sent.
        ("ENVID=a+0D+0Ab", "a+0D+0Ab"),
        ("ENVID=+00+7F+85", "+00+7F+85"),
    ],
)
def test_envid(server, sent, envid):
    envelope = dsn(server, sent, "<lee@example.com>")
    assert envelope.envid == envid
    assert envelope.mail_options == (sent,)


@pytest.mark.parametrize(("sent", "ret"), [("RET=HDRS", "HDRS"), ("ret=full", "FULL"), ("", None)])
def test_ret(server, sent, ret):
    assert dsn(server, sent, "<lee@example.com>").ret == ret


@pytest.mark.parametrize(
    ("sent", "orcpt"),
    [
        ("rfc822;Lee+2Bx@example.com", "rfc822;Lee+x@example.com"),
        ("rfc822;a+0Ab@example.com", "rfc822;a+0Ab@example.com"),
        ("rfc822;+C3+B6@example.com", "rfc822;Ã¶@example.com"),
        # RFC 6533, 3.
        (r"utf-8;j\x{F6}rg@example.com", "utf-8;jörg@example.com"),
        (r"UTF-8;\x{4E16}\x{1F600}@example.com", "UTF-8;世😀@example.com"),
        (r"utf-8;a\x{2B}b+3Dc@example.com", "utf-8;a+b=c@example.com"),
        (r"utf-8;a\x{0A}b@example.com", r"utf-8;a\x{0A}b@example.com"),
        (r"utf-8;\x{D800}\x{110000}@example.com", r"utf-8;\x{D800}\x{110000}@example.com"),
        (r"rfc822;j\x{F6}rg@example.com", r"rfc822;j\x{F6}rg@example.com"),
    ],
)
def test_orcpt(server, sent, orcpt):
    envelope = dsn(server, "", f"<lee@example.com> ORCPT={sent}")
    assert envelope.orcpt == (orcpt,)
    assert envelope.rcpt_options == (f"ORCPT={sent}",)


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
