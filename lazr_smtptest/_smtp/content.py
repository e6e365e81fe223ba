"""The content of a message, as it comes: no I/O, no event loop.  Server process.

`DataReader` reads what DATA is followed by, `ChunkReader` what BDAT is.  Both are fed
pieces as they arrive, have `ended` when there is no more to come, and return the
message by `take`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from lazr_smtptest._smtp.protocol import Refused
from lazr_smtptest._wire.rules import Rule

#: Octets of a line with CRLF, and the dot that transparency may add (RFC 5321, 4.5.3.1.6).
_LINE_OCTETS = 1001

#: Octets of a message that `octet_codes` looks at, but for whether they are ASCII: a
#: program that ends its lines by LF does so from the first on.
_LOOKED_AT = 65_536


def octet_codes(
    raw: bytearray, *, is_8bitmime: bool, smtp_utf8: bool, line_limit: int
) -> list[str]:
    """Return what is wrong with the octets of content, by the codes of `checks`.

    This is done for each message, so it must cost little beside taking it.
    """
    codes = []
    if not (is_8bitmime or raw.isascii()):
        # SMTPUTF8 declares the header, and BODY= the rest (RFC 6531, 3.6).
        undeclared = raw.partition(b"\r\n\r\n")[2] if smtp_utf8 else raw
        codes += [] if undeclared.isascii() else ["8bit-undeclared"]
    head = raw[:_LOOKED_AT].rstrip(b"\r")
    line_ends = head.count(b"\r\n")
    if head.count(b"\n") != line_ends:
        codes.append("bare-lf")
    if head.count(b"\r") != line_ends:
        codes.append("bare-cr")
    if b"\0" in head:
        codes.append("nul")
    if line_limit > _LINE_OCTETS:  # or no such line is taken
        longest = max(len(line.rstrip(b"\r")) for line in head.split(b"\n"))
        codes += ["line-too-long"] if longest > 998 else []
    return codes


_END = b"\r\n.\r\n"

#: How it begins; so does a line whose dot transparency has doubled.
_DOT = b"\r\n."

#: A dot at the beginning of a line that nobody has doubled.
_SINGLE_BEHIND_LF = re.compile(rb"\n\.(?!\.)")


class DataReader:
    """The octets from DATA's 354 to the end of data, as they come.

    aiosmtpd reads them line by line, which costs a turn of the event loop for
    each.  This takes them in the pieces in which they arrive.

    The end is CRLF, dot, CRLF, and nothing else (RFC 5321, 4.1.1.4): a bare
    CR or LF is an octet like any other, so there is nothing to smuggle with.
    No more than the size limit is kept in memory.  The line limit counts CRLF.
    """

    #: Whether the client has its reply before the end of the content.
    is_answered = False

    def __init__(
        self, size_limit: int | None, line_limit: int, *, may_be_8bit: bool = True
    ) -> None:
        self._size_limit = size_limit
        self._line_limit = line_limit
        self._may_be_8bit = may_be_8bit
        # The CRLF that ended the DATA command also begins the shortest end
        # of data there is.
        self._octets = bytearray(b"\r\n")
        self._has_dots = False  # at the beginning of lines
        self._dropped = 0
        self.ended = False
        self.size = 0

    #: It comes all at once, and not in chunks.
    is_last = True

    def feed(self, piece: bytes) -> bytes:
        """Take a piece, and return what lies behind the end of data."""
        octets = self._octets
        start = max(0, len(octets) - len(_END) + 1)
        octets += piece
        end = self._find_end(start)
        if end < 0:
            if self._size_limit is not None and len(octets) > self._size_limit + 2 * len(_END):
                self._dropped += len(octets) + 1 - len(_END)
                del octets[: 1 - len(_END)]
            return b""
        self.ended = True
        self.size = self._dropped + end
        rest = bytes(octets[end + len(_END) :])
        del octets[end + 2 :]
        return rest

    def _find_end(self, start: int) -> int:
        """Return where the end of data begins, or -1; one search for it and for other dots."""
        octets = self._octets
        if not self._has_dots:
            start = octets.find(_DOT, start)
            if start < 0 or octets.startswith(_END, start):
                return start
            self._has_dots = len(octets) - start >= len(_END)
        return octets.find(_END, start)

    def take(self) -> bytearray:
        """Return the content, with its transparency undone (RFC 5321, 4.5.2); once.

        Raise Refused if it, or a line, is too long, or it has octets that it must not have.
        """
        octets = self._octets
        size = len(octets) - 2
        if self._dropped or (self._size_limit is not None and size > self._size_limit):
            raise Refused("552 Error: Too much mail data")
        _check_octets(octets, 2, self._line_limit, may_be_8bit=self._may_be_8bit)
        if self._has_dots:
            octets = octets.replace(_DOT, b"\r\n")
        del octets[:2]  # which moves nothing
        if _has_lf_lines(octets) and not _SINGLE_BEHIND_LF.search(octets):
            octets = octets.replace(b"\n..", b"\n.")
        return octets

    codes = staticmethod(octet_codes)


class InterruptedReader(DataReader):
    """Content in the middle of which a fault fires; it calls back when it is time."""

    def __init__(
        self, rule: Rule, on_reached: Callable[[], object], *limits: Any, may_be_8bit: bool
    ) -> None:
        super().__init__(*limits, may_be_8bit=may_be_8bit)
        self.rule = rule
        self._on_reached = on_reached
        self.arrived = 0

    @property
    def is_reached(self) -> bool:
        """Whether it is time: at the end of data at the latest."""
        return self.ended or self.arrived >= (self.rule.after or 0)

    def feed(self, piece: bytes) -> bytes:
        rest = super().feed(piece)
        self.arrived += len(piece) - len(rest)
        if self.is_reached:
            self._on_reached()
        return rest

    def discard(self) -> None:
        """Keep no more of it: the client has its answer."""
        self.is_answered = True
        self._size_limit = 0


class Chunk(NamedTuple):
    """What a BDAT command says."""

    size: int | None  # in octets; None if it cannot be read
    is_last: bool
    is_valid: bool


def parse_chunk(argument: bytes) -> Chunk:
    """Read what follows BDAT: a number in decimal, and perhaps LAST (RFC 3030, 2)."""
    size, *marker = argument.strip().split() or [b""]
    is_last = [word.upper() for word in marker] == [b"LAST"]
    if not (size.isdigit() and len(size) <= 20):  # as SIZE has it (RFC 1870, 4)
        return Chunk(None, is_last, False)
    # Postfix refuses a chunk of nothing that is not the last.
    is_valid = is_last or (not marker and int(size) > 0)
    return Chunk(int(size), is_last, is_valid)


def chunk_reply(size: int) -> str:
    """Return the reply to a chunk that is not the last."""
    return f"250 {size} octets received"


#: A BDAT command that is answered on the spot.
PLAIN_CHUNK = re.compile(rb"BDAT ([1-9][0-9]{0,17})( LAST)?\r\n", re.IGNORECASE)


class ChunkReader:
    """The octets of a message that comes in chunks (RFC 3030, 2).

    `begin` says how many come next; `ended` and `size` are about these.  Nothing is
    looked for in them, so there is nothing to smuggle with.  What is refused is read
    all the same, and dropped.  With BODY=BINARYMIME, content need not be lines.
    """

    def __init__(
        self, line_limit: int, *, may_be_8bit: bool = True, is_binary: bool = False
    ) -> None:
        self._line_limit = line_limit
        self._may_be_8bit = may_be_8bit
        self._is_binary = is_binary
        self._octets = bytearray()
        self._left = 0
        self.size = 0
        self.ended = True
        self.is_last = False
        self.refusal: str | None = None
        self.has_begun = False

    @property
    def total(self) -> int:
        """The octets of all chunks so far."""
        return len(self._octets)

    def begin(self, size: int, *, is_last: bool, refusal: str | None = None) -> None:
        """Read a chunk next; one that is refused is dropped."""
        self.size = self._left = size
        self.ended = not size
        self.is_last = is_last
        self.refusal = refusal
        self.has_begun = True

    def feed(self, piece: bytes) -> bytes:
        """Take a piece, and return what lies behind the end of the chunk."""
        left = self._left
        if len(piece) > left:
            self.feed(piece[:left])
            return piece[left:]
        if self.refusal is None:
            self._octets += piece
        self._left = left - len(piece)
        self.ended = not self._left
        return b""

    def take(self) -> bytearray:
        """Return the message; raise Refused if it is not as it must be."""
        if not self._is_binary:
            _check_octets(self._octets, 0, self._line_limit, may_be_8bit=self._may_be_8bit)
        return self._octets

    def codes(
        self, raw: bytearray, *, is_8bitmime: bool, smtp_utf8: bool, line_limit: int
    ) -> list[str]:
        """Return what is wrong with the octets; see `octet_codes`."""
        if self._is_binary:
            return []
        codes = octet_codes(
            raw, is_8bitmime=is_8bitmime, smtp_utf8=smtp_utf8, line_limit=line_limit
        )
        # DATA cannot end so; Postfix and Exim add what is missing.
        return [*codes, "no-final-crlf"] if raw and not raw.endswith(b"\n") else codes


def _check_octets(octets: bytearray, start: int, line_limit: int, *, may_be_8bit: bool) -> None:
    """Raise Refused if a line is too long, or there are octets that must not be there."""
    if _has_long_line(octets, start, line_limit):
        raise Refused("500 Line too long (see RFC5321 4.5.3.1.6)")
    if not may_be_8bit and not octets.isascii():
        raise Refused("554 5.6.1 Error: 8-bit content, and 8BITMIME is not offered")


def _has_lf_lines(octets: bytearray) -> bool:
    """Whether LF alone ends each line but the last, as in what Python's ``as_bytes()`` makes.

    There smtplib doubles dots, too, and Postfix and Exim take one of them away.
    """
    end = octets.find(b"\n")
    return octets[end - 1 : end] != b"\r" and octets.find(b"\r\n") == len(octets) - 2


def _has_long_line(octets: bytearray, position: int, limit: int) -> bool:
    """Look for a line over the limit, leaping from line end to line end.

    As long as some line ends within the next so many octets, none of the
    lines in them was too long; the last of those ends is the next start.
    """
    size = len(octets)
    while size - position > limit:
        # A bare LF ends a line, too: programs that send such are taken.
        found = octets.rfind(b"\n", position, position + limit)
        if found < 0:
            return True
        position = found + 1
    return False
