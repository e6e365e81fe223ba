"""Enhanced status codes (RFC 2034, RFC 3463).  Server process."""

from __future__ import annotations

import re

__all__ = ["AsGiven", "with_enhanced_code", "without_enhanced_code"]

_ENHANCED = re.compile(r"(\d{3}) [245]\.\d{1,3}\.\d{1,3}(?= |\Z)")

#: By the command, where that makes a difference (RFC 3463, 3).
_BY_COMMAND = {
    ("MAIL", "250"): "2.1.0",
    ("RCPT", "250"): "2.1.5",
    ("RCPT", "452"): "4.5.3",
}

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


class AsGiven(str):
    """A reply that somebody else has worded, to be sent as it is."""

    __slots__ = ()


def without_enhanced_code(reply: str) -> str:
    """Take an enhanced code out, where there is one.

    :param reply: A reply of one line, without its end.
    :return: The reply.
    """
    return _ENHANCED.sub(r"\1", reply, count=1)


def with_enhanced_code(reply: str, command: str) -> str:
    """Put an enhanced code in, where there is none.

    :param reply: A reply of one line, without its end.
    :param command: The command that it is the reply to.
    :return: The reply.
    """
    code = reply[:3]
    # RFC 2034, 4: not in intermediate replies.
    if code[:1] not in _BY_CLASS or _ENHANCED.match(reply):
        return reply
    enhanced = _BY_COMMAND.get((command, code)) or _BY_REPLY.get(code) or _BY_CLASS[code[0]]
    return f"{code} {enhanced}{reply[3:] or ' '}".rstrip()
