"""Build what would be released, and try it as somebody who installs it.

What is fit to be released is then in the directory ``dist``.  The Python that
runs this needs build, pip, setuptools, twine and wheel.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import archives
import pythons
from commands import NotFit
from environments import try_wheel

TARGET = pythons.ROOT / "dist"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _release(Path(folder))
        except NotFit as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _release(folder: Path) -> None:
    built = archives.build_both(folder)
    archives.check_metadata(*built)
    _try_everywhere(built[0], folder)
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    for archive in built:
        print(shutil.copy(archive, TARGET))


def _try_everywhere(wheel: Path, folder: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tried = {
            version: pool.submit(try_wheel, wheel, python, folder / version)
            for version, python in pythons.found().items()
        }
    for version, result in tried.items():
        print(f"Python {version}: {result.result()}")


if __name__ == "__main__":
    sys.exit(main())
