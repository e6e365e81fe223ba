"""Requests to the server process that get no answer in time: nothing of them is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from helpers import (
    EVENT_LOOPS,
    awaited,
    connected,
    loop_name,
    send,
    send_to,
    state,
    subjects,
    until,
)

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer, ServerStuck

#: More than fits into a pipe.
LONG_REPLY = "\n".join(["451 " + "x" * 900] * 200)


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def controller(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    with QueueController(reset_timeout=0.2, uvloop=request.param) as controller:
        yield controller


@contextlib.contextmanager
def stopped(controller: Controller) -> Iterator[None]:
    """Stop the server process by a signal, and let it go on."""
    assert controller.pid is not None
    os.kill(controller.pid, signal.SIGSTOP)
    until(lambda: state(controller.pid) == "T")
    try:
        yield
    finally:
        os.kill(controller.pid, signal.SIGCONT)


@pytest.mark.parametrize("reply", ["451 4.7.1 Later", LONG_REPLY], ids=["short", "half written"])
def test_a_fault_that_got_no_answer_is_not_in_force(controller, reply):
    with stopped(controller), pytest.raises(ServerStuck):
        controller.fault("RCPT", reply)
    controller.reset()
    send_to(controller, "one")
    assert subjects(controller) == ["one"]


def test_it_is_not_in_force_for_a_moment(controller):
    """No other request is needed to undo it."""
    with connected(controller) as client:
        client.ehlo()
        with stopped(controller), pytest.raises(ServerStuck):
            controller.fault("NOOP", "451 4.7.1 Later")
        assert client.noop()[0] == 250


def test_a_gate_that_got_no_answer_is_open(controller):
    with stopped(controller), pytest.raises(ServerStuck):
        controller.gate("MAIL")
    send_to(controller, "one")
    assert subjects(controller) == ["one"]


def test_requests_that_found_no_room(controller):
    """Half of the first is in the pipe; all others wait behind it, and are taken back."""
    with stopped(controller):
        for _ in range(3):
            with pytest.raises(ServerStuck, match="took no more requests"):
                controller.fault("RCPT", LONG_REPLY)
        with pytest.raises(ServerStuck, match="took no more requests"):
            controller.sessions()
    working = controller.fault("NOOP", "451 4.7.1 Later", times=1)
    with connected(controller) as client:
        assert client.noop()[0] == 451
        send(client, "one")
    assert working.fired == 1
    assert subjects(controller) == ["one"]


def test_a_signal_handler_that_raises_takes_a_request_back(controller):
    """As a time limit for the test does."""

    def give_up(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        controller._reset_timeout = 10.0
        with stopped(controller):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                controller.fault("NOOP", "451 4.7.1 Later")
    finally:
        signal.signal(signal.SIGALRM, before)
    with connected(controller) as client:
        assert client.noop()[0] == 250


class Waiting(QueueServer):
    """Handles the message "wait" until the test lets it."""

    def __init__(self, queue: MessageQueue) -> None:
        super().__init__("localhost", 0, queue)
        self.go_on = multiprocessing.Event()

    def handle_message(self, message):
        if message["subject"] == "wait":
            self.go_on.wait(15)
        super().handle_message(message)


def test_a_reset_that_got_no_answer_forgets_nothing():
    """It was waiting behind a handler, and does not come later."""
    inbox = MessageQueue()
    server = Waiting(inbox)
    with Controller(server, reset_timeout=0.2) as controller, connected(controller) as client:
        send(client, "first")
        waiting = threading.Thread(target=send, args=(client, "wait"), daemon=True)
        waiting.start()
        until(lambda: controller.sessions()[0].dialogue[-1].text.endswith("of content"))
        with pytest.raises(ServerStuck, match=r"did not answer reset\(\)"):
            controller.reset()
        server.go_on.set()
        waiting.join(10)
        send(client, "last")
        assert subjects(inbox.messages) == ["first", "wait", "last"]


class SlowToReset(QueueServer):
    """Takes its time to reset, which the test lets it."""

    def __init__(self, queue: MessageQueue) -> None:
        super().__init__("localhost", 0, queue)
        self.has_begun, self.go_on = multiprocessing.Event(), multiprocessing.Event()

    def reset(self):
        self.has_begun.set()
        self.go_on.wait(15)


def test_a_reset_that_has_begun_is_finished():
    """Half of one would be worse: messages gone, say, and faults still there."""
    inbox = MessageQueue()
    server = SlowToReset(inbox)
    with Controller(server, reset_timeout=0.2) as controller:
        send_to(controller, "first")
        fault = controller.fault("NOOP", "451 4.7.1 Later")
        with pytest.raises(ServerStuck, match=r"did not answer reset\(\)"):
            controller.reset()
        assert server.has_begun.wait(5)
        server.go_on.set()
        until(inbox.empty)
        with connected(controller) as client:
            assert client.noop()[0] == 250
        assert fault.fired == 0


def test_a_stuck_server_while_time_stands_still(controller, monkeypatch):
    """A test may have replaced the clock that `multiprocessing` waits by."""
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with stopped(controller), pytest.raises(ServerStuck, match="does not show its stack"):
        controller.reset()


def test_a_call_from_a_signal_handler_keeps_others_woken(controller):
    """The thread that it interrupts still watches when it is over."""
    seen = []

    def look(number, frame):
        seen.append(len(controller.sessions()))

    before = signal.signal(signal.SIGUSR2, look)
    try:
        beginning = threading.Thread(target=begin_anew, args=(controller, seen), daemon=True)
        beginning.start()
        with pytest.raises(queue.Empty):
            controller.queue.get(timeout=15)
        beginning.join(5)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [0]


def begin_anew(controller: QueueController, seen: list[int]) -> None:
    """Interrupt the main thread while it waits, and then wake it, as the next test does."""
    until(lambda: awaited(controller))
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
    until(lambda: seen)
    until(lambda: awaited(controller))
    controller.queue._begin_anew()
