"""A program that sends 1 kB messages for a given time, and says how many it sent.

It shares the first octet of the file that it is given with `OtherProcess`.  It
reads a line, "port seconds", connects, answers "ready", sends as soon as the
other one computes, and answers "count elapsed".  Then again, until input ends.
"""

from __future__ import annotations

import functools
import mmap
import sys
import time
from collections.abc import Callable

from clients import COMPUTING, PATIENCE, SENT, connected, make_message, send
from peers import Running


def main() -> None:
    message = make_message(1024)
    with open(sys.argv[1], "r+b") as file:
        shared = mmap.mmap(file.fileno(), 1)
    print("here", flush=True)
    while line := sys.stdin.readline():
        port, seconds = line.split()
        with connected(Running(int(port), lambda: None)) as client:
            client.ehlo()
            print("ready", flush=True)
            _await_computing(shared)
            answer = _send_for(float(seconds), functools.partial(send, client, message, 1))
            shared[:] = SENT
        print(*answer, flush=True)


def _await_computing(shared: mmap.mmap) -> None:
    deadline = time.perf_counter() + PATIENCE
    while shared[:] != COMPUTING:
        if time.perf_counter() > deadline:
            raise TimeoutError("nobody began to compute")
        time.sleep(0.0005)


def _send_for(seconds: float, send_one: Callable[[], None]) -> tuple[int, float]:
    started = time.perf_counter()
    count, elapsed = 0, 0.0
    while elapsed < seconds:
        send_one()
        elapsed = time.perf_counter() - started
        count += 1
    return count, elapsed


if __name__ == "__main__":
    main()
