"""Scripted replies: what a test orders, and a server process carries out.

Both processes: the orders are made and checked in the test process, by
`Controller.fault` and `Controller.gate`, and what they say is sent to the
server process.
"""

from __future__ import annotations

import abc
import re
from typing import TYPE_CHECKING, NamedTuple

from lazr_smtptest._clock import now, seconds
from lazr_smtptest.errors import GateTimeout, NotRunning, ServerDied, ServerStuck

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from lazr_smtptest._home import HomeEnd

__all__ = ["STAGES", "Fault", "Gate"]

#: Where in a session something can be ordered.  All but the first and EOM, the
#: end of a message, are commands.
STAGES = (
    "CONNECT",
    "EHLO",
    "HELO",
    "STARTTLS",
    "AUTH",
    "MAIL",
    "RCPT",
    "DATA",
    "EOM",
    "RSET",
    "NOOP",
    "QUIT",
)

#: RFC 5321, 4.2: Reply-code.  What follows it is a space, a hyphen or nothing.
_CODE = re.compile(r"([2-5][0-5][0-9])(?:[ -](.*))?\Z", re.DOTALL)

_DROPS = ("before", "instead", "after")

#: Seconds for the server process to answer, beyond what it is to wait for.
_ANSWER_TIMEOUT = 5.0


class Rule(NamedTuple):
    """One order, as it is sent to the server process.

    :ivar stage: One of `STAGES`.
    :ivar reply: The reply as it is to be sent, or None for the usual one.
    :ivar when: A glob in small letters that one of the stage's names has to
        match, or None.
    :ivar times: How often it strikes, or None for always.
    :ivar delay: Seconds to wait first.
    :ivar drop: When to close the connection: an empty string for not at all,
        or ``"before"``, ``"instead"`` or ``"after"``.
    """

    stage: str
    reply: bytes | None
    when: str | None
    times: int | None
    delay: float
    drop: str

    @property
    def closes(self) -> bool:
        """Whether the connection is closed after the given reply."""
        # RFC 5321, 3.8: that is what 421 says.
        return bool(self.drop) or (self.reply or b"").startswith(b"421")


def make_rule(
    stage: str,
    reply: str | None,
    when: str | None,
    times: int | None,
    delay: float,
    drop: bool | str,
) -> Rule:
    """Check an order.

    :return: The order, ready to be sent.
    :raises TypeError: A value is of the wrong type.
    :raises ValueError: A value is not possible, or nothing is ordered at all.
    """
    check_stage(stage, when)
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise ValueError(f"times must be a whole number from 1 on, or None, not {times!r}")
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
    return Rule(stage, encoded, when and when.lower(), times, delay, drop)


def check_stage(stage: str, when: str | None) -> None:
    """Check where an order is to apply.

    :raises TypeError: The glob is no string.
    :raises ValueError: There is no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
    if when is not None and not isinstance(when, str):
        raise TypeError(f"when must be a str, such as '*@example.com', not {when!r}")


def encode_reply(reply: str) -> bytes:
    r"""Bring a reply into the form in which it is sent (RFC 5321, 4.2.1).

    :param reply: The code and the text; further lines of text, after line
        feeds, may begin with the code or not.
    :return: The lines, without the last line's end.
    :raises TypeError: It is no string.
    :raises ValueError: It does not begin with a code, or has a character in
        it that cannot be sent.

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
    texts = []
    for line in lines:
        if any(not (c.isprintable() or c == "\t") for c in line):
            raise ValueError(
                f"reply must be printable text, with a line feed between lines, not {line!r}"
            )
        own = _CODE.match(line)
        if own is not None and own[1] != code:
            raise ValueError(
                f"reply must have one code in all its lines, not {code} and {own[1]}: {reply!r}"
            )
        texts.append(line if own is None else own[2] or "")
    whole = [f"{code}-{text}" for text in texts[:-1]]
    whole.append(f"{code} {texts[-1]}" if texts[-1] else code)
    return "\r\n".join(whole).encode("utf-8")


def _check_count(count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count must be a whole number from 1 on, not {count!r}")


class _Order(abc.ABC):
    """What both kinds of order have in common: they can be withdrawn.

    :param home: The way to the server process.
    :param number: The order's number there.
    """

    def __init__(self, home: HomeEnd, number: int) -> None:
        self._home = home
        self._number = number

    def _ask(self, what: str, *details: object, patience: float = 0.0) -> int:
        answer: int = self._home.request(
            what, self._number, *details, timeout=_ANSWER_TIMEOUT + patience
        )
        return answer

    @abc.abstractmethod
    def _undo(self) -> None:
        """Withdraw it, as leaving a ``with`` statement does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._undo()
        except NotRunning:  # there is nothing left to withdraw
            return
        except (ServerDied, ServerStuck):
            # Nothing may cover up the error that the statement ends with.
            if error is None:
                raise


class Fault(_Order):
    """A scripted reply that was ordered; see `Controller.fault`.

    It is a context manager, too: leaving removes it.
    """

    @property
    def fired(self) -> int:
        """How often it has struck, also when it is spent, removed or reset.

        Blocks up to 5 seconds.

        :raises NotRunning: The server has been stopped.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        """
        return self._ask("fired")

    def remove(self) -> None:
        """Have it strike no more.  Blocks and raises like `fired`."""
        self._ask("remove")

    def _undo(self) -> None:
        self.remove()


class Gate(_Order):
    """A place where sessions wait; see `Controller.gate`.

    It is a context manager, too: leaving opens it.
    """

    def __init__(self, home: HomeEnd, number: int, stage: str) -> None:
        super().__init__(home, number)
        self._stage = stage

    def wait_parked(self, timeout: float = 5.0, *, count: int = 1) -> int:
        """Wait until sessions are parked here.

        :param timeout: How long to wait at most, in seconds.
        :param count: For how many sessions.
        :return: How many are.
        :raises GateTimeout: They have not come.
        :raises NotRunning: The server has been stopped.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer, 5 seconds after the timeout.
        :raises ValueError: The timeout is negative, or no finite number, or
            the count is below 1.
        """
        timeout = float(seconds("timeout", timeout))
        _check_count(count)
        began = now()
        parked = self._ask("wait_parked", count, timeout, patience=timeout)
        elapsed = now() - began
        if parked < count:
            where = self._home.where
            raise GateTimeout(
                f"{parked} of {count} sessions came to the gate at {self._stage} "
                f"on {where['host']} port {where['port']} within {elapsed:.2f} seconds; "
                "sessions() shows what they did instead",
                elapsed=elapsed,
                **where,
            )
        return parked

    def release(self, count: int | None = None) -> int:
        """Let sessions go on.  Blocks up to 5 seconds.

        :param count: How many of those that are parked, the one that waited
            longest first; None for all, and for all that are still to come.
        :return: How many were let go.
        :raises Exception: See `wait_parked`.
        """
        if count is not None:
            _check_count(count)
        return self._ask("release", count)

    def _undo(self) -> None:
        self.release()
