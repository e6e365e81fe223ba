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

MODULES = [
    "lazr/smtptest/__init__.py",
    "lazr/smtptest/controller.py",
    "lazr/smtptest/py.typed",
    "lazr/smtptest/server.py",
    "lazr_smtptest/__init__.py",
    "lazr_smtptest/__main__.py",
    "lazr_smtptest/_arrivals.py",
    "lazr_smtptest/_auth.py",
    "lazr_smtptest/_channel.py",
    "lazr_smtptest/_child.py",
    "lazr_smtptest/_clock.py",
    "lazr_smtptest/_commands.py",
    "lazr_smtptest/_connection.py",
    "lazr_smtptest/_content.py",
    "lazr_smtptest/_controls.py",
    "lazr_smtptest/_counterpart.py",
    "lazr_smtptest/_criteria.py",
    "lazr_smtptest/_data.py",
    "lazr_smtptest/_delivery.py",
    "lazr_smtptest/_describe.py",
    "lazr_smtptest/_destination.py",
    "lazr_smtptest/_detach.py",
    "lazr_smtptest/_ending.py",
    "lazr_smtptest/_esmtp.py",
    "lazr_smtptest/_fixtures.py",
    "lazr_smtptest/_foreign.py",
    "lazr_smtptest/_forks.py",
    "lazr_smtptest/_frames.py",
    "lazr_smtptest/_given.py",
    "lazr_smtptest/_home.py",
    "lazr_smtptest/_hooks.py",
    "lazr_smtptest/_keep.py",
    "lazr_smtptest/_launch.py",
    "lazr_smtptest/_listen.py",
    "lazr_smtptest/_logs.py",
    "lazr_smtptest/_parcel.py",
    "lazr_smtptest/_pickup.py",
    "lazr_smtptest/_ports.py",
    "lazr_smtptest/_process.py",
    "lazr_smtptest/_record.py",
    "lazr_smtptest/_replies.py",
    "lazr_smtptest/_report.py",
    "lazr_smtptest/_script.py",
    "lazr_smtptest/_security.py",
    "lazr_smtptest/_serving.py",
    "lazr_smtptest/_shipment.py",
    "lazr_smtptest/_show.py",
    "lazr_smtptest/_sink.py",
    "lazr_smtptest/_smtp.py",
    "lazr_smtptest/_staged.py",
    "lazr_smtptest/_terms.py",
    "lazr_smtptest/_version.py",
    "lazr_smtptest/_watch.py",
    "lazr_smtptest/controller.py",
    "lazr_smtptest/errors.py",
    "lazr_smtptest/faults.py",
    "lazr_smtptest/inbox.py",
    "lazr_smtptest/message.py",
    "lazr_smtptest/py.typed",
    "lazr_smtptest/pytest_plugin.py",
    "lazr_smtptest/server.py",
    "lazr_smtptest/sessions.py",
    "lazr_smtptest/tls.py",
]
METADATA = [
    "METADATA",
    "RECORD",
    "WHEEL",
    "entry_points.txt",
    "licenses/LICENSE",
    "top_level.txt",
]
SOURCES = [
    "CONTRIBUTING.rst",
    "LICENSE",
    "MANIFEST.in",
    "NEWS.rst",
    "PKG-INFO",
    "README.rst",
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
    assert sorted(extras) == ["all", "color", "docs", "speed", "test", "tls"]


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
