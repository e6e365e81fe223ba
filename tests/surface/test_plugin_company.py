"""The pytest plugin, with workers and with the plugins that it may meet."""

from __future__ import annotations

import re

from inner_pytest import TIMEOUT
from scripts import STRICT

pytestmark = TIMEOUT

SENDING = """
import os

import pytest
from helpers import send_to, subjects
from inner import note

def sees_its_own(server, token):
    note(pid=server.pid, worker=os.environ.get("PYTEST_XDIST_WORKER", ""))
    send_to(server, token)
    assert subjects(server.messages) == [token]
"""


def test_tests_of_a_module_share_a_worker_and_its_server(inner):
    inner.files(
        sending=SENDING,
        **{
            f"test_{name}": f"""
            import pytest
            from sending import sees_its_own

            @pytest.mark.parametrize("n", range(3))
            def test_{name}(smtptest, n):
                sees_its_own(smtptest, f"{name} {{n}}")
            """
            for name in "abcd"
        },
    )
    run = inner.run("-n", "2", "--dist", "loadscope")
    assert list(run.outcomes.values()) == ["passed"] * 12
    assert len({note["worker"] for note in run.notes}) == 2
    assert len({(note["worker"], note["pid"]) for note in run.notes}) == 2
    assert len({note["pid"] for note in run.notes}) == 2


def test_a_worker_that_crashes_leaves_no_server(inner):
    inner.files(
        sending=SENDING,
        test_crash="""
        import os

        import pytest
        from sending import sees_its_own

        @pytest.mark.parametrize("n", range(6))
        def test_one(smtptest, smtptest_factory, n):
            sees_its_own(smtptest, f"token {n}")
            if n == 1:
                sees_its_own(smtptest_factory(), "another")
                os._exit(3)
        """,
    )
    run = inner.run("-n", "2", "--dist", "worksteal")
    assert run.outcomes == {f"test_one[{n}]": "failed" if n == 1 else "passed" for n in range(6)}
    assert re.search("worker 'gw[01]' crashed while running", run.failure("test_one[1]")["text"])


OTHERS = {
    "test_others": """
        import asyncio
        import unittest

        import anyio.to_thread
        import pytest
        from helpers import send_to, subjects
        from inner import note

        def in_vain(server):
            note(pid=server.pid)
            send_to(server, "left by another test")

        @pytest.mark.asyncio
        async def test_asyncio(smtptest):
            in_vain(smtptest)
            waiting = asyncio.create_task(asyncio.to_thread(smtptest.wait, 10, subject="to wait"))
            await asyncio.to_thread(send_to, smtptest, "to wait for")
            assert (await waiting)["subject"] == "to wait for"

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_anyio(smtptest):
            await anyio.to_thread.run_sync(in_vain, smtptest)
            message = await anyio.to_thread.run_sync(smtptest.wait)
            assert message["subject"] == "left by another test"

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _have(self, smtptest):
                self.smtptest = smtptest

            def test_unittest(self):
                self.assertEqual(self.smtptest.messages, [])
                in_vain(self.smtptest)
                self.assertEqual(len(self.smtptest.messages), 1)

            def test_unittest_again(self):
                self.assertEqual(self.smtptest.messages, [])
                in_vain(self.smtptest)

        class TestAsyncCase(unittest.IsolatedAsyncioTestCase):
            @pytest.fixture(autouse=True)
            def _have(self, smtptest):
                self.smtptest = smtptest

            async def test_async_unittest(self):
                self.assertEqual(self.smtptest.messages, [])
                await asyncio.to_thread(in_vain, self.smtptest)
                await asyncio.to_thread(self.smtptest.wait)
        """
}
GOOD_DOCTEST = """
    >>> from helpers import send_to, subjects
    >>> smtptest = getfixture("smtptest")
    >>> smtptest.messages
    []
    >>> send_to(smtptest, "in a doctest")
    >>> subjects(smtptest)
    ['in a doctest']
"""


def test_other_kinds_of_tests_without_a_warning(inner):
    inner.ini(asyncio_default_fixture_loop_scope="function")
    inner.files(**OTHERS)
    inner.text(test_doc=GOOD_DOCTEST)
    run = inner.run(*STRICT, off=("-p", "no:randomly"))
    names = ["asyncio", "anyio", "unittest", "unittest_again", "async_unittest", "doc.txt"]
    assert run.outcomes == {f"test_{name}": "passed" for name in names}
    assert len(set(run.noted("pid"))) == 1
    assert not re.search("warnings? (in|summary)|Warning:", run.out + run.err)


def test_tests_in_a_random_order(inner):
    inner.ini(smtptest_strict="true", asyncio_default_fixture_loop_scope="function")
    inner.files(
        **{
            f"test_{name}": f"""
            import pytest
            from helpers import send_to, subjects
            from inner import note

            @pytest.mark.parametrize("n", range(4))
            def test_{name}(smtptest, n):
                note(pid=smtptest.pid, order="{name}" + str(n))
                assert smtptest.messages == []
                send_to(smtptest, n)
                assert subjects(smtptest) == [str(n)]
            """
            for name in "abc"
        }
    )
    run = inner.run("-p", "randomly", "-p", "no:hypothesispytest", "--randomly-seed=20", off=())
    assert "Using --randomly-seed=20\n" in run.out
    assert list(run.outcomes.values()) == ["passed"] * 12
    assert len(set(run.noted("pid"))) == 1
    assert run.noted("order") != sorted(run.noted("order"))


def test_a_rerun_begins_without_mail(inner):
    inner.files(
        test_flaky="""
        from helpers import send_to, subjects
        from inner import note

        TRIES = {"flaky": 0, "hopeless": 0}

        def attempt(server, name):
            TRIES[name] += 1
            note(pid=server.pid)
            assert server.messages == []
            send_to(server, f"{name}, try {TRIES[name]}")
            return TRIES[name]

        def test_flaky(smtptest):
            assert attempt(smtptest, "flaky") == 2

        def test_hopeless(smtptest):
            assert attempt(smtptest, "hopeless") == 3
        """
    )
    run = inner.run("--reruns", "1")
    assert run.outcomes == {"test_flaky": "passed", "test_hopeless": "failed"}
    assert len(run.notes) == 4
    assert "hopeless, try 2" in run.section("test_hopeless")
    assert "hopeless, try 1" not in run.section("test_hopeless")
    assert "flaky, " not in run.section("test_hopeless")


def test_only_what_failed_last_time(inner):
    inner.files(
        test_some="""
        import os

        import pytest
        from helpers import send_to, subjects

        @pytest.mark.parametrize("n", range(3))
        def test_one(smtptest, n):
            send_to(smtptest, n)
            assert subjects(smtptest.messages) == [str(n)]
            assert n != 1
        """
    )
    assert inner.run().outcomes == {
        "test_one[0]": "passed",
        "test_one[1]": "failed",
        "test_one[2]": "passed",
    }
    run = inner.run("--lf")
    assert run.outcomes == {"test_one[1]": "failed"}
    assert "1 left unread:" in run.section("test_one[1]")


def test_three_servers_of_three_plugins(inner):
    inner.ini(asyncio_default_fixture_loop_scope="function")
    inner.files(
        test_three="""
        import smtplib

        from helpers import send_to, subjects
        from inner import note

        def test_three(smtptest, smtpd, smtpserver):
            note(pid=smtptest.pid)
            others = {(smtpd.hostname, smtpd.port): "fix", smtpserver.addr: "localserver"}
            send_to(smtptest, "ours")
            for (host, port), subject in others.items():
                with smtplib.SMTP(host, port) as client:
                    client.sendmail("a@example.com", "b@example.com", f"Subject: {subject}\\n\\n")
            assert subjects(smtptest.messages) == ["ours"]
            assert subjects(smtpd.messages) == ["fix"]
            assert subjects(smtpserver.outbox) == ["localserver"]
        """
    )
    run = inner.run(off=("-p", "no:randomly"))
    assert run.outcomes == {"test_three": "passed"}


def test_no_test_sees_the_mail_of_another(inner):
    module = """
        import uuid

        import pytest
        from helpers import send_to, subjects
        from inner import note

        @pytest.mark.parametrize("n", range(5))
        def test_one(smtptest, n):
            token = str(uuid.uuid4())
            note(pid=smtptest.pid, token=token)
            send_to(smtptest, token)
            assert subjects(smtptest.messages) == [token]
            if n % 2:
                assert smtptest.wait(subject=token).text == "Hello.\\n"
        """
    inner.files(**{f"test_{n}": module for n in range(40)})
    run = inner.run("-n", "4", "--dist", "worksteal")
    calls = [report for report in run.reports if report["when"] == "call"]
    assert len(calls) == 200
    assert {report["outcome"] for report in run.reports} == {"passed"}
    assert len(set(run.noted("token"))) == 200
    assert len(set(run.noted("pid"))) == 4


def test_time_that_stands_still_stops_no_wait(inner):
    inner.files(
        test_frozen="""
        import freezegun
        import pytest
        from lazr_smtptest import MessageNotReceived

        @freezegun.freeze_time("2020-01-01")
        def test_frozen(smtptest):
            smtptest.expect_none(0.1)
            with pytest.raises(MessageNotReceived):
                smtptest.wait(0.1)
            smtptest.reset()
        """
    )
    assert inner.run().outcomes == {"test_frozen": "passed"}
