import smtplib

from lazr_smtptest import Lease


def test_signup(smtptest: Lease) -> None:
    kim = smtptest.address("kim")
    with smtplib.SMTP(smtptest.host, smtptest.port) as client:
        client.sendmail("shop@example.com", kim, "Subject: Welcome\n")

    assert smtptest.wait(rcpt=kim).header("Subject") == "Welcome"
