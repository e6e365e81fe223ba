import smtplib
import socket
from email import message_from_bytes

import pytest
from aiosmtpd.controller import Controller
from shop import send_receipt


class Recorder:
    def __init__(self):
        self.messages = []

    async def handle_RCPT(self, server, session, envelope, address, _):
        if address == "nobody@example.com":
            return "550 5.1.1 No such person here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.messages.append(envelope)
        return "250 OK"


def find_free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def controller():
    port = find_free_port()
    controller = Controller(Recorder(), hostname="127.0.0.1", port=port)
    controller.start()
    yield controller
    controller.stop()


def test_receipt(controller):
    server = controller.hostname, controller.port
    send_receipt(*server, "kim@example.com")

    (envelope,) = controller.handler.messages
    message = message_from_bytes(envelope.content)
    assert message["Subject"] == "Your receipt"
    assert envelope.rcpt_tos == ["kim@example.com"]
    assert message.get_payload() == "You have paid 12.50.\r\n"


def test_nobody(controller):
    server = controller.hostname, controller.port
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_receipt(*server, "nobody@example.com")
    assert controller.handler.messages == []
