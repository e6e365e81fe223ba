"""The faults and gates in force.  Server process, on its event loop."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.tasks import sleep  # asyncio's may be a test's
from collections.abc import Callable
from typing import TYPE_CHECKING

from lazr_smtptest._reading.addresses import matches
from lazr_smtptest._wire.rules import Rule

if TYPE_CHECKING:
    from lazr_smtptest._smtp.transcript import Transcript

#: Rules whose counts are remembered when they are over.
_REMEMBERED = 10_000


class _Gate:
    """Where sessions are parked."""

    def __init__(self, stage: str, when: str | None) -> None:
        self.stage = stage
        self.when = when
        self.parked: list[asyncio.Future[bool]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._is_open = False

    async def park(self) -> bool:
        """Wait to be released, and return whether the session may go on."""
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.parked.append(place)
        self._notify()
        try:
            return await place
        finally:
            # It is gone already, unless the session has ended.
            with contextlib.suppress(ValueError):
                self.parked.remove(place)

    async def await_parked(self, count: int, timeout: float) -> int:
        """Wait until ``count`` sessions are parked, or none will be; return how many are."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        # In a loop: when this goes on, those who came may have left.
        while len(self.parked) < count and not self._is_open and loop.time() < deadline:
            change: asyncio.Future[None] = loop.create_future()
            self._waiters.append(change)
            await asyncio.wait([change], timeout=deadline - loop.time())
        return len(self.parked)

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def release(self, count: int | None, *, may_go_on: bool = True) -> int:
        """Release ``count`` sessions; without a count, open the gate."""
        going = self.parked[:count]
        del self.parked[:count]
        for place in going:
            if not place.done():
                place.set_result(may_go_on)
        if count is None:
            self._is_open = True
            self._notify()
        return len(going)


class Pace:
    """How fast a session is, as a fault has it."""

    trickle = 0.0  # seconds before each further piece of what is said
    is_waiting = False
    is_amid_reply = False

    async def wait(self, seconds: float) -> None:
        if seconds:
            self.is_waiting = True
            await sleep(seconds)
            self.is_waiting = False

    async def send(
        self, writer: asyncio.StreamWriter, octets: bytes, *, is_raw: bool = False
    ) -> None:
        """Send what is said; in pieces, if it trickles.

        These are its lines; or its octets, if it has one line, or is not made of lines.
        """
        pieces = [octets]
        if self.trickle:
            pieces = [] if is_raw else octets.splitlines(keepends=True)
            pieces = pieces if len(pieces) > 1 else [bytes([octet]) for octet in octets]
        for number, piece in enumerate(pieces):
            self.is_amid_reply = number > 0
            await self.wait(self.trickle if number else 0.0)
            writer.write(piece)
            await writer.drain()
        self.is_amid_reply = False


class FaultScript:
    """The faults and gates in force, for all sessions.

    Each has the number of the request that asked for it.  While there are none,
    nothing here costs anything: see ``active``.

    :param may_strike: Asked by stage, names and session whether they are for it; without,
        all are.
    :param on_change: Called when it may have become active, or be so no more.
    """

    def __init__(
        self,
        may_strike: Callable[[str, list[str], Transcript], bool] | None = None,
        on_change: Callable[[FaultScript], object] | None = None,
    ) -> None:
        self.active = False
        self._may_strike = may_strike
        self._on_change = on_change
        self._rules: dict[int, Rule] = {}
        self._gates: dict[int, _Gate] = {}
        self._fired: dict[int, int] = {}

    # What the test process asks for.

    def add_rule(self, number: int, rule: Rule) -> int:
        """Add a fault, and return its number.

        Of several that match, the first one added fires.
        """
        self._rules[number] = rule
        self._fired[number] = 0
        for old in list(self._fired)[:-_REMEMBERED]:
            if old not in self._rules:
                del self._fired[old]
        self._settle()
        return number

    def add_gate(self, number: int, stage: str, when: str | None) -> int:
        """Close a gate, and return its number."""
        self._gates[number] = _Gate(stage, when)
        self._settle()
        return number

    def withdraw(self, number: int) -> None:
        """Remove the fault, or open the gate, that has this number."""
        self._rules.pop(number, None)
        self.release(number, None)
        self._settle()

    def fired(self, number: int) -> int:
        """Return how often a fault has fired, also when it is over."""
        return self._fired.get(number, 0)

    async def parked(self, number: int, count: int, timeout: float) -> int:
        """Wait for sessions at a gate, and return how many there are in the end."""
        gate = self._gates.get(number)
        return 0 if gate is None else await gate.await_parked(count, timeout)

    def release(self, number: int, count: int | None) -> int:
        """Release sessions, and return how many; without a count, open the gate."""
        gate = self._gates.get(number)
        if gate is None:
            return 0
        if count is None:
            del self._gates[number]
            self._settle()
        return gate.release(count)

    def clear(self) -> None:
        """Remove all faults and gates, and drop the sessions that are parked.

        Otherwise they would continue in the next test.
        """
        self._rules.clear()
        gates = list(self._gates.values())
        self._gates.clear()
        for gate in gates:
            gate.release(None, may_go_on=False)
        self._settle()

    # What sessions ask.

    async def pass_gates(self, stage: str, names: list[str], session: Transcript) -> bool:
        """Wait until no gate is in the way; return whether the session may go on."""
        passed: set[int] = set()
        while True:
            ahead = [
                number
                for number, gate in self._gates.items()
                if number not in passed
                and gate.stage == stage
                and self._is_for(gate.when, stage, names, session)
            ]
            if not ahead:
                return True
            passed.add(ahead[0])
            if not await self._gates[ahead[0]].park():
                return False

    def match(
        self, stage: str, names: list[str], session: Transcript, *, amid_content: bool = False
    ) -> Rule | None:
        """Return the first fault that is for this, if there is one, and count it."""
        for number, rule in self._rules.items():
            is_for_this = rule.stage == stage and (rule.after is not None) == amid_content
            if is_for_this and self._is_for(rule.when, stage, names, session):
                self._fired[number] += 1
                if rule.times == self._fired[number]:
                    del self._rules[number]
                    self._settle()
                return rule
        return None

    def _is_for(self, when: str | None, stage: str, names: list[str], session: Transcript) -> bool:
        if when is not None and not any(matches(name, when) for name in names):
            return False
        return self._may_strike is None or self._may_strike(stage, names, session)

    def _settle(self) -> None:
        self.active = bool(self._rules or self._gates)
        if self._on_change is not None:
            self._on_change(self)


class FaultScripts:
    """The faults and gates of all who have some: the owner of a shared server, and leases."""

    def __init__(self) -> None:
        self._active: dict[FaultScript, None] = {}

    @property
    def active(self) -> bool:
        return bool(self._active)

    def settle(self, script: FaultScript) -> None:
        if script.active:
            self._active[script] = None
        else:
            self._active.pop(script, None)

    async def pass_gates(self, stage: str, names: list[str], session: Transcript) -> bool:
        """See `FaultScript.pass_gates`."""
        for script in list(self._active):
            if not await script.pass_gates(stage, names, session):
                return False
        return True

    def match(
        self, stage: str, names: list[str], session: Transcript, *, amid_content: bool = False
    ) -> Rule | None:
        """See `FaultScript.match`."""
        found = (
            one.match(stage, names, session, amid_content=amid_content)
            for one in list(self._active)
        )
        return next(filter(None, found), None)
