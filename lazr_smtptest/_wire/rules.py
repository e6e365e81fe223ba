"""Fault rules: checked in the test process, carried out in the server process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from lazr_smtptest._names import STAGES_ELSEWHERE, bool_or, hint, is_refusal, setting
from lazr_smtptest._util import seconds, whole_number

if TYPE_CHECKING:
    from lazr_smtptest.server import Server

__tracebackhide__ = is_refusal  # for pytest

#: A stage, for type checkers: in capitals, or in small letters.
# fmt: off
_Stage = Literal[
    "CONNECT", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT",
    "EOM", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT",
]
Stage = Literal[
    _Stage,
    "connect", "ehlo", "helo", "lhlo", "starttls", "auth", "mail", "rcpt", "data", "bdat",
    "eom", "rset", "noop", "vrfy", "expn", "help", "quit",
]
# fmt: on

#: The stages of sessions; which of them a server has, depends on it.  All but the first
#: and EOM, the end of a message, are commands.
STAGES: tuple[_Stage, ...] = get_args(_Stage)

#: Those at which content comes, in the middle of which a fault may fire.
CONTENT_STAGES = ("DATA",)

#: RFC 5321, 4.2: Reply-code.  What follows it is a space, a hyphen or nothing.
_CODE = re.compile(r"([2-5][0-5][0-9])(?:[ -](.*))?\Z", re.DOTALL)

#: For type checkers: when to close the connection.
Drop = Literal["before", "instead", "after", "content"]

_DROPS: tuple[Drop, ...] = get_args(Drop)


class Rule(NamedTuple):
    """A fault, as it is sent to the server process."""

    stage: str
    octets: bytes | None  # what is sent, as it is; None for the usual reply
    code: str  # the reply's; empty for the usual one and for raw octets
    when: str | None  # a glob in small letters that one of the stage's names has to match
    times: int | None
    delay: float  # in seconds, before anything is done
    trickle: float  # in seconds, before each further piece of what is sent
    drop: str  # when to close the connection; empty for not at all
    after: int | None  # octets of content that come first; None if not within the content

    @property
    def closes(self) -> bool:
        """Whether the connection is closed after the given reply."""
        # RFC 5321, 3.8: that is what 421 says.
        return bool(self.drop) or self.code == "421"

    def __str__(self) -> str:
        """Return the arguments of `Controller.fault` that make it."""
        reply = self.octets.decode()[:-2] if self.code and self.octets else None
        options = {
            "raw": None if self.code else self.octets,
            "when": self.when,
            "times": self.times,
            "delay": self.delay or None,
            "trickle": self.trickle or None,
            "drop": self.drop or None,
            "after": self.after,
        }
        shown = [repr(value) for value in (self.stage, reply) if value is not None]
        shown += [f"{name}={value!r}" for name, value in options.items() if value is not None]
        return ", ".join(shown)

    @property
    def prevents(self) -> bool:
        """Whether what the stage is for is not done."""
        return self.octets is not None or self.drop == "before"


def missing_stages(server: Server) -> dict[str, str]:
    """Return the stages that a server's sessions do not have, and why each is missing."""
    missing: dict[str, str] = {}
    if server.lmtp:  # RFC 2033, 4.1
        missing |= dict.fromkeys(("EHLO", "HELO"), "an LMTP server has LHLO in its place")
    else:
        missing["LHLO"] = f"only a server with {setting('lmtp', True)} has it"
    if "CHUNKING" not in server._offered_extensions:
        missing["BDAT"] = f"only a server with {setting('offer', ('CHUNKING',))} has it"
    return missing


def make_rule(
    server: Server,
    stage: str,
    reply: str | None = None,
    raw: bytes | None = None,
    when: str | None = None,
    times: int | None = None,
    delay: float = 0.0,
    trickle: float = 0.0,
    drop: bool | Drop = False,
    after: int | None = None,
) -> Rule:
    """Check the parts of a fault, and return the rule; TypeError or ValueError otherwise."""
    stage, when = check_stage(server, stage, when)
    if times is not None:
        times = int(whole_number("times", times, 1))
    delay = float(seconds("delay", delay))
    trickle = float(seconds("trickle", trickle))
    octets, code = _what_is_said(reply, raw)
    drops = _check_drop(drop, is_silent=octets is None, is_amid=after is not None)
    after = _check_after(stage, drops, after)
    if octets is None and not (drops or delay or trickle):
        raise ValueError("a fault needs a reply, raw, a delay, a trickle, or drop")
    if trickle and octets is None and (after is not None or drops in ("before", "instead")):
        raise ValueError("trickle needs something to say there: give reply or raw, or no trickle")
    if stage == "DATA" and after is None and not drops and (octets or b"").startswith(b"354"):
        raise ValueError(
            "a fault at DATA that says 354 has the client send content that nobody awaits: "
            "give a delay alone, drop, or a fault at EOM"
        )
    return Rule(stage, octets, code, when, times, delay, trickle, drops, after)


def check_stage(server: Server, stage: str, when: str | None) -> tuple[str, str | None]:
    """Check where a fault or a gate of a server applies."""
    missing = missing_stages(server)
    known = [name for name in STAGES if name not in missing]
    # As plain strings: a subclass of the test's may not be there to unpickle it.
    name = str.upper(stage) if isinstance(stage, str) else ""
    if name not in known:
        if name in missing:
            why = f": {missing[name]}"
        elif other := "reply" if _CODE.match(name) else "when" if "@" in name else "":
            why = f": did you mean {setting(other, stage)}?"
        else:
            why = hint(stage, known, STAGES_ELSEWHERE)
        raise ValueError(f"stage must be one of {', '.join(known)}, not {stage!r}{why}")
    if when is not None and not isinstance(when, str):
        raise TypeError(f"when must be a str, such as '*@example.com', not {when!r}")
    return name, when and when.lower()


def _what_is_said(reply: str | None, raw: bytes | None) -> tuple[bytes | None, str]:
    """Return the octets that a fault sends, and the code of its reply."""
    if raw is None:
        octets = None if reply is None else encode_reply(reply) + b"\r\n"
        return octets, (octets or b"")[:3].decode()
    if reply is not None:
        raise ValueError("raw is sent in place of a reply: give one or the other")
    if not isinstance(raw, bytes):
        raise TypeError(rf"raw must be bytes, such as b'250-no end\r\n', not {raw!r}")
    return bytes(raw), ""


def _check_drop(drop: bool | str, *, is_silent: bool, is_amid: bool) -> str:
    """Return when the connection is closed."""
    if drop is True:
        return "content" if is_amid else "before" if is_silent else "after"
    if drop is False:
        return ""
    if drop not in _DROPS:
        known = ", ".join(map(repr, _DROPS))
        meant = hint(drop, _DROPS)
        raise ValueError(f"drop must be {bool_or()} one of {known}, not {drop!r}{meant}")
    if not is_silent and drop in ("before", "instead"):
        drops = setting("drop", drop)
        raise ValueError(f"{drops} means that there is no reply: give one or the other")
    return "".join(drop)


def _check_after(stage: str, drop: str, after: int | None) -> int | None:
    """Return the octets of content that come first; None if not within the content."""
    if after is not None:
        after = int(whole_number("after", after, 1))
        what = "after"
    elif drop == "content":
        after, what = 1, setting("drop", "content")
    else:
        return None
    if stage not in CONTENT_STAGES:
        raise ValueError(f"{what} is for {' and '.join(CONTENT_STAGES)}, not for {stage}")
    if drop not in ("", "content"):
        good, bad = setting("drop", "content"), setting("drop", drop)
        raise ValueError(f"after goes with {good} or none, not with {bad}")
    return after


def encode_reply(reply: str) -> bytes:
    r"""Return a reply in the form in which it is sent (RFC 5321, 4.2.1).

    Further lines of text, after line feeds, may begin with the code or not.

    >>> encode_reply("550 No.\nNot ever.")
    b'550-No.\r\n550 Not ever.'
    """
    if not isinstance(reply, str):
        raise TypeError(f"reply must be a str, such as '451 4.7.1 Later', not {reply!r}")
    lines = reply.replace("\r\n", "\n").split("\n")
    first = _CODE.match(lines[0])
    if first is None:
        raise ValueError(
            f"reply must begin with a reply code, such as '451 4.7.1 Later', not {reply!r}"
        )
    code = first[1]
    texts = [_text_of_line(line, code, reply) for line in lines]
    whole = [f"{code}-{text}" for text in texts[:-1]]
    whole.append(f"{code} {texts[-1]}" if texts[-1] else code)
    return "\r\n".join(whole).encode("utf-8")


def _text_of_line(line: str, code: str, reply: str) -> str:
    if any(not (c.isprintable() or c == "\t") for c in line):
        raise ValueError(
            f"reply must be printable text, with a line feed between lines, not {line!r}"
        )
    own = _CODE.match(line)
    if own is not None and own[1] != code:
        raise ValueError(
            f"reply must have one code in all its lines, not {code} and {own[1]}: {reply!r}"
        )
    return line if own is None else own[2] or ""
