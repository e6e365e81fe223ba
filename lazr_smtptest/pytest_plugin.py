"""Fixtures for pytest.  Test process.

pytest loads this in each run, so what it needs is imported when a fixture is
used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from lazr_smtptest._fakes import without_fakes

if TYPE_CHECKING:
    from lazr_smtptest._fixtures import WorkerServers
    from lazr_smtptest.controller import QueueController

#: The controllers that a test used.
_USED = pytest.StashKey[list["QueueController"]]()

#: The numbers of workers of pytest-xdist, by name.
_NUMBERS = pytest.StashKey[dict[str, int]]()

#: The server of this run, where it is shared, and this is the process that started it.
_SHARED = pytest.StashKey[Any]()  # a SharedRun

#: Options by which a session begins in which no test runs.
_WITHOUT_TESTS = (
    "collectonly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)

#: What pytest-xdist's specifications have of workers that are not simply on this machine.
_REMOTE = ("ssh", "vagrant_ssh", "socket", "via")

#: The names that pytest-xdist chooses by itself.
_AUTOMATIC = re.compile(r"gw(\d+)")

#: What writes pages of failed tests, as a plugin.
_REPORT_OPTION = "smtptest-report"

#: The type of an ini option that is a number; pytest has it from 8.4 on.
_INT: Any = "int" if pytest.version_tuple >= (8, 4) else "string"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("smtptest_host", "where SMTP servers listen", default="localhost")
    parser.addini(
        "smtptest_port",
        "the port of the SMTP server; a worker gwN of pytest-xdist adds N to it, and one of "
        "another name the next number.  By default each gets a free one",
        type=_INT,
        default=0,
    )
    parser.addini("smtptest_strict", "fail a test that leaves mail unread", "bool", False)
    parser.addini(
        "smtptest_check",
        "what to do about problems of mail and sessions: report them where a test failed, fail "
        "a test for errors (error), or nothing (off)",
        default="report",
    )
    parser.getgroup("smtptest").addoption(
        "--smtptest-report",
        metavar="DIR",
        help="for each test that fails, write its mail and sessions to an HTML page in DIR",
    )
    parser.addini("smtptest_allow", "codes of problems that fail no test", "args", [])
    parser.addini(
        "smtptest_shared",
        "HOST:PORT of one server for the whole run, of which each test has a part",
        default="",
    )
    parser.addini(
        "smtptest_address",
        "how smtptest.address() makes addresses there: a template with {name} and {lease}",
        default="",
    )
    parser.addini(
        "smtptest_shared_faults",
        "whose mail the faults of one test may affect there: its own, or all",
        default="own",
    )
    parser.getgroup("smtptest").addoption(
        "--smtptest-shared",
        metavar="HOST:PORT",
        help="run one SMTP server for all tests and workers, with an inbox for each test; see "
        "the ini option smtptest_shared",
    )


class _Hooks:
    @pytest.hookspec(firstresult=True)
    def pytest_smtptest_shared_options(self, config: pytest.Config) -> dict[str, Any] | None:
        """Return the options of the server that is shared: those of SharedController."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(_Hooks)


def pytest_configure(config: pytest.Config) -> None:
    # What is wrong with these is said at once.
    _check_host(config)
    _base_port(config)
    _is_strict(config)
    check = config.getini("smtptest_check")
    if check not in ("off", "report", "error"):
        from lazr_smtptest._names import hint

        meant = hint(check, ("off", "report", "error"), {"on": "report", "fail": "error"})
        raise pytest.UsageError(f"smtptest_check must be off, report or error, not {check}{meant}")
    _allowed(config)
    if where := _shared(config):
        from lazr_smtptest._shared_run import ini_options, place

        place(where)
        ini_options(config)
        if port := _base_port(config):
            raise pytest.UsageError(
                f"smtptest_port = {port} is for servers of the workers' own, and with "
                f"smtptest_shared = {where} there are none: leave out one of them "
                "(-o smtptest_port=0)"
            )
    if config.getoption("smtptest_report") is not None:
        from lazr_smtptest._report_option import ReportOption

        config.pluginmanager.register(ReportOption(config, _worker(config)), _REPORT_OPTION)
    config.addinivalue_line(
        "markers",
        "smtptest(**options): run the test's SMTP server with these options, "
        "which are those of lazr_smtptest.QueueController.",
    )
    config.addinivalue_line(
        "markers",
        "smtptest_allow(*codes): let no problem with one of these codes fail the test; "
        "see smtptest_check.",
    )


def _allowed(config: pytest.Config) -> list[str]:
    codes = " ".join(config.getini("smtptest_allow")).replace(",", " ").split()
    if codes:
        from lazr_smtptest._fixtures import wrong_codes

        if wrong := wrong_codes(codes):
            raise pytest.UsageError(wrong)
    return codes


# One server for the whole run, in the process that pytest was started in.


def _shared(config: pytest.Config) -> str:
    """Return where the run's one server is to listen; empty if each worker has its own."""
    where: str = config.getoption("--smtptest-shared", None) or config.getini("smtptest_shared")
    return where


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start it before any worker, and before the header is written."""
    config = session.config
    where = _shared(config)
    if not where or hasattr(config, "workerinput"):
        return
    if any(getattr(config.option, name, None) for name in _WITHOUT_TESTS):
        return
    with without_fakes():
        from lazr_smtptest._shared_run import SharedRun

    specs = _worker_specs(config).values()
    is_remote = any(_field(spec, name) for spec in specs for name in _REMOTE)
    run = config.stash[_SHARED] = SharedRun(config, where, has_remote_workers=is_remote)
    config.add_cleanup(run.stop)
    config.pluginmanager.register(run)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash.get(_SHARED, None)
    if run is not None:
        run.stop()
        if run.has_failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    run = config.stash.get(_SHARED, None)
    if run is not None and run.lines:
        terminalreporter.section("SMTP server of the run")
        for line in run.lines:
            terminalreporter.write_line(line)


def _access(config: pytest.Config) -> dict[str, Any] | None:
    """Return what takes a lease; None where each worker has a server of its own."""
    if not _shared(config):
        return None
    run = config.stash.get(_SHARED, None)
    inputs = getattr(config, "workerinput", {}) if run is None else {"smtptest_shared": run.access}
    access: dict[str, Any] = inputs["smtptest_shared"]
    return access


def pytest_report_header(config: pytest.Config) -> str | None:
    run = config.stash.get(_SHARED, None)
    if run is not None:
        return f"smtptest: {run}"
    host, port = config.getini("smtptest_host"), _base_port(config)
    if not port:
        return None
    workers = _worker_specs(config)
    numbers = _worker_numbers(config, workers)
    owners = [
        f"port {port + numbers[name]} for {name}{_machine(workers[name])}" for name in workers
    ] or [f"port {port}"]
    return f"smtptest: {host or 'all interfaces'}, {', '.join(owners)}"


# Which port each worker of pytest-xdist has.  The process that starts them decides:
# it alone knows all of them.  No two have the same, since two that run on one machine
# may not look like it: it has several names.


def _worker_specs(config: pytest.Config) -> dict[str, str]:
    """Return what pytest-xdist starts its workers by, such as "popen//id=web", by name."""
    specs = []
    for each in config.getoption("tx", None) or ():
        count, star, spec = each.partition("*")
        specs += [spec] * int(count) if star and count.isdigit() else [each]
    unnamed = itertools.count()
    return {_field(spec, "id") or f"gw{next(unnamed)}": spec for spec in specs}


def _field(spec: str, name: str) -> str:
    fields = (field.partition("=") for field in spec.split("//"))
    return next((value for key, _, value in fields if key == name), "")


def _machine(spec: str) -> str:
    """Return where a worker is, if that is not simply here."""
    fields = [_field(spec, name) for name in _REMOTE]
    where = next(filter(None, fields), "").rpartition(" ")[2]  # ssh may have options first
    return f" on {where}" if where else ""


def _worker_numbers(config: pytest.Config, names: Iterable[str]) -> dict[str, int]:
    """Return the numbers of all workers so far, with those that are new.

    Worker gwN has N, as a rule; it is such a worker, too, that takes the place of one
    that crashed.  All others have the lowest numbers that are left.
    """
    numbers = config.stash.setdefault(_NUMBERS, {})
    new = [name for name in names if name not in numbers]
    for name in sorted(new, key=lambda name: not _AUTOMATIC.fullmatch(name)):
        own = _AUTOMATIC.fullmatch(name)
        taken = numbers.values()
        if own and int(own[1]) not in taken:
            numbers[name] = int(own[1])
        else:
            numbers[name] = next(n for n in itertools.count() if n not in taken)
    return numbers


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send a worker of pytest-xdist its port, or what takes a lease, before it starts."""
    run = node.config.stash.get(_SHARED, None)
    if run is not None:
        node.workerinput["smtptest_shared"] = run.access
        return
    port = _base_port(node.config)
    if port:
        name = node.gateway.id
        numbers = _worker_numbers(node.config, [*_worker_specs(node.config), name])
        node.workerinput["smtptest_port"] = port + numbers[name]


def _check_host(config: pytest.Config) -> None:
    host = config.getini("smtptest_host")
    if not host.isidentifier():  # nothing is imported for a host such as localhost
        from lazr_smtptest._names import INI_FILE, spelled
        from lazr_smtptest.server import check_host

        try:
            with spelled(INI_FILE):
                check_host("host", host)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None


def _base_port(config: pytest.Config) -> int:
    try:
        port = int(config.getini("smtptest_port"))
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(
            f"smtptest_port must be a number, 0 for a free one: {error}"
        ) from None
    if not 0 <= port <= 65535:
        raise pytest.UsageError(
            f"smtptest_port must be from 0, for a free one, to 65535, not {port}"
        )
    return port


def _is_strict(config: pytest.Config) -> bool:
    try:
        return bool(config.getini("smtptest_strict"))
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"smtptest_strict must be true or false: {error}") from None


def _worker(config: pytest.Config) -> str:
    """Return the name that pytest-xdist has for this process, such as gw1."""
    name: str = getattr(config, "workerinput", {}).get("workerid", "")
    return name


def _port(config: pytest.Config) -> int:
    port: int = getattr(config, "workerinput", {}).get("smtptest_port") or _base_port(config)
    return port


@pytest.fixture(scope="session")
def smtptest_options(pytestconfig: pytest.Config) -> dict[str, Any]:
    """The options of the servers: override it to have others.

    They are the keyword arguments of `QueueController`.
    """
    if _shared(pytestconfig):
        return {}
    return {"host": pytestconfig.getini("smtptest_host"), "port": _port(pytestconfig)}


@pytest.fixture(scope="session")
def _smtptest_worker(pytestconfig: pytest.Config) -> Generator[WorkerServers]:
    with without_fakes():
        from lazr_smtptest._fixtures import WorkerServers

    access = _access(pytestconfig)
    args = _worker(pytestconfig), pytestconfig.getini("smtptest_check")
    if access is None:
        worker = WorkerServers(*args)
    else:
        from lazr_smtptest._shared_run import WorkerLeases

        worker = WorkerLeases(*args, access, pytestconfig.getini("smtptest_host"))
    yield worker
    worker.stop()


@pytest.fixture(scope="session")
def smtptest_server(
    _smtptest_worker: WorkerServers, smtptest_options: dict[str, Any]
) -> QueueController:
    """Run this worker's SMTP server, for fixtures of a wide scope.

    It starts once.  Tests should use `smtptest`, which resets it.
    """
    return _smtptest_worker.serve(smtptest_options)


@pytest.fixture
def smtptest(
    request: pytest.FixtureRequest,
    _smtptest_worker: WorkerServers,
    smtptest_options: dict[str, Any],
) -> QueueController:
    """An SMTP server that has no mail yet, as a running `QueueController`.

    It is this worker's, or with ``@pytest.mark.smtptest(**options)`` one with
    these options.
    """
    marks = [*request.node.iter_markers("smtptest")]
    return _use(request, _smtptest_worker.lend(smtptest_options, marks, request.node.nodeid))


@pytest.fixture
def smtptest_factory(
    request: pytest.FixtureRequest,
    _smtptest_worker: WorkerServers,
    smtptest_options: dict[str, Any],
) -> Callable[..., QueueController]:
    """Start more SMTP servers; they are stopped at the end of the test.

    Call it with the options that should differ from `smtptest_options`.  The
    port is a free one, unless you pass one.
    """

    def start(**own: Any) -> QueueController:
        __tracebackhide__ = True
        try:
            return _use(request, _smtptest_worker.start(smtptest_options, own))
        except Exception as error:  # with the test's own line, and none of ours
            raise error.with_traceback(None) from None

    return start


def _use(
    request: pytest.FixtureRequest, server: AbstractContextManager[QueueController]
) -> QueueController:
    controller = server.__enter__()
    request.addfinalizer(lambda: server.__exit__(None, None, None))
    request.node.stash.setdefault(_USED, []).append(controller)
    return controller


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check the test's marks, unless it is skipped, and before it has a server."""
    marks = [*item.iter_markers("smtptest_allow")]
    if marks:
        from lazr_smtptest._fixtures import allowed_by

        allowed_by(marks)  # what is wrong with these fails any test, whatever it checks


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    used = item.stash.get(_USED, [])
    if used and _is_strict(item.config):
        from lazr_smtptest._fixtures import check_all_read

        check_all_read(used)
    if used and item.config.getini("smtptest_check") == "error":
        from lazr_smtptest._fixtures import check_problems

        check_problems(used, _allowed(item.config), item.iter_markers("smtptest_allow"))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    used = item.stash.get(_USED, [])
    if used and report.failed:
        from lazr_smtptest._fixtures import add_section, explain

        with_problems = item.config.getini("smtptest_check") != "off"
        pages = item.config.pluginmanager.get_plugin(_REPORT_OPTION)
        try:
            write_page = pages and pages.page_writer(report, with_problems)
            explain(report, used, with_problems, write_page)
        except (Exception, pytest.fail.Exception) as error:  # such as a time limit
            add_section(report, f"These cannot be shown: {error!r}")
    if report.when == "teardown":
        used.clear()  # pytest keeps the item to the end
    return report
