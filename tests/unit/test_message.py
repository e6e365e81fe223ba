"""What a test reads: `parse`, `Message` and `Envelope`, without a server."""

from __future__ import annotations

import copy
import email
import email.policy
import pickle
import sys
from datetime import timezone
from email.errors import (
    MissingHeaderBodySeparatorDefect,
    MultipartInvariantViolationDefect,
    StartBoundaryNotFoundDefect,
)
from email.feedparser import BytesFeedParser
from email.message import EmailMessage
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from messages import ATTACHED, ENVELOPE, LONE_STAR, TOO_DEEP
from properties import tries

from lazr_smtptest._child.delivery import seal
from lazr_smtptest._wire.ipc_queue import LARGE
from lazr_smtptest.message import Envelope, Message, ParserFailed, PickledItem, Received, parse

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)

some = tries(200)

# What is well-formed.


def test_a_message_is_an_email_message() -> None:
    message = parse(ENVELOPE, b"Subject: hi\r\nTo: Lee <lee@example.com>\r\n\r\nbody\r\n")
    assert type(message) is Message
    assert isinstance(message, EmailMessage)
    assert message["subject"] == "hi"
    assert message["to"].addresses[0].display_name == "Lee"
    assert message.get_content() == "body\r\n"
    assert message.defects == []


def test_a_message_keeps_what_it_was_made_of() -> None:
    raw = b"Subject: hi\r\n\r\nbody\r\n"
    message = parse(ENVELOPE, raw)
    assert message.raw == raw
    assert type(message.raw) is bytes
    assert message.envelope is ENVELOPE


def test_parts_are_no_messages() -> None:
    """A part came in no envelope, so it is a plain EmailMessage."""
    message = parse(ENVELOPE, ATTACHED)
    whole, *parts = message.walk()
    assert whole is message
    assert len(parts) == 4
    assert {type(part) for part in parts} == {EmailMessage}
    assert not any(hasattr(part, "envelope") for part in parts)


def test_attachments() -> None:
    message = parse(ENVELOPE, ATTACHED)
    body = message.get_body()
    assert body is not None
    assert body.get_content() == "grüße"
    octets, inner = message.iter_attachments()
    assert octets.get_filename() == "all.bin"
    assert octets.get_content() == b"\x00\x01\x02\xfd\xfe\xff"
    assert inner.get_content()["subject"] == "inner"
    assert message["subject"] == "grüße"


def test_the_headers_of_parts_are_left_alone() -> None:
    message = parse(ENVELOPE, ATTACHED)
    *_, inner = message.walk()
    assert inner.items() == [("Subject", "inner"), ("X-Peer", "of the inner message")]


# The headers that are added.


def test_headers_are_added_at_the_end() -> None:
    message = parse(ENVELOPE, b"Subject: hi\r\nX-Other: 1\r\n\r\n")
    assert message.items() == [
        ("Subject", "hi"),
        ("X-Other", "1"),
        ("X-Peer", "127.0.0.1:50000"),
        ("X-MailFrom", "kim@example.com"),
        ("X-RcptTo", "lee@example.com, bcc@example.com"),
    ]
    assert b"X-Peer: 127.0.0.1:50000\n" in message.as_bytes()
    assert message.raw == b"Subject: hi\r\nX-Other: 1\r\n\r\n"


@pytest.mark.parametrize("name", [b"X-Peer", b"X-MailFrom", b"X-RcptTo", b"x-peer", b"X-RCPTTO"])
@pytest.mark.parametrize("times", [1, 3])
def test_forged_headers_are_taken_out(name: bytes, times: int) -> None:
    raw = (name + b": forged\r\n" + b"Subject: hi\r\n") * times + b"\r\n"
    message = parse(ENVELOPE, raw)
    assert [name for name, _ in message.items()][times:] == ["X-Peer", "X-MailFrom", "X-RcptTo"]
    assert "forged" not in message.as_string()
    assert message.raw == raw


def test_an_ipv6_peer() -> None:
    message = parse(ENVELOPE._replace(peer=("::1", 50_000, 0, 0)), b"")
    assert message["X-Peer"] == "::1:50000"


def test_an_empty_reverse_path() -> None:
    message = parse(ENVELOPE._replace(mail_from=""), b"")
    assert message["X-MailFrom"] == ""


@pytest.mark.parametrize(
    "address",
    [
        "kïm@exämple.com",
        "kim\udcff@example.com",
        "kim\r\nBcc: eve@example.com\r\n\r\nbody",
        '"kim, lee" <@x:kim@example.com>',
        "=?utf-8?q?kim?=@example.com",
        "k" * 2000 + "@example.com",
        "\0",
        # Each that `str.splitlines` takes for the end of a line.
        *(f'"a{c}X-Forged: 1{c}{c}"@example.com' for c in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"),
    ],
    ids=ascii,
)
def test_odd_addresses_make_no_other_headers(address: str) -> None:
    envelope = ENVELOPE._replace(mail_from=address, rcpt_tos=(address, address))
    message = parse(envelope, b"Subject: hi\r\n\r\nbody\r\n")
    assert message.keys() == ["Subject", "X-Peer", "X-MailFrom", "X-RcptTo"]
    assert message.get_payload() == "body\r\n"
    assert message.envelope.mail_from == address
    again = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert again.keys() == message.keys()


def test_an_internationalized_address_is_readable() -> None:
    message = parse(ENVELOPE._replace(mail_from="kïm@exämple.com"), b"")
    assert message["X-MailFrom"] == "kïm@exämple.com"


def test_a_pickle_is_not_larger_than_the_standard_librarys() -> None:
    """Many go through one pipe, whose room is small."""
    raw = b"Subject: x\r\n\r\nHello\r\n"
    ours = parse(ENVELOPE, raw)
    stock = email.message_from_bytes(raw, policy=email.policy.default)
    assert len(pickle.dumps(ours.policy)) < len(pickle.dumps(stock.policy)) + 50


# What is not well-formed.


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        (b"no header\r\n", MissingHeaderBodySeparatorDefect),
        (b"Content-Type: multipart/mixed\r\n\r\nx\r\n", MultipartInvariantViolationDefect),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\ny\r\n", StartBoundaryNotFoundDefect),
    ],
)
def test_defects_are_told(raw: bytes, defect: type[Exception]) -> None:
    message = parse(ENVELOPE, raw)
    assert defect in map(type, message.defects)
    assert message.raw == raw
    assert message["X-MailFrom"] == "kim@example.com"


@pytest.mark.parametrize("raw", [LONE_STAR, TOO_DEEP], ids=["a lone star", "too deep"])
def test_what_breaks_the_parser_is_a_message_all_the_same(raw: bytes) -> None:
    message = parse(ENVELOPE, raw)
    assert type(message) is Message
    assert message.raw == raw
    assert message.envelope is ENVELOPE
    assert message.keys()[-3:] == ["X-Peer", "X-MailFrom", "X-RcptTo"]
    assert all(type(part) is EmailMessage for part in list(message.walk())[1:])
    again = pickle.loads(pickle.dumps(message))
    assert again.raw == raw
    assert list(map(str, again.defects)) == list(map(str, message.defects))


def test_a_parser_that_raises_leaves_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug of its own")

    monkeypatch.setattr(BytesFeedParser, "feed", fail)
    message = parse(ENVELOPE, ATTACHED)
    assert message["Subject"] == "grüße"
    assert message.text == "grüße"
    defect = message.defects[-1]
    assert isinstance(defect, ParserFailed)
    assert str(defect) == "RuntimeError: a bug of its own"


header_words = st.lists(
    st.sampled_from(
        [
            b"Content-Type",
            b"Content-Transfer-Encoding",
            b"MIME-Version",
            b"Subject",
            b"X-Peer",
            b":",
            b": ",
            b"multipart/mixed",
            b"message/rfc822",
            b"message/delivery-status",
            b"text/plain",
            b"; boundary",
            b"; charset",
            b"*",
            b"*0*",
            b"=",
            b"utf-8''",
            b"%",
            b'"',
            b"x",
            b"(",
            b")",
            b"base64",
            b"=?utf-8?b?",
            b"?=",
            b"--x",
            b"--x--",
            b"\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b"\r\n ",
            b"\xff",
            b"\xe2\x80\xa8",
            b"\0",
        ]
    ),
    max_size=30,
).map(b"".join)


@some
@given(st.binary(max_size=300) | header_words)
@example(b"")
@example(LONE_STAR)
@example(b"Content-Type: multipart/mixed; boundary*\r\n\r\n")
def test_parse_never_raises(raw: bytes) -> None:
    message = parse(ENVELOPE, raw)
    assert type(message) is Message
    assert message.raw == raw
    assert message.envelope is ENVELOPE
    assert message.keys()[-3:] == ["X-Peer", "X-MailFrom", "X-RcptTo"]
    assert [name.lower() for name in message.keys()].count("x-peer") == 1  # noqa: SIM118
    assert Message not in [type(part) for part in message.walk()][1:]


@some
@given(
    st.text(max_size=30),
    st.lists(st.text(max_size=30), max_size=3),
    st.tuples(st.text(max_size=10), st.integers(0, 65_535)),
)
def test_parse_never_raises_for_any_envelope(
    mail_from: str, rcpt_tos: list[str], peer: tuple[str, int]
) -> None:
    envelope = ENVELOPE._replace(mail_from=mail_from, rcpt_tos=tuple(rcpt_tos), peer=peer)
    message = parse(envelope, b"Subject: hi\r\n\r\n")
    assert message.envelope == envelope
    assert message.keys() == ["Subject", "X-Peer", "X-MailFrom", "X-RcptTo"]


# The way between processes.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_envelope_survives_pickling(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(ENVELOPE, protocol))
    assert type(again) is Envelope
    assert again == ENVELOPE
    assert again.received_at.tzinfo is timezone.utc


@pytest.mark.parametrize("values", [ENVELOPE._packed()[:-1], (*ENVELOPE._packed(), 1)])
def test_an_envelope_of_another_version_is_not_unpickled(values: tuple[Any, ...]) -> None:
    """Or it would lack a field, and say so only where that is read."""
    unpacked, _ = ENVELOPE.__reduce__()
    with pytest.raises(TypeError, match=f"14 arguments, got {len(values)}"):
        unpacked([*values])


def test_an_envelope_with_octets_that_are_not_utf_8_survives_pickling() -> None:
    envelope = ENVELOPE._replace(mail_from="kim\udcff@example.com")
    assert pickle.loads(pickle.dumps(envelope)) == envelope


def test_an_envelope_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ENVELOPE.mail_from = "eve@example.com"  # type: ignore[misc]


@pytest.mark.parametrize(
    "again",
    [
        *(lambda message, p=p: pickle.loads(pickle.dumps(message, p)) for p in PROTOCOLS),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle {p}" for p in PROTOCOLS), "copy", "deepcopy"],
)
@pytest.mark.parametrize(
    "raw",
    [ATTACHED, LONE_STAR, b"", b"no header\r\n", b"Subject: \xff\r\n\r\n\x80", b"a: b"],
    ids=["attached", "lone star", "empty", "defects", "8-bit", "headers only"],
)
def test_a_message_survives_pickling_and_copying(again, raw: bytes) -> None:
    message = parse(ENVELOPE, raw)
    message["subject"]  # reading a header must not make a difference
    copied = again(message)
    assert type(copied) is Message
    assert copied.raw == raw
    assert copied.envelope == ENVELOPE
    assert copied.items() == message.items()
    assert [type(part) for part in copied.walk()] == [type(part) for part in message.walk()]
    assert list(map(type, copied.defects)) == list(map(type, message.defects))


@some
@given(st.binary(max_size=300) | header_words)
def test_any_message_survives_pickling(raw: bytes) -> None:
    message = parse(ENVELOPE, raw)
    again = pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    assert type(again) is Message
    assert again.raw == raw
    assert again.envelope == ENVELOPE
    assert again.keys() == message.keys()


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_buffer_in_an_envelope_that_a_handler_has_changed(size: int) -> None:
    envelope = ENVELOPE._replace(peer=(pickle.PickleBuffer(b"localhost"),))
    message = PickledItem(*seal(parse(envelope, b"x" * size))).load()
    assert message.raw == b"x" * size
    assert message.envelope == ENVELOPE._replace(peer=(b"localhost",))


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("size", [10, LARGE])
def test_two_that_load_one_item(size: int, step: int) -> None:
    """Whatever step one has got to when the other does it, each gets the whole message."""
    raw = b"Subject: x\r\n\r\n" + b"y" * size
    item = PickledItem(*seal(Received(ENVELOPE, bytearray(raw))))
    others: list[Message] = []
    before = sys.gettrace()  # coverage.py's, if it measures this
    steps = 0

    def load_in_between(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        if frame.f_code is not PickledItem.load.__code__ or others:
            return None
        steps += event == "line"
        if steps == step:
            sys.settrace(before)
            others.append(item.load())
        return load_in_between

    sys.settrace(load_in_between)
    try:
        message = item.load()
    finally:
        sys.settrace(before)
    for one in (message, item.load(), *others):
        assert (one.raw, one.envelope, one["Subject"]) == (raw, ENVELOPE, "x")
