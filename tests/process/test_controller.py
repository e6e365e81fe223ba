"""The life of a controller: to start, to take mail, to be reset, to stop, and to start again."""

from __future__ import annotations

import os
import queue
import smtplib
import socket
import threading

import pytest
from helpers import Rewriting, awaited, connected, gone, refused, send, send_to, subjects, until

from lazr_smtptest import Controller, MessageQueue, NotRunning, QueueController, QueueServer


def test_life(start_method):
    controller = QueueController(start_method=start_method)
    assert not controller.is_running
    assert (controller.host, controller.server.port, controller.pid) == ("localhost", 0, None)
    controller.start()
    assert controller.is_running
    assert controller.port > 0
    pid = controller.pid
    assert pid not in (None, os.getpid())
    send_to(controller, "one", "two")
    controller.stop()
    assert not controller.is_running
    assert controller.pid is None
    assert gone(pid)
    assert refused(controller.port)
    assert subjects(controller) == ["one", "two"], "what was accepted stays readable"
    controller.stop()
    controller.start()
    send_to(controller, "three")
    assert subjects(controller) == ["three"]
    controller.stop()


def test_context_manager_gives_the_controller():
    with QueueController() as controller:
        assert isinstance(controller, QueueController)
        assert controller.is_running
    assert not controller.is_running


def test_repr_says_where_and_whether():
    controller = QueueController()
    assert repr(controller) == "<QueueController on localhost, a free port, not running>"
    with controller:
        port, pid = controller.port, controller.pid
        assert repr(controller) == f"<QueueController on localhost port {port}, pid {pid}>"


def test_a_free_port_is_not_known_before_the_start():
    """A client takes port 0 for its usual one, and mail would go out for real."""
    controller = QueueController()
    with pytest.raises(
        NotRunning, match=r"no port before it is started.*call start\(\)"
    ) as caught:
        smtplib.SMTP(controller.host, controller.port)
    assert (caught.value.host, caught.value.port) == ("localhost", None)
    assert controller.server.port == 0
    with controller:
        port = controller.port
        assert controller.server.port == 0
    assert controller.port == port


def test_a_free_port_is_not_known_when_the_start_failed():
    controller = QueueController("192.0.2.1")
    with pytest.raises(OSError, match="machine"):
        controller.start()
    with pytest.raises(NotRunning):
        controller.port  # noqa: B018


def test_a_port_that_was_asked_for_is_known_at_once():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port = sock.getsockname()[1]
    controller = QueueController(port=port)
    assert controller.port == controller.server.port == port
    assert repr(controller) == f"<QueueController on localhost port {port}, not running>"


def test_messages_of_two_runs_come_in_order():
    controller = QueueController()
    for subject in ("first run", "second run"):
        with controller:
            send_to(controller, subject)
    assert controller.queue.qsize() == 2
    assert subjects(controller) == ["first run", "second run"]


def test_reset_forgets_earlier_runs_too():
    controller = QueueController()
    with controller:
        send_to(controller, "first run")
    with controller:
        send_to(controller, "second run")
        controller.reset()
        assert controller.queue.qsize() == 0
        send_to(controller, "third")
        assert subjects(controller) == ["third"]


def test_clients_may_connect_at_once_and_wait_in_the_backlog():
    with QueueController() as controller:
        held = [socket.create_connection((controller.host, controller.port)) for _ in range(300)]
        for sock in held:
            sock.settimeout(10)
            assert sock.recv(4) == b"220 "
            sock.close()


def test_two_controllers_at_once():
    with QueueController() as one, QueueController() as two:
        assert one.port != two.port
        send_to(one, "one")
        send_to(two, "two")
        assert subjects(two) == ["two"]
        assert subjects(one) == ["one"]


def test_started_in_a_thread():
    controllers: list[QueueController] = []

    def start() -> None:
        controller = QueueController()
        controller.start()
        controllers.append(controller)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    (controller,) = controllers
    send_to(controller, "from a thread that has ended")
    assert len(list(controller)) == 1
    controller.stop()


def test_stop_wakes_a_reader():
    controller = QueueController()
    controller.start()
    outcomes: queue.Queue = queue.Queue()

    def read() -> None:
        try:
            outcomes.put(controller.queue.get(timeout=15))
        except queue.Empty as error:
            outcomes.put(error)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: awaited(controller))
    controller.stop()
    reader.join(2)
    assert isinstance(outcomes.get_nowait(), queue.Empty)


def test_several_readers_share_the_messages():
    with QueueController() as controller:
        taken: list[str] = []

        def read() -> None:
            while True:
                message = controller.queue.get(timeout=10)
                if message["subject"] == "end":
                    return
                taken.append(message["subject"])

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        numbers = [str(number) for number in range(200)]
        send_to(controller, *numbers, *["end"] * len(readers))
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
        assert sorted(taken) == sorted(numbers)


def test_make_server_is_kept_for_subclasses():
    class Custom(QueueController):
        def _make_server(self, host, port):
            self.server = Rewriting(host, port, self.queue, **self.server_options)

    with Custom("localhost", 0, hostname="mx.example") as controller:
        send_to(controller, "once", "none", "twice")
        messages = list(controller)
        assert subjects(messages) == ["once", "twice", "twice"]
        assert {m["X-Seen-By"] for m in messages} == {str(controller.pid)}
        assert messages[0].envelope.rcpt_tos == ("lee@example.com",)
        assert messages[0].raw == b"Subject: once\r\n\r\nHello.\r\n"


def test_a_message_queue_of_ones_own():
    inbox = MessageQueue()
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        send_to(controller, "mine")
        assert inbox.get_nowait()["subject"] == "mine"


def test_reset_empties_a_standard_queue():
    inbox: queue.Queue = queue.Queue()
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        send_to(controller, "one", "two")
        assert inbox.qsize() == 2
        controller.reset()
        assert inbox.empty()
        send_to(controller, "three")
        assert inbox.get_nowait()["subject"] == "three"


def test_anything_with_put_is_a_queue():
    class Pile:
        def __init__(self):
            self.put = self.messages.append

        messages: list = []

    pile = Pile()
    with Controller(QueueServer("localhost", 0, pile)) as controller:
        send_to(controller, "one")
        assert subjects(pile.messages) == ["one"]
        controller.reset()


def test_rset_only_ends_the_transaction():
    with QueueController() as controller, connected(controller) as client:
        send(client, "kept")
        client.rset()
        assert subjects(controller) == ["kept"]


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "theirs"])
def test_rset_resets_as_in_2_x_if_asked_to(foreign):
    inbox = queue.Queue() if foreign else MessageQueue()
    server = QueueServer("localhost", 0, inbox, reset_on_rset=True)
    with Controller(server) as controller, connected(controller) as client:
        send(client, "gone")
        client.rset()
        assert inbox.empty()
        send(client, "kept")
        assert inbox.get_nowait()["subject"] == "kept"


def test_rset_with_more_than_one_read_in_the_pipe():
    """What is to be forgotten is not handed out, however much lies before the mark."""
    with QueueController(reset_on_rset=True) as controller, connected(controller) as client:
        send(client, "small")
        send(client, "large", ("x" * 70 + "\r\n") * 7000)
        assert controller.queue.qsize() == 2
        client.rset()
        assert controller.queue.qsize() == 0
        send(client, "small")
        send(client, "large", ("x" * 70 + "\r\n") * 7000)
        client.rset()
        with pytest.raises(queue.Empty):
            controller.queue.get_nowait()


def test_long_timeouts_are_fine():
    with QueueController(stop_timeout=1e9, start_timeout=1e9, reset_timeout=1e9) as controller:
        send_to(controller, "one")
        assert controller.queue.get(timeout=1e7)["subject"] == "one"
        controller.reset()
