"""Pages that list: they have each option with its default, stage and Python, and no other."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from paths import DOCS, ROOT

from lazr_smtptest import TLS, Controller, QueueController, Server, SharedController, pytest_plugin
from lazr_smtptest.faults import STAGES

PAGE = (DOCS / "options.rst").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the cells of each row below a heading, without the head and the literals' marks."""
    section = PAGE.partition(f"\n{heading}\n{'=' * len(heading)}\n")[2]
    section = re.split(r"\n\n\n.+\n=+\n", section, maxsplit=1)[0]
    assert section.count(".. list-table::") == 1
    rows = re.findall(r"^   \* - (.+?)(?=^   \* - |\Z)", section, re.M | re.S)
    cells = [
        [" ".join(cell.split()) for cell in re.split(r"^     - ", row, flags=re.M)] for row in rows
    ]
    return [[cell.strip("`") for cell in row] for row in cells[1:]]


def defaults(heading: str) -> dict[str, Any]:
    """Return the second column by the first; that no option is there twice is checked."""
    rows = [(name, ast.literal_eval(default)) for name, default, _ in table(heading)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the options that a call may have, with their defaults."""
    found = inspect.signature(function).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in found
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.default is not parameter.empty
    }


class Recorder:
    """What pytest hands to the hooks of a plugin, and what they made of it."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.options: list[str] = []
        self.hooks: list[str] = []

    def addini(self, name: str, help: str, type: Any = None, default: Any = None) -> None:  # noqa: A002
        self.settings[name] = default

    def getgroup(self, name: str, *args: Any, **kwargs: Any) -> Recorder:
        return self

    def addoption(self, *names: str, metavar: str = "", **kwargs: Any) -> None:
        self.options.append(f"{names[-1]} {metavar}".strip())

    def add_hookspecs(self, specs: Any) -> None:
        self.hooks += [
            f"{name}({', '.join([*inspect.signature(hook).parameters][1:])})"
            for name, hook in vars(specs).items()
            if name.startswith("pytest_")
        ]


@pytest.fixture(scope="module")
def plugin() -> Recorder:
    recorder = Recorder()
    pytest_plugin.pytest_addoption(recorder)
    pytest_plugin.pytest_addhooks(recorder)
    return recorder


SERVER = parameters(Server)
CONTROLLER = parameters(Controller)


def test_server():
    assert defaults("Options of a server") == SERVER


def test_controller():
    assert defaults("Options of a controller") == CONTROLLER


def test_queue_controller_has_no_further_option():
    place = {name: SERVER[name] for name in ("host", "port")}
    assert parameters(QueueController) == {**place, **CONTROLLER}


def test_shared_controller():
    known = {*SERVER, *CONTROLLER}
    own = {name: d for name, d in parameters(SharedController).items() if name not in known}
    assert defaults("Options of a shared server") == own


def test_tls():
    assert defaults("Options of TLS") == parameters(TLS)


def test_fixtures():
    source = inspect.getsource(pytest_plugin)
    found = re.findall(r"^@pytest\.fixture(?:\(scope=\"(\w+)\"\))?\ndef ([a-z]\w+)", source, re.M)
    on_page = {(scope, name) for name, scope, _ in table("pytest: fixtures")}
    assert on_page == {(scope or "function", name) for scope, name in found}
    assert len(on_page) >= 4


def test_markers(pytestconfig):
    found = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    own = sorted(name for name in found if name.startswith("smtptest"))
    assert [name for name, _ in table("pytest: markers")] == own
    assert own


def test_hooks(plugin):
    assert [name for name, _ in table("pytest: hooks")] == plugin.hooks
    assert plugin.hooks


def test_settings(plugin):
    # This one is handed on if it is set, so the default is the controller's.
    template = parameters(SharedController)["template"]
    assert plugin.settings["smtptest_address"] == ""
    assert defaults("pytest: settings") == {**plugin.settings, "smtptest_address": template}


def test_command_line(plugin):
    names = [name for name, _ in table("pytest: command line")]
    own = [name for name in names if not name.startswith("-p ")]
    assert own == plugin.options
    assert plugin.options


def test_glossary_has_each_stage():
    glossary = (DOCS / "glossary.rst").read_text("utf-8")
    listed = re.search(r"a fault or a gate may be: ([\w,\s]+)\.", glossary)[1]
    assert sorted(re.findall(r"\w+", listed)) == sorted(STAGES)


def test_platforms_have_each_python():
    platforms = (DOCS / "platforms.rst").read_text("utf-8")
    tested = platforms.partition("   * - CPython\n")[2].partition("\n\n")[0]
    named = re.findall(r":: (3\.\d+)$", (ROOT / "setup.cfg").read_text("utf-8"), re.M)
    assert re.findall(r"\b3\.\d+", tested) == named
