"""What a new server process lets go of, and takes on.  Server process.

A forked one is a copy of the test process.  None of this imports a module,
or writes to an inherited stream: see `_child`.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any

from lazr_smtptest._channel import ServerEnd
from lazr_smtptest._given import given_descriptors
from lazr_smtptest._process import STACK_SIGNAL
from lazr_smtptest.server import Server

__all__ = ["let_go", "raise_descriptor_limit", "take_own_signals"]


def let_go(end: ServerEnd, sockets: Iterable[socket.socket], server: Server) -> None:
    """Let go of all that the fork copied and that is not for this process.

    Descriptors are pointed at the null device and not closed: the objects
    that hold their numbers live on here, and would one day close what had
    been given those numbers since.

    :param end: The channel to the test process.
    :param sockets: What is listened on.
    :param server: The server; it keeps what it was given.
    """
    keep = {0, 1, 2, *(pipe.fileno() for pipe in end.pipes()), *(s.fileno() for s in sockets)}
    keep |= given_descriptors(server)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in _open_descriptors():
        if fd not in keep and fd != null:
            try:
                os.dup2(null, fd, inheritable=False)
            except OSError:  # the descriptor that the listing itself used
                continue
    # Fresh streams: the copied ones may have text in them that the test
    # process is going to write too, and their locks may be held for ever.
    _inherited.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
    sys.stdout = sys.__stdout__ = _open_stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open_stream(2)  # type: ignore[misc]


#: Streams of the test process.  Kept, because collecting one would write, here
#: too, what it has in its buffer.
_inherited: list[Any] = []


def _open_stream(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _open_descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return [fd for fd in range(3, min(os.sysconf("SC_OPEN_MAX"), 65_536)) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def take_own_signals(end: ServerEnd) -> None:
    """Have no signal do what the test process wanted of it, and die with it.

    :param end: The channel to the test process.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # What is ignored stays ignored over a fork, and what is not is not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Ctrl-C goes to the whole process group, but it is meant for the test.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # faulthandler writes from within a C signal handler, so it works even
    # while some C code keeps the interpreter lock.
    faulthandler.enable(end.stacks.fileno())
    faulthandler.register(STACK_SIGNAL, end.stacks.fileno(), all_threads=True, chain=False)
    # At the end of file the kernel sends SIGIO, and that kills, whatever this
    # process is stuck in.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    lifeline = end.lifeline.fileno()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # It may have ended before it was armed.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(0)


def raise_descriptor_limit() -> None:
    """Allow as many sessions as the system does; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
