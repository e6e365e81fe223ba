"""Which Pythons a release is tried on, and that one which is not says so."""

from __future__ import annotations

import configparser
import subprocess
import sys

from paths import ROOT

RELEASE = ROOT / "tests" / "release"


def output(*command: str, **environment: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=15, check=True, env=environment or None
    ).stdout


def test_each_python_is_here_or_missing():
    pythons = str(RELEASE / "pythons.py")
    here = [line.split()[0] for line in output(sys.executable, pythons).splitlines()]
    missing = output(sys.executable, pythons, "--missing").split()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in here
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    listed = [name for name in tox["tox"]["envlist"].split(", ") if name.startswith("py3")]
    assert sorted(f"py{version.replace('.', '')}" for version in here + missing) == listed


def test_pythons_that_cannot_be_borrowed(tmp_path):
    """Where there is no Debian, that is all."""
    said = output(
        "/bin/bash",
        str(RELEASE / "borrow_pythons.sh"),
        str(tmp_path / "borrowed"),
        *("3.14", "3.15"),
        PATH=str(tmp_path),
    )
    assert said == "no Python 3.14 3.15: they come from Debian, by apt-get\n"
    assert not (tmp_path / "borrowed").exists()
