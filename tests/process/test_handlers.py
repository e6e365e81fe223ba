"""Code of one's own in a server, above all code that fails."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import queue
import smtplib
import threading

import pytest
from helpers import Failing, FailingReset, Hooked, Refusing, connected, send, send_to, subjects

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
)


def test_a_handler_that_raises(start_method):
    with Controller(Failing(), start_method=start_method) as controller:
        with connected(controller) as client:
            send(client, "good")
            code, text = refused_reply(client, "bad one")
            assert code == 451
            assert text == b"4.3.0 Error: (ValueError) I do not like bad one"
            send(client, "good again")
        with pytest.raises(
            HandlerError, match=r"Failing.handle_message raised ValueError"
        ) as caught:
            controller.reset()
        assert "in handle_message" in caught.value.traceback
        assert "I do not like bad one" in caught.value.traceback
        assert caught.value.pid == controller.pid
        controller.reset()


def refused_reply(client, subject: str) -> tuple[int, bytes]:
    client.ehlo_or_helo_if_needed()
    client.mail("kim@example.com")
    client.rcpt("lee@example.com")
    return client.data(f"Subject: {subject}\r\n\r\n".encode())


def test_the_failure_comes_with_the_very_next_call():
    class Fails(QueueServer):
        def handle_message(self, message):
            if message["subject"] == "bad":
                raise ValueError("no")
            super().handle_message(message)

    class FailsController(QueueController):
        def _make_server(self, host, port):
            self.server = Fails(host, port, self.queue)

    calls = [
        lambda c: c.queue.get_nowait(),
        lambda c: c.queue.qsize(),
        lambda c: c.queue.get(timeout=5),
        lambda c: list(c),
        lambda c: c.reset(),
        lambda c: c.stop(),
    ]
    with FailsController() as controller, connected(controller) as client:
        for call in calls:
            send(client, "good")
            assert refused_reply(client, "bad")[0] == 451
            with pytest.raises(HandlerError, match="ValueError: no"):
                call(controller)
    assert "good" in subjects(controller)


def test_leaving_the_with_block_raises_what_nobody_has_seen():
    with pytest.raises(HandlerError, match="bad one"):
        with Controller(Failing()) as controller, connected(controller) as client:
            refused_reply(client, "bad one")
    assert not controller.is_running


def test_leaving_the_with_block_does_not_cover_up_an_error():
    with pytest.raises(ZeroDivisionError):
        with Controller(Failing()) as controller, connected(controller) as client:
            refused_reply(client, "bad one")
            raise ZeroDivisionError


def test_a_reset_that_raises():
    with Controller(FailingReset()) as controller:
        with pytest.raises(HandlerError, match=r"FailingReset.reset raised LookupError"):
            controller.reset()
        assert controller.is_running


def test_a_queue_whose_put_raises(start_method):
    server = QueueServer("localhost", 0, Refusing())
    with Controller(server, start_method=start_method) as controller:
        with connected(controller) as client:
            code, text = refused_reply(client, "hi")
            assert code == 451
            assert b"(RuntimeError) this queue is closed for the season" in text
        with pytest.raises(HandlerError, match=r"Refusing.put raised RuntimeError") as caught:
            controller.reset()
        assert "in put" in caught.value.traceback


def test_a_queue_that_is_full():
    inbox: queue.Queue = queue.Queue(maxsize=1)
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        with connected(controller) as client:
            send(client, "fits")
            code, text = refused_reply(client, "does not")
            assert (code, text) == (452, b"4.3.1 Error: (Full)")
        with pytest.raises(HandlerError, match="Full"):
            controller.reset()
        assert inbox.empty(), "the reset was made nevertheless"


def test_something_unpicklable_passed_on_is_the_handlers_fault():
    class Bad(QueueServer):
        def handle_message(self, message):
            message.lock = threading.Lock()
            super().handle_message(message)

    with pytest.raises(HandlerError, match=r"Bad.handle_message raised TypeError.*pickle"):
        with Controller(Bad("localhost", 0, MessageQueue())) as controller:
            with connected(controller) as client:
                assert refused_reply(client, "hi")[0] == 451


def test_hooks_of_aiosmtpd_work():
    class HookedController(QueueController):
        def _make_server(self, host, port):
            self.server = Hooked(host, port, self.queue)

    with HookedController() as controller:
        with connected(controller) as client:
            client.ehlo()
            client.mail("kim@example.com")
            assert client.rcpt("nobody@example.com") == (550, b"5.1.1 No such user")
            code, text = client.rcpt("broken@example.com")
            assert (code, text) == (451, b"4.3.0 Error: (KeyError) 'broken'")
            assert client.rcpt("lee@example.com")[0] == 250
            assert client.data(b"Subject: hooked\r\n\r\n")[0] == 250
        with pytest.raises(HandlerError, match=r"Hooked.handle_RCPT raised KeyError"):
            controller.queue.get_nowait()
        assert controller.queue.get_nowait().envelope.rcpt_tos == ("lee@example.com",)


def test_each_failure_is_told_by_qsize_too():
    class Fails(QueueServer):
        def handle_message(self, message):
            raise ValueError(message["subject"])

    inbox = MessageQueue()
    with Controller(Fails("localhost", 0, inbox)) as controller, connected(controller) as client:
        for subject in ("one", "two"):
            assert refused_reply(client, subject)[0] == 451
        for subject in ("one", "two"):
            with pytest.raises(HandlerError, match=f"ValueError: {subject}"):
                inbox.qsize()
        assert inbox.qsize() == 0


def test_putting_into_a_foreign_queue_on_the_event_loop_is_an_error():
    class Direct(QueueServer):
        async def handle_DATA(self, server, session, envelope):
            self.queue.put(envelope.content)
            return "250 OK"

    inbox: queue.Queue = queue.Queue()
    with Controller(Direct("localhost", 0, inbox)) as controller:
        with pytest.raises(smtplib.SMTPDataError, match="run_in_executor"):
            send_to(controller, "hi")
        with pytest.raises(HandlerError, match="run_in_executor"):
            controller.reset()


# What servers carry with them.


class Reporting(Server):
    def __init__(self, results):
        super().__init__()
        self.queue = results

    def handle_message(self, message):
        self.queue.put(message["subject"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_server_that_is_no_queue_server_may_have_a_queue(method):

    results = multiprocessing.get_context(method).Queue()
    with Controller(Reporting(results), start_method=method) as controller:
        send_to(controller, "mine")
        assert results.get(timeout=10) == "mine"
    results.close()
    results.join_thread()


class Proxy:
    """Stands for nothing at the moment, and says so to whoever looks."""

    __class__ = property(lambda self: 1 / 0)
    __dict__ = property(lambda self: 1 / 0)
    fileno = property(lambda self: 1 / 0)


current_app = Proxy()


def test_a_proxy_among_the_globals_of_a_handler():
    class Careful(QueueServer):
        def handle_message(self, message):
            if message is None:
                current_app.log()
            super().handle_message(message)

    inbox = MessageQueue()
    with Controller(Careful("localhost", 0, inbox)) as controller:
        send_to(controller, "fine")
        assert inbox.get_nowait()["subject"] == "fine"


class Junk:
    """Garbage whose finalizer logs, as asyncio's "Task was destroyed" does."""

    def __init__(self) -> None:
        self.myself = self

    def __del__(self) -> None:
        logging.getLogger("app").warning("not closed")


@pytest.fixture
def unheard():
    """Keep what the loggers of these tests say from pytest's report."""
    logger = logging.getLogger("app")
    logger.addHandler(null := logging.NullHandler())
    logger.propagate = False
    yield
    logger.removeHandler(null)
    logger.propagate = True


#: When garbage is collected depends on what a release of Python allocates.
@pytest.mark.parametrize("threshold", [5, 50, 700, 2000])
@pytest.mark.usefixtures("unheard")
def test_garbage_that_logs_while_a_message_is_sent(threshold):
    """Collecting it, within the very code that sends, sends a log record."""

    class Littering(QueueServer):
        def handle_message(self, message):
            gc.set_threshold(threshold)
            for _ in range(3000):
                Junk()
                super().handle_message("x")

    inbox = MessageQueue()
    with Controller(Littering("localhost", 0, inbox)) as controller:
        for _ in range(3):
            send_to(controller, "hi")
            assert [inbox.get_nowait() for _ in range(3000)] == ["x"] * 3000
