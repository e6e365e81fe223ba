"""What is in the wheel and in the source distribution: this, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

import lazr_smtptest

VERSION = lazr_smtptest.__version__

#: All that is in the packages' folders, and the new ones with them.
MODULES = sorted(
    str(path.relative_to(ROOT))
    for package in ("lazr", "lazr_smtptest")
    for path in (ROOT / package).rglob("*")
    if path.suffix == ".py" or path.name == "py.typed"
)
METADATA = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"]
SOURCES = [
    "CONTRIBUTING.rst",
    "LICENSE",
    "MANIFEST.in",
    "NEWS.rst",
    "PKG-INFO",
    "README.rst",
    "pyproject.toml",
    "ruff.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Both distributions, built as they are for a release."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, str(ROOT / "tests" / "release" / "archives.py"), str(target)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return target


@pytest.mark.timeout(90)
def test_wheel(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"lazr_smtptest-{VERSION}-py3-none-any.whl"
    info = f"lazr_smtptest-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(archive.namelist()) == sorted(MODULES + [f"{info}/{m}" for m in METADATA])
        metadata = archive.read(f"{info}/METADATA").decode()
    plain = [r for r in re.findall("^Requires-Dist: (.*)$", metadata, re.M) if "extra" not in r]
    assert plain == ["aiosmtpd>=1.4.6"]
    assert "Requires-Python: >=3.10" in metadata
    extras = re.findall("^Provides-Extra: (.*)$", metadata, re.M)
    assert sorted(extras) == ["all", "color", "docs", "scram", "speed", "test", "tls"]


@pytest.mark.timeout(90)
def test_source_distribution(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
    folders = ("docs/", "tests/", "lazr_smtptest.egg-info/")
    assert sorted(n for n in names if not n.startswith(folders)) == sorted(SOURCES + MODULES)
    assert {
        "docs/conf.py",
        "docs/processes.svg",
        "docs/queue.rst",
        "tests/project/test_packaging.py",
    } <= set(names)
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc")]
