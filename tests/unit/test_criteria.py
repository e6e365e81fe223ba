"""What a test wants of a message, and what it is told of those that came."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from messages import ENVELOPE, make

from lazr_smtptest._criteria import Criteria, Difference, NearMiss
from lazr_smtptest._describe import describe, headline
from lazr_smtptest.message import Message


def to(value: bytes | str) -> Message:
    value = value.encode() if isinstance(value, str) else value
    return make(b"To: " + value + b"\r\n\r\n")


def about(value: bytes | str) -> Message:
    value = value.encode() if isinstance(value, str) else value
    return make(b"Subject: " + value + b"\r\n\r\n")


def meets(message: Any, **wanted: Any) -> bool:
    return not Criteria(**wanted).differences(message)


def explanation(message: Any, **wanted: Any) -> str:
    (difference,) = Criteria(**wanted).differences(message)
    assert difference.field == next(iter(wanted))
    return difference.explanation


# Each field, by string, pattern and callable.

MAIL = make(
    b"From: Kim <kim@example.com>\r\nTo: Lee <lee@example.com>, max@example.org\r\n"
    b"Cc: cc@example.com\r\nSubject: Lunch at noon\r\n\r\nBring a spoon.\r\n",
    mail_from="bounces+7@example.net",
    rcpt_tos=("lee@example.com", "blind@example.com"),
)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rcpt", "lee@example.com"),
        ("rcpt", "blind@example.com"),
        ("rcpt", re.compile("^blind@")),
        ("rcpt", re.compile("BLIND", re.IGNORECASE)),
        ("rcpt", lambda address: address == "blind@example.com"),
        ("sender", "bounces+7@example.net"),
        ("sender", re.compile(r"\+(\d+)@")),
        ("sender", lambda address: "+7@" in address),
        ("to", "lee@example.com"),
        ("to", "max@example.org"),
        ("to", re.compile("org$")),
        ("to", re.compile("^Lee <lee@")),
        ("to", lambda address: address.endswith("@example.org")),
        ("subject", "Lunch"),
        ("subject", "at noon"),
        ("subject", "Lunch at noon"),
        ("subject", ""),
        ("subject", re.compile("^Lunch")),
        ("subject", re.compile("noon$")),
        ("subject", lambda subject: subject == "Lunch at noon"),
        ("where", lambda message: "spoon" in message.text),
        ("where", lambda message: "yes"),
    ],
)
def test_a_criterion_that_is_met(name, wanted):
    assert Criteria(**{name: wanted}).differences(MAIL) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rcpt", "cc@example.com"),
        ("rcpt", "max@example.org"),
        ("rcpt", "lee"),
        ("rcpt", "example.com"),
        ("rcpt", re.compile("^example")),
        ("rcpt", lambda address: False),
        ("sender", "kim@example.com"),
        ("sender", ""),
        ("sender", re.compile("^7")),
        ("sender", lambda address: None),
        ("to", "cc@example.com"),
        ("to", "blind@example.com"),
        ("to", "Lee"),
        ("to", re.compile("blind")),
        ("to", lambda address: 0),
        ("subject", "lunch"),
        ("subject", "Lunch  at"),
        ("subject", "spoon"),
        ("subject", re.compile("^noon")),
        ("subject", lambda subject: ""),
        ("where", lambda message: "fork" in message.text),
        ("where", lambda message: None),
    ],
)
def test_a_criterion_that_is_not_met(name, wanted):
    (difference,) = Criteria(**{name: wanted}).differences(MAIL)
    assert type(difference) is Difference
    assert difference.field == name


def test_without_criteria_everything_is_wanted():
    assert meets(MAIL)
    assert meets(17)


def test_all_criteria_must_be_met():
    both = {"rcpt": "lee@example.com", "subject": "Lunch"}
    assert meets(MAIL, **both)
    differing = Criteria(**both, sender="kim@example.com", to="ann@example.com").differences(MAIL)
    assert [difference.field for difference in differing] == ["sender", "to"]


def test_where_is_called_only_if_all_else_is_met():
    called: list[Message] = []
    where = called.append
    assert not meets(MAIL, subject="Dinner", where=where)
    assert called == []
    assert not meets(MAIL, subject="Lunch", where=where)
    assert called == [MAIL]
    assert called[0] is MAIL


def test_a_callable_is_given_one_text_at_a_time():
    seen: list[str] = []
    assert not meets(MAIL, rcpt=seen.append)
    assert seen == ["lee@example.com", "blind@example.com"]
    seen.clear()
    assert not meets(MAIL, subject=seen.append)
    assert seen == ["Lunch at noon"]
    seen.clear()
    assert not meets(make(mail_from=""), sender=seen.append)
    assert seen == [""]


@pytest.mark.parametrize("name", ["rcpt", "sender", "to", "subject", "where"])
def test_what_a_callable_raises_comes_through(name):
    with pytest.raises(ZeroDivisionError):
        Criteria(**{name: lambda _: 1 / 0}).differences(MAIL)


@pytest.mark.parametrize("item", [17, None, "lee@example.com", b"x", ENVELOPE, object()])
def test_what_is_no_message_meets_where_alone(item):
    assert meets(item, where=lambda given: given is item)
    for name in ("rcpt", "sender", "to", "subject"):
        assert explanation(item, **{name: re.compile("")}).endswith(", got none")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"recipient": "x"}, "recipient"),
        ({"from_": "x"}, "from_"),
        ({"rcpt": b"x"}, "rcpt must be a str, a compiled pattern or a callable, not b'x'"),
        ({"rcpt": ["x"]}, "rcpt must be a str, a compiled pattern or a callable, not ['x']"),
        ({"sender": 7}, "sender must be a str, a compiled pattern or a callable, not 7"),
        ({"to": True}, "to must be a str, a compiled pattern or a callable, not True"),
        ({"subject": 0}, "subject must be a str, a compiled pattern or a callable, not 0"),
        (
            {"subject": re.compile(b"x")},
            "subject must be a pattern of str, not of bytes: re.compile(b'x')",
        ),
        ({"where": "x"}, "where must be a callable that takes a message, not 'x'"),
        ({"where": re.compile("x")}, "where must be a callable that takes a message, not "),
    ],
    ids=repr,
)
def test_criteria_that_cannot_be(wanted, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        Criteria(**wanted)


def test_criteria_have_names():
    with pytest.raises(TypeError):
        Criteria("lee@example.com")


# Addresses.


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("lee@example.com", "lee@EXAMPLE.Com"),
        ("lee@EXAMPLE.com", "lee@example.com"),
        ('"lee"@example.com', "lee@example.com"),
        ("lee@example.com", '"lee"@example.com'),
        ('"lee b"@example.com', '"lee b"@EXAMPLE.com'),
        ('"lee b"@example.com', '"lee\\ b"@example.com'),
        (r'"a\"b\\c"@example.com', r'"a\"b\\c"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('"a, b"@example.com', '"a, b"@example.com'),
        ("kim@bücher.example", "kim@xn--bcher-kva.example"),
        ("kim@xn--bcher-kva.example", "kim@BÜCHER.example"),
        ("kim@XN--BCHER-KVA.example", "kim@bücher.example"),
        ("kïm@bücher.example", "kïm@bücher.example"),
        ("kïm@example.com", "kïm@EXAMPLE.com"),
        ("Lee <lee@example.com>", "lee@example.com"),
        ('"Lee, Bruce" <lee@example.com>', "lee@example.com"),
        ("<lee@example.com>", "lee@example.com"),
        (" lee@example.com ", "lee@example.com"),
        ("lee@[192.0.2.1]", "lee@[192.0.2.1]"),
        ("lee@[IPv6:2001:DB8::1]", "lee@[ipv6:2001:db8::1]"),
        ("lee+tag=x/y@example.com", "lee+tag=x/y@example.com"),
        ("postmaster", "postmaster"),
        ("lee@" + "x" * 70 + ".example", "lee@" + "X" * 70 + ".example"),
        ("lee@under_score.example", "lee@UNDER_score.example"),
        ("lee@x..example", "lee@X..example"),
        ("lee@\udcff.example", "lee@\udcff.example"),
    ],
    ids=ascii,
)
def test_addresses_that_are_the_same(wanted, got):
    assert meets(make(rcpt_tos=("a@example.com", got)), rcpt=wanted)
    assert meets(make(mail_from=got), sender=wanted)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("Lee@example.com", "lee@example.com"),
        ('"Lee"@example.com', "lee@example.com"),
        ("lee@example.com", "lee@example.org"),
        ("lee@example.com", "lee@mail.example.com"),
        ("lee@example.com", "bruce.lee@example.com"),
        ("lee@example.com", "lee"),
        ("example.com", "lee@example.com"),
        ("lee", "lee@example.com"),
        ("lee", "kim"),
        ('"lee b"@example.com', "leeb@example.com"),
        ("lee+a@example.com", "lee+b@example.com"),
        ("l.ee@example.com", "lee@example.com"),
        ("lee@[192.0.2.1]", "lee@[192.0.2.2]"),
        ("kïm@example.com", "kim@example.com"),
        ("kim@bücher.example", "kim@bucher.example"),
        ("lee@example.com", ""),
        ("", "lee@example.com"),
        ("<>", "lee@example.com"),
        ('"lee@example.com" <kim@example.com>', "lee@example.com"),
    ],
    ids=ascii,
)
def test_addresses_that_differ(wanted, got):
    assert not meets(make(rcpt_tos=(got,)), rcpt=wanted)
    assert not meets(make(mail_from=got), sender=wanted)
    assert not meets(to(got), to=wanted)


@pytest.mark.parametrize("wanted", ["", "<>", re.compile("^$"), lambda address: address == ""])
def test_the_null_sender(wanted):
    assert meets(make(mail_from=""), sender=wanted)
    assert not meets(make(mail_from="kim@example.com"), sender=wanted)


def test_no_recipients():
    message = make(rcpt_tos=())
    assert not meets(message, rcpt=re.compile(""))
    assert explanation(message, rcpt="a@x") == "wanted 'a@x', got none"


@pytest.mark.parametrize(
    "value",
    [
        "ann@example.com",
        "ann@EXAMPLE.com",
        "Ann <ann@example.com>",
        "Ann<ann@example.com>",
        "<ann@example.com>",
        "ann@example.com (Ann)",
        '"Ann, Dr." <ann@example.com>',
        '"A \\"nn\\"" <ann@example.com>',
        "bob@example.com, ann@example.com",
        "bob@example.com,\r\n ann@example.com",
        "bob@example.com,, ann@example.com",
        "Friends: bob@example.com, Ann <ann@example.com>;",
        "Friends: bob@example.com;, ann@example.com",
        "=?utf-8?q?Gr=C3=BCn=2C_Ann?= <ann@example.com>",
        "=?utf-8?b?w5xiZXI=?= <ann@example.com>, bob@example.com",
        "Grün <ann@example.com>",
        "=?nope?q?x?= <ann@example.com>",
        b"Gr\xfcn <ann@example.com>",
        '"ann"@example.com',
        "Ann <ann@example.com",
    ],
    ids=ascii,
)
def test_to_is_an_address_of_the_header_field(value):
    message = to(value)
    assert meets(message, to="ann@example.com")
    assert meets(message, to='"ann"@Example.COM')
    assert meets(message, to=re.compile(r"\bann\b"))
    assert not meets(message, to="nna@example.com")


@pytest.mark.parametrize("wanted", ["ann@example.com", "bob@example.com"])
def test_several_to_fields(wanted):
    message = make(b"To: ann@example.com\r\nto: Bob <bob@example.com>\r\n\r\n")
    assert meets(message, to=wanted)


@pytest.mark.parametrize(
    "value",
    [
        '"ann@example.com" <eve@example.org>',
        "=?utf-8?q?ann=40example=2Ecom?= <eve@example.org>",
        '"ann@example.com, Eve" <eve@example.org>',
    ],
)
def test_a_name_is_no_address(value):
    message = to(value)
    assert meets(message, to="eve@example.org")
    assert meets(message, to=re.compile("^ann@"))
    assert not meets(message, to="ann@example.com")


@pytest.mark.parametrize("raw", [b"", b"To: \r\n\r\n", b"To: undisclosed-recipients:;\r\n\r\n"])
def test_to_of_nobody(raw):
    message = make(raw)
    assert not meets(message, to="ann@example.com")
    assert not meets(message, to=re.compile("."))
    assert "wanted 'ann@example.com', got " in explanation(message, to="ann@example.com")


@pytest.mark.parametrize("value", [b'"', b"<", b":;\0", b"/@[-", b".:", b"*@[\r\n ", b"\0"])
def test_a_to_field_that_breaks_the_parser(value):
    assert not meets(to(value), to="ann@example.com")


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("kim@xn--bcher-kva.example", "Kïm <kim@bücher.example>"),
        ("kim@bücher.example", "kim@xn--bcher-kva.example"),
        ("kïm@example.com", "kïm@example.com"),
    ],
)
def test_internationalized_addresses_in_to(wanted, value):
    assert meets(to(value), to=wanted)


def test_a_pattern_sees_decoded_names():
    message = to("=?utf-8?q?Gr=C3=BCn=2C_Ann?= <ann@example.com>, Bob <bob@example.com>")
    assert meets(message, to=re.compile("^Grün, Ann <ann@example.com>$"))
    assert meets(message, to=re.compile("^ann@example.com$"))
    assert not meets(message, to=re.compile("utf-8"))
    assert not meets(message, to=re.compile("Ann.*Bob"))


# Subjects.


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?iso-8859-1?q?Gr=FC=DFe?= aus K", "Grüße aus K"),
        ("=?utf-8?q?Gr=C3=BC?= =?utf-8?q?=C3=9Fe?=", "Grüße"),
        ("=?utf-8?q?Gr=C3=BC?=\r\n =?utf-8?q?=C3=9Fe?=", "Grüße"),
        ("a subject that\r\n goes on", "a subject that goes on"),
        ("a subject that\r\n\tgoes on", "a subject that\tgoes on"),
        ("Grüße", "Grüße"),
        (b"Gr\xfc\xdfe", "Gr\ufffd\ufffde"),
        ("a=b =? c ?=", "a=b =? c ?="),
        ("", ""),
    ],
    ids=ascii,
)
def test_subjects_are_decoded(value, subject):
    message = about(value)
    assert message.header("Subject") == subject
    assert meets(message, subject=subject)
    assert meets(message, subject=re.compile(f"^{re.escape(subject)}$"))
    assert meets(message, subject=lambda text: text == subject)


def test_a_subject_that_is_missing():
    message = make(b"X: y\r\n\r\n")
    assert meets(message, subject=re.compile("^$"))
    assert not meets(message, subject="x")
    assert explanation(message, subject="x") == "wanted containing 'x', got ''"


def test_the_first_of_several_subjects_counts():
    message = make(b"Subject: one\r\nSubject: two\r\n\r\n")
    assert meets(message, subject="one")
    assert not meets(message, subject="two")


# What is said of a message that is not wanted.


def wanting(_: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("message", "wanted", "text"),
    [
        (about("Hello"), {"subject": "hello"},
         "wanted containing 'hello', got 'Hello', which differs in case"),
        (about("Hello  World"), {"subject": "Hello World"},
         "wanted containing 'Hello World', got 'Hello  World', which differs in white space"),
        (about("Hello\tWorld"), {"subject": "Hello World"},
         "wanted containing 'Hello World', got 'Hello\\tWorld', which differs in white space"),
        (about("Dinner"), {"subject": "Lunch"}, "wanted containing 'Lunch', got 'Dinner'"),
        (about("Dinner"), {"subject": re.compile("^Lu[n]ch")},
         "wanted matching '^Lu[n]ch', got 'Dinner'"),
        (about("Dinner"), {"subject": wanting}, "wanted that wanting wants, got 'Dinner'"),
        (about("Dinner"), {"where": wanting}, "wanting did not want it"),
        (make(rcpt_tos=("lee@example.com",)), {"rcpt": "Lee@example.com"},
         "wanted 'Lee@example.com', got 'lee@example.com', "
         "which differs in the case of the local part"),
        (make(rcpt_tos=("lee@example.com",)), {"rcpt": "lee"},
         "wanted 'lee', got 'lee@example.com'; "
         "a str is compared with the whole address, use a pattern for a part of it"),
        (make(mail_from="lee@example.com"), {"sender": "@EXAMPLE"},
         "wanted '@EXAMPLE', got 'lee@example.com'; "
         "a str is compared with the whole address, use a pattern for a part of it"),
        (make(mail_from='"lee b"@example.com'), {"sender": '"leeb"@example.com'},
         "wanted '\"leeb\"@example.com', got '\"lee b\"@example.com', "
         "which differs in white space"),
        (make(mail_from=""), {"sender": "lee@example.com"}, "wanted 'lee@example.com', got ''"),
        (make(mail_from="lee@example.com"), {"sender": ""}, "wanted '', got 'lee@example.com'"),
        (make(mail_from="lee@example.com"), {"sender": re.compile("LEE")},
         "wanted matching 'LEE', got 'lee@example.com'"),
        (make(), {"to": "lee@example.com"}, "wanted 'lee@example.com', got none"),
        (to("Ann <ann@example.com>"), {"to": "bob@example.com"},
         "wanted 'bob@example.com', got 'ann@example.com'"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_difference(message, wanted, text):
    assert explanation(message, **wanted) == text


def test_of_many_recipients_the_most_similar_are_named_first():
    others = [f"{letter * 8}@{letter * 4}.example" for letter in "abcdefgh"]
    message = make(rcpt_tos=(*others, "jane@example.com"))
    assert explanation(message, rcpt="jan@example.com") == (
        "wanted 'jan@example.com', got 'jane@example.com', 'aaaaaaaa@aaaa.example', "
        "'bbbbbbbb@bbbb.example', 'cccccccc@cccc.example', 'dddddddd@dddd.example' and 4 more"
    )


def test_long_texts_are_cut():
    text = explanation(about("x" * 5000), subject="y" * 5000)
    assert text == f"wanted containing '{'y' * 97}...', got '{'x' * 97}...'"


# Reports.


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
    assert report([], elapsed=1.234, **wanted) == (
        f"{text} came within 1.23 seconds",
        [],
    )


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
        "  attached: '' (application/octet-stream, 0 bytes)"
    )


def test_the_report_of_a_surprise_of_any_kind():
    text = Criteria().report_surprise(make(b"\r\n"), 3, 10)
    assert text == (
        "a message was there after 3.00 seconds, and none was to come for 10 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, <bcc@example.com>, subject ''"
    )


def test_html_is_shown_where_there_is_no_text():
    message = make(b"Content-Type: text/html\r\n\r\n<p>Hello\r\n")
    assert describe(message).splitlines()[1:] == ["  | <p>Hello"]


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
@pytest.mark.parametrize("kind", ["plain", "html"])
def test_a_body_is_harmless(nasty, kind):
    message = make(
        f"Content-Type: text/{kind}; charset=utf-8\r\n\r\nHello\r\n{nasty}x{nasty}x\r\n"
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
