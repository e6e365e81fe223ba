"""Faults and gates that a test has made.  Test process.

They were checked here and sent to the server process, which carries them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazr_smtptest._names import CRITERIA_ELSEWHERE, FAULTS_ELSEWHERE, checked, is_refusal
from lazr_smtptest._util import now, seconds, whole_number
from lazr_smtptest._wire.rules import STAGES, Drop, Stage
from lazr_smtptest.errors import GateTimeout, NotRunning, ServerDied, ServerStuck

if TYPE_CHECKING:
    from typing_extensions import Self

    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest._wire.rules import Rule

__all__ = ["STAGES", "Drop", "Fault", "Gate", "Stage"]

__tracebackhide__ = is_refusal  # for pytest

#: Seconds for the server process to answer, beyond what it is to wait for.
_ANSWER_TIMEOUT = 5.0


@checked(attributes=FAULTS_ELSEWHERE)
class _InForce:
    """What is in force in the server process, by a number, until it is withdrawn."""

    def __init__(self, link: ServerLink, number: int) -> None:
        self._link = link
        self._number = number

    def _ask(self, what: str, *details: object, waits: float = 0.0) -> int:
        answer: int = self._link.request(
            what, self._number, *details, timeout=_ANSWER_TIMEOUT + waits
        )
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        try:
            self._ask("remove")
        except NotRunning:  # there is nothing left to withdraw
            return
        except (ServerDied, ServerStuck):
            # Nothing may cover up the error that the statement ends with.
            if error is None:
                raise


class Fault(_InForce):
    """A scripted misbehaviour; see `Controller.fault`.

    It is also a context manager: leaving removes it.
    """

    def __init__(self, link: ServerLink, number: int, rule: Rule) -> None:
        super().__init__(link, number)
        self._rule = rule

    def __repr__(self) -> str:
        return f"<Fault {self._rule}>"

    @property
    def fired(self) -> int:
        """How often it has fired, even after it is used up, removed or reset.

        Blocks up to 5 seconds.

        :raises NotRunning: The server has been stopped.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        """
        return self._ask("fired")

    def remove(self) -> None:
        """Remove it, so that it no longer fires.  Blocks and raises like `fired`."""
        self._ask("remove")


@checked(wait_parked=CRITERIA_ELSEWHERE, release=CRITERIA_ELSEWHERE)
class Gate(_InForce):
    """A place where sessions wait; see `Controller.gate`.

    It is also a context manager: leaving opens it.
    """

    def __init__(self, link: ServerLink, number: int, stage: str) -> None:
        super().__init__(link, number)
        self._stage = stage

    def wait_parked(self, *, count: int = 1, timeout: float = 5.0) -> int:
        """Wait until the gate holds sessions.

        :param count: For how many sessions.
        :param timeout: How long to wait at most, in seconds.
        :return: How many it holds.
        :raises GateTimeout: They did not come.
        :raises NotRunning: The server has been stopped.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer, 5 seconds after the timeout.
        :raises ValueError: The timeout is negative, or no finite number, or
            the count is below 1.
        """
        timeout = float(seconds("timeout", timeout))
        whole_number("count", count, 1)
        began = now()
        parked = self._ask("wait_parked", count, timeout, waits=timeout)
        elapsed = now() - began
        if parked < count:
            process = self._link.process
            raise GateTimeout(
                f"{parked} of {count} sessions came to the gate at {self._stage} "
                f"on {process.endpoint} within {elapsed:.2f} seconds; "
                "sessions() shows what they did instead",
                elapsed=elapsed,
                **process.where,
            )
        return parked

    def release(self, count: int | None = None) -> int:
        """Let sessions continue.  Blocks up to 5 seconds.

        :param count: How many of those that wait, the longest-waiting first;
            None for all, and for all that come later.
        :return: How many it released.
        :raises Exception: See `wait_parked`.
        """
        if count is not None:
            whole_number("count", count, 1)
        return self._ask("release", count)
