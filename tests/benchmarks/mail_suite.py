"""A test suite that sends mail: what is in its files, and how it is run.

Needs nothing but the standard library here, since `crosstalk.py` uses it, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Tests of one file.
_IN_A_MODULE = 20

#: What such variables would change: the options, smtpdfix, and that bytecode is kept.
_NOT_INHERITED = ("PYTEST", "SMTPD_", "PYTHONDONTWRITEBYTECODE")

#: Seconds that a suite may take.
_PATIENCE = 300.0

#: A client that names itself does not ask the resolver for a name.
_SENDING = """\
    token = secrets.token_hex(16)
    with smtplib.SMTP({host}, {port}, "client.example", timeout=30) as client:
        client.sendmail(
            f"{{token}}@example.com",
            [f"to-{{token}}@example.com"],
            f"Subject: {{token}}\\r\\n\\r\\nHello.\\r\\n",
        )
    [message] = {messages}
    assert message["Subject"] == token
    assert {sender} == f"{{token}}@example.com"
    assert {recipients} == [f"to-{{token}}@example.com"]
"""


@dataclass(frozen=True)
class Plugin:
    """A fixture for mail, and how its manual says that a test uses it."""

    name: str
    module: str
    fixture: str
    host: str
    port: str
    messages: str
    sender: str
    recipients: str

    @property
    def sending(self) -> str:
        """Give the body of a test that sends a message, and sees that one and no other."""
        return _SENDING.format_map(vars(self))


OURS = Plugin(
    "lazr_smtptest",
    "lazr_smtptest.pytest_plugin",
    "smtptest",
    "smtptest.host",
    "smtptest.port",
    "smtptest",
    "message.envelope.mail_from",
    "list(message.envelope.rcpt_tos)",
)

#: What is left where the fixture costs nothing: the client, pytest, and reading the message.
NEVER_RESET = Plugin(
    "lazr_smtptest, never reset",
    "lazr_smtptest.pytest_plugin",
    "smtptest_server",
    "smtptest_server.host",
    "smtptest_server.port",
    "[smtptest_server.queue.get_nowait()]",
    "message.envelope.mail_from",
    "list(message.envelope.rcpt_tos)",
)

PEERS = [
    Plugin(
        "pytest-localserver",
        "pytest_localserver.plugin",
        "smtpserver",
        "smtpserver.addr[0]",
        "smtpserver.addr[1]",
        "smtpserver.outbox",
        "message.details.mailfrom",
        "message.details.rcpttos",
    ),
    Plugin(
        "smtpdfix",
        "smtpdfix.fixture",
        "smtpd",
        "smtpd.hostname",
        "smtpd.port",
        "smtpd.messages",
        'message["X-MailFrom"]',
        '[message["X-RcptTo"]]',
    ),
]


def write(directory: Path, tests: int, fixture: str, body: str) -> None:
    """Write a suite.

    :param fixture: What each test is given; none if it is empty.
    :param body: What each test does.
    """
    directory.mkdir(parents=True)
    (directory / "pytest.ini").write_text("[pytest]\n")
    for first in range(0, tests, _IN_A_MODULE):
        numbers = range(first, min(first + _IN_A_MODULE, tests))
        parts = ["import secrets\nimport smtplib\n\nHELD = []\n"]
        parts += [f"def test_{number:05}({fixture}):\n{body}" for number in numbers]
        (directory / f"test_{first // _IN_A_MODULE:03}.py").write_text("\n\n".join(parts))


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    seconds: float
    code: int
    counts: dict[str, int]
    output: str

    def check(self, tests: int) -> None:
        """See to it that all tests were run, and passed."""
        if self.code or self.counts != {"passed": tests}:
            raise RuntimeError(f"not all of {tests} tests passed:\n{self.output[-5000:]}")


def run(directory: Path, plugin: Plugin, arguments: Sequence[str] = ()) -> Outcome:
    """Run a suite in a process of its own, with no plugin but this one and pytest-xdist."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-p", plugin.module, f"--basetemp={directory / 'tmp'}"]
    if arguments:
        command += ["-p", "xdist.plugin", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
    )
    elapsed = time.perf_counter() - started
    return Outcome(elapsed, done.returncode, _counts(done.stdout), done.stdout)


def _counts(output: str) -> dict[str, int]:
    """Read the line that pytest ends with."""
    summaries = re.findall(r"^\d+ [a-z]+(?:, \d+ [a-z]+)* in [\d.]+s.*$", output, re.M)
    if not summaries:
        return {}
    counted = re.findall(r"(\d+) ([a-z]+)", summaries[-1].partition(" in ")[0])
    return {what: int(count) for count, what in counted}
