"""Coroutines that wait for mail: the event loop goes on, and what is cancelled takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import freezegun
import pytest
from helpers import connected, send_to, subjects
from waiting import LONG, SOON, Stopwatch, kill

from lazr_smtptest import (
    HandlerError,
    MessageNotReceived,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    ServerDied,
    UnexpectedMessage,
)
from lazr_smtptest._util import now

#: A call of each kind that waits for what is not there.
CALLS: dict[str, Callable[[Any, float], Coroutine[Any, Any, Any]]] = {
    "wait": lambda inbox, timeout: inbox.wait_async(timeout, subject="wanted"),
    "wait_many": lambda inbox, timeout: inbox.wait_many_async(2, timeout, subject="wanted"),
    "expect_none": lambda inbox, timeout: inbox.expect_none_async(timeout, subject="wanted"),
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine."""
    new_loop = asyncio.new_event_loop
    if request.param == "uvloop":
        new_loop = pytest.importorskip("uvloop", reason="needs uvloop: pip install uvloop")
        new_loop = new_loop.new_event_loop
    loop = new_loop()
    yield loop.run_until_complete
    loop.close()


async def mail(controller: Any, *subjects: object) -> None:
    for subject in subjects:
        message = EmailMessage()
        message["From"], message["To"] = "kim@example.com", "lee@example.com"
        message["Subject"] = str(subject)
        await aiosmtplib.send(message, hostname=controller.host, port=controller.port)


def begun(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(call)


async def waits(controller: Any, *tasks: asyncio.Task[Any]) -> None:
    """Return when the tasks wait."""
    while len(controller._link.listeners) < len(tasks):
        assert not any(task.done() for task in tasks)
        await asyncio.sleep(0)


def copies(controller: Any) -> int:
    """Count the descriptors of the pipe that messages come through."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs Linux's /proc")
    pipe = os.readlink(f"/proc/self/fd/{controller._link._ends.records.fileno()}")
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return links.count(pipe)


@each_call
@pytest.mark.parametrize("ending", ["cancelled", "in time", "in vain"])
def test_nothing_is_left_open(controller, run, call, ending):
    async def main() -> None:
        waiting = begun(call(controller, SOON / 5 if ending == "in vain" else LONG))
        await waits(controller, waiting)
        assert copies(controller) == 2
        if ending == "cancelled":
            waiting.cancel()
        if ending == "in time":
            await mail(controller, "wanted", "wanted")
        await asyncio.wait([waiting])
        waiting.cancelled() or waiting.exception()
        assert copies(controller) == 1
        assert controller._link.listeners == []

    run(main())


def test_another_task_of_the_loop_sends(controller, inbox, run):
    async def main() -> Any:
        waiting = begun(inbox.wait_async(LONG, subject="late", rcpt="lee@example.com"))
        await waits(controller, waiting)
        await mail(controller, "early", "late")
        return await waiting

    assert run(main())["subject"] == "late"
    assert subjects(controller.messages) == ["early"]


def test_many_are_taken_when_all_are_there(controller, inbox, run):
    async def main() -> Any:
        waiting = begun(inbox.wait_many_async(3, LONG, subject="job"))
        await mail(controller, "job 1", "other", "job 2")
        assert len(controller.messages) == 3
        assert not waiting.done()
        await mail(controller, "job 3")
        return await waiting

    assert subjects(run(main())) == ["job 1", "job 2", "job 3"]
    assert subjects(controller.messages) == ["other"]


def test_what_is_there_is_taken_without_the_loop_turning(controller, inbox, run):
    async def main() -> Any:
        turned = []
        asyncio.get_running_loop().call_soon(turned.append, 1)
        message = await inbox.wait_async(0)
        assert not turned
        return message

    send_to(controller, "one")
    assert run(main())["subject"] == "one"


def test_the_loop_goes_on_meanwhile(controller, run):
    async def main() -> int:
        waiting = begun(controller.expect_none_async(0.3))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.001)
        await waiting
        return turns

    assert run(main()) > 20


def test_several_wait_each_for_its_own(controller, run):
    async def main() -> list[Any]:
        names = [f"<{number}>" for number in range(30)]
        waiting = [begun(controller.wait_async(LONG, subject=name)) for name in names]
        await waits(controller, *waiting)
        await mail(controller, *reversed(names))
        return await asyncio.gather(*waiting)

    assert subjects(run(main())) == [f"<{number}>" for number in range(30)]
    assert controller.messages == []


def test_several_wait_for_the_same_and_each_gets_one(controller, run):
    async def main() -> list[Any]:
        waiting = [begun(controller.wait_async(LONG, subject="job")) for _ in range(10)]
        await mail(controller, *(f"job {number}" for number in range(10)))
        return await asyncio.gather(*waiting)

    assert sorted(subjects(run(main()))) == [f"job {number}" for number in range(10)]


def test_threads_and_tasks_wait_at_once(controller, pool, run):
    async def main() -> list[str]:
        jobs = [f"job {number:02}" for number in range(40)]
        threads = [pool.submit(controller.wait, LONG, subject="job") for _ in range(20)]
        tasks = [begun(controller.wait_async(LONG, subject="job")) for _ in range(20)]
        await mail(controller, *jobs)
        found = await asyncio.gather(*tasks, *map(asyncio.wrap_future, threads))
        assert sorted(subjects(found)) == jobs
        return subjects(controller.messages)

    assert run(main()) == []


@pytest.mark.parametrize("on", ["this thread", "another"])
def test_what_somebody_else_has_read_is_news(controller, pool, run, on):
    async def main() -> Any:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        # The loop stands still meanwhile, so it never sees it in the pipe.
        send_to(controller, "one")
        look = controller.queue.qsize
        assert (look() if on == "this thread" else pool.submit(look).result(5)) == 1
        return await waiting

    assert run(main())["subject"] == "one"


def test_a_wait_of_a_test_that_is_over_gets_nothing_of_the_next(controller, run):
    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        controller.queue._begin_anew()
        with pytest.raises(MessageNotReceived):
            await waiting

    run(main())


def test_a_large_message_comes_in_pieces(controller, run):
    async def main() -> Any:
        waiting = begun(controller.wait_async(LONG, subject="large"))
        message = EmailMessage()
        message["From"], message["To"] = "kim@example.com", "lee@example.com"
        message["Subject"] = "large"
        message.set_content("x" * 70 + "\n" * 1 + ("y" * 70 + "\n") * 100_000)
        await aiosmtplib.send(message, hostname=controller.host, port=controller.port)
        return await waiting

    assert len(run(main()).raw) > 7_000_000


# Cancelling.


@each_call
def test_what_was_cancelled_takes_nothing(controller, inbox, run, call):
    async def main() -> None:
        waiting = begun(call(inbox, LONG))
        await waits(controller, waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert controller._link.listeners == []
        await mail(controller, "wanted 1", "wanted 2")

    run(main())
    assert subjects(controller.messages) == ["wanted 1", "wanted 2"]


@pytest.mark.parametrize("turns", range(6))
def test_each_message_is_there_or_returned_whenever_it_is_cancelled(controller, run, turns):
    async def main() -> list[str]:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        # The loop stands still meanwhile: the news and the cancelling come at once.
        send_to(controller, "one")
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        taken = await asyncio.gather(waiting, return_exceptions=True)
        return subjects(one for one in taken if not isinstance(one, asyncio.CancelledError))

    assert run(main()) + subjects(controller.messages) == ["one"]


def test_wait_for_around_it_is_a_timeout(controller, run):
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(controller.wait_async(LONG), 0.05)

    run(main())
    send_to(controller, "one")
    assert subjects(controller) == ["one"]


def test_a_loop_that_is_closed_with_a_call_in_it(controller):
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(controller.wait_async(LONG))
    loop.run_until_complete(waits(controller, waiting))
    loop.close()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    send_to(controller, "one")
    assert subjects(controller) == ["one"]
    waiting.get_coro().close()
    assert controller._link.listeners == []


# What goes wrong.


@each_call
def test_who_waits_learns_of_the_death_at_once(controller, inbox, run, call):
    async def main() -> None:
        waiting = begun(call(inbox, LONG))
        await waits(controller, waiting)
        watch = Stopwatch()
        os.kill(controller.pid, signal.SIGKILL)
        with pytest.raises(ServerDied) as caught:
            await waiting
        assert watch.elapsed < SOON
        assert caught.value.exitcode == -signal.SIGKILL

    run(main())


def test_death_is_learned_without_an_end_of_the_pipe(controller, run):
    """A grandchild may hold the pipe."""

    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        watch = Stopwatch()
        os.kill(controller.pid, signal.SIGKILL)
        with pytest.raises(ServerDied):
            await waiting
        assert watch.elapsed < SOON

    fd = os.open(f"/proc/{controller.pid}/fd/{_record_pipe(controller)}", os.O_WRONLY)
    try:
        run(main())
    finally:
        os.close(fd)


def _record_pipe(controller: Any) -> str:
    """Return the number by which the server process knows the writing end of our pipe."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs Linux's /proc")
    pipe = os.readlink(f"/proc/self/fd/{controller._link._ends.records.fileno()}")
    folder = f"/proc/{controller.pid}/fd"
    (number,) = [n for n in os.listdir(folder) if os.readlink(f"{folder}/{n}") == pipe]
    return number


@each_call
def test_who_asks_after_the_death_learns_of_it(controller, inbox, run, call):
    kill(controller)
    with pytest.raises(ServerDied):
        run(call(inbox, LONG))


@pytest.mark.parametrize("way", ["stop", "another thread"])
def test_stopping_ends_the_wait(controller, run, way):
    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        stop = controller.stop if way == "stop" else None
        await asyncio.to_thread(controller.stop) if stop is None else stop()
        with pytest.raises(MessageNotReceived, match="No server is running"):
            await waiting

    run(main())


@each_call
@pytest.mark.parametrize("frozen", [False, True], ids=["real time", "frozen time"])
def test_a_wait_has_its_time_and_no_more(controller, inbox, run, call, frozen):
    with freezegun.freeze_time("2020-02-02") if frozen else contextlib.nullcontext():
        started = now()
        if call is CALLS["expect_none"]:
            run(call(inbox, 0.2))
        else:
            with pytest.raises(MessageNotReceived) as caught:
                run(call(inbox, 0.2))
            assert "event loop" not in str(caught.value)
        assert 0.2 <= now() - started < SOON


def test_other_tasks_go_on_where_time_is_frozen(controller, run):
    async def main() -> Any:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        await asyncio.get_running_loop().run_in_executor(None, send_to, controller, "one")
        return await waiting

    with freezegun.freeze_time("2020-02-02"):
        assert run(main())["subject"] == "one"


def test_errors_and_near_misses_are_those_of_the_calls_that_block(controller, inbox, run):
    send_to(controller, "dinner", "lunch")
    for name, args in ("wait", ()), ("wait_many", (2,)):
        texts = []
        for suffix in "", "_async":
            call = getattr(inbox, name + suffix)
            with pytest.raises(MessageNotReceived) as caught:
                made = call(*args, timeout=0, subject="Dinner")
                run(made)
            texts.append(re.sub(r"within [\d.]+ seconds", "", str(caught.value)))
            assert caught.value.near_misses[0].message["subject"] == "dinner"
        assert texts[0] == texts[1]
    with pytest.raises(UnexpectedMessage) as unexpected:
        run(inbox.expect_none_async(LONG, subject="lunch"))
    assert unexpected.value.message["subject"] == "lunch"


def test_a_message_that_was_not_to_come_comes(controller, run):
    async def main() -> None:
        waiting = begun(controller.expect_none_async(LONG))
        await waits(controller, waiting)
        await mail(controller, "one")
        with pytest.raises(UnexpectedMessage):
            await waiting

    run(main())


def test_bad_arguments(controller, inbox, run):
    with pytest.raises(ValueError, match="count must be"):
        run(inbox.wait_many_async(0))
    with pytest.raises(ValueError, match="timeout must be"):
        run(inbox.wait_async(-1))
    with pytest.raises(TypeError, match="no 'topic'"):
        run(inbox.wait_async(topic="x"))
    with pytest.raises(NotRunning, match="start"):
        run(MessageQueue().expect_none_async())
    with pytest.raises(MessageNotReceived, match="No server is running"):
        run(MessageQueue().wait_async())


class Failing(QueueServer):
    def handle_message(self, message: Any) -> None:
        raise ValueError("not today")


class FailingController(QueueController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Failing(host, port, self.queue)


def test_a_handler_that_fails_is_heard_of(run):
    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        with pytest.raises(aiosmtplib.SMTPException):
            await mail(controller, "one")
        with pytest.raises(HandlerError, match="not today"):
            await waiting

    with FailingController() as controller:
        run(main())


class Logging(QueueServer):
    def handle_message(self, message: Any) -> None:
        import logging

        logging.getLogger("app").warning("about %s", message["subject"])
        super().handle_message(message)


class LoggingController(QueueController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Logging(host, port, self.queue)


def test_what_was_logged_before_the_message_is_there_with_it(run, caplog):
    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        await mail(controller, "one")
        await waiting
        assert caplog.messages == ["about one"]

    with LoggingController() as controller:
        run(main())


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_without_a_descriptor_of_the_process(monkeypatch, run, has_pidfd):
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    async def main() -> None:
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        await mail(controller, "one")
        assert (await waiting)["subject"] == "one"
        waiting = begun(controller.wait_async(LONG))
        await waits(controller, waiting)
        kill(controller)
        with pytest.raises(ServerDied):
            await waiting

    with pytest.raises(ServerDied), QueueController() as controller:
        run(main())
        controller.reset()


def test_a_connection_of_the_same_loop_stays_open(controller, run):
    """Descriptors of the loop are not mixed up with others."""

    async def main() -> None:
        client = aiosmtplib.SMTP(hostname=controller.host, port=controller.port)
        async with client:
            for number in range(20):
                waiting = begun(controller.wait_async(LONG, subject=f"{number}."))
                await waits(controller, waiting)
                await client.sendmail(
                    "kim@example.com", ["lee@example.com"], f"Subject: {number}."
                )
                await waiting

    run(main())
    with connected(controller) as client:
        assert client.noop()[0] == 250
