"""Bad days, one at a time: each function lives through one and measures it.

The suite runs each a few times, `soak.py` for as long as it is told to.  A
trial raises AssertionError when a promise is broken.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from helpers import Misbehaving, awaited, connected, gone, refused, send, until
from paths import SUPPORT

from lazr_smtptest import QueueController, ServerDied

SENDERS = 4

ORPHAN_SCRIPT = str(SUPPORT / "orphan_script.py")
BUSY_THREADS = str(SUPPORT / "busy_threads.py")


class MisbehavingController(QueueController):
    """Its server does what each message's subject says."""

    def _make_server(self, host, port):
        self.server = Misbehaving(host, port, self.queue, **self.server_options)


def send_and_hang(controller: Any, subject: str) -> socket.socket:
    """Give a client that has sent a message, and waits for the reply."""
    sock = socket.create_connection((controller.host, controller.port), timeout=10)
    sock.sendall(
        b"EHLO a\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
        b"Subject: " + subject.encode() + b"\r\n\r\n.\r\n"
    )
    received = b""
    while b"354" not in received:
        received += sock.recv(1000)
    return sock


class Load:
    """Clients that send as fast as they can, and note what they were told."""

    def __init__(self, controller: QueueController, size: int = 200) -> None:
        self.told: list[str] = []
        self._body = "x" * 70 + "\r\n"
        self._body *= size // len(self._body) + 1
        self._controller = controller
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _run(self, sender: int) -> None:
        try:
            with connected(self._controller) as client:
                for number in range(1_000_000):
                    send(client, f"{sender}-{number}", self._body)
                    self.told.append(f"{sender}-{number}")
        except (OSError, smtplib.SMTPException):
            return  # the server is gone, as it was meant to be

    def join(self) -> None:
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), "a client hangs"


def killed_under_load(start_method: str, rng: random.Random, size: int = 200) -> dict[str, int]:
    """SIGKILL at a random moment; everything is accounted for."""
    controller = QueueController(start_method=start_method)
    controller.start()
    load = Load(controller, size)
    time.sleep(rng.uniform(0.005, 0.15))  # the random moment is the point here
    taken_early = [controller.queue.get_nowait() for _ in range(controller.queue.qsize() // 2)]
    os.kill(controller.pid, signal.SIGKILL)
    load.join()
    taken = [message["subject"] for message in taken_early]
    try:
        while True:
            taken.append(controller.queue.get(timeout=5)["subject"])
    except ServerDied as error:
        died = error
    assert died.exitcode == -signal.SIGKILL, died
    for _ in range(2):  # and so says every call from now on
        try:
            controller.queue.get_nowait()
        except ServerDied as again:
            assert (again.exitcode, again.lost) == (died.exitcode, died.lost)
        else:
            raise AssertionError("a dead server gives a message")
    told = len(load.told)
    assert len(set(taken)) == len(taken), "a message came twice"
    for sender in range(SENDERS):
        numbers = [int(s.split("-")[1]) for s in taken if s.startswith(f"{sender}-")]
        assert numbers == list(range(len(numbers))), "out of order"
    # A client that was being answered at that very moment was told nothing,
    # though its message was counted.
    accepted = len(taken) + died.lost
    assert told <= accepted <= told + SENDERS, (told, len(taken), died.lost)
    missing = set(load.told) - set(taken)
    assert len(missing) <= died.lost, (missing, told, len(taken), died.lost)
    controller.stop()
    return {"told": told, "taken": len(taken), "lost": died.lost}


def blocked_reader_learns_of_death(start_method: str, rng: random.Random) -> dict[str, float]:
    """A blocked get() raises soon after the SIGKILL."""
    controller = QueueController(start_method=start_method)
    controller.start()
    outcome: queue.Queue = queue.Queue()

    def read() -> None:
        try:
            controller.queue.get(timeout=10)
        except ServerDied:
            outcome.put(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: awaited(controller))
    killed = time.monotonic()
    os.kill(controller.pid, signal.SIGKILL)
    delay = outcome.get(timeout=5) - killed
    reader.join(5)
    controller.stop()
    return {"milliseconds": delay * 1000}


def killed_test_process(start_method: str, count: int, others: bool) -> dict[str, float]:
    """SIGKILL to the test process: its servers are gone, their ports free."""
    process = subprocess.Popen(
        [sys.executable, ORPHAN_SCRIPT, start_method, str(count), "others" if others else "-"],
        stdout=subprocess.PIPE,
        text=True,
    )
    kept = [int(pid) for pid in process.stdout.readline().split()]
    servers = [tuple(map(int, s.split(":"))) for s in process.stdout.readline().split()]
    try:
        assert len(servers) == count
        started = time.monotonic()
        process.kill()
        for pid, port in servers:
            until(lambda pid=pid: gone(pid), 5)
            until(lambda port=port: refused(port), 5)
        return {"milliseconds": (time.monotonic() - started) * 1000}
    finally:
        for pid in kept:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.stdout.close()
        process.wait(5)


def crowd_then_stop(count: int, rng: random.Random) -> dict[str, float]:
    """Many connections, some silent, some amidst DATA: stop() does not mind."""
    controller = QueueController()
    controller.start()
    held = []
    try:
        for number in range(count):
            sock = socket.create_connection((controller.host, controller.port), timeout=10)
            held.append(sock)
            if number % 3:
                sock.recv(100)
                sock.sendall(b"EHLO a\r\n")
            if number % 3 == 2:
                sock.sendall(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\nhalf a mess")
        started = time.monotonic()
        controller.stop()
        elapsed = time.monotonic() - started
        assert refused(controller.port)
        with socket.create_server(("127.0.0.1", controller.port)):
            pass
        return {"milliseconds": elapsed * 1000}
    finally:
        for sock in held:
            sock.close()


def much_unread_then_stop(megabytes: int) -> dict[str, float]:
    """Much that nobody has read: stop() is in time, and all of it is readable."""
    controller = QueueController(data_size_limit=None)
    controller.start()
    line = b"x" * 998 + b"\r\n"
    content = line * (10_000_000 // len(line))
    with connected(controller) as client:
        client.ehlo()
        for _ in range(megabytes // 10):
            client.mail("a@example.com")
            client.rcpt("b@example.com")
            code, _ = client.data(content)
            assert code == 250
    started = time.monotonic()
    controller.stop()
    elapsed = time.monotonic() - started
    count = 0
    while controller.queue.qsize():
        message = controller.queue.get_nowait()
        assert message.raw == content
        count += 1
    assert count == megabytes // 10
    return {"milliseconds": elapsed * 1000}
