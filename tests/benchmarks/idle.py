"""A program that starts the named server, and prints what memory that takes, in KiB.

A process of its own: a forked server shares pages with its parent, and shall
not share those of whatever else a benchmark has loaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peers
from clients import connected, make_message, send


def main() -> None:
    contestants = peers.ours() | peers.ours_without_uvloop() | peers.plain()
    with contestants[sys.argv[1]]() as server:
        # It has worked once, so what it loads at its first message is there.
        with connected(server) as client:
            send(client, make_message(1024), 1)
        server.forget()
        print(json.dumps(_memory(server.pid)))


def _memory(pid: int | None) -> dict[str, int]:
    """Read the sums over a process's mappings.

    Pss counts a page that n processes share as an nth of a page; what is
    private is what would be free without this process.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sums = {name: int(value.split()[0]) for name, value in (s.split(":") for s in lines)}
    private = sums["Private_Clean"] + sums["Private_Dirty"]
    return {"pss": sums["Pss"], "private": private, "rss": sums["Rss"]}


if __name__ == "__main__":
    main()
