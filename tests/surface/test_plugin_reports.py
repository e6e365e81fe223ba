"""What the pytest plugin adds to the report on a test that failed."""

from __future__ import annotations

import re
import unicodedata

import pytest
from inner_pytest import TIMEOUT, Inner, Run

pytestmark = TIMEOUT

REPORTED = r"""
import smtplib
from email.message import EmailMessage

import pytest
from helpers import connected, send, send_to

def test_mixed(smtptest):
    message = EmailMessage()
    message["Subject"] = "Invoice 7"
    message.set_content("".join(f"Line {n}\n" for n in range(1, 10)))
    message.add_attachment(
        b"x" * 321, maintype="application", subtype="pdf", filename="invoice.pdf"
    )
    with connected(smtptest) as client:
        client.send_message(message, "kim@example.com", ["lee@example.com", "max@example.com"])
    send_to(smtptest, "for later", "for now")
    smtptest.wait(subject="for now")
    assert 0

def test_passing(smtptest):
    send_to(smtptest, "of a passing test")

def test_without():
    assert 0

def test_nothing_came(smtptest):
    assert 0

def test_many(smtptest):
    send_to(smtptest, *range(120))
    assert 0

def test_many_read(smtptest):
    send_to(smtptest, *range(30))
    assert len([*smtptest]) == 30
    assert 0

def test_long(smtptest):
    send_to(smtptest, "s" * 900)
    with connected(smtptest) as client:
        send(client, "t", ("t" * 900 + "\r\n") * 900)
        client.sendmail(
            "kim@example.com", [f"{n}@example.com" for n in range(500)], b"Subject: u\r\n\r\n"
        )
    assert 0

def test_nasty(smtptest):
    red = b"\x1b[31m"
    with connected(smtptest) as client:
        client.ehlo()
        for sender in ('"kim\x1b[2J\x07"@example.com', "kim@example.com"):
            if client.docmd("MAIL", f"FROM:<{sender}>")[0] == 250:
                break  # such a sender may well be refused
        client.docmd("RCPT", "TO:<lee@example.com>")
        code, _ = client.data(
            b"Subject: " + red + b"=?utf-8?q?=1B[2J=0A=C2=9B?= \xff \x07\x7f\r\n"
            b"MIME-Version: 1.0\r\n"
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + red
            + "\x9b31m \u202egnp \u2028 \x85 \x00".encode() + b" \xff\x0b \x08\r\n"
            b"--b\r\nContent-Disposition: attachment; filename*=utf-8''a%1B%5B2J%0Ab.pdf\r\n"
            b"Content-Type: application/pdf\r\n\r\nPDF\r\n--b--\r\n"
        )
        assert code == 250
    assert 0

@pytest.fixture
def broken_setup(smtptest):
    send_to(smtptest, "during setup")
    raise LookupError

@pytest.fixture
def broken_teardown(smtptest):
    yield
    send_to(smtptest, "during teardown")
    raise LookupError

def test_setup(broken_setup):
    pass

def test_teardown(smtptest, broken_teardown):
    send_to(smtptest, "during the call")

def test_two_servers(smtptest, smtptest_factory):
    send_to(smtptest, "for the first")
    send_to(smtptest_factory(), "for the other")
    assert 0
"""


PROBLEMS = (
    "  problem: from-missing: There is no From field; add one.\n"
    "  problem: date-missing: There is no Date field; add one.\n"
    "  problem: message-id-missing: There is no Message-ID field; add one.\n"
)


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_failure_is_reported_with_the_mail(inner, args):
    inner.files(test_reported=REPORTED)
    run = inner.run(*args)
    assert run.outcomes == {
        "test_mixed": "failed",
        "test_passing": "passed",
        "test_without": "failed",
        "test_nothing_came": "failed",
        "test_many": "failed",
        "test_many_read": "failed",
        "test_long": "failed",
        "test_nasty": "failed",
        "test_setup": "error",
        "test_teardown": "error",
        "test_two_servers": "failed",
    }
    assert "of a passing test" not in run.out
    have = {r["name"] for r in run.reports if "SMTP messages" in r["sections"]}
    assert have == set(run.outcomes) - {"test_passing", "test_without"}
    assert all(r["outcome"] == "failed" for r in run.reports if "SMTP messages" in r["sections"])

    mixed = run.section("test_mixed")
    assert re.search(r"\n-+ SMTP messages -+\n" + re.escape(mixed), run.told("test_mixed"))
    read, left = mixed.split("2 left unread:\n")
    assert read.endswith(
        "1 read by the test:\n"
        "- from <kim@example.com> to <lee@example.com>, subject 'for now'\n  | Hello.\n" + PROBLEMS
    )
    left, _, sessions = left.partition("\n2 sessions, of which the last:\n")
    assert sessions.count(" C data\n") == 3
    assert sessions.count(": QUIT\n") == 2
    assert left == (
        "- from <kim@example.com> to <lee@example.com>, <max@example.com>, subject 'Invoice 7'\n"
        "  | Line 1\n  | Line 2\n  | Line 3\n  | Line 4\n  | Line 5\n  | ...\n"
        "  attached: 'invoice.pdf' (application/pdf, 321 bytes)\n"
        + PROBLEMS
        + "- from <kim@example.com> to <lee@example.com>, subject 'for later'\n  | Hello.\n"
        + PROBLEMS.rstrip()
    )
    assert "No message has arrived." in run.section("test_nothing_came")
    assert "during setup" in run.section("test_setup")
    assert "during the call" in run.section("test_teardown")
    assert "during teardown" in run.section("test_teardown")
    assert "for the first" in run.section("test_two_servers")
    assert "for the other" in run.section("test_two_servers")

    many = run.section("test_many")
    assert "\n120 left unread:\n" in many
    assert "\n- and 100 more\n" in many
    assert re.findall("^- from .* subject '(.*)'", many, re.M) == [str(n) for n in range(20)]
    many = run.section("test_many_read")
    assert many.splitlines()[1].startswith("30 read by the test")
    assert re.findall("^- from .* subject '(.*)'", many, re.M) == [str(n) for n in range(10, 30)]
    long = run.section("test_long")
    assert "read by the test" not in long
    assert max(map(len, long.splitlines())) < 400
    assert len(long.partition(" session")[0]) < 2500
    assert " and 495 more, subject 'u'" in long

    nasty = run.section("test_nasty")
    assert "a\\x1b[2J" in nasty  # the attachment's name, made harmless
    assert "\\x1b[31m" in nasty  # the subject, or the text
    bad = {c for c in run.out if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert not bad


DEAD = {
    "test_dead": """
        import os, unittest
        import pytest
        from helpers import send_to
        from inner import kill, note

        def works(server):
            note(pid=server.pid)
            send_to(server, "it works")
            assert server.wait()["subject"] == "it works"

        def test_assert(smtptest):
            kill(smtptest)
            assert 0, "my error"

        def test_after_assert(smtptest):
            works(smtptest)

        def test_fail(smtptest):
            kill(smtptest)
            pytest.fail("my error", pytrace=False)

        def test_after_fail(smtptest):
            works(smtptest)

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _have(self, smtptest):
                self.smtptest = smtptest

            def test_unittest(self):
                kill(self.smtptest)
                self.fail("my error")

        @pytest.mark.smtptest(hostname="own.example")
        def test_marked(smtptest):
            kill(smtptest)
            raise ValueError("my error")

        @pytest.fixture
        def broken(smtptest):
            kill(smtptest)
            raise ValueError("my error")

        def test_setup(broken):
            pass
        """
}
DOCTEST = """
    >>> from inner import kill
    >>> kill(getfixture("smtptest"))
    >>> print("my error")
    none
"""
FATAL = {
    "test_assert": "test_assert",
    "test_fail": "test_fail",
    "test_unittest": "TestCase.test_unittest",
    "test_marked": "test_marked",
    "test_setup": "test_setup",
    "test_doc.txt": "test_doc.txt",
}


def fatal(inner: Inner, *args: str) -> Run:
    inner.files(**DEAD)
    inner.text(test_doc=DOCTEST)
    run = inner.run(*args)
    assert run.outcomes == {
        **dict.fromkeys(FATAL, "failed"),
        "test_setup": "error",
        "test_after_assert": "passed",
        "test_after_fail": "passed",
    }
    return run


def says_it_died(line: str) -> bool:
    return re.search(r"server process \d+ .*was killed by SIGKILL", line) is not None


@pytest.mark.parametrize("args", ["", "--tb=short", "-n 2"])
def test_a_failure_with_a_dead_server_says_that_first(inner, args):
    run = fatal(inner, *args.split())
    for title in FATAL.values():
        told = run.told(title)
        assert says_it_died(told.lstrip().splitlines()[0])
        assert "my error" in told


def test_a_failure_in_a_line_says_first_that_the_server_died(inner):
    out = fatal(inner, "--tb=line").out
    out = out[re.search("^=+ (ERRORS|FAILURES) =+$", out, re.MULTILINE).end() :]
    lines = out[: out.index("= short test summary info =")].splitlines()
    died = [n for n, line in enumerate(lines) if says_it_died(line)]
    assert died[0] < next(n for n, line in enumerate(lines) if "my error" in line)


@pytest.mark.parametrize("args", ["--tb=no", "-n 2 --tb=no"])
def test_a_summary_says_that_the_server_died(inner, args):
    out = fatal(inner, *args.split()).out
    summary = dict(re.findall(r"^(?:FAILED|ERROR) (\S+)(.*)", out, re.MULTILINE))
    told = {name.rpartition("::")[2]: says_it_died(text) for name, text in summary.items()}
    assert told == dict.fromkeys(FATAL, True)


def test_a_time_limit_that_strikes_in_the_report_ends_no_more_than_that(inner):
    inner.files(
        test_limit="""
        import os, signal
        import pytest

        @pytest.mark.timeout(30)
        def test_stuck(smtptest):
            os.kill(smtptest.pid, signal.SIGSTOP)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            assert 0

        def test_next(smtptest):
            assert smtptest.messages == []
        """
    )
    assert inner.run().outcomes == {"test_stuck": "failed", "test_next": "passed"}


def test_what_clients_did_is_told_of_a_server_that_is_gone(inner):
    inner.files(
        test_gone="""
        import os, signal
        from helpers import send_to

        def test_stopped(smtptest):
            send_to(smtptest, "hello")
            smtptest.stop()
            assert 0

        def test_nobody_came(smtptest):
            smtptest.stop()
            assert 0

        def test_killed(smtptest):
            send_to(smtptest, "hello")
            os.kill(smtptest.pid, signal.SIGKILL)
            assert 0

        def test_killed_and_stopped(smtptest):
            send_to(smtptest, "hello")
            os.kill(smtptest.pid, signal.SIGKILL)
            smtptest.stop()
            assert 0
        """
    )
    run = inner.run()
    assert "\n1 session:\n" in run.section("test_stopped")
    assert " S 221 2.0.0 Bye" in run.section("test_stopped")
    assert run.section("test_nobody_came").endswith("No client has connected.")
    for title in ("test_killed", "test_killed_and_stopped"):
        assert "What clients did is not known." in run.section(title)
        assert "No client has connected" not in run.section(title)


def test_problems_of_sessions_count_when_the_server_is_stopped(inner):
    inner.files(
        test_stopped="""
        from raw_client import Wire

        def test_wrong(smtptest):
            with Wire(smtptest) as wire:
                wire.say(b"EHLO client.example", b"MAIL FROM:kim@example.com", b"QUIT")
            smtptest.stop()
        """
    )
    run = inner.run("-o", "smtptest_check=error")
    assert run.outcomes == {"test_wrong": "failed"}
    assert "path-without-brackets" in run.out
