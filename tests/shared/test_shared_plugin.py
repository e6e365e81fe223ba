"""The pytest plugin where one server is shared by all tests of a run."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import gone, state, until
from inner_pytest import TIMEOUT, USUALLY_OFF, Inner
from unix_sockets import short_folder

pytestmark = TIMEOUT

#: Without pytest-xdist, which is another way than with no workers, and with it.
ALONE, WORKERS = ("-p", "no:xdist"), ("-n", "2")
EACH_WAY = pytest.mark.parametrize("way", [ALONE, WORKERS], ids=["alone", "workers"])

HEADER = re.compile(r"^smtptest: one server for all tests, on localhost port (\d+)$", re.MULTILINE)

HEAD = """
import os
import signal
import smtplib
import pytest
from helpers import connected, gone, send_for, subjects, until
from inner import greeting, kill, note
from lazr_smtptest import HandlerError, LeaseError, ServerDied
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the inner run makes its folder; in the end, there is none."""
    with short_folder() as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield Path(folder)
        until(lambda: not list(Path(folder).glob("lazr-smtptest-*")))


@pytest.fixture
def shared(inner: Inner, temporary: Path) -> Inner:
    inner.ini(smtptest_shared="localhost:0")
    return inner


def write(inner: Inner, body: str, **files: str) -> None:
    inner.files(test_it=HEAD + body, **files)


def closing(run) -> str:
    """Return what the end of the run says of the server."""
    found = re.search(r"^=+ SMTP server of the run =+\n(.*?)^=", run.out, re.M | re.S)
    return found[1] if found else ""


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_header_where_all_interfaces_are_meant(inner: Inner, host: str):
    """A container must reach it: the header has to say that it can."""
    inner.ini(smtptest_shared=f"{host}:0")
    inner.files(test_it="def test_host(smtptest):\n    assert smtptest.host\n")
    run = inner.run(*ALONE)
    assert re.search(
        r"^smtptest: one server for all tests, on every address of this machine, "
        r"such as (localhost|127\.0\.0\.1) port \d+$",
        run.out,
        re.MULTILINE,
    ), run.out


OWN_MAIL = """
@pytest.mark.parametrize("n", range(8))
def test_own(smtptest, n):
    note(pid=smtptest.pid, port=smtptest.port, worker=os.environ.get("PYTEST_XDIST_WORKER"))
    kim = smtptest.address("kim")
    note(address=kim)
    send_for(smtptest, n, [kim])
    assert subjects(smtptest.messages) == [str(n)]
    assert smtptest.wait(rcpt=kim)["subject"] == str(n)
    assert len(smtptest.sessions()) == smtptest.connections == 1
    send_for(smtptest, "left", [kim])
"""


@EACH_WAY
def test_one_server_is_for_all_tests(shared, way):
    write(shared, OWN_MAIL)
    run = shared.run(*way)
    assert list(run.outcomes.values()) == ["passed"] * 8, run.out
    assert len(set(run.noted("pid"))) == 1
    assert [int(port) for port in HEADER.findall(run.out)] == [*set(run.noted("port"))]
    assert len(set(run.noted("worker"))) == (2 if way == WORKERS else 1)
    addresses = run.noted("address")
    assert len(set(addresses)) == 8
    assert all(re.fullmatch(r"kim@t\d+-[0-9a-f]{6}\.example\.test", one) for one in addresses)
    assert closing(run) == ""


def test_where_it_listens_can_be_said_on_the_command_line(inner, temporary, base_port):
    write(inner, OWN_MAIL)
    inner.ini(smtptest_shared=f"localhost:{base_port}")
    assert set(inner.run(*WORKERS).noted("port")) == {base_port}
    run = inner.run(f"--smtptest-shared=localhost:{base_port + 1}", *WORKERS)
    assert set(run.noted("port")) == {base_port + 1}
    assert HEADER.findall(run.out) == [str(base_port + 1)]


def test_how_addresses_are_made(shared):
    shared.ini(smtptest_shared="localhost:0", smtptest_address="{name}+{lease}@example.com")
    write(shared, OWN_MAIL)
    run = shared.run(*WORKERS)
    assert set(run.outcomes.values()) == {"passed"}
    assert all(re.fullmatch(r"kim\+t\d+-.{6}@example\.com", one) for one in run.noted("address"))


OPTIONS = """
def pytest_smtptest_shared_options(config):
    assert config.getini("smtptest_shared") == "localhost:0"
    return {"ident": "of conftest.py", "template": "{lease}.{name}@example.net"}
"""


def test_its_options_are_conftest_s(shared):
    shared.ini(smtptest_shared="localhost:0", smtptest_address="{name}+{lease}@example.com")
    write(
        shared,
        """
@pytest.mark.parametrize("n", range(3))
def test_options(smtptest, n):
    assert greeting(smtptest) == "localhost of conftest.py"
    assert smtptest.address("kim").endswith(".kim@example.net")
""",
        conftest=OPTIONS,
    )
    assert set(shared.run(*WORKERS).outcomes.values()) == {"passed"}


def test_faults_of_one_may_strike_all_if_the_owner_says_so(shared):
    write(
        shared,
        """
def test_fault(smtptest):
    smtptest.fault("CONNECT", "421 4.3.2 Not now")
    assert greeting(smtptest) == "4.3.2 Not now"
""",
    )
    run = shared.run(*WORKERS)
    assert run.outcomes == {"test_fault": "failed"}
    assert "could affect other leases' mail" in run.told("test_fault")
    shared.ini(smtptest_shared="localhost:0", smtptest_shared_faults="all")
    assert shared.run(*WORKERS).outcomes == {"test_fault": "passed"}


# Wrong values.


def check_usage(inner: Inner, error: str, *args: str) -> None:
    """Check that a run does not begin, and says why on one line."""
    run = inner.run(*args)
    assert run.ret == pytest.ExitCode.USAGE_ERROR, run.out
    assert [line for line in run.err.splitlines() if line] == [f"ERROR: {error}"]
    assert run.reports == []
    assert "Traceback" not in run.out


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        (
            "shared",
            where,
            "smtptest_shared must be HOST:PORT, such as localhost:2525, with port 0 for a free "
            f"one, not {where}",
        )
        for where in ("2525", "localhost:", "h:65536", "::1:25", "h/x:0", "[h/x]:0")
    ]
    + [
        ("shared_faults", "none", "smtptest_shared_faults must be own or all, not none"),
        (
            "port",
            "2525",
            "smtptest_port = 2525 is for servers of the workers' own, and with smtptest_shared = "
            "localhost:0 there are none: leave out one of them (-o smtptest_port=0)",
        ),
    ],
)
def test_wrong_values(shared, option, value, error):
    write(shared, OWN_MAIL)
    way = ("--collect-only",) if option == "shared" else WORKERS
    check_usage(shared, error, *way, "-o", f"smtptest_{option}={value}")


@pytest.mark.parametrize("template", ["kim@example.com", "{name}@example.com", "{name}{lease}@x"])
def test_a_template_that_tells_no_leases_apart(shared, template):
    write(shared, OWN_MAIL)
    shared.ini(smtptest_shared="localhost:0", smtptest_address=template)
    run = shared.run(*ALONE)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = run.err.strip().splitlines()
    assert line.startswith("ERROR: smtptest_address: ")
    assert "{name} and {lease}" in line
    assert line.endswith(f"not {template!r}")


def test_a_port_in_use(shared):
    write(shared, OWN_MAIL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check_usage(
            shared,
            f"smtptest_shared: [Errno {98 if sys.platform == 'linux' else 48}] cannot listen on "
            f"'localhost' port {port}: Address already in use; somebody listens there: choose "
            "another port, or 0 for a free one",
            f"--smtptest-shared=localhost:{port}",
        )


HOOK = "pytest_smtptest_shared_options in conftest.py:1"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("[1]", f"{HOOK} must return a dict of options, not [1]"),
        (
            "{'host': 'localhost', 'port': 25}",
            f"{HOOK} must not return host and port: smtptest_shared says where to listen",
        ),
        ("{'start_timeout': -1}", f"{HOOK}: start_timeout must be a positive number of"),
        ("{'faults': 'none'}", f"{HOOK}: faults must be 'own' or 'all', not 'none'"),
        ("{'tls': 'on'}", f"{HOOK}: tls must be 'starttls' or 'implicit', not 'on'"),
        ("{'nosuch': 1}", f"{HOOK} has no option 'nosuch'; it has template"),
    ],
)
def test_wrong_options_of_conftest_s(shared, options, error):
    write(
        shared,
        OWN_MAIL,
        conftest=f"def pytest_smtptest_shared_options(config):\n    return {options}\n",
    )
    run = shared.run(*WORKERS)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = run.err.strip().splitlines()
    assert line.startswith(f"ERROR: {error}")


@pytest.mark.parametrize(
    ("body", "line", "error"),
    [
        ("1 / 0", 2, "ZeroDivisionError: division by zero"),
        ("return config.nosuch", 2, "AttributeError: 'Config' object has no attribute 'nosuch'"),
        ("\n    return int('x')", 3, "ValueError: invalid literal for int() with base 10: 'x'"),
        ("import pytest; pytest.fail('not\\ntoday')", 2, "Failed: not today"),
        ("raise KeyError", 2, "KeyError"),
    ],
)
@pytest.mark.parametrize("way", [ALONE, WORKERS], ids=["alone", "workers"])
def test_a_conftest_that_raises(shared, way, body, line, error):
    hook = f"def pytest_smtptest_shared_options(config):\n    {body}\n"
    write(shared, OWN_MAIL, conftest=hook)
    run = shared.run(*way)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    where = f"pytest_smtptest_shared_options in conftest.py:{line}"
    assert run.err.strip() == f"ERROR: {where} raised {error}"
    assert "lazr_smtptest" not in run.out


@pytest.mark.parametrize("way", [ALONE, WORKERS], ids=["alone", "workers"])
def test_a_server_that_is_not_ready_in_time(shared, way):
    """What is advised can be done there."""
    hook = (
        "def pytest_smtptest_shared_options(config):\n"
        "    return {'start_timeout': 0.001, 'start_method': 'spawn'}\n"
    )
    write(shared, OWN_MAIL, conftest=hook)
    run = shared.run(*way)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert re.fullmatch(
        r"ERROR: smtptest_shared: the server process \d+ on localhost port \d+ was started, and "
        r"did not report that it serves within 0\.001 seconds\.  Look for what keeps it, or "
        r"return a longer start_timeout from the hook pytest_smtptest_shared_options\(config\) in "
        r"conftest\.py on a busy machine(\.  It was here:\n.*)?",
        run.err.strip(),
        re.DOTALL,
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("'uvloop': True", "uvloop=True needs uvloop: pip install 'lazr-smtptest[speed]'"),
        ("'tls': 'starttls'", "tls without a certificate of your own needs trustme: pip install"),
        ("'auth': collect", "QueueServer.auth calls append() of the list in the global variable"),
    ],
)
def test_a_server_that_cannot_start(shared, options, error):
    """Since something is not installed, or a warning is an error."""
    hook = (
        "import sys, warnings\n"
        "for name in ('uvloop', 'trustme'):\n"
        "    sys.modules[name] = None\n"
        "found = []\n"
        "def collect(mechanism, user, secret):\n"
        "    found.append(user)\n"
        "    return True\n"
        "def pytest_smtptest_shared_options(config):\n"
        "    warnings.simplefilter('error')\n"
        f"    return {{{options}}}\n"
    )
    write(shared, OWN_MAIL, conftest=hook)
    run = shared.run("-p", "no:xdist", "-p", "no:uvloop")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert run.err.strip().startswith(f"ERROR: smtptest_shared: {error}")
    assert run.err.count("\n") == 2
    assert "INTERNALERROR" not in run.out


def test_a_conftest_that_says_itself_what_is_wrong(shared):
    body = 'import pytest\n    raise pytest.UsageError("set MAIL_HOST")'
    hook = f"def pytest_smtptest_shared_options(config):\n    {body}\n"
    write(shared, OWN_MAIL, conftest=hook)
    run = shared.run(*ALONE)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert run.err.strip() == "ERROR: set MAIL_HOST"


# What a test cannot have of its own, and what it can.


def test_other_options_are_refused(shared):
    write(
        shared,
        """
@pytest.mark.smtptest(tls="starttls", port=2525)
def test_marked(smtptest):
    pass

@pytest.mark.smtptest
def test_bare_mark(smtptest):
    pass

""",
        test_own=HEAD
        + """
@pytest.fixture(scope="session")
def smtptest_options(smtptest_options):
    return {**smtptest_options, "ident": "own"}

def test_own_options(smtptest):
    pass

def test_own_server(smtptest_server):
    pass

def test_own_factory(smtptest_factory):
    assert greeting(smtptest_factory()) == "localhost own"
""",
    )
    run = shared.run(*WORKERS)
    names = {"test_marked": "tls, port", "test_bare_mark": "a mark"}
    names |= dict.fromkeys(["test_own_options", "test_own_server"], "ident")
    assert run.outcomes == dict.fromkeys(names, "error") | {"test_own_factory": "passed"}
    for name, wanted in names.items():
        assert run.told(name) == (
            "with smtptest_shared there is one server for all tests, and it is started before "
            f"them: it cannot have {wanted} for this one.  Return options from the hook "
            "pytest_smtptest_shared_options(config) in conftest.py, or have smtptest_factory() "
            "start a server for this test\n"
        )


def test_the_factory_starts_servers_of_a_test_s_own(shared):
    shared.ini(smtptest_shared="localhost:0", smtptest_host="127.0.0.1")
    write(
        shared,
        """
@pytest.mark.parametrize("n", range(2))
def test_factory(smtptest, smtptest_factory, n):
    note(shared=smtptest.pid)
    own = smtptest_factory(ident="own")
    note(pid=own.pid)
    assert own.host == "127.0.0.1"
    assert own.port != smtptest.port
    assert greeting(own) == "localhost own"
    send_for(own, "own", ["kim@example.com"])
    assert subjects(own.messages) == ["own"]
    assert smtptest.messages == smtptest.unclaimed == []
""",
    )
    run = shared.run(*WORKERS)
    assert set(run.outcomes.values()) == {"passed"}, run.out
    assert len(set(run.noted("shared"))) == 1
    assert len({*run.noted("pid")}) == 2


@EACH_WAY
def test_a_wide_fixture_has_a_lease_that_stays(shared, way):
    write(
        shared,
        """
@pytest.fixture(scope="session")
def application(smtptest_server):
    smtptest_server.claim(f"root@{os.environ.get('PYTEST_XDIST_WORKER', 'here')}.example")
    return smtptest_server.host, smtptest_server.port, smtptest_server.address("postmaster")

@pytest.mark.parametrize("n", range(4))
def test_wide(application, smtptest, smtptest_server, n):
    host, port, postmaster = application
    assert (host, port) == (smtptest.host, smtptest.port)
    assert smtptest is not smtptest_server
    worker = os.environ.get("PYTEST_XDIST_WORKER", "here")
    note(worker=worker, n=n)
    send_for(smtptest, n, [postmaster, smtptest.address("kim")])
    send_for(smtptest, n, [f"root@{worker}.example"])
    assert subjects(smtptest.messages) == [str(n)]
    assert subjects(smtptest_server.messages)[-2:] == [str(n)] * 2
    note(kept=len(smtptest_server.messages))
""",
    )
    run = shared.run(*way)
    assert set(run.outcomes.values()) == {"passed"}, run.out
    kept = [n for count in worked(run).values() for n in range(2, 2 * count + 1, 2)]
    assert sorted(run.noted("kept")) == sorted(kept)


def worked(run) -> dict[str, int]:
    names = run.noted("worker")
    return {name: names.count(name) for name in names}


# What fails a test, and what is said of that.


def test_unread_mail_and_problems_can_fail_a_test(shared):
    shared.ini(smtptest_shared="localhost:0", smtptest_strict="true", smtptest_check="error")
    write(
        shared,
        r"""
GOOD = (
    "From: kim@example.com\r\nSubject: %s\r\nDate: Fri, 27 Nov 2026 10:00:00 +0000\r\n"
    "Message-ID: <1@example.com>\r\n"
)

def mail(server, subject, *recipients, head=GOOD):
    with connected(server) as client:
        client.sendmail(
            "kim@example.com",
            recipients,
            head % subject + f"To: {', '.join(recipients)}\r\n\r\nHello.\r\n",
        )

def test_good(smtptest):
    mail(smtptest, "good", smtptest.address("kim"))
    mail(smtptest, "nobody's", "nobody@example.com", head="Subject: %s\r\n")
    smtptest.wait(subject="good")

def test_unread(smtptest):
    mail(smtptest, "unread one", smtptest.address("kim"))

def test_bad(smtptest):
    mail(smtptest, "bad", smtptest.address("kim"), head="Subject: %s\r\nDate: 7\r\n")
    smtptest.wait(subject="bad")
""",
    )
    run = shared.run(*WORKERS)
    assert run.outcomes == {"test_good": "passed", "test_unread": "failed", "test_bad": "failed"}
    assert "the test left mail unread, on localhost port" in run.told("test_unread")
    assert "subject 'unread one'" in run.told("test_unread")
    assert "the mail of this test has errors" in run.told("test_bad")
    assert "- date-invalid: " in run.told("test_bad")
    assert "nobody's" not in run.told("test_bad")


@EACH_WAY
def test_the_report_on_a_failed_test(shared, way):
    write(
        shared,
        """
def test_before(smtptest):
    send_for(smtptest, "of the test before", ["strange@example.com"])

def test_fails(smtptest):
    kim = smtptest.address("kim")
    smtptest.claim("lee@example.com")
    send_for(smtptest, "read one", [kim])
    smtptest.wait(subject="read one")
    send_for(smtptest, "unread one", [kim])
    send_for(smtptest, "typing error", ["lee@exmaple.com"])
    with smtplib.SMTP(smtptest.host, smtptest.port, "stranger.example", timeout=10) as client:
        client.ehlo()
    assert 0
""",
    )
    run = shared.run("--dist=loadfile", *way) if way == WORKERS else shared.run(*way)
    assert run.outcomes == {"test_before": "passed", "test_fails": "failed"}
    section = run.section("test_fails")
    assert re.match(r"<Lease t\d+-.{6} of the shared server process \d+ on localhost", section)
    read, _, unread = section.partition("1 left unread:")
    assert "1 read by the test:" in read
    assert "subject 'read one'" in read
    unread, _, sessions = unread.partition("2 sessions, of which the last:")
    assert "subject 'unread one'" in unread
    sessions, _, strays = sessions.partition("sent since the test began to an address of no test:")
    assert sessions.count("which calls itself 'client.example': QUIT") == 2
    strays, _, strangers = strays.partition(
        "Sessions since the test began that named no recipient of any test, the last:"
    )
    assert re.search(
        r"to <lee@exmaple\.com>, subject 'typing error'; lee@exmaple\.com looks like .*"
        r"test_it\.py::test_fails",
        strays,
    )
    assert "of the test before" not in section
    assert "which calls itself 'stranger.example': QUIT" in strangers
    closed = closing(run)
    assert closed.startswith("2 sent in this run to an address of no test:\n")
    assert "subject 'of the test before'" in closed
    assert "subject 'typing error'" in closed
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_mail_that_nobody_leased_fails_no_run(shared):
    write(
        shared,
        """
LATE = []

def test_one(smtptest):
    LATE.append(smtptest.address("kim"))

def test_two(smtptest):
    send_for(smtptest, "late", LATE)
    assert smtptest.messages == []
    for n in range(25):
        send_for(smtptest, f"number {n:02}", ["strange@example.com"])
""",
    )
    run = shared.run(*WORKERS, "--dist=loadfile")
    assert run.ret == 0
    lines = closing(run).splitlines()
    assert lines[0] == "26 sent in this run to an address of no test:"
    assert lines[1] == "- and 6 more, before these"
    assert [line[-11:] for line in lines[2:]] == [f"'number {n:02}'" for n in range(5, 25)]


@EACH_WAY
def test_what_code_in_the_server_process_says_reaches_somebody(shared, way):
    write(
        shared,
        """
def test_logs(smtptest):
    send_for(smtptest, "log", ["logged@example.com"])

def test_own_error(smtptest):
    with pytest.raises(smtplib.SMTPDataError):
        send_for(smtptest, "fail", [smtptest.address("kim")])
    with pytest.raises(HandlerError, match="I do not like"):
        smtptest.wait(10)

def test_left_error(smtptest):
    with pytest.raises(smtplib.SMTPDataError):
        send_for(smtptest, "fail", [smtptest.address("kim")])

def test_after(smtptest):
    send_for(smtptest, "well", [smtptest.address("kim")])
    assert subjects(smtptest.messages) == ["well"]
""",
        conftest="""
import logging

import lazr_smtptest.shared
from lazr_smtptest import QueueServer

class Talking(QueueServer):
    def handle_message(self, message):
        if message["subject"] == "log":
            logging.getLogger("of.ours").warning("seen: %s", message["subject"])
        if message["subject"] == "fail":
            raise ValueError("I do not like this")
        super().handle_message(message)

lazr_smtptest.shared.QueueServer = Talking
""",
    )
    run = shared.run(*way, *(("--dist", "loadfile") if way == WORKERS else ()))
    assert closing(run) == (
        "1 sent in this run to an address of no test:\n"
        "- from <kim@example.com> to <logged@example.com>, subject 'log'\n"
        "1 logged by the server process:\n"
        "- WARNING of.ours: seen: log\n"
    )
    assert run.outcomes == {
        "test_logs": "passed",
        "test_own_error": "passed",
        "test_left_error": "error",
        "test_after": "passed",
    }
    assert "I do not like this" in run.told("test_left_error")


def test_an_error_that_is_no_test_s_fails_the_run(shared):
    write(
        shared,
        """
def test_passes(smtptest):
    with pytest.raises(smtplib.SMTPDataError):
        send_for(smtptest, "fail", ["nobody@example.com"])
""",
        conftest="""
import lazr_smtptest.shared
from lazr_smtptest import QueueServer

class Failing(QueueServer):
    def handle_message(self, message):
        raise ValueError("I do not like this")

lazr_smtptest.shared.QueueServer = Failing
""",
    )
    run = shared.run(*WORKERS)
    assert run.outcomes == {"test_passes": "passed"}
    assert closing(run).startswith("HandlerError: ")
    assert "I do not like this" in closing(run)
    assert run.ret == pytest.ExitCode.TESTS_FAILED


# Other ways to run pytest, and other plugins.


@pytest.mark.parametrize(
    "args", [["--collect-only"], ["--help"], ["--fixtures"], ["--fixtures-per-test"]]
)
def test_nothing_is_started_where_no_test_runs(shared, base_port, args):
    shared.ini(smtptest_shared=f"localhost:{base_port}")
    write(shared, OWN_MAIL)
    with socket.create_server(("127.0.0.1", base_port)):
        for way in ALONE, WORKERS:
            run = shared.run(*args, *way)
            assert run.ret == 0, run.out + run.err
    assert not HEADER.search(run.out)


@pytest.mark.parametrize("way", [ALONE, WORKERS], ids=["alone", "workers"])
def test_without_a_terminal(shared, way):
    write(shared, OWN_MAIL)
    off = (*USUALLY_OFF, "-p", "no:terminal", "-p", "no:rerunfailures")
    run = shared.run(*way, off=off)
    assert run.ret == 0, run.out + run.err
    assert len(set(run.noted("pid"))) == 1


def test_junit_xml_has_the_report(shared, pytester):
    write(
        shared,
        """
def test_fails(smtptest):
    send_for(smtptest, "left", [smtptest.address("kim")])
    assert 0
""",
    )
    shared.run("--junitxml=junit.xml", *WORKERS)
    (case,) = ElementTree.parse(pytester.path / "junit.xml").iter("failure")
    assert "<Lease t" in (case.text or "")
    assert "subject 'left'" in (case.text or "")


def test_reruns_have_leases_of_their_own(shared):
    write(
        shared,
        """
TIMES = []

@pytest.mark.flaky(reruns=2)
def test_flaky(smtptest):
    note(address=smtptest.address("kim"))
    assert smtptest.messages == []
    assert smtptest.sessions() == []
    send_for(smtptest, "left", [smtptest.address("kim")])
    TIMES.append(1)
    assert len(TIMES) == 3
""",
    )
    run = shared.run(*WORKERS)
    assert run.ret == 0, run.out
    assert len(set(run.noted("address"))) == 3


def test_any_order(shared):
    write(shared, OWN_MAIL)
    pairs = zip(USUALLY_OFF[::2], USUALLY_OFF[1::2], strict=True)
    off = tuple(word for pair in pairs if pair[1] != "no:randomly" for word in pair)
    run = shared.run(*WORKERS, off=off)
    assert list(run.outcomes.values()) == ["passed"] * 8, run.out
    assert len(set(run.noted("address"))) == 8


# The end.


@EACH_WAY
def test_a_server_that_dies_is_known_to_each_test(shared, way):
    write(
        shared,
        """
def test_00_before(smtptest, tmp_path_factory):
    pass

def test_01_dies(smtptest):
    kill(smtptest)
    smtptest.wait(60)

@pytest.mark.parametrize("n", range(4))
def test_after(smtptest, n):
    pass
""",
    )
    run = shared.run(*way, *(("--dist", "loadfile") if way == WORKERS else ()))
    assert run.outcomes == {
        "test_00_before": "passed",
        "test_01_dies": "failed",
        **{f"test_after[{n}]": "error" for n in range(4)},
    }
    assert "ServerDied: the shared server process" in run.told("test_01_dies")
    for n in range(4):
        told = run.told(f"test_after[{n}]")
        assert told.startswith("no lease of the server of this run; if that has ended, the end of")
        assert len(told.splitlines()) == 1
    assert re.match(
        r"ServerDied: the server process \d+ on localhost port \d+ was killed by SIGKILL;",
        closing(run),
    )
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_a_worker_that_leases_after_the_death_is_told(shared):
    """It has no connection, and there is nobody who takes one."""
    write(
        shared,
        """
@pytest.mark.parametrize("n", range(4))
def test_dies(request, tmp_path_factory, n):
    flag = tmp_path_factory.getbasetemp().parent / "dead"
    if os.environ["PYTEST_XDIST_WORKER"] == "gw0":
        if not flag.exists():
            kill(request.getfixturevalue("smtptest"))
            flag.touch()
    else:
        until(flag.exists, 60)
        request.getfixturevalue("smtptest")
""",
    )
    run = shared.run(*WORKERS)
    told = [r["text"] for r in run.reports if r["outcome"] == "failed"]
    assert told
    assert all("no lease of the server of this run;" in text for text in told)
    assert any("LeaseError: cannot connect to a shared server" in text for text in told)


def test_a_death_that_no_test_sees_fails_the_run(shared):
    write(
        shared,
        """
def test_kills(smtptest):
    kill(smtptest)
""",
    )
    run = shared.run(*WORKERS)
    assert "was killed by SIGKILL" in closing(run)
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_the_exit_code_of_a_server_is_said(shared):
    write(
        shared,
        """
def test_exits(smtptest):
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send_for(smtptest, "os._exit", [smtptest.address("kim")])
    with pytest.raises(ServerDied):
        smtptest.wait(60)
""",
        conftest="""
import lazr_smtptest.shared
from helpers import Misbehaving

lazr_smtptest.shared.QueueServer = Misbehaving
""",
    )
    run = shared.run(*WORKERS)
    assert re.search(r"exit.* 9", closing(run)), closing(run)
    assert run.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("args", [["-x"], ["-x", "-n2"], ["--maxfail=2", "-n2"]])
def test_a_run_that_stops_at_a_failure(shared, args):
    write(
        shared,
        """
@pytest.mark.parametrize("n", range(40))
def test_fails(smtptest, n):
    note(pid=smtptest.pid)
    send_for(smtptest, n, ["strange@example.com"])
    assert 0
""",
    )
    run = shared.run(*args)
    assert 1 <= list(run.outcomes.values()).count("failed") < 40
    assert re.match(r"\d+ sent in this run", closing(run))


@pytest.mark.parametrize("most", [0, 3])
def test_workers_that_crash(shared, most):
    write(
        shared,
        """
@pytest.mark.parametrize("n", range(12))
def test_crash(smtptest, n):
    note(pid=smtptest.pid, address=smtptest.address("kim"))
    send_for(smtptest, n, [smtptest.address("kim")])
    smtptest.claim("kim@" + os.environ["PYTEST_XDIST_WORKER"])
    if n in (2, 7):
        smtptest.claim("held@example.com")
        os._exit(1)
    assert subjects(smtptest.messages) == [str(n)]
""",
    )
    run = shared.run(*WORKERS, f"--max-worker-restart={most}", "--dist=load")
    assert len(set(run.noted("pid"))) == 1
    assert len(set(run.noted("address"))) == len(run.noted("address"))
    outcomes = list(run.outcomes.values())
    if most:
        assert sorted(outcomes) == ["failed"] * 2 + ["passed"] * 10
    else:
        assert set(outcomes) <= {"failed", "passed"}
        assert "failed" in outcomes


ENDLESS = """
@pytest.mark.parametrize("n", range(8))
def test_waits(smtptest, n):
    note(pid=smtptest.pid)
    send_for(smtptest, n, ["strange@example.com"])
    note(ready=os.getpid())
    smtptest.wait(60)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
@pytest.mark.parametrize("way", [ALONE, WORKERS], ids=["alone", "workers"])
def test_a_run_that_is_ended(shared, pytester, way, sent):
    """The server, its folder and the workers are gone, however it is ended."""
    write(shared, ENDLESS)
    command = [sys.executable, "-m", "pytest", "-p", "inner", *USUALLY_OFF, *way]
    process = subprocess.Popen(
        command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    notes = pytester.path / "notes"
    count = 2 if way == WORKERS else 1
    until(lambda: notes.exists() and notes.read_text().count('"ready"') >= count, 60)
    # It waits.  At an instruction that has no line, Ctrl-C is an internal error of pytest's.
    until(lambda: state(process.pid) == "S", 60)
    process.send_signal(sent)
    out, _ = process.communicate(timeout=60)
    pids = {int(pid) for pid in re.findall(r'"(?:pid|ready)": (\d+)', notes.read_text())}
    assert len(pids) == count + 1
    until(lambda: all(map(gone, pids)), 30)
    if sent == signal.SIGINT:
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert "to an address of no test:" in out
