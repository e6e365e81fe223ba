import smtplib
from email.message import EmailMessage


def send_receipt(host, port, customer, total):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = customer
    message["Subject"] = "Your receipt"
    message.set_content(f"You have paid {total}.\n")
    message.add_attachment(
        b"%PDF-1.7",
        maintype="application",
        subtype="pdf",
        filename="it.pdf",
    )
    with smtplib.SMTP(host, port) as client:
        client.send_message(
            message, to_addrs=[customer, "archive@example.com"]
        )


def test_receipt(smtptest):
    send_receipt(
        smtptest.host, smtptest.port, "kim@example.com", "12.50"
    )

    message = smtptest.wait(
        to="kim@example.com", subject="Your receipt"
    )
    assert message.text == "You have paid 12.50.\n"
    assert [found.name for found in message.attachments] == ["it.pdf"]
    assert message.envelope.rcpt_tos == (
        "kim@example.com",
        "archive@example.com",
    )


def test_a_receipt_goes_to_nobody_else(smtptest):
    send_receipt(
        smtptest.host, smtptest.port, "kim@example.com", "12.50"
    )

    (message,) = smtptest.messages
    assert message.header("To") == "kim@example.com"
