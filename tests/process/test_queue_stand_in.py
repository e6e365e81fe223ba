"""What stands in for a QueueServer's queue in the server process: to read, it is empty."""

from __future__ import annotations

import queue

import pytest
from helpers import send_to, subjects

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer


class Emptying(QueueServer):
    """Resets as servers of 2.x did, and sends what it can see of its queue."""

    def reset(self):
        super().reset()
        while True:
            try:
                self.queue.get_nowait()
            except queue.Empty:
                break


@pytest.mark.parametrize("kind", [MessageQueue, queue.Queue])
def test_a_reset_that_empties_the_queue_itself(kind, start_method):
    inbox = kind()
    with Controller(Emptying("localhost", 0, inbox), start_method=start_method) as controller:
        send_to(controller, "before")
        assert inbox.qsize() == 1
        controller.reset()
        assert inbox.qsize() == 0
        send_to(controller, "after")
        assert subjects([inbox.get_nowait()]) == ["after"]
        controller.reset()


class Looking(QueueServer):
    def handle_message(self, message):
        self.queue.put(eval(message["subject"], {"self": self, "queue": queue}))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.queue.empty()", True),
        ("self.queue.qsize()", 0),
        ("self.queue.full()", False),
        ("self.queue.join()", None),
        ("isinstance(self.queue, queue.Queue)", True),
        ("self.queue.queue.clear()", None),
        ("self.queue.mutex.locked()", False),
    ],
)
def test_it_looks_empty(expression, value):
    controller = Controller(Looking("localhost", 0, MessageQueue()))
    with controller:
        send_to(controller, expression)
        assert controller.server.queue.get_nowait() == value


class Trying(QueueServer):
    def handle_message(self, message):
        call, arguments = eval(message["subject"], {"self": self})
        try:
            call(*arguments)
        except queue.Empty:
            self.queue.put("empty")


@pytest.mark.parametrize(
    "call", ["self.queue.get_nowait, ()", "self.queue.get, ()", "self.queue.get, (True, 60)"]
)
def test_getting_says_so_at_once(call):
    with Controller(Trying("localhost", 0, MessageQueue())) as controller:
        send_to(controller, call)
        assert controller.server.queue.get_nowait() == "empty"


class Putting(QueueServer):
    def handle_message(self, message):
        self.queue.put_nowait("one")
        self.queue.put("two", False)
        self.queue.put("three", timeout=5)
        assert self.queue.empty()


def test_all_ways_to_put_reach_the_test():
    class PuttingController(QueueController):
        def _make_server(self, host, port):
            self.server = Putting(host, port, self.queue)

    with PuttingController() as controller:
        send_to(controller, "anything")
        assert list(controller) == ["one", "two", "three"]
