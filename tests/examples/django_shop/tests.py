from django.core import mail
from django.test import SimpleTestCase
from smtp_case import SMTPTestMixin


def send_receipt(customer, total):
    mail.send_mail(
        "Your receipt",
        f"You have paid {total}.",
        "shop@example.com",
        [customer],
    )


class OutboxTest(SimpleTestCase):
    """Without the mixin, mail goes into the outbox."""

    def test_receipt(self):
        send_receipt("kim@example.com", "12.50")
        self.assertEqual(
            [message.to for message in mail.outbox],
            [["kim@example.com"]],
        )


class ReceiptTest(SMTPTestMixin, SimpleTestCase):
    def test_receipt(self):
        send_receipt("kim@example.com", "12.50")

        message = self.smtp.wait(
            rcpt="kim@example.com", subject="Your receipt"
        )
        self.assertEqual(message.text, "You have paid 12.50.\n")
        self.assertEqual(mail.outbox, [])

    def test_nothing_is_left_of_other_tests(self):
        self.assertEqual(self.smtp.messages, [])


class RefusalTest(SMTPTestMixin, SimpleTestCase):
    def test_unknown_customer(self):
        self.smtp.fault(
            "RCPT", "550 5.1.1 No such person here", when="lee@*"
        )
        with self.assertRaisesMessage(OSError, "No such person here"):
            send_receipt("lee@example.com", "12.50")

    def test_no_server(self):
        self.smtp.stop()
        self.addCleanup(self.smtp.start)
        with self.assertRaises(ConnectionRefusedError):
            send_receipt("kim@example.com", "12.50")
