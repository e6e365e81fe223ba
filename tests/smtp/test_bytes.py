"""Bytes are bytes: what a client sends is what a test reads, whatever it is."""

from __future__ import annotations

import itertools
import os
import queue
import random
import re
import time
from collections.abc import Iterator

import aiosmtpd.smtp
import pytest
from helpers import terms
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_client import RawClient, arriving, stuff, wire

from lazr_smtptest import Message, QueueController, Server
from lazr_smtptest._commands import _PLAIN_PATH
from lazr_smtptest._content import Content
from lazr_smtptest._smtp import SMTP

LINE_LIMIT = 1001
SIZE_LIMIT = 10_000

some = settings(
    max_examples=150,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    # The server is the same for all examples, and each takes out its own message.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
many = settings(some, max_examples=400)


@pytest.fixture(scope="module")
def running_small() -> Iterator[QueueController]:
    with QueueController(data_size_limit=SIZE_LIMIT) as controller:
        yield controller


@pytest.fixture
def small(running_small: QueueController) -> QueueController:
    """A server that takes no more than `SIZE_LIMIT` octets."""
    running_small.reset()
    return running_small


def only_message(controller: QueueController) -> Message:
    message = controller.queue.get_nowait()
    assert controller.queue.empty()
    return message


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


def test_bare_line_ends_end_no_line(server: QueueController) -> None:
    with RawClient(server) as client:
        assert client.deliver(b"x\n" * 400 + b"x\r" * 400).code == 500
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


# The same for the classes alone: there, far more can be tried.


def reference(octets: bytes, size_limit: int | None, line_limit: int) -> tuple[object, bytes]:
    """Read content line by line, the simplest way there is.

    :return: The content, or the code of its refusal, or None where it has not
        ended; and what lies behind its end.
    """
    lines = []
    while True:
        text, line_end, octets = octets.partition(b"\r\n")
        if not line_end:
            return None, b""
        if text == b".":
            break
        lines.append(text + line_end)
    if size_limit is not None and sum(map(len, lines)) > size_limit:
        return 552, octets
    if any(len(line) > line_limit for line in lines):
        return 500, octets
    return b"".join(line[line.startswith(b".") :] for line in lines), octets


def taken(content: Content) -> object:
    try:
        return content.take()
    except ValueError as refused:
        return int(str(refused)[:3])


# Short lines and few octets, so that the limits are reached and the pieces
# that matter meet.
fragments = st.one_of(
    st.sampled_from(
        [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", b".\r\n", b"\n.\n", b"\0", b"x" * 9]
    ),
    st.binary(max_size=12),
)
streams = st.lists(fragments, max_size=20).map(b"".join)


@many
@given(
    streams,
    st.booleans(),
    st.none() | st.integers(1, 120),
    st.integers(3, 40),
    st.lists(st.integers(0, 200), max_size=12),
)
@example(b".\r\n.\r\n", False, None, 3, [])
@example(b"\r\n.\r\nQUIT\r\n", False, 1, 3, [1, 2, 3, 4])
def test_content_is_read_as_by_lines(
    octets: bytes, end: bool, size_limit: int | None, line_limit: int, cuts: list[int]
) -> None:
    if end:
        octets += b"\r\n.\r\nNOOP\r\n"
    expected, behind = reference(octets, size_limit, line_limit)
    content = Content(size_limit, line_limit)
    rest = b""
    position = 0
    for cut in (*sorted(cuts), len(octets)):
        piece = octets[position : max(cut, position)]
        position += len(piece)
        # Once it has ended, the session gives it nothing any more.
        rest += piece if content.ended else content.feed(piece)
    assert content.ended is (expected is not None)
    assert rest == behind
    if expected is not None:
        assert taken(content) == expected


@some
@given(st.binary(max_size=300), st.lists(st.sampled_from([b"\r\n.", b".", b"\r\n"]), max_size=8))
def test_content_undoes_transparency(octets: bytes, more: list[bytes]) -> None:
    meant = octets + b"".join(more) + octets
    content = Content(None, LINE_LIMIT)
    assert content.feed(wire(meant)) == b""
    assert content.ended
    assert content.take() == arriving(meant)


@pytest.mark.parametrize("line_limit", [3, 4, 10, LINE_LIMIT])
def test_content_measures_each_line(line_limit: int) -> None:
    lengths = (2, 3, line_limit - 1, line_limit, line_limit + 1, 2 * line_limit)
    for some_lengths in itertools.product(lengths, repeat=3):
        octets = b"".join(b"x" * (length - 2) + b"\r\n" for length in some_lengths) + b".\r\n"
        content = Content(None, line_limit)
        assert content.feed(octets) == b""
        assert taken(content) == reference(octets, None, line_limit)[0], some_lengths


@pytest.mark.parametrize("size_limit", [1, 100, None])
def test_content_ends_however_its_end_is_cut(size_limit: int | None) -> None:
    end = b"\r\n.\r\n"
    for number, before in itertools.product(range(6), (b"x" * 99, b"x\r\n" * 50, b"\r\n..")):
        for cuts in itertools.combinations(range(len(end)), number):
            octets = before + end
            places = (0, *(len(before) + cut for cut in cuts), len(octets))
            content = Content(size_limit, LINE_LIMIT)
            for start, stop in itertools.pairwise(places):
                assert not content.ended
                assert content.feed(octets[start:stop]) == b""
            assert content.ended
            assert taken(content) == reference(octets, size_limit, LINE_LIMIT)[0]


def test_content_keeps_no_more_than_the_limit() -> None:
    content = Content(1000, LINE_LIMIT)
    for _ in range(1000):
        content.feed(b"x" * 1000)
    assert len(content._octets) < 3000
    assert content.feed(b"\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert taken(content) == 552


@pytest.fixture(scope="module")
def protocol() -> Iterator[SMTP]:
    """A session that nobody is connected to."""
    import asyncio

    async def deliver(*message: object) -> str:
        raise AssertionError("nothing is delivered here")

    loop = asyncio.new_event_loop()
    yield SMTP(terms(Server(), deliver), loop=loop)
    loop.close()


parameters = st.one_of(
    st.sampled_from(["", " SIZE=100", " SIZE=100 BODY=8BITMIME SMTPUTF8", "  SIZE=1 ", " "]),
    st.lists(
        st.sampled_from([" ", " ", "(", ")", "SIZE=1", "=", "\\", '"', "<", ">", "\t", "é", "\0"]),
        max_size=6,
    ).map("".join),
)
atoms = st.text("kmABZ019_+-", min_size=1, max_size=4)
dot_atoms = st.lists(atoms, min_size=1, max_size=3).map(".".join)
plain_paths = st.builds("<{}@{}>{}".format, dot_atoms, dot_atoms, parameters)
odd_paths = st.lists(
    st.sampled_from(
        [
            *"<>@.,:;\"\\()[] \t-_+'=?!%é\0",
            "kim",
            "example.com",
            "kim@example.com",
            "<kim@example.com>",
            "<@relay.example:kim@example.com>",
            '"kim lee"',
            "[192.0.2.1]",
            "[IPv6:::1]",
            " SIZE=10",
        ]
    ),
    max_size=8,
).map("".join)


@many
@given(plain_paths | odd_paths)
@example("<kim@example.com>")
@example("<kim@example.com> SIZE=100")
@example("<kim.lee+tag@mail.example.com>  SIZE=100  BODY=8BITMIME ")
@example("<kim@example.com> (a comment, as in a header) SIZE=100")
def test_the_short_cut_agrees_with_the_parser(protocol: SMTP, path: str) -> None:
    # aiosmtpd strips what it hands over.
    path = path.strip()
    if not _PLAIN_PATH.match(path):
        return
    address, options = protocol._getaddr(path)
    full_address, full_options = aiosmtpd.smtp.SMTP._getaddr(protocol, path)
    assert address == full_address
    assert options is not None
    assert full_options is not None
    assert options.split() == full_options.split()


@pytest.mark.parametrize(
    "path",
    [
        "kim@example.com",
        "<>",
        '<"kim lee"@example.com>',
        "<kim@[192.0.2.1]>",
        "<@relay.example:kim@example.com>",
        "<kïm@example.com>",
        "<kim@example.com>SIZE=100",
        "<kim @example.com>",
        "<.kim@example.com>",
        "<kim.@example.com>",
        "<kim>",
        "",
    ],
)
def test_the_short_cut_leaves_the_rest_to_the_parser(protocol: SMTP, path: str) -> None:
    assert not _PLAIN_PATH.match(path)
    assert protocol._getaddr(path) == aiosmtpd.smtp.SMTP._getaddr(protocol, path)


def test_the_short_cut_heeds_the_limit_of_local_parts(protocol: SMTP) -> None:
    path = "<" + "x" * 65 + "@example.com>"
    assert protocol._getaddr(path) == (path[1:-1], "")
    protocol.local_part_limit = 64
    try:
        assert protocol._getaddr(path) == (None, None)
    finally:
        del protocol.local_part_limit


def test_the_helpers_of_these_tests() -> None:
    assert stuff(b".\r\n..\r\nx\r\n.\r\n\r\n.") == b"..\r\n...\r\nx\r\n..\r\n\r\n.."
    assert stuff(b"\n.\r.\r\r\n.") == b"\n.\r.\r\r\n.."
    assert wire(b"") == b".\r\n"
    assert wire(b".") == b"..\r\n.\r\n"
    assert re.findall(rb"(?:\A|\r\n)\.\r\n", wire(b".\r\n.\r\n")) == [b"\r\n.\r\n"]
    assert reference(b".\r\nx", None, 3) == (b"", b"x")
    assert reference(b"..\r\n.\r\n", None, 4) == (b".\r\n", b"")
    assert reference(b"..\r\n.\r\n", 3, 4) == (552, b"")
    assert reference(b"..\r\n.\r\n", 4, 3) == (500, b"")
    assert reference(b"x\n.\r\n", None, 9) == (None, b"")
