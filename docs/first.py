import smtplib

from lazr_smtptest import QueueController

if __name__ == "__main__":
    mail = "Subject: Lunch?\n\nAt noon.\n"
    with QueueController() as controller:
        with smtplib.SMTP(controller.host, controller.port) as client:
            client.sendmail("kim@example.com", "lee@example.com", mail)
        for message in controller:
            print(message["Subject"], "for", *message.envelope.rcpt_tos)
            print(message.raw)
