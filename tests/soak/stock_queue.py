"""Why the IPC queue is no `multiprocessing.Queue`: both, side by side, on their bad days.

Not collected by pytest.  Run it from the checkout; it takes some seconds:

    python tests/soak/stock_queue.py

Each trial forks a process that puts records, as a server process does, and ends or
stops that process at the worst moment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import queue
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

from lazr_smtptest._wire.ipc_queue import RecordReader, RecordWriter

#: Records that a process puts before it is killed, and octets in each.
PUTS = 40
SIZE = 1000

#: Octets of a record that is larger than any pipe, so that it gets stuck half way.
LARGE = 4_000_000

#: Seconds after which a call that has not returned is said to block.
BLOCKED = 1.0

CONTEXT = multiprocessing.get_context("fork")


class Queue(Protocol):
    """One kind of queue: made in this process, filled in the other."""

    def put(self, value: bytes) -> None: ...
    def take_all(self) -> int: ...
    def close(self) -> None: ...


class Stock:
    """`multiprocessing.Queue`."""

    def __init__(self) -> None:
        self.queue: Any = CONTEXT.Queue()

    def put(self, value: bytes) -> None:
        self.queue.put(value)

    def take_all(self) -> int:
        count = 0
        try:
            while True:
                self.queue.get(timeout=0.1)
                count += 1
        except queue.Empty:
            return count

    def close(self) -> None:
        self.queue.close()
        self.queue.cancel_join_thread()


class Pipe:
    """The IPC queue of this package."""

    def __init__(self) -> None:
        self.ends: tuple[Connection, Connection] = CONTEXT.Pipe(duplex=False)
        self.reader = RecordReader(self.ends[0].fileno())
        self.writer = RecordWriter(self.ends[1].fileno(), lambda: None)

    def put(self, value: bytes) -> None:
        self.writer.write(value)

    def take_all(self) -> int:
        count = 0
        while records := self.reader.read():
            count += len(records)
        return count

    def close(self) -> None:
        for end in self.ends:
            end.close()


KINDS: list[Callable[[], Queue]] = [Stock, Pipe]


def run(target: Callable[..., object], *args: object) -> multiprocessing.process.BaseProcess:
    process = CONTEXT.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def put_and_die(filled: Queue) -> NoReturn:
    for _ in range(PUTS):
        filled.put(b"x" * SIZE)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def lost_at_kill(kind: Callable[[], Queue]) -> int:
    """Count the records that were put by a process, and went with it."""
    filled = kind()
    process = run(put_and_die, filled)
    process.join(10)
    lost = PUTS - filled.take_all()
    filled.close()
    return lost


def put_large(filled: Queue) -> NoReturn:
    filled.put(b"x" * LARGE)
    time.sleep(60)
    raise AssertionError("it was to be killed")


def blocks_half_way(kind: Callable[[], Queue]) -> bool:
    """Say whether a reader blocks on a record whose writer is stopped half way through."""
    filled = kind()
    process = run(put_large, filled)
    assert process.pid is not None
    # Until the pipe is full, and no more comes of the record.
    reader = filled.queue._reader if isinstance(filled, Stock) else filled.ends[0]  # type: ignore[attr-defined]
    assert reader.poll(10)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    taking = threading.Thread(target=filled.take_all, daemon=True)
    taking.start()
    taking.join(BLOCKED)
    blocks = taking.is_alive()
    process.kill()
    process.join(10)
    filled.close()
    return blocks


def microseconds_to_open(kind: Callable[[], Queue], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        kind().close()
    return (time.perf_counter() - started) / times * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="processes to kill, of each kind")
    runs = parser.parse_args().runs
    print(f"Python {platform.python_version()}, {platform.system()}; {runs} runs of each")
    border = f"{'=' * 34}  {'=' * 22}  {'=' * 10}"
    print("", border, f"{'what':34}  {'multiprocessing.Queue':>22}  {'IPC queue':>10}", sep="\n")
    print(border)
    # In turn, so that a busy moment hits both.
    lost = [[lost_at_kill(kind) for kind in KINDS] for _ in range(runs)]
    stock, ours = ([row[n] for row in lost] for n in (0, 1))
    print(
        f"{f'lost of {PUTS}, killed right after':34}  "
        f"{f'{min(stock)} to {max(stock)}':>22}  {f'{min(ours)} to {max(ours)}':>10}"
    )
    blocked = [[blocks_half_way(kind) for kind in KINDS] for _ in range(3)]
    for_ever = ["blocks" if any(row[n] for row in blocked) else "returns" for n in (0, 1)]
    print(f"{'reading half a record':34}  {for_ever[0]:>22}  {for_ever[1]:>10}")
    opened = [[microseconds_to_open(kind, 200) for kind in KINDS] for _ in range(5)]
    cost = [statistics.median(row[n] for row in opened) for n in (0, 1)]
    print(f"{'microseconds to open':34}  {cost[0]:>22.0f}  {cost[1]:>10.0f}")
    print(border)
    return 0 if not any(ours) and for_ever[1] == "returns" else 1


if __name__ == "__main__":
    sys.exit(main())
