import smtplib

import pytest
from shop import send_receipt

from lazr_smtptest import QueueController, QueueServer


class FussyServer(QueueServer):  # it has the methods of a handler
    async def handle_RCPT(self, server, session, envelope, address, _):
        if address == "nobody@example.com":
            return "550 5.1.1 No such person here"
        envelope.rcpt_tos.append(address)
        return "250 OK"


class FussyController(QueueController):
    def _make_server(self, host, port):
        options = self.server_options
        self.server = FussyServer(host, port, self.queue, **options)


@pytest.fixture
def controller():
    with FussyController() as controller:
        yield controller


def test_receipt(controller):
    send_receipt(controller.host, controller.port, "kim@example.com")
    (message,) = controller.messages
    assert message["Subject"] == "Your receipt"


def test_nobody(controller):
    server = controller.host, controller.port
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_receipt(*server, "nobody@example.com")
    assert controller.messages == []
