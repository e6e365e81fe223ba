"""The recipes run as a user would run them, and docs/pytest.rst has them in full."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import literal_block

import lazr_smtptest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "tests" / "examples"
PAGE = (ROOT / "docs" / "pytest.rst").read_text("utf-8")

#: What a user would copy, relative to the directory.
FILES = [
    path.relative_to(EXAMPLES)
    for path in sorted(EXAMPLES.rglob("*"))
    if path.suffix in (".py", ".ini")
]
SINGLE = [path.name for path in FILES if path.suffix == ".py" and path.parent == Path()]


#: Starting workers takes a busy machine a while.
pytestmark = pytest.mark.timeout(60)


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a directory, with all plugins that are installed."""
    package = Path(lazr_smtptest.__file__).parent.parent
    # Nothing of the run that we are in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "--rootdir=.", *arguments],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(package), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def check_passed(done: subprocess.CompletedProcess[str]) -> int:
    """Give the number of tests, all of which have to have passed."""
    last = done.stdout.strip().rpartition("\n")[2]
    summary = re.fullmatch(r"=* ?(\d+) passed in [\d.]+s.*", last)
    assert summary, done.stdout + done.stderr
    assert done.returncode == 0
    return int(summary[1])


def two_free_ports() -> int:
    """Find a port that is free, as the next one is.

    Not among those that the system gives to whoever asks for any.
    """
    for _ in range(100):
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in first, first + 1:
                held.enter_context(socket.create_server(("", port)))
            return first
    raise AssertionError("no two free ports")


def squeezed(text: str) -> list[str]:
    """Give the lines without what differs from run to run."""
    return [re.sub(r"\d+", "0", " ".join(line.split())) for line in text.splitlines()]


@pytest.fixture
def examples(tmp_path) -> Path:
    """A copy of all of them, far from the configuration of this project."""
    return shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )


@pytest.mark.parametrize("name", SINGLE)
def test_one_by_one(examples, name):
    assert check_passed(run_pytest(examples, name))


def test_all_in_two_workers(examples):
    assert check_passed(run_pytest(examples, "-n", "2")) >= len(SINGLE)


class TestPortPerWorker:
    @pytest.fixture
    def directory(self, examples) -> Path:
        directory = examples / "port_per_worker"
        (directory / "test_known_port.py").write_text(
            "import pytest\n\n\n"
            "@pytest.mark.parametrize('n', range(8))\n"
            "def test_port(smtptest, pytestconfig, n):\n"
            "    worker = getattr(pytestconfig, 'workerinput', {}).get('workerid', 'gw0')\n"
            "    base = int(pytestconfig.getini('smtptest_port'))\n"
            "    assert smtptest.port == base + int(worker[2:])\n"
        )
        return directory

    @pytest.mark.parametrize("workers", [0, 2])
    def test_ports(self, directory, workers):
        port = two_free_ports()
        arguments = ["-n", str(workers), "-o", f"smtptest_port={port}", "-p", "no:asyncio"]
        done = run_pytest(directory, *arguments)
        assert check_passed(done) == 12
        owners = f"port {port} for gw0, port {port + 1} for gw1" if workers else f"port {port}"
        assert f"smtptest: 0.0.0.0, {owners}\n" in done.stdout


# The page.


@pytest.mark.parametrize("path", FILES, ids=str)
def test_page_has_file(path):
    assert literal_block(PAGE, f".. file: {path}") == (EXAMPLES / path).read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("test_receipt.py", []), ("test_strict.py", ["-o", "smtptest_strict=true"])],
)
def test_page_shows_report(tmp_path, name, settings):
    """Each line that it shows is there, in that order."""
    (tmp_path / name).write_text(literal_block(PAGE, f".. file: {name}"))
    done = run_pytest(tmp_path, "-p", "no:asyncio", *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = iter(squeezed(done.stdout))
    for line in squeezed(literal_block(PAGE, f".. report: {name}")):
        assert line == "..." or line in lines, (line, done.stdout)


def test_page_begins_with_what_works(tmp_path):
    (tmp_path / "test_lunch.py").write_text(literal_block(PAGE, ".. file: test_lunch.py"))
    assert check_passed(run_pytest(tmp_path, "-p", "no:asyncio")) == 1


def test_page_has_nothing_else():
    known = {str(path) for path in FILES} | {"test_lunch.py", "test_receipt.py", "test_strict.py"}
    assert set(re.findall(r"^\.\. file: (.+)$", PAGE, re.M)) == known
