"""A message for each recipient, in whatever batches they come."""

from __future__ import annotations

import re

import pytest
from helpers import connected, send_for, send_to, subjects
from waiting import LONG, begin

from lazr_smtptest import Controller, MessageNotReceived, MessageQueue, QueueServer

KIM, LEE, MAX, LEO = (f"{name}@example.com" for name in ("kim", "lee", "max", "leo"))


@pytest.mark.parametrize(
    "batches", [[[KIM], [LEE], [MAX]], [[MAX, KIM, LEE]], [[LEE], [KIM, MAX]], [[KIM, LEE], [MAX]]]
)
def test_each_gets_one_in_whatever_batches_they_come(controller, inbox, pool, batches):
    waiting = begin(pool, controller, inbox.wait_for_each, [KIM, LEE, MAX], LONG)
    for number, batch in enumerate(batches):
        assert not waiting.done()
        send_for(controller, number, batch)
    found = waiting.result(10)
    expected = {name: str(n) for n, batch in enumerate(batches) for name in batch}
    assert {name: message["subject"] for name, message in found.items()} == expected
    assert list(found) == [KIM, LEE, MAX]
    assert controller.messages == []


def test_who_shares_a_message_gets_the_same(controller, inbox):
    send_for(controller, "both", [KIM, LEE])
    found = inbox.wait_for_each([LEE, KIM], 0)
    assert found[KIM] is found[LEE]


def test_the_first_is_taken_and_all_others_stay_in_order(controller, inbox):
    send_for(controller, 1, [LEO])
    send_for(controller, 2, [KIM])
    send_for(controller, 3, [KIM, LEE])
    send_for(controller, 4, [LEE])
    send_for(controller, 5, [KIM])
    found = inbox.wait_for_each([KIM, LEE], 0)
    assert {name: message["subject"] for name, message in found.items()} == {KIM: "2", LEE: "3"}
    assert subjects(controller.messages) == ["1", "4", "5"]


def test_count_wants_so_many_for_each(controller, inbox, pool):
    waiting = begin(pool, controller, inbox.wait_for_each, [KIM, LEE], LONG, count=2)
    for number, names in enumerate([[KIM], [KIM, LEE], [KIM]]):
        send_for(controller, number, names)
    assert not waiting.done()
    send_for(controller, 3, [LEE, LEO])
    found = waiting.result(10)
    assert {name: subjects(them) for name, them in found.items()} == {
        KIM: ["0", "1"],
        LEE: ["1", "3"],
    }
    assert subjects(controller.messages) == ["2"]


def test_count_of_one_returns_lists(controller, inbox):
    send_for(controller, "one", [KIM])
    assert subjects(inbox.wait_for_each([KIM], 0, count=1)[KIM]) == ["one"]


def test_other_criteria_hold_for_each(controller, inbox):
    send_for(controller, "no", [KIM, LEE])
    send_for(controller, "yes", [KIM, LEE])
    found = inbox.wait_for_each([KIM, LEE], 0, subject=re.compile("^y"), sender=KIM)
    assert subjects(found.values()) == ["yes", "yes"]
    assert subjects(controller.messages) == ["no"]


def test_addresses_that_mean_the_same_are_the_same(controller, inbox):
    send_for(controller, "one", ['"kim"@EXAMPLE.com'])
    found = inbox.wait_for_each(iter(["Kim <kim@example.com>"]), 0)
    assert subjects(found.values()) == ["one"]
    assert list(found) == ["Kim <kim@example.com>"]


def test_a_recipient_that_is_named_twice_has_one_message(controller, inbox):
    with connected(controller) as client:
        client.sendmail(KIM, [KIM, KIM], "Subject: once\r\n\r\n")
    with pytest.raises(MessageNotReceived):
        inbox.wait_for_each([KIM], 0, count=2)


def test_none_is_taken_if_they_do_not_all_come(controller, inbox):
    send_for(controller, "first", [KIM])
    send_for(controller, "second", [KIM])
    send_for(controller, "other", [LEO])
    with pytest.raises(MessageNotReceived) as caught:
        inbox.wait_for_each([KIM, LEE, MAX], 0)
    assert caught.value.missing == (LEE, MAX)
    assert f"- '{KIM}' had 2\n" in str(caught.value)
    assert f"- '{LEO}', for whom none was to come, had 1\n" in str(caught.value)
    assert subjects(controller.messages) == ["first", "second", "other"]


def test_threads_share_out_a_mailing(controller, pool):
    names = [f"{number}@example.com" for number in range(20)]
    waiting = [pool.submit(controller.wait_for_each, names, LONG) for _ in range(4)]
    for number in range(8):
        send_for(controller, number, names[number % 2 :: 2])
    taken = [{message["subject"] for message in one.result(10).values()} for one in waiting]
    assert all(len(numbers) == 2 for numbers in taken)
    assert set.union(*taken) == {str(number) for number in range(8)}
    assert controller.messages == []


class Passing(QueueServer):
    def handle_message(self, message):
        self.queue.put("no message")


def test_what_a_handler_passed_on_is_for_nobody():
    queue = MessageQueue()
    with Controller(Passing("localhost", 0, queue)) as controller:
        send_to(controller, "one")
        with pytest.raises(MessageNotReceived, match="had none"):
            queue.wait_for_each([LEE], 0)
