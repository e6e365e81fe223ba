"""The parts of SMTP that need no connection: no I/O, no event loop.  Server process."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable

from lazr_smtptest.server import EXTENSIONS, OFFERABLE


class Refused(ValueError):
    """A command or a message that cannot be taken; its text is the reply."""


# Paths (RFC 5321, 4.1.2; RFC 6531, 3.3).
#
# A path is recorded as it was sent: a server that reads a wrong address as the right
# one makes a wrong program pass its test.  What Postfix refuses is refused, with its
# codes; ``docs/strictness.rst`` has the differences.

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

#: ``<local-part@domain>`` where both are of ASCII letters, digits, hyphens, dots and the
#: commonest specials: what `parse_path` makes of these needs no second look.
_PLAIN = (
    r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@"
    rf"(?=[^>]*[A-Za-z-])(?![^>]{{256}}){_LABEL}(?:\.{_LABEL})*)>"
)

#: The commands that are answered on the spot.
PLAIN_COMMAND = re.compile(
    (
        rf"(?:MAIL FROM:{_PLAIN}((?: SIZE=[0-9]{{1,18}}| BODY=8BITMIME)*)"
        rf"|RCPT TO:{_PLAIN}|DATA)\r\n"
    ).encode(),
    re.IGNORECASE,
)

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_KEYWORDS = {
    "MAIL": re.compile(r"FROM:[ \t]*", re.IGNORECASE),
    "RCPT": re.compile(r"TO:[ \t]*", re.IGNORECASE),
}
#: Real mail has paths without brackets.  A quoted local part may have any of these marks.
_PATH = re.compile(
    rf"(?:<((?:{_QUOTED}|[^\">])*)>|((?:{_QUOTED}|[^\"<\s])+))(?=[ \t]|\Z)", re.DOTALL
)

#: 4.1.1.3: a source route must be ignored.
_ROUTE = re.compile(r"\A@[^\s@:,<>]+(?:,@[^\s@:,<>]+)*:(?=.)", re.DOTALL)

#: An unquoted local part: no blanks, controls, parentheses, or marks that separate
#: addresses.  Dots anywhere, colons and backslashes are no dot-string, and real mail has
#: them; as has it local parts of over 64 octets.
_UNQUOTED_LOCAL = re.compile(r"[^\x00-\x20\x7f-\x9f()<>\[\]@,;\"\s]+")
_QUOTED_LOCAL = re.compile(r'"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[^\x00-\x1f\x7f-\x9f])*"')

#: Marks that are part of some scripts' names (RFC 5892, A).
_MARKS = "\u200c\u200d\u00b7\u0375\u05f3\u05f4\u30fb"


def split_path(command: str, argument: str) -> tuple[str, str] | None:
    """Split what follows MAIL or RCPT into the path, as it was sent, and the rest.

    Return None if the end of the path cannot be found.
    """
    keyword = _KEYWORDS[command].match(argument)
    found = keyword and _PATH.match(argument, keyword.end())
    if not found:
        return None
    path = found[2] if found[1] is None else found[1]
    return _ROUTE.sub("", path, count=1), argument[found.end() :]


#: VRFY and EXPN: what is asked about, and the one parameter there is (RFC 6531, 3.7.4.2).
_QUERY = re.compile(r"<?(.*?)>?(?: +SMTPUTF8)?", re.IGNORECASE | re.DOTALL)


def split_query(argument: str) -> str:
    """Return what VRFY or EXPN asks about, without brackets and parameter."""
    found = _QUERY.fullmatch(argument)
    assert found is not None  # it matches anything
    return found[1]


def parse_path(command: str, argument: str) -> tuple[str, str]:
    """Return the path of MAIL or RCPT, as it was sent, and what follows it.

    The null path (4.5.5) is an empty string; RCPT has none.
    """
    keyword = _KEYWORDS[command].match(argument)
    if not keyword or not argument[keyword.end() :].strip(" \t"):
        verb = "MAIL FROM" if command == "MAIL" else "RCPT TO"
        raise Refused(f"501 5.5.4 Syntax: {verb}:<address>")
    found = split_path(command, argument)
    if found is None or not (_is_mailbox(found[0]) or (command == "MAIL" and not found[0])):
        raise Refused(
            "501 5.1.7 Bad sender address syntax"
            if command == "MAIL"
            else "501 5.1.3 Bad recipient address syntax"
        )
    return found


def _is_mailbox(path: str) -> bool:
    local, at, domain = path.rpartition("@")
    if not at:  # for RCPT, postmaster alone (4.1.1.3); but servers take any
        return bool(_UNQUOTED_LOCAL.fullmatch(path))
    return bool(
        (_UNQUOTED_LOCAL.fullmatch(local) or _QUOTED_LOCAL.fullmatch(local))
        and (_is_literal(domain[1:-1]) if domain[:1] + domain[-1:] == "[]" else _is_domain(domain))
    )


def _is_domain(domain: str) -> bool:
    # Real mail has underscores, and a dot at the end.
    domain = domain.removesuffix(".")
    labels = domain.split(".")
    return (
        len(domain.encode("utf-8", "surrogateescape")) <= 255  # 4.5.3.1.2
        and not domain.replace(".", "").isdigit()  # an address without its brackets
        and all(map(_is_label, labels))
    )


def _is_label(label: str) -> bool:
    return (
        0 < len(label) <= 63
        and "-" not in (label[0], label[-1])
        and unicodedata.category(label[0])[0] != "M"  # RFC 5891, 4.2.3.2
        and all(map(_is_in_a_label, label))
        and (label.isascii() or len(b"xn--" + label.encode("punycode")) <= 63)  # RFC 5890, 2.3.2.1
    )


def _is_in_a_label(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "-_"
    # A letter, a mark or a digit of any script (RFC 5892, 2.1).
    return unicodedata.category(character)[0] in "LMN" or character in _MARKS


def _is_literal(text: str) -> bool:
    # 4.1.3.  No kind but these has ever been registered.
    tag, colon, address = text.partition(":")
    try:
        if colon:
            return tag.upper() == "IPV6" and ipaddress.IPv6Address(address).scope_id is None
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def what_is_bad(line: bytes) -> str | None:
    """Return the reply for a command line that no command can be in, if it is one."""
    if not line.endswith(b"\r\n"):  # 2.3.8
        return "500 5.5.2 Error: a command line ends in <CR><LF>, not in <LF> alone"
    if b"\0" in line:
        return "500 5.5.2 Error: NUL in a command line"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "500 5.5.2 Error: bad UTF-8 syntax"
    return None


#: How a client says who it is.
GREETINGS = ("EHLO", "HELO", "LHLO")

#: The commands that may come before TLS where that is required (RFC 3207, 4).
BEFORE_TLS = ("EHLO", "LHLO", "NOOP", "QUIT", "STARTTLS")


# Parameters of MAIL and RCPT.

#: RFC 3461, 4: xtext, printable ASCII but for "+" and "=", which are written
#: as "+" and two hexadecimal digits.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")

_ORCPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*;(.+)\Z")

#: RFC 3461, 4.1.
_NOTIFICATIONS = {"SUCCESS", "FAILURE", "DELAY"}

#: Names of mechanisms that clients may ask for, and that are no secrets.
KNOWN_MECHANISMS = frozenset(
    "ANONYMOUS CRAM-MD5 DIGEST-MD5 EXTERNAL GSSAPI KERBEROS_V4 LOGIN NTLM OAUTHBEARER PLAIN "
    "SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS SCRAM-SHA-512 XOAUTH2".split()
)

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


def _is_size(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 20  # RFC 1870, 4


def _is_body(value: str) -> bool:
    return value.upper() in ("7BIT", "8BITMIME", "BINARYMIME")  # RFC 6152, 2; RFC 3030, 3


#: By command and parameter: the extension, and what the value may be; None for no value.
_PARAMETERS: dict[tuple[str, str], tuple[str, Callable[[str], bool] | None]] = {
    ("MAIL", "SIZE"): ("SIZE", _is_size),
    ("MAIL", "BODY"): ("8BITMIME", _is_body),
    ("MAIL", "SMTPUTF8"): ("SMTPUTF8", None),
    ("MAIL", "RET"): ("DSN", _is_ret),
    ("MAIL", "ENVID"): ("DSN", _is_envid),
    ("MAIL", "AUTH"): ("AUTH", _is_auth),
    ("RCPT", "NOTIFY"): ("DSN", _is_notify),
    ("RCPT", "ORCPT"): ("DSN", _is_orcpt),
}


def check_parameters(
    command: str, parameters: Iterable[str], extensions: Collection[str]
) -> dict[str, str]:
    """Return the values of the parameters of MAIL or RCPT, by name in capitals."""
    values: dict[str, str] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        name = name.upper()
        extension, is_valid = _PARAMETERS.get((command, name), ("", None))
        if extension not in extensions:
            raise Refused(f"555 5.5.4 Error: {command} has no parameter {name} here")
        if name in values or not (is_valid(value) if is_valid else not equals):
            raise Refused(f"501 5.5.4 Error: {name} is not as it should be")
        values[name] = value
    if values.get("BODY", "").upper() == "BINARYMIME" and "BINARYMIME" not in extensions:
        raise Refused("501 5.5.4 Error: BODY=BINARYMIME is not offered")
    return values


#: The parameters that aiosmtpd knows; it has them in capitals, and before all others.
_BASIC = ("SIZE", "BODY", "SMTPUTF8")


def as_recorded(parameters: Iterable[str]) -> list[str]:
    """Return parameters as an envelope has them."""
    split = {True: [], False: []}  # type: dict[bool, list[str]]
    for parameter in parameters:
        capitals = parameter.upper()
        is_basic = capitals.partition("=")[0] in _BASIC
        split[is_basic].append(capitals if is_basic else parameter)
    return split[True] + split[False]


# Replies.

ACCEPTED_REPLY = "250 OK"
GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"

#: Lines with a hyphen behind the code, and one without.
_REPLY = re.compile(r"(?:\d{3}-[^\r\n]*\r?\n)*[^\r\n]+")

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


#: What aiosmtpd says of a client that sends one unknown command after the other, and
#: then closes: that is what 421 is for (RFC 5321, 4.2.2).
_TOO_MANY = "502 5.5.1 Too many unrecognized commands, goodbye."

#: Replies of aiosmtpd's, and what is said instead.
_CORRECTIONS = {
    _TOO_MANY: "421 4.7.0 Too many unrecognized commands",
    "501 Too many values": "501 5.5.4 AUTH takes a mechanism and one response in base64, "
    "and this has more words",
}


def corrected(reply: str, command: str) -> str:
    """Return a reply of aiosmtpd's with the code that RFC 5321 has for it."""
    if command == "HELP" and reply.startswith("250"):  # 4.2.3
        return f"214{reply[3:]}"
    return _CORRECTIONS.get(reply, reply)


class VerbatimReply(str):
    """A reply that somebody else has worded, to be sent as it is."""

    __slots__ = ()


def says_no(reply: str) -> bool:
    """Whether a reply to AUTH is to a login that failed, and not to a line that is wrong."""
    return reply.startswith("535") or (isinstance(reply, VerbatimReply) and reply[0] in "45")


def one_for_each(text: str, count: int) -> list[str]:
    """Return the replies of `handle_DATA` to ``count`` recipients; a single one is for all."""
    replies: list[str] = [VerbatimReply(found[0]) for found in _REPLY.finditer(text)]
    if len(replies) not in (1, count):
        raise ValueError(
            f"handle_DATA must return one reply, or one for each recipient, {count} here, "
            f"not {len(replies)}"
        )
    return replies if len(replies) == count else replies * count


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


def advertised(
    lines: Iterable[str], extensions: Collection[str], mechanisms: Collection[str]
) -> list[str]:
    """Make the lines of EHLO's reply of those that aiosmtpd has, which sorts mechanisms."""
    told = {*extensions} if mechanisms else {*extensions} - {"AUTH"}
    hidden = {*EXTENSIONS, *OFFERABLE} - told
    first, *rest = [line[4:] for line in lines]
    rest = [f"AUTH {' '.join(mechanisms)}" if text[:5] == "AUTH " else text for text in rest]
    shown = [text for text in rest if text.split()[0].upper() not in hidden]
    if "SIZE" in extensions and not any(text.startswith("SIZE") for text in shown):
        shown.insert(0, "SIZE 0")  # RFC 1870, 3: there is no limit
    last = shown.pop() if shown and shown[-1] == "HELP" else None
    extras = ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN", *OFFERABLE)  # aiosmtpd has none of these
    shown += [name for name in extras if name not in hidden]
    texts = [first, *shown, *([last] if last else [])]
    return [f"250-{text}" for text in texts[:-1]] + [f"250 {texts[-1]}"]
