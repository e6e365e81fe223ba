"""Any interleaving of what a test can do agrees with a list."""

from __future__ import annotations

import os
import queue
import smtplib

import pytest
from helpers import send, subjects
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from lazr_smtptest import NotRunning, QueueController

CLIENTS = 3


class Model(RuleBasedStateMachine):
    """The list is what was accepted and not yet taken, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = QueueController()
        self.clients: dict[int, smtplib.SMTP] = {}
        self.expected: list[str] = []
        self.sent = 0

    def teardown(self) -> None:
        self._hang_up()
        self.controller.stop()

    def _hang_up(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    @property
    def running(self) -> bool:
        return self.controller.is_running

    @rule()
    def start(self) -> None:
        if not self.running:
            self.controller.start()
        assert self.running

    @rule()
    def stop(self) -> None:
        self.controller.stop()
        self._hang_up()
        assert not self.running

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, CLIENTS - 1), count=st.integers(1, 4))
    def send(self, number: int, count: int) -> None:
        if number not in self.clients:
            self.clients[number] = smtplib.SMTP(
                self.controller.host, self.controller.port, "client.example", timeout=10
            )
        for _ in range(count):
            self.sent += 1
            send(self.clients[number], self.sent)
            self.expected.append(str(self.sent))

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, CLIENTS - 1))
    def hang_up_or_rset(self, number: int) -> None:
        client = self.clients.get(number)
        if client is None:
            return
        client.rset()
        if number % 2:
            client.quit()
            del self.clients[number]

    @rule(block=st.booleans())
    def get(self, block: bool) -> None:
        if self.expected:
            message = self.controller.queue.get(block, 10.0)
            assert message["subject"] == self.expected.pop(0)
        else:
            with pytest.raises(queue.Empty):
                self.controller.queue.get(block, 0.01)

    @rule()
    def iterate(self) -> None:
        assert subjects(self.controller) == self.expected
        self.expected.clear()

    @rule()
    def iterate_a_little(self) -> None:
        for message in self.controller:
            assert message["subject"] == self.expected.pop(0)
            break

    @rule()
    def qsize(self) -> None:
        assert self.controller.queue.qsize() == len(self.expected)
        assert self.controller.queue.empty() == (not self.expected)

    @rule()
    def reset(self) -> None:
        if self.running:
            self.controller.reset()
            self.expected.clear()
        else:
            with pytest.raises(NotRunning):
                self.controller.reset()


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
