"""A program that starts and stops servers beside a bare process, and prints milliseconds.

It is given how many MB to use itself, how many rounds to go, and how many starts each
has.  A process of its own: a fork takes the longer the more memory a process has used.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable

import peers
from peers import Peer
from rounds import in_turn


def main() -> None:
    megabytes, rounds, starts = map(int, sys.argv[1:])
    in_use = b"\1" * (megabytes * 1_000_000)
    turns = {peers.BARE: _timed(_bare, starts)}
    for name, run in (peers.ours() | peers.ours_without_uvloop()).items():
        turns[name] = _timed(_started(run), starts)
    samples = in_turn(rounds, turns)
    del in_use
    print(json.dumps(samples))


def _timed(once: Callable[[], object], starts: int) -> Callable[[], float]:
    def each() -> float:
        started = time.perf_counter()
        for _ in range(starts):
            once()
        return 1000 * (time.perf_counter() - started) / starts

    return each


def _bare() -> None:
    """Start a process that does nothing, and wait for its end."""
    process = multiprocessing.get_context("fork").Process(target=_nothing)
    process.start()
    process.join(peers.PATIENCE)
    process.close()


def _nothing() -> None:
    pass


def _started(run: Peer) -> Callable[[], None]:
    def once() -> None:
        with run():
            pass

    return once


if __name__ == "__main__":
    main()
