"""Problems of any octets: no check raises, and none takes long."""

from __future__ import annotations

import pytest
from helpers import cpu_seconds
from hypothesis import example, given
from hypothesis import strategies as st
from messages import TOO_DEEP, make
from problems import MIME, html, mail, many, one
from properties import tries

from lazr_smtptest import checks
from lazr_smtptest._reading.structure import Mail
from lazr_smtptest.checks import CODES, Problem, message_problems
from lazr_smtptest.message import Message

some = tries(200)
bodies = st.sampled_from(["7BIT", "8BITMIME", "BINARYMIME", ""])


def judge(raw: bytes, body: str = "7BIT", smtp_utf8: bool = False) -> None:
    """Run each check with nothing to catch what it raises, and look at its problems."""
    message = make(raw)
    each = checks._checks(Mail(raw, smtp_utf8), message, body.upper())
    found = [problem for check in each for problem in check]
    for problem in found:
        assert isinstance(problem, Problem)
        assert problem.code in CODES
        assert problem.level in ("error", "advice")
        assert problem.text.isprintable()
        assert problem.where.isprintable()
    given = message_problems(message, raw, body=body, smtp_utf8=smtp_utf8)
    assert set(given) <= set(found)
    assert {problem.code for problem in given} == {problem.code for problem in found}


# Any octets.


@some
@given(st.binary(), bodies, st.booleans())
@example(b"--", "7BIT", False)
@example(b":\r\n", "7BIT", False)
@example(TOO_DEEP, "7BIT", False)
def test_any_octets(raw, body, smtp_utf8):
    judge(raw, body, smtp_utf8)


FIELDS = (
    "From To Cc Bcc Sender Reply-To Subject Date Message-ID References Content-Type"
    " Content-Disposition Content-Transfer-Encoding MIME-Version Content-ID Keywords X-A"
).split()
pieces = st.sampled_from(
    [
        *(
            '"',
            "\\",
            "(",
            ")",
            "<",
            ">",
            "[",
            "]",
            "@",
            ",",
            ":",
            ";",
            ".",
            "=",
            "?",
            "*",
            "%",
            "'",
            "/",
        ),
        *(
            " ",
            "\r\n ",
            "\r\n",
            "\n\t",
            "\r",
            "\0",
            "\x85",
            "ü",
            "\udcff",
            "=?",
            "?=",
            "?q?",
            "?b?",
            "=C3",
        ),
        *("=?utf-8?q?=C3=BC?=", "=?nope?b?A?=", "kim@example.com", "text/html", "multipart/mixed"),
        *("boundary=", "charset=", "name*0*=", "utf-8''", "Thu, 29 Feb 2024", "23:59:60", "+9999"),
        *("base64", "quoted-printable", "message/rfc822", "cid:a", "a", "Z", "0", "utf-8", "idna"),
    ]
)
values = st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=12).map("".join)


@some
@given(st.lists(st.tuples(st.sampled_from(FIELDS), values), max_size=6), st.booleans())
def test_any_header(fields, smtp_utf8):
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    judge(lines.encode("utf-8", "surrogatepass") + b"\r\nx", smtp_utf8=smtp_utf8)


@some
@given(st.sampled_from(FIELDS), st.binary(max_size=60))
@example("Date", b"Thu, 29 Feb 2024 23:59:59 " + b"9" * 5000)
@example("Content-Type", b"text/plain; a*" + b"9" * 5000 + b"=b")
@example("Content-Type", b"text/plain; charset=a\0b")
@example("Content-Type", b"text/plain; charset=" + b"a." * 500)
@example("Subject", b"=?\xff?q?a?=")
def test_any_value(name, value):
    judge(f"{name}: ".encode() + value + b"\r\n\r\nx")


heads = st.sampled_from(
    [
        "",
        "\r\n",
        "text",
        "Content-Type: multipart/mixed; boundary={}\r\n\r\n",
        'Content-Type: multipart/alternative; boundary="{}"\r\n\r\n',
        "Content-Type: multipart/digest; boundary*={}\r\n\r\n",
        "Content-Type: multipart/related\r\n\r\n",
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        "Content-Type: text/html; charset=utf-8\r\n\r\n<img src='cid:{}'>\xff",
        "Content-Transfer-Encoding: base64\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n/w==",
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=",
        "Content-Type: multipart/mixed; boundary={}\r\n",
    ]
)
lines = st.tuples(
    st.sampled_from(["--{}", "--{}--", "--{}----", "-- {}", "{}", "--", ""]),
    st.sampled_from(["\r\n", "\n", "\r", " \r\n"]),
    heads,
    st.sampled_from(["a", "b", "b--", "--", "", "a b", "ü"]),
    st.sampled_from(["a", "b", "b--", "--", "", "a b", "ü"]),
)


@some
@given(heads, st.lists(lines, max_size=14))
def test_any_tree(head, tree):
    text = head.format("a")
    for line, end, inner, boundary, other in tree:
        text += "\r\n" + line.format(boundary) + end + inner.format(other)
    judge(text.encode("latin-1"))


def test_a_check_that_fails_leaves_the_others(monkeypatch):
    def fail(_: object) -> str:
        raise RuntimeError

    rows = tuple((code, fail) for code, _ in checks._OF_PARTS)
    monkeypatch.setattr(checks, "_OF_PARTS", rows)
    raw = mail("Content-Transfer-Encoding: x", without="From")
    assert [problem.code for problem in make(raw).problems] == ["from-missing"]
    monkeypatch.setattr(checks, "Mail", fail)
    assert make(raw).problems == ()


def test_a_check_that_fails_leaves_the_other_fields(monkeypatch):
    """Each field is asked by itself."""
    good = checks._broken_word

    def fails_for_one(field):
        return 1 / 0 if field.name == "Subject" else good(field)

    rows = [
        (code, names, fails_for_one if check is good else check)
        for code, names, check in checks._OF_FIELDS
    ]
    monkeypatch.setattr(checks, "_OF_FIELDS", rows)
    message = make(mail("Subject: x", "To: =?foo?q?a?= <a@b.example>"))
    assert [problem.code for problem in message.problems] == ["encoded-word-broken"]


def test_a_defect_that_nobody_knows():
    class SomeNewThingDefect(ValueError):
        pass

    message = make(mail())
    message.defects.append(SomeNewThingDefect("it is new"))
    (problem,) = message.problems
    assert problem == Problem(
        "parser-some-new-thing",
        "advice",
        "Python's email parser finds 'SomeNewThing: it is new'; mend it.",
        "",
    )


# Time.


PEOPLE = ",\r\n ".join(f'"Lee, =?utf-8?q?{n}?=" <lee{n}@example.com>' for n in range(5000))
ATTACHED = "Content-Type: text/plain; charset=utf-8; name=a.txt\r\n\r\nx"
NEST = "--{0}\r\nContent-Type: multipart/mixed; boundary={1}\r\n\r\n"
MEGABYTE = 1 << 20

#: Seconds; it takes 0.3 at most, and a slow machine is given twice as many.
LONGEST = 0.6


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(mail(f"To: {PEOPLE}"), id="recipients"),
        pytest.param(mail("X-A: b\r\n " + "word\r\n " * (MEGABYTE // 7)), id="field"),
        pytest.param(
            mail(*(f"X-{n:06}: word word word" for n in range(MEGABYTE // 25))), id="fields"
        ),
        pytest.param(mail("Subject: " + "=?utf-8?q?a?=\r\n " * (MEGABYTE // 16)), id="words"),
        pytest.param(mail("Subject: " + "=?utf-8?q?" * (MEGABYTE // 10)), id="beginnings"),
        pytest.param(mail(body="\n" * MEGABYTE), id="bare-lf"),
        pytest.param(mail(body="\r" * MEGABYTE), id="bare-cr"),
        pytest.param(mail(body="x" * 997 + "\r" + "x" * MEGABYTE), id="long-line"),
        pytest.param(one("text/html", "<img src='cid:a'>" * (MEGABYTE // 17)), id="pictures"),
        pytest.param(one("text/html", "<!--" * (MEGABYTE // 4)), id="comments"),
        pytest.param(
            mail(MIME, "Content-Transfer-Encoding: quoted-printable", body="= " * MEGABYTE),
            id="qp",
        ),
    ],
)
def test_it_takes_no_time(raw):
    assert seconds_of(make(raw)) < LONGEST


def test_parts_take_no_time():
    """The parser takes much longer for them, so it is left out."""
    for raw in (many(*[ATTACHED] * 10_000), many(*[html("<img src=cid:a>")] * 10_000)):
        message = make(mail())
        message.raw = raw
        assert seconds_of(message) < LONGEST


def test_depth_takes_no_time():
    message = make(mail())
    message.raw = one(
        "multipart/mixed; boundary=0", "".join(NEST.format(n, n + 1) for n in range(3000))
    )
    assert seconds_of(message) < LONGEST


#: What has no end, and what looks like a beginning at each octet.
@pytest.mark.parametrize(
    "value",
    [
        '"',
        "(",
        "(a",
        "()",
        "(\\(",
        "(\\",
        "(\\(a(",
        '(\\"',
        "[",
        "\\",
        '\\"',
        "<@",
        "=?",
        ",",
        ";",
        ";a=",
        " ",
        "@",
        "<!--",
        "a",
    ],
)
@pytest.mark.parametrize("name", ["To", "Subject", "Date", "Content-Type"])
def test_time_grows_with_length_only(name, value):
    """Ten times as long is not a hundred times as slow; the parser, which may be, is left out."""
    times = []
    for size in (1 << 14, 10 << 14):
        message = make(mail())
        message.raw = mail(f"{name}: {value * (size // len(value))}")
        times.append(seconds_of(message))
    assert times[1] < 30 * times[0] + 0.05


def seconds_of(message: Message) -> float:
    """Return how long it takes; the least of three."""
    return min(cpu_seconds(lambda: message.problems) for _ in range(3))
