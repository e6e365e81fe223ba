"""pytest's option ``--smtptest-report``: a page for each failed test, and an index of them.

A plugin of its own, which `pytest_plugin` registers where the option is given.  With
pytest-xdist each worker writes its pages; what the index says of them comes with the reports
on tests to the process that pytest was started in, which writes it.  Test process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from lazr_smtptest._pages.failed_tests import FailedTestPages, begin, write_index
from lazr_smtptest._pages.page import INDEX, Entry, MailOfServer

#: What the index is to say of a page, in the report on its test.
_ENTRY = "smtptest_page"


class ReportOption:
    """Writes pages, as a plugin of pytest.

    :param worker: What pytest-xdist calls this process; empty without it.
    :raises pytest.UsageError: The option names no folder.
    """

    def __init__(self, config: pytest.Config, worker: str) -> None:
        if not config.option.smtptest_report:
            raise pytest.UsageError("--smtptest-report must name a folder")
        self._start = str(config.invocation_params.dir)
        # A worker gets the option from here, and may be started elsewhere.
        path = os.path.join(self._start, config.option.smtptest_report)
        self._path = config.option.smtptest_report = os.path.abspath(path)
        self._is_worker = hasattr(config, "workerinput")
        self._pages = FailedTestPages(self._path, worker)
        self._entries: list[Entry] = []

    def page_writer(
        self, report: pytest.TestReport, with_problems: bool
    ) -> Callable[[list[MailOfServer]], str]:
        """Return what writes the page of a test, as its report is now; see `explain`."""
        failure = report.longreprtext

        def write(servers: list[MailOfServer]) -> str:
            test, when = report.nodeid, report.when or ""
            try:
                entry = self._pages.add(test, when, failure, servers, with_problems=with_problems)
            except OSError as error:
                return f"Its page cannot be written: {error}"
            if entry is None:
                return "It has no page: there are many already."
            # Where this process is a worker's, it goes with the report.
            vars(report)[_ENTRY] = [*entry]
            return f"See {self._shown(entry.page)}"

        return write

    def _shown(self, name: str) -> str:
        path = os.path.join(self._path, name)
        return os.path.relpath(path, self._start) if path.startswith(self._start) else path

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if self._is_worker or session.config.option.collectonly:
            return
        try:
            begin(self._path)
        except OSError as error:
            raise pytest.UsageError(f"--smtptest-report: {error}") from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = vars(report).get(_ENTRY)
        if entry is not None:
            self._entries.append(Entry(*entry))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._is_worker and not session.config.option.collectonly:
            write_index(self._path, self._entries)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._entries:
            count = f"{len(self._entries):,} pages" if self._entries[1:] else "1 page"
            terminalreporter.section("SMTP messages of failed tests", "-")
            terminalreporter.write_line(f"{count}; open {self._shown(INDEX)}")
