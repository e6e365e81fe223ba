"""What leases read: at once, exactly once, in order, however large; and how they wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import EVENT_LOOPS, START_METHODS, connected, loop_name, send_for, subjects, until
from lease_programs import lease_program

from lazr_smtptest import (
    Lease,
    MessageNotReceived,
    NotRunning,
    SharedController,
    UnexpectedMessage,
    connect,
)

pytestmark = pytest.mark.timeout(90)

THREADS = 8
LEASES = 4
EACH = 25


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def by_tcp(request: pytest.FixtureRequest) -> Iterator[SharedController]:
    with SharedController(lease_host="127.0.0.1", uvloop=request.param) as shared:
        yield shared


@pytest.fixture
def leases(by_tcp: SharedController) -> Iterator[list[Lease]]:
    """Leases by each of the two ways."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(connect(by_tcp.addresses[n % 2], by_tcp.key, name=f"lease {n}"))
            for n in range(LEASES)
        ]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_mail_is_visible_at_the_250(leases: list[Lease]) -> None:
    """Each thread looks at each of its messages at once, with the clients of others at work."""

    def work(thread: int) -> None:
        own = leases[thread % LEASES]
        address = own.address(f"thread-{thread}")
        with connected(own) as client:
            for n in range(EACH):
                client.sendmail("", [address], f"Subject: {thread}-{n}\r\n\r\n")
                assert own.wait(0, rcpt=address)["subject"] == f"{thread}-{n}"

    in_threads(THREADS, work)
    assert all(lease.queue.empty() for lease in leases)


def test_mail_to_all_is_read_by_each_once_and_in_order(leases: list[Lease]) -> None:
    everybody = [lease.address("all") for lease in leases]

    def send(thread: int) -> None:
        with connected(leases[0]) as client:
            for n in range(EACH):
                client.sendmail("", everybody, f"Subject: {thread}-{n}\r\n\r\n")

    read: list[list[str]] = [[] for _ in leases]

    def take(number: int) -> None:
        while len(read[number]) < THREADS * EACH:
            read[number].append(leases[number].wait(30)["subject"])

    with ThreadPoolExecutor() as pool:
        taking = [pool.submit(take, number) for number in range(LEASES)]
        in_threads(THREADS, send)
        for one in taking:
            one.result()
    assert read == [read[0]] * LEASES
    for thread in range(THREADS):
        own = [one for one in read[0] if one.startswith(f"{thread}-")]
        assert own == [f"{thread}-{n}" for n in range(EACH)]


def test_many_threads_read_one_lease(leases: list[Lease]) -> None:
    """By each call that looks, while one takes: each message is taken once."""
    (lease, *_) = leases
    address = lease.address("kim")
    count = 100
    is_over = threading.Event()
    taken: list[str] = []

    def look() -> None:
        while not is_over.is_set():
            lease.queue.qsize()
            subjects(lease.messages)

    def take() -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Empty):
                taken.append(lease.queue.get_nowait()["subject"])

    with ThreadPoolExecutor() as pool:
        busy = [pool.submit(work) for work in [look, look, take, take]]
        try:
            with connected(lease) as client:
                for n in range(count):
                    client.sendmail("", [address], f"Subject: {n}\r\n\r\n")
            until(lambda: len(taken) == count or any(one.done() for one in busy))
        finally:
            is_over.set()
        for one in busy:
            one.result()
    assert sorted(taken, key=int) == [str(n) for n in range(count)]


def test_large_mail_to_two(leases: list[Lease]) -> None:
    kim, lee, *_ = leases
    size = 30_000_000
    body = ("y" * 78 + "\r\n") * (size // 80)
    with connected(kim) as client:
        for n in range(2):
            mail = f"Subject: {n}\r\n\r\n{body}".encode()
            client.sendmail("", [kim.address("a"), lee.address("a")], mail)
            for lease in kim, lee:
                assert lease.queue.get_nowait().raw == mail


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_a_program_of_its_own_reads(method: str, uvloop: bool) -> None:
    with (
        SharedController(start_method=method, uvloop=uvloop) as shared,
        lease_program(shared) as program,
        connect(shared.address, shared.key) as own,
    ):
        both = [program.tell("lease.address('kim')"), own.address("kim")]
        send_for(own, "one", both)
        assert program.tell("[m['subject'] for m in lease.messages]") == ["one"]
        assert subjects(own.messages) == ["one"]
        own.reset()
        assert program.tell("lease.queue.qsize()") == 1


# Waiting.


def test_waiting_for_what_comes_later(kim: Lease, lee: Lease) -> None:
    with ThreadPoolExecutor() as pool:
        one = pool.submit(kim.wait, 30, subject="one")
        many = pool.submit(kim.wait_many, 2, 30, subject="many")
        other = pool.submit(lee.wait, 30)
        send_for(kim, "many", [kim.address("a")])
        send_for(kim, "one", [kim.address("a")])
        send_for(kim, "many", [kim.address("a")])
        send_for(kim, "lee's", [lee.address("a")])
        assert one.result()["subject"] == "one"
        assert subjects(many.result()) == ["many", "many"]
        assert other.result()["subject"] == "lee's"


def test_waiting_for_each(kim: Lease, lee: Lease) -> None:
    a, b = kim.address("a"), kim.address("b")
    send_for(kim, "both", [a, b, lee.address("a")])
    assert set(kim.wait_for_each([a, b])) == {a, b}
    assert subjects(lee.messages) == ["both"]
    with pytest.raises(MessageNotReceived) as caught:
        kim.wait_for_each([a, lee.address("a")], 0.1)
    assert caught.value.missing == (a, lee.address("a"))


def test_expecting_none(kim: Lease, lee: Lease) -> None:
    send_for(kim, "lee's", [lee.address("a")])
    kim.expect_none()
    with pytest.raises(UnexpectedMessage, match="lee's"):
        lee.expect_none(0)


def test_waiting_on_an_event_loop(kim: Lease, lee: Lease) -> None:
    async def wait() -> None:
        waiting = [
            asyncio.create_task(lease.wait_async(30, subject=subject))
            for lease in (kim, lee)
            for subject in ("one", "two")
        ]
        loop = asyncio.get_running_loop()
        for subject in "two", "one":
            both = [kim.address("a"), lee.address("a")]
            await loop.run_in_executor(None, send_for, kim, subject, both)
        found = await asyncio.gather(*waiting)
        assert subjects(found) == ["one", "two", "one", "two"]
        await kim.expect_none_async(0.01)
        cancelled = asyncio.create_task(kim.wait_async(30))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await loop.run_in_executor(None, send_for, kim, "three", [kim.address("a")])
        assert (await kim.wait_async(30))["subject"] == "three"

    asyncio.run(wait())


# The end of a lease.


def test_what_has_arrived_can_be_taken_from_a_closed_lease(kim: Lease) -> None:
    send_for(kim, "one", [kim.address("a")])
    kim.close()
    kim.close()
    assert subjects(kim.messages) == ["one"]
    assert kim.wait(30)["subject"] == "one"
    assert kim.queue.empty()
    with pytest.raises(
        MessageNotReceived, match=r"This lease is closed, so none can come: connect\(\) anew"
    ):
        kim.wait(30)
    with pytest.raises(NotRunning, match=r"is closed: connect\(\) anew"):
        kim.reset()
    assert not kim.is_running


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_no_part_in_a_lease(kim: Lease) -> None:
    calls: list[Callable[[], object]] = [
        kim.queue.get_nowait,
        lambda: kim.wait(30),
        kim.reset,
        lambda: kim.claim("kim@example.com"),
        lambda: kim.fault("RCPT", "550 No"),
    ]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for call in calls:
                try:
                    call()
                except NotRunning as error:
                    os.write(writer, b"." if "connect() here for another" in str(error) else b"?")
            kim.close()
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as said:
        assert said.read() == b"." * len(calls)
    send_for(kim, "still here", [kim.address("a")])
    assert subjects(kim.messages) == ["still here"]


def test_a_signal_handler_that_raises_leaves_nothing_half_asked(kim: Lease) -> None:
    """As a time limit for the test does: the lease's connection is the next test's, too."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        for n in range(1000):
            with contextlib.suppress(TimeoutError):
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + n % 100 * 3e-6)
                for _ in range(1000):  # one that comes up in a finalizer is not raised
                    kim.messages  # noqa: B018
    finally:
        signal.signal(signal.SIGALRM, before)
    send_for(kim, "afterwards", [kim.address("a")])
    assert subjects(kim.messages) == ["afterwards"]
