"""What the documentation says is so: every example runs, and texts agree."""

from __future__ import annotations

import contextlib
import datetime
import doctest
import gc
import importlib
import io
import multiprocessing
import os
import pkgutil
import re
import smtplib
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest
from paths import DOCS, EXAMPLES, README, ROOT, literal_block

import lazr_smtptest
from lazr_smtptest import Controller

NEWS = (ROOT / "NEWS.rst").read_text("utf-8")
FIRST = DOCS / "first.py"
SEED = Path(__file__).with_name("seed_queue.txt").read_text("utf-8")

#: What docs/first.py prints.
FIRST_OUTPUT = "Lunch? for lee@example.com\nb'Subject: Lunch?\\r\\n\\r\\nAt noon.\\r\\n'\n"

needs_fork = pytest.mark.skipif(
    sys.platform == "darwin", reason="its examples define servers that only fork can start"
)
#: The pages that do.
DEFINING = {"debugging.rst", "from-lazr-smtptest-2.rst", "usage.rst"}
PAGES = [
    pytest.param(page, id=page.name, marks=[needs_fork] if page.name in DEFINING else [])
    for page in sorted(DOCS.glob("*.rst"))
]

#: Pages that explain or list, and have nothing to try.
WITHOUT_EXAMPLES = {
    "alternatives.rst",
    "api.rst",
    "contributing.rst",
    "design.rst",
    "glossary.rst",
    "how-it-works.rst",
    "machines.rst",
    "news.rst",
    "options.rst",
    "pages.rst",
}

#: The files that a page may show in full: other tests run them.
TESTED_FILES = {FIRST, *EXAMPLES.rglob("*.*")}

MODULES = [
    "lazr_smtptest",
    *sorted(
        module.name for module in pkgutil.walk_packages(lazr_smtptest.__path__, "lazr_smtptest.")
    ),
    "lazr.smtptest",
    "lazr.smtptest.controller",
    "lazr.smtptest.server",
]


def run_doctest(test: doctest.DocTest) -> int:
    """Run the examples, and see to it that they clean up after themselves.

    :return: How many there were.
    """
    report = io.StringIO()
    before = set(multiprocessing.active_children())
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    try:
        results = runner.run(test, out=report.write, clear_globs=False)
        left_running = set(multiprocessing.active_children()) - before
    finally:
        release(test.globs)
    assert not results.failed, report.getvalue()
    assert not left_running, "the examples left a server running"
    gc.collect()  # a client that was not closed warns now
    return results.attempted


def release(names: dict[str, object]) -> None:
    """Let a failed example hold up no other test."""
    for value in names.values():
        if isinstance(value, Controller):
            value.stop()
        elif isinstance(value, smtplib.SMTP):
            value.close()
    names.clear()


def run_text(text: str, name: str) -> int:
    globs = {"__name__": "__main__"}
    return run_doctest(doctest.DocTestParser().get_doctest(text, globs, name, name, 0))


# The examples.


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_page(page):
    text = page.read_text("utf-8")
    shown = [DOCS / name for name in re.findall(r"^ *\.\. literalinclude:: (.+)$", text, re.M)]
    assert {path.resolve() for path in shown} <= TESTED_FILES
    tried = run_text(text, page.name) + len(shown) + len(re.findall(r"^\.\. file: ", text, re.M))
    assert bool(tried) == (page.name not in WITHOUT_EXAMPLES)


#: What fits beside the table of contents on a laptop.
COLUMNS = 72


@pytest.mark.parametrize("page", PAGES)
def test_code_fits_on_the_page(page):
    text = page.read_text("utf-8")
    blocks = re.findall(r"^( *)\.\. code:: python\n\n((?:\1 .*\n|\n)+)", text, re.M)
    lines = [line for _, block in blocks for line in textwrap.dedent(block).splitlines()]
    lines += [line.strip() for line in re.findall(r"^ *(?:>>>|\.\.\.) .*$", text, re.M)]
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("page", PAGES)
def test_figures_are_tables(page):
    """What a program has printed is included as tables, which a narrow window shows whole."""
    printed = r"^\.\. include:: \S+\.txt\n(?: +:.*\n)* +:literal:"
    assert not re.search(printed, page.read_text("utf-8"), re.M)


def test_examples_of_readme():
    run_text(README, "README.rst")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name):
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        run_doctest(test)


def test_entry_points_have_examples():
    finder = doctest.DocTestFinder()
    for name in ("", ".controller", ".inbox", ".server"):
        module = importlib.import_module("lazr_smtptest" + name)
        assert any(test.examples for test in finder.find(module)), module


def test_failing_example_is_noticed():
    """The runner itself: a wrong answer, a server left over."""
    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+2"):
        run_text(">>> 1 + 1\n3\n", "wrong")
    text = ">>> import lazr_smtptest\n>>> c = lazr_smtptest.QueueController()\n>>> c.start()\n"
    with pytest.raises(AssertionError, match="left a server running"):
        run_text(text, "left over")


# What the page of 2.x shows.


@pytest.mark.parametrize("package", ["lazr.smtptest", "lazr_smtptest"])
class TestSeedPage:
    """The manual page of 2.x that this package continues, step by step."""

    def test_all_steps(self, package):
        text = SEED.replace("lazr.smtptest.", f"{package}.")
        imports = re.findall(r"from (\S+)\.(?:controller|server) import", text)
        assert imports == [package] * 3
        assert run_text(text, "seed_queue.txt") == len(re.findall("^    >>> ", text, re.M))

    def test_steps_with_the_stock_queue(self, package):
        """Whoever wants a `multiprocessing.Queue` hands one over."""
        text = SEED.replace("lazr.smtptest.", f"{package}.")
        own = ">>> from queue import Queue\n    >>> queue = Queue()\n"
        assert own in text
        stock = ">>> import multiprocessing\n    >>> queue = multiprocessing.Queue()\n"
        for _ in range(5):  # its thread must have passed on what a client got a 250 for
            run_text(text.replace(own, stock), "seed_queue.txt")

    def test_greeting(self, package):
        controller = importlib.import_module(f"{package}.controller").QueueController(
            "localhost", 0
        )
        controller.start()
        with contextlib.closing(smtplib.SMTP()) as smtpd:
            code, greeting = smtpd.connect("localhost", controller.port)
            smtpd.quit()
        controller.stop()
        assert code == 220
        assert re.fullmatch(rb"\S+ ESMTP Python SMTP proxy version \S+", greeting)

    def test_reset(self, package):
        controller = importlib.import_module(f"{package}.controller").QueueController(
            "localhost", 0
        )
        controller.start()
        with smtplib.SMTP("localhost", controller.port) as smtpd:
            for name in "llama", "moose":
                smtpd.sendmail("w@example.com", ["x@example.com"], f"Message-ID: <{name}>\n\n")
        assert controller.queue.qsize() == 2
        controller.reset()
        assert controller.queue.qsize() == 0
        assert list(controller) == []
        controller.stop()


def test_old_names_are_the_same_classes():
    for module in "controller", "server":
        old = importlib.import_module(f"lazr.smtptest.{module}")
        new = importlib.import_module(f"lazr_smtptest.{module}")
        assert old.__all__ == new.__all__
        for name in old.__all__:
            assert getattr(old, name) is getattr(new, name)


# The README and its program.


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    package = Path(lazr_smtptest.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_first_program_is_short():
    assert len(FIRST.read_text("utf-8").splitlines()) <= 12


def test_first_program():
    done = run_script(FIRST)
    assert (done.returncode, done.stdout, done.stderr) == (0, FIRST_OUTPUT, "")


def test_first_program_with_other_start_method(tmp_path):
    text = FIRST.read_text("utf-8")
    assert "QueueController()" in text
    script = tmp_path / "first_spawned.py"
    script.write_text(text.replace("QueueController()", "QueueController(start_method='spawn')"))
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, FIRST_OUTPUT, "")


@pytest.mark.parametrize(
    ("name", "ending"), [("try", "/python docs/first.py"), ("test", "/pytest -n 4")]
)
def test_readme_command(name, ending):
    """It is one line, the first indented one behind its marker."""
    lines = README.partition(f"\n.. command: {name}\n")[2].splitlines()
    command = next(line for line in lines if line.startswith("    ")).strip()
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert command.endswith(ending)
    assert literal_block(README, f".. command: {name}") == command + "\n"


# Links and pictures.


def link_targets(text: str) -> list[str]:
    return re.findall(r"`[^`]+<([^<>]+)>`_", text) + re.findall(r"^ *\.\. _.+: (.+)$", text, re.M)


@pytest.mark.parametrize("name", ["CONTRIBUTING.rst", "NEWS.rst", "README.rst"])
def test_links_lead_somewhere(name):
    """These are also read where there is no Sphinx."""
    for target in link_targets((ROOT / name).read_text("utf-8")):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_are_roles(page):
    """Sphinx checks those, and no others."""
    for target in link_targets(page.read_text("utf-8")):
        assert target.startswith("https://"), target


@pytest.mark.parametrize("page", PAGES)
def test_pictures_have_a_text(page):
    pictures = re.findall(
        r"^( *)\.\. (?:image|figure):: \S+\n((?:\1 +\S.*\n)*)", page.read_text("utf-8"), re.M
    )
    assert all(re.search(r"^ *:alt: \S", options, re.M) for _, options in pictures)


@pytest.mark.parametrize("name", ["message.svg", "processes.svg"])
def test_drawing_describes_itself(name):
    drawing = ElementTree.parse(DOCS / name).getroot()
    texts = {element.get("id"): element.text for element in drawing.iter()}
    assert all(texts[name].strip() for name in drawing.attrib["aria-labelledby"].split())


def test_design_names_each_module():
    page = (DOCS / "design.rst").read_text("utf-8")
    where = page[page.index("Where things are\n====") :]
    named = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", where)}
    modules = {name.rpartition(".")[2] for name in MODULES if name.startswith("lazr_smtptest")}
    assert modules - {"_version"} <= named


# The news.


def test_news_tell_of_this_version():
    found = re.findall(r"^(\S+) \((\d{4}-\d\d-\d\d)\)\n(=+)$", NEWS, re.M)
    versions = [version for version, _, _ in found]
    dates = [datetime.date.fromisoformat(date) for _, date, _ in found]
    assert versions[0] == lazr_smtptest.__version__
    assert "2.0.4" in versions
    assert dates == sorted(dates, reverse=True)
    assert len(found) == len(re.findall(r"^\d+\.\d.*\n=+$", NEWS, re.M))
