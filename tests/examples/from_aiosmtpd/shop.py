import smtplib
from email.message import EmailMessage


def send_receipt(host, port, customer):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = customer
    message["Subject"] = "Your receipt"
    message.set_content("You have paid 12.50.\n")
    with smtplib.SMTP(host, port) as client:
        client.send_message(message)
