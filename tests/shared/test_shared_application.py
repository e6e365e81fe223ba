"""One application, many workers, of which some are killed: a short run of the long one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from paths import ROOT


@pytest.mark.timeout(180)
def test_no_mail_is_lost_and_none_is_another_test_s() -> None:
    """See ``tests/soak/shared_run.py``, which checks it."""
    program = ROOT / "tests" / "soak" / "shared_run.py"
    sizes = ["--tests=400", "--workers=3", "--times=1", "--kills=2", "--dist=load"]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, str(program), *sizes],
        capture_output=True,
        text=True,
        timeout=170,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing failed" in done.stdout
