"""The IPC queue: pickled records over a pipe, and neither end ever waits.

This is what a `multiprocessing.Queue` is made of, a `multiprocessing.Pipe` and
pickles, without its feeder thread and its locks.  Its thread may still hold a
message that a client was told 250 for when the process is killed; and
`Connection.recv` can say whether a record has begun to arrive, but then blocks
until it is whole, so a process that is stopped half way through would stop the
other one with it.  Here, each end keeps in memory what is half read or not yet
written.  Nor does a message change threads on its way.  ``docs/design.rst`` has
figures.

A record is one octet that says whether to unpickle it at once, the length of a
pickle as eight octets, and the pickle.  A message is left pickled until a test
takes it, since a reset throws most of them away.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_HEADER = struct.Struct("!?Q")

#: What one read takes at most.  Large enough that a call costs little beside
#: the copying, and a quarter of the largest pipe.
_READ_SIZE = 262_144

#: How many pieces one write takes at most: POSIX promises 16 (_XOPEN_IOV_MAX),
#: Linux allows 1,024.
_PIECES_PER_WRITE = 16


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


class RecordReader:
    """The reading end.  It makes the descriptor non-blocking, and never closes it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._scratch = memoryview(bytearray(_READ_SIZE))
        self._pending = bytearray()

    def read(self) -> list[Any] | None:
        """Read once, without blocking.

        Return the records that are now whole, perhaps none of them: values, and
        octets where the writer sent a pickle as such.  Return None if there was
        nothing to read.  Raise EOFError when every writing end is closed.
        """
        try:
            count = os.readv(self._fd, [self._scratch])
        except BlockingIOError:
            return None
        if count == 0:
            raise EOFError
        self._pending += self._scratch[:count]
        return self._whole_records()

    def _whole_records(self) -> list[Any]:
        pending = self._pending
        records = []
        start = 0
        with memoryview(pending) as view:
            while len(pending) - start >= _HEADER.size:
                is_sealed, length = _HEADER.unpack_from(view, start)
                end = start + _HEADER.size + length
                if len(pending) < end:
                    break
                with view[start + _HEADER.size : end] as body:
                    records.append(bytes(body) if is_sealed else pickle.loads(body))
                start = end
        if start:
            del pending[:start]
        return records


class RecordWriter:
    """The writing end: what the pipe has no room for waits here.

    Any thread may write, and so may code that interrupts a write on its own
    thread: garbage is collected at any allocation, a finalizer may log, and
    logging writes.  Records leave in the order of the calls.

    :param fd: The pipe's descriptor; it is made non-blocking, and never closed.
    :param on_backlog: Called, on the writing thread, when something had to be
        kept back: call `flush` when the pipe has room again.
    """

    def __init__(self, fd: int, on_backlog: Callable[[], object]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._on_backlog = on_backlog
        self._lock = threading.RLock()  # reentrant: see above
        self._is_writing = False
        self._backlog: deque[memoryview] = deque()

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)

    def write(self, value: Any) -> tuple[memoryview, ...]:
        """Write one value, or as much as there is room for; return it for `withdraw`.

        What pickle raises is raised before anything is written.
        """
        return self._write(False, pickled(value))

    def write_pickle(self, octets: bytes) -> None:
        """Write what is pickled already, and what the reader is to leave so."""
        self._write(True, octets)

    def _write(self, is_sealed: bool, body: bytes) -> tuple[memoryview, ...]:
        # In two pieces, so that a large pickle is not copied again.
        pieces = (memoryview(_HEADER.pack(is_sealed, len(body))), memoryview(body))
        with self._lock:
            is_first = not self._backlog
            self._backlog.extend(pieces)
            if is_first and not self._write_backlog():
                self._on_backlog()
        return pieces

    def flush(self) -> bool:
        """Write what was kept back; return whether there was room for all of it."""
        with self._lock:
            return self._write_backlog()

    def withdraw(self, record: tuple[memoryview, ...]) -> bool:
        """Take back a record, if nothing of it has been written; return whether that was so."""
        with self._lock:
            # A piece of which some is written has been replaced by its rest.
            waiting = list(self._backlog)
            if not any(piece is record[0] for piece in waiting):
                return False
            self._backlog.clear()
            self._backlog.extend(p for p in waiting if not any(p is own for own in record))
            return True

    def discard(self) -> None:
        """Drop what was kept back: nobody is left to read it."""
        self._backlog.clear()

    def disown(self) -> None:
        """Be of no use in a forked child, where nobody would release the lock."""
        self._lock = threading.RLock()
        self._backlog.clear()

    def _write_backlog(self) -> bool:
        if self._is_writing:  # further up this very stack, which goes on with it
            return True
        self._is_writing = True
        try:
            return self._write_on()
        finally:
            self._is_writing = False

    def _write_on(self) -> bool:
        backlog = self._backlog
        while backlog:
            # By index: a write that interrupts this one lengthens the deque, and
            # an iterator over it would raise RuntimeError.
            pieces = [backlog[n] for n in range(min(len(backlog), _PIECES_PER_WRITE))]
            try:
                count = os.writev(self._fd, pieces)
            except BlockingIOError:
                return False
            while count:
                head = backlog[0]
                if count < len(head):
                    backlog[0] = head[count:]
                    break
                count -= len(backlog.popleft())
        return True
