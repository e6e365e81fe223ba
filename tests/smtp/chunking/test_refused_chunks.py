"""BDAT that is refused: its octets are read all the same, and are no commands (RFC 3030, 2)."""

from __future__ import annotations

import contextlib

import pytest
from chunks import BINARY, MAIL, RCPT, bdat, in_chunks
from helpers import EVENT_LOOPS, LOGIN, loop_name, only_message, until
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from raw_client import MESSAGE, RawClient, Wire, greeted
from tls_client import TLSClient

from lazr_smtptest import TLS, QueueController

#: What would be answered by 221, and by 250, if it were taken for commands.
TRAP = b"\r\nQUIT\r\nNOOP\r\n"
TEXT = b"Subject: good\r\n\r\nHello.\r\n"

some = tries(60)


def said(wire: Wire, octets: bytes, count: int) -> list[int]:
    """Send octets, and give the codes of so many replies; there must be no other."""
    wire.sock.sendall(octets)
    codes = [int(wire.reply()[:3] or 0) for _ in range(count)]
    assert wire.say(b"FOO").startswith(b"500")
    return codes


def delivers(wire: Wire, controller: QueueController) -> bool:
    """Whether the session can send a message now."""
    assert said(wire, MAIL + RCPT + in_chunks([TEXT[:9], TEXT[9:]]), 4) == [250] * 4
    return only_message(controller).raw == TEXT


# One BDAT.


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (b"", b"BDAT %d", 503),
        (b"", b"BDAT %d LAST", 503),
        (MAIL, b"BDAT %d LAST", 503),
        (MAIL + RCPT, b"BDAT %d FIRST", 501),
        (MAIL + RCPT, b"BDAT %d LAST LAST", 501),
        (MAIL + RCPT, b"BDAT %d 5", 501),
        (MAIL + RCPT, b"BDAT %d LAST" + b" " * 600, 500),
        (MAIL + RCPT, b"BDAT %d \0", 500),
        (MAIL + RCPT, b"BDAT %d \xff", 500),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_its_octets_are_no_commands(server, way, before, command, code, at_once):
    sent = command % len(TRAP) + b"\r\n" + TRAP
    with greeted(server) as wire:
        count = before.count(b"\n")
        if at_once:
            assert said(wire, before + sent, count + 1) == [250] * count + [code]
        else:
            assert said(wire, before, count) == [250] * count
            assert said(wire, sent, 1) == [code]
        # That was the end of the transaction.
        assert said(wire, bdat(b"rest\r\n", last=True), 1) == [503]
        assert server.queue.empty()
        assert delivers(wire, server)


@pytest.mark.parametrize("last", [True, False])
def test_a_line_that_ends_in_lf_alone(server, way, last):
    with greeted(server) as wire:
        sent = bdat(TRAP, last=last).replace(b"\r\n", b"\n", 1)
        assert said(wire, MAIL + RCPT + sent, 3) == [250, 250, 500]
        assert delivers(wire, server)


def test_a_chunk_of_nothing_that_is_not_the_last(server, way):
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + b"BDAT 0\r\n", 3) == [250, 250, 501]
        assert delivers(wire, server)


@pytest.mark.parametrize(
    "command",
    [
        b"BDAT",
        b"BDAT ",
        b"BDAT LAST",
        b"BDAT +14",
        b"BDAT -14",
        b"BDAT 14x LAST",
        b"BDAT 0x0e",
        b"BDAT 1.4",
        b"BDAT 1_4",
        b"BDAT <14>",
        "BDAT １４".encode(),
        b"BDAT 000000000000000000014",
        b"BDAT " + b"9" * 300,
    ],
)
def test_a_size_that_cannot_be_read_closes_the_connection(server, way, command):
    """Nobody knows where the next command begins; Postfix does the same."""
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT, 2) == [250, 250]
        wire.sock.sendall(command + b"\r\n" + TRAP)
        assert wire.rest() == b"521 5.5.4 Syntax: BDAT size [LAST]\r\n"
    assert server.queue.empty()
    assert server.sessions()[0].ended == "dropped by the server"


@pytest.mark.parametrize("spaces", [512, 12_000, 12_288, 100_000])
def test_a_line_that_is_too_long(server, way, spaces):
    """Its octets are no commands: they are read by their size, or not at all."""
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT, 2) == [250, 250]
        wire.sock.sendall(b"BDAT" + b" " * spaces + b"%d LAST\r\n" % len(TRAP))
        is_read = spaces < 12_288
        if is_read:
            assert said(wire, TRAP + b"NOOP\r\n", 2) == [500, 250]
        else:
            assert wire.reply() == b"521 5.5.4 Syntax: BDAT size [LAST]\r\n"
    assert server.queue.empty()
    until(lambda: server.sessions()[0].ended != "open")
    assert server.sessions()[0].ended == f"dropped by the {'client' if is_read else 'server'}"


def test_another_line_that_is_too_long(server, way):
    """Nor is the rest of it a chunk, whatever it begins with."""
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP".ljust(13_000))
        until(lambda: "too long" in server.sessions()[0].dialogue[-1].text)
        wire.sock.sendall(b"BDAT ".ljust(20_000) + b"\r\n")
        assert said(wire, b"NOOP\r\n", 2) == [500, 250]


def test_a_size_of_twenty_digits(server, way):
    with greeted(server) as wire:
        assert (
            said(wire, MAIL + RCPT + b"BDAT 00000000000000000004 LAST\r\nHi\r\n", 3) == [250] * 3
        )
        wire.sock.sendall(MAIL + RCPT + b"BDAT 99999999999999999999 LAST\r\n" + TRAP)
        assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
        server.hang_up()
        assert wire.rest() == b""


def test_after_helo(server, way):
    """An extension is there after EHLO only (RFC 5321, 2.2.1)."""
    with Wire(server) as wire:
        wire.reply()
        assert said(wire, bdat(TRAP), 1) == [503]
        assert wire.codes(b"HELO client.example") == [250]
        assert said(wire, MAIL + RCPT + bdat(TRAP, last=True), 3) == [250, 250, 503]
        assert wire.codes(b"EHLO client.example") == [250]
        assert delivers(wire, server)


def test_where_auth_is_required():
    options = {"auth": dict([LOGIN]), "auth_required": True, "offer": ("CHUNKING",)}
    with QueueController("127.0.0.1", **options) as controller, greeted(controller) as wire:
        wire.sock.sendall(bdat(TRAP, last=True))
        assert wire.reply() == b"530 5.7.0 Authentication required\r\n"
        assert wire.codes(b"NOOP") == [250]


def test_where_there_is_no_service(server):
    with server.fault("CONNECT", "554 5.3.2 Not now"), Wire(server) as wire:
        assert wire.reply() == b"554 5.3.2 Not now\r\n"
        wire.sock.sendall(bdat(TRAP, last=True))
        assert wire.reply().startswith(b"503")
        assert wire.codes(b"QUIT") == [221]


def test_where_tls_is_required():
    tls = TLS("starttls", required=True)
    with QueueController("127.0.0.1", tls=tls, offer=("CHUNKING",)) as controller:
        with TLSClient(controller) as client:
            client.send(bdat(TRAP, last=True))
            assert client.reply().code == 530
            assert client.command(b"NOOP").code == 250
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            client.send(MAIL + RCPT + bdat(TEXT, last=True))
            assert [client.reply().code for _ in range(3)] == [250] * 3
        assert only_message(controller).raw == TEXT


# Where it is not offered.


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
@pytest.mark.parametrize("is_slow", [True, False])
def test_without_chunking(uvloop, is_slow):
    with QueueController("127.0.0.1", uvloop=uvloop) as controller:
        if is_slow:
            controller.fault("NOOP", "450 4.0.0 No", when="nobody")
        with greeted(controller) as wire:
            wire.sock.sendall(bdat(TRAP, last=True))
            assert wire.reply() == b"502 5.5.1 Error: command not implemented\r\n"
            assert said(wire, MAIL + RCPT + in_chunks([TRAP, TRAP]), 4) == [250, 250, 502, 502]
            # Such a client may go on by DATA.
            assert wire.codes(b"DATA", TEXT + b".") == [354, 250]
            assert only_message(controller).raw == TEXT
            assert said(wire, b"BDAT 6 x\r\nNOOP\r\n", 1) == [502]
            wire.sock.sendall(b"BDAT x\r\n" + TRAP)
            assert wire.rest() == b"502 5.5.1 Error: command not implemented\r\n"


@pytest.mark.parametrize(
    ("offer", "body", "code"),
    [
        ((), b"BINARYMIME", 501),
        (("CHUNKING",), b"BINARYMIME", 501),
        (("CHUNKING", "BINARYMIME"), b"binarymime", 250),
        (("CHUNKING", "BINARYMIME"), b"BINARY", 501),
        (("CHUNKING", "BINARYMIME"), b"", 501),
    ],
)
def test_binarymime_is_a_body_where_it_is_offered(offer, body, code):
    with QueueController("127.0.0.1", offer=offer) as controller, greeted(controller) as wire:
        assert wire.codes(b"MAIL FROM:<kim@example.com> BODY=" + body) == [code]


# After an error, and out of order.


def test_what_was_sent_ahead_is_refused_until_the_next_message(server, way):
    sent = MAIL + RCPT + b"BDAT 6 x\r\nNOOP\r\n" + bdat(TRAP) + bdat(TRAP) + bdat(TRAP, last=True)
    with greeted(server) as wire:
        good = MAIL + RCPT + bdat(TEXT, last=True)
        codes = [250, 250, 501, 503, 503, 503]
        assert said(wire, sent + good, 9) == [*codes, 250, 250, 250]
    assert only_message(server).raw == TEXT


def test_a_recipient_that_comes_too_late_saves_nothing(server, way):
    """Or the message would lack its first chunk."""
    with greeted(server) as wire:
        sent = MAIL + bdat(TRAP) + RCPT + bdat(TEXT, last=True)
        assert said(wire, sent, 4) == [250, 503, 503, 503]
    assert server.queue.empty()


def test_after_the_last_one(server, way):
    with greeted(server) as wire:
        sent = MAIL + RCPT + bdat(TEXT, last=True) + bdat(TRAP) + b"BDAT 0 LAST\r\n"
        assert said(wire, sent, 5) == [250, 250, 250, 503, 503]
    assert only_message(server).raw == TEXT


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"DATA", b"503 5.5.1 Error: DATA after BDAT\r\n"),
        (RCPT[:-2], b"503 5.5.1 Error: RCPT after BDAT\r\n"),
        (MAIL[:-2], b"503 5.5.1 Error: nested MAIL command\r\n"),
        (b"AUTH PLAIN", b"503 5.5.1 Error: AUTH not allowed in a mail transaction\r\n"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_does_not_go_between_chunks(server, way, line, reply, at_once):
    with greeted(server) as wire:
        begun = MAIL + RCPT + bdat(TEXT[:9])
        wire.sock.sendall(begun + (line + b"\r\n" if at_once else b""))
        assert [wire.reply()[:3] for _ in range(3)] == [b"250"] * 3
        assert (wire.reply() if at_once else wire.say(line)) == reply
        assert said(wire, bdat(TEXT[9:], last=True), 1) == [250]
    message = only_message(server)
    assert message.raw == TEXT
    assert message.envelope.rcpt_tos == ("lee@example.com",)


@pytest.mark.parametrize("at_once", [True, False])
def test_binary_content_does_not_come_by_data(server, way, at_once):
    with greeted(server) as wire:
        wire.sock.sendall(BINARY + RCPT + (b"DATA\r\n" if at_once else b""))
        assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
        refused = wire.reply() if at_once else wire.say(b"DATA")
        assert refused == b"503 5.5.1 Error: BODY=BINARYMIME needs BDAT\r\n"
        # More recipients may follow, and the chunks.
        assert said(wire, RCPT + bdat(TEXT, last=True), 2) == [250, 250]
        # It is the body of that message alone.
        assert wire.codes(*MESSAGE, TEXT + b".") == [250, 250, 354, 250]
    assert [m.envelope.body for m in server.messages] == ["BINARYMIME", "7BIT"]


# Limits.


@pytest.mark.parametrize("limit", [len(TEXT), len(TEXT) - 1, 9, 8, None])
@pytest.mark.parametrize("hide", [(), ("SIZE",)])
@pytest.mark.parametrize("is_slow", [True, False])
def test_the_size_limit_is_for_all_chunks(limit, hide, is_slow):
    options = {"offer": ("CHUNKING",), "data_size_limit": limit, "hide": hide}
    with QueueController("127.0.0.1", **options) as controller, greeted(controller) as wire:
        if is_slow:
            controller.fault("NOOP", "450 4.0.0 No", when="nobody")
        sent = MAIL + RCPT + in_chunks([TEXT[:9], TEXT[9:], b""])
        limit = len(TEXT) if limit is None else limit
        codes = [250 if at <= limit else 552 for at in (9, len(TEXT), len(TEXT))]
        with contextlib.suppress(ValueError):
            after = codes.index(552) + 1
            codes[after:] = [503] * (len(codes) - after)
        assert said(wire, sent, 5) == [250, 250, *codes]
        assert controller.queue.qsize() == (codes == [250] * 3)
        assert said(wire, MAIL + RCPT + bdat(b"short\r\n", last=True), 3) == [250] * 3


def test_a_message_far_over_the_limit_is_not_kept(server, way):
    """The limit of this server is 1,000,000 octets."""
    with greeted(server) as wire:
        sent = MAIL + RCPT + bdat(b"x" * 5_000_000) + bdat(TRAP, last=True)
        assert said(wire, sent, 4) == [250, 250, 552, 503]
        assert delivers(wire, server)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"x" * 999 + b"\r\n", 250),
        (b"x" * 1000 + b"\r\n", 500),
        (b"Hi\r\n" + b"x" * 1001, 250),
        (b"Hi\r\n" + b"x" * 1002, 500),
        (b"x" * 500 + b"\n" + b"x" * 1000 + b"\n", 250),
    ],
)
def test_the_limit_of_a_line(server, way, content, code):
    """It is that of content by DATA (RFC 5321, 4.5.3.1.6), wherever a chunk ends."""
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + bdat(content, last=True), 3) == [250, 250, code]
        sent = MAIL + RCPT + in_chunks([content[:3], content[3:700], content[700:]])
        assert said(wire, sent, 5) == [250] * 4 + [code]
        assert server.queue.qsize() == 2 * (code == 250)
        assert said(wire, BINARY + RCPT + bdat(content, last=True), 3) == [250] * 3


def test_8bit_content_where_that_is_not_offered():
    options = {"offer": ("CHUNKING",), "hide": ("8BITMIME",)}
    with QueueController("127.0.0.1", **options) as controller, greeted(controller) as wire:
        assert said(wire, MAIL + RCPT + bdat(b"\xff\r\n", last=True), 3) == [250, 250, 554]
        smtp_utf8 = MAIL[:-2] + b" SMTPUTF8\r\n"
        assert said(wire, smtp_utf8 + RCPT + bdat(b"\xff\r\n", last=True), 3) == [250, 250, 250]


# Whatever comes.

commands = st.sampled_from(
    [
        MAIL,
        BINARY,
        RCPT,
        b"RSET\r\n",
        b"NOOP\r\n",
        b"EHLO x\r\n",
        b"HELO x\r\n",
        bdat(TRAP),
        bdat(TRAP, last=True),
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 6 LAST x\r\nNOOP\r\n",
    ]
)


@some
@given(st.lists(commands, max_size=12), st.lists(st.integers(0, 300), max_size=5))
def test_each_command_gets_one_reply_and_both_ways_the_same(chunking, sequence, cuts):
    octets = b"".join(sequence)
    answers = []
    for is_slow in (False, True):
        chunking.reset()
        if is_slow:
            chunking.fault("NOOP", "450 4.0.0 No", when="nobody")
        with RawClient(chunking) as client:
            client.send_in_pieces(octets, [cut for cut in cuts if cut < len(octets)])
            replies = [client.reply() for _ in sequence]
            assert client.command(b"QUIT").code == 221
        answers.append((replies, [message.raw for message in chunking.messages]))
    assert answers[0] == answers[1]
