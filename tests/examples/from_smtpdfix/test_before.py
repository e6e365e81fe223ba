import pytest
from shop import send_receipt, trust_everybody


def test_receipt(smtpd):
    send_receipt(smtpd.hostname, smtpd.port, "kim@example.com")

    assert len(smtpd.messages) == 1
    message = smtpd.messages[0]
    assert message["Subject"] == "Your receipt"
    assert message["X-RcptTo"] == "kim@example.com"
    assert (
        message.get_payload(decode=True) == b"You have paid 12.50.\r\n"
    )


@pytest.fixture
def secure_smtpd(smtpd, monkeypatch):
    monkeypatch.setattr(smtpd.config, "login_username", "shop")
    monkeypatch.setattr(smtpd.config, "login_password", "s3cret")
    monkeypatch.setattr(smtpd.config, "enforce_auth", True)
    monkeypatch.setattr(smtpd.config, "use_starttls", True)
    return smtpd


def test_login(secure_smtpd):
    send_receipt(
        secure_smtpd.hostname,
        secure_smtpd.port,
        "kim@example.com",
        tls=trust_everybody(),
        login=("shop", "s3cret"),
    )

    assert len(secure_smtpd.messages) == 1
