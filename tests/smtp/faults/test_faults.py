"""Faults: what a test orders is what a client gets, and nothing else changes."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
import time

import pytest
from helpers import LOGIN, STAGES, connected, send, until
from programs import Failed
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import QueueController

# The grid.

KINDS = {
    "reject": {"reply": "550 5.7.1 No"},
    "later": {"reply": "451 4.7.1 Later"},
    "421": {"reply": "421 4.3.2 Closing"},
    "reject+drop": {"reply": "554 5.0.0 Go away", "drop": True},
    "delay": {"delay": 0.03},
    "before": {"drop": "before"},
    "instead": {"drop": "instead"},
    "after": {"drop": "after"},
}

#: Per stage: what smtplib sees of each kind.  "-" is SMTPServerDisconnected.
#: A number alone is a reply that smtplib gives back, and 250 for sendmail is
#: that it succeeds.
SEEN = {
    "CONNECT": "ConnectError  ConnectError  ConnectError  ConnectError  220 - - 220",
    "EHLO": "550           451           421           554           250 - - 250",
    "HELO": "550           451           421           554           250 - - 250",
    "STARTTLS": "ResponseException ResponseException ResponseException ResponseException"
    " 220 - - handshake",
    "AUTH": "AuthenticationError AuthenticationError AuthenticationError AuthenticationError"
    " 235 - - 235",
    "MAIL": "SenderRefused SenderRefused SenderRefused SenderRefused 250 - - -",
    "RCPT": "RecipientsRefused RecipientsRefused RecipientsRefused RecipientsRefused 250 - - -",
    "DATA": "DataError     DataError     DataError     DataError     250 - - -",
    "EOM": "DataError     DataError     DataError     DataError     250 - - 250",
    "RSET": "550           451           421           554           250 - - 250",
    "NOOP": "550           451           421           554           250 - - 250",
    "VRFY": "550           451           421           554           252 - - 252",
    "EXPN": "550           451           421           554           502 - - 502",
    "HELP": "550           451           421           554           214 - - 214",
    "QUIT": "550           451           421           554           221 - - 221",
}

#: The code that goes with an exception.
CODES = {"reject": 550, "later": 451, "421": 421, "reject+drop": 554}

#: Where a message is accepted all the same.
ACCEPTED = {
    ("MAIL", "delay"),
    ("RCPT", "delay"),
    ("DATA", "delay"),
    ("EOM", "delay"),
    ("EOM", "instead"),
    ("EOM", "after"),
}

#: How the session ends: Q for the client's QUIT, S and C for being dropped by
#: the server and the client.  smtplib itself hangs up when it is greeted by
#: anything but 220, and after QUIT, whatever the reply.
ENDED = dict.fromkeys(STAGES, "Q Q S S Q S S S") | {
    "CONNECT": "C C S S Q S S S",
    "QUIT": "C C S S Q S S Q",
}
HOW = {"Q": "QUIT", "S": "dropped by the server", "C": "dropped by the client"}

GRID = [
    (stage, kind, seen, ended)
    for stage in STAGES
    for kind, seen, ended in zip(KINDS, SEEN[stage].split(), ENDED[stage].split(), strict=True)
]


def visit(controller, stage: str) -> str:
    """Come to a stage, by way of smtplib; tell in a word what it makes of it."""
    client = None
    try:
        client = smtplib.SMTP(controller.host, controller.port, "client.example", timeout=10)
        return _visit(client, controller, stage)
    except smtplib.SMTPRecipientsRefused as error:
        ((code, _),) = error.recipients.values()
        return f"RecipientsRefused {code}"
    except smtplib.SMTPResponseException as error:
        return f"{type(error).__name__[4:]} {error.smtp_code}"
    except smtplib.SMTPServerDisconnected:
        return "-"
    except (ssl.SSLError, ConnectionError):
        return "handshake"
    finally:
        if client is not None:
            if client.sock is not None:
                with contextlib.suppress(OSError):
                    client.quit()
            client.close()


def _visit(client, controller, stage: str) -> str:
    if stage == "CONNECT":
        return "220"
    if stage in ("EHLO", "HELO"):
        return str(getattr(client, stage.lower())()[0])
    client.ehlo()
    if stage == "STARTTLS":
        code = client.starttls(context=controller.client_context())[0]
    elif stage == "AUTH":
        client.esmtp_features["auth"] = "PLAIN"
        code = client.login(*LOGIN)[0]
    elif stage in ("VRFY", "EXPN", "HELP"):
        code = client.docmd(stage, "MAIL")[0]
    elif stage in ("RSET", "NOOP", "QUIT"):
        code = getattr(client, stage.lower())()[0]
    else:
        send(client, "grid")
        code = 250
    return str(code)


@pytest.mark.parametrize(("stage", "kind", "seen", "ended"), GRID)
def test_grid(each_loop, stage, kind, seen, ended):
    each_loop.reset()
    fault = each_loop.fault(stage, **KINDS[kind])
    assert fault.fired == 0
    began = time.monotonic()
    expected = seen if kind not in CODES or seen.isdecimal() else f"{seen} {CODES[kind]}"
    assert visit(each_loop, stage) == expected
    assert time.monotonic() - began >= KINDS[kind].get("delay", 0.0)
    (session,) = until(lambda: [s for s in each_loop.sessions() if s.ended != "open"])
    assert session.ended == HOW[ended]
    accepted = each_loop.queue.qsize()
    assert accepted == ((stage, kind) in ACCEPTED)
    assert len(session.messages) == accepted
    assert fault.fired == 1
    # And the next one is none the wiser.
    fault.remove()
    assert visit(each_loop, stage) == SEEN[stage].split()[list(KINDS).index("delay")]
    assert fault.fired == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_reply_is_taken_down(each_loop, stage):
    each_loop.reset()
    each_loop.fault(stage, "553 5.1.1 Not at\nthis stage")
    visit(each_loop, stage)
    (session,) = each_loop.sessions()
    told = [line.text for line in session.dialogue if line.speaker == "S"]
    at = told.index("553-5.1.1 Not at")
    assert told[at + 1] == "553 this stage"


# Replies, to the octet.


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        ("550", b"550\r\n"),
        ("550 ", b"550\r\n"),
        ("550 No", b"550 No\r\n"),
        ("550-No", b"550 No\r\n"),
        ("550 No.\nNot ever.", b"550-No.\r\n550 Not ever.\r\n"),
        ("550 No.\r\nNot ever.", b"550-No.\r\n550 Not ever.\r\n"),
        ("550-No.\n550-Not ever.\n550 Never.", b"550-No.\r\n550-Not ever.\r\n550 Never.\r\n"),
        ("550 a\n\nb", b"550-a\r\n550-\r\n550 b\r\n"),
        ("550 a\n", b"550-a\r\n550\r\n"),
        ("550 no\ttab", b"550 no\ttab\r\n"),
        ("550 5.1.1 Kein Postfach für Bärbel", "550 5.1.1 Kein Postfach für Bärbel\r\n".encode()),
        ("451 日本\n語", "451-日本\r\n451 語\r\n".encode()),
        ("250 2.0.0 fine", b"250 2.0.0 fine\r\n"),
        ("559 highest", b"559 highest\r\n"),
        ("550 " + "x" * 600, b"550 " + b"x" * 600 + b"\r\n"),
    ],
)
def test_octets(server, reply, octets):
    with greeted(server) as wire:
        server.fault("NOOP", reply)
        assert wire.say(b"NOOP") == octets
        # Nothing comes behind it.
        assert wire.say(b"RSET") == b"250 2.0.0 OK\r\n"


def test_a_reply_gets_no_enhanced_code(server):
    with greeted(server) as wire:
        for stage in ("MAIL", "RSET", "NOOP"):
            server.fault(stage, "550 Plain")
        assert wire.say(b"MAIL FROM:<a@b.c>") == b"550 Plain\r\n"
        assert wire.say(b"RSET") == b"550 Plain\r\n"
        assert wire.say(b"NOOP") == b"550 Plain\r\n"


def test_the_greeting_in_octets(server):
    server.fault("CONNECT", "220-Hello\nand welcome", times=1)
    with Wire(server) as wire:
        assert wire.reply() == b"220-Hello\r\n220 and welcome\r\n"
        # A greeting of another kind, but a greeting.
        assert wire.codes(b"HELO x", *MESSAGE, CONTENT, b"QUIT") == [250, 250, 250, 354, 250, 221]
    assert server.queue.qsize() == 1


def test_after_another_greeting_all_is_refused_but_quit(server):
    """RFC 5321, 3.1: 503 to everything until QUIT."""
    server.fault("CONNECT", "554 No SMTP service here", times=1)
    with Wire(server) as wire:
        assert wire.reply() == b"554 No SMTP service here\r\n"
        commands = (b"EHLO x", b"HELO x", *MESSAGE, b"NOOP", b"RSET", b"AUTH PLAIN", b"FOO", b"")
        assert set(wire.codes(*commands)) == {503}
        assert wire.say(b"QUIT").startswith(b"221 ")
        assert wire.reply() == b""
    assert server.sessions()[0].ended == "QUIT"
    assert server.sessions()[0].helo is None
    with connected(server) as client:
        send(client, "welcome")


# `when`.


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "EOM"])
@pytest.mark.parametrize(
    ("when", "sender", "recipients", "stages"),
    [
        ("kim@example.com", "kim@example.com", ["lee@example.com"], "MAIL DATA EOM"),
        ("KIM@Example.Com", "kim@example.com", ["lee@example.com"], "MAIL DATA EOM"),
        ("kim@example.com", "KIM@EXAMPLE.COM", ["lee@example.com"], "MAIL DATA EOM"),
        ("*@example.com", "kim@example.com", ["lee@example.org"], "MAIL DATA EOM"),
        ("*@example.org", "kim@example.com", ["lee@example.org"], "RCPT DATA EOM"),
        ("l?e@*", "kim@example.com", ["lee@example.org"], "RCPT DATA EOM"),
        ("moe@*", "kim@example.com", ["lee@example.org", "moe@example.org"], "RCPT DATA EOM"),
        ("example.com", "kim@example.com", ["lee@example.com"], ""),
        ("*@example", "kim@example.com", ["lee@example.com"], ""),
        ("lee@*", "lee@example.com", ["kim@example.com"], "MAIL DATA EOM"),
        ("[kl]*", "kim@example.com", ["lee@example.com"], "MAIL RCPT DATA EOM"),
        ("", "", ["lee@example.com"], "MAIL DATA EOM"),
        ("", "kim@example.com", ["lee@example.com"], ""),
        ("bärbel@*", "BÄRBEL@example.com", ["lee@example.com"], "MAIL DATA EOM"),
    ],
)
def test_when_addresses(server, stage, when, sender, recipients, stages):
    fault = server.fault(stage, "550 5.7.1 No", when=when)
    with greeted(server) as wire:
        codes = wire.codes(
            f"MAIL FROM:<{sender}> SMTPUTF8".encode(),
            *(f"RCPT TO:<{recipient}>".encode() for recipient in recipients),
        )
        if 250 in codes[1:] and codes[0] == 250:
            codes += wire.codes(b"DATA")
            if codes[-1] == 354:
                codes += wire.codes(CONTENT)
    strikes = stage in stages.split()
    assert (550 in codes) == strikes
    assert fault.fired == strikes
    assert server.queue.qsize() == (not strikes or (stage == "RCPT" and len(recipients) > 1))


@pytest.mark.parametrize(
    ("line", "strikes"),
    [
        (b"MAIL FROM:<kim@example.com> SIZE=10 BODY=8BITMIME", True),
        (b"mail from: <kim@example.com>", True),
        (b"Mail From:kim@example.com", True),
        (b"MAIL  FROM:<kim@example.com>", True),
        (b"MAIL FROM:<jim@example.com> AUTH=kim@example.com", False),
        (b"MAIL", False),
    ],
)
def test_when_of_a_command_in_unusual_words(server, line, strikes):
    fault = server.fault("MAIL", "550 5.7.1 No", when="kim@example.com")
    with greeted(server) as wire:
        assert wire.say(line).startswith(b"550") == strikes
    assert fault.fired == strikes


@pytest.mark.parametrize(
    ("when", "path"),
    [
        ("kim@example.com", '<"kim"@example.com>'),
        ('"kim"@example.com', "<kim@example.com>"),
        ('"kim lee"@*', '<"kim lee"@example.com>'),
        ("kim lee@example.*", '<"kim\\ lee"@example.com>'),
        ("kim@[192.0.2.7]", "<kim@[192.0.2.7]>"),
        ("*@[192.0.2.7]", "<kim@[192.0.2.7]>"),
        ("kim@[IPv6:2001:DB8::7]", "<@example.com:kim@[ipv6:2001:db8::7]>"),
        ("kim@grün.example", "<kim@xn--grn-ioa.example>"),
        ("*@xn--grn-ioa.example", "<kim@GRÜN.example>"),
        ("<kim@example.com>", "kim@example.com"),
    ],
)
def test_when_is_an_address_however_it_is_written(server, when, path):
    faults = [server.fault(stage, delay=0.001, when=when) for stage in ("RCPT", "DATA")]
    with greeted(server) as wire:
        command = f"RCPT TO:{path}".encode()
        assert wire.codes(b"MAIL FROM:<> SMTPUTF8", command, b"DATA") == [250, 250, 354]
    assert [fault.fired for fault in faults] == [1, 1]


@pytest.mark.parametrize("name", [b"[192.0.2.7]", b"[IPv6:2001:db8::7]"])
def test_when_is_an_ehlo_name_that_is_an_address(server, name):
    fault = server.fault("EHLO", "550 5.7.1 No", when=name.decode())
    with Wire(server) as wire:
        wire.reply()
        assert wire.codes(b"EHLO 1", b"EHLO [192.0.2.8]", b"EHLO " + name) == [250, 250, 550]
    assert fault.fired == 1


def test_when_is_the_ehlo_name(server):
    fault = server.fault("EHLO", "550 5.7.1 No", when="*.Dynamic.example")
    other = server.fault("NOOP", "551 5.7.1 No", when="mail.*")
    with Wire(server) as wire:
        wire.reply()
        assert wire.codes(b"EHLO a.dynamic.EXAMPLE", b"EHLO mail.example") == [550, 250]
        assert wire.codes(b"NOOP", b"HELO other.example", b"NOOP") == [551, 250, 250]
    assert (fault.fired, other.fired) == (1, 1)


def test_when_is_the_helo_name(server):
    server.fault("HELO", "550 5.7.1 No", when="bad*")
    with Wire(server) as wire:
        wire.reply()
        assert wire.codes(b"HELO bad.example", b"EHLO bad.example", b"HELO ok") == [550, 250, 250]


def test_when_is_the_mechanism(server):
    fault = server.fault("AUTH", "535 5.7.8 No", when="cram-*")
    with connected(server) as client:
        assert client.login(*LOGIN)[0] == 235  # by PLAIN, the next one it tries
    assert fault.fired == 1
    with greeted(server) as wire:
        assert wire.codes(b"auth Cram-MD5", b"AUTH LOGIN", b"*") == [535, 334, 501]


@pytest.mark.parametrize(
    ("when", "strikes"), [("127.0.0.1", True), ("127.*", True), ("10.*", False), ("*:*", False)]
)
def test_when_is_the_client_address(server, when, strikes):
    fault = server.fault("CONNECT", "554 5.7.1 No", when=when)
    with Wire(server) as wire:
        assert wire.reply().startswith(b"554" if strikes else b"220")
    assert fault.fired == strikes


@pytest.mark.parametrize(
    ("stage", "when", "line", "strikes"),
    [
        ("VRFY", "kim@*", b"VRFY kim@example.com", True),
        ("VRFY", "kim@*", b"vrfy <Kim@example.com>", True),
        ("VRFY", "kim", b"VRFY kim", True),
        ("VRFY", "kim", b"VRFY lee", False),
        ("VRFY", "client.example", b"VRFY lee", False),
        ("EXPN", "staff", b"EXPN staff", True),
        ("EXPN", "staff", b"EXPN all staff", False),
        ("EXPN", "all staff", b"EXPN all staff", True),
        ("EXPN", "staff", b"EXPN staff SMTPUTF8", True),
        ("VRFY", "żółw@*", "VRFY <Żółw@example.com>  smtputf8".encode(), True),
        ("EXPN", None, b"EXPN", True),
        ("HELP", "rcpt", b"HELP RCPT", True),
        ("HELP", "rcpt", b"HELP", False),
        ("HELP", "", b"HELP", True),
    ],
)
def test_when_is_what_is_asked_about(server, stage, when, line, strikes):
    fault = server.fault(stage, "550 5.7.1 No", when=when)
    with greeted(server) as wire:
        usual = {"VRFY": 252, "EXPN": 502, "HELP": 214}[stage]
        assert wire.codes(line) == [550 if strikes else usual]
    assert fault.fired == strikes


@pytest.mark.parametrize(
    ("stage", "when", "request_"),
    [
        ("VRFY", "kim@*", ["--mail-rcpt", "kim@example.com"]),
        ("EXPN", "staff", ["--request", "EXPN", "--mail-rcpt", "staff"]),
        ("HELP", "", ["--request", "HELP"]),
    ],
)
def test_curl_asks(server, programs, stage, when, request_):
    server.fault(stage, "550 5.7.1 Ask somebody else", when=when)
    place = f"smtp://{server.host}:{server.port}"
    with pytest.raises(Failed, match="Command failed: 550"):
        programs.run("curl", "-q", "-sS", "--max-time", "10", "--noproxy", "*", *request_, place)
    assert server.sessions()[0].commands[1].verb == stage


def test_commands_that_ask_are_struck_before_the_greeting_and_where_they_are_hidden():
    with QueueController("127.0.0.1", hide=("HELP",)) as controller, Wire(controller) as wire:
        wire.reply()
        assert wire.codes(b"HELP", b"VRFY x", b"EXPN x") == [500, 252, 502]
        for stage in ("HELP", "VRFY", "EXPN"):
            controller.fault(stage, "553 No")
        assert wire.codes(b"HELP", b"VRFY x", b"EXPN x") == [553, 553, 553]


@pytest.mark.parametrize(("word", "stage"), [(b"EOM", "EOM"), (b"CONNECT", "CONNECT")])
def test_a_stage_that_is_no_command_is_none(server, word, stage):
    """A client may say these words, and has said an unknown command then."""
    with greeted(server) as wire:
        usual = wire.say(word)
        fault = server.fault(stage, "451 4.7.1 Later")
        assert wire.say(word) == usual
        assert fault.fired == 0


def test_what_was_said_before_the_end_arrives(server):
    """To close with commands unread would have TCP take back replies that are on their way."""
    server.fault("VRFY", "421 4.3.2 Closing")
    for _ in range(20):
        with greeted(server) as wire:
            wire.sock.sendall(b"NOOP\r\n" * 200 + b"VRFY kim\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(60):
                    wire.sock.sendall(b"NOOP\r\n" * 100)
            assert [wire.reply()[:3] for _ in range(201)] == [b"250"] * 200 + [b"421"]
            assert wire.reply() == b""
