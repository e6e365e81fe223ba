"""The pytest plugin: tests that are marked with the same options share a server."""

from __future__ import annotations

import statistics

import pytest
from inner_pytest import TIMEOUT

pytestmark = TIMEOUT

# Options that cannot be hashed, too: each mark has a dict of its own.
SHARED = """
import pytest
from helpers import refused, send_to, subjects
from inner import greeting, note
from lazr_smtptest import TLS, NotRunning

def anybody(mechanism, user, secret):
    return True

ALIKE = [
    {"auth": {"kim": "secret"}, "hide": ["HELP"], "tls": TLS("starttls", required=True)},
    {"auth": {"kim": "secret"}, "hide": ["HELP"], "tls": TLS("starttls", required=True)},
]
SEEN = []

@pytest.mark.parametrize(
    "n", [pytest.param(n, marks=pytest.mark.smtptest(**own)) for n, own in enumerate(ALIKE)]
)
def test_alike(smtptest, n):
    note(pid=smtptest.pid, of="alike", port=smtptest.port)
    assert smtptest.messages == []
    assert smtptest.sessions() == []
    assert smtptest.connections == 0
    smtptest.fault("CONNECT", "421 4.3.2 Not now")
    assert greeting(smtptest) == "4.3.2 Not now"

@pytest.mark.smtptest(auth=anybody)
@pytest.mark.parametrize("n", range(2))
def test_function(smtptest, n):
    note(pid=smtptest.pid, of="function", port=smtptest.port)
    assert subjects(smtptest.messages) == []
    send_to(smtptest, "left")

@pytest.mark.smtptest(auth={"kim": "other"}, hide=["HELP"])
def test_unlike(smtptest):
    note(pid=smtptest.pid, of="unlike", port=smtptest.port)

def test_unmarked(smtptest, smtptest_server):
    assert smtptest is smtptest_server
    note(pid=smtptest.pid, of="unmarked", port=smtptest.port)
    assert smtptest.messages == []
"""


def test_the_same_options_share_a_server(inner):
    inner.files(test_shared=SHARED)
    run = inner.run()
    assert set(run.outcomes.values()) == {"passed"}
    places = {(note["of"], note["pid"], note["port"]) for note in run.notes}
    assert sorted(of for of, _, _ in places) == ["alike", "function", "unlike", "unmarked"]
    assert len({pid for _, pid, _ in places}) == 4


def test_they_share_one_in_each_worker_and_in_any_order(inner):
    inner.files(test_shared=SHARED)
    run = inner.run("-n", "2", "--dist", "each")
    assert set(run.outcomes.values()) == {"passed"}
    assert len({note["pid"] for note in run.notes}) == 2 * 4
    run = inner.run("-p", "randomly", "-p", "no:xdist", "-p", "no:smtpd")
    assert len({note["pid"] for note in run.notes}) == 4


MANY = """
import pytest
from helpers import gone, send_to, until
from inner import note

SERVERS = []

def marked(n):
    return pytest.param(n, marks=pytest.mark.smtptest(ident=f"number {n}"))

@pytest.mark.parametrize("n", map(marked, [0, 1, 2, 3, 0, 4, 0, 5, 1]))
def test_many(smtptest, smtptest_server, n):
    note(pid=smtptest.pid, n=n)
    send_to(smtptest, "left")
    if smtptest not in SERVERS:
        SERVERS.append(smtptest)
    alive = [int(server.server.ident.split()[1]) for server in SERVERS if server.is_running]
    note(alive=sorted(alive))
    assert smtptest_server.is_running
"""


def test_at_most_four_are_kept_and_the_least_recently_used_goes(inner):
    inner.files(test_many=MANY)
    run = inner.run("-p", "no:xdist")
    assert set(run.outcomes.values()) == {"passed"}
    first, *rest = run.noted("alive")
    assert first == [0]
    assert rest == [
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 2, 3, 4],
        [0, 2, 3, 4],
        [0, 3, 4, 5],
        [0, 1, 4, 5],
    ]
    pids: dict[int, set[int]] = {}
    for note in run.notes:
        if "n" in note:
            pids.setdefault(note["n"], set()).add(note["pid"])
    assert {n: len(found) for n, found in pids.items()} == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}


BAD = """
import os
import signal

import pytest
from helpers import send_to, subjects
from inner import greeting, kill, note
from lazr_smtptest import ServerDied

pytestmark = pytest.mark.smtptest(ident="of all these", reset_timeout=0.5)
PIDS = []

def works(server):
    note(pid=server.pid)
    assert server.messages == []
    assert greeting(server) == "localhost of all these"
    PIDS.append(server.pid)
    send_to(server, "it works")
    assert subjects(server.messages) == ["it works"]

def test_dead(smtptest):
    send_to(smtptest, "left by one that died")
    kill(smtptest)

def test_after_dead(smtptest):
    works(smtptest)

def test_stopped(smtptest):
    send_to(smtptest, "left by one that was stopped")
    smtptest.stop()

def test_after_stopped(smtptest):
    works(smtptest)
    assert PIDS[-1] != PIDS[-2]

def test_stuck(smtptest):
    send_to(smtptest, "left by one that is stuck")
    kill(smtptest, signal.SIGSTOP)

def test_after_stuck(smtptest):
    works(smtptest)
    assert PIDS[-1] != PIDS[-2]

def test_other_options(smtptest):
    smtptest.restart(ident="of this test")
    note(pid=smtptest.pid)
    assert greeting(smtptest) == "localhost of this test"

def test_after_other_options(smtptest):
    works(smtptest)

def test_and_again(smtptest):
    works(smtptest)
    assert PIDS[-1] == PIDS[-2]
"""


def test_whatever_a_test_leaves_the_next_one_has_a_server_as_new(inner):
    inner.files(test_bad=BAD)
    run = inner.run("-p", "no:xdist")
    assert set(run.outcomes.values()) == {"passed"}
    assert len(run.outcomes) == 9


CHANGED = """
import smtplib

import pytest

USERS, HIDDEN = {"kim": "s3cret"}, ["DSN"]

def extensions(server):
    with smtplib.SMTP(server.host, server.port) as client:
        client.ehlo()
        return client.esmtp_features.keys()

@pytest.mark.smtptest(auth=USERS, hide=HIDDEN)
def test_before(smtptest):
    assert "size" in extensions(smtptest)
    USERS["lee"] = "pa55"
    HIDDEN.append("SIZE")

@pytest.mark.smtptest(auth=USERS, hide=HIDDEN)
def test_after(smtptest):
    assert "size" not in extensions(smtptest)
    with smtplib.SMTP(smtptest.host, smtptest.port) as client:
        client.login("lee", "pa55")
"""


def test_options_that_a_test_has_changed_are_others(inner):
    inner.files(test_changed=CHANGED)
    assert set(inner.run().outcomes.values()) == {"passed"}


RAISING = """
import smtplib

import pytest

def decide(mechanism, user, secret):
    raise LookupError(f"nobody is {user}")

def log_in(server):
    with smtplib.SMTP(server.host, server.port) as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPAuthenticationError, match="451"):
                client.login("kim", "s3cret")

@pytest.mark.smtptest(auth=decide)
def test_raising(smtptest):
    log_in(smtptest)

@pytest.mark.smtptest(auth=decide)
def test_alike(smtptest):
    assert smtptest.messages == []

@pytest.mark.smtptest(auth=decide)
def test_raising_again(smtptest):
    log_in(smtptest)

@pytest.mark.parametrize(
    "n", [pytest.param(n, marks=pytest.mark.smtptest(recipient_limit=n)) for n in range(1, 6)])
def test_others(smtptest, n):
    assert smtptest.messages == []
"""


def test_what_a_servers_code_raises_is_an_error_of_the_test_that_had_it_run(inner):
    inner.files(test_raising=RAISING)
    run = inner.run("-p", "no:xdist")
    assert {name for name, outcome in run.outcomes.items() if outcome != "passed"} == {
        "test_raising",
        "test_raising_again",
    }, run.out
    assert run.out.count("ERROR at teardown of test_raising") == 2
    assert "HandlerError: QueueServer.auth raised LookupError: nobody is kim" in run.out


@pytest.mark.parametrize("options", [None, ["tls"], [("tls", "starttls")], "tls"])
def test_options_that_are_no_dict(inner, options):
    inner.files(
        conftest=f"""
        import pytest

        @pytest.fixture(scope="session")
        def smtptest_options():
            return {options!r}
        """,
        test_wrong="""
        import pytest

        def test_plain(smtptest): pass

        @pytest.mark.smtptest(tls="starttls")
        def test_marked(smtptest): pass

        def test_of_the_session(smtptest_server): pass

        def test_another(smtptest_factory): smtptest_factory()
        """,
    )
    run = inner.run("-p", "no:xdist")
    assert "passed" not in run.outcomes.values()
    assert run.out.count(f"\nsmtptest_options must be a dict of options, not {options!r}\n") == 4
    assert "_fixtures.py" not in run.out


PORTS = """
import pytest
from helpers import refused
from inner import note
from lazr_smtptest import QueueController

PORT = {port}

@pytest.mark.smtptest(port=PORT)
@pytest.mark.parametrize("n", range(2))
def test_marked(smtptest, n):
    note(pid=smtptest.pid)
    assert smtptest.port == PORT

def test_between(smtptest_factory):
    assert refused(PORT)
    assert smtptest_factory(port=PORT).port == PORT

@pytest.mark.smtptest(port=PORT, ident="another")
def test_another(smtptest):
    note(pid=smtptest.pid)
    assert smtptest.port == PORT

def test_own_server():
    with QueueController(port=PORT) as controller:
        assert controller.port == PORT
"""


def test_a_port_that_was_asked_for_is_free_when_the_test_is_over(inner, base_port):
    inner.files(test_ports=PORTS.format(port=base_port))
    run = inner.run("-p", "no:xdist")
    assert set(run.outcomes.values()) == {"passed"}
    assert len(set(run.noted("pid"))) == 3


OVERRIDDEN = """
import pytest
from inner import greeting, note

@pytest.fixture(scope="module")
def smtptest_options(smtptest_options):
    return {**smtptest_options, "hostname": "module.example"}

@pytest.mark.parametrize("n", range(2))
@pytest.mark.smtptest(ident="marked")
def test_marked(smtptest, n):
    note(pid=smtptest.pid, of="module")
    assert greeting(smtptest) == "module.example marked"

def test_unmarked(smtptest):
    assert greeting(smtptest).startswith("module.example ESMTP")

class TestClass:
    @pytest.fixture(scope="class")
    def smtptest_options(self, smtptest_options):
        return {**smtptest_options, "hostname": "class.example"}

    @pytest.mark.parametrize("n", range(2))
    @pytest.mark.smtptest(ident="marked")
    def test_marked_there(self, smtptest, n):
        note(pid=smtptest.pid, of="class")
        assert greeting(smtptest) == "class.example marked"

    @pytest.mark.smtptest(hostname="mark.example")
    def test_the_mark_is_nearer(self, smtptest):
        assert greeting(smtptest).startswith("mark.example ESMTP")
"""


def test_options_may_be_overridden_beneath_marks(inner):
    inner.files(test_overridden=OVERRIDDEN)
    run = inner.run("-p", "no:xdist")
    assert set(run.outcomes.values()) == {"passed"}
    pids = {of: {n["pid"] for n in run.notes if n["of"] == of} for of in ("module", "class")}
    assert [len(found) for found in pids.values()] == [1, 1]


TIMED = """
import time

import pytest
from helpers import send_to
from inner import note

@pytest.fixture(autouse=True, params=[*range(100)])
def n(request):
    return request.param

def test_unmarked(smtptest, n):
    send_to(smtptest, "one")
    assert smtptest.wait()["subject"] == "one"

@pytest.mark.smtptest(data_size_limit=1000, auth={"kim": "secret"})
def test_marked(smtptest, n):
    send_to(smtptest, "one")
    assert smtptest.wait()["subject"] == "one"
"""

CLOCK = """
import time

import pytest
from inner import note

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    started = time.perf_counter()
    done = yield
    note(of=item.originalname, seconds=time.perf_counter() - started)
    return done

def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.callspec.params["n"])
"""


def test_a_marked_test_costs_about_what_another_does(inner):
    """The benchmarks have the figure; here a machine may be busy."""
    inner.files(test_timed=TIMED, conftest=CLOCK)
    run = inner.run("-p", "no:xdist")
    assert set(run.outcomes.values()) == {"passed"}
    cost = {
        name: statistics.median(n["seconds"] for n in run.notes if n["of"] == f"test_{name}")
        for name in ("unmarked", "marked")
    }
    assert cost["marked"] < 1.5 * cost["unmarked"]
