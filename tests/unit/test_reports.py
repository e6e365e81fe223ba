"""What a test is told of the messages that came: all that helps, and nothing that harms."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from messages import MAIL, about, make, multipart, to, wanting

from lazr_smtptest._parent.describe import describe
from lazr_smtptest._parent.matching import Criteria
from lazr_smtptest.errors import NearMiss
from lazr_smtptest.message import headline


def report(messages: list[Any], count: int = 1, elapsed: float = 5.0, **wanted: Any):
    criteria = Criteria(**wanted)
    return criteria.report([(m, criteria.unmet(m)) for m in messages], count, elapsed)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({}, "no message"),
        ({"subject": "x"}, "no message with subject containing 'x'"),
        ({"subject": re.compile("^x$")}, "no message with subject matching '^x$'"),
        ({"subject": wanting}, "no message with subject that wanting wants"),
        ({"where": wanting}, "no message with where wanting"),
        (
            {"where": wanting, "subject": "x", "to": "t", "sender": "", "rcpt": "r"},
            "no message with rcpt 'r' and sender '' and to 't' and subject containing 'x' "
            "and where wanting",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_the_report_when_nothing_has_come(wanted, text):
    assert report([], elapsed=1.234, **wanted) == (f"{text} came within 1.23 seconds", [])


def test_the_report_of_one_near_miss():
    text, misses = report([MAIL], rcpt="Lee@example.com", subject="lunch")
    assert text == (
        "no message with rcpt 'Lee@example.com' and subject containing 'lunch' came within "
        "5.00 seconds; 1 message is there:\n"
        "- from <bounces+7@example.net> to <lee@example.com>, <blind@example.com>, "
        "subject 'Lunch at noon'\n"
        "    rcpt: wanted 'Lee@example.com', got 'lee@example.com', 'blind@example.com', "
        "which differs in the case of the local part\n"
        "    subject: wanted containing 'lunch', got 'Lunch at noon', which differs in case"
    )
    (miss,) = misses
    assert type(miss) is NearMiss
    assert miss.message is MAIL
    assert [difference.field for difference in miss.differences] == ["rcpt", "subject"]


def test_the_report_of_six_misses_has_five_the_nearest_first():
    far = [make(f"Subject: far {n}\r\n\r\n", rcpt_tos=("max@example.com",)) for n in range(3)]
    near = [about(f"near {n}") for n in range(3)]
    text, misses = report(
        [far[0], near[0], far[1], near[1], near[2], far[2]],
        rcpt="lee@example.com",
        subject="wanted",
    )
    assert [miss.message for miss in misses] == [*near, *far[:2]]
    assert text == (
        "no message with rcpt 'lee@example.com' and subject containing 'wanted' came within "
        "5.00 seconds; 6 messages are there:\n"
        "- from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject 'near 0'\n"
        "    subject: wanted containing 'wanted', got 'near 0'\n"
        "- from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject 'near 1'\n"
        "    subject: wanted containing 'wanted', got 'near 1'\n"
        "- from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject 'near 2'\n"
        "    subject: wanted containing 'wanted', got 'near 2'\n"
        "- from <kim@example.com> to <max@example.com>, subject 'far 0'\n"
        "    rcpt: wanted 'lee@example.com', got 'max@example.com'\n"
        "    subject: wanted containing 'wanted', got 'far 0'\n"
        "- from <kim@example.com> to <max@example.com>, subject 'far 1'\n"
        "    rcpt: wanted 'lee@example.com', got 'max@example.com'\n"
        "    subject: wanted containing 'wanted', got 'far 1'\n"
        "- and 1 more, which came no nearer"
    )


def test_the_report_when_only_some_of_many_have_come():
    text, misses = report([about("a 1"), about("b"), about("a 2")], 3, 0.5, subject="a")
    assert text == (
        "only 2 of 3 messages with subject containing 'a' came within 0.50 seconds; "
        "3 messages are there:\n"
        "- from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject 'b'\n"
        "    subject: wanted containing 'a', got 'b'"
    )
    assert [miss.message.header("Subject") for miss in misses] == ["b"]


def test_the_report_when_some_have_come_and_no_others():
    text, misses = report([about("a 1")], 3, 0.5, subject="a")
    assert text.startswith(
        "only 1 of 3 messages with subject containing 'a' came within 0.50 seconds; "
        "1 message is there"
    )
    assert misses == []
    assert not text.endswith(":"), "nothing follows"


def test_the_report_of_what_is_no_message():
    text, _ = report([17, ["x" * 200]], subject="a")
    assert text == (
        "no message with subject containing 'a' came within 5.00 seconds; 2 messages are there:\n"
        "- '17'\n"
        "    subject: wanted containing 'a', got none\n"
        f'- "[\'{"x" * 95}..."\n'
        "    subject: wanted containing 'a', got none"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "nobody"),
        (5, "<0@x>, <1@x>, <2@x>, <3@x>, <4@x>"),
        (6, "<0@x>, <1@x>, <2@x>, <3@x>, <4@x> and 1 more"),
        (1000, "<0@x>, <1@x>, <2@x>, <3@x>, <4@x> and 995 more"),
    ],
)
def test_a_headline(count, shown):
    message = make(mail_from="", rcpt_tos=tuple(f"{n}@x" for n in range(count)))
    assert headline(message) == f"from <> to {shown}, subject ''"


# Surprises.

SURPRISE = make(
    "To: Lee <lee@example.com>\r\n"
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    'Content-Type: multipart/mixed; boundary="x"\r\n'
    "\r\n"
    "--x\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "\r\n"
    f"\r\nfür dich\r\ntwo\r\n{'3' * 200}\r\nfour\r\nfive\r\nsix\r\n\r\n"
    "--x\r\n"
    "Content-Type: image/png\r\n"
    'Content-Disposition: attachment; filename="ä b.png"\r\n'
    "Content-Transfer-Encoding: base64\r\n"
    "\r\n"
    "AAECAwQ=\r\n"
    "--x\r\n"
    "Content-Type: application/octet-stream\r\n"
    "\r\n"
    "\r\n"
    "--x\r\n"
    "Content-Type: image/png\r\n"
    "Content-Disposition: inline\r\n"
    "Content-ID: <logo@example.com>\r\n"
    "\r\n"
    "\r\n"
    "--x--\r\n"
)


def test_the_report_of_a_surprise():
    text = Criteria(subject="Grüße").report_surprise(SURPRISE, 0.014, 0.2)
    assert text == (
        "a message with subject containing 'Grüße' was there after 0.01 seconds, and none "
        "was to come for 0.2 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject 'Grüße'\n"
        "  | für dich\n"
        "  | two\n"
        f"  | '{'3' * 97}...'\n"
        "  | four\n"
        "  | five\n"
        "  | ...\n"
        "  attached: 'ä b.png' (image/png, 5 bytes)\n"
        "  attached: '' (application/octet-stream, 0 bytes)\n"
        "  inline: 'logo@example.com' (image/png, 0 bytes)"
    )


def test_the_report_of_a_surprise_of_any_kind():
    text = Criteria().report_surprise(make(b"\r\n"), 3, 10)
    assert text == (
        "a message was there after 3.00 seconds, and none was to come for 10 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject ''"
    )


def test_html_is_shown_where_there_is_no_text():
    html = (
        "<!DOCTYPE html>\r\n<html><head><title>Shop</title>\r\n<style>p { margin: 0 }</style>"
        "<script>no()</script></head>\r\n<body><p>Your order\r\n <b>17</b> has shipped."
        "<br>It is <i>small</i>.<!-- no --></p><table><tr><td>1</td><td>2</td></table>\r\n"
    )
    message = make(f"Content-Type: text/html\r\n\r\n{html}")
    assert describe(message).splitlines()[1:] == [
        "  | Your order 17 has shipped.",
        "  | It is small.",
        "  | 1 2",
    ]


@pytest.mark.parametrize("filler", ["&nbsp;", "&zwnj;&nbsp;", "&#847; &#8199; &shy;", "&#xfeff;"])
def test_lines_that_nobody_sees_are_not_shown(filler):
    # Such fill up what an inbox shows of a message beside its subject.
    html = f"<body><div>{filler}</div>" * 20 + "<p>Your order has shipped."
    text = "\u200c\r\n\u00a0\r\n" * 9
    content = multipart(
        f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}",
        f"Content-Type: text/html; charset=utf-8\r\n\r\n{html}",
        kind="alternative",
    )
    assert describe(make(content)).splitlines()[1:] == ["  | Your order has shipped."]
    plain = f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}One.\r\n\r\nTwo.\r\n"
    assert describe(make(plain)).splitlines()[1:] == ["  | One.", "  | Two."]


def test_who_did_not_get_it_is_shown():
    message = make(b"\r\nHello.\r\n", rcpt_refused=("max@example.com", "ned@example.com"))
    assert describe(message).splitlines()[1:] == [
        "  refused for <max@example.com>, <ned@example.com>",
        "  | Hello.",
    ]


def test_defects_are_shown():
    message = make(b"Content-Type: multipart/mixed; boundary=B\r\n\r\nno parts\r\n")
    lines = describe(message).splitlines()
    assert "  defect: StartBoundaryNotFoundDefect" in lines
    assert "  defect: MultipartInvariantViolationDefect" in lines


def test_the_report_of_a_surprise_that_is_no_message():
    assert Criteria().report_surprise(17, 0, 1).endswith(":\n'17'")


# What must not reach a terminal.

NASTY = [
    "\x1b[31m",
    "\x1b]0;x\x07",
    "\x9b1m",
    "\0",
    "\b",
    "\x7f",
    "\u202e",
    "\u2028",
    "\x85",
    "\v",
]

ENCODED = [*NASTY, "\r", "\n", "\r\nfrom <eve@example.com> to <lee@example.com>"]


def assert_harmless(text: str, lines: int) -> None:
    shown = text.split("\n")
    assert [line for line in shown if not line.isprintable()] == []
    assert len(shown) == lines, text


@pytest.mark.parametrize("nasty", ENCODED, ids=ascii)
def test_a_subject_is_harmless(nasty):
    word = base64.b64encode(f"Hello {nasty} World".encode()).decode()
    message = about(f"=?utf-8?b?{word}?=")
    assert_harmless(describe(message), 1)
    text, _ = report([message], subject="World Hello", sender="a@x")
    assert_harmless(text, 4)


@pytest.mark.parametrize("nasty", ENCODED, ids=ascii)
def test_addresses_are_harmless(nasty):
    address = f'"a{nasty}b"@example.com'
    message = make(mail_from=address, rcpt_tos=(address, address))
    assert_harmless(describe(message), 1)
    text, _ = report([message], rcpt="a@x", sender="a@x")
    assert_harmless(text, 4)


@pytest.mark.parametrize("nasty", ENCODED, ids=ascii)
def test_header_addresses_are_harmless(nasty):
    word = base64.b64encode(f"Hello {nasty} World".encode()).decode()
    text, _ = report([to(f"=?utf-8?b?{word}?= <ann@example.com>")], to="a@x")
    assert_harmless(text, 3)


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
@pytest.mark.parametrize(("kind", "line_end"), [("plain", "\r\n"), ("html", "<br>")])
def test_a_body_is_harmless(nasty, kind, line_end):
    message = make(
        f"Content-Type: text/{kind}; charset=utf-8\r\n\r\n"
        f"Hello{line_end}{nasty}x{nasty}x{line_end}"
    )
    text = describe(message)
    assert_harmless(text, len(text.split("\n")))
    assert text.split("\n")[1] == "  | Hello"
    assert all(line.startswith("  | ") for line in text.split("\n")[1:])


@pytest.mark.parametrize("nasty", ENCODED, ids=ascii)
def test_the_name_of_a_file_is_harmless(nasty):
    name = base64.b64encode(f"a{nasty}b".encode()).decode()
    message = make(
        "Content-Type: image/png\r\n"
        f'Content-Disposition: attachment; filename="=?utf-8?b?{name}?="\r\n\r\n'
    )
    text = describe(message)
    assert_harmless(text, 2)
    assert "(image/png, 0 bytes)" in text


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_a_media_type_is_harmless(nasty):
    message = make(f"Content-Type: image/{nasty}png\r\n\r\n")
    assert_harmless(describe(message), 2)


@pytest.mark.parametrize("nasty", ENCODED, ids=ascii)
def test_what_was_wanted_is_shown_harmless(nasty):
    text, _ = report(
        [MAIL], rcpt=nasty, sender=nasty, to=nasty, subject=re.compile(re.escape(nasty) + "x")
    )
    assert_harmless(text, 6)


def test_texts_that_cannot_be_encoded_are_shown():
    message = make(b"Subject: \xff\r\n\r\n\xff", mail_from="\udcff@x", rcpt_tos=("\udc80@x",))
    text, _ = report([message], sender="\ud800")
    assert (describe(message) + text).encode()
