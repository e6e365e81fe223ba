"""The pytest plugin, in runs of pytest of their own, with the plugins that it may meet."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import gone, until
from paths import SUPPORT

from lazr_smtptest._listen import listen

# Runs of pytest with several processes each: a busy machine takes its time.
pytestmark = pytest.mark.timeout(90)

#: Seconds that an inner run may take.
LIMIT = 80

#: Left alone by default: the first would shuffle, and to import the others takes
#: longer than most of these tests.
USUALLY_OFF = tuple(
    word
    for name in ("randomly", "anyio", "asyncio", "hypothesispytest", "localserver", "smtpd")
    for word in ("-p", f"no:{name}")
)

#: What the inner tests have, and the plugin that tells how they went.
INNER = """
import json
import os
import signal
import smtplib
from pathlib import Path

import pytest

def _append(name, facts):
    with open(Path(__file__).with_name(name), "a") as file:
        file.write(json.dumps(facts) + "\\n")

def note(**facts):
    _append("notes", facts)

def greeting(server):
    with smtplib.SMTP() as client:
        return client.connect(server.host, server.port)[1].decode()

def kill(server, number=signal.SIGKILL):
    from helpers import gone, until

    pid = server.pid
    note(pid=pid)
    os.kill(pid, number)
    if number == signal.SIGKILL:
        until(lambda: gone(pid))

@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    value = yield
    if fixturedef.argname in ("smtptest", "smtptest_server"):
        _append("servers", {"pid": value.pid})
    return value

def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        _append("reports", {
            "name": report.nodeid.rpartition("::")[2],
            "when": report.when,
            "outcome": outcome,
            "text": report.longreprtext,
            "sections": dict(report.sections),
        })
"""


class Run:
    """What an inner run did and said."""

    def __init__(self, result: pytest.RunResult, folder: Path) -> None:
        self.ret = result.ret
        # Not the lines that pytester gives: it splits them at control characters.
        self.out = (folder / "stdout").read_bytes().decode()
        self.err = (folder / "stderr").read_bytes().decode()
        self.notes = _read(folder / "notes")
        self.reports = _read(folder / "reports")

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each test."""
        outcomes: dict[str, str] = {}
        for report in self.reports:
            name, outcome = report["name"], report["outcome"]
            if outcome == "failed" and report["when"] in ("setup", "teardown"):
                outcomes[name] = "error"
            elif report["when"] != "teardown" or name not in outcomes:
                outcomes[name] = outcome
        return outcomes

    def noted(self, key: str) -> list:
        return [note[key] for note in self.notes if key in note]

    def failure(self, name: str) -> dict:
        """Give the last report that says that a test failed."""
        return [r for r in self.reports if r["name"] == name and r["outcome"] == "failed"][-1]

    def section(self, name: str) -> str:
        return self.failure(name)["sections"]["SMTP messages"]

    def told(self, name: str) -> str:
        """Give what the terminal says of a failure, without its heading."""
        found = re.search(
            rf"^_+ (?:ERROR at \w+ of )?(?:\[doctest\] )?{re.escape(name)} _+\n"
            r"(?:\[gw\d\] [^\n]*\n)?(.*?)(?=^_{3,} .* _{3,}$|^={3,} )",
            self.out,
            re.MULTILINE | re.DOTALL,
        )
        assert found, f"nothing is said of {name}"
        return found[1]


def _read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Inner:
    """Runs pytest on some files, with the plugins that are installed."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.ini()
        self.files(inner=INNER)

    def ini(self, **options: object) -> None:
        self._pytester.makeini(
            "[pytest]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
        )

    def files(self, **sources: str) -> None:
        self._pytester.makepyfile(**sources)

    def text(self, **sources: str) -> None:
        self._pytester.maketxtfile(**sources)

    def run(self, *args: str, off: tuple[str, ...] = USUALLY_OFF) -> Run:
        """Run it; whatever happens, no server process is left."""
        folder = self._pytester.path
        for left in ("notes", "reports", "servers"):
            (folder / left).unlink(missing_ok=True)
        result = self._pytester.runpytest_subprocess("-p", "inner", *off, *args, timeout=LIMIT)
        run = Run(result, folder)
        pids = {*run.noted("pid"), *(server["pid"] for server in _read(folder / "servers"))}
        until(lambda: all(map(gone, pids)))
        return run


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
    for name in list(os.environ):
        if name == "CI" or (name.startswith("PYTEST_") and name != "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    return Inner(pytester)


def is_free(port: int) -> bool:
    try:
        sockets = listen("localhost", port)
    except OSError:
        return False
    for sock in sockets:
        sock.close()
    return True


@pytest.fixture
def base_port() -> Iterator[int]:
    """Give the first of six ports that nobody takes meanwhile.

    They are below those that the system hands out, and each six has a seventh:
    who listens there may use them.
    """
    for seventh in random.sample(range(15_000, 30_000, 7), 100):
        with contextlib.ExitStack() as held:
            try:
                sockets = listen("localhost", seventh)
            except OSError:
                continue
            for sock in sockets:
                held.enter_context(sock)
            if all(is_free(seventh + n) for n in range(1, 7)):
                yield seventh + 1
                return
    raise AssertionError("no ports are free")


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for sock in listen("localhost", port):
            held.enter_context(sock)
        yield


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


MARKED = """
import pytest
from helpers import refused, send_to, subjects
from inner import greeting, note

pytestmark = pytest.mark.smtptest(hostname="module.example", ident="of the module")
EARLIER = []

@pytest.fixture(autouse=True)
def own(smtptest, smtptest_server):
    assert all(server.pid is None and refused(server.port) for server in EARLIER)
    EARLIER.append(smtptest)
    note(pid=smtptest.pid)
    assert smtptest.pid != smtptest_server.pid
    assert smtptest.port != smtptest_server.port
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


def test_marked_tests_have_servers_of_their_own(inner):
    inner.files(test_marked=MARKED, test_mismarked=MISMARKED)
    run = inner.run("--strict-markers", "--strict-config")
    good = ["module", "without_options", "function", "class", "method", "plain"]
    bad = ["positional", "unknown", "wrong_value"]
    assert run.outcomes == {
        **{f"test_{name}": "passed" for name in good},
        **{f"test_{name}": "error" for name in bad},
        "test_unknown_to_the_factory": "passed",
    }
    assert len(set(run.noted("pid"))) == len(good)
    assert "TypeError: @pytest.mark.smtptest takes keyword arguments only" in run.told(
        "test_positional"
    )
    unknown = run.told("test_unknown")
    assert "TypeError: smtptest has no option 'hostnam'; it has " in unknown
    for known in ("host", "port", "hostname", "ident", "data_size_limit", "start_method"):
        assert re.search(rf"it has .*\b{known}\b", unknown)
    assert "port must be from 0 to 65535, not 70000" in run.told("test_wrong_value")


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


def test_the_marker_is_registered(inner):
    assert "@pytest.mark.smtptest(**options): " in inner.run("--markers").out


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
        line = re.findall("^E .*", run.failure(name)["text"], re.MULTILINE)[-1]
        assert re.search(r"\bOSError\b", line)
        assert line.count("gw1") == 1
        assert f"cannot listen on 'localhost' port {base_port + 1}: " in line


def test_a_port_in_use_is_named(inner, base_port):
    inner.ini(smtptest_port=base_port)
    inner.files(test_four=FOUR)
    with taken(base_port):
        run = inner.run()
    assert list(run.outcomes.values()) == ["error"] * 4
    line = re.findall("^E .*", run.told("test_one[0]"), re.MULTILINE)[-1]
    assert f"cannot listen on 'localhost' port {base_port}: " in line
    assert "worker" not in line


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
        "- from <kim@example.com> to <lee@example.com>, subject 'for now'\n  | Hello.\n"
    )
    left, _, sessions = left.partition("\n2 sessions, of which the last:\n")
    assert sessions.count(" C data\n") == 3
    assert sessions.count(": QUIT\n") == 2
    assert left == (
        "- from <kim@example.com> to <lee@example.com>, <max@example.com>, subject 'Invoice 7'\n"
        "  | Line 1\n  | Line 2\n  | Line 3\n  | Line 4\n  | Line 5\n  | ...\n"
        "  attached: 'invoice.pdf' (application/pdf, 321 bytes)\n"
        "- from <kim@example.com> to <lee@example.com>, subject 'for later'\n  | Hello."
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
        """,
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
    assert run.outcomes == {
        "test_before": "passed",
        "test_slow": "failed",
        "test_after": "passed",
    }
    assert "Timeout (>0.5s) from pytest-timeout" in run.told("test_slow")
    assert "No message has arrived." in run.section("test_slow")


def test_no_server_is_left_when_a_timeout_ends_the_run(inner):
    inner.files(test_timed=TIMED)
    run = inner.run("--timeout-method=thread")
    assert run.ret == 1
    assert len(run.noted("pid")) == 2
    assert re.search(r"\++ Timeout \++", run.out + run.err)
    assert "test_after" not in run.outcomes


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
        """,
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
    run = inner.run("-W", "error", off=("-p", "no:randomly"))
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
        "lazr_smtptest._version",
        "lazr_smtptest.pytest_plugin",
    }
    assert not [name for name in note["modules"] if name.startswith("aiosmtpd")]
    assert note["children"] == []
    assert note["threads"] == bare["threads"]


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
