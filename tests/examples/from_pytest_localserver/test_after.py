import pytest
from shop import Mailer


@pytest.fixture
def mailer(smtptest):
    return Mailer(smtptest.host, smtptest.port)


def test_receipt(mailer, smtptest):
    mailer.send(
        "kim@example.com", "Your receipt", "You have paid 12.50.\n"
    )

    (message,) = smtptest.messages
    assert message["Subject"] == "Your receipt"
    assert message.envelope.rcpt_tos == ("kim@example.com",)
    assert message.text == "You have paid 12.50.\n"


def test_nobody_there(mailer, smtptest):
    smtptest.stop()
    with pytest.raises(ConnectionRefusedError):
        mailer.send(
            "kim@example.com", "Your receipt", "You have paid 12.50.\n"
        )
