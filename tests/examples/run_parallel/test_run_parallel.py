import smtplib


def send_receipt(host, port, customer):
    with smtplib.SMTP(host, port) as client:
        client.sendmail(
            "shop@example.com",
            customer,
            "Subject: Your receipt\r\n\r\nThanks.\r\n",
        )


def test_receipt(smtptest):
    """Runs in one thread: it looks at all mail that there is."""
    send_receipt(smtptest.host, smtptest.port, "kim@example.com")

    (message,) = smtptest.messages
    assert message.header("Subject") == "Your receipt"


def test_receipts(smtptest_server, thread_index):
    """Runs in several threads: each has an address of its own."""
    customer = f"kim-{thread_index}@example.com"

    send_receipt(smtptest_server.host, smtptest_server.port, customer)

    message = smtptest_server.wait(rcpt=customer)
    assert message.header("Subject") == "Your receipt"
    smtptest_server.expect_none(rcpt=customer)
