"""Fault rules: checked in the test process, carried out in the server process."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from lazr_smtptest._util import seconds, whole_number

if TYPE_CHECKING:
    from lazr_smtptest.server import Server

#: The stages of sessions; which of them a server has, depends on it.  All but the first
#: and EOM, the end of a message, are commands.
STAGES = tuple(
    "CONNECT EHLO HELO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT EOM RSET NOOP QUIT".split()
)

#: RFC 5321, 4.2: Reply-code.  What follows it is a space, a hyphen or nothing.
_CODE = re.compile(r"([2-5][0-5][0-9])(?:[ -](.*))?\Z", re.DOTALL)

_DROPS = ("before", "instead", "after")


class Rule(NamedTuple):
    """A fault, as it is sent to the server process."""

    stage: str
    reply: bytes | None  # as it is sent; None for the usual one
    when: str | None  # a glob in small letters that one of the stage's names has to match
    times: int | None
    delay: float  # in seconds, before anything is done
    drop: str  # when to close the connection; empty for not at all

    @property
    def closes(self) -> bool:
        """Whether the connection is closed after the given reply."""
        # RFC 5321, 3.8: that is what 421 says.
        return bool(self.drop) or (self.reply or b"").startswith(b"421")

    @property
    def prevents(self) -> bool:
        """Whether what the stage is for is not done."""
        return self.reply is not None or self.drop == "before"


def missing_stages(server: Server) -> dict[str, str]:
    """Return the stages that a server's sessions do not have, and why each is missing."""
    missing: dict[str, str] = {}
    if server.lmtp:  # RFC 2033, 4.1
        missing |= dict.fromkeys(("EHLO", "HELO"), "an LMTP server has LHLO in its place")
    else:
        missing["LHLO"] = "only a server with lmtp=True has it"
    if "CHUNKING" not in server._offered_extensions:
        missing["BDAT"] = "only a server with offer=('CHUNKING',) has it"
    return missing


def make_rule(
    server: Server,
    stage: str,
    reply: str | None,
    when: str | None,
    times: int | None,
    delay: float,
    drop: bool | str,
) -> Rule:
    """Check the parts of a fault, and return the rule; TypeError or ValueError otherwise."""
    stage, when = check_stage(server, stage, when)
    if times is not None:
        times = int(whole_number("times", times, 1))
    delay = float(seconds("delay", delay))
    if drop is True:
        drop = "before" if reply is None else "after"
    elif drop is False:
        drop = ""
    elif drop not in _DROPS:
        known = ", ".join(map(repr, _DROPS))
        raise ValueError(f"drop must be True, False or one of {known}, not {drop!r}")
    if reply is not None and drop in ("before", "instead"):
        raise ValueError(f"drop={drop!r} means that there is no reply: give one or the other")
    if reply is None and not drop and not delay:
        raise ValueError("a fault needs a reply, a delay, or drop")
    encoded = None if reply is None else encode_reply(reply)
    if stage == "DATA" and encoded is not None and encoded.startswith(b"354") and not drop:
        raise ValueError(
            "a fault at DATA that says 354 has the client send content that nobody awaits: "
            "give a delay alone, drop, or a fault at EOM"
        )
    return Rule(stage, encoded, when, times, delay, "".join(drop))


def check_stage(server: Server, stage: str, when: str | None) -> tuple[str, str | None]:
    """Check where a fault or a gate of a server applies."""
    missing = missing_stages(server)
    known = [name for name in STAGES if name not in missing]
    if stage not in known:
        why = f": {missing[stage]}" if stage in STAGES else ""
        raise ValueError(f"stage must be one of {', '.join(known)}, not {stage!r}{why}")
    if when is not None and not isinstance(when, str):
        raise TypeError(f"when must be a str, such as '*@example.com', not {when!r}")
    # As plain strings: a subclass of the test's may not be there to unpickle it.
    return "".join(stage), when and when.lower()


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
