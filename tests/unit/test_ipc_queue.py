"""The IPC queue: records over a pipe."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import run_python

from lazr_smtptest._wire.ipc_queue import RecordReader, RecordWriter, Sealed


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # the test closed it
            os.close(end)


def octets_of(value: object) -> bytes:
    """Return a record as it goes through a pipe."""
    source, sink = os.pipe()
    with open(source, "rb", 0) as reading, open(sink, "wb", 0):
        writer = RecordWriter(sink, lambda: None)
        record = writer.write(value)
        while not writer.flush():
            reading.read(1_000_000)
        return b"".join(piece.octets for piece in record)


def test_there_and_back(pipe):
    reader = RecordReader(pipe[0])
    writer = RecordWriter(pipe[1], pytest.fail)
    assert reader.read() is None
    writer.write("one")
    writer.write((2, b"two"))
    assert reader.read() == ["one", (2, b"two")]
    assert reader.read() is None


def test_what_does_not_fit_is_kept_in_order(pipe):
    backlogs = []
    reader = RecordReader(pipe[0])
    writer = RecordWriter(pipe[1], lambda: backlogs.append(1))
    sent = [bytes([n]) * 100_000 for n in range(20)]
    for value in sent:
        writer.write(value)
    assert backlogs == [1], "told once"
    received = []
    while not writer.flush():
        received += reader.read() or []
    while (values := reader.read()) is not None:
        received += values
    assert received == sent
    writer.write("again")
    assert reader.read() == ["again"]


def test_half_a_record_is_nothing_yet(pipe):
    reader = RecordReader(pipe[0])
    record = octets_of("whole")
    for octet in range(len(record) - 1):
        os.write(pipe[1], record[octet : octet + 1])
        assert reader.read() == []
    os.write(pipe[1], record[-1:])
    assert reader.read() == ["whole"]


def test_a_large_record_in_many_writes_takes_linear_time(pipe):
    reader = RecordReader(pipe[0])
    writer = RecordWriter(pipe[1], lambda: None)
    value = os.urandom(20_000_000)
    [*_, piece] = writer.write(value)
    received = []
    while not writer.flush():
        received += reader.read() or []
        assert len(piece.counts) < 25, "each write looks at all of them"
    while not received:
        received += reader.read()
    assert received == [value]


def test_half_a_buffer_is_garbage_like_anything_else():
    """A server process may be killed in the midst of it.  Python's development mode would tell."""
    script = """
        import gc, os
        from lazr_smtptest._wire.ipc_queue import RecordReader, RecordWriter, Sealed

        source, sink = os.pipe()
        reader = RecordReader(source)
        reader.cycle = reader
        writer = RecordWriter(sink, lambda: None)
        writer.write_sealed(Sealed(b"pickle", b"x" * 5_000_000))
        while reader.read() is not None:
            pass
        assert not writer.flush() and reader.read() == []
        del reader
        gc.collect()
        """
    ran = run_python(script, PYTHONDEVMODE="1")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("size", [1, 7, 70_000, 300_000])
@pytest.mark.parametrize("piece", [1000, 1, 65_536, 10_000_000])
def test_a_buffer_behind_a_pickle(size, piece):
    """It is the same in whatever pieces it comes, and so is what comes behind it."""
    content = os.urandom(size)
    source, sink = os.pipe()
    with open(source, "rb", 0) as reading, open(sink, "wb", 0) as writing:
        octets = b""
        writer = RecordWriter(sink, lambda: None)
        for write in (
            lambda: writer.write("before"),
            lambda: writer.write_sealed(Sealed(b"pickle", bytearray(content))),
            lambda: writer.write_sealed(Sealed(b"p" * 70_000, content)),
            lambda: writer.write_sealed(Sealed(b"alone")),
            lambda: writer.write("after"),
        ):
            write()
            while not writer.flush():
                octets += reading.read(1_000_000)
        octets += reading.read(1_000_000)
        reader = RecordReader(source)
        received = []
        # Octet by octet, where something ends; in pieces, where nothing does.
        position = 0
        while position < len(octets):
            step = piece if piece > 1 or position % 65_536 > 100 else 1
            step = max(step, 997) if position % 65_536 > 100 else step
            writing.write(octets[position : position + min(step, 65_536)])
            position += min(step, 65_536)
            while (records := reader.read()) is not None:
                received += records
        assert received == [
            "before",
            Sealed(b"pickle", content),
            Sealed(b"p" * 70_000, content),
            Sealed(b"alone"),
            "after",
        ]
        assert type(received[1].buffer) is bytes


def test_a_buffer_is_not_copied_when_it_is_whole(pipe):
    import tracemalloc

    content = bytes(10_000_000)
    writer, reader = RecordWriter(pipe[1], lambda: None), RecordReader(pipe[0])
    received = []
    tracemalloc.start()
    try:
        writer.write_sealed(Sealed(b"", content))
        while not received:
            received += reader.read() or []
            writer.flush()
        assert received[0].buffer == content
        assert tracemalloc.get_traced_memory()[1] < 1.2 * len(content)
    finally:
        tracemalloc.stop()


def test_ends(pipe):
    reader = RecordReader(pipe[0])
    writer = RecordWriter(pipe[1], pytest.fail)
    writer.write("last words")
    os.close(pipe[1])
    assert reader.read() == ["last words"]
    with pytest.raises(EOFError):
        reader.read()


def test_writing_to_nobody(pipe):
    writer = RecordWriter(pipe[1], pytest.fail)
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        writer.write("hello?")


def test_what_cannot_be_pickled_writes_nothing(pipe):
    reader = RecordReader(pipe[0])
    writer = RecordWriter(pipe[1], pytest.fail)
    with pytest.raises(TypeError):
        writer.write(threading.Lock())
    writer.write("fine")
    assert reader.read() == ["fine"]


@pytest.fixture
def full(pipe) -> RecordWriter:
    """A writer whose pipe has room for nothing more, after half a record."""
    writer = RecordWriter(pipe[1], lambda: None)
    writer.write(b"x" * 1_000_000)
    return writer


def everything(reader: RecordReader, writer: RecordWriter) -> list[object]:
    received = []
    while not writer.flush():
        received += reader.read() or []
    while (records := reader.read()) is not None:
        received += records
    return received


def test_what_has_not_left_can_be_withdrawn(pipe, full):
    kept, withdrawn, _ = (full.write(name) for name in ("kept", "withdrawn", "last"))
    assert full.withdraw(withdrawn)
    assert everything(RecordReader(pipe[0]), full)[1:] == ["kept", "last"]
    assert not full.withdraw(kept)


def test_what_has_begun_to_leave_stays_whole(pipe):
    writer = RecordWriter(pipe[1], lambda: None)
    half = writer.write(b"x" * 1_000_000)
    assert writer.has_backlog
    assert not writer.withdraw(half)
    assert everything(RecordReader(pipe[0]), writer) == [b"x" * 1_000_000]
    assert not writer.has_backlog


def test_a_writer_that_is_closed_writes_nothing(pipe, full):
    """Whoever has the descriptor's number by then."""
    full.write("waiting")
    full.close()
    assert not full.has_backlog
    assert full.flush()
    with pytest.raises(ValueError, match="closed file"):
        full.write("more")


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 100))
def test_whatever_interrupts_a_write_repeats_nothing_and_loses_nothing(sizes, steps):
    """As the exception of a signal handler does, which comes up between any two steps."""
    source, sink = os.pipe()
    left = steps
    writes = {RecordWriter._write.__code__, RecordWriter._write_backlog.__code__}

    def interrupt(frame, event, argument):
        nonlocal left
        if frame.f_code not in writes:
            return None
        # There is no step in this line at which Python runs signal handlers.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        left -= line.strip() != "self._is_writing = False"
        if left == 0:
            raise KeyboardInterrupt
        return interrupt

    sent = []
    writer = RecordWriter(sink, lambda: None)
    try:
        before = sys.gettrace()
        for number, size in enumerate(sizes):
            value = (number, b"x" * size * 1000)
            with contextlib.suppress(KeyboardInterrupt):
                sys.settrace(interrupt)
                try:
                    writer.write(value)
                finally:
                    sys.settrace(before)
            sent.append(value)
        received = everything(RecordReader(source), writer)
        interrupted = [value for value in sent if value not in received]
        assert len(interrupted) <= 1
        assert received == [value for value in sent if value not in interrupted]
    finally:
        os.close(source)
        os.close(sink)


class Interrupting(bytes):
    """Writes a record of its own while it is written, as a finalizer that logs does."""

    writer: RecordWriter

    def __reduce__(self):
        self.writer.write("in between")
        return (bytes, (bytes(self),))


def test_a_write_that_interrupts_another(pipe):
    writer = Interrupting.writer = RecordWriter(pipe[1], lambda: None)
    for _ in range(3):
        writer.write(Interrupting(b"x" * 100_000))
    assert everything(RecordReader(pipe[0]), writer) == ["in between", b"x" * 100_000] * 3


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200_000), max_size=12), st.integers(1, 70_000))
def test_any_values_in_any_pieces(values, piece):
    """However the pipe cuts it, the same comes out."""
    source, sink = os.pipe()
    try:
        reader = RecordReader(source)
        stream = b"".join(map(octets_of, values))
        received = []
        for start in range(0, len(stream), piece):
            os.write(sink, stream[start : start + piece][:65_536])
            rest = stream[start : start + piece][65_536:]
            received += reader.read() or []
            if rest:
                os.write(sink, rest)
                received += reader.read() or []
        assert received == values
    finally:
        os.close(source)
        os.close(sink)
