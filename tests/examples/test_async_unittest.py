import asyncio
import smtplib
import unittest

from lazr_smtptest import QueueController


async def remind(host, port, address):
    def send():
        with smtplib.SMTP(host, port) as client:
            client.sendmail(
                "calendar@example.com",
                address,
                "Subject: Reminder\r\n\r\n",
            )

    await asyncio.to_thread(send)


class ReminderTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.smtp = QueueController()
        cls.smtp.start()
        cls.addClassCleanup(cls.smtp.stop)

    def setUp(self):
        self.smtp.reset()

    async def test_reminder(self):
        await remind(self.smtp.host, self.smtp.port, "kim@example.com")

        message = self.smtp.wait(rcpt="kim@example.com")
        self.assertEqual(message.header("Subject"), "Reminder")

    async def test_reminders_under_way_at_once(self):
        with self.smtp.gate("EOM") as gate:
            tasks = [
                asyncio.create_task(
                    remind(
                        self.smtp.host,
                        self.smtp.port,
                        f"{name}@example.com",
                    )
                )
                for name in ("kim", "lee")
            ]
            await asyncio.to_thread(gate.wait_parked, count=2)
            self.assertEqual(self.smtp.messages, [])
        await asyncio.gather(*tasks)
        self.assertEqual(len(self.smtp.messages), 2)
