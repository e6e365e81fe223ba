"""The pytest plugin, with servers on UNIX sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inner_pytest import TIMEOUT
from unix_sockets import short_folder

pytestmark = TIMEOUT


@pytest.fixture
def folder() -> Iterator[str]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def conftest(inner, folder: str) -> None:
    inner.files(
        conftest=f"""
        import tempfile
        import pytest

        @pytest.fixture(scope="session")
        def smtptest_options():
            folder = tempfile.mkdtemp(dir={folder!r})  # as tmp_path_factory, and shorter
            return {{"unix_socket": f"{{folder}}/smtp"}}
        """
    )


TESTS = """
    import os
    import pytest
    from helpers import subjects
    from inner import note
    from unix_sockets import send_to_path

    @pytest.mark.parametrize("number", range(6))
    def test_it(smtptest, number):
        assert not smtptest.messages
        send_to_path(smtptest.unix_socket, number)
        assert subjects(smtptest) == [str(number)]
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        note(where=[worker, smtptest.unix_socket])
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_each_worker_has_a_path(inner, conftest, workers):
    inner.files(test_paths=TESTS)
    run = inner.run(*(["-n", str(workers)] if workers else []))
    assert list(run.outcomes.values()) == ["passed"] * 6
    places = {tuple(where) for where in run.noted("where")}
    assert len(places) == len({path for _, path in places}) == max(workers, 1)


def test_one_path_for_two_workers_is_an_error(inner, folder):
    inner.files(
        conftest=f"""
        import pytest

        @pytest.fixture(scope="session")
        def smtptest_options():
            return {{"unix_socket": "{folder}/smtp"}}
        """,
        test_paths=TESTS,
    )
    run = inner.run("-n", "2", "--dist", "each")
    assert "failed" in run.out or "error" in run.out
    assert "pytest-xdist's worker gw" in run.out
    assert f"cannot listen on {folder}/smtp: Address already in use; somebody lis" in run.out


def test_a_marked_test_has_its_own_beside_the_shared_one(inner, folder, base_port):
    inner.ini(smtptest_port=base_port)
    inner.files(
        test_marked=f"""
        import pytest
        from helpers import send_to, subjects
        from unix_sockets import send_to_path

        @pytest.mark.smtptest(unix_socket="{folder}/smtp")
        def test_marked(smtptest, smtptest_server):
            assert smtptest_server.port == {base_port}
            send_to(smtptest_server, "there")
            send_to_path("{folder}/smtp", "here")
            assert subjects(smtptest) == ["here"]
            assert subjects(smtptest_server) == ["there"]

        def test_not_marked(smtptest):
            assert (smtptest.port, smtptest.unix_socket) == ({base_port}, None)
        """
    )
    assert set(inner.run().outcomes.values()) == {"passed"}


def test_where_the_shared_one_is_on_a_path(inner, conftest):
    """A marked one takes its place, or gets a port; one that is made is on a free port."""
    inner.files(
        test_shared="""
        import pytest
        from helpers import send_to, subjects
        from unix_sockets import send_to_path

        @pytest.fixture(scope="session")
        def path(smtptest_server):
            return smtptest_server.unix_socket

        def test_shared(path, smtptest):
            send_to_path(path, "one")
            assert subjects(smtptest) == ["one"]

        @pytest.mark.smtptest(ident="other")
        def test_in_its_place(path, smtptest_server, smtptest):
            assert not smtptest_server.is_running
            assert smtptest.unix_socket == path
            send_to_path(path, "two")
            assert subjects(smtptest) == ["two"]

        @pytest.mark.smtptest(port=0)
        def test_on_a_port(path, smtptest_server, smtptest):
            assert smtptest_server.is_running
            assert smtptest.port
            assert smtptest.unix_socket is None

        def test_made(path, smtptest_factory, tmp_path):
            made = smtptest_factory()
            assert made.port
            send_to(made, "three")
            other = smtptest_factory(unix_socket=f"{path}2")
            send_to_path(f"{path}2", "four")
            assert subjects(made) + subjects(other) == ["three", "four"]

        def test_restarted(path, smtptest):
            smtptest.restart(unix_socket=f"{path}3")
            send_to_path(f"{path}3", "five")

        def test_where_it_was(path, smtptest):
            assert smtptest.unix_socket == path
            send_to_path(path, "six")
            assert subjects(smtptest) == ["six"]
        """
    )
    assert set(inner.run("-p", "no:randomly").outcomes.values()) == {"passed"}


def test_reports_say_where(inner, folder):
    inner.ini(smtptest_strict="true")
    inner.files(
        test_reports=f"""
        import pytest
        from unix_sockets import send_to_path

        pytestmark = pytest.mark.smtptest(unix_socket="{folder}/smtp")

        def test_fails(smtptest):
            send_to_path("{folder}/smtp", "one")
            assert False

        def test_unread(smtptest):
            send_to_path("{folder}/smtp", "one")
        """
    )
    run = inner.run()
    report = run.section("test_fails")
    assert f"<QueueController on {folder}/smtp, pid " in report
    assert "\n- a client, which calls itself 'client.example': QUIT\n" in report
    assert f"the test left mail unread, on {folder}/smtp: take it" in run.out
