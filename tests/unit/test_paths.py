"""Paths of MAIL and RCPT: taken as they are sent, or refused as Postfix refuses them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tries

from lazr_smtptest._smtp.protocol import PLAIN_COMMAND, Refused, parse_path, split_path

many = tries(400)

LONG_LABEL = "x" * 64
LONG_DOMAIN = ".".join(["x" * 60] * 5)

#: What is between the brackets; and taken, though not all of it is RFC 5321's grammar.
TAKEN = [
    "a@b.example",
    "A.b-c+d_e=f@B.EXAMPLE",
    "!#$%&'*/?^`{|}~@b.example",
    "a@b",
    "a",
    "postmaster",
    "a.@b.example",
    ".a@b.example",
    "a..b@b.example",
    "a:b@b.example",
    "a\\b@b.example",
    "a@b_c.example",
    "a@_dmarc.b.example",
    "a@b.example.",
    "a@b.123",
    "a@xn--bcher-kva.example",
    "a@" + "x" * 63 + ".example",
    "l" * 100 + "@b.example",
    "=?utf-8?q?j=C3=B6rg?=@b.example",
    '"a b"@b.example',
    '"a@b"@b.example',
    '"<a>"@b.example',
    '"a\\"b\\\\"@b.example',
    '""@b.example',
    "a@[127.0.0.1]",
    "a@[IPv6:::1]",
    "a@[ipv6:2001:db8::1]",
    "ö@b.example",
    "用户@例子.example",
    "a@bücher.example",
    "a@संगठन.example",
    "a@l·l.example",
    "a@e\u0301.example",
    "a@" + "ü" * 57 + ".example",
    "a@テスト・x.example",
]

REFUSED = [
    "a@",
    "@",
    "@b.example",
    "a b@c.example",
    "Kim Lee kim@b.example",
    " a@b.example",
    "a@b.example ",
    "a@b exa.mple",
    "kim(at)b.example",
    "(kim)a@b.example",
    "a@b.example(home)",
    "'kim@b.example'",
    "a@b.example?x",
    "a@b.example:25",
    "a@b.example;c@d.example",
    "a@b.example,c@d.example",
    "a,b@c.example",
    "a;b@c.example",
    "a@b@c.example",
    "<a@b.example",
    "a[b@c.example",
    "a\0b@c.example",
    "a\x01b@c.example",
    "a\tb@c.example",
    "a\x7fb@c.example",
    "a\x85b@c.example",
    '"a\x0bb"@c.example',
    '"a\x0cb"@c.example',
    '"a\x1db"@c.example',
    '"a\\\x01b"@c.example',
    '"a\x85b"@c.example',
    '"a@b.example',
    '"a"b@b.example',
    '"a".b@b.example',
    "a@[]",
    "a@[999.1.1.1]",
    "a@[127.0.0.1",
    "a@127.0.0.1]",
    "a@[127.0.0.01]",
    "a@[b.example]",
    "a@[IPv6:]",
    "a@[IPv6:xyz]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[::1]",
    "a@[tag:content]",
    "a@1.2.3.4",
    "a@-b.example",
    "a@b-.example",
    "a@.b.example",
    "a@b..example",
    "a@b.example..",
    "a@b$c.example",
    "a@b/c.example",
    "a@" + LONG_LABEL + ".example",
    "a@" + LONG_DOMAIN,
    "a@b\u2028.example",
    "a@b€.example",
    "a@\u0301e.example",
    "a@b.\u093eब.example",
    "a@" + "ü" * 58 + ".example",
]


def reply(command: str, argument: str) -> str:
    with pytest.raises(Refused) as caught:
        parse_path(command, argument)
    return str(caught.value)


@pytest.mark.parametrize("path", TAKEN)
def test_what_is_taken_is_recorded_as_it_was_sent(path):
    assert parse_path("RCPT", f"TO:<{path}>") == (path, "")
    assert parse_path("MAIL", f"FROM:<{path}> SIZE=1") == (path, " SIZE=1")


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_refused(path):
    assert reply("RCPT", f"TO:<{path}>") == "501 5.1.3 Bad recipient address syntax"
    assert reply("MAIL", f"FROM:<{path}>") == "501 5.1.7 Bad sender address syntax"


def test_the_null_path_is_a_sender_only():
    assert parse_path("MAIL", "FROM:<>") == ("", "")
    assert reply("RCPT", "TO:<>") == "501 5.1.3 Bad recipient address syntax"


@pytest.mark.parametrize(
    ("sent", "recorded"),
    [
        ("<@relay.example:a@b.example>", "a@b.example"),
        ("<@one.example,@two.example:a@b.example>", "a@b.example"),
        ('<@relay.example:"a b"@b.example>', '"a b"@b.example'),
        ("<@relay.example:postmaster>", "postmaster"),
    ],
)
def test_a_source_route_is_left_out(sent, recorded):
    assert parse_path("RCPT", f"TO:{sent}") == (recorded, "")


@pytest.mark.parametrize("route", ["<@relay.example:>", "<@:a@b.example>", "<@a,b:c@d.example>"])
def test_a_source_route_that_is_none(route):
    assert reply("RCPT", f"TO:{route}").startswith("501 5.1.3 ")


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        ("a@b.example", ""),
        ("a@b.example SIZE=1", " SIZE=1"),
        ('"a b"@c.example X', " X"),
        ("  <a@b.example>", ""),
        ("\t<a@b.example>\tX=1  Y", "\tX=1  Y"),
        ("<a@b.example> ", " "),
    ],
)
def test_brackets_and_blanks(sent, rest):
    """Brackets may be left out, and blanks follow the colon, in real mail."""
    path, left = parse_path("RCPT", f"to:{sent}")
    assert (path.rpartition("@")[2], left) in ((d, rest) for d in ("b.example", "c.example"))


@pytest.mark.parametrize(
    "sent",
    [
        "<a@b.example",
        "<a@b.example>x",
        "<a@b.example>,<c@d.example>",
        "<a@b.example>>",
        "<<a@b.example>>",
        "a@b.example>",
        "a@b.example,",
        '<"a@b.example>',
        "a@b.example\x0bX=1",
    ],
)
def test_a_path_that_does_not_end(sent):
    assert reply("RCPT", f"TO:{sent}") == "501 5.1.3 Bad recipient address syntax"


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "TO",
        "TO:",
        "TO: \t",
        "TO <a@b.example>",
        "TO :<a@b>",
        "FROM:<a@b.example>",
        "<a@b.example>",
    ],
)
def test_what_is_no_argument(argument):
    assert reply("RCPT", argument) == "501 5.5.4 Syntax: RCPT TO:<address>"
    assert reply("MAIL", "TO:<a@b.example>") == "501 5.5.4 Syntax: MAIL FROM:<address>"


@many
@given(st.text(max_size=60) | st.text('<>@.:,;"\\()[] \t-ab1é\0', max_size=40))
def test_any_text_is_taken_as_it_is_or_refused(text):
    for command, keyword in ("MAIL", "FROM:"), ("RCPT", "TO:"):
        try:
            path, rest = parse_path(command, f"{keyword}{text}")
        except Refused as refused:
            assert str(refused)[:9] in ("501 5.1.7", "501 5.1.3", "501 5.5.4")
        else:
            assert path in text
            assert text.endswith(rest)
            assert split_path(command, f"{keyword}{text}") == (path, rest)
            assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in path)


@many
@given(st.from_regex(PLAIN_COMMAND.pattern.decode(), fullmatch=True))
def test_the_quick_way_takes_nothing_that_is_refused(line):
    command, _, argument = line.removesuffix("\r\n").partition(" ")
    if command.upper() in ("MAIL", "RCPT"):
        path, _ = parse_path(command.upper(), argument)
        assert f"<{path}>" in line


@pytest.mark.parametrize("path", TAKEN)
def test_the_quick_way_agrees(path):
    found = PLAIN_COMMAND.fullmatch(f"RCPT TO:<{path}>\r\n".encode())
    assert found is None or found[3].decode() == path


@pytest.mark.parametrize("path", REFUSED)
def test_the_quick_way_leaves_what_is_refused(path):
    assert not PLAIN_COMMAND.match(f"RCPT TO:<{path}>\r\n".encode())
    assert not PLAIN_COMMAND.match(f"MAIL FROM:<{path}>\r\n".encode())
