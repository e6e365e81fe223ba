"""pytest --smtptest-report: which pages there are, what names them, and what is left alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from html_pages import Page
from inner_pytest import TIMEOUT, USUALLY_OFF, Inner

pytestmark = TIMEOUT

FAILING = """
import pytest
from helpers import send_to

@pytest.mark.parametrize("text", ["</iframe>", "../..", "a\\0b", "\\u202e", "x" * 1000])
def test_hostile(smtptest, text):
    send_to(smtptest, "of test_hostile")
    assert not text

def test_failing(smtptest):
    send_to(smtptest, "read")
    smtptest.wait()
    send_to(smtptest, "not read")
    assert "the reason" == 1

def test_two(smtptest, smtptest_factory):
    send_to(smtptest, "of one")
    send_to(smtptest_factory(), "of two")
    assert 0

@pytest.fixture
def broken(smtptest):
    yield send_to(smtptest, "of broken")
    raise LookupError

def test_twice(broken):
    assert 0

def test_passing(smtptest):
    send_to(smtptest, "of test_passing")

def test_without_mail():
    assert 0

@pytest.mark.xfail
def test_xfail(smtptest):
    assert 0
"""
#: 5 of test_hostile, two of test_twice.
PAGES = 9


def pages(folder: str = "pages") -> dict[str, Page]:
    return {path.name: Page(path.read_text("utf-8")) for path in Path(folder).glob("mail-*.html")}


def page_of(test: str) -> Page:
    (found,) = [page for name, page in pages().items() if f"{test}-call" in name]
    return found


def index() -> Page:
    return Page(Path("pages/index.html").read_text("utf-8"))


@pytest.fixture
def failing(inner: Inner) -> Inner:
    inner.files(test_failing=FAILING)
    return inner


def test_a_page_for_each_failed_test(failing):
    run = failing.run("--smtptest-report=pages")
    assert len(pages()) == PAGES
    assert sorted(index().links[1:]) == sorted(pages())
    page = page_of("test_failing")
    for text in (
        *("test_failing.py::test_failing", "assert 'the reason' == 1", "Failed incall"),
        *("Read by the test (1)", "Left unread (1)", "not read", "220 localhost ESMTP"),
        "advice: date-missing",
    ):
        assert text in page.text, text
    assert "of test_hostile" not in page.text
    text = page_of("test_two").text
    assert "of one" in text
    assert "of two" in text
    assert text.count("Server on localhost port ") == 2
    # The terminal names each, and where to begin.
    name = re.search(r"^See (pages/mail-\S+)$", run.section("test_failing"), re.MULTILINE)[1]
    assert "not read" in Path(name).read_text("utf-8")
    assert len(re.findall("^See pages/mail-", run.out, re.MULTILINE)) == PAGES
    assert f"{PAGES} pages; open pages/index.html\n" in run.out


def test_what_the_index_says(failing):
    failing.run("--smtptest-report=pages", "-k", "test_failing and not hostile")
    text = index().text
    for found in (
        *("test_failing.py::test_failing", "failed in call, 2 messages, 1 of them unread"),
        "AssertionError: assert 'the reason' == 1",
    ):
        assert found in text, found
    assert "test_passing" not in text


def test_the_index_has_the_first_line_alone(inner):
    """What it announces follows on the page."""
    inner.files(
        test_wait="from helpers import send_to\n"
        "def test_wait(smtptest):\n"
        "    send_to(smtptest, 'other')\n"
        "    smtptest.wait(subject='wanted', timeout=0.01)\n"
    )
    inner.run("--smtptest-report=pages")
    assert re.search(
        r"came to localhost port \d+ within .* 1 message is there$", index().text, re.M
    )
    assert re.search(r"1 message is there:$", page_of("test_wait").text, re.M)


def test_workers_write_their_pages_and_one_index(failing):
    run = failing.run("--smtptest-report=pages", "-n", "2")
    assert len(pages()) == PAGES
    found = index()
    assert sorted(found.links[1:]) == sorted(pages())
    assert [*re.findall("^gw[0-9]$", found.text, re.MULTILINE)] == ["gw0", "gw1"]
    assert all(re.match("mail-gw[01]-test_failing", name) for name in pages())
    assert len(re.findall("^See pages/mail-gw", run.out, re.MULTILINE)) == PAGES


def test_no_page_without_the_option(failing):
    run = failing.run()
    assert not list(Path().rglob("*.html"))
    assert "See " not in run.section("test_failing")


def test_the_second_run_replaces_what_the_first_wrote_and_nothing_else(failing):
    folder = Path("pages")
    folder.mkdir()
    ours = {"mail-of-mine.html", "notes.html", "mail-link.html", "sub"}
    (folder / "mail-of-mine.html").write_text("<!DOCTYPE html>\n<p>mine")
    (folder / "sub").mkdir()
    failing.run("--smtptest-report=pages", "-n", "2")
    first = (folder / "index.html").read_text()
    # What somebody keeps under a name of their own, and a link to what is elsewhere.
    kept = next(folder.glob("mail-gw*.html"))
    (folder / "notes.html").write_bytes(kept.read_bytes())
    Path("elsewhere.html").write_bytes(kept.read_bytes())
    (folder / "mail-link.html").symlink_to("../elsewhere.html")
    assert len({path.name for path in folder.iterdir()} - ours) == PAGES + 1
    failing.run("--smtptest-report=pages", "test_failing.py::test_failing")
    assert {path.name for path in folder.iterdir()} == ours | {
        "index.html",
        "mail-test_failing.py-test_failing-call.html",
    }
    assert (folder / "index.html").read_text() != first
    assert Path("elsewhere.html").exists()
    run = failing.run("--smtptest-report=pages", "test_failing.py::test_passing")
    assert run.ret == 0
    assert {path.name for path in folder.iterdir()} == ours | {"index.html"}
    assert "No test failed that had an SMTP server." in index().text
    assert "index.html" not in run.out


def test_two_failures_of_one_name_have_two_pages(failing):
    failing.run("--smtptest-report=pages", "-k", "twice", "--reruns", "1")
    assert len(pages()) == 4
    assert {name.rpartition("-")[0] for name in pages() if name.endswith("-2.html")} == {
        "mail-test_failing.py-test_twice-call",
        "mail-test_failing.py-test_twice-teardown",
    }


def test_nothing_is_written_where_nothing_runs(failing):
    failing.run("--smtptest-report=pages", "--collect-only")
    assert not Path("pages").exists()


@pytest.mark.parametrize(
    "plugins",
    [("terminal",), ("junitxml",), ("xdist",), ("cacheprovider",), ("terminalreporter",)],
    ids=" ".join,
)
def test_without_other_plugins(failing, plugins):
    off = tuple(word for name in plugins for word in ("-p", f"no:{name}"))
    failing.run("--smtptest-report=pages", *off)
    assert len(pages()) == PAGES
    assert len(index().links) == PAGES + 1


def test_junit_names_the_page(failing):
    failing.run("--smtptest-report=pages", "--junitxml=report.xml", "--tb=no", "-n", "2")
    named = []
    for case in ET.parse("report.xml").iter("testcase"):
        text = "".join(each.text or "" for each in case if each.tag in ("failure", "error"))
        named += re.findall(r"^See pages/(mail-\S+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(pages())


def test_a_test_that_replaces_files_and_clocks(inner):
    inner.files(
        test_fakes="""
        import os
        from unittest import mock
        from helpers import send_to

        def test_pyfakefs(smtptest, fs):
            send_to(smtptest, "of pyfakefs")
            assert 0

        def test_mocks(smtptest, request):
            send_to(smtptest, "of mocks")
            for name in "builtins.open", "os.replace", "io.open":
                patch = mock.patch(name, side_effect=LookupError)
                patch.start()
                request.addfinalizer(patch.stop)
            os.chdir("/")
            assert 0

        def test_frozen(smtptest, request):
            from freezegun import freeze_time

            send_to(smtptest, "of frozen")
            freezing = freeze_time("2001-01-01")
            freezing.start()
            request.addfinalizer(freezing.stop)
            assert 0
        """
    )
    off = [word for name in USUALLY_OFF[1::2] if name != "no:fakefs" for word in ("-p", name)]
    run = inner.run("--smtptest-report=pages", off=tuple(off))
    assert set(run.outcomes.values()) == {"failed"}
    assert len(pages()) == 3
    for name in "pyfakefs", "mocks", "frozen":
        text = page_of(f"test_{name}").text
        assert f"of {name}" in text
        assert "2001-01-01 " not in text


def test_a_page_that_cannot_be_written(inner):
    inner.files(
        test_it="""
        import shutil
        from helpers import send_to

        def test_it(smtptest):
            send_to(smtptest, "hello")
            shutil.rmtree("pages")
            assert 0
        """
    )
    run = inner.run("--smtptest-report=pages", "-p", "no:cacheprovider")
    assert "Its page cannot be written: [Errno 2]" in run.section("test_it")
    assert "subject 'hello'" in run.section("test_it")


def test_a_server_that_died_and_a_setup_that_failed(inner):
    inner.files(
        test_it="""
        import pytest
        from helpers import send_to
        from inner import kill

        def test_died(smtptest):
            send_to(smtptest, "before it died")
            smtptest.wait()
            kill(smtptest)
            smtptest.wait()

        @pytest.fixture
        def broken(smtptest):
            send_to(smtptest, "in setup")
            raise LookupError

        def test_setup(broken):
            pass
        """
    )
    inner.run("--smtptest-report=pages")
    assert "ServerDied: " in page_of("test_died").text
    (name,) = [name for name in pages() if "test_setup-setup" in name]
    assert "in setup" in pages()[name].text
