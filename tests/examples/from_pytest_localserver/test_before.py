import pytest
from shop import Mailer


@pytest.fixture
def mailer(smtpserver):
    return Mailer(*smtpserver.addr)


def test_receipt(mailer, smtpserver):
    mailer.send(
        "kim@example.com", "Your receipt", "You have paid 12.50.\n"
    )

    assert len(smtpserver.outbox) == 1
    message = smtpserver.outbox[0]
    assert message["Subject"] == "Your receipt"
    assert message.details.rcpttos == ["kim@example.com"]
    assert (
        message.get_payload(decode=True) == b"You have paid 12.50.\r\n"
    )


def test_nobody_there(mailer, smtpserver):
    smtpserver.stop()
    with pytest.raises(ConnectionRefusedError):
        mailer.send(
            "kim@example.com", "Your receipt", "You have paid 12.50.\n"
        )
