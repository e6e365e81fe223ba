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
import functools
import mmap
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from io import FileIO
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext

#: The places of the shared numbers: how many messages the server process has
#: put, how many failures it has reported, how often it was reset, how many
#: log records it has sent; and, where no memory is shared, the number by which it was last
#: asked for all that it has sent so far.
COUNTED = ACCEPTED, FAILED, FORGOTTEN, LOGGED, CAUGHT_UP = 0, 1, 2, 3, 4

#: The kinds of records that are counted, beside messages.
COUNTED_KINDS = {"failed": FAILED, "forget": FORGOTTEN, "log": LOGGED}

#: The number of requests that have no answer, and of the reply that nobody asks for: that
#: the server process serves, or why it cannot.
UNASKED = 0

#: Asks the server process for its stacks.
STACK_SIGNAL = signal.SIGUSR1

#: Connections that may wait to be accepted.  Linux cuts it to somaxconn.
BACKLOG = 4096

#: Octets that a pipe holds by itself, on Linux.
_PIPE_SIZE = 65_536

#: Octets of all counters: each is one number of memoryview's format "Q".
_COUNTERS_SIZE = 8 * len(COUNTED)


class Counters:
    """The shared numbers.  They go to the server process as an argument of the process.

    That makes memory of our own, since multiprocessing's is a file in ``/dev/shm``, which a
    container, a chroot or a sandbox may lack.  A forked process has the same memory anyhow;
    one that is not has to open it by a descriptor, which is that of a file without a name.

    :param file: A file of their size; without, the memory is one that only a fork can share.
    """

    def __init__(self, file: FileIO | None = None) -> None:
        fd = -1 if file is None else file.fileno()
        self.numbers = memoryview(mmap.mmap(fd, _COUNTERS_SIZE)).cast("Q")
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        # Called while a process is started, and works only then.
        from multiprocessing.reduction import DupFd

        assert self._file is not None
        return _open_counters, (DupFd(self._file.fileno()),)

    def close(self) -> None:
        """Close the file; the memory stays for as long as the numbers are in use."""
        if self._file is not None:
            self._file.close()


def _open_counters(given: Any) -> Counters:
    with open(given.detach(), "r+b", buffering=0) as file:
        return Counters(file)


def _nameless_file() -> FileIO:
    try:
        return open(os.memfd_create("lazr-smtptest"), "r+b", buffering=0)
    except (AttributeError, OSError):  # not Linux, or a sandbox that does not allow it
        import tempfile

        return tempfile.TemporaryFile(buffering=0)


class ChildEnds(NamedTuple):
    """The server process's ends.  They go there as an argument of the process."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: Counters

    def pipes(self) -> tuple[Connection, ...]:
        return self.records, self.requests, self.lifeline, self.stacks

    def close(self) -> None:
        for pipe in self.pipes():
            pipe.close()
        self.counters.close()


@dataclass(eq=False)  # by identity, so that a WeakSet can hold it
class ParentEnds:
    """The test process's ends."""

    records: Connection
    requests: Connection
    lifeline: Connection
    stacks: Connection
    counters: memoryview

    def close(self) -> None:
        """Close them; more than once does no harm."""
        for pipe in (self.records, self.requests, self.lifeline, self.stacks):
            pipe.close()

    #: What a forked child of the test process does with its copies.
    disown = close


def open_channel(context: BaseContext) -> tuple[ParentEnds, ChildEnds]:
    """Open the pipes and the counters, in the test process; all of them or none."""
    opened: list[Connection | FileIO] = []
    try:
        for _ in range(4):
            opened += context.Pipe(duplex=False)
        records, records_in, requests, requests_in, lifeline, lifeline_in, stacks, stacks_in = (
            cast("list[Connection]", opened)
        )
        _enlarge(records_in.fileno())
        file = None
        if context.get_start_method() != "fork":
            file = _nameless_file()
            opened.append(file)
            # Written, and not just made as large: where there is no room, that is an error
            # here, and not SIGBUS when the first message is counted.
            file.write(bytes(_COUNTERS_SIZE))
        counters = Counters(file)
    except BaseException:
        for one in opened:
            one.close()
        raise
    return (
        ParentEnds(records, requests_in, lifeline_in, stacks, counters.numbers),
        ChildEnds(records_in, requests, lifeline, stacks_in, counters),
    )


def _enlarge(pipe: int) -> None:
    """Make a pipe as large as the system allows without privilege, if it does.

    What is in the pipe survives the server process.  Where the user's share
    of pipe memory is used up (pipe-user-pages-soft, see pipe(7)), the largest
    size that is still granted does.  A smaller pipe is slower and no error.
    """
    size = _largest_pipe() if sys.platform == "linux" else 0
    while size > _PIPE_SIZE:
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except OSError:  # EPERM as a rule; EBUSY, EINVAL, ENOMEM, ENOSYS in some sandboxes
            size //= 2
        else:
            return


@functools.cache
def _largest_pipe() -> int:
    try:
        with open("/proc/sys/fs/pipe-max-size") as limit:
            return int(limit.read())
    except (OSError, ValueError):  # no procfs: the size that Linux has had since 2.6.35
        return 1_048_576
