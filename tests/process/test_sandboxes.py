"""Where the system does not offer all that it might: shared memory, folders, descriptors."""

from __future__ import annotations

import errno
import os
import re
import sys
import textwrap

import pytest
from sandbox import NUMBERS, run_in_mounts

#: Where ``/dev`` has no ``shm`` in it; it is made of what this machine has.
WITHOUT_SHM = """
dev=$(mktemp -d)
mount -t tmpfs none $dev
for name in null urandom; do touch $dev/$name; mount --bind /dev/$name $dev/$name; done
ln -s /proc/self/fd $dev/fd
mount --rbind $dev /dev
"""

#: What may be wrong with ``/dev/shm``.
SHM = {
    "missing": WITHOUT_SHM,
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
    "out of inodes": "mount -t tmpfs -o nr_inodes=1 none /dev/shm",
    "out of room": "mount -t tmpfs -o size=4k none /dev/shm; cat /bin/sh 2>&- >/dev/shm/x || true",
    "somebody else's": "mount -t tmpfs -o mode=555 none /dev/shm",
}

#: All that a test does with a server, by each way to deliver.
LIFE = """
import queue
from helpers import Rewriting, send_to, subjects
from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer
def live(method):
    foreign = queue.Queue()
    for server, inbox in (
        (QueueServer("localhost", 0, inbox := MessageQueue()), inbox),
        (QueueServer("localhost", 0, foreign), foreign),
        (Rewriting("localhost", 0, inbox := MessageQueue()), inbox),
    ):
        with Controller(server, start_method=method) as controller:
            send_to(controller, "reset away")
            controller.reset()
            send_to(controller, "one", "two")
            assert subjects([inbox.get(timeout=5), inbox.get(timeout=5)]) == ["one", "two"]
            controller.sessions()
        assert not controller.is_running
"""


def run_life(mount: str, method: str, before: str = "") -> str:
    """Live it in other mounts, and without the privilege to write where one may not."""
    script = (
        f"{before}\n{LIFE}\nif __name__ == '__main__':\n    live({method!r})\n    print('well')"
    )
    done = run_in_mounts(
        mount,
        *("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"),
        *(sys.executable, "-W", "error", "-c", script),
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("state", SHM)
def test_no_shared_memory_is_needed(state):
    assert run_life(SHM[state], "fork") == "well\n"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("state", ["missing", "somebody else's"])
def test_no_shared_memory_is_needed_without_a_fork(state, method):
    assert run_life(SHM[state], method) == "well\n"


@pytest.mark.parametrize("state", SHM)
def test_this_shared_memory_cannot_be_used(state):
    """Or the test above would show nothing."""
    assert "Error" in run_life(
        SHM[state], "fork", "import multiprocessing\nmultiprocessing.Lock()"
    )


def test_no_shared_memory_and_no_file_in_memory_either(start_method):
    """A temporary file is what is left to processes that are not forked."""
    if not NUMBERS["memfd_create"]:
        pytest.skip("sandbox.NUMBERS lacks memfd_create(2) on this machine")
    refusal = f"from sandbox import refuse\nrefuse('memfd_create', {errno.ENOSYS})"
    assert run_life(WITHOUT_SHM, start_method, refusal) == "well\n"


#: Where `tempfile` may write nowhere.
WITHOUT_TMP = """
for folder in /tmp /var/tmp; do
  mount --bind $folder $folder
  mount -o remount,ro,bind $folder
done
cd /proc
export TMPDIR=/proc
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_folder_for_temporary_files(method):
    assert run_life(WITHOUT_TMP + SHM["read-only"], method) == "well\n"


def test_the_fork_server_needs_a_folder_for_temporary_files():
    said = run_life(WITHOUT_TMP, "forkserver")
    assert re.search("StartError: no process can be started.*No usable temporary directory", said)


def test_a_certificate_needs_a_folder_for_temporary_files():
    script = """
        from lazr_smtptest import QueueController
        try:
            QueueController(tls="starttls").start()
        except OSError as error:
            print(error)
    """
    done = run_in_mounts(WITHOUT_TMP, sys.executable, "-c", textwrap.dedent(script))
    assert "set TMPDIR" in done.stdout
