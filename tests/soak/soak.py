"""Live through the bad days many times over, and print one table.

Not collected by pytest.  Run it from the checkout, for as long as you like:

    python tests/soak/soak.py --minutes 5
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from helpers import START_METHODS
from trials import (
    BUSY_THREADS,
    blocked_reader_learns_of_death,
    crowd_then_stop,
    killed_test_process,
    killed_under_load,
    much_unread_then_stop,
)


def busy_forks(rounds: int) -> dict[str, float]:
    started = time.monotonic()
    command = [sys.executable, BUSY_THREADS, str(rounds)]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
    return {"milliseconds": (time.monotonic() - started) * 1000 / rounds}


def rows(rng: random.Random) -> list[tuple[str, int, Callable[[], dict[str, Any]]]]:
    """What to live through: its name, the trials in one minute's run, and how."""
    table: list[tuple[str, int, Callable[[], dict[str, Any]]]] = []
    for method in START_METHODS:

        def add(name: str, trials: int, function: Callable[..., Any], *args: Any) -> None:
            table.append((name, trials, lambda: function(*args)))

        add(f"server killed under load, {method}", 14, killed_under_load, method, rng)
        add(
            f"server killed, reader waiting, {method}",
            14,
            blocked_reader_learns_of_death,
            method,
            rng,
        )
        for count in (1, 5):
            for others in (False, True):
                name = f"test process killed, {count} server{'s' * (count > 1)}, {method}"
                name += ", other children" * others
                add(name, 7, killed_test_process, method, count, others)
    table.append(
        ("server killed, pipe full, fork", 8, lambda: killed_under_load("fork", rng, 400_000))
    )
    table.append(("1,000 connections, then stop", 2, lambda: crowd_then_stop(1000, rng)))
    table.append(("500 MB unread, then stop", 1, lambda: much_unread_then_stop(500)))
    table.append(("fork beneath busy threads", 1, lambda: busy_forks(100)))
    return table


def summary(results: list[dict[str, Any]]) -> str:
    if "milliseconds" in results[0]:
        values = [result["milliseconds"] for result in results]
        return f"median {statistics.median(values):.1f} ms, longest {max(values):.1f} ms"
    told, taken, lost = (sum(r[key] for r in results) for key in ("told", "taken", "lost"))
    return f"{told} accepted, {taken} read, {lost} named as lost"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="about how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"{platform.platform()}, Python {platform.python_version()}, seed {options.seed}")
    table = "{:58}  {:>6}  {:>6}  {}"
    border = table.format("=" * 58, "=" * 6, "=" * 6, "=" * 48)
    print("", border, table.format("what", "trials", "failed", "measured"), border, sep="\n")
    broken = []
    for name, per_minute, trial in rows(rng):
        trials = max(1, round(per_minute * options.minutes))
        results = []
        failed = 0
        for _ in range(trials):
            try:
                results.append(trial())
            except Exception as error:
                broken.append(f"- {name}: {type(error).__name__}: {error}")
                failed += 1
        measured = summary(results) if results else "nothing"
        print(table.format(name, trials, failed, measured), flush=True)
    print(border, "", *broken, f"{len(broken) or 'nothing'} failed", sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
