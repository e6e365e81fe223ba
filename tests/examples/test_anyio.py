from email.message import EmailMessage

import aiosmtplib
import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"  # which aiosmtplib needs


async def remind(host, port, address):
    await anyio.sleep(0.3)
    message = EmailMessage()
    message["From"] = "calendar@example.com"
    message["To"] = address
    message["Subject"] = "Reminder"
    message.set_content("Lunch at noon.\n")
    await aiosmtplib.send(message, hostname=host, port=port)


async def test_reminders(smtptest):
    async with anyio.create_task_group() as tasks:
        for address in "kim@example.com", "lee@example.com":
            tasks.start_soon(
                remind, smtptest.host, smtptest.port, address
            )
        messages = await smtptest.wait_many_async(2, subject="Reminder")
    recipients = sorted(message.header("To") for message in messages)
    assert recipients == ["kim@example.com", "lee@example.com"]
