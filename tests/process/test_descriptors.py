"""The descriptors of a forked server process: what it was given, and no more."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from types import SimpleNamespace

import pytest
from global_queue import WithGlobal, results
from helpers import send_to

from lazr_smtptest import Controller, QueueController, Server
from lazr_smtptest._wire import channel

#: Prints in a handler, with this descriptor closed when the program begins, so that
#: the first file that it opens gets the number.
CLOSED = """
import smtplib, sys
from lazr_smtptest import Controller, MessageQueue, QueueServer

database = open(sys.argv[1], "wb", buffering=0)
assert database.fileno() == int(sys.argv[2])

class Printing(QueueServer):
    def handle_message(self, message):
        print("to standard output", flush=True)
        print("to standard error", file=sys.stderr, flush=True)
        super().handle_message(message)

class Holding(Printing):
    database = database

for kind in Printing, Holding:
    inbox = MessageQueue()
    with Controller(kind("127.0.0.1", 0, inbox), start_method=sys.argv[3]) as controller:
        with smtplib.SMTP(controller.host, controller.port) as client:
            client.sendmail("kim@example.com", "lee@example.com", "Subject: x")
    assert inbox.get_nowait()["Subject"] == "x"
database.write(b"the test's own")
"""


def test_a_multiprocessing_queue_brings_results_home():
    with Controller(WithGlobal()) as controller:
        send_to(controller, "one")
        assert results.get(timeout=10) == "one"


def test_what_a_server_has_is_not_looked_at_in_the_test_process():
    """To ask such a file for its descriptor writes it to disk."""

    class Recording(Server):
        def handle_message(self, message):
            self.file.write(message["Subject"].encode())
            self.file.flush()
            return f"250 {self.file.fileno()}"

    with tempfile.SpooledTemporaryFile() as file:
        server = Recording("127.0.0.1", 0)
        server.file = file
        with Controller(server, start_method="fork") as controller:
            send_to(controller, "to the copy")
        assert not file._rolled
        assert file.read() == b""


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


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_file_in_the_place_of_a_standard_stream(descriptor, tmp_path):
    """What a handler prints does not go into it, even if the server holds that file."""
    path = tmp_path / "database.bin"
    command = [sys.executable, "-c", CLOSED, str(path), str(descriptor), "fork"]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {descriptor}>&-', "sh", *command],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"the test's own"
    printed = {1: "to standard output\n" * 2, 2: "to standard error\n" * 2}
    printed.pop(descriptor, None)
    assert {1: done.stdout, 2: done.stderr} == {1: "", 2: "", **printed}


def test_standard_streams_that_were_put_elsewhere(tmp_path):
    """By dup2(), as pytest does it: what a handler prints goes there, too."""
    script = (
        "import os, sys; os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1);"
        "from helpers import send_to; from lazr_smtptest import Controller, Server;"
        "Printing = type('Printing', (Server,), {'handle_message': lambda s, m: print('hi')});"
        "controller = Controller(Printing()); controller.start();"
        "send_to(controller, 'x'); controller.stop()"
    )
    path = tmp_path / "output.txt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, env=environment, timeout=15, check=True)
    assert path.read_text() == "hi\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pipes have one size")
@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY, errno.EINVAL, errno.ENOSYS])
def test_pipes_that_cannot_be_enlarged(number, monkeypatch):
    """As in some sandboxes; a smaller pipe will do."""

    refused = []

    def refuse(fd, command, *arguments):
        refused.append(command)
        raise OSError(number, os.strerror(number))

    # Not fcntl.fcntl, which a server's start does not take from a test.
    system = SimpleNamespace(fcntl=refuse, F_SETPIPE_SZ=fcntl.F_SETPIPE_SZ)
    monkeypatch.setattr(channel, "fcntl", system)
    with QueueController() as controller:
        assert set(refused) == {fcntl.F_SETPIPE_SZ}
        send_to(controller, "one")
        assert controller.queue.get_nowait()["Subject"] == "one"
