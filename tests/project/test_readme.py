"""The README: its length, and that what it claims was measured."""

from __future__ import annotations

import re

import pytest
from paths import DOCS, README

PERFORMANCE = (DOCS / "performance.txt").read_text("utf-8")
SOAK = (DOCS / "soak.txt").read_text("utf-8")
CROSSTALK = (DOCS / "crosstalk.txt").read_text("utf-8")

#: The README without its line breaks.
CLAIMS = " ".join(README.split())


def test_length():
    assert len(README.splitlines()) <= 120


def test_nothing_leads_to_files_beside_it():
    """On a package index there are none."""
    assert re.findall(r"`[^`]*<(?!https://)[^>]*>`_", README) == []
    assert not re.search(r"^\.\. (?:image|figure|include|literalinclude)::", README, re.M)


WITH_SPEED, WITHOUT = "lazr_smtptest", "lazr_smtptest without uvloop"


def measured(what: str, baseline: str, column: str, ours: str) -> str:
    """Give a figure from the table of measurements."""
    (found,) = re.findall(
        rf"^{re.escape(what)} +{ours} +(?P<ours>[\d.,]+) +{re.escape(baseline)} +"
        r"(?P<theirs>[\d.,]+) +(?P<ratio>[\d.]+) ",
        PERFORMANCE,
        re.MULTILINE,
    )
    return dict(zip(("ours", "theirs", "ratio"), found, strict=True))[column]


@pytest.mark.parametrize(
    ("claim", "what", "baseline", "column", "ours"),
    [
        (
            "**184 times** as many",
            "1 kB, while the test process computes, messages/s",
            "smtp-test-server",
            "ratio",
            WITH_SPEED,
        ),
        (
            "take **0.65** of",
            "500 mail tests, pytest, s (-)",
            "pytest-localserver",
            "ratio",
            WITH_SPEED,
        ),
        ("and **0.59** of", "500 mail tests, pytest, s (-)", "smtpdfix", "ratio", WITH_SPEED),
        (
            "take **1.24** and",
            "10 mail tests, pytest, s (-)",
            "pytest-localserver",
            "ratio",
            WITH_SPEED,
        ),
        ("and **0.91**.", "10 mail tests, pytest, s (-)", "smtpdfix", "ratio", WITH_SPEED),
        (
            "**3.42 times**",
            "1 kB, 10 sessions, smtp-source, messages/s",
            "aiosmtpd in a process",
            "ratio",
            WITHOUT,
        ),
        (
            "**13.7 times**",
            "5 MB, 1 session, left unread, messages/s",
            "aiosmtpd in a process",
            "ratio",
            WITHOUT,
        ),
        ("it takes 6.2 ms", "start() and stop(), ms (-)", "pytest-localserver", "ours", WITHOUT),
        ("which is 7 times", "start() and stop(), ms (-)", "pytest-localserver", "ratio", WITHOUT),
    ],
)
def test_performance(claim, what, baseline, column, ours):
    assert claim in CLAIMS
    figure = re.search(r"[\d.]+", claim)[0]
    digits = len(figure.partition(".")[2])
    assert f"{float(measured(what, baseline, column, ours)):.{digits}f}" == figure


def test_computing_is_compared_with_the_best():
    """The table has a row for the best of the others."""
    line = re.search(r"^- 1 kB, while the test process computes, .*$", PERFORMANCE, re.M)[0]
    rates = {
        name: float(rate.replace(",", ""))
        for name, rate in re.findall(r"(\w[\w-]*) ([\d.,]*\d)(?:,|$)", line)
    }
    del rates["lazr_smtptest"]
    assert max(rates, key=rates.get) == "smtp-test-server"


def test_bad_days():
    rows = re.findall(
        r"^server killed under load, \w+ +(\d+) +0  "
        r"(\d+) accepted, (\d+) read, (\d+) named as lost$",
        SOAK,
        re.MULTILINE,
    )
    trials, accepted, read, lost = (sum(map(int, column)) for column in zip(*rows, strict=True))
    assert (
        f"killed **{trials} times** under load. Clients got a 250 for {accepted:,} messages"
        in CLAIMS
    )
    assert read >= accepted
    assert lost == 0


def test_what_is_lost():
    (found,) = re.findall(
        r"^server killed, pipe full, fork +(\d+) +0 +"
        r"(\d+) accepted, \d+ read, (\d+) named as lost",
        SOAK,
        re.MULTILINE,
    )
    trials, accepted, lost = map(int, found)
    assert f"counted: {lost:,} of {accepted:,} messages in {trials} further trials" in CLAIMS


def test_parallel_runs():
    runs = re.findall(r"^ +\d+ +\w+ +[\d.]+ +(\d+) +0 +0$", CROSSTALK, re.M)
    assert f"*Parallel runs*: **{sum(map(int, runs)):,}** tests on four workers" in CLAIMS
    assert "\n2000 tests, 4 workers\n" in CROSSTALK
    assert CROSSTALK.endswith("\nnothing failed\n")
