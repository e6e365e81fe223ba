"""Bytes are bytes: what a client sends is what a test reads, whatever it is."""

from __future__ import annotations

import queue
import random
import smtplib
import time
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from helpers import only_message
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from properties import tries
from raw_client import RawClient, arriving, stuff, wire

from lazr_smtptest import QueueController

LINE_LIMIT = 1001
SIZE_LIMIT = 10_000

# The server is the same for all examples, and each takes out its own message.
some = tries(150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def running_small() -> Iterator[QueueController]:
    with QueueController(data_size_limit=SIZE_LIMIT) as controller:
        yield controller


@pytest.fixture
def small(running_small: QueueController) -> QueueController:
    """A server that takes no more than `SIZE_LIMIT` octets."""
    running_small.reset()
    return running_small


def assert_delivers(controller: QueueController, content: bytes) -> None:
    with RawClient(controller) as client:
        assert client.deliver(content).code == 250
    assert only_message(controller).raw == arriving(content)


def assert_session_goes_on(client: RawClient, controller: QueueController) -> None:
    """Nothing was taken, and the same session can still send."""
    assert controller.queue.empty()
    assert client.deliver(b"Subject: next\r\n\r\n.\r\n").code == 250
    assert only_message(controller).raw == b"Subject: next\r\n\r\n.\r\n"


# What the octets are.

OCTETS = {
    "empty": b"",
    "one empty line": b"\r\n",
    "headers only": b"Subject: no body\r\nFrom: kim@example.com\r\n",
    "headers and an empty body": b"Subject: no body\r\n\r\n",
    "no headers": b"\r\njust a body\r\n",
    "no headers and no empty line": b"just a body, and not a header\r\n",
    "NULs": b"Subject: \0\r\n\r\n\0\0\r\n\0",
    "all octets": b"Subject: all\r\n\r\n" + bytes(range(256)) + bytes(reversed(range(256))),
    "all octets in the head": b"Subject: " + bytes(range(256)) + b"\r\n\r\n",
    "8-bit": "Subject: Grüße\r\n\r\nżółw € 🐢\r\n".encode(),
    "not UTF-8": b"Subject: Gr\xfc\xdfe\r\n\r\n\xff\xfe\x80\r\n",
    "bare CR": b"Subject: a\rb\r\n\r\n\ra\r\rb\r\r\n",
    "bare LF": b"Subject: a\nb\r\n\r\n\na\n\nb\n\r\n",
    "LF only": b"Subject: unix\n\nbody\n",
    "CR only": b"Subject: mac\r\rbody\r",
    "LF CR": b"Subject: backwards\n\r\n\rbody\n\r",
    "many empty lines": b"\r\n" * 500,
    "broken MIME": (
        b"Content-Type: multipart/mixed; boundary=\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n--\r\n--nope--\r\n=?utf-8?b?!!?=\r\n"
    ),
    "an unclosed part": (
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/html'
    ),
    "a broken charset": b"Content-Type: text/plain; charset=\xff\xfe\r\n\r\n\x80\r\n",
    "an mbox line": b"From kim@example.com Thu Jan  1 00:00:00 1970\r\nSubject: x\r\n\r\n",
    "longest lines": (b"x" * 998 + b"\r\n") * 3,
    "longest lines without a last end": b"x" * 998,
    "a command": b"QUIT\r\nMAIL FROM:<eve@example.com>\r\n",
}

DOTS = {
    "one": b".\r\n",
    "two": b"..\r\n",
    "three": b"...\r\n",
    "many": b"." * 900 + b"\r\n",
    "first line": b".x\r\nbody\r\n",
    "last line": b"Subject: x\r\n\r\nbody\r\n.\r\n",
    "last line of two": b"Subject: x\r\n\r\nbody\r\n..\r\n",
    "only lines of one": b".\r\n" * 50,
    "after each shape of line end": b"a\n.\nb\r.\rc\n\r.\n\rd\r\n.\r\n.e\r\n",
    "with spaces": b". \r\n .\r\n.\t\r\n\t.\r\n",
    "before bare line ends": b".\n.\r.\n\r\n.\n",
    "inside": b"a.\r\na..b\r\n",
    "no last line end": b"a\r\n.",
    "with NUL": b".\0\r\n\0.\r\n",
    "a longest line": b"." + b"x" * 997 + b"\r\n",
    "the end of data, twice over": b"..\r\n.\r\n..\r\n",
}


@pytest.mark.parametrize("content", OCTETS.values(), ids=OCTETS.keys())
def test_octets_arrive_as_they_were_sent(server: QueueController, content: bytes) -> None:
    assert_delivers(server, content)


@pytest.mark.parametrize("content", DOTS.values(), ids=DOTS.keys())
def test_leading_dots_arrive_as_they_were_meant(server: QueueController, content: bytes) -> None:
    assert_delivers(server, content)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b"Subject: x\n\n..a\nb\n...\n..\n", b"Subject: x\n\n.a\nb\n..\n.\n"),
        (b"..a\n...b\n", b".a\n..b\n"),
        # Who doubles none there, or ends lines in CRLF, means what was sent.
        (b"Subject: x\n\n.a\n..b\n", b"Subject: x\n\n.a\n..b\n"),
        (b"Subject: x\n\n.\n", b"Subject: x\n\n.\n"),
        (b"Subject: x\r\n\r\na\n..b\n", b"Subject: x\r\n\r\na\n..b\n"),
        (b"a\n..b\r\nc", b"a\n..b\r\nc"),
    ],
)
def test_dots_behind_bare_line_feeds(server: QueueController, sent: bytes, meant: bytes) -> None:
    with RawClient(server) as client:
        client.begin()
        client.send(sent + b"\r\n.\r\n")
        assert client.reply().code == 250
    assert only_message(server).raw == meant + b"\r\n"


def test_dots_that_smtplib_doubles_in_octets(server: QueueController) -> None:
    message = EmailMessage()
    message.set_content("<style>\n.button { color: red }\n</style>\n", subtype="html")
    with smtplib.SMTP(server.host, server.port, timeout=10) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], message.as_bytes())
    assert only_message(server).raw == message.as_bytes() + b"\r\n"


def test_each_octet_alone_on_a_line(server: QueueController) -> None:
    content = b"".join(bytes([octet]) + b"\r\n" for octet in range(256))
    assert_delivers(server, content)


def test_25_megabytes(server: QueueController) -> None:
    # All octets, dots in front of some lines and CRs and LFs in them.
    block = random.Random(1).randbytes(65_536).replace(b"\r\n", b"..")
    lines = (b"\r\n".join(block[i : i + 900] for i in range(0, len(block), 900))) + b"\r\n.\r\n"
    content = b"Content-Type: application/octet-stream\r\n\r\n" + lines * 384
    assert len(content) > 25_000_000
    with RawClient(server) as client:
        assert client.deliver(content).code == 250
    message = only_message(server)
    # Not with a plain assert: the difference would take pytest for ever.
    same = message.raw == content
    assert same
    assert message["content-type"] == "application/octet-stream"


names = st.sampled_from(
    [
        b"Content-Type",
        b"Content-Transfer-Encoding",
        b"Content-Disposition",
        b"MIME-Version",
        b"From",
        b"To",
        b"Date",
        b"X-Peer",
        b"X-RcptTo",
        b"From ",
        b"",
        b" ",
        b":",
        b"\xff",
        b"\0",
    ]
)
values = st.lists(
    st.sampled_from(
        [
            b"multipart/mixed",
            b"message/rfc822",
            b"text/plain",
            b"boundary=",
            b"charset=",
            b"name*0*=",
            b"utf-8''",
            b"%",
            b"base64",
            b"x",
            b";",
            b'"',
            b"'",
            b"*",
            b"=",
            b"(",
            b")",
            b"<",
            b">",
            b"@",
            b",",
            b"[",
            b"\\",
            b"=?utf-8?q?",
            b"?=",
            b" ",
            b"\t",
            b"\r\n ",
            b"\n",
            b"\r",
            b"\xff",
            b"\xc3\xa9",
            b"\xe2\x80\xa8",
            b"\x85",
            b"\0",
        ]
    ),
    max_size=12,
).map(b"".join)
headers = st.tuples(names, st.sampled_from([b": ", b":", b""]), values, st.just(b"\r\n"))
bodies = st.lists(
    st.sampled_from([b"--x", b"--x--", b"--", b"\r\n", b"\r\n", b"body", b".", b"=", b"\xff"]),
    max_size=12,
).map(b"".join)
garbage = st.one_of(
    st.binary(max_size=900),
    st.tuples(
        st.lists(headers.map(b"".join), max_size=6).map(b"".join),
        st.sampled_from([b"\r\n", b"\n", b""]),
        bodies,
    ).map(b"".join),
)


@some
@given(garbage)
def test_anything_can_be_sent_and_taken(server: QueueController, content: bytes) -> None:
    assert_delivers(server, content)


# How the octets come.


@some
@given(garbage, st.data())
def test_pieces_make_no_difference(
    server: QueueController, content: bytes, data: st.DataObject
) -> None:
    octets = wire(content)
    cuts = data.draw(st.sets(st.integers(0, len(octets)), max_size=8))
    with RawClient(server) as client:
        client.begin()
        client.send_in_pieces(octets, cuts)
        assert client.reply().code == 250
    assert only_message(server).raw == arriving(content)


@pytest.mark.parametrize("content", [b"", b".\r\n", b"Subject: x\r\n\r\n.\r\n..\r\n\r\n.\n.\r\n"])
def test_one_octet_at_a_time(server: QueueController, content: bytes) -> None:
    octets = wire(content)
    with RawClient(server) as client:
        client.begin()
        client.send_in_pieces(octets, range(1, len(octets)))
        assert client.reply().code == 250
    assert only_message(server).raw == content


@pytest.mark.parametrize("size", range(1, 6))
def test_the_end_of_data_in_two_pieces(server: QueueController, size: int) -> None:
    octets = wire(b"Subject: x\r\n\r\nbody\r\n")
    with RawClient(server) as client:
        client.begin()
        client.send(octets[:-size])
        # The server has got the first piece when it answers another session,
        # which it can only do from the same event loop.
        with RawClient(server):
            pass
        client.send(octets[-size:])
        assert client.reply().code == 250
    assert only_message(server).raw == b"Subject: x\r\n\r\nbody\r\n"


def test_commands_behind_the_end_of_data_are_not_lost(server: QueueController) -> None:
    again = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
    with RawClient(server) as client:
        client.begin()
        client.send(wire(b"first\r\n") + again + wire(b"second\r\n") + again)
        assert [client.reply().code for _ in range(8)] == [250, 250, 250, 354, 250, 250, 250, 354]
        client.send(wire(b"third\r\n") + b"NOOP\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 221]
    assert [message.raw for message in server] == [b"first\r\n", b"second\r\n", b"third\r\n"]


def test_a_client_need_not_wait_for_354(server: QueueController) -> None:
    with RawClient(server) as client:
        client.send(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
            + wire(b"Subject: early\r\n\r\n.\r\n")
            + b"NOOP\r\n"
        )
        assert [client.reply().code for _ in range(5)] == [250, 250, 354, 250, 250]
    assert only_message(server).raw == b"Subject: early\r\n\r\n.\r\n"


def test_a_client_need_not_wait_for_354_with_much(server: QueueController) -> None:
    """More than asyncio's stream takes in, so that it stops reading for a while."""
    content = (b"." + b"x" * 900 + b"\r\n") * 2000
    with RawClient(server) as client:
        client.send(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
            + wire(content)
            + b"NOOP\r\n" * 2000
        )
        assert [client.reply().code for _ in range(4)] == [250, 250, 354, 250]
        assert {client.reply().code for _ in range(2000)} == {250}
    same = only_message(server).raw == content
    assert same


@some
@given(garbage, st.data())
def test_pieces_make_no_difference_to_a_hasty_client(
    server: QueueController, content: bytes, data: st.DataObject
) -> None:
    octets = (
        b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
        + wire(content)
        + b"NOOP\r\n"
    )
    cuts = data.draw(st.sets(st.integers(0, len(octets)), max_size=8))
    with RawClient(server) as client:
        client.send_in_pieces(octets, cuts)
        assert [client.reply().code for _ in range(5)] == [250, 250, 354, 250, 250]
    assert only_message(server).raw == arriving(content)


def test_no_reply_is_held_back(server: QueueController) -> None:
    """Nagle's algorithm would do so until the client's delayed acknowledgement.

    On Linux that is 40 ms at least, and here it would be twice.
    """
    times = []
    for _ in range(5):
        started = time.monotonic()
        with RawClient(server) as client:
            assert client.deliver(b"Subject: quick\r\n").code == 250
        times.append(time.monotonic() - started)
    assert min(times) < 0.04


def test_a_message_that_was_not_ended_is_none(server: QueueController) -> None:
    with RawClient(server) as client:
        client.begin()
        client.send(b"Subject: x\r\n\r\nbody\r\n.\r")
    with RawClient(server) as client:
        assert client.deliver(b"whole\r\n").code == 250
    assert only_message(server).raw == b"whole\r\n"


# What is not the end of data.

FALSE_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r.\n",
]


@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
def test_nothing_is_smuggled(server: QueueController, false_end: bytes) -> None:
    smuggled = b"MAIL FROM:<eve@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nsmuggled"
    # As an attacker sends it, with no regard for transparency.
    octets = b"Subject: x\r\n\r\nbody" + false_end + smuggled + b"\r\n"
    with RawClient(server) as client:
        client.begin()
        client.send(octets + b".\r\nNOOP\r\n")
        assert client.reply().code == 250
        assert client.reply() == (250, "2.0.0 OK")
        client.send(b"QUIT\r\n")
        assert client.reply().code == 221
    message = only_message(server)
    # Where the dot begins a line, it is the one that transparency adds.
    assert message.raw == octets.replace(b"\r\n.", b"\r\n")
    assert message.envelope.mail_from == "kim@example.com"


@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
def test_false_ends_of_data_arrive(server: QueueController, false_end: bytes) -> None:
    assert_delivers(server, b"Subject: x\r\n\r\nbody" + false_end + b"and more\r\n")
    assert_delivers(server, false_end.lstrip(b"\r\n") + b"at the head\r\n")
    assert_delivers(server, b"at the foot" + false_end)


def test_a_bare_cr_before_the_end_of_data(server: QueueController) -> None:
    assert_delivers(server, b"body\r\r\n")


# What is too much.


@pytest.mark.parametrize("before", [b"", b"Subject: x\r\n\r\n"], ids=["alone", "behind others"])
@pytest.mark.parametrize("length", [LINE_LIMIT + 1, LINE_LIMIT + 2, 2 * LINE_LIMIT, 300_000])
def test_a_line_that_is_too_long(server: QueueController, length: int, before: bytes) -> None:
    with RawClient(server) as client:
        reply = client.deliver(before + b"x" * (length - 2) + b"\r\nshort\r\n")
        assert reply.code == 500
        assert "too long" in reply.text
        assert_session_goes_on(client, server)


def test_the_longest_line_counts_its_dot(server: QueueController) -> None:
    # With CRLF and, in the second, the dot of transparency: 1001 octets.
    assert_delivers(server, b"x" * (LINE_LIMIT - 2) + b"\r\n")
    assert_delivers(server, b"." + b"x" * (LINE_LIMIT - 4) + b"\r\n")
    with RawClient(server) as client:
        assert client.deliver(b"." + b"x" * (LINE_LIMIT - 3) + b"\r\n").code == 500
        assert_session_goes_on(client, server)


def test_a_bare_carriage_return_ends_no_line(server: QueueController) -> None:
    with RawClient(server) as client:
        assert client.deliver(b"x\r" * 800).code == 500
        assert_session_goes_on(client, server)


def test_a_bare_line_feed_ends_a_line(server: QueueController) -> None:
    """As it does for Postfix and Exim: programs that send such get their mail through."""
    content = b"x" * 990 + b"\n"
    with RawClient(server) as client:
        assert client.deliver(content * 3).code == 250
        assert server.queue.get_nowait().raw == content * 3 + b"\r\n"
        assert client.deliver(b"x" * 1001 + b"\n").code == 500
        assert_session_goes_on(client, server)


def content_of(size: int) -> bytes:
    """Make content that is so many octets on the wire, with dots to stuff."""
    lines = b"." + b"x" * 96 + b"\r\n"
    assert len(stuff(lines)) == 100
    content = lines * ((size - 50) // 100)
    content += b"y" * (size - len(stuff(content)) - 2) + b"\r\n"
    assert len(stuff(content)) == size
    return content


def test_exactly_the_size_limit(small: QueueController) -> None:
    assert_delivers(small, content_of(SIZE_LIMIT))


@pytest.mark.parametrize(
    "size", [SIZE_LIMIT + 1, SIZE_LIMIT + 2, SIZE_LIMIT + 7, 2 * SIZE_LIMIT, 3_000_000]
)
def test_more_than_the_size_limit(small: QueueController, size: int) -> None:
    with RawClient(small) as client:
        reply = client.deliver(content_of(size))
        assert reply.code == 552
        assert "Too much" in reply.text
        assert_session_goes_on(client, small)


def test_more_than_the_size_limit_in_pieces(small: QueueController) -> None:
    octets = wire(content_of(SIZE_LIMIT + 200))
    with RawClient(small) as client:
        client.begin()
        client.send_in_pieces(octets, range(SIZE_LIMIT - 100, len(octets)))
        assert client.reply().code == 552
        assert_session_goes_on(client, small)


def test_a_size_that_is_declared_too_large(small: QueueController) -> None:
    with RawClient(small) as client:
        reply = client.command(f"MAIL FROM:<kim@example.com> SIZE={SIZE_LIMIT + 1}".encode())
        assert reply.code == 552
        reply = client.command(f"MAIL FROM:<kim@example.com> SIZE={SIZE_LIMIT}".encode())
        assert reply.code == 250
        assert client.command(b"RSET").code == 250
        assert_session_goes_on(client, small)


def test_refused_content_does_not_touch_what_was_taken(small: QueueController) -> None:
    with RawClient(small) as client:
        assert client.deliver(b"before\r\n").code == 250
        assert client.deliver(content_of(SIZE_LIMIT + 1)).code == 552
        assert client.deliver(b"x" * 2000).code == 500
        assert client.deliver(b"after\r\n").code == 250
    assert [message.raw for message in small] == [b"before\r\n", b"after\r\n"]


# What is around the octets.


def test_the_envelope(server: QueueController) -> None:
    everybody = ("lee@example.com", "bcc@example.com", "lee@example.com", "Sam.O'Neil@example.org")
    content = b"From: kim@example.com\r\nTo: lee@example.com\r\n\r\nhi\r\n"
    with RawClient(server) as client:
        client.begin("kim@example.com", everybody, "SIZE=60 BODY=8BITMIME")
        client.send(wire(content))
        assert client.reply().code == 250
    message = only_message(server)
    assert message.raw == content
    envelope = message.envelope
    assert envelope.mail_from == "kim@example.com"
    assert envelope.rcpt_tos == everybody
    assert envelope.mail_options == ("SIZE=60", "BODY=8BITMIME")
    assert envelope.rcpt_options == ()
    assert envelope.helo == "client.example"
    assert envelope.smtp_utf8 is False
    assert envelope.peer[0] in {"127.0.0.1", "::1"}
    assert "bcc@example.com" not in str(message["to"])


def test_the_null_reverse_path(server: QueueController) -> None:
    with RawClient(server) as client:
        assert client.deliver(b"bounce\r\n", mail_from="").code == 250
    message = only_message(server)
    assert message.envelope.mail_from == ""
    assert message["X-MailFrom"] == ""


def test_an_internationalized_envelope(server: QueueController) -> None:
    with RawClient(server) as client:
        client.begin("kïm@exämple.com", ["łee@example.com"], "SMTPUTF8")
        client.send(wire(b""))
        assert client.reply().code == 250
    envelope = only_message(server).envelope
    assert envelope.mail_from == "kïm@exämple.com"
    assert envelope.rcpt_tos == ("łee@example.com",)
    assert envelope.smtp_utf8 is True


def test_an_envelope_is_not_carried_over(server: QueueController) -> None:
    with RawClient(server) as client:
        client.begin("a@example.com", ["b@example.com", "c@example.com"], "SMTPUTF8")
        client.send(wire(b"one\r\n"))
        assert client.reply().code == 250
        assert client.deliver(b"two\r\n", "d@example.com", ["e@example.com"]).code == 250
    one, two = server
    assert one.envelope.rcpt_tos == ("b@example.com", "c@example.com")
    assert one.envelope.smtp_utf8
    assert two.envelope.mail_from == "d@example.com"
    assert two.envelope.rcpt_tos == ("e@example.com",)
    assert two.envelope.mail_options == ()
    assert not two.envelope.smtp_utf8
    assert two.envelope.sequence == one.envelope.sequence + 1


def test_forged_headers_are_replaced(server: QueueController) -> None:
    content = (
        b"X-Peer: 192.0.2.1:25\r\n"
        b"Subject: forged\r\n"
        b"x-mailfrom: eve@example.com\r\n"
        b"X-RcptTo: a@example.com,\r\n b@example.com\r\n"
        b"X-PEER: again\r\n"
        b"X-Peers: is another header\r\n"
        b"\r\n"
        b"X-Peer: is body\r\n"
    )
    with RawClient(server) as client:
        reply = client.deliver(content, "kim@example.com", ["lee@example.com", "bcc@example.com"])
        assert reply.code == 250
    message = only_message(server)
    assert message.raw == content
    host, port = message.envelope.peer[:2]
    assert message.items() == [
        ("Subject", "forged"),
        ("X-Peers", "is another header"),
        ("X-Peer", f"{host}:{port}"),
        ("X-MailFrom", "kim@example.com"),
        ("X-RcptTo", "lee@example.com, bcc@example.com"),
    ]
    assert message.get_payload() == "X-Peer: is body\r\n"


def test_nothing_comes_of_nothing(server: QueueController) -> None:
    with RawClient(server) as client:
        client.begin()
        assert server.queue.empty()
        with pytest.raises(queue.Empty):
            server.queue.get_nowait()
