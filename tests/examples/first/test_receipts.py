from receipts import send_receipt


def test_receipt(smtptest):
    send_receipt(smtptest.host, smtptest.port, "kim@example.com", "12.50")

    message = smtptest.wait(rcpt="kim@example.com", subject="Your receipt")
    assert message.text == "You have paid 12.50.\n"
