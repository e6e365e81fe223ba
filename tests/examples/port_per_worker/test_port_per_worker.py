import os
import subprocess
import sys

import pytest

# It stands for an application that takes long to start.
APP = r"""
import os, smtplib, sys

host, port = os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])
welcome = "Subject: Welcome\r\n\r\n"
for address in sys.stdin:
    with smtplib.SMTP(host, port) as client:
        client.sendmail("app@example.com", address.strip(), welcome)
"""


@pytest.fixture(scope="session")
def app(smtptest_server):
    """One application for each worker, with that worker's server."""
    where = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtptest_server.port),
    }
    with subprocess.Popen(
        [sys.executable, "-c", APP],
        env={**os.environ, **where},
        stdin=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        yield process


@pytest.mark.parametrize("name", ["kim", "lee", "max", "ned"])
def test_welcome(app, smtptest, name):
    app.stdin.write(f"{name}@example.com\n")

    message = smtptest.wait(subject="Welcome", timeout=10)
    assert message.envelope.rcpt_tos == (f"{name}@example.com",)
    smtptest.expect_none()
