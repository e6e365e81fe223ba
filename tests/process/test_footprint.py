"""What a controller leaves in the test process, and of itself: nothing."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import queue
import resource
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from helpers import gone, refused, send_to, subjects, until

from lazr_smtptest import Controller, QueueController, QueueServer, StartError, StartTimeout


def test_no_thread_in_the_test_process(start_method):
    before = threading.active_count()
    with QueueController(start_method=start_method) as controller:
        assert threading.active_count() == before
        send_to(controller, "hi")
        assert len(list(controller)) == 1
        controller.reset()
        assert threading.active_count() == before
    assert threading.active_count() == before


def test_forking_beneath_threads_warns_of_nothing():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with QueueController(start_method="fork") as controller:
                send_to(controller, "hi")
                assert len(list(controller)) == 1
    finally:
        done.set()
        thread.join()


def _footprint(*, collect: bool = True) -> dict[str, object]:
    if collect:
        gc.collect()
    # Semaphores and shared memory, that of a fork, and of others, which is of ours.
    with open("/proc/self/maps") as maps:
        kinds = ("pym-", "/sem.", "/dev/zero", "memfd:lazr-smtptest")
        mappings = sum(any(kind in line for kind in kinds) for line in maps)
    own = f"pym-{os.getpid()}-"  # other tests that run now have theirs
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(multiprocessing.active_children()),
        "threads": threading.active_count(),
        "shared memory": [name for name in os.listdir("/dev/shm") if name.startswith(own)],
        "mappings": mappings,
    }


@pytest.mark.timeout(60)
def test_a_hundred_starts_and_stops_leak_nothing(start_method):
    controller = QueueController(start_method=start_method)
    foreign: queue.Queue = queue.Queue()
    other = Controller(QueueServer("localhost", 0, foreign), start_method=start_method)
    for each in (controller, other):  # what is made once, such as the fork server
        with each:
            send_to(each, "warm up")
    list(controller)
    before = _footprint()
    rounds = 100 if start_method == "fork" else 30
    for number in range(rounds):
        with controller:
            if number % 10 == 0:
                send_to(controller, number)
                assert subjects(controller) == [str(number)]
        if number % 10 == 0:
            with other:
                send_to(other, number)
    assert _footprint() == before


def test_memory_is_free_before_garbage_is_collected():
    """That which is shared with a server process, and its descriptors."""
    controller = QueueController(start_method="fork")
    with controller:
        pass
    before = _footprint()
    gc.disable()
    try:
        for _ in range(20):
            with controller:
                pass
        assert _footprint(collect=False) == before
    finally:
        gc.enable()


def test_start_timeout_leaves_nothing_behind():
    before = _footprint()
    controller = QueueController(start_method="spawn", start_timeout=0.001)
    with pytest.raises(StartTimeout, match="report that it serves within 0.001 seconds") as caught:
        controller.start()
    assert isinstance(caught.value, TimeoutError)
    assert gone(caught.value.pid)
    assert not controller.is_running
    assert refused(caught.value.port)
    del caught, controller
    assert _footprint()["processes"] == before["processes"]


@pytest.mark.parametrize("ending", ["", "controller.stop()", "del controller", "os._exit(0)"])
def test_exit_without_stop_is_clean(ending, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, sys
            from lazr_smtptest import QueueController
            if __name__ == "__main__":
                controller = QueueController()
                controller.start()
                print(controller.pid, controller.port, flush=True)
                {ending}
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pid, port = map(int, done.stdout.split())
    until(lambda: gone(pid), 2.0)
    assert refused(port)


def test_resource_limits_are_reported_as_they_are():
    """Out of descriptors: the error says so, and nothing is left open."""
    before = _footprint()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    controller = QueueController()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    try:
        with pytest.raises(StartError, match="RLIMIT_NOFILE") as caught:
            controller.start()
        assert caught.value.__cause__.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    del caught
    assert _footprint() == before
    with controller:
        send_to(controller, "fine now")
