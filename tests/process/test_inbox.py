"""Waiting for mail by what it is: `wait`, `wait_many`, `expect_none`, `messages`."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import queue
import re
import signal
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers import Misbehaving, awaited, connected, gone, send, send_to, subjects, until
from hypothesis import given, settings
from hypothesis import strategies as st

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageNotReceived,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    ServerDied,
    SMTPTestError,
    UnexpectedMessage,
)

#: Seconds within which "at once" is, on a machine that is busy, too.
SOON = 1.0

#: Longer than any test may take: who waits this long has not been woken.
LONG = 60.0


@pytest.fixture
def controller() -> Iterator[QueueController]:
    with QueueController() as controller:
        yield controller


@pytest.fixture(params=["controller", "queue"])
def inbox(request, controller):
    """What the methods are called on."""
    return controller if request.param == "controller" else controller.queue


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def begin(pool: ThreadPoolExecutor, controller: Any, call: Callable[..., Any], *args, **kwargs):
    """Call on a thread, and return when that waits."""
    future = pool.submit(call, *args, **kwargs)
    until(lambda: awaited(controller) or future.done())
    assert not future.done()
    return future


def kill(controller: Any) -> None:
    pid = controller.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))


class Stopwatch:
    def __init__(self) -> None:
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


#: A call of each kind that waits for what is not there.
CALLS: dict[str, Callable[[Any, float], Any]] = {
    "wait": lambda inbox, timeout: inbox.wait(timeout, subject="wanted"),
    "wait_many": lambda inbox, timeout: inbox.wait_many(2, timeout, subject="wanted"),
    "expect_none": lambda inbox, timeout: inbox.expect_none(timeout, subject="wanted"),
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


# wait.


def test_mail_that_came_earlier_counts(controller, inbox):
    send_to(controller, "one", "two", "three")
    assert inbox.wait(0, subject="two")["subject"] == "two"
    assert subjects(controller) == ["one", "three"]


def test_the_first_that_is_wanted_is_taken(controller, inbox):
    send_to(controller, "cat 1", "dog 1", "cat 2", "dog 2")
    assert inbox.wait(0, subject="dog")["subject"] == "dog 1"
    assert inbox.wait(0, subject="dog")["subject"] == "dog 2"
    with pytest.raises(MessageNotReceived):
        inbox.wait(0, subject="dog")
    assert subjects(controller) == ["cat 1", "cat 2"]


def test_without_criteria_each_message_will_do(controller, inbox):
    send_to(controller, "one", "two")
    assert inbox.wait(0)["subject"] == "one"
    assert inbox.wait(0)["subject"] == "two"


def test_mail_that_comes_during_the_wait(controller, inbox, pool):
    waiting = begin(pool, controller, inbox.wait, LONG, subject="wanted")
    send_to(controller, "one", "two")
    assert not waiting.done()
    send_to(controller, "wanted", "three")
    watch = Stopwatch()
    assert waiting.result(10)["subject"] == "wanted"
    assert watch.elapsed < SOON
    assert subjects(controller) == ["one", "two", "three"]


def test_mail_that_the_wait_itself_had_somebody_send(controller):
    with connected(controller) as client:
        sender = threading.Timer(0.05, send, (client, "late"))
        sender.start()
        assert controller.wait(10, subject="late")["subject"] == "late"
        sender.join(10)


@pytest.mark.parametrize(
    "wanted",
    [
        {"rcpt": "blind@example.com"},
        {"sender": "ann@EXAMPLE.com"},
        {"to": "lee@example.com"},
        {"subject": "grün"},
        {"where": lambda message: "Thursday" in message.text},
        {"subject": re.compile("^Das .* Boot$")},
        {
            "rcpt": re.compile("^blind@"),
            "sender": lambda address: address.startswith("ann@"),
            "to": "Lee <lee@example.com>",
            "subject": "Boot",
            "where": lambda message: message.header("X-Number") == "7",
        },
    ],
    ids=lambda wanted: "+".join(wanted),
)
def test_each_criterion(controller, inbox, wanted):
    wanted_mail = (
        "To: Lee <lee@example.com>\r\nX-Number: 7\r\n"
        "Subject: =?utf-8?q?Das_gr=C3=BCne_Boot?=\r\n\r\nOn Thursday.\r\n"
    )
    with connected(controller) as client:
        send(client, "another")
        client.sendmail("ann@example.com", ["lee@example.com", "blind@example.com"], wanted_mail)
        send(client, "yet another")
    message = inbox.wait(0, **wanted)
    assert message.envelope.rcpt_tos == ("lee@example.com", "blind@example.com")
    assert message.raw == wanted_mail.encode()
    assert subjects(controller) == ["another", "yet another"]


def test_what_has_not_come_is_reported_with_what_has(controller, inbox):
    send_to(controller, "Lunch", "Dinner")
    watch = Stopwatch()
    with pytest.raises(MessageNotReceived) as caught:
        inbox.wait(0.1, subject="lunch")
    error = caught.value
    assert 0.1 <= watch.elapsed < SOON
    assert 0.1 <= error.elapsed <= watch.elapsed
    assert (error.host, error.port, error.pid) == ("localhost", controller.port, controller.pid)
    assert re.sub(r"\d\.\d\d", "N", str(error)) == (
        f"no message with subject containing 'lunch' came to localhost port {controller.port} "
        "within N seconds; 2 messages are there:\n"
        "- from <kim@example.com> to <lee@example.com>, subject 'Lunch'\n"
        "    subject: wanted containing 'lunch', got 'Lunch', which differs in case\n"
        "- from <kim@example.com> to <lee@example.com>, subject 'Dinner'\n"
        "    subject: wanted containing 'lunch', got 'Dinner'\n"
        "If it was yet to come, give a longer timeout; sessions() shows what clients did"
    )
    assert [miss.message["subject"] for miss in error.near_misses] == ["Lunch", "Dinner"]
    assert [[d.field for d in miss.differences] for miss in error.near_misses] == [
        ["subject"],
        ["subject"],
    ]
    messages = inbox.messages
    assert [miss.message for miss in error.near_misses] == messages, "nothing was taken"
    assert all(
        miss.message is message for miss, message in zip(error.near_misses, messages, strict=True)
    )


def test_where_nothing_has_come_the_report_says_where_it_looked(controller, inbox):
    with pytest.raises(MessageNotReceived) as caught:
        inbox.wait(0)
    text = str(caught.value)
    assert re.match(
        rf"no message came to localhost port {controller.port} within \d+\.\d\d seconds\n", text
    )
    assert caught.value.near_misses == ()


def test_the_error_is_an_assertion_that_failed_and_a_timeout(controller):
    with pytest.raises(MessageNotReceived) as caught:
        controller.wait(0)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, SMTPTestError)
    assert not isinstance(caught.value, queue.Empty)


def test_the_errors_survive_pickling(controller):
    send_to(controller, "there")
    with pytest.raises(MessageNotReceived) as missed:
        controller.wait(0, subject="wanted", sender="ann@example.com")
    again = pickle.loads(pickle.dumps(missed.value))
    assert str(again) == str(missed.value)
    (miss,) = again.near_misses
    assert miss.message.raw == controller.messages[0].raw
    assert [difference.field for difference in miss.differences] == ["sender", "subject"]
    with pytest.raises(UnexpectedMessage) as surprised:
        controller.expect_none(0)
    again = pickle.loads(pickle.dumps(surprised.value))
    assert str(again) == str(surprised.value)
    assert again.message["subject"] == "there"


# wait_many.


def test_wait_many_takes_the_first_so_many(controller, inbox):
    send_to(controller, "a 1", "b 1", "a 2", "b 2", "a 3")
    assert subjects(inbox.wait_many(2, 0, subject="a")) == ["a 1", "a 2"]
    assert subjects(controller) == ["b 1", "b 2", "a 3"]


def test_wait_many_without_criteria(controller, inbox):
    send_to(controller, "one", "two", "three")
    assert subjects(inbox.wait_many(3, 0)) == ["one", "two", "three"]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_wait_many_takes_none_if_not_all_come(controller, inbox, timeout):
    send_to(controller, "a 1", "b", "a 2")
    with pytest.raises(MessageNotReceived) as caught:
        inbox.wait_many(3, timeout, subject="a")
    text = str(caught.value)
    assert text.startswith("only 2 of 3 messages with subject containing 'a' came to localhost ")
    assert [miss.message["subject"] for miss in caught.value.near_misses] == ["b"]
    assert subjects(controller) == ["a 1", "b", "a 2"]


def test_wait_many_while_they_come(controller, inbox, pool):
    send_to(controller, "a 1")
    waiting = begin(pool, controller, inbox.wait_many, 3, LONG, subject="a")
    for subject in ("b 1", "a 2", "b 2"):
        send_to(controller, subject)
    assert not waiting.done()
    assert subjects(inbox.messages) == ["a 1", "b 1", "a 2", "b 2"]
    send_to(controller, "a 3")
    assert subjects(waiting.result(10)) == ["a 1", "a 2", "a 3"]
    assert subjects(controller) == ["b 1", "b 2"]


def test_the_order_stays_if_another_is_quicker_with_one_of_many(controller):
    """The message is taken after wait_many has seen it, and before it takes both."""
    send_to(controller, "x", "a", "b")

    def wanted(message):
        if message["subject"] == "b":
            assert controller.wait(0, subject="b") is message
        return message["subject"] != "x"

    with pytest.raises(MessageNotReceived, match="only 1 of 2 messages"):
        controller.wait_many(2, 0, where=wanted)
    assert subjects(controller) == ["x", "a"]


def test_wait_goes_on_if_another_is_quicker(controller):
    send_to(controller, "a 1", "a 2")

    def wanted(message):
        if message["subject"] == "a 1":
            controller.wait(0, subject="a 1")
        return True

    assert controller.wait(0, where=wanted)["subject"] == "a 2"


# messages.


def test_messages_takes_nothing(controller, inbox):
    assert inbox.messages == []
    send_to(controller, "one", "two")
    assert subjects(inbox.messages) == ["one", "two"]
    assert subjects(inbox.messages) == ["one", "two"]
    assert controller.queue.qsize() == 2


def test_messages_are_the_same_objects_each_time(controller, inbox):
    send_to(controller, "one", "two", "three", "four")
    one, two, three, four = inbox.messages
    send_to(controller, "five")
    assert [a is b for a, b in zip(inbox.messages, [one, two, three, four], strict=False)] == [
        True
    ] * 4
    assert inbox.wait(0, subject="two") is two
    assert controller.queue.get() is one
    assert inbox.wait_many(1, 0, subject="four") == [four]
    assert next(iter(controller)) is three


def test_the_list_is_the_callers(controller, inbox):
    send_to(controller, "one")
    inbox.messages.clear()
    assert subjects(inbox.messages) == ["one"]


# expect_none.


def test_expect_none_watches_for_the_quiet_time(controller, inbox):
    send_to(controller, "other")
    watch = Stopwatch()
    assert inbox.expect_none(0.15, subject="wanted") is None
    assert 0.15 <= watch.elapsed < SOON
    assert subjects(controller) == ["other"]


def test_expect_none_watches_for_a_while_by_default(controller, inbox):
    watch = Stopwatch()
    inbox.expect_none()
    assert 0.2 <= watch.elapsed < SOON


def test_expect_none_sees_earlier_mail_at_once_and_leaves_it(controller, inbox):
    send_to(controller, "other", "wanted 1", "wanted 2")
    watch = Stopwatch()
    with pytest.raises(UnexpectedMessage) as caught:
        inbox.expect_none(LONG, subject="wanted")
    assert watch.elapsed < SOON
    error = caught.value
    assert error.message is inbox.messages[1]
    assert isinstance(error, AssertionError)
    assert isinstance(error, SMTPTestError)
    assert 0 <= error.elapsed <= watch.elapsed
    assert (error.host, error.port, error.pid) == ("localhost", controller.port, controller.pid)
    assert re.sub(r"\d\.\d\d", "N", str(error)) == (
        "a message with subject containing 'wanted' was there on localhost port "
        f"{controller.port} after N seconds, and none was to come for 60 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, subject 'wanted 1'\n"
        "  | Hello.\n"
        "If it was to come before, take it, or call reset(), before expect_none()"
    )
    assert subjects(controller) == ["other", "wanted 1", "wanted 2"]


def test_expect_none_raises_as_soon_as_the_first_comes(controller, inbox, pool):
    watching = begin(pool, controller, inbox.expect_none, LONG, subject="wanted")
    send_to(controller, "other")
    assert not watching.done()
    send_to(controller, "wanted")
    watch = Stopwatch()
    with pytest.raises(UnexpectedMessage) as caught:
        watching.result(10)
    assert watch.elapsed < SOON
    assert caught.value.message["subject"] == "wanted"
    assert subjects(controller) == ["other", "wanted"]


def test_expect_none_does_not_begin_anew_with_other_mail(controller, inbox, pool):
    watch = Stopwatch()
    watching = begin(pool, controller, inbox.expect_none, 0.3, subject="wanted")
    with connected(controller) as client:
        while not watching.done():
            send(client, "other")
    watching.result(0)
    assert 0.3 <= watch.elapsed < 0.3 + SOON


def test_expect_none_of_any_kind(controller, inbox):
    inbox.expect_none(0)
    send_to(controller, "one")
    with pytest.raises(UnexpectedMessage, match="^a message was there on localhost port "):
        inbox.expect_none(0)


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


# What is given.


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf])
@each_call
def test_timeouts_that_are_none(controller, inbox, call, timeout):
    send_to(controller, "wanted", "wanted")
    with pytest.raises(ValueError, match=r"must be a finite number of seconds from 0 on, not"):
        call(inbox, timeout)
    assert len(inbox.messages) == 2


@pytest.mark.parametrize("timeout", [0, 0.0, 1, 1e9])
def test_timeouts(controller, inbox, timeout):
    send_to(controller, "wanted")
    assert inbox.wait(timeout)["subject"] == "wanted"


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", None])
def test_counts_that_are_none(controller, inbox, count):
    send_to(controller, "one", "two")
    with pytest.raises(ValueError, match="count must be a whole number from 1 on"):
        inbox.wait_many(count, 0)
    assert len(inbox.messages) == 2


@pytest.mark.parametrize(
    "wanted", [{"recipient": "lee@example.com"}, {"subject": b"x"}, {"rcpt": 7}, {"where": "x"}]
)
@pytest.mark.parametrize("method", ["wait", "expect_none"])
def test_criteria_that_are_none(controller, inbox, method, wanted):
    send_to(controller, "one")
    with pytest.raises(TypeError, match=next(iter(wanted))):
        getattr(inbox, method)(0, **wanted)
    assert subjects(inbox.messages) == ["one"]


def picky(message):
    if message["subject"] == "two":
        raise LookupError("no such thing in two")
    return False


@pytest.mark.parametrize("method", ["wait", "expect_none"])
@pytest.mark.parametrize("name", ["where", "subject"])
def test_what_a_criterion_raises_comes_through_and_nothing_is_taken(
    controller, inbox, method, name
):
    send_to(controller, "one", "two", "three")
    criterion = picky if name == "where" else lambda text: picky({"subject": text})
    with pytest.raises(LookupError, match="no such thing in two"):
        getattr(inbox, method)(LONG, **{name: criterion})
    assert subjects(controller) == ["one", "two", "three"]


def test_what_where_raises_during_the_wait_comes_through(controller, inbox, pool):
    waiting = begin(pool, controller, inbox.wait, LONG, where=picky)
    send_to(controller, "one", "two")
    with pytest.raises(LookupError):
        waiting.result(10)
    assert subjects(controller) == ["one", "two"]


@pytest.mark.parametrize("method", ["wait", "expect_none"])
def test_where_is_called_once_for_each_message_that_meets_all_else(
    controller, inbox, pool, method
):
    called = []

    def where(message) -> bool:
        called.append(message["subject"])
        return message["subject"] == "a 5"

    send_to(controller, "a 1", "b 1")
    waiting = begin(pool, controller, getattr(inbox, method), LONG, subject="a", where=where)
    for subject in ("b 2", "a 2", "a 3", "b 3", "a 4", "a 5"):
        send_to(controller, subject)
    assert isinstance(waiting.exception(10), UnexpectedMessage if method != "wait" else type(None))
    assert called == ["a 1", "a 2", "a 3", "a 4", "a 5"]


def test_where_is_given_the_object_that_is_handed_out(controller, inbox):
    send_to(controller, "one")
    given_to_where = []
    message = inbox.wait(0, where=lambda message: given_to_where.append(message) or True)
    assert given_to_where[0] is message


# What is not a Message.


class Evaluating(QueueServer):
    """Passes on what the subject means in Python, in place of the message."""

    def handle_message(self, message) -> None:
        subject = message["subject"]
        super().handle_message(message if subject == "message" else eval(subject))


class EvaluatingController(QueueController):
    def _make_server(self, host, port):
        self.server = Evaluating(host, port, self.queue)


@pytest.fixture
def evaluating() -> Iterator[QueueController]:
    with EvaluatingController() as controller:
        yield controller


def test_items_that_are_no_messages(evaluating):
    send_to(evaluating, "1", "2", "message", "[3]", "4")
    assert evaluating.messages[:2] == [1, 2]
    assert evaluating.wait(0, where=lambda item: item == 2) == 2
    assert evaluating.wait(0, subject="mess")["subject"] == "message"
    assert evaluating.wait_many(2, 0, where=lambda item: isinstance(item, int)) == [1, 4]
    with pytest.raises(UnexpectedMessage) as caught:
        evaluating.expect_none(0)
    assert caught.value.message == [3]
    assert caught.value.message is evaluating.messages[0]
    assert ":\n'[3]'\nIf it was to come before" in str(caught.value)
    assert evaluating.wait(0) == [3]


def test_items_that_are_no_messages_meet_no_criterion_but_where(evaluating):
    send_to(evaluating, "17", "'a text'")
    for name in ("rcpt", "sender", "to", "subject"):
        evaluating.expect_none(0, **{name: lambda text: True})
        with pytest.raises(MessageNotReceived) as caught:
            evaluating.wait(0, **{name: re.compile("")})
        assert [miss.message for miss in caught.value.near_misses] == [17, "a text"]
        assert "got none" in str(caught.value)
    evaluating.expect_none(0, subject="", where=lambda item: 1 / 0)


@pytest.mark.parametrize("item", [None, 0, "", (), False])
def test_items_that_are_false(evaluating, item):
    send_to(evaluating, repr(item), repr(item))
    assert evaluating.messages == [item, item]
    with pytest.raises(UnexpectedMessage):
        evaluating.expect_none(0)
    assert evaluating.wait(0) == item
    assert evaluating.wait_many(1, 0) == [item]
    evaluating.expect_none(0)


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


# All of it, against a list.


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
