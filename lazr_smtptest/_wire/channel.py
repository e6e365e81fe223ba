"""What joins the two processes: four pipes and some counters, made in the test process.

``records``   from the server process: messages, replies, failures, log records
``requests``  to the server process: reset, stop, faults, acknowledgements
``lifeline``  to the server process, and nothing is ever written to it: the test process
              alone holds its writing end, so its end of file says that that has gone
``stacks``    from the server process: what `faulthandler` writes

The counters are in shared memory, and only the server process writes them.  It counts a
message before it answers the client.  So a test process that has seen the answer, and
has read less than was counted, knows that the rest is on its way; and one that has read
as much knows that there is no more.
"""

from __future__ import annotations

import fcntl
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ctypes import Array, c_uint64
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext

#: The places of the shared numbers: how many messages the server process has
#: put, how many failures it has reported, how often it was reset, and how many
#: log records it has sent.
COUNTED = ACCEPTED, FAILED, FORGOTTEN, LOGGED = 0, 1, 2, 3

#: The number of requests that have no answer, and of the reply that nobody asks for: that
#: the server process serves, or why it cannot.
UNASKED = 0

#: Asks the server process for its stacks.
STACK_SIGNAL = signal.SIGUSR1

#: Connections that may wait to be accepted.  Linux cuts it to somaxconn.
BACKLOG = 4096

#: Octets that a pipe holds by itself, on Linux.
_PIPE_SIZE = 65_536


class ChildEnds(NamedTuple):
    """The server process's ends.  They go there as an argument of the process."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Array[c_uint64]

    def pipes(self) -> tuple[Connection, ...]:
        return self.records, self.requests, self.lifeline, self.stacks

    def close(self) -> None:
        for pipe in self.pipes():
            pipe.close()


@dataclass(frozen=True, eq=False)  # by identity, so that a WeakSet can hold it
class ParentEnds:
    """The test process's ends."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Array[c_uint64]

    def close(self) -> None:
        """Close them; more than once does no harm."""
        for pipe in (self.records, self.requests, self.lifeline, self.stacks):
            pipe.close()

    #: What a forked child of the test process does with its copies.
    disown = close


def open_channel(context: BaseContext) -> tuple[ParentEnds, ChildEnds]:
    """Open the pipes and the counters, in the test process; all of them or none."""
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
        stack.pop_all()
    return (
        ParentEnds(records[0], requests[1], lifeline[1], stacks[0], counters),
        ChildEnds(records[1], requests[0], lifeline[0], stacks[1], counters),
    )


def _enlarge(pipe: int) -> None:
    """Make a pipe as large as the system allows without privilege, if it does.

    What is in the pipe survives the server process.  Where the user's share
    of pipe memory is used up (pipe-user-pages-soft, see pipe(7)), the largest
    size that is still granted does.  A smaller pipe is slower and no error.
    """
    if sys.platform != "linux":
        return
    try:
        with open("/proc/sys/fs/pipe-max-size") as limit:
            size = int(limit.read())
    except (OSError, ValueError):  # no procfs: the size that Linux has had since 2.6.35
        size = 1_048_576
    while size > _PIPE_SIZE:
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except OSError:  # EPERM as a rule; EBUSY, EINVAL, ENOMEM, ENOSYS in some sandboxes
            size //= 2
        else:
            return
