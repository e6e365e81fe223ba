"""What the pytest plugin says of mail when a test failed.  Test process."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from lazr_smtptest._describe import describe, headline, session_lines
from lazr_smtptest._parcel import Parcel
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import SMTPTestError
from lazr_smtptest.sessions import Session

__all__ = ["explain", "unread"]

#: Messages that a report describes, of each kind.
_SHOWN = 20

_UNREAD = "left unread"

#: Sessions that it shows.
_SESSIONS = 3

#: Seconds that a server process has to show that it is not stuck.
_PROBE_TIMEOUT = 1.0


def unread(controller: QueueController) -> list[str]:
    """Say which messages a test has not taken.

    :param controller: The controller.
    :return: What to do about it, and a line for each message; nothing if there is none.
    """
    parcels, _ = _left(controller)
    if not parcels:
        return []
    lines = [
        f"the test left mail unread, on {controller.host} port {controller.port}: "
        "take it, with wait() say, or call reset()",
        *(f"- {headline(parcel.peek())}" for parcel in parcels[:_SHOWN]),
    ]
    more = len(parcels) - _SHOWN
    return [*lines, f"- and {more} more"] if more > 0 else lines


def explain(report: pytest.TestReport, controllers: Iterable[QueueController]) -> None:
    """Add what there is to know of the mail to the report on a failed test.

    Blocks up to 2 seconds for each controller whose server process is stuck.

    :param report: The report.
    :param controllers: The controllers that the test used.
    """
    sections = []
    for controller in controllers:
        problem, sessions = controller._diagnose(_PROBE_TIMEOUT)
        sections.append(_section(controller, problem, sessions))
        if problem is not None:
            _put_first(report, problem)
    report.sections.append(("SMTP messages", "\n\n".join(sections)))


def _put_first(report: pytest.TestReport, problem: SMTPTestError) -> None:
    """Have the report begin with a problem, however the test itself failed."""
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
    controller: QueueController, problem: SMTPTestError | None, sessions: list[Session]
) -> str:
    inbox = controller.queue
    left, failure = _left(controller)
    lines = [f"{controller!r}"]
    lines += [f"{type(error).__name__}: {error}" for error in (problem, failure) if error]
    lines += _listed("read by the test", list(inbox._taken), inbox._taken_count)
    lines += _listed(_UNREAD, left[:_SHOWN], len(left))
    if not inbox._taken and not left:
        lines.append("No message has arrived.")
    lines += _last(sessions)
    return "\n".join(lines)


def _left(controller: QueueController) -> tuple[list[Parcel], SMTPTestError | None]:
    home = controller.queue._home
    if home is None:
        return [], None
    try:
        return home.look()[0], None
    except SMTPTestError as error:
        return home.remains, error


def _last(sessions: list[Session]) -> list[str]:
    if not sessions:
        return ["No client has connected."]
    lines = [f"{len(sessions)} sessions, of which the last:" if sessions[1:] else "1 session:"]
    for session in sessions[-_SESSIONS:]:
        lines += session_lines(session)
    return lines


def _listed(what: str, shown: Collection[Parcel], count: int) -> list[str]:
    if not count:
        return []
    lines = [f"- {describe(parcel.peek())}" for parcel in shown]
    more = [f"- and {count - len(lines)} more"] if len(lines) < count else []
    # Of those that were read, the last are kept.
    return [f"{count} {what}:", *(lines + more if what == _UNREAD else more + lines)]
