"""Any interleaving of what a test can do agrees with a list.

And of what can happen to it: the second machine's server process also gets
killed, and stopped by a signal, at any moment.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import smtplib
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from helpers import connected, gone, send, state, subjects, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from lazr_smtptest import (
    MessageNotReceived,
    NotRunning,
    QueueController,
    ServerDied,
    ServerStuck,
    UnexpectedMessage,
)

CLIENTS = 3


class Model(RuleBasedStateMachine):
    """The list is what was accepted and not yet taken, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = QueueController(reset_timeout=5)
        self.dead = self.hung = False
        self.stopped = True
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
            self.dead = self.stopped = False
        assert self.running

    @rule()
    def stop(self) -> None:
        self.controller.stop()
        self._hang_up()
        self.stopped = True
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
            with pytest.raises(ServerDied if self.dead else queue.Empty):
                self.controller.queue.get(block, 0.01)

    @rule()
    def iterate(self) -> None:
        taken = []
        with pytest.raises(ServerDied) if self.dead else nullcontext():
            for message in self.controller:
                taken.append(message["subject"])  # noqa: PERF401 - it may raise
        assert taken == self.expected
        self.expected.clear()

    @rule()
    def iterate_a_little(self) -> None:
        with pytest.raises(ServerDied) if self.dead and not self.expected else nullcontext():
            for message in self.controller:
                assert message["subject"] == self.expected.pop(0)
                break

    @rule()
    def qsize(self) -> None:
        if self.dead and not self.expected:
            # It may know already, or it may not: it makes no system call.
            with contextlib.suppress(ServerDied):
                assert self.controller.queue.qsize() == 0
            return
        assert self.controller.queue.qsize() == len(self.expected)
        assert self.controller.queue.empty() == (not self.expected)

    @rule()
    def reset(self) -> None:
        if self.running:
            self.controller.reset()
            self.expected.clear()
        else:
            with pytest.raises(NotRunning if self.stopped else ServerDied):
                self.controller.reset()


class BadDays(Model):
    """Every message here fits into the pipe, so a dead process loses none."""

    @precondition(lambda self: self.running)
    @rule()
    def kill(self) -> None:
        pid = self.controller.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
        self._hang_up()
        self.dead = True

    # Once in a run: to find that there is no stack to show takes a second.
    @precondition(lambda self: self.running and not self.hung)
    @rule()
    def hang(self) -> None:
        self.hung = True
        pid = self.controller.pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state(pid) == "T")
        try:
            self.qsize()
            self.get(block=False)
            self.controller._reset_timeout = 0.02
            with pytest.raises(ServerStuck):
                self.controller.reset()
        finally:
            self.controller._reset_timeout = 5
            os.kill(pid, signal.SIGCONT)
        # The reset that was given up is made when the process goes on.
        self.controller.reset()
        self.expected.clear()


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)

TestModel = Model.TestCase
TestModel.settings = SETTINGS

TestBadDays = BadDays.TestCase
TestBadDays.settings = settings(SETTINGS, max_examples=8)


# Waiting for some messages leaves the others where they are.


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[QueueController, smtplib.SMTP]]:
    with QueueController() as controller, connected(controller) as client:
        yield controller, client


words = st.sampled_from(["a", "b", "c", "ab", "abc"])
steps = st.one_of(
    st.tuples(st.just("send"), words, st.none()),
    st.tuples(st.just("send"), words, st.none()),
    st.tuples(st.just("get"), st.none(), st.none()),
    st.tuples(st.just("wait"), words, st.none()),
    st.tuples(st.just("wait_many"), words, st.integers(1, 4)),
    st.tuples(st.just("expect_none"), words, st.none()),
    st.tuples(st.just("reset"), st.none(), st.none()),
)


def found_in(model: list[str], part: str, count: int) -> list[str] | None:
    """Take the first so many from a list, as `MessageQueue.wait_many` should."""
    found = [subject for subject in model if part in subject][:count]
    if len(found) < count:
        return None
    for subject in found:
        model.remove(subject)
    return found


@settings(max_examples=60, deadline=None, derandomize=bool(os.environ.get("CI")))
@given(st.lists(steps, max_size=25))
def test_any_sequence_agrees_with_a_list(shared, sequence):
    controller, client = shared
    controller.reset()
    model: list[str] = []
    for number, (what, part, count) in enumerate(sequence):
        if what == "send":
            send(client, f"{part} {number}")
            model.append(f"{part} {number}")
        elif what == "get":
            if model:
                assert controller.queue.get_nowait()["subject"] == model.pop(0)
            else:
                with pytest.raises(queue.Empty):
                    controller.queue.get_nowait()
        elif what == "expect_none":
            present = [subject for subject in model if part in subject]
            try:
                controller.expect_none(0, subject=part)
            except UnexpectedMessage as error:
                assert error.message["subject"] == present[0]
            else:
                assert not present
        elif what == "reset":
            controller.reset()
            model.clear()
        else:
            expected = found_in(model, part, count or 1)
            try:
                if what == "wait":
                    taken = [controller.wait(0, subject=part)]
                else:
                    taken = controller.wait_many(count, 0, subject=part)
            except MessageNotReceived:
                assert expected is None
            else:
                assert subjects(taken) == expected
        assert subjects(controller.messages) == model
        assert controller.queue.qsize() == len(model)
