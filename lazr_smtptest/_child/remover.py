"""Removes the files of UNIX sockets when its server process is gone, however that went.

The server process cannot: where it is killed, nothing of it runs any more, and where the
test process is, the kernel kills it at once (see `_child.main`).  So a child of it waits
for the end of both.  It has no part in anything else: it imports nothing, and holds no
descriptor but the two that it waits on.

Server process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from posix import _exit, fork  # those of `os` may be a debugger's, coverage.py's or gevent's
from typing import NoReturn

from lazr_smtptest._child.inherited import open_descriptors
from lazr_smtptest._wire.endpoint import SocketFile


@contextlib.contextmanager
def remover(files: Sequence[SocketFile], lifeline: Connection) -> Iterator[None]:
    """Start a child that removes files when this is left, or no longer can be."""
    reader, writer = os.pipe()
    ready, starting = os.pipe()
    # What others want done in a child need not be done in this one.  gevent's fails, as its
    # patches have been undone here, and Python would print that.
    report, sys.unraisablehook = sys.unraisablehook, _no_report
    # Python 3.12 and later warn of threads, which a program that was spawned may have begun.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = fork()
    if pid == 0:
        _run(files, starting, lifeline.fileno(), reader)
    sys.unraisablehook = report
    for fd in reader, starting:
        os.close(fd)
    # Until it has a session of its own, and nothing of ours.
    os.read(ready, 1)
    os.close(ready)
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError, ChildProcessError):  # somebody else ended it
            os.write(writer, b"!")  # since a handler's children may hold this end, too
            os.waitpid(pid, 0)


def _no_report(_unraisable: object) -> None:
    pass


def _run(files: Sequence[SocketFile], starting: int, *ends: int) -> NoReturn:
    """Wait for either to have something to read, or to end, and remove the files."""
    try:
        # Neither Ctrl-C nor what is sent to the test's process group is for this.
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for fd in {*open_descriptors()} - {*ends, starting}:
            with contextlib.suppress(OSError):  # the one that the listing itself used
                os.close(fd)
        poll = select.poll()
        for fd in ends:
            poll.register(fd, select.POLLIN)
        os.close(starting)
        poll.poll()
        for file in files:
            file.remove()
    finally:
        _exit(0)
