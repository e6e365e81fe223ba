"""Faults: what a test orders is what a client gets, and nothing else changes."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import ssl
import threading
import time

import pytest
from helpers import LOGIN, STAGES, connected, fresh, send, send_to, subjects, until
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import (
    NotRunning,
    QueueController,
    QueueServer,
    ServerDied,
)


@pytest.fixture(scope="module")
def shared():
    with QueueController("127.0.0.1", auth=dict([LOGIN])) as controller:
        yield controller


@pytest.fixture
def server(shared):
    return fresh(shared)


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


@pytest.mark.parametrize(("word", "stage"), [(b"EOM", "EOM"), (b"CONNECT", "CONNECT")])
def test_a_stage_that_is_no_command_is_none(server, word, stage):
    """A client may say these words, and has said an unknown command then."""
    with greeted(server) as wire:
        usual = wire.say(word)
        fault = server.fault(stage, "451 4.7.1 Later")
        assert wire.say(word) == usual
        assert fault.fired == 0


# `times`, order, and the end of a fault.


def test_times_over_several_connections(server):
    fault = server.fault("RCPT", "451 4.7.1 Later", times=2)
    for number in range(4):
        with connected(server) as client:
            if number < 2:
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    send(client, number)
            else:
                send(client, number)
        assert fault.fired == min(number + 1, 2)
    assert subjects(server) == ["2", "3"]


def test_times_within_one_transaction(server):
    server.fault("RCPT", "550 5.1.1 No", times=2)
    with connected(server) as client:
        recipients = [f"{name}@example.com" for name in ("ann", "bob", "cat", "dan")]
        refused = client.sendmail("kim@example.com", recipients, b"Subject: some\r\n\r\n")
    assert refused == dict.fromkeys(recipients[:2], (550, b"5.1.1 No"))
    assert server.queue.get_nowait().envelope.rcpt_tos == tuple(recipients[2:])


def test_the_first_made_strikes_first_and_then_the_next(server):
    first = server.fault("NOOP", "450 4.0.0 first", times=2)
    second = server.fault("NOOP", "451 4.0.0 second", times=1)
    third = server.fault("NOOP", "452 4.0.0 third", when="no such name")
    fourth = server.fault("NOOP", "453 4.0.0 fourth", times=1)
    with greeted(server) as wire:
        assert wire.codes(*[b"NOOP"] * 6) == [450, 450, 451, 453, 250, 250]
    assert [f.fired for f in (first, second, third, fourth)] == [2, 1, 0, 1]


def test_one_that_is_not_for_this_lets_the_next_strike(server):
    server.fault("RCPT", "550 5.1.1 ann", when="ann@*")
    server.fault("RCPT", "551 5.1.1 all")
    with greeted(server) as wire:
        wire.say(MESSAGE[0])
        assert wire.codes(b"RCPT TO:<bob@x.y>", b"RCPT TO:<ann@x.y>") == [551, 550]


def test_rules_on_two_stages(server):
    mail = server.fault("MAIL", "451 4.0.0 Later", times=1)
    data = server.fault("DATA", "452 4.0.0 Full", times=1)
    with greeted(server) as wire:
        # What comes out of order is struck as well.
        assert wire.codes(*MESSAGE) == [451, 503, 452]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    assert (mail.fired, data.fired) == (1, 1)


def test_fired_when_spent_removed_and_reset(server):
    spent = server.fault("NOOP", "450 4.0.0 No", times=1)
    removed = server.fault("RSET", "450 4.0.0 No")
    cleared = server.fault("HELO", "450 4.0.0 No")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"NOOP", b"RSET", b"HELO x") == [450, 250, 450, 450]
        removed.remove()
        removed.remove()  # again: nothing
        spent.remove()
        assert wire.codes(b"RSET") == [250]
        server.reset()
        assert wire.codes(b"HELO x") == [250]
    assert (spent.fired, removed.fired, cleared.fired) == (1, 1, 1)
    cleared.remove()
    assert cleared.fired == 1


def test_a_with_statement_removes_it(server):
    with greeted(server) as wire:
        with server.fault("NOOP", "450 4.0.0 No") as fault:
            assert wire.codes(b"NOOP") == [450]
        assert wire.codes(b"NOOP") == [250]
        assert fault.fired == 1
        with pytest.raises(LookupError):
            with server.fault("NOOP", "450 4.0.0 No"):
                raise LookupError
        assert wire.codes(b"NOOP") == [250]


def test_removing_one_leaves_the_others(server):
    with greeted(server) as wire:
        one = server.fault("NOOP", "450 4.0.0 one")
        server.fault("NOOP", "451 4.0.0 two")
        assert wire.codes(b"NOOP") == [450]
        one.remove()
        assert wire.codes(b"NOOP") == [451]


# Sessions that are under way.


def test_in_force_in_the_midst_of_a_transaction(server):
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0]) == [250]
        with server.fault("RCPT", "450 4.2.1 Busy"):
            assert wire.codes(MESSAGE[1]) == [450]
        assert wire.codes(*MESSAGE[1:]) == [250, 354]
        with server.fault("EOM", "452 4.3.1 Full"):
            assert wire.codes(CONTENT) == [452]
        # A transaction that was refused at its end is over.
        assert wire.codes(b"DATA", *MESSAGE, CONTENT) == [503, 250, 250, 354, 250]
    assert server.queue.qsize() == 1


def test_an_eom_fault_that_is_made_while_content_arrives(server):
    with greeted(server) as wire:
        for kind, expected in (
            ({"reply": "452 4.3.1 Full"}, 452),
            ({"delay": 0.03}, 250),
            ({"reply": "250 2.0.0 Taken, not"}, 250),
        ):
            assert wire.codes(*MESSAGE) == [250, 250, 354]
            wire.sock.sendall(b"Subject: half\r\n\r\n")
            with server.fault("EOM", **kind) as fault:
                assert wire.codes(b"Hello.\r\n.") == [expected]
                assert fault.fired == 1
        # What was sent behind the end waits for its turn.
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: pipelined\r\n\r\n")
        with server.fault("EOM", delay=0.03):
            wire.sock.sendall(b".\r\nNOOP\r\nMAIL FROM:<a@b.c>\r\nVRFY x\r\n")
            replies = [wire.reply()[:9] for _ in range(4)]
        assert replies == [b"250 2.0.0", b"250 2.0.0", b"250 2.1.0", b"252 2.0.0"]
    assert subjects(server) == ["half", "pipelined"]


def test_a_line_that_is_too_long_behind_content_is_answered_behind_it(server):
    """Replies come in the order of what they are replies to, also under a delay."""
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        with server.fault("EOM", delay=0.05):
            wire.sock.sendall(CONTENT + b"\r\nNOOP " + b"x" * 20_000 + b"\r\nQUIT\r\n")
            assert [wire.reply()[:3] for _ in range(3)] == [b"250", b"500", b"221"]


def test_the_rest_of_a_line_that_is_too_long_is_not_struck(server):
    fault = server.fault("MAIL", "451 4.7.1 Later")
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP " + b"a" * 20_000)
        send_noop_elsewhere(server)
        wire.sock.sendall(b"MAIL FROM:<evil@example.com>\r\n")
        assert wire.reply() == b"500 5.5.2 Command line too long\r\n"
        assert fault.fired == 0
        assert wire.codes(b"RSET", MESSAGE[0]) == [250, 451]


def send_noop_elsewhere(controller) -> None:
    """Let the server read what it was sent: a whole session takes longer."""
    with connected(controller) as client:
        client.noop()


@pytest.mark.parametrize("drop", ["before", "instead", "after"])
def test_an_eom_drop_that_is_made_while_content_arrives(server, drop):
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: half\r\n\r\n")
        server.fault("EOM", drop=drop)
        assert wire.codes(b".")[0] == (250 if drop == "after" else 0)
        assert wire.reply() == b""
    assert server.queue.qsize() == (drop != "before")
    assert server.sessions()[0].ended == "dropped by the server"


def test_a_fault_for_pipelined_commands(server):
    server.fault("RCPT", "450 4.2.1 Busy", when="bob@*")
    with greeted(server) as wire:
        wire.sock.sendall(
            b"MAIL FROM:<a@b.c>\r\nRCPT TO:<ann@b.c>\r\nRCPT TO:<bob@b.c>\r\nDATA\r\n"
            + CONTENT
            + b"\r\nQUIT\r\n"
        )
        codes = [wire.reply()[:3] for _ in range(6)]
    assert codes == [b"250", b"250", b"450", b"354", b"250", b"221"]
    assert server.queue.get_nowait().envelope.rcpt_tos == ("ann@b.c",)


def test_a_421_for_pipelined_commands_is_the_last_word(server):
    server.fault("RCPT", "421 4.3.2 Closing")
    with greeted(server) as wire:
        wire.sock.sendall(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<ann@b.c>\r\nNOOP\r\nQUIT\r\n")
        assert [wire.reply()[:3] for _ in range(3)] == [b"250", b"421", b""]


# Delays.


def test_a_delay_stalls_nobody_else(server):
    with greeted(server) as slow, connected(server) as client:
        server.fault("MAIL", delay=1.0, when="slow@*")
        slow.sock.sendall(b"MAIL FROM:<slow@example.com>\r\n")
        began = time.monotonic()
        for number in range(20):
            send(client, number)
        with connected(server) as another:
            send(another, "another")
        assert time.monotonic() - began < 0.9
        slow.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.sock.recv(1)
        slow.sock.settimeout(10)
        assert slow.reply().startswith(b"250")
        assert time.monotonic() - began >= 0.95
    assert server.queue.qsize() == 21


def test_a_delay_with_a_reply_and_with_a_drop(server):
    began = time.monotonic()
    with greeted(server) as wire:
        server.fault("NOOP", "450 4.0.0 No", delay=0.05)
        server.fault("RSET", drop=True, delay=0.05)
        assert wire.codes(b"NOOP", b"RSET") == [450, 0]
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "DATA", "EOM"])
def test_a_client_that_does_not_wait_so_long(server, stage):
    fault = server.fault(stage, delay=60)
    client = smtplib.SMTP(local_hostname="client.example", timeout=0.2)
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected), match="timed out"):
        client.connect(server.host, server.port)
        client.ehlo()
        send(client, "never")
    client.close()
    assert fault.fired == 1
    until(lambda: server.sessions()[-1].ended == "dropped by the client")
    assert server.queue.qsize() == 0


# A mailer that tries again.


def mail(controller, subject: str, recipients: list[str], *, attempts: int = 10) -> int:
    """Send as a mailer does that has a queue: what failed for now is tried again.

    :return: How many attempts it took.
    """
    for attempt in range(1, attempts + 1):
        try:
            with connected(controller) as client:
                refused = client.sendmail(
                    "kim@example.com", recipients, f"Subject: {subject}\r\n\r\n".encode()
                )
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPResponseException as error:
            refused = dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
        except smtplib.SMTPServerDisconnected:
            refused = dict.fromkeys(recipients, (451, b"no reply"))
        recipients = [name for name, (code, _) in refused.items() if 400 <= code < 500]
        if not recipients:
            return attempt
    raise AssertionError(f"gave up after {attempts} attempts")


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "RCPT", "DATA", "EOM"])
@pytest.mark.parametrize("fault", [{"reply": "451 4.7.1 Later"}, {"drop": True}])
def test_fail_twice_then_accept(server, stage, fault):
    ordered = server.fault(stage, **fault, times=2)
    assert mail(server, "patience", ["lee@example.com"]) == 3
    assert ordered.fired == 2
    assert subjects(server) == ["patience"]


def test_a_mailer_does_not_retry_what_is_refused_for_good(server):
    server.fault("RCPT", "550 5.1.1 No such user", when="nobody@*")
    assert mail(server, "hello", ["nobody@example.com", "lee@example.com"]) == 1
    assert server.queue.get_nowait().envelope.rcpt_tos == ("lee@example.com",)


def test_greylisting_by_recipient(server):
    server.fault("RCPT", "451 4.7.1 Greylisted", when="*@grey.example", times=2)
    server.fault("RCPT", "451 4.7.1 Greylisted", when="*@slow.example", times=3)
    recipients = ["ann@grey.example", "bob@slow.example", "cat@example.com"]
    assert mail(server, "patience", recipients) == 4
    assert [m.envelope.rcpt_tos for m in server] == [
        ("cat@example.com",),
        ("ann@grey.example",),
        ("bob@slow.example",),
    ]


def test_accepted_but_the_client_is_not_told_so_it_comes_twice(server):
    server.fault("EOM", drop="instead", times=1)
    assert mail(server, "twice", ["lee@example.com"]) == 2
    assert subjects(server) == ["twice", "twice"]
    first, second = server.sessions()
    assert (first.ended, second.ended) == ("dropped by the server", "QUIT")
    assert first.dialogue[-1].text.endswith("octets of content")  # and not a word more


# Positive replies.


def test_a_message_that_is_swallowed(server):
    fault = server.fault("EOM", "250 2.0.0 Queued as 12345", times=1)
    with connected(server) as client:
        send(client, "swallowed")
        send(client, "taken")
    assert fault.fired == 1
    assert subjects(server) == ["taken"]
    (session,) = server.sessions()
    assert len(session.messages) == 1


def test_a_recipient_that_is_swallowed(server):
    server.fault("RCPT", "250 2.1.5 Sure", when="bob@*")
    with connected(server) as client:
        recipients = ["ann@example.com", "bob@example.com"]
        assert client.sendmail("kim@example.com", recipients, b"Subject: x\r\n\r\n") == {}
    assert server.queue.get_nowait().envelope.rcpt_tos == ("ann@example.com",)


def test_a_421_at_quit_and_a_221_at_noop(server):
    server.fault("NOOP", "221 2.0.0 Not yet")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"RSET") == [221, 250]  # only 421 closes


# The server's life.


def test_reset_clears(server):
    faults = [server.fault(stage, "451 4.7.1 Later") for stage in STAGES]
    server.reset()
    send_to(server, "hello")
    assert subjects(server) == ["hello"]
    assert [fault.fired for fault in faults] == [0] * len(STAGES)


def test_none_is_left_after_a_restart():
    controller = QueueController("127.0.0.1")
    with pytest.raises(NotRunning, match=r"fault\(\)"):
        controller.fault("MAIL", "451 4.7.1 Later")
    with controller:
        old = controller.fault("MAIL", "451 4.7.1 Later")
        with connected(controller) as client, pytest.raises(smtplib.SMTPSenderRefused):
            send(client, "hello")
    with pytest.raises(NotRunning, match=r"fault\(\)"):
        controller.fault("MAIL", "451 4.7.1 Later")
    for use in (old.remove, lambda: old.fired):
        with pytest.raises(NotRunning):
            use()
    with controller:
        new = controller.fault("NOOP", "451 4.7.1 Later")
        for use in (old.remove, lambda: old.fired):
            with pytest.raises(NotRunning):
                use()
        assert new.fired == 0
        send_to(controller, "hello")
        assert subjects(controller) == ["hello"]


def test_a_server_that_is_killed():
    with contextlib.suppress(ServerDied):
        with QueueController("127.0.0.1") as controller:
            fault = controller.fault("MAIL", "451 4.7.1 Later")
            os.kill(controller.pid, signal.SIGKILL)
            for use in (
                fault.remove,
                lambda: fault.fired,
                lambda: controller.fault("MAIL", "451 4.7.1 Later"),
            ):
                with pytest.raises(ServerDied) as caught:
                    use()
                assert caught.value.exitcode == -signal.SIGKILL


def test_stop_does_not_wait_for_a_delay():
    controller = QueueController("127.0.0.1")
    controller.start()
    with greeted(controller) as wire:
        fault = controller.fault("NOOP", delay=60)
        wire.sock.sendall(b"NOOP\r\n")
        until(lambda: fault.fired)
        began = time.monotonic()
        controller.stop()
        assert time.monotonic() - began < 2
        assert wire.reply() == b""


def test_many_threads_order_at_once(server):
    faults = []

    def order() -> None:
        faults.extend(server.fault("NOOP", "450 4.0.0 No", times=1) for _ in range(20))

    threads = [threading.Thread(target=order) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with greeted(server) as wire:
        assert wire.codes(*[b"NOOP"] * 101) == [450] * 100 + [250]
    assert [fault.fired for fault in faults] == [1] * 100


class Slow(QueueServer):
    """Takes messages on a thread, in a way of its own."""

    def handle_message(self, message) -> None:
        message["X-Slow"] = "yes"
        super().handle_message(message)


class SlowController(QueueController):
    def _make_server(self, host, port):
        self.server = Slow(host, port, self.queue)


@pytest.mark.parametrize(("drop", "count"), [("before", 0), ("instead", 1), ("after", 1)])
def test_with_a_handler_of_ones_own(drop, count):
    with SlowController("127.0.0.1") as controller:
        controller.fault("EOM", drop=drop, times=1)
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE) == [250, 250, 354]
            assert wire.codes(CONTENT)[0] == (250 if drop == "after" else 0)
        assert [m["X-Slow"] for m in controller] == ["yes"] * count
        send_to(controller, "next")
        assert subjects(controller) == ["next"]


# What is no order.


@pytest.mark.parametrize(
    ("error", "text", "order"),
    [
        (ValueError, "stage must be one of", ("mail", "450 No")),
        (ValueError, "stage must be one of", ("", "450 No")),
        (ValueError, "stage must be one of", ("VRFY", "450 No")),
        (ValueError, "stage must be one of", (None, "450 No")),
        (ValueError, "reply code", ("MAIL", "")),
        (ValueError, "reply code", ("MAIL", "hello")),
        (ValueError, "reply code", ("MAIL", "99 x")),
        (ValueError, "reply code", ("MAIL", "199 x")),
        (ValueError, "reply code", ("MAIL", "600 x")),
        (ValueError, "reply code", ("MAIL", "560 x")),
        (ValueError, "reply code", ("MAIL", "25 OK")),
        (ValueError, "reply code", ("MAIL", "250OK")),
        (ValueError, "reply code", ("MAIL", "2500 OK")),
        (ValueError, "reply code", ("MAIL", " 250 OK")),
        (ValueError, "reply code", ("MAIL", "\n250 OK")),
        (ValueError, "reply code", ("MAIL", "٢٥٠ OK")),
        (ValueError, "printable text", ("MAIL", "250 a\rb")),
        (ValueError, "printable text", ("MAIL", "250 a\0b")),
        (ValueError, "printable text", ("MAIL", "250 a\x7fb")),
        (ValueError, "printable text", ("MAIL", "250 a\nb\x1b[0m")),
        (ValueError, "printable text", ("MAIL", "250 \udc80")),
        (ValueError, "one code in all its lines", ("MAIL", "550 No.\n250 Yes.")),
        (TypeError, "reply must be a str", ("MAIL", b"250 OK")),
        (TypeError, "reply must be a str", ("MAIL", 250)),
        (ValueError, "needs a reply", ("MAIL",)),
        (ValueError, "needs a reply", ("MAIL", None, {"times": 3, "when": "x"})),
        (TypeError, "when must be", ("MAIL", "450 No", {"when": b"x"})),
        (TypeError, "when must be", ("MAIL", "450 No", {"when": ["x"]})),
        *(
            (ValueError, "times must be", ("MAIL", "450 No", {"times": times}))
            for times in (0, -1, True, False, 1.5, "2")
        ),
        *(
            (ValueError, "delay must be", ("MAIL", "450 No", {"delay": delay}))
            for delay in (-1, -0.001, float("nan"), float("inf"), float("-inf"))
        ),
        (TypeError, "must be a number of seconds, not", ("MAIL", "450 No", {"delay": "1"})),
        (TypeError, "must be a number of seconds, not", ("MAIL", "450 No", {"delay": None})),
        (ValueError, "one or the other", ("MAIL", "450 No", {"drop": "before"})),
        (ValueError, "one or the other", ("MAIL", "450 No", {"drop": "instead"})),
        *(
            (ValueError, "drop must be", ("MAIL", "450 No", {"drop": drop}))
            for drop in ("", "later", None, "BEFORE")
        ),
    ],
)
def test_what_is_no_order(server, error, text, order):
    stage, *reply = order
    options = reply.pop() if isinstance(reply[-1:] and reply[-1], dict) else {}
    with pytest.raises(error, match=text):
        server.fault(stage, *reply, **options)
    # Nothing has come of it: mail is answered on the spot, as before.
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]


def test_a_refused_order_leaves_the_others_in_force(server):
    server.fault("MAIL", "450 4.0.0 One", times=2)
    with pytest.raises(ValueError):
        server.fault("MAIL", "450OK")
    with pytest.raises(ValueError):
        server.fault("MAIL", "451 4.0.0 Two", times=0)
    with greeted(server) as wire:
        assert wire.codes(*[MESSAGE[0]] * 3) == [450, 450, 250]
