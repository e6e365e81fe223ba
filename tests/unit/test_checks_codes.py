"""Each code of a problem: one message that has it, and one beside it that just has not."""

from __future__ import annotations

import re

import pytest
from messages import make
from paths import DOCS
from problems import CASES, Case, mail

from lazr_smtptest import Problem
from lazr_smtptest.checks import CODES
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import SESSION_CODES

EACH = [pytest.param(case, id=f"{case.code}-{n}") for n, case in enumerate(CASES)]


def read(raw: bytes, case: Case) -> Message:
    return make(raw, mail_options=(f"BODY={case.body}",), smtp_utf8=case.smtp_utf8)


@pytest.mark.parametrize("case", EACH)
def test_the_message_that_has_it(case):
    (problem,) = read(case.wrong, case).problems
    assert type(problem) is Problem
    assert (problem.code, problem.where) == (case.code, case.where)
    assert problem.level == ("advice" if is_parameter(problem) else CODES[case.code][0])


def is_parameter(problem: Problem) -> bool:
    """Whether it is an encoded word in a parameter, which most readers decode."""
    return problem.code == "encoded-word-misplaced" and "RFC 2231" in problem.text


@pytest.mark.parametrize("case", EACH)
def test_the_message_beside_it(case):
    assert read(case.right, case).problems == ()


@pytest.mark.parametrize("case", EACH)
def test_the_text_is_one_line_of_some_words(case):
    (problem,) = read(case.wrong, case).problems
    assert problem.text.endswith(".")
    assert problem.text.isprintable()
    assert 15 < len(problem.text) < 260


def test_each_code_has_a_case():
    assert {case.code for case in CASES} | {"parser-*"} == CODES.keys()


def test_levels_and_sources():
    for level, summary, source in CODES.values():
        assert level in ("error", "advice")
        assert re.fullmatch(r"RFC \d{4} [\d.]+|HTML Standard [\d.]+|email\.\w+", source)
        assert summary[0] != summary[0].upper() or summary.startswith(
            ("HTML", "MIME", "Python", "8")
        )


def test_advice_is_what_is_taken_and_read():
    advice = {code for code, (level, _, _) in CODES.items() if level == "advice"}
    assert advice == {
        "alternative-order",
        "date-missing",
        "encoded-word-too-long",
        "html-only",
        "message-id-missing",
        "parser-*",
    }


def test_the_page_has_the_same_tables():
    page = (DOCS / "checks.rst").read_text("utf-8")
    rows = re.findall(r"^   \* - ``(.+)``\n     - (\w+)\n     - (.+)\n     - (.+)$", page, re.M)
    expected = [
        (code, level, summary, re.sub(r"(email\.\w+)", r"Python's ``\1``", source))
        for code, (level, summary, source) in [*CODES.items(), *SESSION_CODES.items()]
    ]
    assert rows == expected


# What is not judged, and how problems are asked for.


def test_the_headers_that_are_added_are_not_judged():
    message = make(mail(), mail_from='"x\r\ny"', rcpt_tos=("ö@example.com", "b" * 2000))
    assert message["X-MailFrom"]
    assert message.problems == ()


def test_they_are_found_anew_each_time():
    message = make(mail(without="Date"))
    assert message.problems == message.problems != ()
    message.raw = mail()
    assert message.problems == ()


def test_what_mail_said_counts():
    raw = mail(
        "Subject: grün",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        body="grün",
    )
    options = ("body=8bitmime", "SMTPUTF8")
    assert [problem.code for problem in make(raw).problems] == ["8bit-undeclared", "raw-8bit"]
    assert make(raw, mail_options=options, smtp_utf8=True).problems == ()


def test_twenty_of_a_kind_are_enough():
    raw = mail(*(f"X-{n}: ü" for n in range(30)))
    assert [problem.where for problem in make(raw).problems] == [
        f"header X-{n}" for n in range(20)
    ]


def test_long_and_strange_text_is_cut_and_quoted():
    (problem,) = make(mail(b"Subject: \x1b[1m\xff" + b"x" * 900)).problems
    assert problem.text == (
        r"'\x1b[1m\udcff" + "x" * 92 + "...' has 8-bit octets; encode them (RFC 2047)."
    )
