"""One server that many share: what a lease costs beside a server of one's own, and MailDev."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import mail_suite
from mail_suite import OURS
from measures import Plan
from peers import HOST, PATIENCE, find_program, free_port
from rounds import Measure, Samples, in_turn

from lazr_smtptest import Lease, QueueController, SharedController, connect

OWN, LEASED, MAILDEV = "a server of its own", "a lease", "MailDev"

#: Tests of the short suite, which is mostly the start, and of the other, at most.
_FEW = 10
_SEVERAL = 200

_ONE = "one lease"
_READERS = 8

#: Seconds between two questions to MailDev.
_POLL = 0.05

_TEST = """\
    import time
    token = secrets.token_hex(16)
    kim = {address}
    client = smtplib.SMTP({host}, {port}, "client.example", timeout=30)
    mail = f"To: {{kim}}\\r\\nSubject: {{token}}\\r\\n\\r\\nHello.\\r\\n"
    client.sendmail("lee@example.com", [kim], mail)
    accepted = time.perf_counter()
{read}
    with open("times", "a") as times:
        times.write(f"{{time.perf_counter() - accepted}}\\n")
    assert subject == token
    client.quit()
"""

_OURS = "    subject = smtptest.wait(rcpt=kim)['Subject']"

#: As its manual has it: GET /api/email, and a filter.  A test has to ask until it is there.
_POLLING = """\
    import json
    import urllib.request
    from urllib.parse import quote
    found = []
    for _ in range({times}):
        with urllib.request.urlopen("{url}?to.address=" + quote(kim), timeout=30) as answer:
            found = json.load(answer)
        if found:
            break
        time.sleep({poll})
    subject = found[0]["subject"]
"""


def shared(plan: Plan) -> list[Measure]:
    """Run the same tests with a lease each, and let eight leases read."""
    found = _suites(plan)
    if find_program("smtp-source") is not None:
        found.append(_throughput(plan))
    return found


def _suites(plan: Plan) -> list[Measure]:
    """Take the time of two suites, of which one is short, and from the 250 to the message."""
    several = min(plan.suite_tests, _SEVERAL)
    waited: Samples = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        turns = {}
        for who, (fixture, body, arguments) in _contestants(stack).items():
            for tests in (_FEW, several):
                place = Path(name) / f"{who} {tests}"
                mail_suite.write(place, tests, fixture, body)
                turns[f"{who} {tests}"] = _wall_clock(place, arguments, tests, waited, who)
        times = in_turn(plan.rounds, turns)
    names = [who for who in (OWN, LEASED, MAILDEV) if f"{who} {several}" in times]
    whole = {who: times[f"{who} {several}"] for who in names}
    each, start = {}, {}
    for who in names:
        short_and_long = list(zip(times[f"{who} {_FEW}"], whole[who], strict=True))
        each[who] = [1000 * (long - short) / (several - _FEW) for short, long in short_and_long]
        start[who] = [
            1000 * short - _FEW * one
            for (short, _), one in zip(short_and_long, each[who], strict=True)
        ]
    pairs = [(LEASED, [who]) for who in names if who != LEASED]
    at_hand = {who: waited[who][-plan.rounds :] for who in names}

    def measure(key: str, title: str, unit: str, samples: Samples) -> Measure:
        return Measure(f"shared-{key}", title, unit, samples, pairs, less_is_better=True)

    return [
        measure("suite", f"{several:,} mail tests, one server for all", "s", whole),
        measure("test", "One of these tests", "ms", each),
        measure("start", "pytest from its start to its end, without tests", "ms", start),
        measure("250", "From the 250 to the message, median of a suite", "ms", at_hand),
    ]


def _contestants(stack: contextlib.ExitStack) -> dict[str, tuple[str, str, list[str]]]:
    """Return the fixture, the body of each test, and arguments of pytest, by name."""
    place = {"host": "smtptest.host", "port": "smtptest.port", "read": _OURS}
    own = _TEST.format(address='f"kim-{token}@example.com"', **place)
    leased = _TEST.format(address='smtptest.address("kim")', **place)
    found = {
        OWN: ("smtptest", own, []),
        LEASED: ("smtptest", leased, ["--smtptest-shared=localhost:0"]),
    }
    program = find_program("maildev")
    if program is not None:
        port, url = stack.enter_context(_maildev(program))
        read = _POLLING.format(url=url, poll=_POLL, times=round(PATIENCE / _POLL))
        address = 'f"kim-{token}@example.com"'
        body = _TEST.format(address=address, host=repr(HOST), port=port, read=read)
        found[MAILDEV] = ("", body, [])
    return found


@contextlib.contextmanager
def _maildev(program: str) -> Iterator[tuple[int, str]]:
    """Run MailDev, which all suites share; return its SMTP port and where its API is."""
    smtp, web = free_port(), free_port()
    command = [program, f"--smtp={smtp}", f"--web={web}", f"--ip={HOST}", f"--web-ip={HOST}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        for port in smtp, web:
            while not _answers(port):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError("MailDev does not start")
                time.sleep(0.05)
        yield smtp, f"http://{HOST}:{web}/api/email"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _wall_clock(
    place: Path, arguments: list[str], tests: int, waited: Samples, who: str
) -> Callable[[], float]:
    def once() -> float:
        (place / "times").unlink(missing_ok=True)
        outcome = mail_suite.run(place, OURS, arguments)
        outcome.check(tests)
        if tests != _FEW:
            spent = map(float, (place / "times").read_text().split())
            waited.setdefault(who, []).append(1000 * median(spent))
        return outcome.seconds

    return once


def _throughput(plan: Plan) -> Measure:
    """Send 1 kB messages to eight addresses at once, and read them: by eight, and by one."""
    count = plan.small_messages
    with contextlib.ExitStack() as stack:
        controller = stack.enter_context(QueueController(HOST))
        run = stack.enter_context(SharedController(HOST))
        readers = [stack.enter_context(_reader(run.address, run.key)) for _ in range(_READERS)]
        leased = [reader.recv() for reader in readers]

        single = stack.enter_context(connect(run.address, run.key))
        names = [f"kim{n}" for n in range(_READERS)]

        def by_one(server: QueueController | Lease, recipients: list[str]) -> float:
            started = time.perf_counter()
            with _senders(server.port, recipients, count):
                for _ in range(count * _READERS):
                    server.queue.get(timeout=PATIENCE)
            return count * _READERS / (time.perf_counter() - started)

        def by_eight() -> float:
            started = time.perf_counter()
            for reader in readers:
                reader.send(count)
            with _senders(run.port, leased, count):
                for reader in readers:
                    reader.recv()
            return count * _READERS / (time.perf_counter() - started)

        samples = in_turn(
            plan.rounds,
            {
                OWN: lambda: by_one(controller, [f"{name}@example.com" for name in names]),
                _ONE: lambda: by_one(single, [single.address(name) for name in names]),
                LEASED: by_eight,
            },
        )
    title = f"1 kB messages by {_READERS} clients, read by {_READERS} leases"
    return Measure("shared-1kB", title, "/s", samples, [(LEASED, [_ONE, OWN])])


@contextlib.contextmanager
def _senders(port: int, recipients: list[str], count: int) -> Iterator[None]:
    program = find_program("smtp-source")
    assert program is not None
    command = [program, "-d", "-M", "client.example", "-m", str(count), "-l", "1024"]
    processes = [
        subprocess.Popen([*command, "-t", recipient, f"{HOST}:{port}"]) for recipient in recipients
    ]
    try:
        yield
    finally:
        for process in processes:
            process.wait(PATIENCE)


@contextlib.contextmanager
def _reader(address: str, key: str) -> Iterator[Connection]:
    """Run a process that has a lease, and reads as many messages as it is told to."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_read, args=(address, key, there), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(PATIENCE)


def _read(address: str, key: str, pipe: Connection) -> None:
    with connect(address, key) as lease, contextlib.suppress(EOFError):
        pipe.send(lease.address("kim"))
        while True:
            for _ in range(pipe.recv()):
                lease.queue.get(timeout=PATIENCE)
            pipe.send("read")
