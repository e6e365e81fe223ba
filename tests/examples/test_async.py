import asyncio
from email.message import EmailMessage

import aiosmtplib
import pytest


async def remind(host, port, address, delay=0.0):
    await asyncio.sleep(delay)
    message = EmailMessage()
    message["From"] = "calendar@example.com"
    message["To"] = address
    message["Subject"] = "Reminder"
    message.set_content("Lunch at noon.\n")
    await aiosmtplib.send(message, hostname=host, port=port)


@pytest.mark.asyncio
async def test_what_was_sent(smtptest):
    await remind(smtptest.host, smtptest.port, "kim@example.com")

    # It is there, so wait() does not wait.
    assert (
        smtptest.wait(to="kim@example.com").text == "Lunch at noon.\n"
    )


@pytest.mark.asyncio
async def test_what_will_be_sent(smtptest):
    task = asyncio.create_task(
        remind(smtptest.host, smtptest.port, "kim@example.com", 0.3)
    )

    # Meanwhile the event loop goes on.
    message = await smtptest.wait_async(
        to="kim@example.com", subject="Reminder"
    )
    assert message.text == "Lunch at noon.\n"
    await task
