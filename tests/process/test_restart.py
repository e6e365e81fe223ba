"""The same port, with other options."""

from __future__ import annotations

import asyncio
import smtplib
import socket

import aiosmtplib
import pytest
from helpers import Misbehaving, connected, send_to, subjects
from waiting import kill

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    Server,
    StartError,
)


def greeting(controller: Controller) -> str:
    with socket.create_connection((controller.host, controller.port)) as client:
        return client.makefile("rb").readline().decode()


def test_the_port_stays_and_the_options_change(controller):
    port, pid = controller.port, controller.pid
    controller.restart(hostname="other.example.com", hide=("DSN",))
    assert controller.port == port
    assert controller.pid != pid
    with connected(controller) as client:
        assert client.ehlo()[1].startswith(b"other.example.com")
        assert not client.has_extn("dsn")
        assert client.has_extn("size")


def test_each_restart_changes_what_it_names(controller):
    controller.restart(ident="one")
    controller.restart(hostname="two.example.com", data_size_limit=None)
    assert greeting(controller) == "220 two.example.com one\r\n"
    assert controller.server_options == {
        "ident": "one",
        "hostname": "two.example.com",
        "data_size_limit": None,
    }
    controller.stop()
    controller.start()
    assert greeting(controller) == "220 two.example.com one\r\n"


def test_messages_stay_and_sessions_and_faults_go(controller):
    send_to(controller, "one")
    fault = controller.fault("RCPT", "450 No")
    controller.restart()
    send_to(controller, "two")
    assert subjects(controller.wait_many(2)) == ["one", "two"]
    assert len(controller.sessions()) == 1
    with pytest.raises(NotRunning):
        fault.remove()


def test_a_client_that_logs_in_and_encrypts(controller):
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    controller.restart(tls="starttls", auth={"kim": "secret"}, auth_required=True)

    async def main() -> None:
        client = aiosmtplib.SMTP(
            hostname=controller.host,
            port=controller.port,
            tls_context=controller.client_context(),
            username="kim",
            password="secret",
        )
        async with client:
            transport = client.transport
            await client.sendmail("kim@example.com", ["lee@example.com"], "Subject: one\r\n\r\n")
            await client.quit()
            # It would leave TLS to end by itself, after the event loop.
            transport.abort()

    asyncio.run(main())
    assert controller.wait().envelope.auth_user == "kim"
    controller.restart(tls=None, auth=None, auth_required=False)
    with connected(controller) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert not client.has_extn("auth")


def test_a_certificate_is_that_of_the_new_options(controller):
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    controller.restart(tls="starttls")
    first = controller.ca_file
    controller.restart(tls="implicit")
    with smtplib.SMTP_SSL(
        controller.host, controller.port, context=controller.client_context()
    ) as client:
        assert client.noop()[0] == 250
    assert first


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 25},
        {"hostnam": "x"},
        {"hostname": ""},
        {"hostname": "right.example.com", "auth_required": True},
        {"start_method": "thread"},
        {"reset_timeout": 0},
        {"stop_timeout": 5.0, "idle_timeout": -1},
        {"hostname": "right.example.com", "tls": "ssl"},
    ],
    ids=str,
)
def test_with_a_bad_option_the_server_goes_on(controller, changes):
    pid, before = controller.pid, (greeting(controller), controller._stop_timeout)
    fault = controller.fault("RCPT", "450 No")
    with connected(controller) as client:
        with pytest.raises((TypeError, ValueError)):
            controller.restart(**changes)
        assert client.noop()[0] == 250
    assert controller.pid == pid
    assert (greeting(controller), controller._stop_timeout) == before
    assert fault.fired == 0
    assert controller.server_options == {}


def test_with_files_that_are_not_there_the_server_goes_on(controller):
    from lazr_smtptest import TLS

    pid = controller.pid
    with pytest.raises(FileNotFoundError):
        controller.restart(tls=TLS(certfile="no/cert.pem"))
    assert controller.pid == pid
    assert controller.server.tls is None


class Picky(QueueServer):
    @property
    def auth_PICKY(self) -> None:
        if self.hostname == "bad.example.com":
            raise LookupError("not on this host")


class PickyController(QueueController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Picky(host, port, self.queue, **self.server_options)


def test_what_cannot_start_leaves_one_with_the_options_from_before():
    with PickyController(hostname="good.example.com") as controller:
        port = controller.port
        send_to(controller, "one")
        with pytest.raises(StartError, match="not on this host"):
            controller.restart(hostname="bad.example.com")
        assert controller.is_running
        assert controller.port == port
        assert greeting(controller).startswith("220 good.example.com ")
        assert subjects(controller) == ["one"]


def test_a_server_of_a_class_of_its_own_keeps_what_it_has():
    class Own(Server):
        def __init__(self, prefix: str) -> None:
            super().__init__(ident="first")
            self.prefix = prefix

        async def handle_NOOP(self, server, session, envelope, arg) -> str:
            return f"250 {self.prefix}"

    own = Own("mine")
    with Controller(own, start_method="fork") as controller:
        controller.restart(ident="second")
        assert controller.server is own
        assert greeting(controller) == "220 localhost second\r\n"
        with connected(controller) as client:
            assert client.noop() == (250, b"mine")


def test_one_that_does_not_run_is_started():
    controller = QueueController()
    controller.restart(ident="one")
    try:
        assert greeting(controller) == "220 localhost one\r\n"
        kill(controller)
        controller.restart(ident="two")
        assert greeting(controller) == "220 localhost two\r\n"
    finally:
        controller.stop()


def test_a_port_that_somebody_took_is_not_exchanged_for_another():
    with QueueController("127.0.0.1") as controller:
        controller.stop()
        with socket.socket() as other:
            other.bind(("127.0.0.1", controller.port))
            other.listen()
            with pytest.raises(OSError, match="somebody listens there"):
                controller.restart()
        controller.restart()


def test_a_handler_that_had_failed_is_heard_of():
    with Controller(Misbehaving("localhost", 0, MessageQueue())) as controller:
        with pytest.raises(smtplib.SMTPDataError):
            send_to(controller, "raise")
        with pytest.raises(HandlerError):
            controller.restart(ident="other")
        assert greeting(controller) == "220 localhost other\r\n"


def test_options_of_a_controller(controller):
    controller.restart(start_method="spawn", uvloop=False, reset_timeout=7)
    assert controller._reset_timeout == 7.0
    send_to(controller, "one")
    assert subjects(controller) == ["one"]
