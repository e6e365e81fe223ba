"""The pytest plugin: whatever a test leaves, the next one has a server that is as new."""

from __future__ import annotations

import re

from inner_pytest import TIMEOUT

pytestmark = TIMEOUT

BAD_SERVERS = """
import signal
import time

import pytest
from helpers import send_to, subjects
from inner import kill, note
from lazr_smtptest import ServerDied

@pytest.fixture(scope="session")
def smtptest_options(smtptest_options):
    return {**smtptest_options, "reset_timeout": 0.5}

PIDS = []

def works(server):
    note(pid=server.pid)
    assert server.pid not in PIDS
    PIDS.append(server.pid)
    send_to(server, "it works")
    assert subjects(server.messages) == ["it works"]
    assert server.wait()["subject"] == "it works"

CALLS = [
    lambda server: server.wait(60),
    lambda server: server.wait_many(2, 60),
    lambda server: server.expect_none(60),
    lambda server: server.queue.get(),
    lambda server: server.messages,
    lambda server: server.reset(),
    lambda server: list(server),
]

def test_dead(smtptest):
    send_to(smtptest, "left")
    kill(smtptest)
    assert smtptest.wait(60)["subject"] == "left"
    for call in CALLS:
        started = time.monotonic()
        with pytest.raises(ServerDied):
            call(smtptest)
        assert time.monotonic() - started < 1

def test_after_dead(smtptest):
    works(smtptest)

def test_stopped(smtptest):
    note(pid=smtptest.pid)
    smtptest.stop()

def test_after_stopped(smtptest):
    works(smtptest)

def test_stuck(smtptest):
    kill(smtptest, signal.SIGSTOP)
    assert 0, "my error"

def test_after_stuck(smtptest):
    works(smtptest)

def test_restarted(smtptest):
    smtptest.stop()
    smtptest.start()
    works(smtptest)

def test_after_restarted(smtptest):
    assert smtptest.messages == []
    assert smtptest.pid == PIDS[-1]

@pytest.mark.smtptest(stop_timeout=0.5)
def test_stuck_and_marked(smtptest):
    kill(smtptest, signal.SIGSTOP)
    assert 0, "my error"
"""


def test_the_next_test_has_a_server_that_works(inner):
    inner.files(test_bad=BAD_SERVERS)
    run = inner.run()
    assert run.outcomes == {
        "test_dead": "passed",
        "test_after_dead": "passed",
        "test_stopped": "passed",
        "test_after_stopped": "passed",
        "test_stuck": "failed",
        "test_after_stuck": "passed",
        "test_restarted": "passed",
        "test_after_restarted": "passed",
        "test_stuck_and_marked": "failed",
    }
    for name in ("test_stuck", "test_stuck_and_marked"):
        first = run.told(name).splitlines()[0]
        assert re.search(r"server process \d+ .*did not answer", first)
        assert "is it stopped, or the machine overloaded?" in first
        assert "my error" in run.told(name)


STRICT = """
import unittest

import pytest
from helpers import send_to, subjects

def test_left(smtptest):
    send_to(smtptest, "read", "left")
    smtptest.wait(subject="read")

def test_only_looked_at(smtptest):
    send_to(smtptest, "looked at")
    assert subjects(smtptest.messages) == ["looked at"]

def test_many(smtptest):
    send_to(smtptest, *range(120))

@pytest.mark.smtptest
def test_marked(smtptest):
    send_to(smtptest, "marked")

def test_factory(smtptest_factory, smtptest):
    first, second = smtptest_factory(), smtptest_factory()
    send_to(second, "made")

class TestCase(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _have(self, smtptest):
        self.smtptest = smtptest
        send_to(smtptest, "for a unittest")

    def test_unittest(self):
        pass

    def test_unittest_own_error(self):
        self.fail("my own error")

    def test_unittest_skip(self):
        self.skipTest("not today")

    @unittest.expectedFailure
    def test_unittest_xfail(self):
        self.fail("as expected")

    def test_unittest_read(self):
        self.smtptest.wait()

def test_get(smtptest):
    send_to(smtptest, "get")
    smtptest.queue.get()

def test_iteration(smtptest):
    send_to(smtptest, 1, 2)
    assert len(list(smtptest)) == 2

def test_wait(smtptest):
    send_to(smtptest, 1, 2, 3)
    smtptest.wait()
    smtptest.wait_many(2)

def test_reset(smtptest):
    send_to(smtptest, "forgotten")
    smtptest.reset()

def test_nothing_sent(smtptest):
    pass

def test_without():
    pass

def test_own_error(smtptest):
    send_to(smtptest, "left")
    assert 0, "my own error"

def test_skip(smtptest):
    send_to(smtptest, "left")
    pytest.skip("not today")

@pytest.mark.xfail
def test_xfail(smtptest):
    send_to(smtptest, "left")
    assert 0

def test_fails_after_all_these(smtptest):
    assert smtptest.queue.empty()
    send_to(smtptest, "the last one")
"""


def test_strict_fails_a_test_that_leaves_mail_unread(inner):
    inner.ini(smtptest_strict="true")
    inner.files(test_strict=STRICT)
    run = inner.run("--strict-config")
    leaving = {
        "left": ["left"],
        "only_looked_at": ["looked at"],
        "many": [str(n) for n in range(20)],
        "marked": ["marked"],
        "factory": ["made"],
        "unittest": ["for a unittest"],
        "fails_after_all_these": ["the last one"],
    }
    passing = ["get", "iteration", "wait", "reset", "nothing_sent", "without", "unittest_read"]
    assert run.outcomes == {
        **{f"test_{name}": "failed" for name in leaving},
        **{f"test_{name}": "passed" for name in passing},
        "test_own_error": "failed",
        "test_unittest_own_error": "failed",
        "test_skip": "skipped",
        "test_unittest_skip": "skipped",
        "test_xfail": "xfailed",
        "test_unittest_xfail": "xfailed",
    }
    for name, subjects in leaving.items():
        text = run.failure(f"test_{name}")["text"]
        assert re.search(
            r"^(Failed: )?the test left mail unread, on localhost port \d+: .*\n", text
        )
        assert re.findall("^- from <kim@example.com> to <lee@example.com>, (.*)", text, re.M) == [
            f"subject '{subject}'" for subject in subjects
        ]
    assert run.failure("test_many")["text"].rstrip().endswith("- and 100 more")
    for name in ("test_own_error", "test_unittest_own_error"):
        assert "my own error" in run.failure(name)["text"]
        assert "left mail unread" not in run.failure(name)["text"]
        assert "1 left unread:\n" in run.section(name)


TIMED = """
import pytest
from helpers import send_to, subjects
from inner import note

def test_before(smtptest):
    note(pid=smtptest.pid)

@pytest.mark.timeout(0.5)
def test_slow(smtptest):
    note(pid=smtptest.pid)
    smtptest.wait(60)

def test_after(smtptest):
    note(pid=smtptest.pid)
    send_to(smtptest, "hi")
    assert smtptest.wait()["subject"] == "hi"
"""


def test_the_next_test_works_after_a_timeout(inner):
    inner.files(test_timed=TIMED)
    run = inner.run("--timeout-method=signal")
    assert run.outcomes == {"test_before": "passed", "test_slow": "failed", "test_after": "passed"}
    assert "Timeout (>0.5s) from pytest-timeout" in run.told("test_slow")
    assert "No message has arrived." in run.section("test_slow")


def test_no_server_is_left_when_a_timeout_ends_the_run(inner):
    inner.files(test_timed=TIMED)
    run = inner.run("--timeout-method=thread")
    assert run.ret == 1
    assert len(run.noted("pid")) == 2
    assert re.search(r"\++ Timeout \++", run.out + run.err)
    assert "test_after" not in run.outcomes


def test_who_still_waits_gets_nothing_of_the_next_test(inner):
    inner.files(
        test_left_over="""
        import threading
        from queue import Empty
        import pytest
        from helpers import awaited, send_to, until
        from lazr_smtptest import MessageNotReceived

        def leave_waiting(smtptest, error, call):
            def wait():
                with pytest.raises(error):
                    call(timeout=60)

            threading.Thread(target=wait, name="waiting").start()
            until(lambda: awaited(smtptest))

        def see_that_nobody_waits(smtptest):
            for thread in threading.enumerate():
                if thread.name == "waiting":
                    thread.join(10)
                    assert not thread.is_alive()
            send_to(smtptest, "hello")
            assert smtptest.wait(0)["subject"] == "hello"

        def test_1(smtptest):
            leave_waiting(smtptest, MessageNotReceived, smtptest.wait)

        def test_2(smtptest):
            see_that_nobody_waits(smtptest)

        def test_3(smtptest):
            leave_waiting(smtptest, Empty, smtptest.queue.get)

        def test_4(smtptest):
            see_that_nobody_waits(smtptest)
        """
    )
    assert inner.run().outcomes == {f"test_{n}": "passed" for n in (1, 2, 3, 4)}


OTHER_OPTIONS = {
    "test_restarts": """
        from helpers import connected
        import pytest

        @pytest.fixture(scope="session")
        def port(smtptest_server):
            return smtptest_server.port

        @pytest.mark.parametrize("number", range(3))
        def test_restart(smtptest, smtptest_server, port, number):
            assert smtptest is smtptest_server
            assert smtptest.port == port
            with connected(smtptest) as client:
                assert client.ehlo()[1].startswith(b"localhost")
            smtptest.restart(hostname=f"{number}.example.com")
            smtptest.restart(ident="again")
            with connected(smtptest) as client:
                assert client.ehlo()[1].startswith(b"%d.example.com" % number)
    """
}


def test_options_that_a_test_changed_are_as_before_in_the_next(inner):
    inner.files(**OTHER_OPTIONS)
    assert set(inner.run().outcomes.values()) == {"passed"}
