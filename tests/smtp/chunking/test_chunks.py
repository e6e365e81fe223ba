"""A message that comes in chunks (RFC 3030, 2) is the same as one that comes by DATA."""

from __future__ import annotations

import queue
import socket
import time

import pytest
from chunks import BINARY, EHLO, MAIL, RCPT, bdat, in_chunks
from helpers import EVENT_LOOPS, loop_name, only_message, serving, until
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from raw_client import MESSAGE, RawClient, Wire, ehlo, greeted
from tls_client import TLSClient

from lazr_smtptest import Controller, QueueController, QueueServer, Server
from lazr_smtptest.sessions import Command

TEXT = b"Subject: chunks\r\n\r\n.\r\n..\r\n.\r\nQUIT\r\nHello.\r\n"

#: Lines of no kind, and octets of all.
BINARY_TEXT = (
    b"Subject: binary\n\r\r\n" + bytes(range(256)) * 20 + b"\r\n.\r\nDATA\r\n" + b"x" * 3000
)

some = tries(60)


def said(wire: Wire, octets: bytes, count: int) -> list[int]:
    """Send octets, and give the codes of so many replies; there must be no other."""
    wire.sock.sendall(octets)
    codes = [int(wire.reply()[:3] or 0) for _ in range(count)]
    assert wire.say(b"NOOP").startswith(b"250")
    return codes


# What is offered.


@pytest.mark.parametrize(
    ("offer", "told"),
    [
        ((), []),
        (("CHUNKING",), ["CHUNKING"]),
        (("binarymime", "Chunking"), ["CHUNKING", "BINARYMIME"]),
    ],
)
def test_what_ehlo_tells_of(offer, told):
    with QueueController("127.0.0.1", offer=offer) as controller:
        assert [line for line in ehlo(controller) if line in ("CHUNKING", "BINARYMIME")] == told
        assert ehlo(controller)[-1] == "HELP"


@pytest.mark.smtptest(host="127.0.0.1", offer=("CHUNKING",))
def test_the_marker_has_the_option(smtptest):
    assert "CHUNKING" in ehlo(smtptest)


def test_each_way_to_start(start_method):
    options = {"offer": ("CHUNKING",), "start_method": start_method}
    with QueueController("127.0.0.1", **options) as controller, greeted(controller) as wire:
        assert said(wire, MAIL + RCPT + in_chunks([TEXT]), 3) == [250] * 3


def test_a_restart_offers_something_else():
    with QueueController("127.0.0.1") as controller:
        controller.restart(offer=("CHUNKING",))
        assert "CHUNKING" in ehlo(controller)
        controller.restart(hide=("DSN",))
        assert "CHUNKING" in ehlo(controller)
        with pytest.raises(ValueError, match="BINARYMIME of offer needs CHUNKING"):
            controller.restart(offer=("BINARYMIME",))
        assert "CHUNKING" in ehlo(controller)
        controller.restart(offer=())
        assert "CHUNKING" not in ehlo(controller)


@pytest.mark.parametrize(("offer", "code"), [((), 501), (("CHUNKING",), 214)])
def test_help_knows_of_it(offer, code):
    with QueueController("127.0.0.1", offer=offer) as controller, greeted(controller) as wire:
        assert wire.codes(b"HELP BDAT") == [code]


# What arrives.


@pytest.mark.parametrize(
    "pieces",
    [
        [TEXT],
        [TEXT, b""],
        [TEXT[:1], TEXT[1:]],
        [TEXT[:20], TEXT[20:30], TEXT[30:], b""],
        [bytes([octet]) for octet in TEXT],
        [b""],
    ],
    ids=["one", "empty last", "two", "four", "octets", "nothing"],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_message_is_its_chunks(server, way, pieces, at_once):
    with greeted(server) as wire:
        if at_once:
            codes = said(wire, MAIL + RCPT + in_chunks(pieces), 2 + len(pieces))
        else:
            codes = wire.codes(*MESSAGE[:2])
            for piece in pieces[:-1]:
                codes += said(wire, bdat(piece), 1)
            codes += said(wire, bdat(pieces[-1], last=True), 1)
    assert codes == [250] * (2 + len(pieces))
    message = only_message(server)
    assert message.raw == b"".join(pieces)
    assert message.envelope.mail_from == "kim@example.com"
    assert message.envelope.rcpt_tos == ("lee@example.com",)
    assert message.envelope.body == "7BIT"


def test_replies(server, way):
    with greeted(server) as wire:
        wire.say(*MESSAGE[:2])
        wire.sock.sendall(bdat(TEXT))
        assert wire.reply() == b"250 2.0.0 %d octets received\r\n" % len(TEXT)
        assert wire.say(b"BDAT 0 LAST") == b"250 2.0.0 OK\r\n"


@pytest.mark.parametrize(
    "command", [b"bdat 4 last", b"BDAT 4 Last", b"Bdat  4  LAST ", b"BDAT 004 LAST"]
)
def test_how_it_may_be_written(server, way, command):
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE[:2]) == [250, 250]
        assert said(wire, command + b"\r\nHi\r\n", 1) == [250]
    assert only_message(server).raw == b"Hi\r\n"


@some
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    st.lists(st.integers(0, 300), max_size=6),
    st.booleans(),
)
def test_any_octets_in_any_pieces(chunking, pieces, cuts, is_slow):
    pieces = [*filter(None, pieces[:-1]), pieces[-1]]
    chunking.reset()
    if is_slow:
        chunking.fault("NOOP", "450 4.0.0 No", when="nobody")
    octets = BINARY + RCPT + in_chunks(pieces)
    with RawClient(chunking) as client:
        client.send_in_pieces(octets, [cut for cut in cuts if cut < len(octets)])
        assert [client.reply().code for _ in range(2 + len(pieces))] == [250] * (2 + len(pieces))
        assert client.command(b"QUIT").code == 221
    assert only_message(chunking).raw == b"".join(pieces)


def test_binary_content(server, way):
    with greeted(server) as wire:
        codes = said(wire, BINARY + RCPT + in_chunks([BINARY_TEXT[:100], BINARY_TEXT[100:]]), 4)
        assert codes == [250] * 4
    message = only_message(server)
    assert message.raw == BINARY_TEXT
    assert message.envelope.body == "BINARYMIME"
    codes_of_octets = {"bare-cr", "bare-lf", "nul", "8bit-undeclared", "line-too-long"}
    assert not codes_of_octets & {problem.code for problem in message.problems}
    assert server.sessions()[-1].noticed == ()


def test_a_large_message(server, way):
    text = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 12_000
    pieces = [text[at : at + 65_536] for at in range(0, len(text), 65_536)]
    with greeted(server) as wire:
        assert set(said(wire, MAIL + RCPT + in_chunks(pieces), 2 + len(pieces))) == {250}
    assert only_message(server).raw == text


def test_several_messages_in_one_session(server, way):
    one = MAIL + RCPT + in_chunks([b"Subject: one\r\n", b"\r\n"])
    two = MAIL + RCPT + b"DATA\r\n"
    with greeted(server) as wire:
        assert said(wire, one + one, 8) == [250] * 8
        wire.sock.sendall(two)
        assert [wire.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        assert said(wire, b"Subject: two\r\n\r\n.\r\n" + one, 5) == [250] * 5
    assert [m["subject"] for m in server.messages] == ["one", "one", "two", "one"]


def test_a_reset_drops_what_has_come(server, way):
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + bdat(b"no, no\r\n"), 3) == [250] * 3
        assert wire.codes(b"RSET") == [250]
        assert said(wire, MAIL + RCPT + bdat(TEXT, last=True), 3) == [250] * 3
    assert only_message(server).raw == TEXT


@pytest.mark.parametrize("command", [b"EHLO again.example", b"HELO again.example"])
def test_another_greeting_drops_what_has_come(server, way, command):
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + bdat(b"no, no\r\n"), 3) == [250] * 3
        assert wire.codes(command, b"EHLO client.example") == [250, 250]
        assert said(wire, bdat(TEXT, last=True), 1) == [503]
    assert server.queue.empty()


def test_other_commands_in_between(server, way):
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + bdat(TEXT[:10]), 3) == [250] * 3
        assert wire.codes(b"NOOP", b"VRFY kim", b"FOO") == [250, 252, 500]
        assert said(wire, bdat(TEXT[10:], last=True), 1) == [250]
    assert only_message(server).raw == TEXT


def test_under_tls(server, way):
    with TLSClient(server) as client:
        client.starttls()
        client.send(EHLO + MAIL + RCPT + in_chunks([TEXT[:9], TEXT[9:]]) + b"QUIT\r\n")
        replies = client.rest()
    assert [line[:3] for line in replies.splitlines() if line[3:4] == b" "] == [b"250"] * 5 + [
        b"221"
    ]
    message = only_message(server)
    assert message.raw == TEXT
    assert message.envelope.tls


# What is plugged in.


class Keeping(QueueServer):
    def handle_message(self, message):
        super().handle_message((message.raw, message.envelope.rcpt_tos))


class Hooked(QueueServer):
    async def handle_DATA(self, server, session, envelope):
        self.queue.put((envelope.content, tuple(envelope.rcpt_tos)))
        return "250 2.6.0 From a hook"


class HookedMAIL(QueueServer):
    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 From a hook"

    def handle_message(self, message):
        super().handle_message((message.raw, message.envelope.rcpt_tos))


@pytest.mark.parametrize("kind", [Keeping, Hooked, HookedMAIL])
@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_handlers_and_hooks(kind, uvloop):
    with (
        serving(kind, uvloop=uvloop, offer=("CHUNKING", "BINARYMIME")) as controller,
        greeted(controller) as wire,
    ):
        begin, chunks = BINARY + RCPT, in_chunks([BINARY_TEXT[:50], BINARY_TEXT[50:]])
        assert said(wire, begin + chunks, 4) == [250] * 4
        assert said(wire, begin, 2) + said(wire, chunks, 2) == [250] * 4
        for _ in range(2):
            assert controller.server.queue.get(timeout=10) == (BINARY_TEXT, ("lee@example.com",))


def test_a_queue_that_is_not_ours():
    server = QueueServer("127.0.0.1", 0, queue.Queue(), offer=("CHUNKING",))
    with Controller(server) as controller, greeted(controller) as wire:
        assert said(wire, MAIL + RCPT + in_chunks([TEXT[:50], TEXT[50:]]), 4) == [250] * 4
        assert server.queue.get_nowait().raw == TEXT


class Refusing(Server):
    def handle_message(self, message):
        return "553 5.7.1 Not wanted here"


def test_a_handler_that_refuses():
    server = Refusing("127.0.0.1", offer=("CHUNKING",))
    with Controller(server) as controller, greeted(controller) as wire:
        assert said(wire, MAIL + RCPT + in_chunks([TEXT[:50], TEXT[50:]]), 4) == [
            250,
            250,
            250,
            553,
        ]
        assert said(wire, MAIL, 1) == [250]


def test_lmtp_answers_each_recipient_at_the_end():
    """RFC 2033, 4.2: of the chunks, the last alone has a reply for each."""
    with QueueController("127.0.0.1", lmtp=True, offer=("CHUNKING",)) as controller:
        fault = controller.fault("EOM", "550 5.7.1 No", when="moe@*")
        with Wire(controller) as wire:
            wire.reply()
            assert said(wire, bdat(TEXT), 1) == [503]
            assert wire.say(b"LHLO client.example").startswith(b"250")
            begin = MAIL + RCPT + b"RCPT TO:<moe@example.com>\r\n"
            assert said(wire, begin + bdat(TEXT[:9]), 4) == [250] * 4
            assert said(wire, bdat(TEXT[9:], last=True), 2) == [250, 550]
            assert said(wire, begin + b"BDAT 0\r\n", 4) == [250, 250, 250, 501]
        assert fault.fired == 1
        message = only_message(controller)
        assert message.raw == TEXT
        assert message.envelope.rcpt_tos == ("lee@example.com",)


# What sessions show.


def test_the_dialogue_and_the_commands(server, way):
    with greeted(server) as wire:
        said(wire, MAIL + RCPT + in_chunks([TEXT, b""]), 4)
    (session,) = server.sessions()
    said_and_told = [(line.speaker, line.text) for line in session.dialogue]
    at = said_and_told.index(("C", f"BDAT {len(TEXT)}"))
    assert said_and_told[at : at + 6] == [
        ("C", f"BDAT {len(TEXT)}"),
        ("*", f"{len(TEXT)} octets of content"),
        ("S", f"250 2.0.0 {len(TEXT)} octets received"),
        ("C", "BDAT 0 LAST"),
        ("*", "0 octets of content"),
        ("S", "250 2.0.0 OK"),
    ]
    assert session.commands[3:5] == (Command("BDAT", f"{len(TEXT)}"), Command("BDAT", "0 LAST"))
    assert len(session.messages) == 1
    assert not {"early-talk", "size-exceeded-by-declared"} & {p.code for p in session.problems}


@pytest.mark.parametrize(("declared", "is_exceeded"), [(3000, False), (1000, True), (600, True)])
def test_the_size_that_was_declared_is_that_of_all_chunks(server, way, declared, is_exceeded):
    mail = b"MAIL FROM:<kim@example.com> SIZE=%d\r\n" % declared
    chunk = b"x" * 58 + b"\r\n"
    with greeted(server) as wire:
        assert said(wire, mail + RCPT + in_chunks([chunk * 10] * 5), 7) == [250] * 7
        assert said(wire, mail + RCPT + in_chunks([chunk]), 3) == [250] * 3
        wire.say(b"QUIT")
    problems = server.sessions()[-1].problems
    assert [p.code for p in problems].count("size-exceeded-by-declared") == is_exceeded


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (b"Subject: x\r\n\r\nHello.\r\n", ()),
        (b"Subject: x\r\n\r\nHello.", ("no-final-crlf",)),
        (b"Subject: x\r\n\r\nHello.\n", ("bare-lf",)),
        (b"Subject: x\r\n\r\nHello.\rKim\r\n", ("bare-cr",)),
        (b"Subject: x\r\n\r\nHello.\0\r\n", ("nul",)),
        ("Subject: x\r\n\r\nGrüße.\r\n".encode(), ("8bit-undeclared",)),
        (b"", ()),
    ],
)
def test_what_is_wrong_with_the_octets(server, way, content, codes):
    with greeted(server) as wire:
        assert said(wire, MAIL + RCPT + bdat(content, last=True), 3) == [250] * 3
        wire.say(b"QUIT")
    assert only_message(server).raw == content
    (session,) = server.sessions()
    assert session.noticed == codes
    found = [problem.code for problem in session.problems]
    assert [code for code in found if code != "starttls-not-used"] == list(codes)


def test_chunks_sent_together_where_pipelining_is_not_offered():
    with QueueController("127.0.0.1", offer=("CHUNKING",), hide=("PIPELINING",)) as controller:
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE[:2]) == [250, 250]
            assert said(wire, bdat(b"Hi\r\n"), 1) == [250]
            assert said(wire, bdat(b"Hi\r\n", last=True), 1) == [250]
            assert controller.sessions()[0].noticed == ()
            assert wire.codes(*MESSAGE[:2]) == [250, 250]
            assert said(wire, in_chunks([b"Hi\r\n", b"Hi\r\n"]), 2) == [250, 250]
            assert controller.sessions()[0].noticed == ("early-talk",)


# Clients that stop in the middle.


@pytest.mark.parametrize(
    "sent", [b"BDAT 10", b"BDAT 10\r\n", b"BDAT 10\r\nhalf", bdat(b"whole\r\n")]
)
@pytest.mark.parametrize("is_half", [True, False])
def test_a_client_that_closes_leaves_no_message(server, way, sent, is_half):
    with greeted(server) as wire:
        said(wire, MAIL + RCPT, 2)
        wire.sock.sendall(sent)
        if is_half:
            wire.sock.shutdown(socket.SHUT_WR)
            assert wire.rest() in (b"", b"250 2.0.0 7 octets received\r\n")
    (session,) = until(lambda: [s for s in server.sessions() if s.ended != "open"])
    assert session.ended == "dropped by the client"
    assert session.messages == ()
    assert server.queue.empty()


def test_a_client_that_sends_no_more_gets_its_answer(server, way):
    with greeted(server) as wire:
        wire.sock.sendall(MAIL + RCPT + in_chunks([TEXT[:9], TEXT[9:]]) + b"QUIT\r\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert [line[:3] for line in wire.rest().splitlines()] == [b"250"] * 4 + [b"221"]
    assert only_message(server).raw == TEXT


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
@pytest.mark.parametrize("sent", [b"BDAT 10\r\n", b"BDAT 10\r\nhalf", bdat(b"whole\r\n")])
@pytest.mark.parametrize("is_slow", [True, False])
def test_a_client_that_falls_silent(uvloop, sent, is_slow):
    options = {"offer": ("CHUNKING",), "idle_timeout": 0.4, "uvloop": uvloop}
    with QueueController("127.0.0.1", **options) as controller, greeted(controller) as wire:
        if is_slow:
            controller.fault("NOOP", "450 4.0.0 No", when="nobody")
        assert wire.codes(*MESSAGE[:2]) == [250, 250]
        began = time.monotonic()
        wire.sock.sendall(sent)
        assert wire.rest().splitlines()[-1] == b"421 4.4.2 Error: timeout exceeded"
        assert time.monotonic() - began >= 0.39
        assert controller.queue.empty()


def test_a_client_that_is_slow_is_not_silent():
    with QueueController("127.0.0.1", offer=("CHUNKING",), idle_timeout=2.0) as controller:
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE[:2]) == [250, 250]
            wire.sock.sendall(b"BDAT 8 LAST\r\n")
            for octet in b"Hello.\r\n":
                time.sleep(0.3)  # longer than that in all
                wire.sock.sendall(bytes([octet]))
            assert wire.reply().startswith(b"250")


def test_the_server_hangs_up_in_the_middle(server, way):
    with greeted(server) as wire:
        said(wire, MAIL + RCPT, 2)
        wire.sock.sendall(b"BDAT 10\r\nhalf")
        until(lambda: server.sessions()[0].commands[-1].verb == "BDAT")
        assert server.hang_up("421 4.3.2 Closing") == 1
        assert wire.rest() == b"421 4.3.2 Closing\r\n"
    assert server.queue.empty()
