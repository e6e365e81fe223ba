"""A worker's servers, and the report on a failed test.  Test process.

`pytest_plugin` imports this when a fixture is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest

from lazr_smtptest._names import hints
from lazr_smtptest._parent.describe import describe, problem_line, session_lines
from lazr_smtptest._parent.options import check_names
from lazr_smtptest.checks import CODES
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import HandlerError, ServerDied, ServerStuck, SMTPTestError, StartError
from lazr_smtptest.message import Message, PickledItem, headline
from lazr_smtptest.server import Server
from lazr_smtptest.sessions import SESSION_CODES, Session

if TYPE_CHECKING:
    from lazr_smtptest._pages.page import MailOfServer
    from lazr_smtptest.shared import Lease

    #: What a test has: a server, or a part of one.
    AnyServer = QueueController | Lease

#: Messages that a controller keeps after they were taken: for the report on a failed
#: test, and where all of a test's mail is checked.
_KEPT = 20
_CHECKED = 10_000

#: Servers of marked tests that are kept running.
_MARKED = 4

#: Messages that a report describes, of each kind.
_SHOWN = 20

_UNREAD = "left unread"
_TITLE = "SMTP messages"

#: Sessions that it shows.
_SESSIONS = 3

#: Seconds that a server process has to show that it is not stuck.
_PROBE_TIMEOUT = 1.0

#: What a wrong option raises; the text says it all.
_REFUSALS = (TypeError, ValueError)

#: Controllers, each with the options that it was made of.
_ByOptions = list[tuple[dict[str, Any], QueueController]]


class WorkerServers:
    """The servers of one process that runs tests.

    It has one server that stays, as long as the options stay the same, and is
    used by one test after the other; and beside it those of marked tests, which
    are used by all tests with the same options.
    """

    def __init__(self, name: str, check: str = "report") -> None:
        self._kept = _CHECKED if check == "error" else _KEPT
        self._name = name  # what pytest-xdist calls this process; empty without it
        #: One for all options that were ever asked for; at most one of them runs.
        self._controllers: _ByOptions = []
        self._controller: QueueController | None = None
        #: Those of marked tests; the one that was used last is the last.
        self._marked: _ByOptions = []

    def serve(self, options: dict[str, Any]) -> QueueController:
        """Return the server that stays; start it if it does not run.

        With other options than last time, it is another one, on the same port
        if that can be.
        """
        last, (_, wanted) = self._controller, _known(self._controllers, options)
        if last is not None and last is not wanted:
            last.stop()
            wanted._port = last._port
        self._controller = wanted
        with _failing():
            self._start(wanted)
        return wanted

    def lend(
        self, options: dict[str, Any], marks: Sequence[pytest.Mark], _test: str
    ) -> AbstractContextManager[QueueController]:
        """Return a server for one test: the one that stays, or one with other options.

        It has others if the test has ``smtptest`` marks, the nearest first.  If a port
        or a UNIX socket is among them, the server is for this test alone.
        """
        args = [arg for mark in marks for arg in mark.args]
        if args:
            pytest.fail(
                "@pytest.mark.smtptest takes keyword arguments only, such as port=2525, "
                f"not {', '.join(map(repr, args))}",
                pytrace=False,
            )
        if not marks:
            return _lent(self.serve_afresh(options))
        own = {name: value for mark in reversed(marks) for name, value in mark.kwargs.items()}
        wanted = _with_own_place(_mapping(options), own, instead=True)
        if wanted.get("port") or wanted.get("unix_socket") is not None:
            return self._run_in_place(_make_or_fail(wanted))
        return _lent(self._share(wanted))

    def serve_afresh(self, options: dict[str, Any]) -> QueueController:
        """Return the server that stays, with no mail, and well.

        Blocks up to ``reset_timeout`` and 2 seconds if it turns out to be stuck.
        """
        if self._controller is not None:
            _forget(self._controller)
        return self._afresh(self.serve(options))

    def _share(self, options: dict[str, Any]) -> QueueController:
        """Return the server of marked tests with these options, with no mail, and well."""
        wanted = _known(self._marked, options)
        self._marked.remove(wanted)
        self._marked.append(wanted)
        while len(self._marked) > _MARKED:
            _, oldest = self._marked.pop(0)
            _forget(oldest)
            oldest.stop()
        _, controller = wanted
        _forget(controller)
        with _failing():
            self._start(controller)
        return self._afresh(controller)

    def _afresh(self, controller: QueueController) -> QueueController:
        controller.queue._keep_taken(self._kept)
        if not controller.queue.empty():  # of one that died
            controller.reset()
        return controller

    def start(
        self, options: dict[str, Any], own: dict[str, Any]
    ) -> AbstractContextManager[QueueController]:
        """Start one more server, with some options of its own, and stop it in the end.

        It gets a free port, unless a port or a UNIX socket is among its own options.
        """
        return self._run(_make(_with_own_place(_mapping(options), own, instead=False)))

    @contextlib.contextmanager
    def _run(self, controller: QueueController) -> Iterator[QueueController]:
        controller.queue._keep_taken(self._kept)
        self._start(controller)
        try:
            yield controller
        finally:
            controller.stop()

    @contextlib.contextmanager
    def _run_in_place(self, controller: QueueController) -> Iterator[QueueController]:
        """Run a server where it asks to; if the one that stays listens there, that one waits."""
        lasting = self._controller
        with contextlib.ExitStack() as stack:
            if (
                lasting is not None
                and lasting.is_running
                and _is_same_place(controller.server, lasting.server)
            ):
                stack.callback(self._start, lasting)
                lasting.stop()
            with _failing():
                stack.enter_context(self._run(controller))
            yield controller

    def stop(self) -> None:
        """Stop all servers, until they are used again."""
        with contextlib.ExitStack() as stack:
            for _, controller in [*self._controllers, *self._marked]:
                stack.callback(controller.stop)

    def _start(self, controller: QueueController) -> None:
        if controller.is_running:
            return
        try:
            controller.start()
        except OSError as error:
            if self._name and error.strerror:
                error.strerror = f"pytest-xdist's worker {self._name}: {error.strerror}"
            raise


def _with_own_place(
    options: dict[str, Any], own: dict[str, Any], *, instead: bool
) -> dict[str, Any]:
    """Return all options: in place of where the server that stays listens, own ones if given."""
    wanted = {**options, "port": options.get("port", 0) if instead else 0}
    if own.get("unix_socket") is not None:
        del wanted["port"]
        wanted.pop("host", None)
    elif not instead or not own.keys().isdisjoint(("host", "port")):
        wanted.pop("unix_socket", None)
    return {**wanted, **own}


def _is_same_place(one: Server, other: Server) -> bool:
    if one.unix_socket is not None or other.unix_socket is not None:
        return one.unix_socket == other.unix_socket
    return one.port == other.port != 0


@contextlib.contextmanager
def _lent(controller: QueueController) -> Iterator[QueueController]:
    """Lend a server that stays to one test; raise what its code has raised meanwhile."""
    yield controller
    _, failure = _left(controller)
    if isinstance(failure, HandlerError):
        raise failure


def _forget(controller: QueueController) -> None:
    """End what a test has begun with a server; stop it if it is stuck, or was restarted."""
    try:
        if controller.is_running:
            controller.queue._begin_anew()
            # What its code has raised is no concern of the next test; see _lent.
            with contextlib.suppress(HandlerError):
                controller.reset()
            controller.queue.empty()  # what it should have sent, it has sent
    except (ServerDied, ServerStuck):
        controller._give_up()
    controller._undo_restarts()


def _known(
    controllers: _ByOptions, options: dict[str, Any]
) -> tuple[dict[str, Any], QueueController]:
    """Find the controller with these options, or add one.

    Options need not be hashable, such as those of ``auth``, and a test may change them:
    what is compared is what they were when the controller was made.
    """
    for known in controllers:
        if known[0] == options:
            return known
    asked = {name: _as_it_is_now(value) for name, value in _mapping(options).items()}
    controllers.append((asked, _make_or_fail(options)))
    return controllers[-1]


def _as_it_is_now(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return copy(value) if isinstance(value, list | set) else value


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Fail a test whose server cannot be made, or started, without any of our code."""
    try:
        yield
    except (TypeError, ValueError, ImportError, OSError, StartError) as error:
        text = str(error) if type(error) in _REFUSALS else f"{type(error).__name__}: {error}"
        raise pytest.fail.Exception(text, pytrace=False) from None


def _make_or_fail(options: dict[str, Any]) -> QueueController:
    with _failing():
        return _make(options)


def _make(options: dict[str, Any]) -> QueueController:
    check_names("smtptest", options)
    return QueueController(**options)


def _mapping(options: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        pytest.fail(f"smtptest_options must be a dict of options, not {options!r}", pytrace=False)
    return options


# What a test left unread.


def check_all_read(used: Iterable[AnyServer]) -> None:
    left = [line for controller in used for line in _unread(controller)]
    if left:
        pytest.fail("\n".join(left), pytrace=False)


def _unread(controller: AnyServer) -> list[str]:
    # What to do about it, and a line for each message that was not taken.
    items, _ = _left(controller)
    if not items:
        return []
    lines = [
        f"the test left mail unread, on {controller._endpoint}: "
        "take it, with wait() say, or call reset()",
        *(f"- {headline(item.peek())}" for item in items[:_SHOWN]),
    ]
    more = len(items) - _SHOWN
    return [*lines, f"- and {more} more"] if more > 0 else lines


# What is wrong with the mail of a test.


def wrong_codes(codes: Iterable[object]) -> str:
    """Return what is wrong with the codes to allow, if anything is."""
    known = {*CODES, *SESSION_CODES}
    unknown = [
        code
        for code in codes
        if not isinstance(code, str) or (code not in known and not code.startswith("parser-"))
    ]
    names, meant = ", ".join(map(repr, unknown)), hints(unknown, known)
    text = f"smtptest_allow has no code {names}; it has {', '.join(sorted(known))}{meant}"
    return text if unknown else ""


def allowed_by(marks: Iterable[pytest.Mark]) -> list[str]:
    """Return the codes that a test's ``smtptest_allow`` marks allow; fail it if one is none."""
    codes: list[str] = []
    for mark in marks:
        given = [*mark.args, *(f"{name}=" for name in mark.kwargs)]
        needs = 'smtptest_allow needs a code, such as @pytest.mark.smtptest_allow("from-missing")'
        if wrong := wrong_codes(given) if given else needs:
            pytest.fail(f"@pytest.mark.{wrong}", pytrace=False)
        codes += mark.args
    return codes


def check_problems(
    used: Iterable[AnyServer], allowed: Iterable[str], marks: Iterable[pytest.Mark]
) -> None:
    """Fail a test whose mail or sessions have errors, but for codes that are allowed."""
    allow = {*allowed, *allowed_by(marks)}
    errors = [line for controller in used for line in _errors(controller, allow)]
    if errors:
        first = min(line.split()[1].rstrip(":") for line in errors)
        pytest.fail(
            "the mail of this test has errors.  Correct the program; or allow them, as by "
            f'@pytest.mark.smtptest_allow("{first}"), or by smtptest_allow in the ini file:\n'
            + "\n".join(errors),
            pytrace=False,
        )


def _errors(controller: AnyServer, allow: Collection[str]) -> Iterator[str]:
    messages = [item.peek() for item in [*controller.queue._taken, *_left(controller)[0]]]
    _, sessions = controller._diagnose(_PROBE_TIMEOUT)
    found = [(headline(m), m.problems) for m in messages if isinstance(m, Message)]
    found += [(f"a session of {session.helo}", session.problems) for session in sessions or ()]
    for what, problems in found:
        for problem in problems:
            if problem.level == "error" and problem.code not in allow:
                yield f"- {problem_line(problem)}\n    in {what}"


# The report on a failed test.


def explain(
    report: pytest.TestReport,
    controllers: Iterable[AnyServer],
    with_problems: bool = True,
    write_page: Callable[[list[MailOfServer]], str] | None = None,
) -> None:
    """Add the mail to the report on a failed test.

    Blocks up to 7 seconds for each controller whose server process is stuck.

    :param write_page: Writes the mail to a page, and returns a line on where that is.
    """
    sections = []
    servers = []
    for controller in controllers:
        problem, sessions = controller._diagnose(_PROBE_TIMEOUT)
        sections.append(_section(controller, problem, sessions, with_problems))
        if write_page is not None:
            servers.append(_mail_of(controller, problem, sessions))
        if problem is not None:
            _put_first(report, problem)
    if write_page is not None:
        sections.append(write_page(servers))
    add_section(report, "\n\n".join(sections))


def add_section(report: pytest.TestReport, text: str) -> None:
    """Add a section on the mail to what the report says of the failure.

    The report has sections of its own, but of these JUnit XML and Allure take no
    more than captured output.
    """
    longrepr: Any = report.longrepr
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(_TITLE, text)
    else:  # of a doctest, say
        report.longrepr = f"{longrepr}\n{f' {_TITLE} ':-^80}\n{text}"


def _put_first(report: pytest.TestReport, problem: SMTPTestError) -> None:
    """Begin the report with a problem, however the test itself failed."""
    longrepr: Any = report.longrepr
    if hasattr(longrepr, "chain"):
        problem.args = (f"{type(problem).__name__}: {problem}",)
        told: Any = pytest.ExceptionInfo.from_exception(problem).getrepr(style="value")
        first = (told.reprtraceback, told.reprcrash, "The test used that server, and failed:")
        longrepr.chain = [first, *longrepr.chain]
        # The summary's line; with --tb=no there is nothing else.
        if longrepr.reprcrash is not None:
            what = problem.args[0].partition("\n")[0]
            longrepr.reprcrash.message = f"{what}; {longrepr.reprcrash.message}"
    else:
        report.longrepr = f"{type(problem).__name__}: {problem}\n\n{longrepr}"


def _section(
    controller: AnyServer,
    problem: SMTPTestError | None,
    sessions: list[Session] | None,
    with_problems: bool,
) -> str:
    inbox = controller.queue
    left, failure = _left(controller)
    lines = [f"{controller!r}"]
    lines += [f"{type(error).__name__}: {error}" for error in (problem, failure) if error]
    taken = list(inbox._taken)[-_SHOWN:]
    lines += _listed("read by the test", taken, inbox._taken_count, with_problems)
    lines += _listed(_UNREAD, left[:_SHOWN], len(left), with_problems)
    if not inbox._taken and not left:
        lines.append("No message has arrived.")
    lines += _last(sessions, with_problems)
    lines += [line for remark in controller._remarks() for line in remark.lines]
    return "\n".join(lines)


def _mail_of(
    controller: AnyServer, problem: SMTPTestError | None, sessions: list[Session] | None
) -> MailOfServer:
    from lazr_smtptest._pages.page import MESSAGES, MailOfServer

    inbox = controller.queue
    left, failure = _left(controller)
    return MailOfServer(
        str(controller._endpoint),
        tuple(f"{type(error).__name__}: {error}" for error in (problem, failure) if error),
        [item.peek() for item in list(inbox._taken)[-MESSAGES:]],
        inbox._taken_count,
        [item.peek() for item in left[:MESSAGES]],
        len(left),
        sessions,
        controller._remarks(),
    )


def _left(controller: AnyServer) -> tuple[list[PickledItem], SMTPTestError | None]:
    inbox = controller.queue
    link = inbox._link
    if link is None:
        return [], None
    from lazr_smtptest._parent.link import block  # a link there is, so this is imported

    link.catch_up()
    try:
        return block(inbox._look(link))[0], None
    except SMTPTestError as error:
        with link.lock:
            return list(link.messages), error


def _last(sessions: list[Session] | None, with_problems: bool) -> list[str]:
    if sessions is None:
        return ["What clients did is not known."]
    if not sessions:
        return ["No client has connected."]
    lines = [f"{len(sessions)} sessions, of which the last:" if sessions[1:] else "1 session:"]
    for session in sessions[-_SESSIONS:]:
        lines += session_lines(session)
        if with_problems:
            lines += [f"  problem: {problem_line(problem)}" for problem in session.problems]
    return lines


def _listed(
    what: str, shown: Collection[PickledItem], count: int, with_problems: bool
) -> list[str]:
    if not count:
        return []
    lines = [f"- {describe(item.peek(), with_problems)}" for item in shown]
    more = [f"- and {count - len(lines)} more"] if len(lines) < count else []
    # Of those that were read, the last are kept.
    return [f"{count} {what}:", *(lines + more if what == _UNREAD else more + lines)]
