"""The wheel and the source distribution: built, and looked at from outside.

As a script, it builds both into the directory that it is given.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from commands import NotFit, run
from pythons import ROOT

PACKAGES = ("lazr", "lazr_smtptest")


def copy_tree(target: Path) -> None:
    """Copy what git knows, or has yet to be told of.

    So nothing that merely lies about gets into a wheel: setuptools packs what
    it finds in an old ``build`` directory.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:  # an unpacked source distribution
        shutil.copytree(ROOT, target)
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def build(source: Path, target: Path, *kinds: str) -> None:
    """Build what is asked for; by default the sdist, and from that the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, *kinds, source)


def build_both(folder: Path) -> tuple[Path, Path]:
    """Build both, and see to it that it makes no difference what the wheel is made from.

    :param folder: An empty directory to work in.
    :return: The wheel and the source distribution.
    :raises NotFit: It does make a difference, or something is missing.
    """
    copy_tree(folder / "tree")
    build(folder / "tree", folder / "both")
    build(folder / "tree", folder / "direct", "--wheel")
    (wheel,) = (folder / "both").glob("*.whl")
    (sdist,) = (folder / "both").glob("*.tar.gz")
    check_same(_contents(wheel), _contents(folder / "direct" / wheel.name))
    check_complete(_contents(wheel), folder / "tree")
    return wheel, sdist


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_same(from_sdist: dict[str, bytes], from_tree: dict[str, bytes]) -> None:
    names = sorted(from_sdist.keys() | from_tree.keys())
    if differ := [name for name in names if from_sdist.get(name) != from_tree.get(name)]:
        raise NotFit(f"the wheel is another one when made from the sdist: {', '.join(differ)}")


def check_complete(contents: dict[str, bytes], tree: Path) -> None:
    files = [path for package in PACKAGES for path in (tree / package).rglob("*")]
    # The builds leave bytecode in it, and nothing else.
    names = {
        str(path.relative_to(tree)) for path in files if path.is_file() and path.suffix != ".pyc"
    }
    if missing := sorted(names - contents.keys()):
        raise NotFit(f"not in the wheel: {', '.join(missing)}")


def check_metadata(*archives: Path) -> None:
    """Let twine say what the package index would: whether the README can be shown."""
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as tree:
        copy_tree(Path(tree, "tree"))
        build(Path(tree, "tree"), Path(sys.argv[1]))
