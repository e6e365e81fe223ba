"""The descriptors of a forked server process: what it was given, and no more."""

from __future__ import annotations

import os
import socket
import tempfile
from collections import Counter

import pytest
from global_queue import WithGlobal, results
from helpers import send_to

from lazr_smtptest import Controller, QueueController


def test_a_multiprocessing_queue_brings_results_home():
    with Controller(WithGlobal()) as controller:
        send_to(controller, "one")
        assert results.get(timeout=10) == "one"


@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_the_server_process_holds_no_copy_of_anything_else(kind):
    if kind == "socket":
        mine = socket.create_server(("127.0.0.1", 0))
        address = mine.getsockname()
        with QueueController(start_method="fork") as controller:
            mine.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=5)
            send_to(controller, "still works")
    else:
        reader, writer = os.pipe()
        with QueueController(start_method="fork") as controller:
            os.close(writer)
            os.set_blocking(reader, False)
            assert os.read(reader, 1) == b"", "end of file at once"
            send_to(controller, "still works")
        os.close(reader)


def test_descriptors_of_the_server_process():
    """The channel, the listening socket, the event loop: no more, beside the standard three."""
    extra = [tempfile.TemporaryFile() for _ in range(20)]
    try:
        with QueueController("127.0.0.1", start_method="fork", uvloop=False) as controller:
            folder = f"/proc/{controller.pid}/fd"
            held = Counter(
                os.readlink(f"{folder}/{fd}").partition(":")[0]
                for fd in os.listdir(folder)
                if int(fd) > 2
            )
            del held[os.devnull]
            # The event loop has a socket pair to wake itself with.
            assert held == {"pipe": 4, "socket": 1 + 2, "anon_inode": 1}
    finally:
        for file in extra:
            file.close()
