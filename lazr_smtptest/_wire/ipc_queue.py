"""The IPC queue: pickled records over a pipe, and neither end ever waits.

This is what a `multiprocessing.Queue` is made of, a `multiprocessing.Pipe` and
pickles, without its feeder thread and its locks.  Its thread may still hold a
message that has its 250 already when the process is killed; and
`Connection.recv` can say whether a record has begun to arrive, but then blocks
until it is whole, so a process that is stopped half way through would stop the
other one with it.  Here, each end keeps in memory what is half read or not yet
written.  Nor does a message change threads on its way.  ``docs/design.rst`` has
figures.

A record is one octet that says whether to unpickle it at once, the length of a
pickle and that of a buffer as eight octets each, the pickle and the buffer.  A
message is left pickled until a test takes it, since a reset throws most of them
away.  The content of a large one is the buffer: it lies outside of the pickle (PEP
574), is written from where it was received, and read to where it stays.
"""

from __future__ import annotations

import struct
from _pickle import dumps, loads  # pickle's may be a test's
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO, FileIO
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from os import readv, set_blocking
from threading import RLock
from typing import Any, NamedTuple

_HEADER = struct.Struct("!?QQ")

#: What one read takes at most.  Large enough that a call costs little beside
#: the copying, and a quarter of the largest pipe.
_READ_SIZE = 262_144

#: Octets from which on anything is not copied to stand behind what comes before it.
LARGE = 65_536

#: Counts of writes that are added up anew with each write at most.
_MANY_COUNTS = 20


def pickled(value: Any) -> bytes:
    return dumps(value, -1)  # the highest protocol


class Sealed(NamedTuple):
    """A pickle that must stay one, and the buffer that belongs to it, if there is one."""

    octets: bytes
    buffer: bytes | bytearray | None = None


class _Arriving:
    """A record whose buffer is on its way; that is read to where it stays."""

    def __init__(self, octets: bytes, size: int) -> None:
        self._octets = octets
        self.left = self._size = size
        self._file = BytesIO()
        self._file.seek(size - 1)
        self._file.write(b"\0")  # now it is as large as it will be

    @contextmanager
    def room(self) -> Iterator[memoryview]:
        """Yield where the rest of it belongs.

        For the moment only: a file whose buffer is in use cannot be closed, which is an
        error that nobody hears of where garbage is collected.
        """
        with self._file.getbuffer() as whole, whole[self._size - self.left :] as room:
            yield room

    def sealed(self) -> Sealed:
        """Return the record when it is whole; the file hands over its octets uncopied."""
        return Sealed(self._octets, self._file.getvalue())


class RecordReader:
    """The reading end.  It makes the descriptor non-blocking, and never closes it.

    :param size: How many octets one read takes at most.
    """

    def __init__(self, fd: int, size: int = _READ_SIZE) -> None:
        set_blocking(fd, False)
        self._fd = fd
        # Not a bytearray, which is written to as it is made: few records need all of it.
        self._scratch = memoryview(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS))
        self._pending = bytearray()
        self._arriving: _Arriving | None = None

    def read(self) -> list[Any] | None:
        """Read once, without blocking.

        Return the records that are now whole, perhaps none of them: values, and a
        `Sealed` where the writer sent a pickle as such.  Return None if there was
        nothing to read.  Raise EOFError when every writing end is closed.
        """
        arriving = self._arriving
        try:
            if arriving is None:
                count = readv(self._fd, [self._scratch])
            else:
                with arriving.room() as room:
                    count = readv(self._fd, [room, self._scratch])
        except BlockingIOError:
            return None
        except ConnectionResetError:  # of a socket whose other end was closed with input unread
            raise EOFError from None
        if count == 0:
            raise EOFError
        records: list[Any] = []
        if arriving is not None:
            count = self._note_arrived(arriving, count, records)
        self._pending += self._scratch[:count]
        self._add_whole(records)
        return records

    def _note_arrived(self, arriving: _Arriving, count: int, records: list[Any]) -> int:
        """Note that more of a buffer has come; return how much of it lies behind the buffer."""
        behind = max(count - arriving.left, 0)
        arriving.left -= count - behind
        self._arriving = arriving if arriving.left else None
        if not arriving.left:
            records.append(arriving.sealed())
        return behind

    def _add_whole(self, records: list[Any]) -> None:
        pending = self._pending
        start = 0
        with memoryview(pending) as view:
            while self._arriving is None and len(pending) - start >= _HEADER.size:
                is_sealed, length, size = _HEADER.unpack_from(view, start)
                end = start + _HEADER.size + length
                if len(pending) < end:
                    break
                with view[start + _HEADER.size : end] as body:
                    if not is_sealed:
                        records.append(loads(body))
                    elif not size:
                        records.append(Sealed(bytes(body)))
                    else:
                        arriving = _Arriving(bytes(body), size)
                        with view[end : end + size] as begun, arriving.room() as room:
                            room[: len(begun)] = begun
                            count = len(begun)
                        end += count
                        self._note_arrived(arriving, count, records)
                start = end
        if start:
            del pending[:start]


class Piece:
    """Octets that wait for room, and how far writing them has got."""

    __slots__ = ("counts", "octets")

    def __init__(self, octets: bytes | bytearray) -> None:
        self.octets = memoryview(octets)
        #: How many octets each write took; the first may be the sum of many.
        self.counts: list[int] = []


#: A record that waits to be written: its octets, in one piece or more.
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
        kept back: call `flush` when the pipe has room again.  Or look at `has_backlog`.
    :param lock: A reentrant lock to hold while writing, if there is one already.
    """

    def __init__(
        self, fd: int, on_backlog: Callable[[], object] | None = None, lock: RLock | None = None
    ) -> None:
        set_blocking(fd, False)
        # For `write`, which fails once this is closed, even if something has reused the number.
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

    def count_waiting(self) -> int:
        """Count the octets that wait for room."""
        with self._lock:
            return sum(len(piece.octets) - sum(piece.counts) for piece in self._backlog)

    def write(self, value: Any) -> Record:
        """Write one value, or as much as there is room for; return what `withdraw` takes.

        What pickle raises is raised before anything is written.
        """
        return self._write(False, Sealed(pickled(value)))

    def write_sealed(self, sealed: Sealed) -> None:
        """Write what is pickled already, and what the reader is to leave so."""
        self._write(True, sealed)

    def _write(self, is_sealed: bool, sealed: Sealed) -> Record:
        body, buffer = sealed
        header = _HEADER.pack(is_sealed, len(body), len(buffer or b""))
        # What is large is not copied again.
        pieces = [header + body] if len(body) < LARGE else [header, body]
        record: Record = tuple(map(Piece, [*pieces, buffer] if buffer else pieces))
        with self._lock:
            is_first = not self._backlog
            self._backlog.extend(record)
            if is_first and not self._write_backlog() and self._on_backlog is not None:
                self._on_backlog()
        return record

    def flush(self) -> bool:
        """Write what was kept back; return whether there was room for all of it."""
        with self._lock:
            return self._write_backlog()

    def withdraw(self, record: Record) -> bool:
        """Withdraw a record, if nothing of it is written yet; return whether that was so."""
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
                if len(counts) > _MANY_COUNTS:  # a pipe may have room for 4 kB only
                    counts[:] = [sum(counts)]
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
