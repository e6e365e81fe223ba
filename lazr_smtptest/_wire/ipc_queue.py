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

import struct
from _pickle import dumps, loads  # pickle's may be a test's
from collections import deque
from collections.abc import Callable
from io import FileIO
from os import readv, set_blocking
from threading import RLock
from typing import Any

_HEADER = struct.Struct("!?Q")

#: What one read takes at most.  Large enough that a call costs little beside
#: the copying, and a quarter of the largest pipe.
_READ_SIZE = 262_144

#: Octets from which on a pickle is not copied to stand behind its header.
_JOINED = 65_536


def pickled(value: Any) -> bytes:
    return dumps(value, -1)  # the highest protocol


class RecordReader:
    """The reading end.  It makes the descriptor non-blocking, and never closes it."""

    def __init__(self, fd: int) -> None:
        set_blocking(fd, False)
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
            count = readv(self._fd, [self._scratch])
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
                    records.append(bytes(body) if is_sealed else loads(body))
                start = end
        if start:
            del pending[:start]
        return records


class Piece:
    """Octets that wait for room, and how far writing them has got."""

    __slots__ = ("counts", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = memoryview(octets)
        #: How many octets each write took.
        self.counts: list[int] = []


#: A record that is to be written: its octets, in one piece or two.
Record = tuple[Piece, ...]


class RecordWriter:
    """The writing end: what the pipe has no room for waits here.

    Any thread may write, and so may code that interrupts a write on its own
    thread: garbage is collected at any allocation, a finalizer may log, and
    logging writes.  Records leave in the order of the calls.

    An exception of a signal handler may come up between any two steps.  So how far
    writing has got is noted by the very call that writes.

    :param fd: The pipe's descriptor; it is made non-blocking, and never closed.
    :param on_backlog: Called, on the writing thread, when something had to be
        kept back: call `flush` when the pipe has room again.
    :param lock: A reentrant lock to hold while writing, if there is one already.
    """

    def __init__(
        self, fd: int, on_backlog: Callable[[], object], lock: RLock | None = None
    ) -> None:
        set_blocking(fd, False)
        # For `write`, which fails once this is closed, whoever has the number by then.
        self._file = FileIO(fd, "w", closefd=False)
        self._on_backlog = on_backlog
        self._lock = lock or RLock()
        self._is_writing = False
        self._backlog: deque[Piece] = deque()

    @property
    def is_closed(self) -> bool:
        return self._file.closed

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)

    def write(self, value: Any) -> Record:
        """Write one value, or as much as there is room for; return what `withdraw` takes.

        What pickle raises is raised before anything is written.
        """
        return self._write(False, pickled(value))

    def write_pickle(self, octets: bytes) -> None:
        """Write what is pickled already, and what the reader is to leave so."""
        self._write(True, octets)

    def _write(self, is_sealed: bool, body: bytes) -> Record:
        header = _HEADER.pack(is_sealed, len(body))
        if len(body) < _JOINED:
            record: Record = (Piece(header + body),)
        else:  # in two, so that it is not copied again
            record = (Piece(header), Piece(body))
        with self._lock:
            is_first = not self._backlog
            self._backlog.extend(record)
            if is_first and not self._write_backlog():
                self._on_backlog()
        return record

    def flush(self) -> bool:
        """Write what was kept back; return whether there was room for all of it."""
        with self._lock:
            return self._write_backlog()

    def withdraw(self, record: Record) -> bool:
        """Take back a record, if nothing of it has been written; return whether that was so."""
        with self._lock:
            if self._is_writing or record[0].counts or record[0] not in self._backlog:
                return False
            self._backlog = deque(piece for piece in self._backlog if piece not in record)
            return True

    def close(self) -> None:
        """Write no more: nobody is left to read it."""
        self._file.close()
        self._backlog = deque()

    def disown(self, lock: RLock) -> None:
        """Be of no use in a forked child, where nobody would release the other lock."""
        self._lock = lock
        self.close()

    def _write_backlog(self) -> bool:
        if self._is_writing:  # further up this very stack, which goes on with it
            return True
        backlog = self._backlog  # of this very call: `close` may interrupt it
        has_room = True
        try:
            self._is_writing = True
            while backlog:
                piece = backlog[0]
                counts = piece.counts
                if rest := piece.octets[sum(counts) :]:
                    before = len(counts)
                    # One step: whatever comes up before it or behind it, the count is right.
                    counts.extend(filter(None, map(self._file.write, (rest,))))
                    if len(counts) == before:
                        has_room = False
                        break
                if sum(counts) == len(piece.octets):
                    backlog.popleft()
        finally:
            self._is_writing = False
        return has_room
