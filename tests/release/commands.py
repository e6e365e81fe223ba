"""How a gate runs something, and how it says that it is shut."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: Seconds that one command may take; some of them download packages.
LIMIT = 120.0


class NotFit(Exception):
    """What was built must not be released."""


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run what has to end well.

    :raises NotFit: It did not; the message has all that it printed.
    """
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise NotFit(f"{words}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done
