"""Measure lazr_smtptest side by side with whatever else is installed.

It measures and tests nothing: there are no thresholds here.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measures
import peers
import report
import shared
import suites
from measures import QUICK, Plan
from rounds import Growth, Measure

_MEASURES: list[Callable[[Plan], Measure | list[Measure]]] = [
    *measures.FIRST,
    *measures.BY_SOURCE,
    *measures.OTHERS,
    suites.suites,
    shared.shared,
]
_NAMES = [measure.__name__ for measure in [*_MEASURES, *measures.GROWTH]]
_ONLY = f"leave out all but these: {', '.join(_NAMES)}"

#: Seconds after which something must have gone wrong.
_AT_MOST = 900.0


def main() -> None:
    options = _options()
    # Everything waits with a timeout; this is for what nobody thought of.
    faulthandler.dump_traceback_later(_AT_MOST, exit=True)
    plan = QUICK if options.quick else Plan()
    if options.rounds is not None:
        plan = dataclasses.replace(plan, rounds=options.rounds, growth_rounds=options.rounds)
    started = time.perf_counter()
    found, growths = _measure(plan, options.only)
    about = report.machine() | {
        "plan": dataclasses.asdict(plan),
        "seconds": time.perf_counter() - started,
    }
    print(report.text(found, growths, about))
    _write(options, found, growths, about)
    _note(f"This took {time.perf_counter() - started:.0f} seconds.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_rounds, help="how often each is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="try it: the figures are worthless")
    parser.add_argument("--only", nargs="+", choices=_NAMES, metavar="MEASURE", help=_ONLY)
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    parser.add_argument("--svg", type=Path, help="draw the ratios into this file")
    return parser.parse_args()


def _rounds(given: str) -> int:
    number = int(given)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 round is needed")
    return number


def _measure(plan: Plan, only: Sequence[str] | None) -> tuple[list[Measure], list[Growth]]:
    names = set(_NAMES if only is None else only)
    if peers.find_program("smtp-source") is None:
        names -= {measure.__name__ for measure in [*measures.BY_SOURCE, *measures.GROWTH]}
    found: list[Measure] = []
    for measure in _MEASURES:
        if measure.__name__ in names:
            result = _timed(measure, plan)
            found.extend(result if isinstance(result, list) else [result])
    growths = [growth for growth in measures.GROWTH if growth.__name__ in names]
    return found, [_timed(growth, plan) for growth in growths]


def _timed(measure: Callable[[Plan], Any], plan: Plan) -> Any:
    started = time.perf_counter()
    result = measure(plan)
    _note(f"{measure.__name__}: {time.perf_counter() - started:.1f} s")
    return result


def _write(
    options: argparse.Namespace,
    found: Sequence[Measure],
    growths: Sequence[Growth],
    about: dict[str, Any],
) -> None:
    if options.json is not None:
        report.write_json(options.json, found, growths, about)
    if options.svg is not None:
        try:
            report.write_svg(options.svg, found, growths, about)
        except ImportError as error:
            _note(f"There is no picture: {error}")


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
