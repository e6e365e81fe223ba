import smtplib
from collections.abc import Callable
from typing import Any

import pytest

from lazr_smtptest import Message, QueueController

Options = dict[str, Any]
Factory = Callable[..., QueueController]


@pytest.fixture(scope="session")
def smtptest_options(smtptest_options: Options) -> Options:
    return {**smtptest_options, "hostname": "mail.example.com"}


@pytest.fixture
def strict(smtptest_factory: Factory) -> QueueController:
    return smtptest_factory(auth={"kim": "s3cret"}, auth_required=True)


def send_receipt(host: str, port: int) -> None:
    with smtplib.SMTP(host, port) as client:
        sender, recipient = "shop@example.com", "kim@example.com"
        client.sendmail(sender, recipient, "Subject: Your receipt\n")


def is_receipt(message: Message) -> bool:
    return message.header("Subject") == "Your receipt"


def test_receipt(smtptest: QueueController) -> None:
    send_receipt(smtptest.host, smtptest.port)

    message = smtptest.wait(rcpt="kim@example.com", where=is_receipt)
    assert message.envelope.rcpt_tos == ("kim@example.com",)


def test_without_login(strict: QueueController) -> None:
    with pytest.raises(smtplib.SMTPSenderRefused):
        send_receipt(strict.host, strict.port)
    assert strict.messages == []
