"""An environment that has the wheel and what that pulls in, for each Python."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from commands import NotFit, run

PROJECT = "lazr-smtptest"
REQUIREMENT = "aiosmtpd"
SMOKE = Path(__file__).with_name("smoke.py")


def try_wheel(wheel: Path, base: str, folder: Path) -> str:
    """Install it without extras, and use it.

    :param wheel: What to install.
    :param base: The Python that the environment is made with.
    :param folder: A directory to make, far from the checkout.
    :return: What the smoke test has tried.
    :raises NotFit: It brings what it should not, or does not work.
    """
    # Without a pip in it, only what the wheel brings is there; it is also quick.
    run(base, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    _pip(python, "install", "--quiet", wheel)
    check_installed(python)
    return smoke(python, folder)


def _pip(python: Path, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", "pip", "--python", python, *arguments).stdout


def check_installed(python: Path) -> None:
    """Compare what is there with what pip says that the only requirement takes."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    there = {_normal(d.name): d.version for d in metadata.distributions(path=[str(packages)])}
    if not {PROJECT, REQUIREMENT} <= there.keys():
        raise NotFit(f"{PROJECT} and {REQUIREMENT} were to be installed, not {sorted(there)}")
    wanted = _takes(python, f"{REQUIREMENT}=={there[REQUIREMENT]}") | {PROJECT}
    if wanted != there.keys():
        raise NotFit(f"installed: {sorted(there)}; to be installed: {sorted(wanted)}")


def _takes(python: Path, requirement: str) -> set[str]:
    report = _pip(
        python,
        *("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-", requirement),
    )
    return {_normal(item["metadata"]["name"]) for item in json.loads(report)["install"]}


def _normal(name: str) -> str:
    """Give the one form of a project's name that can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def smoke(python: Path, folder: Path) -> str:
    """Run smoke.py from a copy: beside the original there is a checkout."""
    script = Path(shutil.copy(SMOKE, folder))
    done = run(python, "-I", "-W", "error", script, cwd=folder)
    if done.stderr:
        raise NotFit(f"{script.name} was to be silent on standard error, but:\n{done.stderr}")
    return ", ".join(done.stdout.splitlines())
