"""What `Message` tells of headers, of good mail and bad."""

from __future__ import annotations

import email.policy

import pytest
from messages import make

from lazr_smtptest.message import Message


def test_it_is_shown_in_one_line():
    message = make(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n folded\r\n\r\nHello.\r\n")
    assert repr(message) == (
        "<Message from <kim@example.com> to <lee@example.com>, <bcc@example.com>, "
        "subject 'Grüße folded'>"
    )
    assert repr([message]) == f"[{message!r}]"


def test_one_that_was_not_received_is_shown_somehow():
    assert "Message object at" in repr(Message())


def test_headers():
    message = make(
        b"Received: one\r\nX-Other: a\r\nreceived: two\r\n folded\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"
    )
    assert message.headers("Received") == ["one", "two folded"]
    assert message.headers("RECEIVED") == ["one", "two folded"]
    assert message.header("receiveD") == "one"
    assert message.header("subject") == "Grüße"
    assert message.headers("Missing") == []
    assert message.header("Missing") == ""
    assert message.header("Missing", "default") == "default"
    assert message.header("X-Other", "default") == "a"


def test_all_headers():
    message = make(
        b"Received: one\r\nX-Peer: forged\r\nreceived: two\r\n folded\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Odd: =?nope?q?\xff?=\r\n\r\n"
    )
    assert message.header_items() == [
        ("Received", "one"),
        ("received", "two folded"),
        ("Subject", "Grüße"),
        ("X-Odd", message.header("X-Odd")),
    ]


def test_headers_are_texts():
    message = make(b"To: Ann <ann@example.com>\r\nDate: Thu, 29 Feb 2024 23:59:59 +0000\r\n\r\n")
    assert message.header("To") == "Ann <ann@example.com>"
    assert message.header("Date") == "Thu, 29 Feb 2024 23:59:59 +0000"


def test_the_headers_that_are_added_can_be_read_so_too():
    message = make(b"X-Peer: forged\r\n\r\n")
    assert message.headers("X-Peer") == ["127.0.0.1:50000"]
    assert message.header("x-mailfrom") == "kim@example.com"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Grüße".encode(), "Grüße"),
        (b"Gr\xfc\xdfe", "Grüße"),
        (b"=?nope?q?x?=", "x"),
        (b"=?utf-8?b?////?=", "\ufffd\ufffd\ufffd"),
        (b"=?utf-8?q?x", "=?utf-8?q?x"),
        (b"", ""),
        (b"   ", ""),
        (b"x" * 5000, "x" * 5000),
    ],
    ids=ascii,
)
def test_a_header_with_a_bad_value(raw, text):
    message = make(b"Subject: " + raw + b"\r\n\r\n")
    assert message.header("Subject").strip() == text
    assert message.headers("Subject") == [message.header("Subject")]


#: Each of them raises an IndexError, an AttributeError, a TypeError or an
#: UnboundLocalError when one Python or another reads it.
BREAKING = [
    (b"To", b'"'),
    (b"From", b'kim@example.com, "'),
    (b"Sender", b"<"),
    (b"To", b":;\0"),
    (b"To", b"/@[-"),
    (b"To", b"utf-8@[\r\n "),
    (b"To", b".:"),
    (b"Sender", b"().\\"),
    (b"Message-ID", b"<"),
    (b"Message-ID", b"<'@"),
    (b"Content-Disposition", b";999999999999999999999999999999*"),
]


def breaks(name: bytes, value: bytes) -> bool:
    try:
        email.policy.default.header_fetch_parse(name.decode(), value.decode())
    except Exception:
        return True
    return False


@pytest.mark.parametrize(("name", "value"), BREAKING)
@pytest.mark.parametrize("more", [b"", "grün".encode()])
def test_headers_that_break_the_standard_librarys_parser(name, value, more):
    name_text = name.decode()
    message = make(b"X: 1\r\n" + name + b": " + more + value + b"\r\n\r\nbody\r\n")
    expected = (more + value).decode().replace("\r\n", "")
    assert message.headers(name_text) == [expected]
    assert message.header(name_text) == message.raw_header(name_text) == expected
    assert isinstance(message[name_text], str)
    assert message.is_attachment() is False
    assert message.text == "body\n"
    assert message.attachments == []


def test_there_are_headers_that_break_it():
    """Without them, nothing would test what happens then."""
    assert [name for name, value in BREAKING if breaks(name, value)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"My App" <a@example.com>', "My App <a@example.com>"),
        ('"Kim, Lee" <a@example.com>', '"Kim, Lee" <a@example.com>'),
        ("=?utf-8?q?Kim=2C_Lee?= <a@example.com>", '"Kim, Lee" <a@example.com>'),
        ("[Sales] Kim <a@example.com>", "[Sales] Kim <a@example.com>"),
        ('Team: a@example.com,\r\n "B" <b@x.example>;', "Team: a@example.com, B <b@x.example>;"),
        ("a@example.com (=?utf-8?q?Gr=C3=BCn?=)", "a@example.com (Grün)"),
        ('"a b"@example.com', '"a b"@example.com'),
        ("Kim <a@example.com", "Kim <a@example.com"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["From", "to", "CC", "Reply-To", "Resent-To"])
def test_a_list_of_addresses_is_shown_as_mail_programs_show_it(name, value, shown):
    assert make(f"{name}: {value}\r\n\r\n").header(name) == shown


def test_fields_with_a_blank_before_the_colon_are_read():
    """They are obsolete, and must be accepted (RFC 5322, 4.5); Python's parser stops there."""
    message = make(b"Subject : Lunch\r\nTo: a@example.com\r\nX-Peer: forged\r\n\r\nHello\r\n")
    assert message.header_items() == [("Subject", "Lunch"), ("To", "a@example.com")]
    assert (message.header("subject"), message.raw_header("to")) == ("Lunch", "a@example.com")
    assert message.header("X-Peer") == "127.0.0.1:50000"
    assert message.text == "Hello\n"


@pytest.mark.parametrize(
    "line", ["From kim Mon", ">From kim Mon", ": x", "X-Odd: a\rb", " a continuation"]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_is_no_field_spoils_no_other(line, place):
    lines = ["Subject: Lunch", "To: a@example.com"]
    lines.insert(place, line)
    message = make("\r\n".join([*lines, "", "Hello"]))
    assert message.header("Subject").startswith("Lunch")
    assert message.header("To") == "a@example.com"
    assert message.text == "Hello"
    assert "\r" not in message.header("X-Odd")


def test_mail_whose_lines_end_in_cr_alone():
    message = make(b"Subject: Lunch\rTo: a@example.com\r\rHello\r")
    assert (message.header("Subject"), message.text) == ("Lunch", "Hello\n")


def test_a_header_as_it_was_sent():
    message = make(
        b'From: "My App" <a@example.com>\r\nX-Two: one\r\n'
        b"X-TWO:  =?utf-8?q?Gr=C3=BC?=\r\n\tfolded \r\n"
        b"Subject: Gr\xc3\xbcn\r\nX-Odd: \xff\r\nX-Peer: forged\r\n\r\n"
    )
    assert message.raw_header("FROM") == '"My App" <a@example.com>'
    assert message.raw_headers("x-two") == ["one", "=?utf-8?q?Gr=C3=BC?=\tfolded "]
    assert message.raw_header("Subject") == "Grün"
    assert message.raw_header("X-Odd").encode("utf-8", "surrogateescape") == b"\xff"
    assert message.raw_header("Missing") == ""
    assert message.raw_header("Missing", "default") == "default"
    assert message.raw_headers("Missing") == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=?gb2312?B?6Ua98A==?= =?iso-8859-1?q?it=92s?=", "镕金it’s"),
        ("=?utf-8?b?4oI=?= =?utf-8?b?rA==?=", "€"),
        ("=?utf-8*en?q?Gr=C3=BC?=n", "Grün"),
        ("=?utf-8?q?for you?=", "for you"),
        ("=?utf-8?q?Really??=", "Really?"),
        ("=?utf-8?q?a=0D=0AX-Evil:_b=E2=80=A8c?=", "a X-Evil: b c"),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        ("x=?utf-8?q?a?=y", "xay"),
        ("=?utf-8?q?never ends", "=?utf-8?q?never ends"),
        ("=?utf-8?q??= x", " x"),
        ("=?utf-8?B?w6Q =?utf-8?B?w7Y=?=", "=?utf-8?B?w6Q ö"),
        ("=?rot13?q?abc?=", "abc"),
        ("=?gbk?q?=80?= =?big5?q?=A3=E1?=", "€€"),
        ("a\x0bb\u2028c\x85d", "a b c d"),
    ],
)
def test_encoded_words_as_mail_programs_decode_them(value, shown):
    assert make(f"Subject: {value}\r\n\r\n").header("Subject") == shown
