import smtplib
import ssl
from email.message import EmailMessage


def send_receipt(host, port, customer, *, tls=None, login=None):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = customer
    message["Subject"] = "Your receipt"
    message.set_content("You have paid 12.50.\n")
    with smtplib.SMTP(host, port) as client:
        if tls is not None:
            client.starttls(context=tls)
        if login is not None:
            client.login(*login)
        client.send_message(message)


def trust_everybody():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
