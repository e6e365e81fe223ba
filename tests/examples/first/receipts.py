import smtplib
from email.message import EmailMessage


def send_receipt(host, port, customer, total):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = customer
    message["Subject"] = "Your receipt"
    message.set_content(f"You have paid {total}.\n")
    with smtplib.SMTP(host, port) as client:
        client.send_message(message)
