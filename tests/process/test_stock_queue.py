"""A queue of the test's own as a server's queue; and why ours is no stock queue."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import socket
import subprocess
import sys
import threading

import pytest
from helpers import connected, send
from paths import ROOT

from lazr_smtptest import Controller, HandlerError, QueueServer
from lazr_smtptest._parent import feeder


def test_what_the_client_was_told_is_true_at_once():
    stock = multiprocessing.Queue()
    with Controller(QueueServer("localhost", 0, stock)) as controller:
        with connected(controller) as client:
            for number in range(300):
                send(client, number)
                assert stock.get_nowait()["subject"] == str(number)
            for number in range(100):
                send(client, number)
        assert [stock.get_nowait()["subject"] for _ in range(100)] == list(map(str, range(100)))
        with pytest.raises(queue.Empty):
            stock.get_nowait()


def test_reset_empties_it():
    stock = multiprocessing.Queue()
    with Controller(QueueServer("localhost", 0, stock)) as controller:
        with connected(controller) as client:
            for number in range(20):
                send(client, number)
        controller.reset()
        assert stock.empty()


def test_more_than_its_pipe_has_room_for():
    """Its thread waits for the test to read, and clients do not wait for that."""
    stock = multiprocessing.Queue()
    body = "x" * 70 + "\r\n"
    with Controller(QueueServer("localhost", 0, stock)) as controller:
        with connected(controller) as client:
            for number in range(3):
                send(client, number, body * 2000)
        assert [stock.get(timeout=5)["subject"] for _ in range(3)] == ["0", "1", "2"]


def test_what_is_used_of_its_inside_is_there():
    """Or else a message may be some moments later than its 250."""
    stock = multiprocessing.Queue()
    assert feeder._is_stock(stock)
    stock.put("x")
    assert stock.get(timeout=5) == "x"
    assert isinstance(stock._notempty, threading.Condition)
    assert not any(map(feeder._is_stock, (queue.Queue(), multiprocessing.SimpleQueue())))


def test_the_program_that_compares_them():
    """The pipe loses nothing, and its reader never blocks; or it exits with 1."""
    program = ROOT / "tests" / "soak" / "stock_queue.py"
    done = subprocess.run(
        [sys.executable, str(program), "--runs", "2"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    last = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert (last["lost"], last["reading"]) == ("0", "returns")


# Any queue that is not ours.


class SpeaksFirst(Controller):
    """Has a client that is there before the queue is fed."""

    def _connect_queue(self, link):
        self.client = socket.create_connection((self.host, self.port), 10)
        self.client.sendall(b"EHLO client.example\r\nRSET\r\n")
        link.wait_for(lambda: link.messages or None, 5)
        super()._connect_queue(link)


def test_a_reset_that_comes_before_the_queue_is_fed():
    """It is acknowledged, so that all acknowledgements after it are for their messages."""
    server = QueueServer("localhost", 0, queue.Queue(), reset_on_rset=True)
    with SpeaksFirst(server) as controller, controller.client:
        with connected(controller) as other:
            for number in range(3):
                send(other, number)
                assert server.queue.get_nowait()["subject"] == str(number)


def test_a_log_handler_that_raises_does_not_end_the_feeding(monkeypatch):
    class Logging(QueueServer):
        def handle_message(self, message):
            logging.getLogger("app").warning("a message")
            super().handle_message(message)

    def refuse(record):
        raise RuntimeError("no records today")

    target: queue.Queue = queue.Queue()
    with Controller(Logging("localhost", 0, target)) as controller:
        monkeypatch.setattr(logging.getLogger("app"), "handle", refuse)
        with connected(controller) as client:
            for number in range(3):
                send(client, number)
                assert target.get_nowait()["subject"] == str(number)
        with pytest.raises(HandlerError, match="a log handler raised RuntimeError"):
            controller.stop()
