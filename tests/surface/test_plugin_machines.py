"""The pytest plugin where pytest-xdist runs workers on other machines, and under other names."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import gone, is_free, until
from inner_pytest import TIMEOUT, USUALLY_OFF, Run
from paths import ROOT, SUPPORT
from programs import PATH, missing
from sshd import Hosts

pytestmark = TIMEOUT

#: Run by each worker, with ``--dist each``.
WHERE = """
import os
import socket

from helpers import send_to, subjects
from inner import note

def test_where(smtptest):
    name = os.environ["PYTEST_XDIST_WORKER"]
    send_to(smtptest, name)
    assert subjects(smtptest.messages) == [name]
    network = os.path.exists("/proc/self/ns/net") and os.readlink("/proc/self/ns/net")
    note(pid=smtptest.pid, where=[name, smtptest.port], network=network)
"""


#: The same where one server is shared.
SHARED = """
import os

from helpers import send_for, subjects
from inner import note

def test_shared(smtptest):
    name = os.environ["PYTEST_XDIST_WORKER"]
    send_for(smtptest, name, [smtptest.address(name)])
    assert subjects(smtptest.messages) == [name]
    network = os.path.exists("/proc/self/ns/net") and os.readlink("/proc/self/ns/net")
    note(pid=smtptest.pid, where=name, label=smtptest.label, network=network)
"""


def check_shared(run: Run, names: set[str], where: str) -> None:
    """Check that all workers had a lease of the one server, which listens there."""
    assert [report["outcome"] for report in run.reports] == ["passed"] * 3 * len(names), run.out
    assert set(run.noted("where")) == names
    assert len(set(run.noted("label"))) == len(names)
    assert len(set(run.noted("pid"))) == 1
    assert re.findall(r"^smtptest: (.*) port \d+$", run.out, re.MULTILINE) == [
        f"one server for all tests, on {where}"
    ]


def check(run: Run, base: int, numbers: dict[str, int], machines: dict[str, str]) -> None:
    """Check that each worker had the port that the header of the run says it has."""
    assert run.reports, run.out + run.err
    assert {report["outcome"] for report in run.reports} == {"passed"}
    wanted = {name: base + number for name, number in numbers.items()}
    assert dict(run.noted("where")) == wanted
    assert len(run.noted("where")) == len(numbers)
    (header,) = re.findall(r"^smtptest: localhost, (.*)$", run.out, re.MULTILINE)
    assert header.split(", ") == [
        f"port {port} for {name}{machines.get(name, '')}" for name, port in wanted.items()
    ]


@pytest.mark.parametrize(
    ("specs", "numbers"),
    [
        (["popen//id=alpha", "popen//id=beta"], {"alpha": 0, "beta": 1}),
        (["popen//id=web1", "popen//id=api1"], {"web1": 0, "api1": 1}),
        (["popen//id=web", "popen"], {"web": 1, "gw0": 0}),
        (["popen//id=web", "2*popen"], {"web": 2, "gw0": 0, "gw1": 1}),
        (["popen//id=gw2", "popen//id=x"], {"gw2": 2, "x": 0}),
        (["popen//id=gw1", "popen//id=gw01"], {"gw1": 1, "gw01": 0}),
        (["3*popen"], {"gw0": 0, "gw1": 1, "gw2": 2}),
    ],
)
def test_names_of_ones_own(inner, base_port, specs, numbers):
    inner.ini(smtptest_port=base_port)
    inner.files(test_where=WHERE)
    run = inner.run("--dist", "each", *(f"--tx={spec}" for spec in specs))
    check(run, base_port, numbers, {})


def test_who_takes_the_place_of_a_worker_has_no_other_workers_port(inner, base_port):
    """It is gw1, and the port of that number is that of another one, who lives."""
    inner.ini(smtptest_port=base_port)
    inner.files(
        test_crash="""
        import os

        import pytest
        from helpers import until
        from inner import note

        @pytest.mark.parametrize("n", range(12))
        def test_crash(smtptest, n, tmp_path_factory):
            name = os.environ["PYTEST_XDIST_WORKER"]
            note(where=[name, smtptest.port], pid=smtptest.pid)
            place = tmp_path_factory.getbasetemp().parent
            if name == "gw0":
                os._exit(1)
            place.joinpath(name).touch()
            if name == "web":  # it is there as long as the new one
                until(lambda: place.joinpath("gw1").exists(), 60)
        """
    )
    run = inner.run("--dist", "load", "--tx=popen//id=web", "--tx=popen")
    ports = dict(run.noted("where"))
    assert ports == {"gw0": base_port, "web": base_port + 1, "gw1": base_port + 2}
    assert sorted(run.outcomes.values()) == ["failed"] + ["passed"] * 11


# Other machines, and what looks like them.


def python(inner_folder: Path) -> str:
    """Give the command by which a remote shell starts Python as the tests have it."""
    path = os.pathsep.join(map(str, (ROOT, SUPPORT, inner_folder)))
    return f"env PYTHONPATH={path} {sys.executable}"


@pytest.fixture
def hosts(tmp_path) -> Hosts:
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    return Hosts(folder)


def by_ssh(hosts: Hosts, folder: Path, name: str, *fields: str) -> str:
    remote = folder / f"remote-{name}"
    return "--tx=" + "//".join(
        [
            f"ssh={name}",
            f"ssh_config={hosts.config}",
            f"python={python(folder)}",
            f"chdir={remote}",
            *fields,
        ]
    )


@pytest.fixture
def suite(pytester, inner) -> Path:
    """A suite that pytest-xdist copies to each machine, with its ini file."""
    folder = pytester.mkdir("suite")
    (folder / "test_where.py").write_text(WHERE)
    return folder


def run_remotely(inner, suite: Path, base: int, *specs: str) -> Run:
    return run_suite(inner, suite, f"smtptest_port = {base}", *specs)


def run_shared(inner, suite: Path, host: str, *specs: str) -> Run:
    (suite / "test_where.py").write_text(SHARED)
    return run_suite(inner, suite, f"smtptest_shared = {host}:0", *specs)


def run_suite(inner, suite: Path, option: str, *specs: str) -> Run:
    (suite / "pytest.ini").write_text(f"[pytest]\n{option}\n")
    # pytest-rerunfailures has its workers connect to 127.0.0.1.
    off = (*USUALLY_OFF, "-p", "no:rerunfailures")
    return inner.run("--dist", "each", "--rsyncdir", str(suite), *specs, str(suite), off=off)


def test_one_machine_that_has_two_names(inner, suite, pytester, hosts, base_port):
    for name in "build-1", "build-2":
        hosts.add(name, "127.0.0.1", base_port + 5)
    with hosts.serve("127.0.0.1", base_port + 5):
        run = run_remotely(
            inner,
            suite,
            base_port,
            by_ssh(hosts, pytester.path, "build-1", "id=web"),
            by_ssh(hosts, pytester.path, "build-2"),
            "--tx=popen",
        )
    check(
        run,
        base_port,
        {"web": 2, "gw0": 0, "gw1": 1},
        {"web": " on build-1", "gw0": " on build-2"},
    )
    assert is_free(base_port + 5)


def test_one_server_for_workers_that_ssh_starts(inner, suite, pytester, hosts, base_port):
    names = "build-1", "build-2"
    for name in names:
        hosts.add(name, "127.0.0.1", base_port + 5)
    with hosts.serve("127.0.0.1", base_port + 5):
        specs = [by_ssh(hosts, pytester.path, name) for name in names]
        run = run_shared(inner, suite, "localhost", *specs, "--tx=popen//id=here")
    check_shared(run, {"gw0", "gw1", "here"}, "localhost")
    assert all(map(gone, run.noted("pid")))


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]"])
def test_workers_elsewhere_must_know_by_which_address(inner, suite, host):
    run = run_shared(inner, suite, host, "--tx=ssh=build-1")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = run.err.strip().splitlines()
    assert line.startswith(
        f"ERROR: smtptest_shared = {host}:0 does not say by which address workers on other"
    )


@pytest.fixture
def socket_servers(base_port) -> Iterator[list[str]]:
    """Two of execnet's servers, each of which becomes a worker when it is asked."""
    addresses = [f"127.0.0.1:{base_port + n}" for n in (4, 5)]
    script = [sys.executable, "-m", "execnet.script.socketserver"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(SUPPORT), "."))}
    servers = [
        subprocess.Popen([*script, address], env=environment, stdout=subprocess.DEVNULL)
        for address in addresses
    ]
    try:
        yield addresses
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=10)


def test_socket_servers(inner, suite, pytester, base_port, socket_servers):
    until(lambda: not any(is_free(base_port + n) for n in (4, 5)))
    run = run_remotely(
        inner,
        suite,
        base_port,
        *(
            f"--tx=socket={address}//chdir={pytester.path}/remote-{address}"
            for address in socket_servers
        ),
    )
    first, second = socket_servers
    check(run, base_port, {"gw0": 0, "gw1": 1}, {"gw0": f" on {first}", "gw1": f" on {second}"})


def test_one_server_for_socket_servers(inner, suite, pytester, base_port, socket_servers):
    until(lambda: not any(is_free(base_port + n) for n in (4, 5)))
    specs = [
        f"--tx=socket={address}//chdir={pytester.path}/remote-{address}"
        for address in socket_servers
    ]
    check_shared(run_shared(inner, suite, "localhost", *specs), {"gw0", "gw1"}, "localhost")


@contextlib.contextmanager
def namespace(name: str, number: int) -> Iterator[str]:
    """Make a network namespace, which is as another machine; give its address."""

    def ip(arguments: str, *, check: bool = True) -> int:
        done = subprocess.run(
            ["ip", *arguments.split()], capture_output=True, timeout=10, check=check
        )
        return done.returncode

    if shutil.which("ip", path=PATH) is None:
        missing("ip is not installed: apt-get install iproute2")
    if ip(f"netns add {name}", check=False):
        pytest.skip("this machine lets nobody have a network namespace: run the tests as root")
    # Four addresses of those that are set aside for trials (RFC 2544).
    first = int(ipaddress.ip_address("198.18.0.0")) + 4 * ((2 * os.getpid() + number) % 16_384)
    ours, theirs = (str(ipaddress.ip_address(first + n)) for n in (1, 2))
    here, there = f"{name}h", f"{name}t"
    try:
        ip(f"link add {here} type veth peer name {there} netns {name}")
        ip(f"addr add {ours}/30 dev {here}")
        ip(f"link set {here} up")
        ip(f"-n {name} addr add {theirs}/30 dev {there}")
        ip(f"-n {name} link set {there} up")
        ip(f"-n {name} link set lo up")
        ip(f"-n {name} route add default via {ours}")
        yield theirs
    finally:
        ip(f"netns delete {name}")  # and with it both ends of the link


def test_two_machines(inner, suite, pytester, hosts, base_port):
    """Each is a network namespace, with an sshd of its own."""
    names = [f"lazr{os.getpid()}{letter}" for letter in "ab"]
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(names):
            address = stack.enter_context(namespace(name, number))
            hosts.add(name, address, 2222)
            stack.enter_context(hosts.serve(address, 2222, "ip", "netns", "exec", name))
        run = run_remotely(
            inner,
            suite,
            base_port,
            *(by_ssh(hosts, pytester.path, name) for name in names),
            "--tx=popen//id=here",
        )
    check(
        run,
        base_port,
        {"gw0": 0, "gw1": 1, "here": 2},
        {"gw0": f" on {names[0]}", "gw1": f" on {names[1]}"},
    )
    assert len(set(run.noted("network"))) == 3
    assert all(map(gone, run.noted("pid")))


def test_two_machines_have_one_server(inner, suite, pytester, hosts):
    """It listens on an address of this one, which they reach, and lets them lease there."""
    names = [f"lazr{os.getpid()}{letter}" for letter in "cd"]
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(namespace(name, n)) for n, name in enumerate(names)]
        for name, address in zip(names, addresses, strict=True):
            hosts.add(name, address, 2222)
            stack.enter_context(hosts.serve(address, 2222, "ip", "netns", "exec", name))
        own = str(ipaddress.ip_address(addresses[0]) - 1)
        specs = [by_ssh(hosts, pytester.path, name) for name in names]
        run = run_shared(inner, suite, own, *specs, "--tx=popen//id=here")
    check_shared(run, {"gw0", "gw1", "here"}, own)
    assert len(set(run.noted("network"))) == 3
    assert all(map(gone, run.noted("pid")))
