"""The pytest plugin beside pyfakefs, whose fixture ``fs`` has files in memory."""

from __future__ import annotations

from textwrap import dedent

import pytest
from inner_pytest import TIMEOUT

pytestmark = TIMEOUT

#: Tests, each of which has to pass whichever was first.
TESTS = {
    "files_then_server": """
        def test(fs, smtptest):
            use(smtptest)
            is_faked(fs)
        """,
    "server_then_files": """
        def test(smtptest, fs):
            use(smtptest)
            is_faked(fs)
        """,
    "no_files": """
        def test(smtptest):
            use(smtptest)
            assert os.path.exists(__file__)
        """,
    "names": """
        def test(fs, smtptest):
            import lazr_smtptest
            assert all(getattr(lazr_smtptest, name) for name in lazr_smtptest.__all__)
            smtptest.stop()
            with pytest.raises(lazr_smtptest.NotRunning):
                smtptest.reset()
            smtptest.start()
            use(smtptest)
        """,
    "killed": """
        def test(fs, smtptest):
            from lazr_smtptest import ServerDied
            kill(smtptest)
            with pytest.raises(ServerDied):
                smtptest.wait()
        """,
    "tls": """
        def test(fs, smtptest_factory):
            server = smtptest_factory(tls="starttls")
            with smtplib.SMTP(server.host, server.port) as client:
                client.starttls(context=server.client_context())
            server.stop()
            is_faked(fs)
        """,
    "other_queue": """
        def test(fs):
            import queue
            from lazr_smtptest import Controller, QueueServer
            mail = queue.Queue()
            with Controller(QueueServer("localhost", 0, mail)) as controller:
                send_to(controller, "hi")
                assert mail.get_nowait()["subject"] == "hi"
        """,
    "handler": """
        def test(fs):
            from lazr_smtptest import Controller, MessageQueue, QueueServer
            class Looking(QueueServer):
                def handle_message(self, message):
                    self.queue.put(os.path.exists(__file__))
            inbox = MessageQueue()
            with Controller(Looking("localhost", 0, inbox)) as controller:
                send_to(controller, "hi")
                assert inbox.get_nowait()
        """,
    "paused": """
        def test(fs, smtptest):
            fs.pause()
            smtptest.stop()
            smtptest.start()
            assert os.path.exists(__file__)
            fs.resume()
            is_faked(fs)
        """,
    "defaults": """
        def test(smtptest):
            with Patcher(patch_default_args=True):
                use(smtptest)
        """,
}

HEAD = """
import os
import smtplib
import pytest
from pyfakefs.fake_filesystem_unittest import Patcher
from helpers import send_to
from inner import kill

def use(server):
    send_to(server, "one", "two")
    assert server.wait()["subject"] == "one"
    server.expect_none(0.01, subject="three")
    assert server.messages[0].problems
    assert server.sessions()[0].problems is not None
    with server.fault("RCPT", "450 No") as fault:
        assert fault.fired == 0
    server.reset()

def is_faked(fs):
    fs.create_file("/mail/new")
    assert open("/mail/new").read() == ""
    assert os.listdir("/mail") == ["new"]
    assert not os.path.exists(__file__)
"""


@pytest.mark.parametrize("first", ["files_then_server", "server_then_files", "names", "tls"])
def test_each_order_of_files_and_server(inner, first):
    names = [first, *(name for name in TESTS if name != first)]
    inner.files(
        **{
            f"test_{number:02}_{name}": HEAD
            + dedent(TESTS[name]).replace("test(", f"test_{name}(")
            for number, name in enumerate(names)
        }
    )
    run = inner.run("-p", "pyfakefs.pytest_plugin", "-W", "error")
    assert run.outcomes == {f"test_{name}": "passed" for name in names}


def test_each_way_to_start_beside_files(inner):
    inner.files(
        test_methods=HEAD
        + """
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test(fs, smtptest_factory, method):
    use(smtptest_factory(start_method=method))
    is_faked(fs)
"""
    )
    run = inner.run("-p", "pyfakefs.pytest_plugin", "-W", "error")
    assert list(run.outcomes.values()) == ["passed"] * 3


def test_files_for_the_whole_session(inner):
    inner.files(
        test_whole=HEAD
        + """
def test_with_files(fs_session, smtptest):
    use(smtptest)
    is_faked(fs_session)

def test_that_fails(smtptest):
    send_to(smtptest, "seen")
    assert not smtptest.wait()
"""
    )
    done = inner.run("-p", "pyfakefs.pytest_plugin")
    assert done.outcomes == {"test_with_files": "passed", "test_that_fails": "failed"}
    assert "seen" in done.section("test_that_fails")
