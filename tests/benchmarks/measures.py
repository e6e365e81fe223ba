"""What is measured, one function each."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from clients import OtherProcess, Source, connected, make_message, send
from peers import BARE, OURS, OURS_WITHOUT_UVLOOP, PLAIN, SINK, Peer, Running
from rounds import Growth, Measure, Samples, in_turn

KB = 1024
MB = 1024 * 1024

#: Seconds that a program started here may take.
_PATIENCE = 60.0

PARSER = "the email package"
MESSAGE = "the message"
PYTEST = "pytest alone"


@dataclass(frozen=True)
class Plan:
    """How much of everything: what a round has, where it is not what is measured."""

    rounds: int = 5
    #: Seconds that smtp-source sends.
    seconds: float = 0.6
    growth_rounds: int = 5
    growth_seconds: float = 0.2
    busy_seconds: float = 1.5
    small_messages: int = 300
    large_messages: int = 10
    connections: int = 60
    starts: int = 10
    #: MB more that a process uses that starts servers.
    in_use: tuple[int, ...] = (0, 300, 1000)
    large_megabytes: int = 200
    parsed: int = 1000
    suite_tests: int = 500


QUICK = Plan(
    rounds=2,
    seconds=0.15,
    growth_rounds=1,
    growth_seconds=0.1,
    busy_seconds=0.3,
    small_messages=50,
    large_messages=3,
    connections=15,
    starts=3,
    in_use=(0, 50),
    large_megabytes=20,
    parsed=200,
    suite_tests=40,
)


@contextlib.contextmanager
def _running(contestants: Mapping[str, Peer]) -> Iterator[dict[str, Running]]:
    """Start all; what does not work now does not work for its turn."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(run()) for name, run in contestants.items()}


def _each(
    rounds: int, contestants: Mapping[str, Peer], once: Callable[[Running], float]
) -> Samples:
    """Let a measurement go round servers that run all the while."""
    with _running(contestants) as servers:
        return in_turn(rounds, {name: _bound(once, each) for name, each in servers.items()})


def _bound(once: Callable[[Running], float], server: Running) -> Callable[[], float]:
    return lambda: once(server)


def _ours_and_threads() -> dict[str, Peer]:
    return peers.ours() | peers.on_a_thread()


def _against_threads() -> list[tuple[str, list[str]]]:
    return [(OURS, list(peers.on_a_thread()))]


def _ours_and_processes() -> dict[str, Peer]:
    # The forked one goes first, while the others have no threads here.
    return peers.plain() | peers.ours() | peers.ours_without_uvloop() | peers.sink()


_AGAINST_PROCESSES = [(us, [it]) for us in (OURS, OURS_WITHOUT_UVLOOP) for it in (PLAIN, SINK)]


# By smtp-source: what the server can do, when the client is no limit.


def _by_source(
    plan: Plan, key: str, title: str, size: int, sessions: int, *, reads: bool = False
) -> Measure:
    source = Source(size, sessions, plan.seconds, reads=reads)
    samples = _each(plan.rounds, _ours_and_processes(), source.rate)
    return Measure(key, title, "messages/s", samples, _AGAINST_PROCESSES)


def source_small(plan: Plan) -> Measure:
    """Many small messages: what a command and a message cost the server."""
    return _by_source(plan, "source-1kB", "1 kB, 10 sessions, smtp-source", KB, 10)


def source_large(plan: Plan) -> Measure:
    """Few large messages, which nobody reads yet: what an octet costs the server."""
    return _by_source(plan, "source-5MB", "5 MB, 1 session, left unread", 5 * MB, 1)


def source_read(plan: Plan) -> Measure:
    """The same, where the test process takes each message as it comes."""
    title = "5 MB, 1 session, read as it comes"
    return _by_source(plan, "source-5MB-read", title, 5 * MB, 1, reads=True)


def many_sessions(plan: Plan) -> Measure:
    """Many sessions against few: what a session costs the others."""
    many, few = 256, 4
    sources = {number: Source(KB, number, plan.seconds) for number in (many, few)}
    contestants = peers.ours() | peers.ours_without_uvloop() | peers.sink()
    with _running(contestants) as servers:
        turns = {
            f"{name}, {number}": _bound(source.rate, server)
            for name, server in servers.items()
            for number, source in sources.items()
        }
        samples = in_turn(plan.rounds, turns)
    pairs = [(f"{name}, {many}", [f"{name}, {few}"]) for name in servers]
    title = f"1 kB, {many} sessions against {few}"
    return Measure("sessions", title, "messages/s", samples, pairs, in_picture=False)


# By smtplib: what a test of a Python program sees of it.


def _by_smtplib(plan: Plan, key: str, title: str, size: int, count: int) -> Measure:
    message = make_message(size)

    def rate(server: Running) -> float:
        with connected(server) as client:
            send(client, message, 1)
            started = time.perf_counter()
            send(client, message, count)
            elapsed = time.perf_counter() - started
        server.forget()
        return count / elapsed

    samples = _each(plan.rounds, _ours_and_threads(), rate)
    return Measure(key, title, "messages/s", samples, _against_threads())


def smtplib_small(plan: Plan) -> Measure:
    """Small messages from the test process, which a thread there shares."""
    return _by_smtplib(plan, "smtplib-1kB", "1 kB, 1 connection, smtplib", KB, plan.small_messages)


def smtplib_large(plan: Plan) -> Measure:
    """Large messages from the test process, which a thread there shares."""
    return _by_smtplib(plan, "smtplib-1MB", "1 MB, 1 connection, smtplib", MB, plan.large_messages)


def while_computing(plan: Plan) -> Measure:
    """Send from elsewhere while the test process computes: who waits for whom.

    A thread gets the interpreter when the switch interval is over, unless the
    kernel suspends the whole process meanwhile.  So on a machine with other
    work to do the peers' figures rise: this one takes an idle machine.
    """
    with contextlib.closing(OtherProcess()) as sender:
        samples = _each(
            plan.rounds,
            _ours_and_threads(),
            lambda server: sender.rate_while_computing(server, plan.busy_seconds),
        )
    title = "1 kB, while the test process computes"
    return Measure("computing", title, "messages/s", samples, _against_threads())


def connections(plan: Plan) -> Measure:
    """Connect, EHLO, send, QUIT: what most programs do for each message."""
    message = make_message(KB)

    def rate(server: Running) -> float:
        started = time.perf_counter()
        for _ in range(plan.connections):
            with connected(server) as client:
                send(client, message, 1)
        elapsed = time.perf_counter() - started
        server.forget()
        return plan.connections / elapsed

    samples = _each(plan.rounds, _ours_and_threads(), rate)
    title = "A connection for each message"
    return Measure("connections", title, "messages/s", samples, _against_threads())


# Between tests.

_FILLED = 100


def reset(plan: Plan) -> Measure:
    """Forget 100 messages; the peers are stopped, and started again.

    Some have a way to empty their list, too.  But a client may still be
    sending, and only a new server is certain not to have its messages.
    """
    with _running(peers.ours()) as servers:
        turns = {name: _bound(_forget, server) for name, server in servers.items()}
        turns |= {name: _bound_to(_restart, run) for name, run in peers.on_a_thread().items()}
        samples = in_turn(plan.rounds, turns)
    title = "reset(), against stop and start"
    return Measure("reset", title, "ms", samples, _against_threads(), less_is_better=True)


def _fill(server: Running, count: int = _FILLED) -> None:
    with connected(server) as client:
        send(client, make_message(KB), count)


def _forget(server: Running) -> float:
    _fill(server)
    started = time.perf_counter()
    server.forget()
    return 1000 * (time.perf_counter() - started)


def _restart(run: Peer) -> float:
    with ExitStack() as first, ExitStack() as second:
        _fill(first.enter_context(run()))
        started = time.perf_counter()
        first.close()
        second.enter_context(run())
        return 1000 * (time.perf_counter() - started)


def _bound_to(once: Callable[[Peer], float], run: Peer) -> Callable[[], float]:
    return lambda: once(run)


def start_and_stop(plan: Plan) -> Measure:
    """Start and stop a server, as a test does that has one to itself."""

    def once(run: Peer) -> float:
        started = time.perf_counter()
        for _ in range(plan.starts):
            with run():
                pass
        return 1000 * (time.perf_counter() - started) / plan.starts

    contestants = _ours_and_threads() | peers.ours_without_uvloop()
    turns = {name: _bound_to(once, run) for name, run in contestants.items()}
    samples = in_turn(plan.rounds, turns)
    pairs = [(us, list(peers.on_a_thread())) for us in (OURS, OURS_WITHOUT_UVLOOP)]
    return Measure("start", "start() and stop()", "ms", samples, pairs, less_is_better=True)


def start_beside_bare(plan: Plan) -> list[Measure]:
    """Start and stop a server, beside a process that does nothing; in processes of any size."""
    program = str(Path(__file__).with_name("starts.py"))
    pairs = [(us, [BARE]) for us in (OURS, OURS_WITHOUT_UVLOOP)]
    found = []
    for megabytes in plan.in_use:
        samples = json.loads(_output(program, str(megabytes), str(plan.rounds), str(plan.starts)))
        title = f"start() and stop(), {megabytes:,} MB in use"
        key = f"start-{megabytes}"
        found.append(Measure(key, title, "ms", samples, pairs, True, in_picture=False))
    return found


# In the test process.


def take_and_parse(plan: Plan) -> Measure:
    """Take accepted messages from the queue; against nothing but parsing them."""
    title = f"Take and parse {plan.parsed:,} messages of 1 kB"
    return _taking(plan, "parse", title, lambda message: message.keys())


def take_raw(plan: Plan) -> Measure:
    """Take accepted messages, and look at the envelope and the octets alone."""
    title = f"Take {plan.parsed:,} messages of 1 kB, envelope and raw"
    return _taking(plan, "raw", title, lambda message: (message.envelope, message.raw))


def _taking(plan: Plan, key: str, title: str, look: Callable[[Any], object]) -> Measure:
    raws = [make_message(KB)] * plan.parsed
    with _running(peers.ours()) as servers:

        def take() -> float:
            elapsed, raws[:] = _take(servers[OURS], plan.parsed, look)
            return elapsed

        samples = in_turn(plan.rounds, {OURS: take, PARSER: lambda: _parse(raws)})
    return Measure(key, title, "ms", samples, [(OURS, [PARSER])], less_is_better=True)


def _take(server: Running, count: int, look: Callable[[Any], object]) -> tuple[float, list[bytes]]:
    assert server.queue is not None
    _fill(server, count)
    started = time.perf_counter()
    messages = [server.queue.get_nowait() for _ in range(count)]
    for message in messages:
        look(message)
    elapsed = time.perf_counter() - started
    return 1000 * elapsed, [message.raw for message in messages]


def _parse(raws: list[bytes]) -> float:
    started = time.perf_counter()
    parsed = [email.message_from_bytes(raw, policy=email.policy.default) for raw in raws]
    elapsed = time.perf_counter() - started
    assert len(parsed) == len(raws)
    return 1000 * elapsed


_IMPORT = """
import json, sys, time
from importlib.metadata import entry_points
plugins = [p for p in entry_points(group="pytest11") if p.value.startswith("lazr_smtptest")]
before = time.perf_counter()
import pytest
between = time.perf_counter()
import lazr_smtptest
for plugin in plugins:
    plugin.load()
after = time.perf_counter()
print(json.dumps([between - before, after - between, "aiosmtpd" in sys.modules, len(plugins)]))
"""


def importing(plan: Plan) -> Measure:
    """Import the package, and its plugin if it has one, after pytest.

    Each time in a fresh interpreter, where pytest itself is imported first:
    whatever both of them need is no cost of ours.
    """
    last: list[float] = []

    def once() -> float:
        last[:] = json.loads(_output("-c", _IMPORT))
        alone.append(1000 * last[0])
        return 1000 * last[1]

    alone: list[float] = []
    samples = in_turn(plan.rounds, {OURS: once})
    samples[PYTEST] = alone[1:]
    loaded = "is" if last[2] else "is not"
    notes = [f"aiosmtpd {loaded} in sys.modules after the import; plugins: {last[3]:g}"]
    pairs = [(OURS, [PYTEST])]
    return Measure(
        "import", "Import, after pytest", "ms", samples, pairs, True, notes, in_picture=False
    )


def memory(plan: Plan) -> list[Measure]:
    """Look at what an idle server process takes, that has had one message."""
    names = [*peers.ours(), *peers.ours_without_uvloop(), *peers.plain()]
    program = str(Path(__file__).with_name("idle.py"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def look(name: str) -> Callable[[], float]:
        def once() -> float:
            found[name].append(json.loads(_output(program, name)))
            return 0.0

        return once

    in_turn(plan.rounds, {name: look(name) for name in names})
    return [
        _memory_measure(found, "pss", "Memory of an idle server, PSS"),
        _memory_measure(found, "private", "Memory of an idle server, private"),
    ]


def _memory_measure(found: Mapping[str, list[dict[str, float]]], kind: str, title: str) -> Measure:
    samples = {name: [each[kind] / 1024 for each in all_[1:]] for name, all_ in found.items()}
    pairs = [(us, [PLAIN]) for us in (OURS, OURS_WITHOUT_UVLOOP)]
    return Measure(f"memory-{kind}", title, "MiB", samples, pairs, less_is_better=True)


def large_message(plan: Plan) -> Measure:
    """Look at what a large message takes in each process, from before it comes to ``raw``."""
    program = str(Path(__file__).with_name("large.py"))
    names = {"test": "the test process", "server": "the server process", "message": MESSAGE}
    samples: dict[str, list[float]] = {name: [] for name in names.values()}
    for _ in range(plan.rounds):
        for key, octets in json.loads(_output(program, str(plan.large_megabytes * MB))).items():
            samples[names[key]].append(octets / MB)
    title = f"Peak memory for a message of {plan.large_megabytes} MB"
    pairs = [(names[key], [MESSAGE]) for key in ("test", "server")]
    return Measure("large-message", title, "MiB", samples, pairs, True, in_picture=False)


def _output(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, check=True, timeout=_PATIENCE, stdout=subprocess.PIPE, text=True
    ).stdout


# How cost grows.

_SESSIONS = (1, 4, 16, 64, 256)
_SIZES = (100, KB, 10 * KB, 100 * KB, MB, 10 * MB, 25 * MB)


def growing_sessions(plan: Plan) -> Growth:
    """More and more sessions at once, 1 kB each: is any slower for the others?"""
    points = {number: _point(plan, KB, number) for number in _SESSIONS}
    sizes = dict.fromkeys(_SESSIONS, KB)
    return Growth("growth-sessions", "1 kB, by sessions", "sessions", sizes, points)


def growing_size(plan: Plan) -> Growth:
    """Larger and larger messages, in one session: does an octet cost more?"""
    points = {size: _point(plan, size, 1) for size in _SIZES}
    sizes = {size: size for size in _SIZES}
    return Growth("growth-size", "1 session, by octets of a message", "octets", sizes, points)


def _point(plan: Plan, size: int, sessions: int) -> Samples:
    source = Source(size, sessions, plan.growth_seconds)
    return _each(plan.growth_rounds, peers.ours() | peers.sink(), source.rate)


#: These need smtp-source.
BY_SOURCE: list[Callable[[Plan], Measure]] = [
    source_small,
    source_large,
    source_read,
    many_sessions,
]
GROWTH: list[Callable[[Plan], Growth]] = [growing_sessions, growing_size]

#: These fork, which takes the longer the more memory a process has used.
FIRST: list[Callable[[Plan], Measure | list[Measure]]] = [start_and_stop, start_beside_bare, reset]

OTHERS: list[Callable[[Plan], Measure | list[Measure]]] = [
    smtplib_small,
    smtplib_large,
    while_computing,
    connections,
    take_and_parse,
    take_raw,
    importing,
    memory,
    large_message,
]
