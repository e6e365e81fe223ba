"""coverage.py in the server process: which lines of handlers and hooks ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import START_METHODS
from paths import SUPPORT

pytestmark = pytest.mark.timeout(120)

SHOP = """
from lazr_smtptest import QueueServer


class Tagging(QueueServer):
    def handle_message(self, message):
        message["X-Tag"] = "1"
        super().handle_message(message)

    async def handle_RCPT(self, server, session, envelope, address, options):
        envelope.rcpt_tos.append(address)
        return "250 OK"
"""

TEST = """
from helpers import send_to
from lazr_smtptest import Controller, MessageQueue
from shop import Tagging


def test_tag():
    inbox = MessageQueue()
    with Controller(Tagging("localhost", 0, inbox), start_method={method!r}) as controller:
        send_to(controller, "one")
        assert inbox.get()["X-Tag"] == "1"
"""

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


def missing_lines(where: Path, method: str, configuration: str, *commands: list[str]) -> list[int]:
    """Measure a test of a shop by these commands; return which lines of the shop did not run."""
    (where / "shop.py").write_text(SHOP)
    (where / "test_shop.py").write_text(TEST.format(method=method))
    (where / ".coveragerc").write_text(f"[run]\n{configuration}\n")
    # Nothing of the run that this is in, which may be measured itself.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    for command in [*commands, ["-m", "coverage", "json", "-q"]]:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=where,
            env={
                **clean,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONPATH": os.pathsep.join([str(where), str(SUPPORT)]),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return json.loads((where / "coverage.json").read_text())["files"]["shop.py"]["missing_lines"]


BY_PYTEST = [[*PYTEST, "-p", "pytest_cov.plugin", "--cov=.", "--cov-report="]]
BY_COVERAGE = [
    ["-m", "coverage", "run", "--source=.", *PYTEST],
    ["-m", "coverage", "combine", "-q"],
]


@pytest.mark.parametrize("commands", [BY_PYTEST, BY_COVERAGE], ids=["pytest-cov", "coverage-run"])
@pytest.mark.parametrize(
    "configuration", ["concurrency = multiprocessing, thread", "patch = subprocess"]
)
@pytest.mark.parametrize("method", START_METHODS)
def test_what_runs_in_the_server_process_is_measured(tmp_path, method, configuration, commands):
    assert missing_lines(tmp_path, method, configuration, *commands) == []


@pytest.mark.parametrize("configuration", ["", "patch = _exit", "parallel = true"])
def test_a_fork_needs_no_configuration_by_pytest_cov(tmp_path, configuration):
    assert missing_lines(tmp_path, "fork", configuration, *BY_PYTEST) == []


def test_the_file_of_the_test_process_is_left_to_it(tmp_path):
    """Both would write the one there is, and the lines that run in the test process be lost."""
    missing = missing_lines(tmp_path, "fork", "parallel = false", BY_COVERAGE[0])
    assert len(missing) == 4, "the handler's and the hook's, and no more"
