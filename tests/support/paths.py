"""The files of this project that tests read, and how a page shows a program."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "tests" / "examples"
SUPPORT = ROOT / "tests" / "support"

README = (ROOT / "README.rst").read_text("utf-8")


def literal_block(text: str, marker: str) -> str:
    """Give the first indented block behind a line."""
    lines = text.partition(f"\n{marker}\n")[2].splitlines()
    lines = list(itertools.dropwhile(lambda line: not line.startswith("    "), lines))
    block = itertools.takewhile(lambda line: not line or line.startswith("    "), lines)
    return textwrap.dedent("\n".join(block)).strip() + "\n"
