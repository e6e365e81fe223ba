"""ESMTP's extensions: what is advertised, and what parameters mean.

Server process.  aiosmtpd knows SIZE, BODY and SMTPUTF8, and refuses what it
does not know; so the parameters of DSN (RFC 3461) and AUTH (RFC 4954, 5) are
taken out before it looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

__all__ = ["AUTH_LINE", "EXTRA_COMMAND_SIZE", "advertised", "take_parameters"]

#: RFC 3461, 4: xtext, printable ASCII but for "+" and "=", which are written
#: as "+" and two hexadecimal digits.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")

#: What comes before the parameters; a quoted local part may have brackets.
_PATH = re.compile(
    r'\s*(?:FROM|TO):\s*(?:<(?:"(?:[^"\\]|\\.)*"|[^">])*>|[^<\s]\S*)(?=\s|\Z)', re.IGNORECASE
)

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


#: The extension, the command and the parameter, and what its value may be.
_PARAMETERS: dict[tuple[str, str], tuple[str, Callable[[str], bool]]] = {
    ("MAIL", "RET"): ("DSN", _is_ret),
    ("MAIL", "ENVID"): ("DSN", _is_envid),
    ("MAIL", "AUTH"): ("AUTH", _is_auth),
    ("RCPT", "NOTIFY"): ("DSN", _is_notify),
    ("RCPT", "ORCPT"): ("DSN", _is_orcpt),
}


#: The parameters that aiosmtpd does know, by the extension they belong to.
_BASIC = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}


def take_parameters(
    command: str, argument: str, extensions: Collection[str]
) -> tuple[str, list[str]]:
    """Take out the parameters that aiosmtpd does not know.

    :param command: MAIL or RCPT.
    :param argument: What follows it.
    :param extensions: Those that the client was told of.
    :return: The argument without them, and the parameters as they were sent.
    :raises ValueError: One has a value that it cannot have, or is there
        twice; the text is the reply.
    """
    path = _PATH.match(argument)
    if path is None:
        return argument, []
    rest = argument[path.end() :]
    taken: list[str] = []
    left: list[str] = []
    seen = set()
    for parameter in rest.split():
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


def advertised(
    lines: Iterable[str], extensions: Collection[str], hidden: Collection[str]
) -> list[str]:
    """Make the lines of EHLO's reply.

    :param lines: Those that aiosmtpd has, each with its code.
    :param extensions: What to add.
    :param hidden: What to leave out.
    :return: The lines; all but the last have a hyphen behind the code.
    """
    first, *rest = [line[4:] for line in lines]
    shown = [text for text in rest if text.split()[0].upper() not in hidden]
    last = shown.pop() if shown and shown[-1] == "HELP" else None
    shown += [name for name in extensions if name not in hidden]
    texts = [first, *shown, *([last] if last else [])]
    return [f"250-{text}" for text in texts[:-1]] + [f"250 {texts[-1]}"]
