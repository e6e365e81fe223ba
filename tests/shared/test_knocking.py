"""Who is let in to a shared server, and what becomes of all others; and how many are."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import connection
from pathlib import Path

import pytest
from helpers import send_for, until

from lazr_smtptest import Lease, LeaseError, SharedController, connect

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(params=[0, 1], ids=["unix", "tcp"])
def place(request: pytest.FixtureRequest, shared: SharedController) -> str:
    found: str = shared.addresses[request.param]
    return found


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedController]:
    with SharedController(lease_host="127.0.0.1") as shared:
        yield shared


def dial(place: str) -> socket.socket:
    if "/" in place:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(place)
    else:
        host, _, port = place.rpartition(":")
        sock = socket.create_connection((host, int(port)))
    sock.settimeout(20)
    return sock


def until_closed(sock: socket.socket) -> bytes:
    """Return all that is said until the other side has closed it."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while octets := sock.recv(65536):
            said += octets
    return said


def logged(shared: SharedController, caplog: pytest.LogCaptureFixture) -> str:
    """Return what the server process has logged, when it has."""

    def look() -> str:
        assert shared._link
        shared._link.try_now(lambda: True)
        return caplog.text

    text: str = until(look)
    return text


def frame(octets: bytes) -> bytes:
    """Return octets as `multiprocessing.connection` sends them."""
    return struct.pack("!i", len(octets)) + octets


class Mark:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self._path),)


def record(value: object) -> bytes:
    """Return a value as a record of the IPC queue, to be unpickled at once."""
    octets = pickle.dumps(value)
    return struct.pack("!?QQ", False, len(octets), 0) + octets


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "SMTP": b"EHLO client.example\r\n",
    "a million octets": b"\xff" * 1_000_000,
    "a frame of a million octets": frame(bytes(1_000_000)),
    "a frame of a negative size": struct.pack("!i", -5) + bytes(100),
    "a frame of 2 GB": struct.pack("!i", 0x7FFFFFFF) + bytes(100),
    "a frame of nothing": frame(b""),
    "a short answer": frame(b"no"),
    "an answer in an unknown hash": frame(b"{sha9}" + bytes(32)),
}


@pytest.mark.parametrize("octets", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_is_closed_and_logged(
    shared: SharedController, place: str, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with dial(place) as sock:
        with contextlib.suppress(ConnectionError):  # it reads no more than it must
            sock.sendall(octets)
        until_closed(sock)
    assert "whoever wanted a lease of the server on localhost port" in logged(shared, caplog)
    with connect(place, shared.key) as lease:
        send_for(lease, "one", [lease.address("kim")])
        assert lease.wait(0)["subject"] == "one"


@pytest.mark.parametrize("is_late", [True, False], ids=["in place of an answer", "at once"])
def test_nothing_is_unpickled_before_the_key_is_proved(
    shared: SharedController,
    place: str,
    is_late: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mark = tmp_path / "mark"
    octets = record((1, "begin", Mark(mark)))
    with dial(place) as sock:
        if is_late:
            assert sock.recv(1)
        for piece in octets, frame(octets), frame(pickle.dumps(Mark(mark))):
            with contextlib.suppress(ConnectionError):
                sock.sendall(piece)
        until_closed(sock)
    assert logged(shared, caplog)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Mark(mark)))  # it would have been made
    assert mark.exists()


def test_a_wrong_key_and_a_pickle_behind_it(
    shared: SharedController, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "mark"
    with dial(place) as sock:
        sock.settimeout(None)
        pipe = connection.Connection(os.dup(sock.fileno()))
        challenge = pipe.recv_bytes(256)
        assert challenge.startswith(b"#CHALLENGE#")
        octets = challenge.removeprefix(b"#CHALLENGE#")
        answer = hmac.new(b"0" * 64, octets, hashlib.sha256).digest()
        pipe.send_bytes(b"{sha256}" + answer if octets.startswith(b"{sha256}") else answer[:16])
        with contextlib.suppress(ConnectionError):
            sock.sendall(record((1, "begin", Mark(mark))))
        assert until_closed(sock).endswith(b"#FAILURE#")
        pipe.close()
    assert "had a wrong key" in logged(shared, caplog)
    assert not mark.exists()


def test_a_key_is_not_shown(shared: SharedController, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LeaseError, match="the key is wrong") as caught:
        connect(shared.address, "0" * 64)
    assert shared.key not in f"{caught.value}{logged(shared, caplog)}{shared!r}"


def test_a_client_that_says_nothing_holds_up_nobody(
    shared: SharedController, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(dial(place)) for _ in range(100)]
        silent[0].sendall(b"\0\0")
        for _ in range(20):
            with connect(place, shared.key, timeout=4) as lease:
                assert lease.is_running
        until_closed(silent[0])
        until_closed(silent[-1])
    assert "did not show a key: it did not answer in time" in logged(shared, caplog)


@pytest.mark.parametrize("listens", [True, False])
def test_whatever_else_is_at_an_address(listens: bool) -> None:
    """It is not waited for longer than was said, and nothing of it is unpickled."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        if listens:
            sock.listen()
        with pytest.raises(LeaseError, match="cannot connect to a shared server: 127.0.0.1:"):
            connect(f"127.0.0.1:{sock.getsockname()[1]}", "", timeout=0.2)


# How many there are.


def test_ten_thousand_leases(shared: SharedController) -> None:
    """One after the other, on one connection, as the plugin has them."""
    before = descriptors(shared.pid)
    with connect(shared.address, shared.key) as lease:
        labels = set()
        for n in range(10_000):
            lease._begin(f"test_{n}")
            labels.add(lease.label)
            lease.claim(f"{n}@example.com", f"{n}-*@example.com")
        assert len(labels) == 10_000
        send_for(lease, "last", ["9999@example.com", "1@example.com"])
        assert lease.wait(0)["subject"] == "last"
        until(lambda: descriptors(shared.pid) <= before + 1)
    until(lambda: descriptors(shared.pid) <= before)


def test_many_connections_one_after_the_other(shared: SharedController, place: str) -> None:
    before = descriptors(shared.pid)
    for _ in range(200):
        connect(place, shared.key).close()
    until(lambda: descriptors(shared.pid) <= before + 2)


def test_as_many_leases_as_there_are_descriptors(shared: SharedController, place: str) -> None:
    own = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    leases: list[Lease] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (own + 400, limits[1]))
        with pytest.raises(LeaseError, match=r"a limit is reached: RLIMIT_NOFILE \(ulimit -n\)"):
            while True:
                leases.append(connect(place, shared.key))
        assert len(leases) >= 90
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        addresses = [lease.address("kim") for lease in leases]
        send_for(leases[0], "all", addresses)
        assert [lease.wait(0)["subject"] for lease in leases] == ["all"] * len(leases)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for lease in leases:
            lease.close()
    assert len(os.listdir("/proc/self/fd")) <= own + 2


FEW = """
import logging, resource, sys
from lazr_smtptest import SharedController
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
with SharedController() as shared:
    print(shared.address, shared.key, flush=True)
    sys.stdin.read()
"""


def test_a_server_without_descriptors_takes_leases_again_when_it_has_some() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", FEW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    leases: list[Lease] = []
    try:
        assert owner.stdout
        place, key = owner.stdout.readline().split()
        with pytest.raises(LeaseError, match="it did not answer in time.*its log may say more"):
            while True:
                leases.append(connect(place, key, timeout=5))
        for one in leases[:10]:
            one.close()
        with connect(place, key, timeout=30) as lease:
            send_for(lease, "one", [lease.address("kim"), leases[-1].address("lee")])
            for one in lease, leases[-1]:
                assert one.wait(0)["subject"] == "one"
        _, log = owner.communicate(timeout=30)
        assert "cannot take another lease: a limit is reached: RLIMIT_NOFILE (ulimit -n) is" in log
    finally:
        for one in leases:
            one.close()
        owner.kill()
        owner.communicate()


def descriptors(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
