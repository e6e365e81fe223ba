"""The pytest plugin: its fixtures, their options, its marker; and that it costs nothing."""

from __future__ import annotations

import re

import pytest
from inner_pytest import TIMEOUT

pytestmark = TIMEOUT

BASICS = """
import pytest
from helpers import refused, send_to, subjects
from inner import greeting, note
from lazr_smtptest import QueueController

MORE = []

@pytest.fixture(scope="session")
def app(smtptest_server):
    send_to(smtptest_server, "from a fixture")
    return smtptest_server.host, smtptest_server.port

def test_first(app, smtptest):
    assert type(smtptest) is QueueController
    assert smtptest.is_running
    assert (smtptest.host, smtptest.port) == app
    assert smtptest.messages == []
    note(pid=smtptest.pid)
    send_to(smtptest, "one", "two", "three")
    assert subjects(smtptest.messages) == ["one", "two", "three"]
    assert smtptest.wait(subject="two")["subject"] == "two"
    assert smtptest.queue.get_nowait()["subject"] == "one"

def test_second(smtptest, app):
    note(pid=smtptest.pid)
    assert (smtptest.host, smtptest.port) == app
    assert smtptest.queue.qsize() == 0
    assert smtptest.messages == []
    smtptest.expect_none(0)
    send_to(smtptest, "four", "five", "six")
    assert subjects(smtptest.wait_many(2)) == ["four", "five"]
    assert subjects(smtptest) == ["six"]

def test_more(smtptest, smtptest_factory):
    one = smtptest_factory(hostname="one.example", data_size_limit=1000)
    two = smtptest_factory()
    MORE.extend([one, two])
    note(pid=one.pid), note(pid=two.pid)
    assert len({one.port, two.port, smtptest.port}) == 3
    assert greeting(one).startswith("one.example ")
    assert greeting(two).startswith("localhost ")
    send_to(one, "for one")
    send_to(two, "for two")
    assert subjects(one.messages) == ["for one"]
    assert subjects(two.messages) == ["for two"]
    assert smtptest.messages == []

def test_more_is_stopped():
    assert len(MORE) == 2
    assert all(refused(server.port) and not server.is_running for server in MORE)

def test_more_fails(smtptest_factory):
    MORE[:] = [smtptest_factory()]
    note(pid=MORE[0].pid)
    assert 0, "on purpose"

def test_more_is_stopped_after_a_failure():
    assert len(MORE) == 1
    assert refused(MORE[0].port)
"""


def test_a_server_for_all_tests_and_more_for_one(inner):
    inner.files(test_basics=BASICS)
    run = inner.run()
    assert run.outcomes == {
        "test_first": "passed",
        "test_second": "passed",
        "test_more": "passed",
        "test_more_is_stopped": "passed",
        "test_more_fails": "failed",
        "test_more_is_stopped_after_a_failure": "passed",
    }
    first, second, *more = run.noted("pid")
    assert first == second
    assert len({first, *more}) == 4
    assert "smtptest: " not in run.out  # there is no header without a port


OPTIONS = {
    "conftest": """
        import pytest

        @pytest.fixture(scope="session")
        def smtptest_options(smtptest_options):
            return {**smtptest_options, "hostname": "all.example", "start_method": "spawn"}

        @pytest.fixture(scope="session")
        def app(smtptest_server):
            return smtptest_server.host, smtptest_server.port
        """,
    "test_all": """
        from pathlib import Path

        import pytest
        from inner import greeting, note

        @pytest.mark.parametrize("n", [0, 1])
        def test_all(smtptest, smtptest_factory, n):
            note(pid=smtptest.pid, of="all")
            assert greeting(smtptest).startswith("all.example ")
            assert "spawn" in Path(f"/proc/{smtptest.pid}/cmdline").read_text()
            if n:
                assert greeting(smtptest_factory(ident="x")) == "all.example x"

        def test_all_with_an_app(app, smtptest):
            assert app == (smtptest.host, smtptest.port)
        """,
    "test_here": """
        import pytest
        from helpers import send_to, subjects
        from inner import greeting, note

        @pytest.fixture(scope="session")
        def smtptest_options(smtptest_options):
            return {**smtptest_options, "hostname": "here.example", "start_method": "fork"}

        @pytest.mark.parametrize("n", [0, 1])
        def test_here(smtptest, n):
            note(pid=smtptest.pid)
            assert greeting(smtptest).startswith("here.example ")
            send_to(smtptest, n)
            assert subjects(smtptest.messages) == [str(n)]
        """,
}


@pytest.mark.parametrize(
    "order",
    [("test_all.py", "test_here.py"), ("test_here.py", "test_all.py")],
    ids=["general-first", "special-first"],
)
def test_options_may_be_overridden_for_all_and_for_a_module(inner, order):
    inner.files(**OPTIONS)
    run = inner.run(*order)
    assert run.outcomes == dict.fromkeys(
        ["test_all[0]", "test_all[1]", "test_all_with_an_app", "test_here[0]", "test_here[1]"],
        "passed",
    )
    assert len({note["pid"] for note in run.notes if note.get("of") == "all"}) == 1


MARKED = """
import pytest
from helpers import send_to, subjects
from inner import greeting, note

pytestmark = pytest.mark.smtptest(hostname="module.example", ident="of the module")

@pytest.fixture(autouse=True)
def own(smtptest, smtptest_server):
    note(pid=smtptest.pid)
    assert smtptest.pid != smtptest_server.pid
    assert smtptest.port != smtptest_server.port
    assert smtptest.messages == []
    send_to(smtptest, "mine")
    assert subjects(smtptest.messages) == ["mine"]
    assert smtptest_server.messages == []

def test_module(smtptest):
    assert greeting(smtptest) == "module.example of the module"

@pytest.mark.smtptest
def test_without_options(smtptest):
    assert greeting(smtptest) == "module.example of the module"

@pytest.mark.smtptest(hostname="function.example")
def test_function(smtptest):
    assert greeting(smtptest) == "function.example of the module"

@pytest.mark.smtptest(hostname="class.example")
class TestClass:
    def test_class(self, smtptest):
        assert greeting(smtptest) == "class.example of the module"

    @pytest.mark.smtptest(ident="of the method")
    def test_method(self, smtptest):
        assert greeting(smtptest) == "class.example of the method"
"""

MISMARKED = """
import pytest
from inner import note

@pytest.mark.smtptest
def test_plain(smtptest, smtptest_server):
    note(pid=smtptest.pid)
    assert smtptest.pid != smtptest_server.pid

@pytest.mark.smtptest("one.example")
def test_positional(smtptest):
    pass

@pytest.mark.smtptest(hostnam="one.example", ident="x")
def test_unknown(smtptest):
    pass

def test_unknown_to_the_factory(smtptest_factory):
    with pytest.raises(TypeError, match="has no option 'hostnam'; it has host, port, "):
        smtptest_factory(hostnam="one.example")

@pytest.mark.smtptest(port=70000)
def test_wrong_value(smtptest):
    pass
"""


def test_marked_tests_have_servers_with_their_options(inner):
    inner.files(test_marked=MARKED, test_mismarked=MISMARKED)
    run = inner.run("--strict-markers", "--strict-config", "-p", "no:xdist")
    good = ["module", "without_options", "function", "class", "method", "plain"]
    bad = ["positional", "unknown", "wrong_value"]
    assert run.outcomes == {
        **{f"test_{name}": "passed" for name in good},
        **{f"test_{name}": "error" for name in bad},
        "test_unknown_to_the_factory": "passed",
    }
    pids = dict(zip(good, run.noted("pid"), strict=True))
    assert pids["module"] == pids["without_options"]
    assert len(set(pids.values())) == len(good) - 1
    told = {name: run.told(f"test_{name}") for name in bad}
    assert told["positional"].startswith("@pytest.mark.smtptest takes keyword arguments only")
    assert told["unknown"].startswith("smtptest has no option 'hostnam'; it has ")
    for known in ("host", "port", "hostname", "ident", "data_size_limit", "start_method"):
        assert re.search(rf"it has .*\b{known}\b", told["unknown"])
    assert told["wrong_value"] == "port must be from 0 to 65535, not 70000\n"
    assert "lazr_smtptest" not in "".join(told.values())  # none of our code


def test_the_marker_is_registered(inner):
    assert "@pytest.mark.smtptest(**options): " in inner.run("--markers").out


UNUSED = """
import os
import sys
import threading
from pathlib import Path

from inner import note

def children():
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            yield stat.parent.name

def test_unused():
    note(modules=sorted(sys.modules), children=[*children()], threads=threading.active_count())
"""


def test_it_costs_nothing_until_it_is_used(inner):
    inner.files(test_unused=UNUSED, test_used="def test_used(smtptest): pass")
    with_it = inner.run("test_unused.py")
    without = inner.run("-p", "no:smtptest")
    assert with_it.outcomes == {"test_unused": "passed"}
    # pytest itself names each distribution that has a plugin.
    out = re.sub("^plugins: .*\n", "", with_it.out, flags=re.MULTILINE)
    assert "smtptest" not in out + with_it.err

    assert without.outcomes == {"test_unused": "passed", "test_used": "error"}
    assert "fixture 'smtptest' not found" in without.told("test_used")
    (note,), (bare,) = with_it.notes, without.notes
    assert not [name for name in bare["modules"] if name.startswith("lazr_smtptest")]
    assert set(note["modules"]) - set(bare["modules"]) == {
        "lazr_smtptest",
        "lazr_smtptest._fakes",
        "lazr_smtptest._greenlets",
        "lazr_smtptest._interrupt",
        "lazr_smtptest._version",
        "lazr_smtptest.pytest_plugin",
    }
    assert not [name for name in note["modules"] if name.startswith("aiosmtpd")]
    assert note["children"] == []
    assert note["threads"] == bare["threads"]
