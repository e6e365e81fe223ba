import os
import subprocess
import sys

import pytest

# Any program in any language will do.
APP = r"""
import os, smtplib, time

time.sleep(0.3)  # it sends a little later
host, port = os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])
with smtplib.SMTP(host, port) as client:
    for name in "kim", "lee", "max":
        address = name + "@example.com"
        content = "Subject: Good morning\r\n\r\nDear " + name + "!\r\n"
        client.sendmail("news@example.com", address, content)
"""


@pytest.fixture
def app(smtptest):
    environment = {
        **os.environ,
        "SMTP_HOST": smtptest.host,
        "SMTP_PORT": str(smtptest.port),
    }
    with subprocess.Popen(
        [sys.executable, "-c", APP], env=environment
    ) as process:
        yield process
        process.terminate()


def test_one_letter(app, smtptest):
    message = smtptest.wait(rcpt="lee@example.com", timeout=10)
    assert message.text == "Dear lee!\n"


def test_all_letters(app, smtptest):
    messages = smtptest.wait_many(3, subject="Good morning", timeout=10)
    assert [
        message.envelope.rcpt_tos[0][:3] for message in messages
    ] == ["kim", "lee", "max"]
    smtptest.expect_none()
