"""What cannot be started, and what cannot be asked of what is not started."""

from __future__ import annotations

import errno
import socket

import pytest
from helpers import Unpicklable, send_to

from lazr_smtptest import (
    AlreadyRunning,
    Controller,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    Server,
    StartError,
)


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        controller = QueueController("127.0.0.1", port)
        with pytest.raises(OSError, match=f"127.0.0.1.*{port}.*in use") as caught:
            controller.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert not controller.is_running
    controller.start()
    controller.stop()


def test_two_servers_never_share_a_port():
    with QueueController() as one:
        with pytest.raises(OSError, match=str(one.port)):
            QueueController("localhost", one.port).start()


def test_host_of_another_machine():
    with pytest.raises(OSError, match=r"192\.0\.2\.1.*port 0.*this machine") as caught:
        QueueController("192.0.2.1").start()
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_host_that_does_not_resolve():
    with pytest.raises(socket.gaierror, match=r"no-such-host\.invalid"):
        QueueController("no-such-host.invalid").start()


def test_second_start_is_an_error():
    with QueueController() as controller:
        with pytest.raises(AlreadyRunning, match=str(controller.port)) as caught:
            controller.start()
        assert caught.value.pid == controller.pid
        send_to(controller, "still there")
        assert len(list(controller)) == 1


def test_reset_needs_a_running_server():
    controller = QueueController()
    with pytest.raises(NotRunning, match="start"):
        controller.reset()
    with controller:
        pass
    with pytest.raises(NotRunning, match="start"):
        controller.reset()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_unpicklable_server_is_named(method):
    controller = Controller(Unpicklable(), start_method=method)
    with pytest.raises(StartError, match=r"lock \(lock\).*Unpicklable.*start_method='fork'"):
        controller.start()
    assert not controller.is_running


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_local_class_is_named(method):
    class Local(Server):
        pass

    with pytest.raises(StartError, match=r"Local cannot be pickled.*top level"):
        Controller(Local(), start_method=method).start()


def test_unpicklable_server_is_fine_with_fork():
    with Controller(Unpicklable(), start_method="fork") as controller:
        send_to(controller, "hi")


def test_one_queue_cannot_be_filled_by_two_servers():
    inbox = MessageQueue()
    server = QueueServer("localhost", 0, inbox)
    with Controller(server):
        for other in (server, QueueServer("localhost", 0, inbox)):
            with pytest.raises(AlreadyRunning, match="a queue of its own"):
                Controller(other).start()
    with Controller(server) as second:
        send_to(second, "now it may")
    assert inbox.get_nowait()["subject"] == "now it may"


class WithoutReset(Server):
    """Has a property that raises when the server process looks at it."""

    reset_on_rset = property(lambda _: 1 // 0, lambda *_: None)

    def handle_message(self, message):
        pass


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_property_that_raises_fails_the_start(method):
    with pytest.raises(StartError, match="before it served.*\\n(.*\\n)*ZeroDivisionError"):
        Controller(WithoutReset(), start_method=method).start()


def test_a_hook_with_a_wrong_signature_fails_the_start():
    class Wrong(Server):
        async def handle_EHLO(self, server, session, envelope):
            return "250 x"

    with pytest.raises(StartError, match="Wrong.*EHLO"):
        Controller(Wrong()).start()


@pytest.mark.parametrize("host", ["x..y", "a" * 70 + ".example"])
def test_hosts_that_cannot_be_names(host):
    with pytest.raises(OSError, match="cannot listen on.*port 0"):
        QueueController(host).start()
