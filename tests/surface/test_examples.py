"""The examples run as a user would run them, and the manual shows each."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import DOCS, EXAMPLES, ROOT, literal_block
from scripts import STRICT

import lazr_smtptest

PAGES = {page.name: page.read_text("utf-8") for page in [*DOCS.glob("*.rst"), ROOT / "README.rst"]}
PAGE = PAGES["pytest.rst"]

#: What a user would copy, relative to the directory.
FILES = [
    path.relative_to(EXAMPLES)
    for path in sorted(EXAMPLES.rglob("*"))
    if path.suffix in (".py", ".ini", ".sh", ".yml")
]
SINGLE = [path.name for path in FILES if path.suffix == ".py" and path.parent == Path()]

#: Examples of several files, each a directory of its own, which pytest runs.
PROJECTS = ["from_aiosmtpd", "from_pytest_localserver", "from_smtpdfix", "typed_shared"]

#: Starting workers takes a busy machine a while.
pytestmark = pytest.mark.timeout(60)


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a directory, with all plugins that are installed."""
    return run_python(directory, "-m", "pytest", *STRICT, "--rootdir=.", *arguments)


def run_python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory, warnings being errors."""
    package = Path(lazr_smtptest.__file__).parent.parent
    # Nothing of the run that we are in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *STRICT, *arguments],
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
    """Give the lines without what differs from run to run, and between machines.

    smtplib has changed the case of its commands; localhost may be ::1 first.
    """
    text = text.replace("::1 port", "127.0.0.1 port")
    lines = [re.sub(r"\d+", "0", " ".join(line.lower().split())) for line in text.splitlines()]
    return [re.sub(r"={3,}", "===", line) for line in lines]


@pytest.fixture
def examples(tmp_path) -> Path:
    """A copy of all of them, far from the configuration of this project."""
    return shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )


@pytest.fixture
def project(tmp_path) -> Callable[[str], Path]:
    """Makes a copy of one directory, with nothing around it."""
    return lambda name: shutil.copytree(
        EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
    )


@pytest.mark.parametrize("name", SINGLE)
def test_one_by_one(examples, name):
    assert check_passed(run_pytest(examples, name))


def test_all_in_two_workers(examples):
    assert check_passed(run_pytest(examples, "-n", "2", *SINGLE)) >= len(SINGLE)


@pytest.mark.parametrize("name", PROJECTS)
def test_project(project, name):
    assert check_passed(run_pytest(project(name), "-p", "no:asyncio"))


def test_annotations(examples):
    """The examples that annotate fixtures satisfy mypy, where it is strict."""
    files = ["test_typed.py", "typed_shared/test_typed_lease.py"]
    mypy = ["-m", "mypy", "--strict", "--config-file=", "--cache-dir=/dev/null"]
    done = run_python(examples, *mypy, *files)
    assert done.stdout == "Success: no issues found in 2 source files\n", done.stdout + done.stderr

    wrong = examples / files[0]
    wrong.write_text(wrong.read_text().replace("smtptest.wait(", "smtptest.wiat("))
    done = run_python(examples, *mypy, *files)
    assert '"QueueController" has no attribute "wiat"' in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("options", [[], ["--parallel", "2"]], ids=["one", "parallel"])
def test_django_project(project, options):
    done = run_python(project("django_shop"), "manage.py", "test", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^Ran 5 tests in .*\n\nOK$", done.stderr, re.M), done.stderr


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


class TestRunParallel:
    """The recipe for pytest-run-parallel, and what happens without."""

    def test_as_it_is(self, project):
        done = run_pytest(
            project("run_parallel"), "-p", "no:asyncio", "--parallel-threads=4", "-v"
        )
        assert check_passed(done) == 2
        assert "::test_receipt PASSED [thread-unsafe]" in done.stdout
        assert "::test_receipts PARALLEL PASSED" in done.stdout

    def test_without_the_setting(self, project):
        directory = project("run_parallel")
        (directory / "pytest.ini").write_text("[pytest]\n")
        done = run_pytest(directory, "-p", "no:asyncio", "--parallel-threads=8", "-v")
        assert "::test_receipt PARALLEL FAILED" in done.stdout
        assert "::test_receipts PARALLEL PASSED" in done.stdout


def test_hypothesis_wants_no_fixture_of_a_single_test(examples):
    """So the recipe has another fixture."""
    recipe = examples / "test_hypothesis.py"
    recipe.write_text(recipe.read_text().replace("smtptest_server", "smtptest"))
    done = run_pytest(examples, "test_hypothesis.py")
    assert done.returncode == 1
    assert "FailedHealthCheck" in done.stdout
    assert "function-scoped fixture 'smtptest'" in done.stdout.replace("\n", " ")


# The pages.


def test_pages_show_each_file():
    """And none that does not exist.

    Django itself writes a manage.py.
    """
    shown = {
        Path(name)
        for text in PAGES.values()
        for name in re.findall(r"^\.\. literalinclude:: \.\./tests/examples/(.+)$", text, re.M)
    }
    assert shown == set(FILES) - {Path("django_shop/manage.py")}


def check_shown(page: str, report: str, done: subprocess.CompletedProcess[str]) -> None:
    """See to it that each line that a page shows is there, in that order."""
    lines = iter(squeezed(done.stdout))
    shown = squeezed(literal_block(PAGES[page], f".. report: {report}"))
    assert shown
    for line in shown:
        assert line in ("", "...") or line in lines, (line, done.stdout)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("test_receipt.py", []), ("test_strict.py", ["-o", "smtptest_strict=true"])],
)
def test_page_shows_report(tmp_path, name, settings):
    (tmp_path / name).write_text(literal_block(PAGE, f".. file: {name}"))
    done = run_pytest(tmp_path, "-p", "no:asyncio", *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    check_shown("pytest.rst", name, done)


class TestFirstTest:
    """What docs/first-test.rst says that pytest prints."""

    @pytest.fixture
    def directory(self, tmp_path) -> Path:
        """What the page has its reader write.

        The page shows these files itself, so that they can be read where there is
        no Sphinx.
        """
        page = PAGES["first-test.rst"]
        names = re.findall(r"^\.\. file: (.+)$", page, re.M)
        assert names == ["receipts.py", "test_receipts.py"]
        for name in names:
            (tmp_path / name).write_text(literal_block(page, f".. file: {name}"))
        return tmp_path

    def test_passed(self, directory):
        done = run_pytest(directory, "-p", "no:asyncio", "-p", "no:randomly")
        assert check_passed(done) == 1
        check_shown("first-test.rst", "passed", done)

    def test_failed(self, directory):
        program = directory / "receipts.py"
        text = program.read_text("utf-8")
        assert text.count('"Your receipt"') == 1
        program.write_text(text.replace('"Your receipt"', '"Your reciept"'))
        done = run_pytest(directory, "-p", "no:asyncio")
        assert done.returncode == 1, done.stdout + done.stderr
        check_shown("first-test.rst", "failed", done)


#: The program of the README, with its mistake.
SHOP = """
import smtplib


def send_receipt(host, port, customer):
    with smtplib.SMTP(host, port) as client:
        client.sendmail("shop@example.com", [customer], "Subject: Your {}\\n\\n3 apples\\n")
"""


def test_first_page_begins_with_what_works(tmp_path):
    name = "test_receipt.py"
    (tmp_path / name).write_text(literal_block(PAGES["index.rst"], f".. file: {name}"))
    (tmp_path / "shop.py").write_text(SHOP.replace("{}", "receipt"))
    assert check_passed(run_pytest(tmp_path, "-p", "no:asyncio")) == 1


@pytest.mark.parametrize("word", ["receipt", "reciept"])
def test_readme_shows_what_happens(tmp_path, word):
    name = "test_receipt.py"
    (tmp_path / name).write_text(literal_block(PAGES["README.rst"], f".. file: {name}"))
    (tmp_path / "shop.py").write_text(SHOP.replace("{}", word))
    done = run_pytest(tmp_path, "-p", "no:asyncio")
    if word == "receipt":
        assert check_passed(done) == 1
    else:
        check_shown("README.rst", name, done)


def test_page_begins_with_what_works(tmp_path):
    (tmp_path / "test_lunch.py").write_text(literal_block(PAGE, ".. file: test_lunch.py"))
    assert check_passed(run_pytest(tmp_path, "-p", "no:asyncio")) == 1


def test_page_has_nothing_else():
    known = {"test_lunch.py", "test_receipt.py", "test_strict.py"}
    assert set(re.findall(r"^\.\. file: (.+)$", PAGE, re.M)) == known
