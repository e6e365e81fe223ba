"""Waiting for mail by what it is: `wait`, `wait_many`, `expect_none`, `messages`."""

from __future__ import annotations

import math
import pickle
import queue
import re
import threading
from collections.abc import Iterator

import pytest
from helpers import connected, send, send_to, subjects
from waiting import LONG, SOON, Stopwatch, begin, each_call

from lazr_smtptest import (
    MessageNotReceived,
    QueueController,
    QueueServer,
    SMTPTestError,
    UnexpectedMessage,
)

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
