"""A program that takes one large message, and prints what memory that took at most, in octets.

It is given the size of the message.  What counts is from before the message to when the
test process has its content.  Another process sends it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import peers
from clients import PATIENCE, connected, make_message, send
from peers import OURS, Running


def main() -> None:
    size = int(sys.argv[1])
    with peers.ours(data_size_limit=None)[OURS]() as server:
        assert server.queue is not None
        # It has worked once, so what it loads at its first message is there.
        with connected(server) as client:
            send(client, make_message(1024), 1)
        assert server.queue.get(timeout=PATIENCE).raw
        pids = {"test": os.getpid(), "server": server.pid}
        before = {name: _forget_peak(pid) for name, pid in pids.items()}
        sender = multiprocessing.get_context("fork").Process(
            target=_send_large, args=(Running(server.port, lambda: None), size)
        )
        sender.start()
        sender.join(PATIENCE)
        assert sender.exitcode == 0
        received = len(server.queue.get(timeout=PATIENCE).raw)
        peaks = {name: _read(pid, "VmHWM") - before[name] for name, pid in pids.items()}
        print(json.dumps({"message": received, **peaks}))


def _send_large(server: Running, size: int) -> None:
    message = make_message(size)
    with connected(server) as client:
        client.ehlo()
        client.mail("kim@example.com")
        client.rcpt("lee@example.com")
        client.docmd("DATA")
        client.send(message)
        code, text = client.docmd(".")
        assert code == 250, text


def _forget_peak(pid: int | None) -> int:
    """Have the kernel look for the peak from now on; return what is in use."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _read(pid, "VmRSS")


def _read(pid: int | None, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
