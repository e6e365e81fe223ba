"""The content of one message, on its way in.  Server process.

aiosmtpd reads it line by line, which costs a turn of the event loop for each.
This takes it in the pieces in which it arrives, and looks for its end.
"""

from __future__ import annotations

__all__ = ["Content"]

_END = b"\r\n.\r\n"


class Content:
    """The octets from DATA's 354 to the end of data, as they come.

    The end is CRLF, dot, CRLF, and nothing else (RFC 5321, 4.1.1.4): a bare
    CR or LF is an octet like any other, so there is nothing to smuggle with.
    No more than the size limit is kept in memory.

    :param size_limit: The octets that are allowed, or None.
    :param line_limit: The octets that a line may have, CRLF included.
    """

    def __init__(self, size_limit: int | None, line_limit: int) -> None:
        self._size_limit = size_limit
        self._line_limit = line_limit
        # The CRLF that ended the DATA command also begins the shortest end
        # of data there is.
        self._octets = bytearray(b"\r\n")
        self._dropped = 0
        self._too_much = False
        self.ended = False
        #: How many octets there were, when it has ended.
        self.size = 0

    def feed(self, piece: bytes) -> bytes:
        """Take a piece.

        :param piece: What has arrived.
        :return: What lies behind the end of data, when that is in; until
            then, nothing.
        """
        octets = self._octets
        start = max(0, len(octets) - len(_END) + 1)
        octets += piece
        end = octets.find(_END, start)
        if end < 0:
            if self._size_limit is not None and len(octets) > self._size_limit + 2 * len(_END):
                self._too_much = True
                self._dropped += len(octets) + 1 - len(_END)
                del octets[: 1 - len(_END)]
            return b""
        self.ended = True
        self.size = self._dropped + end
        rest = bytes(octets[end + len(_END) :])
        del octets[end + 2 :]
        return rest

    def take(self) -> bytes:
        """Give the content, with its transparency undone (RFC 5321, 4.5.2).

        :return: The octets that the client meant.
        :raises ValueError: There were too many, or a line was too long; the
            text is the reply.
        """
        octets = self._octets
        size = len(octets) - 2
        if self._too_much or (self._size_limit is not None and size > self._size_limit):
            raise ValueError("552 Error: Too much mail data")
        if self._has_long_line():
            raise ValueError("500 Line too long (see RFC5321 4.5.3.1.6)")
        if octets.find(b"\r\n.") >= 0:
            octets = octets.replace(b"\r\n.", b"\r\n")
        with memoryview(octets) as view:
            return bytes(view[2:])

    def _has_long_line(self) -> bool:
        """Look for a line over the limit, leaping from line end to line end.

        As long as some line ends within the next so many octets, none of the
        lines in them was too long; the last of those ends is the next start.
        """
        octets, limit = self._octets, self._line_limit
        position, size = 2, len(octets)
        while size - position > limit:
            found = octets.rfind(b"\r\n", position, position + limit)
            if found < 0:
                return True
            position = found + 2
        return False
