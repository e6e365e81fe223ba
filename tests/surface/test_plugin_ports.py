"""The pytest plugin, where it is told which port to have."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from inner_pytest import TIMEOUT

from lazr_smtptest._launch import listen, resolve

pytestmark = TIMEOUT


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for sock in listen(resolve("localhost", port), port)[0]:
            held.enter_context(sock)
        yield


@pytest.mark.parametrize(
    "order",
    [("test_general.py", "test_special.py"), ("test_special.py", "test_general.py")],
    ids=["general-first", "special-first"],
)
def test_options_overridden_for_a_module_do_not_take_the_workers_port(inner, base_port, order):
    inner.ini(smtptest_port=base_port)
    inner.files(
        test_general=f"def test_general(smtptest): assert smtptest.port == {base_port}",
        test_special="""
            import pytest
            from inner import greeting

            @pytest.fixture(scope="session")
            def smtptest_options(smtptest_options):
                return {**smtptest_options, "hostname": "here.example"}

            def test_special(smtptest):
                assert greeting(smtptest).startswith("here.example ")
            """,
    )
    assert inner.run(*order).outcomes == {"test_general": "passed", "test_special": "passed"}


def test_a_marked_test_has_its_server_on_the_port_that_is_set(inner, base_port):
    inner.ini(smtptest_port=base_port)
    inner.files(
        test_ports=f"""
        import pytest
        from helpers import send_to, subjects
        from inner import greeting, note

        @pytest.fixture(scope="session")
        def app(smtptest_server):
            return smtptest_server.port

        def works(server, hostname, port={base_port}):
            note(pid=server.pid)
            assert server.port == port
            assert greeting(server).startswith(hostname + " ")
            send_to(server, hostname)
            assert subjects(server.messages) == [hostname]

        def test_before(app, smtptest):
            works(smtptest, "localhost", app)

        @pytest.mark.smtptest(hostname="marked.example")
        def test_marked(app, smtptest, smtptest_factory):
            works(smtptest, "marked.example", app)
            assert smtptest_factory().port != {base_port}

        def test_after(app, smtptest):
            works(smtptest, "localhost", app)

        @pytest.mark.smtptest(port={base_port + 3})
        def test_elsewhere(smtptest, smtptest_server):
            works(smtptest, "localhost", {base_port + 3})
            assert smtptest_server.port == {base_port}
            assert greeting(smtptest_server).startswith("localhost ")
        """
    )
    run = inner.run()
    names = ("before", "marked", "after", "elsewhere")
    assert run.outcomes == {f"test_{name}": "passed" for name in names}


FOUR = """
import os

import pytest
from inner import note

@pytest.mark.parametrize("n", range(4))
def test_one(smtptest, n):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    note(pid=smtptest.pid, where=[worker, smtptest.host, smtptest.port])
"""


@pytest.mark.parametrize(
    ("args", "workers"),
    [
        ("-p no:xdist -p no:timeout", 0),
        ("-n 2 --dist load", 2),
        ("--tx 2*popen --dist load", 2),
        ("-n 4 --maxprocesses 2", 2),
    ],
)
def test_the_header_says_who_has_which_port(inner, base_port, args, workers):
    inner.ini(smtptest_host="127.0.0.1", smtptest_port=base_port)
    inner.files(test_four=FOUR)
    run = inner.run(*args.split())
    assert list(run.outcomes.values()) == ["passed"] * 4
    owners = [(f"gw{n}", base_port + n) for n in range(workers)]
    wanted = [f"port {port} for {name}" for name, port in owners] or [f"port {base_port}"]
    assert f"smtptest: 127.0.0.1, {', '.join(wanted)}\n" in run.out
    assert {tuple(where) for where in run.noted("where")} == {
        (name, "127.0.0.1", port) for name, port in owners or [("", base_port)]
    }


@pytest.mark.parametrize("args", ["", "-q", "-n 2"])
def test_a_port_that_is_no_number_is_a_usage_error(inner, args):
    inner.ini(smtptest_port="smtp")
    inner.files(test_four=FOUR)
    run = inner.run(*args.split())
    assert "smtptest_port must be a number, 0 for a free one: " in run.out + run.err
    assert "INTERNALERROR" not in run.out + run.err
    assert run.ret == pytest.ExitCode.USAGE_ERROR


def test_a_port_in_use_is_named_with_its_worker(inner, base_port):
    inner.ini(smtptest_port=base_port)
    inner.files(test_four=FOUR)
    with taken(base_port + 1):
        run = inner.run("-n", "2")
    assert {where[0] for where in run.noted("where")} == {"gw0"}
    errors = [name for name, outcome in run.outcomes.items() if outcome == "error"]
    assert sorted(run.outcomes.values()) == ["error"] * len(errors) + ["passed"] * len(run.notes)
    assert len(errors) + len(run.notes) == 4
    assert errors
    for name in errors:
        assert len(run.told(name).splitlines()) == 1  # and none of our code
        (line,) = re.findall("^OSError: .*", run.failure(name)["text"], re.MULTILINE)
        assert line.count("gw1") == 1
        assert f"cannot listen on 'localhost' port {base_port + 1}: " in line


def test_a_port_in_use_is_named(inner, base_port):
    inner.ini(smtptest_port=base_port)
    inner.files(test_four=FOUR)
    with taken(base_port):
        run = inner.run()
    assert list(run.outcomes.values()) == ["error"] * 4
    line = run.told("test_one[0]")
    assert f"cannot listen on 'localhost' port {base_port}: " in line
    assert "worker" not in line
