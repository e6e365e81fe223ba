"""Epoll instances and the like, which the test process has open when it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from paths import SUPPORT

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has anonymous inodes"),
    pytest.mark.timeout(60),
]


def run(program: str, argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SUPPORT / program), argument],
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_server_process_shares_none_with_the_test_process():
    shared, opened = json.loads(run("anonymous.py", "shared").stdout)
    assert {"eventpoll", "eventfd", "timerfd", "signalfd", "inotify", "pidfd"} <= set(opened)
    assert shared == []


def test_what_its_owner_opens_anew_after_the_fork_goes_on_to_work():
    assert json.loads(run("anonymous.py", "waking").stdout) == "True"


def test_starts_beside_an_open_grpc_channel():
    done = run("grpc_channel.py", "10")
    assert (done.stdout, done.returncode) == ("all well\n", 0), done.stderr
