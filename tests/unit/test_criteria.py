"""What a test wants of a message, and how the ones that came differ from it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from messages import ENVELOPE, MAIL, about, make, to, wanting

from lazr_smtptest._parent.matching import Criteria
from lazr_smtptest.errors import Difference
from lazr_smtptest.message import Message


def differences(message: Any, **wanted: Any) -> list[Difference]:
    """Return what a report on a search in vain says of the only message that is there."""
    criteria = Criteria(**wanted)
    _, near_misses = criteria.report([(message, criteria.unmet(message))], 1, 0.0)
    return [difference for miss in near_misses for difference in miss.differences]


def meets(message: Any, **wanted: Any) -> bool:
    return not Criteria(**wanted).unmet(message)


def explanation(message: Any, **wanted: Any) -> str:
    (difference,) = differences(message, **wanted)
    assert difference.field == next(iter(wanted))
    return difference.explanation


# Each field, by string, pattern and callable.


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
        ("cc", "cc@example.com"),
        ("cc", re.compile("^cc@")),
        ("reply_to", "desk@example.com"),
        ("reply_to", re.compile("^Front Desk <desk@")),
        ("text", "spoon"),
        ("text", re.compile("sp..n")),
        ("text", lambda text: "spoon" in text),
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
    assert meets(MAIL, **{name: wanted})


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
        ("cc", "lee@example.com"),
        ("reply_to", "cc@example.com"),
        ("text", "fork"),
        ("text", "Spoon"),
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
    (difference,) = differences(MAIL, **{name: wanted})
    assert type(difference) is Difference
    assert difference.field == name


def test_without_criteria_everything_is_wanted():
    assert meets(MAIL)
    assert meets(17)


def test_all_criteria_must_be_met():
    both = {"rcpt": "lee@example.com", "subject": "Lunch"}
    assert meets(MAIL, **both)
    differing = differences(MAIL, **both, sender="kim@example.com", to="ann@example.com")
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
        meets(MAIL, **{name: lambda _: 1 / 0})


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


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("[Sales] Kim <kim@example.com>", "kim@example.com"),
        ("kim@work <kim@example.com>", "kim@example.com"),
        ("lee@example.com; kim@example.com", "kim@example.com"),
        ("kim@[127.0.0.1]", "kim@[127.0.0.1]"),
        ("Kim <kim@[IPv6:2001:db8::1]>", "kim@[IPv6:2001:db8::1]"),
        ("Team: kim@example.com; Rest: lee@example.com;", "lee@example.com"),
        ('"kim b"@example.com', '"kim b"@example.com'),
        ("Kim (at work) <kim@example.com> (or so)", "kim@example.com"),
        ("Kim <kim@example.com", "kim@example.com"),
        ("Kim J. kim@example.com", "kim@example.com"),
        ("kim @ example . com", "kim@example.com"),
        ("kim@example.com (a (nested) b)", "kim@example.com"),
        ("<@relay.example:kim@example.com>", "kim@example.com"),
        ('"a" <"a>b"@example.com>', '"a>b"@example.com'),
        ('"Kim <kim@example.com>, lee@example.com', "kim@example.com"),
        ('"Kim <kim@example.com>, lee@example.com', "lee@example.com"),
        ("Kim :( <kim@example.com>, lee@example.com", "lee@example.com"),
        ("5' 10\" Kim <kim@example.com>, lee@example.com", "kim@example.com"),
        ("Kim <kim@example.com,lee@example.com>", "lee@example.com"),
        ("<mailto:kim@example.com>", "kim@example.com"),
    ],
)
@pytest.mark.parametrize(("field", "name"), [("To", "to"), ("Cc", "cc"), ("Reply-To", "reply_to")])
def test_addresses_as_any_mail_program_finds_them(value, wanted, field, name):
    message = make(f"{field}: {value}\r\n\r\n")
    assert meets(message, **{name: wanted})
    assert not meets(message, **{name: f"x{wanted}"})


@pytest.mark.parametrize(
    "value",
    ["=?utf-8?q?kim=40example=2Ecom?=", "=?utf-8?q?kim?=@example.com", "kim at example.com"],
)
def test_what_only_decoding_would_make_an_address_is_none(value):
    assert not meets(to(value), to="kim@example.com")


def test_text_is_what_is_read_in_html_too():
    message = make("Content-Type: text/html\r\n\r\n<p>Order <b>17</b>\r\nis <i>here</i>")
    assert meets(message, text="Order 17 is here")
    assert meets(message, text="<b>17</b>")
    assert meets(message, text=re.compile("^Order 17"))
    assert not meets(message, text="Order 18")
    assert explanation(message, text="18") == (
        "wanted containing '18', got 'Order 17 is here', '<p>Order <b>17</b>\\nis <i>here</i>'"
    )


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
        ("a subject that\r\n\tgoes on", "a subject that goes on"),
        ("a subject that \r\n \t goes on", "a subject that goes on"),
        ("\r\n a subject", "a subject"),
        ("Grüße", "Grüße"),
        (b"Gr\xfc\xdfe", "Grüße"),
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
         "wanted 'bob@example.com', got 'ann@example.com'; "
         "the header is 'Ann <ann@example.com>'"),
        (to("Ann, Bob"), {"to": "bob@example.com"},
         "wanted 'bob@example.com', got none; the header is 'Ann, Bob'"),
        (about("=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n  an alle"), {"subject": "Lunch"},
         "wanted containing 'Lunch', got 'Grüße  an alle'; "
         "the header is '=?utf-8?q?Gr=C3=BC=C3=9Fe?=  an alle'"),
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
