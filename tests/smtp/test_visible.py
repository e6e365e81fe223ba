"""What the client was told is true at once: the promise everything else rests on."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import smtplib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import connected, send

from lazr_smtptest import Controller, QueueController, QueueServer

ROUNDS = 1000


@contextlib.contextmanager
def sending_here(host: str, port: int) -> Iterator[Callable[[str], None]]:
    with smtplib.SMTP(host, port, "client.example", timeout=10) as client:
        yield lambda subject: send(client, subject)


@contextlib.contextmanager
def sending_in_thread(host: str, port: int) -> Iterator[Callable[[str], None]]:
    with ThreadPoolExecutor(1) as pool, sending_here(host, port) as send_one:
        yield lambda subject: pool.submit(send_one, subject).result(10)


def _serve_sends(connection, host: str, port: int) -> None:
    with sending_here(host, port) as send_one:
        while (subject := connection.recv()) is not None:
            send_one(subject)
            connection.send(True)


@contextlib.contextmanager
def sending_in_process(host: str, port: int) -> Iterator[Callable[[str], None]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_sends, args=(theirs, host, port), daemon=True)
    process.start()
    theirs.close()

    def send_one(subject: str) -> None:
        ours.send(subject)
        assert ours.poll(10)
        ours.recv()

    try:
        yield send_one
    finally:
        ours.send(None)
        process.join(10)
        ours.close()


@pytest.fixture(params=[sending_here, sending_in_thread, sending_in_process])
def sending(request):
    return request.param


def test_get_nowait_in_the_next_statement(start_method, sending):
    with QueueController(start_method=start_method) as controller:
        with sending(controller.host, controller.port) as send_one:
            for number in range(ROUNDS):
                send_one(str(number))
                message = controller.queue.get_nowait()
                assert message["subject"] == str(number)
        with pytest.raises(queue.Empty):
            controller.queue.get_nowait()


def test_qsize_empty_and_iteration_in_the_next_statement(start_method, sending):
    with QueueController(start_method=start_method) as controller:
        with sending(controller.host, controller.port) as send_one:
            for number in range(ROUNDS):
                assert controller.queue.empty()
                send_one(str(number))
                assert controller.queue.qsize() == 1
                assert not controller.queue.empty()
                assert [m["subject"] for m in controller] == [str(number)]
        assert controller.queue.qsize() == 0


def test_a_standard_queue_has_it_too(start_method, sending):
    inbox: queue.Queue = queue.Queue()
    server = QueueServer("localhost", 0, inbox)
    with Controller(server, start_method=start_method) as controller:
        with sending(controller.host, controller.port) as send_one:
            for number in range(ROUNDS):
                send_one(str(number))
                assert inbox.qsize() == 1
                assert inbox.get_nowait()["subject"] == str(number)
    assert inbox.empty()


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "theirs"])
def test_eight_senders_at_a_time(start_method, foreign):
    """Each sender sees its own message in the inbox as soon as it was told 250."""
    inbox: queue.Queue = queue.Queue()
    taken: list[tuple[int, str]] = []
    seen = threading.Lock()

    with contextlib.ExitStack() as stack:
        if foreign:
            server = QueueServer("localhost", 0, inbox)
            controller = stack.enter_context(Controller(server, start_method=start_method))
            take = inbox.get_nowait
        else:
            controller = stack.enter_context(QueueController(start_method=start_method))
            take = controller.queue.get_nowait

        def work(sender: int) -> None:
            with connected(controller) as client:
                for number in range(ROUNDS // 8):
                    send(client, f"{sender} {number}")
                    # One message was just accepted, and every other sender
                    # takes no more than it has sent: there must be one.
                    with seen:
                        message = take()
                        taken.append((message.envelope.sequence, message["subject"]))

        with ThreadPoolExecutor(8) as pool:
            for result in [pool.submit(work, sender) for sender in range(8)]:
                result.result(15)
        with pytest.raises(queue.Empty):
            take()

    assert sorted(sequence for sequence, _ in taken) == list(range(1, 8 * (ROUNDS // 8) + 1))
    assert taken == sorted(taken), "in the order in which they were accepted"
    for sender in range(8):
        own = [subject for _, subject in taken if subject.startswith(f"{sender} ")]
        assert own == [f"{sender} {number}" for number in range(ROUNDS // 8)]
