"""Which descriptors a server has been given, so that a forked process keeps them."""

from __future__ import annotations

import multiprocessing
import socket
import sys
import tempfile
import types
from collections import deque

from global_queue import WithGlobal, results

from lazr_smtptest import Server
from lazr_smtptest._child.inherited import find_coverage, reachable_descriptors


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
            found = reachable_descriptors(server)
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

    found = reachable_descriptors(Closing())
    assert writer.fileno() in found
    assert reader.fileno() not in found
    assert unused.fileno() not in found
    assert results._writer.fileno() in reachable_descriptors(WithGlobal())
    for end in (reader, writer, unused, also_unused):
        end.close()


def test_what_is_closed_or_no_file_is_passed_over():
    server = Server()
    server.file = tempfile.TemporaryFile()
    server.file.close()
    server.myself = server
    server.text = "fileno"
    assert reachable_descriptors(server) == set()


def test_a_module_of_ones_own_that_is_called_coverage(monkeypatch):
    monkeypatch.setitem(sys.modules, "coverage", types.ModuleType("coverage"))
    assert find_coverage() is None
