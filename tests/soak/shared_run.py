"""Run a suite against one application that all workers share: is mail lost, or seen by others?

Not collected by pytest.  Run it from the checkout:

    python tests/soak/shared_run.py --tests 4000 --workers 8 --times 20 --kills 4

The application is a process of its own, which is asked by HTTP, and sends late and out of
order (``tests/support/mailing_app.py``).  It knows one mail server, that of
``--smtptest-shared``.  Each test orders mail with a token that nobody can guess, waits for all
of it, and fails if it sees any other, or any twice.  Some claim addresses, some have a
fault of their own, which must refuse their mail once and nobody else's, and some leave
while mail for them is on its way.  Workers are killed at random meanwhile: only the tests that
they were at may fail.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import mail_suite
from benchmarks.mail_suite import OURS, Outcome
from crosstalk import DISTS, adopt_orphans, left_behind

_APPLICATION = Path(__file__).parents[1] / "support" / "mailing_app.py"

#: What the tests have in common.
_ORDERING = r"""
import http.client
import json
import os
import secrets
from pathlib import Path

import pytest

def ask(method, path, content=None):
    web = http.client.HTTPConnection("127.0.0.1", int(os.environ["MAILING_APP"]), timeout=30)
    try:
        web.request(method, path, None if content is None else json.dumps(content))
        return json.loads(web.getresponse().read())
    finally:
        web.close()

def check(smtptest):
    Path("workers", str(os.getpid())).touch()
    token = secrets.token_hex(16)
    kind = int(token, 16) % 4
    assert smtptest.messages == [], "mail of others"
    kim, lee = smtptest.address("kim"), smtptest.address("lee")
    fault = None
    if kind == 1:
        lee = f"lee@{token}.example"
        smtptest.claim(f"*@{token}.example")
    if kind == 2:
        fault = smtptest.fault("EOM", "451 4.7.1 Later", times=1)
    mails = [
        {"to": [kim], "words": "ordered", "delay": 0},
        {"to": [kim, lee], "words": "sent", "delay": 0.01},
        {"to": [lee], "words": "bill", "delay": 0},
    ]
    late = {"to": [kim], "words": "late", "delay": 0.05}
    ask("POST", "/", {"token": token, "mails": mails + [late] * (kind == 3)})
    for mail in mails:
        found = smtptest.wait(30, subject=f"{token} {mail['words']}")
        assert list(found.envelope.rcpt_tos) == mail["to"]
        assert found.text.startswith(token)
    subjects = [message["Subject"] for message in smtptest.messages]
    assert subjects in ([], [f"{token} late"]), "mail of others, or twice"
    if fault is not None:
        assert fault.fired == ask("GET", f"/{token}")["refused"] == 1
    Path("done", os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split()[0]).touch()
"""

_TEST = "    from ordering import check\n    check(smtptest)\n"

#: Where no worker is killed.  There pytest-xdist 3.8 itself fails if two workers are starting at
#: once (KeyError in ``LoadScopeScheduling.schedule``), and may wait for ever after a death: a new
#: worker gets a last test, does not run it before it knows the next, and is told of none.
_NO_KILLS = "loadscope"

#: Seconds between kills, about.
_BETWEEN = 2.0


@contextlib.contextmanager
def application(mail_port: int) -> Iterator[None]:
    """Run the application; the tests find it by an environment variable."""
    command = [sys.executable, str(_APPLICATION), str(mail_port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            os.environ["MAILING_APP"] = process.stdout.readline().strip()
            yield
        finally:
            process.stdin.close()
            process.wait(60)


class Killer(threading.Thread):
    """Kills workers at random, which have run a test, until it is told to stop.

    One at a time, and none in the second half of a run: the tests are then spread over those
    that took the places of others, too.
    """

    def __init__(self, directory: Path, tests: int, workers: int, kills: int) -> None:
        super().__init__(daemon=True)
        self._count = workers
        self._workers, self._done = directory / "workers", directory / "done"
        self._half = tests // 2
        self._left = kills
        self._stop_now = threading.Event()
        self.killed = 0

    def run(self) -> None:
        while self._left and not self._stop_now.wait(_BETWEEN * (0.5 + random.random())):
            names = [path.name for path in self._workers.iterdir()]
            if len(names) < self._count:
                continue
            if len(list(self._done.iterdir())) > self._half:
                return
            name = random.choice(names)
            (self._workers / name).unlink()
            with contextlib.suppress(ProcessLookupError):  # it was killed before
                os.kill(int(name), signal.SIGKILL)
                self.killed += 1
                self._left -= 1

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def run_once(
    directory: Path, tests: int, workers: int, dist: str, kills: int
) -> tuple[Outcome, int]:
    """Return what came of a run, and how many workers were killed in it."""
    for folder in directory / "workers", directory / "done":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    port = free_port()
    arguments = [f"--smtptest-shared=localhost:{port}", "--max-worker-restart=1000"]
    killer = Killer(directory, tests, workers, kills)
    with application(port):
        killer.start()
        try:
            outcome = mail_suite.run(
                directory, OURS, ["-n", str(workers), "--dist", dist, *arguments]
            )
        except subprocess.TimeoutExpired as error:
            outcome = Outcome(error.timeout, -1, {}, f"killed after {error.timeout:g} seconds")
        finally:
            killer.stop()
    return outcome, killer.killed


def wrong(
    outcome: Outcome, not_done: int, killed: int, left: int, folders: list[Path]
) -> list[str]:
    """Return what is not as it has to be.

    A test that a worker was killed at may be run again by the next.
    """
    crashed = len(re.findall(r"^worker 'gw\d+' crashed while running ", outcome.output, re.M))
    failed = outcome.counts.get("failed", 0)
    found = []
    if not outcome.counts.keys() <= {"passed", "failed"} or outcome.code not in (0, 1):
        found.append(f"exit status {outcome.code}, {outcome.counts}")
    if not_done > crashed:
        found.append(f"{not_done} tests were not run to their ends")
    if failed != crashed or crashed > killed:
        found.append(f"{failed} failed, {crashed} by a crash, {killed} workers were killed")
    if left:
        found.append(f"{left} processes are left")
    if folders:
        found.append(f"left: {', '.join(map(str, folders))}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=int, default=4000, help="of the suite (%(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="of pytest-xdist (%(default)s)")
    parser.add_argument("--times", type=int, default=20, help="how often it is run (%(default)s)")
    parser.add_argument("--kills", type=int, default=4, help="workers to kill (%(default)s)")
    parser.add_argument(
        "--dist", choices=DISTS, help="how tests come to the workers (all three in turn)"
    )
    options = parser.parse_args()
    dists = [options.dist] if options.dist else DISTS
    adopting = adopt_orphans()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{options.tests} tests, {options.workers} workers, one server and one application")
    broken = 0
    seconds = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        os.environ["TMPDIR"] = name
        directory = Path(name) / "suite"
        mail_suite.write(directory, options.tests, OURS.fixture, _TEST)
        (directory / "ordering.py").write_text(_ORDERING)
        for number in range(options.times):
            dist = dists[number % len(dists)]
            kills = 0 if dist == _NO_KILLS else options.kills
            outcome, killed = run_once(directory, options.tests, options.workers, dist, kills)
            left = left_behind() if adopting else 0
            folders = list(Path(name).glob("lazr-smtptest-*"))
            not_done = options.tests - len(list((directory / "done").iterdir()))
            reasons = wrong(outcome, not_done, killed, left, folders)
            seconds[dist].append(outcome.seconds)
            print(
                f"run {number + 1:3}, --dist {dist:9} {outcome.seconds:7.1f} s "
                f"{outcome.counts.get('passed', 0):6} passed {killed:3} workers killed "
                f"{left:3} processes left  {'; '.join(reasons) or 'well'}",
                flush=True,
            )
            if reasons:
                broken += 1
                print(outcome.output[-100_000:])
    for dist, times in seconds.items():
        print(
            f"--dist {dist}: {len(times)} runs, median {statistics.median(times):.1f} s, "
            f"longest {max(times):.1f} s"
        )
    if not adopting:
        print("whether processes are left is looked at on Linux only")
    print("nothing failed" if not broken else f"{broken} runs failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
