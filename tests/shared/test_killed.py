"""What becomes of leases, claims and files when a process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import (
    EVENT_LOOPS,
    START_METHODS,
    connected,
    gone,
    loop_name,
    send_for,
    stopped,
    until,
)
from lease_programs import lease_program

from lazr_smtptest import Lease, LeaseError, ServerDied, ServerStuck, SharedController, connect

pytestmark = pytest.mark.timeout(90)


def claims(lease: Lease, *addresses: str) -> bool:
    with contextlib.suppress(LeaseError):
        lease.claim(*addresses)
        return True
    return False


@pytest.mark.parametrize("place", [0, 1], ids=["unix", "tcp"])
@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_what_a_killed_program_had_is_free(uvloop: bool, place: int) -> None:
    with (
        SharedController(uvloop=uvloop, lease_host="127.0.0.1") as shared,
        connect(shared.address, shared.key) as own,
        lease_program(shared) as program,
        ThreadPoolExecutor() as pool,
    ):
        address = program.tell("lease.address('kim')")
        program.tell("lease.claim('kim@example.com', '*@shop.example')")
        program.tell("lease.fault('RCPT', '550 No', when='*@shop.example') and 1")
        program.tell("lease.gate('EOM') and 1")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send_for(own, "refused", ["lee@shop.example"])
        parked = pool.submit(send_for, own, "parked", [address])
        # Its content is there, so it is at the gate.
        said = "[line.text for one in lease.sessions() for line in one.dialogue][-1]"
        until(lambda: program.tell(said).endswith("octets of content"))
        program.kill()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            parked.result()  # as with reset(), what it began does not go on
        until(lambda: claims(own, "kim@example.com", "*@shop.example"))
        send_for(own, "not refused", ["lee@shop.example"])
        assert own.wait(0)["subject"] == "not refused"
        send_for(own, "late", [address])
        assert own.unclaimed[-1].nearest.endswith("a program, which is over")


CALLS: dict[str, Callable[[Lease], object]] = {
    "wait": lambda lease: lease.wait(60),
    "wait_async": lambda lease: asyncio.run(lease.wait_async(60)),
    "wait_for_each": lambda lease: lease.wait_for_each(["kim@example.com"], 60),
    "expect_none": lambda lease: lease.expect_none(60),
    "get": lambda lease: lease.queue.get(timeout=60),
    "parked": lambda lease: lease.gate("RCPT").wait_parked(timeout=60),
}


@pytest.mark.parametrize("method", START_METHODS)
def test_each_lease_learns_at_once_that_the_server_was_killed(method: str) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        shared = SharedController(start_method=method, lease_host="127.0.0.1", reset_timeout=60)
        shared.start()
        stack.callback(ended, shared)
        leases = {
            name: stack.enter_context(connect(shared.addresses[n % 2], shared.key))
            for n, name in enumerate([*CALLS, "idle"])
        }
        waiting = {name: pool.submit(call, leases[name]) for name, call in CALLS.items()}
        until(lambda: all(leases[n]._link.watcher for n in CALLS if n != "wait_async"))
        until(lambda: leases["wait_async"]._link.listeners)
        os.kill(shared.pid or 0, signal.SIGKILL)
        for name, one in waiting.items():
            with pytest.raises(ServerDied, match="has ended, and this lease with it"):
                one.result(20)
            assert not leases[name].is_running
        idle = leases["idle"]
        for call in (
            lambda: idle.claim("kim@example.com"),
            lambda: idle.fault("RCPT", "550 No"),
            idle.reset,
            idle.sessions,
            lambda: idle.wait(60),
            lambda: idle.unclaimed,
        ):
            with pytest.raises(ServerDied, match="has ended, and this lease with it"):
                call()
        with pytest.raises(LeaseError, match="cannot connect to a shared server"):
            connect(shared.addresses, shared.key)


def ended(shared: SharedController) -> None:
    folder = os.path.dirname(shared.addresses[0])
    with contextlib.suppress(ServerDied):
        shared.stop()
    assert not os.path.exists(folder)


OWNER = """
import sys, time
from lazr_smtptest import SharedController
if __name__ == "__main__":
    shared = SharedController(start_method=sys.argv[1])
    shared.start()
    print(shared.pid, shared.address, shared.key, flush=True)
    if sys.argv[2] != "exit":
        time.sleep(600)
"""


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("killed", ["owner", "server", "both", "exit"])
def test_the_folder_is_gone_whoever_is_killed(tmp_path: Path, method: str, killed: str) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    owner = subprocess.Popen(
        [sys.executable, str(script), method, killed], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout
        server, address, key = owner.stdout.readline().split()
        folder = os.path.dirname(address)
        if killed != "exit":
            lease = connect(address, key)
            assert os.path.exists(folder)
            pids = {"owner": [owner.pid], "server": [int(server)]}
            for pid in pids.get(killed) or [owner.pid, int(server)]:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(ServerDied):
                lease.wait(60)
            lease.close()
        until(lambda: not os.path.exists(folder))
        until(lambda: gone(int(server)))
    finally:
        owner.kill()
        owner.communicate()


@pytest.mark.parametrize("method", START_METHODS)
def test_a_server_that_was_killed_can_be_started_again(method: str) -> None:
    with SharedController(start_method=method) as shared:
        place, port, key = shared.address, shared.port, shared.key
        for _ in range(3):
            with connect(place, key) as lease:
                send_for(lease, "one", [lease.address("kim")])
                assert lease.wait(0)["subject"] == "one"
                os.kill(shared.pid or 0, signal.SIGKILL)
                until(lambda: not shared.is_running)
                shared.start()
                with pytest.raises(ServerDied):
                    lease.reset()
            assert (shared.address, shared.port, shared.key) == (place, port, key)


def test_a_restart_ends_all_leases(start_method: str) -> None:
    with SharedController(start_method=start_method, lease_host="127.0.0.1") as shared:
        old = connect(shared.address, shared.key)
        place = shared.addresses[0]
        address = old.address("kim")
        send_for(old, "one", [address])
        shared.restart(data_size_limit=1000)
        assert old.wait(0)["subject"] == "one"
        assert not old.is_running
        with connect(place, shared.key) as lease, connected(lease) as client:
            assert lease.label != old.label
            client.ehlo()
            assert client.esmtp_features["size"] == "1000"
            client.sendmail("", [address, lease.address("kim")], "Subject: two\r\n\r\n")
            assert lease.wait(0)["subject"] == "two"
        with connect(shared.address, shared.key) as lease:
            assert lease.pid == shared.pid


# A server that is stuck.


def test_nothing_waits_for_ever_where_the_server_is_stopped() -> None:
    """Each call ends after the seconds that it has; and all goes on when the server does."""
    with (
        SharedController() as shared,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        calls: list[Callable[[Lease], object]] = [
            lambda lease: lease.claim("kim@example.com"),
            lambda lease: lease.queue.qsize(),
            lambda lease: lease.messages,
            lambda lease: lease.wait(0.1),
            lambda lease: asyncio.run(lease.wait_async(0.1)),
            lambda lease: lease.expect_none(0.1),
            lambda lease: lease.sessions(),
            lambda lease: lease.reset(),
            lambda lease: lease.fault("RCPT", "550 No"),
        ]
        leases = [stack.enter_context(connect(shared.address, shared.key)) for _ in calls]
        with stopped(shared.pid):
            done = [pool.submit(call, one) for call, one in zip(calls, leases, strict=True)]
            for one in done:
                with pytest.raises(ServerStuck, match="did not answer|had more to send"):
                    one.result(30)
            with pytest.raises(LeaseError, match="it did not answer in time"):
                connect(shared.address, shared.key, timeout=0.5)
            began = time.monotonic()
            leases[0].close()
            assert time.monotonic() - began < 4
        for n, lease in enumerate(leases[1:]):
            lease.claim(f"{n}@example.com")
            send_for(lease, n, [f"{n}@example.com"])
            assert lease.wait(0)["subject"] == str(n)
