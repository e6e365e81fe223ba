"""Problems of header fields: what is read somewhere is none, and what is read nowhere is one."""

from __future__ import annotations

import pytest
from messages import make
from problems import codes, mail, problems

# Dates.


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 29 Feb 2024 23:59:59 +0000",
        "Thu, 29 Feb 2024 23:59:60 +0000",
        "29 Feb 2024 23:59 -0330",
        "Thu, 29 Feb 2024 23:59:59 GMT",
        "Thu, 29 Feb 2024 23:59:59 EST",
        "Thu, 29 Feb 2024 23:59:59 Z",
        "Thu, 29 Feb 24 23:59:59 UT",
        "Thu, 29 Feb 124 23:59:59 +0000",
        "Thu, 29 Feb 2024 23:59:59 -0000 (UTC)",
        "Thu (a (b\\)) c), 29 (d) Feb\r\n 2024 23:59:59 +0000",
        "Thu, 29 Feb 2024 23:59:59 +0000 (Mitteleurop=?utf-8?q?=C3=A4?=isch",
        "Thu,29  Feb 2024  23:59:59\t+0000",
        "Fri, 29 Feb 2024 23:59:59 +0000",
        "Thursday, 29-Feb-24 23:59:59 GMT",
        "Thu Feb 29 23:59:59 2024",
        "29 February 2024 23:59:59",
        "Thu, 9 Feb 2024 3:59:59 +0000",
        # RFC 5322, A.6.3.
        "Fri, 21 Nov 1997 09(comment):   55  :  06 -0600",
        "Thu (x), 29 Feb 2024 12 : 00 : 00 +0000",
    ],
)
def test_dates_that_somebody_reads(date):
    assert codes(mail(f"Date: {date}")) == []


@pytest.mark.parametrize(
    "date",
    [
        "",
        "now",
        "2024-02-29 23:59:59",
        "2024-02-29T23:59:59+00:00",
        "1709251199",
        "Thu, 30 Feb 2024 23:59:59 +0000",
        "Thu, 29 Feb 2024 25:59:59 +0000",
        "Thu, 29 Feb 2024 12:60:00 +0000",
        "Do, 29 Fev 2024 23:59:59 +0000",
        "Thu, 29 Feb 99999 23:59:59 +0000",
        "Thu, 29 Feb " + "9" * 900 + " 23:59:59 +0000",
        "(Thu, 29 Feb 2024 23:59:59 +0000)",
    ],
)
def test_dates_that_nobody_reads(date):
    assert problems(mail(f"Date: {date}")) == [("date-invalid", "header Date")]


# Addresses.


@pytest.mark.parametrize(
    "value",
    [
        "kim@example.com",
        "<kim@example.com>",
        "Kim Lee <kim@example.com>",
        "Kim Q. Lee <kim@example.com>",
        '"Lee, Kim" <kim@example.com>',
        '"Kim \\"K\\" Lee" <kim@example.com>',
        "kim@example.com (Kim Lee)",
        "Kim (nested (twice (thrice))) <kim@example.com>",
        "kim@example.com (open",
        "Kim) <kim@example.com>",
        "Kim\r\n <kim@example.com>",
        '"kim lee"@example.com',
        "kim.lee+tag=x@sub.example.com",
        "kim..lee.@example.com",
        "kim@[192.0.2.1]",
        "kim@[IPv6:2001:db8::1]",
        "kim @ example . com",
        "kim(a)@(b)example.com",
        "<@a.example,@b.example:kim@example.com>",
        "[Sales] Kim <kim@example.com>",
        "O'Neil & Sons / Kim <kim@example.com>",
        "=?utf-8?q?J=C3=B6rg?= =?utf-8?q?_Lee?= <kim@example.com>",
        "=?iso-8859-1*de?q?J=F6rg?= <kim@example.com>",
        "=?utf-8?q?kim@example.com?= <kim@example.com>",
        "Kim =?utf-8?b?TGVl?= <kim@example.com>",
        "Friends: a@b.example, Kim <kim@example.com>;",
        "kim@example.com,",
        "kim@example.com;",
        "kim_lee@under_score.example",
    ],
)
@pytest.mark.parametrize("name", ["From", "To", "Cc", "Reply-To", "Sender"])
def test_addresses_that_are_right(name, value):
    fields = ["Sender: s@example.com"] * (name == "From")
    assert codes(mail(f"{name}: {value}", *fields)) == []


@pytest.mark.parametrize(
    "value",
    [
        "kim",
        "Kim Lee",
        '"kim@example.com"',
        "Kim Lee kim@example.com",
        "Lee, Kim <kim@example.com>",
        "Re: Kim <kim@example.com>",
        "kim@example.com; lee@example.com",
        "kim@example.com <kim@example.com>",
        "<kim@example.com",
        "kim@example.com>",
        "<<kim@example.com>>",
        "Kim <kim@example.com> Lee",
        '"Kim <kim@example.com>',
        "Kim <>",
        "Kim <kim>",
        "kim@",
        "@example.com",
        "kim@@example.com",
        "kim lee@example.com",
        "mailto:kim@example.com",
    ],
)
def test_addresses_that_are_wrong(value):
    sender = "Sender: s@example.com"
    assert problems(mail(f"From: {value}", sender)) == [("from-invalid", "header From")]
    for name in ("To", "Cc", "Reply-To", "Sender"):
        assert problems(mail(f"{name}: {value}")) == [("address-invalid", f"header {name}")]


def test_no_address_at_all():
    for nothing in ("", " \r\n ", ",", "(x)"):
        assert codes(mail(f"From: {nothing}")) == ["from-invalid"]
    assert codes(mail("To:", "Cc:", "Bcc:", "Reply-To:")) == []
    assert codes(mail("To: undisclosed-recipients:;")) == []
    assert codes(mail("From: Nobody:;")) == []  # RFC 6854
    assert codes(mail(without="To")) == []


def test_the_wrong_address_is_counted():
    (problem,) = make(mail("To: a@b.example, c@d.example, Kim, e@f.example")).problems
    assert problem.text.startswith("Address 3 of 'a@b.example, c@d.example, Kim, e@f.example'")


def test_several_authors():
    assert codes(mail('From: "a@b" <a@b.example>')) == []
    assert codes(mail("From: A: a@b.example, c@d.example;")) == ["sender-missing"]
    assert codes(mail("From: a@b.example (c@d.example)")) == []


def test_bcc():
    assert codes(mail("BCC: lee@example.com")) == ["bcc-leaked"]
    assert codes(mail("Bcc:\r\n")) == []
    assert codes(mail("Bcc: undisclosed-recipients:;")) == codes(mail("Bcc: (x)")) == []


# Fields that are missing or repeated.


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\r\nFrom: kim@example.com\r\n", b"X: y\r\n"])
def test_nothing_there(raw):
    assert problems(raw) == [
        ("from-missing", ""),
        ("date-missing", ""),
        ("message-id-missing", ""),
    ]


@pytest.mark.parametrize(
    "name", "Date From Sender Reply-To To Cc Message-ID In-Reply-To References Subject".split()
)
def test_fields_that_may_be_there_once(name):
    value = {"Date": "29 Feb 24 23:59 GMT"}.get(name, "a@b.example")
    assert codes(mail(f"{name}: {value}")) == []
    twice = [f"{name}: {value}", f"{name.upper()}: {value}"]
    assert problems(mail(*twice)) == [("field-repeated", f"header {name}")]


@pytest.mark.parametrize(
    "name", ["Received", "Comments", "Keywords", "X-A", "Resent-To", "DKIM-Signature"]
)
def test_fields_that_may_be_there_again(name):
    assert codes(mail(*[f"{name}: x@y.example"] * 3)) == []


# Octets and lines.


def test_a_message_without_a_body():
    for end in (b"", b"\r\n", b"\r\n\r\n"):
        assert codes(mail(body="").rstrip() + end) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["X-A: b\r\n c", "X-B:\r\n\t d"],
        ["X-A:"],
        ["X-A: b\r\n \r\n c"],
        ["x!#$%&'*+-^_`{|}~9: y"],
        ["--x: y"],
        ["From-X: y"],
    ],
)
def test_lines_that_are_fields(lines):
    assert codes(mail(*lines)) == []


def test_lines_that_are_none():
    assert problems(mail("X-A: b", "oops", "X-C: d")) == [("header-malformed", "line 7")]
    assert problems(mail("X-A: b", ": c")) == [("header-malformed", "line 7")]
    assert problems(mail("grün: c"), body="8BITMIME") == [
        ("header-malformed", "line 6"),
        ("8bit-in-7bit", ""),
    ]
    assert problems(b"From kim@example.com Thu Feb 29 12:00:00 2024\r\n" + mail()) == [
        ("header-malformed", "line 1")
    ]
    assert problems(b" continued\r\n" + mail()) == [("header-malformed", "line 1")]


def test_only_the_first_such_line_is_named():
    assert problems(mail("A : b", "C : d", "oops", "E : f")) == [("header-malformed", "line 6")]


def test_octets_in_headers():
    assert codes(mail("X-A: ü"), smtp_utf8=True) == []
    assert codes(mail(b"X-A: \xc3"), smtp_utf8=True) == ["raw-8bit"]
    assert codes(mail("X-A: ü"), "8BITMIME") == ["raw-8bit"]


def test_lines_of_headers():
    assert codes(mail(f"Subject: {'x' * 989}", "X-A: b")) == []
    assert problems(mail(f"X-A: b\r\n {'x' * 998}")) == [("line-too-long", "header X-A")]
    assert problems(mail(f"X-{'y' * 2000}: b")) == [
        ("line-too-long", "header 'X-" + "y" * 95 + "...'")
    ]


# Encoded words.


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?gr=C3=BCn?=",
        "=?UTF-8?Q?gr=c3=bcn_und_blau?= und mehr",
        "=?utf-8?b?Z3LDvG4=?=",
        "=?utf-8?B?Z3LDvG4?=",
        "=?iso-8859-1?q?gr=FCn?=",
        "=?US-ASCII*en?Q?Keith?=",
        "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\r\n =?iso-2022-jp?B?GyRCOGwbKEI=?=",
        "=?windows-1252?q?=80?= =?gb2312?b?1tDOxA==?= =?x-mine?q?a?= =?windows-874?q?=A1?=",
        "=?utf-8?q??=",
        "=?utf-8?q?a?==?utf-8?q?b?=",
        "Re:=?utf-8?q?a?=",
        "What is =? and ?= and =?? good for?",
        "a=?b?c",
        "=?a?x?b?=",
    ],
)
def test_words_that_are_read(subject):
    assert codes(mail(f"Subject: {subject}")) == []


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?gr=C3=BCn und blau?=",
        "=?utf-8?q?gr=C3=BCn\r\n _und?=",
        "=?utf-8?q?gr=C3=BCn",
        "=?utf-8?q?really??=",
        "=?utf-8?q?=C3?=",
        "=?utf-8?q?=FC?=",
        "=?us-ascii?q?=FC?=",
        "=?utf-8?q?a=b?=",
        "=?utf-8?b?Z3L!?=",
        "=?utf-8?b?Z=LDvG4?=",
        "=?utf-8?b?A?=",
        "=?utf-8?b?AAAAA===?=",
        "=?utf-88?q?a?=",
        "=?unknown-8bit?q?=FC?=",
        "=?utf-8-sig?q?a?=",
        "=?hex?q?61?=",
    ],
)
def test_words_that_are_not(subject):
    assert problems(mail(f"Subject: {subject}")) == [("encoded-word-broken", "header Subject")]


def test_words_in_other_fields():
    assert codes(mail("X-Mine: =?utf-8?q?=FC?=", "Received: =?nope?q?=FC?=")) == []
    assert codes(mail("To: =?utf-8?q?=FC?= <lee@example.com>")) == ["encoded-word-broken"]
    assert codes(mail("Comments: =?nope?q?a?=")) == ["encoded-word-broken"]


@pytest.mark.parametrize(
    "value",
    [
        "=?utf-8?q?lee?=@example.com",
        "lee@=?utf-8?q?b=C3=BCcher?=.example",
        "a.=?utf-8?q?lee?=@example.com",
        "Lee <lee@=?utf-8?q?b=C3=BCcher?=.example>",
        'a@b.example, "Lee =?utf-8?q?lee?=" <lee@example.com>',
        "Friends: =?utf-8?q?lee?=@example.com;",
    ],
)
def test_words_that_are_misplaced(value):
    for name in ("From", "To", "Cc", "Reply-To"):
        found = problems(mail(f"{name}: {value}", "Sender: a@b.example"))
        assert found == [("encoded-word-misplaced", f"header {name}")]


def test_a_word_in_a_quoted_subject():
    assert codes(mail('Subject: "=?utf-8?q?gr=C3=BCn?="')) == []
