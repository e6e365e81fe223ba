"""The IPC queue: records over a pipe."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazr_smtptest._wire.ipc_queue import RecordReader, RecordWriter


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
    writer = RecordWriter(sink, lambda: None)
    try:
        return b"".join(writer.write(value))
    finally:
        os.close(sink)
        os.close(source)


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
    kept, withdrawn, last = (full.write(name) for name in ("kept", "withdrawn", "last"))
    assert full.withdraw(withdrawn)
    assert not full.withdraw(withdrawn), "it is gone"
    assert everything(RecordReader(pipe[0]), full)[1:] == ["kept", "last"]
    assert not full.withdraw(kept)
    assert not full.withdraw(last)


def test_what_has_begun_to_leave_stays_whole(pipe):
    writer = RecordWriter(pipe[1], lambda: None)
    half = writer.write(b"x" * 1_000_000)
    assert writer.has_backlog
    assert not writer.withdraw(half)
    assert everything(RecordReader(pipe[0]), writer) == [b"x" * 1_000_000]
    assert not writer.has_backlog


def test_what_nobody_will_read_is_discarded(pipe, full):
    full.write("waiting")
    full.discard()
    assert not full.has_backlog
    assert full.flush()


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
