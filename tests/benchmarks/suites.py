"""Whole suites of mail tests, each as a user of the plugin would write and run it."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import mail_suite
from mail_suite import NEVER_RESET, OURS, Plugin
from measures import Plan
from peers import is_installed
from rounds import Measure, in_turn

#: Processes of pytest-xdist.
_WORKERS = 2

#: Tests of one file, as it is run while it is written.
_FEW = 10

_EMPTY = "    pass\n"

#: How often a peer may try again whose tests do not all pass.
_AGAIN = 3

_NOTE = (
    "smtptest starts one server for each process, and resets it for each test; "
    "smtpserver and smtpd start and stop a server for each test"
)


def suites(plan: Plan) -> list[Measure]:
    """Run the same tests by each plugin: with mail, and with nothing but the fixture."""
    plugins = [OURS, *(p for p in mail_suite.PEERS if is_installed(p.module.partition(".")[0]))]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        several = plan.suite_tests
        found = [
            _sending(plan, plugins, directory / "few", _FEW, []),
            _sending(plan, plugins, directory / "serial", several, []),
        ]
        if importlib.util.find_spec("xdist") is not None:
            arguments = ["-n", str(_WORKERS)]
            found.append(_sending(plan, plugins, directory / "workers", several, arguments))
        return [*found, _fixture_alone(plan, plugins, directory / "alone")]


def _sending(
    plan: Plan, plugins: Sequence[Plugin], directory: Path, tests: int, arguments: list[str]
) -> Measure:
    """Take the time from the start of pytest to its end."""
    turns = {}
    for plugin in [*plugins, NEVER_RESET]:
        place = directory / plugin.name
        mail_suite.write(place, tests, plugin.fixture, plugin.sending)
        turns[plugin.name] = _wall_clock(place, plugin, arguments, tests)
    samples = in_turn(plan.rounds, turns)
    title = f"{tests:,} mail tests, {' '.join(['pytest', *arguments])}"
    pairs = _pairs(plugins)
    # What no fixture could do better.
    pairs += [(NEVER_RESET.name, theirs) for _, theirs in pairs[:1]]
    return Measure(f"suite-{directory.name}", title, "s", samples, pairs, less_is_better=True)


def _fixture_alone(plan: Plan, plugins: Sequence[Plugin], directory: Path) -> Measure:
    """Take what a test costs more that asks for the fixture, and does nothing.

    The plugin is loaded in both cases, and what it does once, such as starting
    a server or making a certificate, is shared out among the tests.
    """
    turns = {}
    for plugin in plugins:
        for kind, fixture in (("with", plugin.fixture), ("without", "")):
            place = directory / kind / plugin.name
            mail_suite.write(place, plan.suite_tests, fixture, _EMPTY)
            turns[f"{kind} {plugin.name}"] = _wall_clock(place, plugin, [], plan.suite_tests)
    times = in_turn(plan.rounds, turns)
    samples = {}
    for plugin in plugins:
        pairs = zip(times[f"with {plugin.name}"], times[f"without {plugin.name}"], strict=True)
        samples[plugin.name] = [1000 * (more - less) / plan.suite_tests for more, less in pairs]
    title = "The fixture alone, for each test"
    return Measure(
        "suite-fixture", title, "ms", samples, _pairs(plugins), less_is_better=True, notes=[_NOTE]
    )


def _wall_clock(
    directory: Path, plugin: Plugin, arguments: list[str], tests: int
) -> Callable[[], float]:
    def once() -> float:
        outcome = mail_suite.run(directory, plugin, arguments)
        # A peer looks for a free port before it binds that, and somebody may be quicker.
        for _ in range(_AGAIN if plugin in mail_suite.PEERS else 0):
            if outcome.code:
                outcome = mail_suite.run(directory, plugin, arguments)
        outcome.check(tests)
        return outcome.seconds

    return once


def _pairs(plugins: Sequence[Plugin]) -> list[tuple[str, list[str]]]:
    """Compare with each, and not with the best only: they do not do the same."""
    return [(OURS.name, [plugin.name]) for plugin in plugins if plugin is not OURS]
