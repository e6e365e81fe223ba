"""The parts of SMTP that need no connection: no I/O, no event loop.  Server process."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from lazr_smtptest.server import EXTENSIONS

# Content.

_END = b"\r\n.\r\n"


class DataReader:
    """The octets from DATA's 354 to the end of data, as they come.

    aiosmtpd reads them line by line, which costs a turn of the event loop for
    each.  This takes them in the pieces in which they arrive.

    The end is CRLF, dot, CRLF, and nothing else (RFC 5321, 4.1.1.4): a bare
    CR or LF is an octet like any other, so there is nothing to smuggle with.
    No more than the size limit is kept in memory.  The line limit counts CRLF.
    """

    def __init__(self, size_limit: int | None, line_limit: int) -> None:
        self._size_limit = size_limit
        self._line_limit = line_limit
        # The CRLF that ended the DATA command also begins the shortest end
        # of data there is.
        self._octets = bytearray(b"\r\n")
        self._dropped = 0
        self.ended = False
        self.size = 0

    def feed(self, piece: bytes) -> bytes:
        """Take a piece, and return what lies behind the end of data."""
        octets = self._octets
        start = max(0, len(octets) - len(_END) + 1)
        octets += piece
        end = octets.find(_END, start)
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

    def take(self) -> bytes:
        """Return the content, with its transparency undone (RFC 5321, 4.5.2).

        Raise ValueError if it, or a line, is too long; the text is the reply.
        """
        octets = self._octets
        size = len(octets) - 2
        if self._dropped or (self._size_limit is not None and size > self._size_limit):
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


# Paths and parameters.
#
# aiosmtpd knows SIZE, BODY and SMTPUTF8, and refuses what it does not know; so
# the parameters of DSN (RFC 3461) and AUTH (RFC 4954, 5) are taken out before
# it looks.

#: ``<local-part@domain>`` where both are dot-atoms of ASCII letters, digits
#: and the commonest specials: these mean the same to every parser.
_PLAIN = r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"

#: Such an address, and parameters.
PLAIN_PATH = re.compile(_PLAIN + r"((?: [^\r\n()]*)?)\Z")

#: The commands that are answered on the spot.
PLAIN_COMMAND = re.compile(
    (
        rf"(?:MAIL FROM:{_PLAIN}((?: SIZE=[0-9]{{1,18}}| BODY=8BITMIME)*)"
        rf"|RCPT TO:{_PLAIN}|DATA)\r\n"
    ).encode(),
    re.IGNORECASE,
)

#: What comes before the parameters; a quoted local part may have brackets.
_PATH = re.compile(
    r'\s*(?:FROM|TO):\s*(?:<(?:"(?:[^"\\]|\\.)*"|[^">])*>|[^<\s]\S*)(?=\s|\Z)', re.IGNORECASE
)

#: RFC 3461, 4: xtext, printable ASCII but for "+" and "=", which are written
#: as "+" and two hexadecimal digits.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")

_ORCPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*;(.+)\Z")

#: RFC 3461, 4.1.
_NOTIFICATIONS = {"SUCCESS", "FAILURE", "DELAY"}

#: Octets of a line in an AUTH exchange (RFC 4954, 4).
AUTH_LINE = 12_288

#: How much longer a command may be than RFC 5321, 4.5.3.1.4 has it, by what
#: the parameters themselves may have.
EXTRA_COMMAND_SIZE = {
    "AUTH": AUTH_LINE - 512,
    "MAIL": len(" RET=HDRS") + len(" ENVID=") + 100 + 500,  # RFC 4954, 5: AUTH=
    "RCPT": len(" NOTIFY=SUCCESS,FAILURE,DELAY") + len(" ORCPT=") + 500,
}


def _is_ret(value: str) -> bool:
    return value.upper() in ("FULL", "HDRS")


def _is_envid(value: str) -> bool:
    return 0 < len(value) <= 100 and _XTEXT.match(value) is not None


def _is_notify(value: str) -> bool:
    words = value.upper().split(",")
    return words == ["NEVER"] or (
        _NOTIFICATIONS.issuperset(words) and len(set(words)) == len(words)
    )


def _is_orcpt(value: str) -> bool:
    found = _ORCPT.match(value)
    # With SMTPUTF8 there is a form of its own (RFC 6533, 3), which is not xtext.
    return (
        found is not None
        and len(value) <= 500
        and (value.lower().startswith("utf-8;") or _XTEXT.match(found[1]) is not None)
    )


def _is_auth(value: str) -> bool:
    return value == "<>" or (value != "" and _XTEXT.match(value) is not None)


#: By command and parameter: the extension, and what the value may be.
_PARAMETERS: dict[tuple[str, str], tuple[str, Callable[[str], bool]]] = {
    ("MAIL", "RET"): ("DSN", _is_ret),
    ("MAIL", "ENVID"): ("DSN", _is_envid),
    ("MAIL", "AUTH"): ("AUTH", _is_auth),
    ("RCPT", "NOTIFY"): ("DSN", _is_notify),
    ("RCPT", "ORCPT"): ("DSN", _is_orcpt),
}

#: The parameters that aiosmtpd does know, and the extensions they belong to.
_BASIC = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}


def take_parameters(
    command: str, argument: str, extensions: Collection[str]
) -> tuple[str, list[str]]:
    """Take out the parameters that aiosmtpd does not know, of MAIL or RCPT.

    Return the argument without them, and the parameters as they were sent.  Raise
    ValueError if one is there twice or cannot have its value; the text is the reply.
    """
    path = _PATH.match(argument)
    if path is None:
        return argument, []
    taken: list[str] = []
    left: list[str] = []
    seen = set()
    for parameter in argument[path.end() :].split():
        name, _, value = parameter.partition("=")
        name = name.upper()
        if command == "MAIL" and name in _BASIC and _BASIC[name] not in extensions:
            raise ValueError(f"555 5.5.4 Error: {name} is not one of this server's parameters")
        extension, is_valid = _PARAMETERS.get((command, name), ("", None))
        if is_valid is None or extension not in extensions:
            left.append(parameter)
            continue
        if name in seen or not is_valid(value):
            raise ValueError(f"501 5.5.4 Error: {name} is not as it should be")
        seen.add(name)
        taken.append(parameter)
    return " ".join([path[0], *left]), taken


# Replies.

ACCEPTED_REPLY = "250 OK"
GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"

_ENHANCED = re.compile(r"(\d{3}) [245]\.\d{1,3}\.\d{1,3}(?= |\Z)")

#: By the command, where that makes a difference (RFC 3463, 3).
_BY_COMMAND = {("MAIL", "250"): "2.1.0", ("RCPT", "250"): "2.1.5", ("RCPT", "452"): "4.5.3"}

_BY_REPLY = {
    "421": "4.3.0",
    "451": "4.3.0",
    "452": "4.3.1",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "504": "5.5.4",
    "530": "5.7.0",
    "535": "5.7.8",
    "538": "5.7.11",
    "552": "5.3.4",
    "553": "5.1.3",
    "555": "5.5.4",
}

_BY_CLASS = {"2": "2.0.0", "4": "4.0.0", "5": "5.0.0"}


class VerbatimReply(str):
    """A reply that somebody else has worded, to be sent as it is."""

    __slots__ = ()


def without_enhanced_code(reply: str) -> str:
    """Take the enhanced status code (RFC 3463) out of a line, if it has one."""
    return _ENHANCED.sub(r"\1", reply, count=1)


def with_enhanced_code(reply: str, command: str) -> str:
    """Put an enhanced status code (RFC 3463) into a line that has none."""
    code = reply[:3]
    # RFC 2034, 4: not in intermediate replies.
    if code[:1] not in _BY_CLASS or _ENHANCED.match(reply):
        return reply
    enhanced = _BY_COMMAND.get((command, code)) or _BY_REPLY.get(code) or _BY_CLASS[code[0]]
    return f"{code} {enhanced}{reply[3:] or ' '}".rstrip()


def advertised(lines: Iterable[str], extensions: Collection[str]) -> list[str]:
    """Make the lines of EHLO's reply of those that aiosmtpd has."""
    hidden = EXTENSIONS.difference(extensions)
    first, *rest = [line[4:] for line in lines]
    shown = [text for text in rest if text.split()[0].upper() not in hidden]
    last = shown.pop() if shown and shown[-1] == "HELP" else None
    extras = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")  # aiosmtpd has none of these
    shown += [name for name in extras if name not in hidden]
    texts = [first, *shown, *([last] if last else [])]
    return [f"250-{text}" for text in texts[:-1]] + [f"250 {texts[-1]}"]
