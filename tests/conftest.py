"""Servers that many tests share; runs of pytest in tests; and what collecting leaves."""

from __future__ import annotations

import contextlib
import gc
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import EVENT_LOOPS, LOGIN, START_METHODS, is_free, loop_name
from hypothesis import given
from hypothesis.strategies import none
from inner_pytest import Inner
from mailers import Mailers
from paths import SUPPORT
from programs import Programs

from lazr_smtptest import QueueController
from lazr_smtptest._launch import listen, resolve

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


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
    """A run of pytest with the plugin, and with nothing of the run that it is in."""
    for name in list(os.environ):
        if name == "CI" or (name.startswith("PYTEST_") and name != "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    return Inner(pytester)


@pytest.fixture
def base_port() -> Iterator[int]:
    """Give the first of six ports that nobody takes meanwhile.

    They are below those that the system hands out, and each six has a seventh:
    who listens there may use them.
    """
    for seventh in random.sample(range(15_000, 30_000, 7), 100):
        with contextlib.ExitStack() as held:
            try:
                sockets, _ = listen(resolve("localhost", seventh), seventh)
            except OSError:
                continue
            for sock in sockets:
                held.enter_context(sock)
            if all(is_free(seventh + n) for n in range(1, 7)):
                yield seventh + 1
                return
    raise AssertionError("no ports are free")
