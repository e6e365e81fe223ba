"""A run of pytest with the plugin, and with nothing of the run that it is in."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import pytest
from helpers import is_free
from inner_pytest import Inner
from paths import SUPPORT

from lazr_smtptest._launch import listen


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
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
                sockets = listen("localhost", seventh)
            except OSError:
                continue
            for sock in sockets:
                held.enter_context(sock)
            if all(is_free(seventh + n) for n in range(1, 7)):
                yield seventh + 1
                return
    raise AssertionError("no ports are free")
