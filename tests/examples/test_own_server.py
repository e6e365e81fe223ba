import smtplib

import pytest

from lazr_smtptest import QueueController, QueueServer


class FussyServer(QueueServer):
    async def handle_RCPT(
        self, server, session, envelope, address, rcpt_options
    ):
        if address.startswith("nobody@"):
            return "550 5.1.1 No such person here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"


class FussyController(QueueController):
    def _make_server(self, host, port):
        self.server = FussyServer(
            host, port, self.queue, **self.server_options
        )


@pytest.fixture(scope="session")
def fussy_server():
    with FussyController() as controller:
        yield controller


@pytest.fixture
def fussy(fussy_server):
    fussy_server.reset()
    return fussy_server


def test_receipt_for_nobody(fussy):
    with smtplib.SMTP(fussy.host, fussy.port) as client:
        refused = client.sendmail(
            "shop@example.com",
            ["kim@example.com", "nobody@example.com"],
            "Subject: Your receipt",
        )
    assert list(refused) == ["nobody@example.com"]
    assert fussy.wait().envelope.rcpt_tos == ("kim@example.com",)
