"""The layers that ``setup.cfg`` describes hold, and each contract can fail.

`importlinter` reads the imports of the package as it is; imports that only type
checkers follow do not count.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
CONTRACTS = [
    section.rpartition(":")[2] for section in SETTINGS if section.startswith("importlinter:")
]

#: For each contract, a module and an import in it that breaks it.
BREACHES = {
    "aiosmtpd": ("server.py", "import aiosmtpd.smtp"),
    "layers": ("_util.py", "import lazr_smtptest.errors"),
    "processes": ("_parent/forks.py", "import lazr_smtptest._child.inherited"),
    "server-process": ("_smtp/auth.py", "import lazr_smtptest.inbox"),
}


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def copy_of(package: Path, target: Path) -> Path:
    """Copy a package's sources, since a contract is broken on purpose."""
    for source in package.rglob("*.py"):
        copy = target / package.name / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    (target / "setup.cfg").write_bytes((ROOT / "setup.cfg").read_bytes())
    return target / package.name


@pytest.mark.timeout(60)
def test_all_contracts_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_each_contract_is_seen_to_fail():
    assert sorted(BREACHES) == sorted(CONTRACTS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("contract", BREACHES)
def test_a_breach_is_found(contract, tmp_path):
    module, breach = BREACHES[contract]
    path = copy_of(ROOT / "lazr_smtptest", tmp_path) / module
    path.write_text(path.read_text("utf-8") + f"\n{breach}\n", "utf-8")
    done = lint(tmp_path, "--contract", contract)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_modules_are_of_a_size_to_read():
    for path in (ROOT / "lazr_smtptest").rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 650, path
