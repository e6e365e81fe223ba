"""Waiting for mail while others wait, too, or the server dies, stops or is reset."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import Misbehaving, awaited, connected, send, send_to, subjects, until
from waiting import CALLS, LONG, SOON, Stopwatch, begin, each_call, kill

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageNotReceived,
    MessageQueue,
    NotRunning,
    QueueController,
    ServerDied,
    UnexpectedMessage,
)

# Several threads.


def test_threads_wait_for_different_messages(controller, pool):
    def read(name: str) -> list[str]:
        return subjects(controller.wait(10, subject=f"for {name},") for _ in range(50))

    reading = {name: pool.submit(read, name) for name in "abcd"}
    sent = [f"for {name}, {number}" for number in range(50) for name in "dbca"]
    send_to(controller, *sent)
    for name, future in reading.items():
        assert future.result(10) == [subject for subject in sent if f"for {name}," in subject]
    assert controller.messages == []


@pytest.mark.parametrize("many", [1, 5])
def test_threads_wait_for_the_same_messages(controller, pool, many):
    def read() -> list[str]:
        taken = []
        for _ in range(50 // many):
            found = subjects(controller.wait_many(many, 10, subject="job"))
            assert found == sorted(found)
            taken += found
        return taken

    reading = [pool.submit(read) for _ in range(4)]
    jobs = [f"job {number:03}" for number in range(200)]
    send_to(controller, "first", *jobs, "last")
    taken = [future.result(10) for future in reading]
    assert sorted(job for found in taken for job in found) == jobs
    for found in taken if many == 1 else ():
        assert found == sorted(found)
    assert subjects(controller) == ["first", "last"]


def test_threads_wait_get_and_look_at_the_same_messages(controller, pool):
    taken: list[str] = []

    def wait() -> None:
        taken.extend(controller.wait(10)["subject"] for _ in range(100))

    def get() -> None:
        taken.extend(controller.queue.get(timeout=10)["subject"] for _ in range(100))

    def look() -> None:
        while len(taken) < 200:
            found = subjects(controller.messages)
            assert found == sorted(found)

    working = [pool.submit(work) for work in (wait, get, look)]
    numbers = [f"{number:03}" for number in range(200)]
    send_to(controller, *numbers)
    for future in working:
        future.result(10)
    assert sorted(taken) == numbers


def test_a_message_for_many_that_wait_goes_to_one(controller, pool):
    waiting = [begin(pool, controller, controller.wait, LONG, subject="one")]
    waiting += [pool.submit(controller.wait, LONG, subject="one") for _ in range(3)]
    for number in range(4):
        assert sum(future.done() for future in waiting) == number
        send_to(controller, "one")
        until(lambda done=number + 1: sum(future.done() for future in waiting) == done)
    assert len({id(future.result(0)) for future in waiting}) == 4


# The server process dies.


@each_call
def test_who_waits_learns_of_the_death_at_once(controller, pool, call):
    waiting = begin(pool, controller, call, controller, LONG)
    watch = Stopwatch()
    os.kill(controller.pid, signal.SIGKILL)
    with pytest.raises(ServerDied) as caught:
        waiting.result(10)
    assert watch.elapsed < SOON
    assert caught.value.exitcode == -signal.SIGKILL


@each_call
@pytest.mark.parametrize("timeout", [0, LONG])
def test_who_asks_after_the_death_learns_of_it(controller, inbox, call, timeout):
    send_to(controller, "one", "two")
    kill(controller)
    watch = Stopwatch()
    for _ in range(2):
        with pytest.raises(ServerDied):
            call(inbox, timeout)
    assert watch.elapsed < SOON
    assert subjects(inbox.messages) == ["one", "two"], "what is left can be read"
    assert subjects(controller.queue.get_nowait() for _ in range(2)) == ["one", "two"]
    with pytest.raises(ServerDied):
        _ = inbox.messages


def test_all_that_wait_learn_of_the_death(controller, pool):
    waiting = [begin(pool, controller, CALLS["wait"], controller, LONG)]
    waiting += [pool.submit(call, controller, LONG) for call in CALLS.values()]
    watch = Stopwatch()
    os.kill(controller.pid, signal.SIGKILL)
    for future in waiting:
        with pytest.raises(ServerDied):
            future.result(10)
    assert watch.elapsed < SOON


def test_what_is_there_is_handed_out_before_the_death_is_told(controller, inbox):
    send_to(controller, "a 1", "b 1", "a 2", "b 2", "b 3")
    kill(controller)
    with pytest.raises(UnexpectedMessage):
        inbox.expect_none(LONG, subject="a")
    assert inbox.wait(LONG, subject="a 2")["subject"] == "a 2"
    with pytest.raises(ServerDied):
        inbox.wait_many(5, LONG)
    assert subjects(inbox.wait_many(2, LONG, subject="b")) == ["b 1", "b 2"]
    with pytest.raises(ServerDied):
        inbox.wait(LONG, subject="a 2")
    assert subjects(inbox.messages) == ["a 1", "b 3"]


def test_what_a_dead_server_left_is_there_after_a_new_start(controller, inbox):
    send_to(controller, "old")
    kill(controller)
    controller.start()
    send_to(controller, "new")
    assert subjects(inbox.wait_many(2, 0)) == ["old", "new"]


# No server is running.


def test_after_stop_what_is_there_can_be_waited_for(controller, inbox):
    send_to(controller, "a 1", "b 1", "a 2", "b 2")
    controller.stop()
    assert inbox.wait(LONG, subject="b")["subject"] == "b 1"
    assert subjects(inbox.messages) == ["a 1", "a 2", "b 2"]
    with pytest.raises(UnexpectedMessage):
        inbox.expect_none(LONG, subject="b")
    assert subjects(inbox.wait_many(2, LONG, subject="a")) == ["a 1", "a 2"]


def test_after_stop_nothing_else_is_waited_for(controller, inbox):
    send_to(controller, "other")
    controller.stop()
    watch = Stopwatch()
    with pytest.raises(MessageNotReceived, match="No server is running") as caught:
        inbox.wait(LONG, subject="wanted")
    assert [miss.message["subject"] for miss in caught.value.near_misses] == ["other"]
    with pytest.raises(MessageNotReceived, match="only 1 of 2 messages"):
        inbox.wait_many(2, LONG)
    assert inbox.expect_none(LONG, subject="wanted") is None
    assert watch.elapsed < SOON
    assert subjects(controller) == ["other"]
    assert inbox.messages == []


@each_call
def test_stop_wakes_who_waits(controller, pool, call):
    waiting = begin(pool, controller, call, controller, LONG)
    controller.stop()
    watch = Stopwatch()
    if call is CALLS["expect_none"]:
        assert waiting.result(10) is None
    else:
        with pytest.raises(MessageNotReceived, match="No server is running"):
            waiting.result(10)
    assert watch.elapsed < SOON


@pytest.mark.parametrize("make", [QueueController, MessageQueue])
def test_never_started(make):
    inbox = make()
    watch = Stopwatch()
    with pytest.raises(MessageNotReceived, match="No server is running") as caught:
        inbox.wait(LONG)
    error = caught.value
    assert (error.host, error.port, error.pid, error.near_misses) == (None, None, None, ())
    with pytest.raises(MessageNotReceived, match="only 0 of 2 messages"):
        inbox.wait_many(2, LONG)
    with pytest.raises(NotRunning, match=r"call start\(\) first"):
        inbox.expect_none(LONG)
    assert inbox.messages == []
    assert watch.elapsed < SOON


def test_messages_of_an_earlier_run_come_first(controller, inbox):
    send_to(controller, "a 1", "b 1")
    (a1, b1) = inbox.messages
    controller.stop()
    controller.start()
    assert inbox.messages == [a1, b1]
    send_to(controller, "b 2", "a 2")
    assert subjects(inbox.messages) == ["a 1", "b 1", "b 2", "a 2"]
    assert inbox.wait(0, subject="b") is b1
    assert subjects(inbox.wait_many(2, 0, subject="a")) == ["a 1", "a 2"]
    with pytest.raises(UnexpectedMessage):
        inbox.expect_none(0)


def test_waiting_in_a_later_run(controller, inbox, pool):
    send_to(controller, "old")
    controller.stop()
    controller.start()
    waiting = begin(pool, controller, inbox.wait_many, 2, LONG)
    send_to(controller, "new")
    assert subjects(waiting.result(10)) == ["old", "new"]


def test_reset_forgets_what_is_left_of_earlier_runs(controller, inbox):
    send_to(controller, "old")
    controller.stop()
    controller.start()
    send_to(controller, "new")
    assert len(inbox.messages) == 2
    controller.reset()
    assert inbox.messages == []
    inbox.expect_none(0)
    with pytest.raises(MessageNotReceived, match="no message came to localhost"):
        inbox.wait(0)


# Handlers and resets in between.


@pytest.fixture
def misbehaving() -> Iterator[Controller]:
    with Controller(Misbehaving("localhost", 0, MessageQueue())) as controller:
        yield controller


@each_call
def test_what_a_handler_raised_is_raised_by_who_waits(misbehaving, pool, call):
    inbox = misbehaving.server.queue
    send_to(misbehaving, "other")
    waiting = begin(pool, misbehaving, call, inbox, LONG)
    watch = Stopwatch()
    with connected(misbehaving) as client, pytest.raises(smtplib.SMTPDataError):
        send(client, "raise")
    with pytest.raises(HandlerError, match="as the subject says"):
        waiting.result(10)
    assert watch.elapsed < SOON
    send_to(misbehaving, "wanted")
    assert subjects(inbox.wait_many(2, 0)) == ["other", "wanted"]


@pytest.mark.parametrize(
    "call", [*CALLS.values(), lambda inbox, _: inbox.messages], ids=[*CALLS, "messages"]
)
def test_what_a_handler_raised_comes_before_a_message(misbehaving, call):
    inbox = misbehaving.server.queue
    send_to(misbehaving, "wanted", "wanted")
    with connected(misbehaving) as client, pytest.raises(smtplib.SMTPDataError):
        send(client, "raise")
    with pytest.raises(HandlerError):
        call(inbox, LONG)
    assert subjects(inbox.messages) == ["wanted", "wanted"]


def test_reset_during_a_wait(controller, inbox, pool):
    send_to(controller, "one")
    waiting = begin(pool, controller, inbox.wait, LONG, subject="two")
    controller.reset()
    assert not waiting.done()
    send_to(controller, "two")
    assert waiting.result(10)["subject"] == "two"
    assert inbox.messages == []


def test_what_was_reset_during_a_wait_does_not_count(controller, inbox, pool):
    send_to(controller, "a 1")
    waiting = begin(pool, controller, inbox.wait_many, 2, LONG, subject="a")
    controller.reset()
    send_to(controller, "a 2", "b")
    until(lambda: controller.queue.qsize() == 2)
    assert not waiting.done()
    send_to(controller, "a 3")
    assert subjects(waiting.result(10)) == ["a 2", "a 3"]


# Coroutines.


def test_an_event_loop_goes_on_while_a_thread_waits(controller):
    async def main() -> tuple[Any, int]:
        waiting = asyncio.create_task(
            asyncio.to_thread(controller.wait, 10, subject="late", rcpt="lee@example.com")
        )
        ticks = 0
        while not awaited(controller):
            await asyncio.sleep(0)
        while ticks < 100:
            ticks += 1
            await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.to_thread(send_to, controller, "early", "late")
        return await waiting, ticks

    message, ticks = asyncio.run(main())
    assert message["subject"] == "late"
    assert ticks == 100
    assert subjects(controller.messages) == ["early"]


def test_coroutines_wait_for_different_messages(controller):
    async def main() -> list[Any]:
        waiting = [
            asyncio.create_task(asyncio.to_thread(controller.wait, 10, subject=subject))
            for subject in ("one", "two", "three")
        ]
        await asyncio.to_thread(send_to, controller, "three", "two", "one")
        return await asyncio.gather(*waiting)

    assert subjects(asyncio.run(main())) == ["one", "two", "three"]
