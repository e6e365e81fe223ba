import smtplib
import unittest

import pytest


def invite(host, port, guests):
    with smtplib.SMTP(host, port) as client:
        client.sendmail(
            "host@example.com",
            guests,
            "Subject: A party\r\n\r\nAt ours.\r\n",
        )


class InvitationTest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def have_mail_server(self, smtptest):
        self.smtp = smtptest

    def test_one_message_for_all_guests(self):
        guests = ["kim@example.com", "lee@example.com"]
        invite(self.smtp.host, self.smtp.port, guests)

        message = self.smtp.wait(subject="A party")
        self.assertEqual(message.envelope.rcpt_tos, tuple(guests))
        self.smtp.expect_none()

    def test_no_message_for_no_guests(self):
        with self.assertRaises(smtplib.SMTPException):
            invite(self.smtp.host, self.smtp.port, [])
        self.smtp.expect_none(subject="A party")
