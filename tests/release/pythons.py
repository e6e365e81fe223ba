"""Which Pythons there are to try a release on.

As a script, it prints a line for each: its version, and where it is; or, with
``--missing``, the versions that are not here.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def supported() -> list[str]:
    """Give the versions that setup.cfg names, oldest first."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return re.findall(r":: (3\.\d+)$", config["metadata"]["classifiers"], re.MULTILINE)


def found() -> dict[str, str]:
    """Give the Python of each version that is here: there is one at least, this one."""
    there = ((version, _first_that_runs(version)) for version in supported())
    return {version: python for version, python in there if python}


def _first_that_runs(version: str) -> str | None:
    return next((python for python in _candidates(version) if _is(python, version)), None)


def _candidates(version: str) -> Iterator[str]:
    """On PATH, where pyenv keeps them, or the one that runs this."""
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))
    yield sys.executable


def _is(python: str, version: str) -> bool:
    """Tell whether it runs: one of pyenv's shims may find that it is switched off."""
    asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return (done.returncode, done.stdout.strip()) == (0, version)


if __name__ == "__main__":
    there = found()
    if "--missing" in sys.argv:
        print(*[version for version in supported() if version not in there])
    else:
        for line in there.items():
            print(*line)
