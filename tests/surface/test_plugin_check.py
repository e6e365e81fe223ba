"""What the pytest plugin makes of problems of mail and sessions."""

from __future__ import annotations

import pytest

MAIL = """
import smtplib

import pytest

RIGHT = "From: kim@example.com\\r\\nDate: Fri, 27 Nov 2026 10:00:00 +0000\\r\\n" \\
    "Message-ID: <1@example.com>\\r\\nSubject: x\\r\\n\\r\\nHello.\\r\\n"

def send(server, content=RIGHT, sender="<kim@example.com>"):
    with smtplib.SMTP(server.host, server.port) as client:
        client.ehlo()
        client.docmd("MAIL", f"FROM:{sender}")
        client.docmd("RCPT", "TO:<lee@example.com>")
        client.data(content.encode())

def test_right(smtptest):
    send(smtptest)
    smtptest.wait()

def test_advice(smtptest):
    send(smtptest, "From: kim@example.com\\r\\n\\r\\nHello.\\r\\n")

def test_wrong_and_taken(smtptest):
    send(smtptest, RIGHT.replace("From", "Form"))
    smtptest.wait()

def test_wrong_and_left(smtptest):
    send(smtptest, RIGHT.replace("\\r\\n\\r\\n", "\\r\\nBcc: max@example.com\\r\\n\\r\\n"))

def test_wrong_session(smtptest):
    send(smtptest, sender="kim@example.com")

def test_wrong_in_a_factory(smtptest_factory):
    send(smtptest_factory(), RIGHT.replace("From", "Form"))

def test_wrong_and_reset(smtptest):
    send(smtptest, RIGHT.replace("From", "Form"))
    smtptest.reset()

@pytest.mark.smtptest_allow("from-missing", "html-only")
def test_allowed(smtptest):
    send(smtptest, RIGHT.replace("From", "Form"))

@pytest.mark.smtptest_allow("bcc-leaked")
def test_another_is_allowed(smtptest):
    send(smtptest, RIGHT.replace("From", "Form"))

@pytest.mark.smtptest_allow("form-missing")
def test_no_such_code(smtptest):
    send(smtptest)

def test_fails_by_itself(smtptest):
    send(smtptest, RIGHT.replace("From", "Form"))
    assert not smtptest.messages
"""

ERRORS = {
    "test_wrong_and_taken": "from-missing",
    "test_wrong_and_left": "bcc-leaked",
    "test_wrong_session": "path-without-brackets",
    "test_wrong_in_a_factory": "from-missing",
    "test_another_is_allowed": "from-missing",
}


def test_errors_fail_a_test(inner):
    inner.ini(smtptest_check="error")
    inner.files(test_mail=MAIL)
    run = inner.run()
    failed = {*ERRORS, "test_no_such_code", "test_fails_by_itself"}
    assert {name for name, outcome in run.outcomes.items() if outcome != "passed"} == failed
    for name, code in ERRORS.items():
        text = run.failure(name)["text"]
        assert f"\n- {code}: " in text
        assert f'@pytest.mark.smtptest_allow("{code}")' in text
    assert "smtptest_allow has no code 'form-missing'" in run.failure("test_no_such_code")["text"]
    assert "assert not" in run.failure("test_fails_by_itself")["text"]


def test_codes_that_are_allowed_everywhere(inner):
    inner.ini(smtptest_check="error", smtptest_allow="from-missing bcc-leaked")
    inner.files(test_mail=MAIL)
    run = inner.run("--deselect=test_mail.py::test_fails_by_itself")
    failed = {name for name, outcome in run.outcomes.items() if outcome != "passed"}
    assert failed == {"test_wrong_session", "test_no_such_code"}


def test_they_are_reported_where_a_test_fails(inner):
    inner.files(test_mail=MAIL)
    run = inner.run()
    failed = {name: outcome for name, outcome in run.outcomes.items() if outcome != "passed"}
    assert failed == {"test_no_such_code": "error", "test_fails_by_itself": "failed"}
    assert "\n  problem: from-missing: " in run.section("test_fails_by_itself")


def test_off(inner):
    inner.ini(smtptest_check="off")
    inner.files(test_mail=MAIL)
    run = inner.run()
    assert "problem" not in run.section("test_fails_by_itself")
    assert run.outcomes["test_no_such_code"] == "error"  # a typo is a typo


@pytest.mark.parametrize("codes", ["from-missing bcc-leaked", "from-missing, parser-some-new"])
def test_codes_in_the_ini_file(inner, codes):
    inner.ini(smtptest_check="error", smtptest_allow=codes)
    inner.files(test_mail=MAIL)
    run = inner.run("-k", "test_wrong_and_taken or test_no_such_code")
    assert run.outcomes == {"test_wrong_and_taken": "passed", "test_no_such_code": "error"}


def test_codes_that_there_are_not_are_told_at_once(inner):
    inner.ini(smtptest_allow="form-missing, bcc-leaked")
    inner.files(test_mail=MAIL)
    assert "smtptest_allow has no code 'form-missing'; it has 8bit-in-7bit, " in inner.run().err


#: What is given to the marker, and how the report on that begins and ends.
WRONG_MARKS = {
    '"form-missing"': ("has no code 'form-missing'; it has 8bit-", ": did you mean from-missing?"),
    '"nul", "typo"': ("has no code 'typo'; it has 8bit-", ", transfer-encoding-invalid"),
    '["from-missing"]': ("has no code ['from-missing']; it has ", "ing-invalid"),
    'code="nul"': ("has no code 'code='; it has ", ", transfer-encoding-invalid"),
    "": ("needs a code, such as ", '@pytest.mark.smtptest_allow("from-missing")'),
}


@pytest.mark.parametrize("check", ["off", "report", "error"])
def test_a_marker_that_is_given_something_else(inner, check):
    """Whatever is checked, and whether the test has a server or not."""
    inner.ini(smtptest_check=check)
    tests = [
        f"@pytest.mark.smtptest_allow({given})\ndef test_{number}(): pass\n"
        for number, given in enumerate(WRONG_MARKS)
    ]
    inner.files(test_mail="\n".join(["import pytest", *tests]))
    run = inner.run()
    for number, (start, end) in enumerate(WRONG_MARKS.values()):
        told = run.told(f"test_{number}").rstrip()
        assert told.startswith(f"@pytest.mark.smtptest_allow {start}")
        assert told.endswith(end)
        assert "\n" not in told


def test_a_wrong_marker_of_a_test_that_does_not_run_or_must_fail(inner):
    wrong = '@pytest.mark.smtptest_allow("form-missing")'
    tests = [
        f"@pytest.mark.skip\n{wrong}\ndef test_skipped(): pass\n",
        f"@pytest.mark.skipif(True, reason='no')\n{wrong}\ndef test_if(smtptest): pass\n",
        f"@pytest.mark.xfail\n{wrong}\ndef test_xfailed(): pass\n",
        f"{wrong}\ndef test_runs(): pass\n",
    ]
    inner.files(test_mail="\n".join(["import pytest", *tests]))
    assert inner.run().outcomes == {
        "test_skipped": "skipped",
        "test_if": "skipped",
        "test_xfailed": "xfailed",
        "test_runs": "error",
    }


def test_a_value_that_there_is_not(inner):
    inner.ini(smtptest_check="on")
    inner.files(test_mail=MAIL)
    assert "smtptest_check must be off, report or error, not on" in inner.run().err
