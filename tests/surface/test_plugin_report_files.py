"""The mail of a failed test is in the reports that other plugins write."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from inner_pytest import TIMEOUT, USUALLY_OFF, Inner

pytestmark = TIMEOUT

FAILING = """
import pytest
from helpers import send_to

def test_assert(smtptest):
    send_to(smtptest, "of test_assert")
    print("captured")
    assert 0

def test_chained(smtptest):
    send_to(smtptest, "of test_chained")
    try:
        raise LookupError
    except LookupError:
        raise ValueError

def test_fail(smtptest):
    send_to(smtptest, "of test_fail")
    pytest.fail("without a traceback", pytrace=False)

@pytest.fixture
def broken(smtptest):
    send_to(smtptest, "of test_setup")
    raise LookupError

def test_setup(broken):
    pass

def test_no_such_fixture(smtptest, broken_too):
    pass

@pytest.fixture
def broken_in_the_end(smtptest):
    yield
    send_to(smtptest, "of test_teardown")
    raise LookupError

def test_teardown(broken_in_the_end):
    pass

def test_passing(smtptest):
    send_to(smtptest, "of test_passing")

@pytest.mark.xfail
def test_xfail(smtptest):
    send_to(smtptest, "of test_xfail")
    assert 0
"""
DOCTEST = """
    >>> from helpers import send_to
    >>> send_to(getfixture("smtptest"), "of test_doc.txt")
    >>> 1
    2
"""
FAILED = {"assert", "chained", "fail", "setup", "teardown", "doc.txt"}
NAMES = {f"test_{name}" for name in FAILED}


def off(*names: str) -> tuple[str, ...]:
    """Give what turns the other plugins off."""
    pairs = zip(USUALLY_OFF[::2], USUALLY_OFF[1::2], strict=True)
    return tuple(
        word for pair in pairs if pair[1].removeprefix("no:") not in names for word in pair
    )


def check(texts: dict[str, str]) -> None:
    """Check the texts that a report has of the tests that failed."""
    assert NAMES | {"test_no_such_fixture"} <= set(texts)
    for name, text in texts.items():
        has_section = name in NAMES or name == "test_no_such_fixture"
        assert text.count(" SMTP messages ") == has_section, name
        assert text.count(f"subject 'of {name}'") == (name in NAMES), name
        assert len(re.findall(r"subject 'of ", text)) == (name in NAMES), name


@pytest.fixture(params=[(), ("-n", "2")], ids=["alone", "workers"])
def failing(request, inner) -> tuple[Inner, tuple[str, ...]]:
    inner.files(test_failing=FAILING)
    inner.text(test_doc=DOCTEST)
    return inner, request.param


@pytest.mark.parametrize("style", ["auto", "short", "native", "no"])
@pytest.mark.parametrize("logging", ["no", "all"])
def test_junit_xml(inner, style, logging):
    inner.ini(junit_logging=logging)
    inner.files(test_failing=FAILING)
    inner.text(test_doc=DOCTEST)
    inner.run("--junitxml=report.xml", f"--tb={style}", "--show-capture=no")
    check(in_junit_xml("report.xml"))


def in_junit_xml(file: str) -> dict[str, str]:
    return {
        case.attrib["name"]: "".join(
            each.text or "" for each in case if each.tag in ("failure", "error")
        )
        for case in ET.parse(file).iter("testcase")
    }


def test_junit_xml_of_workers(failing):
    inner, args = failing
    inner.run("--junitxml=report.xml", *args)
    check(in_junit_xml("report.xml"))


def test_allure(failing):
    inner, args = failing
    inner.run("--alluredir=results", *args, off=off("allure_pytest"))
    results = [json.loads(path.read_text()) for path in Path("results").glob("*-result.json")]
    check(
        {
            result["name"]: (result.get("statusDetails") or {}).get("trace", "")
            for result in results
        }
    )


def test_pytest_html(failing):
    inner, args = failing
    inner.run(
        "--html=report.html",
        "--self-contained-html",
        *args,
        off=off("html", "html_fixtures", "metadata"),
    )
    (blob,) = re.findall('data-jsonblob="(.*?)"', Path("report.html").read_text())
    tests = json.loads(html.unescape(blob))["tests"]
    texts: dict[str, str] = {}
    for name, entries in tests.items():
        name = name.rpartition("::")[2].removesuffix("::setup").removesuffix("::teardown")
        texts[name] = texts.get(name, "") + "".join(html.unescape(e["log"]) for e in entries)
    check(texts)


def test_the_terminal_says_it_once_whatever_it_shows_of_captured_output(inner):
    inner.files(test_failing=FAILING)
    for option in "all", "no", "log":
        run = inner.run(f"--show-capture={option}")
        told = run.told("test_assert")
        assert len(re.findall("^-+ SMTP messages -+$", told, re.M)) == 1
        assert ("- Captured stdout call -" in told) == (option == "all")
