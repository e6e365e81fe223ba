import pytest
from shop import send_receipt

from lazr_smtptest import TLS


def test_receipt(smtptest):
    send_receipt(smtptest.host, smtptest.port, "kim@example.com")

    (message,) = smtptest.messages
    assert message["Subject"] == "Your receipt"
    assert message.envelope.rcpt_tos == ("kim@example.com",)
    assert message.text == "You have paid 12.50.\n"


@pytest.mark.smtptest(
    auth={"shop": "s3cret"},
    auth_required=True,
    tls=TLS("starttls", required=True),
)
def test_login(smtptest):
    send_receipt(
        smtptest.host,
        smtptest.port,
        "kim@example.com",
        tls=smtptest.client_context(),
        login=("shop", "s3cret"),
    )

    (message,) = smtptest.messages
    assert message.envelope.auth_user == "shop"
