"""What a forked server process keeps."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections import Counter, deque

import pytest
from helpers import send_to

from lazr_smtptest import Controller, QueueController, Server
from lazr_smtptest._given import given_descriptors

results = multiprocessing.get_context("fork").Queue()


class WithGlobal(Server):
    def handle_message(self, message):
        report(message["subject"])


def report(subject):
    results.put(subject)


class Slotted:
    __slots__ = ("deep",)


def test_attributes_however_deep():
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as two:
        with tempfile.TemporaryFile() as other, socket.socket() as sock:
            server = Server()
            server.file = one
            server.more = {"list": [deque([(two,)])]}
            server.slotted = Slotted()
            server.slotted.deep = sock
            found = given_descriptors(server)
            assert {one.fileno(), two.fileno(), sock.fileno()} <= found
            assert other.fileno() not in found


def test_closures_and_globals_of_the_class():
    reader, writer = multiprocessing.Pipe(duplex=False)
    unused, also_unused = multiprocessing.Pipe()

    class Closing(Server):
        def handle_message(self, message):
            def inner():
                writer.send(message["subject"])

            inner()

    found = given_descriptors(Closing())
    assert writer.fileno() in found
    assert reader.fileno() not in found
    assert unused.fileno() not in found
    assert results._writer.fileno() in given_descriptors(WithGlobal())
    for end in (reader, writer, unused, also_unused):
        end.close()


def test_what_is_closed_or_no_file_is_passed_over():
    server = Server()
    server.file = tempfile.TemporaryFile()
    server.file.close()
    server.myself = server
    server.text = "fileno"
    assert given_descriptors(server) == set()


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
