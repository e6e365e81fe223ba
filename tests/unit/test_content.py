"""DataReader reads as line by line, and ChunkReader as one by one, however content comes."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import tries
from raw_client import arriving, stuff, wire

from lazr_smtptest import Server
from lazr_smtptest._smtp.content import (
    Chunk,
    ChunkReader,
    DataReader,
    InterruptedReader,
    parse_chunk,
)
from lazr_smtptest._wire.rules import make_rule

LINE_LIMIT = 1001

LINE = re.compile(rb"[^\n]*\n")

some = tries(150)
many = tries(400)


def reference(octets: bytes, size_limit: int | None, line_limit: int) -> tuple[object, bytes]:
    """Read content line by line, the simplest way there is.

    :return: The content, or the code of its refusal, or None where it has not
        ended; and what lies behind its end.
    """
    lines = []
    while True:
        text, line_end, octets = octets.partition(b"\r\n")
        if not line_end:
            return None, b""
        if text == b".":
            break
        lines.append(text + line_end)
    if size_limit is not None and sum(map(len, lines)) > size_limit:
        return 552, octets
    # A bare line feed ends no content, but for this it ends a line.
    if any(
        len(piece) > line_limit for line in lines for piece in re.findall(rb".*?\n", line, re.S)
    ):
        return 500, octets
    content = b"".join(line[line.startswith(b".") :] for line in lines)
    if len(lines) == 1 and content.count(b"\n") > 1:  # LF alone ends the others
        ends = re.findall(rb".*?(?:\n|\Z)", content, re.S)
        if all(line.startswith(b"..") for line in ends[1:] if line.startswith(b".")):
            content = b"".join([ends[0], *(line[line.startswith(b".") :] for line in ends[1:])])
    return content, octets


def taken(content: DataReader | ChunkReader) -> object:
    try:
        return content.take()
    except ValueError as refused:
        return int(str(refused)[:3])


# Short lines and few octets, so that the limits are reached and the pieces
# that matter meet.
fragments = st.one_of(
    st.sampled_from(
        [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", b".\r\n", b"\n.\n", b"\0", b"x" * 9]
    ),
    st.binary(max_size=12),
)
streams = st.lists(fragments, max_size=20).map(b"".join)


@many
@given(
    streams,
    st.booleans(),
    st.none() | st.integers(1, 120),
    st.integers(3, 40),
    st.lists(st.integers(0, 200), max_size=12),
)
@example(b".\r\n.\r\n", False, None, 3, [])
@example(b"\r\n.\r\nQUIT\r\n", False, 1, 3, [1, 2, 3, 4])
@example(b"..a\n..b\n.c\n..\n.\r.\n", True, None, 9, [])
@example(b"...a\n..b\n...\n..", True, None, 9, [])
@example(b"a\n..b\nc\r\nd\n..e", True, None, 9, [])
def test_content_is_read_as_by_lines(
    octets: bytes, end: bool, size_limit: int | None, line_limit: int, cuts: list[int]
) -> None:
    if end:
        octets += b"\r\n.\r\nNOOP\r\n"
    expected, behind = reference(octets, size_limit, line_limit)
    content = DataReader(size_limit, line_limit)
    rest = b""
    position = 0
    for cut in (*sorted(cuts), len(octets)):
        piece = octets[position : max(cut, position)]
        position += len(piece)
        # Once it has ended, the session gives it nothing any more.
        rest += piece if content.ended else content.feed(piece)
    assert content.ended is (expected is not None)
    assert rest == behind
    if expected is not None:
        assert taken(content) == expected


@some
@given(st.binary(max_size=300), st.lists(st.sampled_from([b"\r\n.", b".", b"\r\n"]), max_size=8))
def test_content_undoes_transparency(octets: bytes, more: list[bytes]) -> None:
    meant = octets + b"".join(more) + octets
    content = DataReader(None, LINE_LIMIT)
    assert content.feed(wire(meant)) == b""
    assert content.ended
    assert content.take() == arriving(meant)


@pytest.mark.parametrize("line_limit", [3, 4, 10, LINE_LIMIT])
def test_content_measures_each_line(line_limit: int) -> None:
    lengths = (2, 3, line_limit - 1, line_limit, line_limit + 1, 2 * line_limit)
    for some_lengths in itertools.product(lengths, repeat=3):
        octets = b"".join(b"x" * (length - 2) + b"\r\n" for length in some_lengths) + b".\r\n"
        content = DataReader(None, line_limit)
        assert content.feed(octets) == b""
        assert taken(content) == reference(octets, None, line_limit)[0], some_lengths


@pytest.mark.parametrize("size_limit", [1, 100, None])
def test_content_ends_however_its_end_is_cut(size_limit: int | None) -> None:
    end = b"\r\n.\r\n"
    for number, before in itertools.product(range(6), (b"x" * 99, b"x\r\n" * 50, b"\r\n..")):
        for cuts in itertools.combinations(range(len(end)), number):
            octets = before + end
            places = (0, *(len(before) + cut for cut in cuts), len(octets))
            content = DataReader(size_limit, LINE_LIMIT)
            for start, stop in itertools.pairwise(places):
                assert not content.ended
                assert content.feed(octets[start:stop]) == b""
            assert content.ended
            assert taken(content) == reference(octets, size_limit, LINE_LIMIT)[0]


def test_content_keeps_no_more_than_the_limit() -> None:
    content = DataReader(1000, LINE_LIMIT)
    for _ in range(1000):
        content.feed(b"x" * 1000)
    assert len(content._octets) < 3000
    assert content.feed(b"\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert taken(content) == 552


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        (b"12", Chunk(12, False, True)),
        (b"12 LAST", Chunk(12, True, True)),
        (b" 0012  last ", Chunk(12, True, True)),
        (b"0 LAST", Chunk(0, True, True)),
        (b"0", Chunk(0, False, False)),
        (b"12 FIRST", Chunk(12, False, False)),
        (b"12 LAST LAST", Chunk(12, False, False)),
        (b"9" * 20, Chunk(10**20 - 1, False, True)),
        (b"0" * 20 + b"1", Chunk(None, False, False)),
        (b"", Chunk(None, False, False)),
        (b"LAST", Chunk(None, False, False)),
        (b"-1", Chunk(None, False, False)),
        (b"+1", Chunk(None, False, False)),
        (b"1_0", Chunk(None, False, False)),
        (b"0x10", Chunk(None, False, False)),
        ("１".encode(), Chunk(None, False, False)),
        (b"\xb2", Chunk(None, False, False)),
    ],
)
def test_what_bdat_says(argument: bytes, chunk: Chunk) -> None:
    assert parse_chunk(argument) == chunk


@many
@given(
    st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=6),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_chunks_are_counted_however_they_are_cut(
    sent: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    """Those that are refused are dropped, and all that follows a chunk is given back."""
    content = ChunkReader(LINE_LIMIT, is_binary=True)
    octets = b"".join(chunk for chunk, _ in sent)
    places = sorted({0, *(cut for cut in cuts if cut < len(octets)), len(octets)})
    pieces = iter([octets[start:stop] for start, stop in itertools.pairwise(places)])
    rest = b""
    for chunk, is_refused in sent:
        content.begin(len(chunk), is_last=False, refusal="503 No" if is_refused else None)
        while not content.ended:
            rest = content.feed(rest or next(pieces))
        assert content.size == len(chunk)
    assert rest == b""
    kept = b"".join(chunk for chunk, is_refused in sent if not is_refused)
    assert content.total == len(kept)
    assert content.take() == kept


@some
@given(st.binary(max_size=300), st.sampled_from([3, 10, LINE_LIMIT]))
def test_lines_in_chunks_are_measured_as_any(octets: bytes, line_limit: int) -> None:
    # No dots, which by DATA are doubled, and so count twice.
    octets = octets.replace(b".", b"") + b"\r\n"
    by_data = DataReader(None, line_limit)
    by_data.feed(octets + b".\r\n")
    for is_binary in (False, True):
        content = ChunkReader(line_limit, is_binary=is_binary)
        content.begin(len(octets), is_last=True)
        assert content.feed(octets) == b""
        expected = octets if is_binary else taken(by_data)
        assert taken(content) == expected


def test_chunks_that_are_refused_take_no_memory() -> None:
    content = ChunkReader(LINE_LIMIT)
    content.begin(10**20, is_last=False, refusal="552 No")
    for _ in range(1000):
        assert content.feed(b"x" * 1000) == b""
    assert content.total == 0
    assert not content.ended


@pytest.mark.parametrize("size", [1, 8, 1000])
def test_content_in_the_midst_of_which_something_happens(size: int) -> None:
    """It calls back from when so many octets are there, and is read like any other."""
    reached: list[int] = []
    rule = make_rule(Server(), "DATA", "552 No", after=500)
    reader = InterruptedReader(
        rule, lambda: reached.append(reader.arrived), None, LINE_LIMIT, may_be_8bit=True
    )
    content = b"..x\r\n" * 200
    octets = content + b".\r\nQUIT\r\n"
    for start in range(0, len(content), size):
        assert reader.feed(octets[start : start + size]) == b""
        assert reader.is_reached == (reader.arrived >= 500)
    assert reached == [n for n in range(size, len(content) + 1, size) if n >= 500]
    assert reader.feed(octets[len(content) :]) == b"QUIT\r\n"
    assert reader.take() == content.replace(b"..", b".")


def test_content_that_is_over_before_that() -> None:
    reached: list[bool] = []
    rule = make_rule(Server(), "DATA", drop="content", after=500)
    reader = InterruptedReader(
        rule, lambda: reached.append(reader.ended), 10, LINE_LIMIT, may_be_8bit=True
    )
    assert (reader.feed(b"x\r\n"), reader.is_reached, reached) == (b"", False, [])
    assert (reader.feed(b".\r\n"), reader.is_reached, reached) == (b"", True, [True])


def test_content_that_was_answered_is_not_kept() -> None:
    rule = make_rule(Server(), "DATA", "552 No", after=1)
    reader = InterruptedReader(rule, lambda: None, None, LINE_LIMIT, may_be_8bit=True)
    reader.feed(b"x" * 100_000)
    reader.discard()
    for _ in range(3):
        reader.feed(b"y" * 100_000)
        assert len(reader._octets) < 10
    assert reader.feed(b"\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    assert (reader.ended, reader.size, reader.is_answered) == (True, 400_002, True)


def test_the_helpers_of_these_tests() -> None:
    assert stuff(b".\r\n..\r\nx\r\n.\r\n\r\n.") == b"..\r\n...\r\nx\r\n..\r\n\r\n.."
    assert stuff(b"\n.\r.\r\r\n.") == b"\n.\r.\r\r\n.."
    assert wire(b"") == b".\r\n"
    assert wire(b".") == b"..\r\n.\r\n"
    assert re.findall(rb"(?:\A|\r\n)\.\r\n", wire(b".\r\n.\r\n")) == [b"\r\n.\r\n"]
    assert reference(b".\r\nx", None, 3) == (b"", b"x")
    assert reference(b"..\r\n.\r\n", None, 4) == (b".\r\n", b"")
    assert reference(b"..\r\n.\r\n", 3, 4) == (552, b"")
    assert reference(b"..\r\n.\r\n", 4, 3) == (500, b"")
    assert reference(b"x\n.\r\n", None, 9) == (None, b"")
