"""Frames over a pipe."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazr_smtptest._frames import FrameReader, FrameWriter, encode


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # the test closed it
            os.close(end)


def test_there_and_back(pipe):
    reader = FrameReader(pipe[0])
    writer = FrameWriter(pipe[1], pytest.fail)
    assert reader.read() is None
    writer.write("one")
    writer.write((2, b"two"))
    assert reader.read() == ["one", (2, b"two")]
    assert reader.read() is None


def test_what_does_not_fit_is_kept_in_order(pipe):
    backlogs = []
    reader = FrameReader(pipe[0])
    writer = FrameWriter(pipe[1], lambda: backlogs.append(1))
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


def test_half_a_frame_is_nothing_yet(pipe):
    reader = FrameReader(pipe[0])
    frame = b"".join(encode("whole"))
    for octet in range(len(frame) - 1):
        os.write(pipe[1], frame[octet : octet + 1])
        assert reader.read() == []
    os.write(pipe[1], frame[-1:])
    assert reader.read() == ["whole"]


def test_ends(pipe):
    reader = FrameReader(pipe[0])
    writer = FrameWriter(pipe[1], pytest.fail)
    writer.write("last words")
    os.close(pipe[1])
    assert reader.read() == ["last words"]
    with pytest.raises(EOFError):
        reader.read()


def test_writing_to_nobody(pipe):
    writer = FrameWriter(pipe[1], pytest.fail)
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        writer.write("hello?")


def test_what_cannot_be_pickled_writes_nothing(pipe):
    reader = FrameReader(pipe[0])
    writer = FrameWriter(pipe[1], pytest.fail)
    with pytest.raises(TypeError):
        writer.write(threading.Lock())
    writer.write("fine")
    assert reader.read() == ["fine"]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200_000), max_size=12), st.integers(1, 70_000))
def test_any_values_in_any_pieces(values, piece):
    """However the pipe cuts it, the same comes out."""
    source, sink = os.pipe()
    try:
        reader = FrameReader(source)
        stream = b"".join(b"".join(encode(value)) for value in values)
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
