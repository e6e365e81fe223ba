"""Runs of pytest in tests: what is in them, and what they said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import gone, until

# Runs with several processes each: a busy machine takes its time.
TIMEOUT = pytest.mark.timeout(90)

#: Seconds that an inner run may take.
LIMIT = 80

#: Left alone by default: the first would shuffle, and to import the others takes
#: longer than most of these tests.
USUALLY_OFF = tuple(
    word
    for name in (
        *("randomly", "anyio", "asyncio", "hypothesispytest", "localserver", "smtpd"),
        *("allure_pytest", "html", "html_fixtures", "metadata", "run-parallel"),
        *("fakefs", "pytest_cov", "time_machine"),
    )
    for word in ("-p", f"no:{name}")
)

#: What the inner tests have, and the plugin that tells how they went.
INNER = r"""
import json
import os
import re
import signal
import smtplib
from io import FileIO
from pathlib import Path

import pytest

def _append(name, facts):
    # In the real files, where a test has others.
    with FileIO(str(Path(__file__).with_name(name)), "a") as file:
        file.write(json.dumps(facts).encode() + b"\n")

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

def _sections(longrepr):
    if isinstance(longrepr, str):
        return dict(re.findall(r"^-+ (.+?) -+\n((?:(?!-+ .+ -+$).*\n?)*)", longrepr, re.M))
    return {name: text for name, text, *_ in getattr(longrepr, "sections", ())}

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
            "text": re.split(r"^-+ SMTP messages -+$", report.longreprtext, flags=re.M)[0],
            "sections": dict(report.sections) | _sections(report.longrepr),
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
