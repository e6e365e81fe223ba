"""A run of pytest with the plugin, and with nothing of the run that it is in."""

from __future__ import annotations

import os

import pytest
from inner_pytest import Inner
from paths import SUPPORT


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Inner:
    for name in list(os.environ):
        if name == "CI" or (name.startswith("PYTEST_") and name != "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    return Inner(pytester)
