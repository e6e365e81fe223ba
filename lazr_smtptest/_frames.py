"""Pickled objects over a pipe, where neither end ever has to wait.

Both processes.  `multiprocessing.Connection` can say whether a message has
begun to arrive, but reading it then blocks until it is whole, and writing it
blocks until there is room.  A process that is stopped half way through would
take the other down with it.  These two ends keep what is half read or not yet
written in memory instead.

A frame is one octet that says whether it is to be unpickled at once, the length
of a pickle as eight octets, and the pickle.  A message is not unpickled until
somebody takes it: a reset throws most of them away.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

__all__ = ["FrameReader", "FrameWriter", "encode", "pickled"]

_HEADER = struct.Struct("!?Q")

#: What one read takes at most.  Large enough that a call costs little beside
#: the copying, and a quarter of the largest pipe.
_READ_SIZE = 262_144

#: How many headers and pickles one write takes at most; POSIX promises 16
#: (_XOPEN_IOV_MAX), Linux allows 1,024.
_PARTS_PER_WRITE = 16


def pickled(value: Any) -> bytes:
    """Pickle something, in the way of all frames.

    :param value: Anything picklable.
    :return: The pickle.
    """
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def encode(value: Any, *, sealed: bool = False) -> tuple[bytes, bytes]:
    """Make a frame, in two parts so that a large pickle is not copied again.

    :param value: Anything picklable; if sealed, the octets themselves.
    :param sealed: Whether the reader is to give the octets as they are.
    :return: The header and the body.
    """
    body = value if sealed else pickled(value)
    return _HEADER.pack(sealed, len(body)), body


class FrameReader:
    """The reading end.

    :param fd: A pipe's descriptor; it is made non-blocking, and stays its
        owner's to close.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._scratch = memoryview(bytearray(_READ_SIZE))
        self._pending = bytearray()

    def read(self) -> list[Any] | None:
        """Read once, without blocking.

        :return: The objects that are now whole, perhaps none of them, and
            octets for each that is sealed; None if there was nothing to read.
        :raises EOFError: Every writing end is closed.
        """
        try:
            count = os.readv(self._fd, [self._scratch])
        except BlockingIOError:
            return None
        if count == 0:
            raise EOFError
        self._pending += self._scratch[:count]
        return self._whole_frames()

    def _whole_frames(self) -> list[Any]:
        pending = self._pending
        frames = []
        start = 0
        with memoryview(pending) as view:
            while len(pending) - start >= _HEADER.size:
                sealed, length = _HEADER.unpack_from(view, start)
                end = start + _HEADER.size + length
                if len(pending) < end:
                    break
                with view[start + _HEADER.size : end] as body:
                    frames.append(bytes(body) if sealed else pickle.loads(body))
                start = end
        if start:
            del pending[:start]
        return frames


class FrameWriter:
    """The writing end: what the pipe has no room for waits here.

    Any thread may write.  Frames leave in the order in which `write` was
    called.

    :param fd: A pipe's descriptor; it is made non-blocking, and stays its
        owner's to close.
    :param on_backlog: Called, on the writing thread, when something had to be
        kept back: call `flush` when the pipe has room again.
    """

    def __init__(self, fd: int, on_backlog: Callable[[], object]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._on_backlog = on_backlog
        # Reentrant: collecting garbage in here may log, and logging writes.
        self._lock = threading.RLock()
        self._writing = False
        self._backlog: deque[memoryview] = deque()

    def write(self, value: Any, *, sealed: bool = False) -> None:
        """Write one object, or as much of it as there is room for.

        :param value: See `encode`.
        :param sealed: See `encode`.
        :raises Exception: Whatever pickle raises; nothing is written then.
        :raises BrokenPipeError: The reading end is closed.
        """
        header, body = encode(value, sealed=sealed)
        parts = (memoryview(header), memoryview(body))
        with self._lock:
            idle = not self._backlog
            self._backlog.extend(parts)
            if idle and not self._write_backlog():
                self._on_backlog()

    def flush(self) -> bool:
        """Write what was kept back, as far as there is room.

        :return: Whether all of it is written.
        :raises BrokenPipeError: The reading end is closed.
        """
        with self._lock:
            return self._write_backlog()

    def _write_backlog(self) -> bool:
        if self._writing:  # further up this very stack, which goes on with it
            return True
        self._writing = True
        try:
            return self._write_on()
        finally:
            self._writing = False

    def _write_on(self) -> bool:
        backlog = self._backlog
        while backlog:
            try:
                count = os.writev(self._fd, list(islice(backlog, _PARTS_PER_WRITE)))
            except BlockingIOError:
                return False
            while count:
                head = backlog[0]
                if count < len(head):
                    backlog[0] = head[count:]
                    break
                count -= len(backlog.popleft())
        return True
