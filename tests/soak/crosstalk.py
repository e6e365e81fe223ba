"""Run a suite of mail tests by pytest-xdist, many times over: does any test see foreign mail?

Not collected by pytest.  Run it from the checkout:

    python tests/soak/crosstalk.py --tests 2000 --workers 4 --times 20

Each test sends a message with a token that nobody can guess, and fails unless
it sees just this one, in a server that it shares with all tests of its worker.
One test in three then leaves a message behind that nobody reads, and one in
three a connection on which half a message was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import mail_suite
from benchmarks.mail_suite import OURS, Outcome

DISTS = ("load", "loadscope", "worksteal")

#: What a test does when it has seen what it sent.
LEAVINGS = """\
    left = int(token, 16) % 3
    if left:
        client = smtplib.SMTP(smtptest.host, smtptest.port, "client.example", timeout=30)
        if left == 1:
            client.sendmail("left@example.com", ["lee@example.com"], "Subject: left\\r\\n")
        else:
            client.ehlo()
            client.mail("half@example.com")
            client.rcpt("lee@example.com")
            client.docmd("DATA")
            client.send("Subject: half\\r\\n\\r\\nHalf a mess")
        for other in HELD:
            other.close()
        HELD[:] = [client]
"""

#: Seconds after which a process that is still there counts as left behind.
GRACE = 2.0


def adopt_orphans() -> bool:
    """Become the parent of whatever a run leaves behind; Linux only."""
    if sys.platform != "linux":
        return False
    pr_set_child_subreaper = 36
    return ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0


def left_behind() -> int:
    """Count this process's children that do not end by themselves, and end them."""
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
    left = 0
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)
            left += 1
    return left


def children() -> list[int]:
    return [
        int(pid)
        for path in Path("/proc/self/task").iterdir()
        for pid in (path / "children").read_text().split()
    ]


def run_once(directory: Path, workers: int, dist: str) -> Outcome:
    try:
        return mail_suite.run(directory, OURS, ["-n", str(workers), "--dist", dist])
    except subprocess.TimeoutExpired as error:
        return Outcome(error.timeout, -1, {}, f"it was killed after {error.timeout:g} seconds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=int, default=2000, help="of the suite (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="of pytest-xdist (%(default)s)")
    parser.add_argument("--times", type=int, default=20, help="how often it is run (%(default)s)")
    parser.add_argument(
        "--dist", choices=DISTS, help="how tests come to the workers (all three in turn)"
    )
    options = parser.parse_args()
    dists = [options.dist] if options.dist else DISTS
    adopting = adopt_orphans()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{options.tests} tests, {options.workers} workers")
    table = "{:>4}  {:>9}  {:>7}  {:>6}  {:>6}  {:>14}"
    border = table.format("=" * 4, "=" * 9, "=" * 7, "=" * 6, "=" * 6, "=" * 14)
    heads = ["run", "dist", "seconds", "passed", "failed", "processes left"]
    print("", border, table.format(*heads), border, sep="\n")
    broken = []
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "suite"
        mail_suite.write(directory, options.tests, OURS.fixture, OURS.sending + LEAVINGS)
        for number in range(options.times):
            dist = dists[number % len(dists)]
            outcome = run_once(directory, options.workers, dist)
            left = left_behind() if adopting else 0
            seconds[dist].append(outcome.seconds)
            passed = outcome.counts.get("passed", 0)
            failed = sum(outcome.counts.values()) - passed
            row = [number + 1, dist, f"{outcome.seconds:.1f}", passed, failed, left]
            print(table.format(*row), flush=True)
            if outcome.code or outcome.counts != {"passed": options.tests} or left:
                broken.append(outcome.output)
    print(border, "", sep="\n")
    for dist, times in seconds.items():
        print(
            f"- {dist}: {len(times)} runs, median {statistics.median(times):.1f} s, "
            f"longest {max(times):.1f} s"
        )
    print("", *broken, sep="\n")
    if not adopting:
        print("whether processes are left is looked at on Linux only")
    print("nothing failed" if not broken else f"{len(broken)} runs failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
