"""Servers that many tests share; runs of pytest in tests; and what collecting leaves."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import EVENT_LOOPS, LOGIN, START_METHODS, loop_name
from hypothesis import given
from hypothesis.strategies import none
from mailers import Mailers
from programs import Programs

from lazr_smtptest import QueueController

pytest_plugins = ["pytester"]


def pytest_collection_finish() -> None:
    """Let no test pay for the modules and items of all others.

    They stay until the end, and there are so many that a test that collects
    garbage would look through them for half a second each time.
    """
    # Hypothesis looks who refers to its random numbers, when first used; what is frozen
    # does not count, and it warns.
    given(none())(lambda _: None)()
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, once for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} {reason}")


@pytest.fixture(scope="module")
def running() -> Iterator[QueueController]:
    """The server that the tests of a module share."""
    with QueueController() as controller:
        yield controller


@pytest.fixture
def server(running: QueueController) -> QueueController:
    """The shared server, as if it were new."""
    running.reset()
    return running


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def each_loop(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    """A server on each event loop that there is, with TLS and a login."""
    with QueueController(
        "127.0.0.1", tls="starttls", auth=dict([LOGIN]), uvloop=request.param
    ) as controller:
        yield controller


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Mail clients that find nothing of the user's settings."""
    return Programs(tmp_path)


@pytest.fixture(scope="module")
def mailers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailers]:
    """Mail programs that are started, or compiled, when they are first used."""
    with contextlib.ExitStack() as stack:
        yield Mailers(tmp_path_factory.mktemp("mailers"), stack)


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    """Each way to start a server process."""
    return request.param
