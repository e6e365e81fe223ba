import smtplib
from email.message import EmailMessage


class Mailer:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def send(self, customer, subject, text):
        message = EmailMessage()
        message["From"] = "shop@example.com"
        message["To"] = customer
        message["Subject"] = subject
        message.set_content(text)
        with smtplib.SMTP(self.host, self.port) as client:
            client.send_message(message)
