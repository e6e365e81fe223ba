import smtplib

import pytest
from shop import send_receipt


def test_receipt(smtptest):
    send_receipt(smtptest.host, smtptest.port, "kim@example.com")

    (message,) = smtptest.messages
    assert message["Subject"] == "Your receipt"
    assert message.envelope.rcpt_tos == ("kim@example.com",)
    assert message.text == "You have paid 12.50.\n"


def test_nobody(smtptest):
    unknown = "550 5.1.1 No such person here"
    smtptest.fault("RCPT", unknown, when="nobody@example.com")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_receipt(smtptest.host, smtptest.port, "nobody@example.com")
    assert smtptest.messages == []
