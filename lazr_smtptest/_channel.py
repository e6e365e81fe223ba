"""What joins the two processes.  It is made in the test process.

Four pipes:

``records``
    From the server process: messages, replies to requests, log records and
    failures, as frames, in the order in which they came about.
``requests``
    To the server process: reset, stop, acknowledgements.
``lifeline``
    To the server process, and nothing is ever written to it.  The test
    process alone holds its writing end, so its end of file says that the test
    process is gone, however it went.
``stacks``
    From the server process: what `faulthandler` writes about a process that
    can no longer speak for itself.

Beside them stand numbers in shared memory, which only the server process
writes: how many messages it has put on ``records``, how many failures, how many
log records, and how often it said that all before is to be forgotten.  It
counts before it answers the client.  So a test process that has seen the
answer, and has read less than was counted, knows that the rest is on its way,
and one that has read as much knows that there is no more.

A `multiprocessing.Queue` is not used for the records.  Its reader cannot give
up half way through a record, so a stopped server process would stop the test
process too.  Its writer is a thread: a message could be accepted and still be
lost with the process, and each would cost a change of threads.
"""

from __future__ import annotations

import fcntl
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ctypes import Array, c_uint64
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext

__all__ = [
    "ACCEPTED",
    "COUNTED",
    "FAILED",
    "FORGET",
    "FORGOTTEN",
    "LOGGED",
    "Channel",
    "ServerEnd",
    "open_channel",
]

#: The places of the shared numbers: how many messages the server process has
#: put, how many failures it has reported, how often it was reset, and how many
#: log records it has sent.
COUNTED = ACCEPTED, FAILED, FORGOTTEN, LOGGED = 0, 1, 2, 3

#: Stands for a message where everything before it is to be forgotten, for a
#: reader that has passed some of it on.
FORGET = "forget"


class ServerEnd(NamedTuple):
    """The server process's ends.  It goes there as an argument of the process."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Array[c_uint64]

    def pipes(self) -> tuple[Connection, ...]:
        """Give the pipes among the ends."""
        return self.records, self.requests, self.lifeline, self.stacks

    def close(self) -> None:
        """Close this process's copies."""
        for pipe in self.pipes():
            pipe.close()


class Channel(NamedTuple):
    """The test process's ends of the pipes, and the ones to hand over."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Array[c_uint64]
    theirs: ServerEnd


def open_channel(context: BaseContext) -> Channel:
    """Make a channel, in the test process.

    :param context: The multiprocessing context of the process to come.
    :return: Both ends.
    :raises OSError: No descriptor or no memory was left; nothing stays open.
    """
    from ctypes import c_uint64

    with ExitStack() as stack:
        pipes = []
        for _ in range(4):
            pipe = context.Pipe(duplex=False)
            for end in pipe:
                stack.callback(end.close)
            pipes.append(pipe)
        records, requests, lifeline, stacks = pipes
        _enlarge(records[1].fileno())
        counters = context.RawArray(c_uint64, len(COUNTED))
        theirs = ServerEnd(records[1], requests[0], lifeline[0], stacks[1], counters)
        stack.pop_all()
    return Channel(records[0], requests[1], lifeline[1], stacks[0], counters, theirs)


def _enlarge(pipe: int) -> None:
    """Make a pipe as large as the system allows without privilege.

    What is in the pipe survives the server process.  Where the user's share
    of pipe memory is used up (pipe-user-pages-soft, see pipe(7)), the largest
    size that is still granted does.
    """
    if sys.platform != "linux":
        return
    try:
        with open("/proc/sys/fs/pipe-max-size") as limit:
            size = int(limit.read())
    except OSError:  # no procfs: the size that Linux has shipped since 2.6.35
        size = 1_048_576
    while size > 65_536:  # what a pipe has by itself
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except PermissionError:
            size //= 2
        else:
            return
