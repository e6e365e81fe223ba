"""What a test has ordered, carried out.  Server process, on its event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from lazr_smtptest.faults import Rule

__all__ = ["Script"]

#: Orders whose counts are remembered when they are over.
_REMEMBERED = 10_000


class _Gate:
    """Where sessions are parked."""

    def __init__(self, stage: str, when: str | None) -> None:
        self.stage = stage
        self.when = when
        self.parked: list[asyncio.Future[bool]] = []
        self._changed = asyncio.Event()
        self._is_open = False

    async def park(self) -> bool:
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.parked.append(place)
        self._changed.set()
        try:
            return await place
        finally:
            # It is gone already, unless the session has ended.
            with contextlib.suppress(ValueError):
                self.parked.remove(place)

    async def await_parked(self, count: int, timeout: float) -> int:
        async def enough() -> None:
            while len(self.parked) < count and not self._is_open:
                self._changed.clear()
                await self._changed.wait()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(enough(), timeout)
        return len(self.parked)

    def release(self, count: int | None, *, may_go_on: bool = True) -> int:
        going = self.parked[:count]
        del self.parked[:count]
        for place in going:
            if not place.done():
                place.set_result(may_go_on)
        if count is None:
            self._is_open = True
            self._changed.set()
        return len(going)


class Script:
    """The orders that are in force, for all sessions.

    :ivar active: Whether there are any.  While there are none, nothing here
        costs anything.
    """

    def __init__(self) -> None:
        self.active = False
        self._numbers = 0
        self._rules: dict[int, Rule] = {}
        self._gates: dict[int, _Gate] = {}
        self._fired: dict[int, int] = {}

    # What the test process asks for.

    def add_rule(self, rule: Rule) -> int:
        """Put an order behind those that are there.

        :return: Its number.
        """
        number = self._next_number()
        self._rules[number] = rule
        self._fired[number] = 0
        for old in list(self._fired)[:-_REMEMBERED]:
            if old not in self._rules:
                del self._fired[old]
        self.active = True
        return number

    def add_gate(self, stage: str, when: str | None) -> int:
        """Close a gate.

        :return: Its number.
        """
        number = self._next_number()
        self._gates[number] = _Gate(stage, when)
        self.active = True
        return number

    def withdraw(self, number: int) -> int:
        """Remove an order."""
        self._rules.pop(number, None)
        self._settle()
        return 0

    def fired(self, number: int) -> int:
        """Count how often an order has struck."""
        return self._fired.get(number, 0)

    async def parked(self, number: int, count: int, timeout: float) -> int:
        """Wait for sessions at a gate.

        :return: How many there are in the end.
        """
        gate = self._gates.get(number)
        return 0 if gate is None else await gate.await_parked(count, timeout)

    def release(self, number: int, count: int | None) -> int:
        """Let sessions go; without a count, open the gate."""
        gate = self._gates.get(number)
        if gate is None:
            return 0
        if count is None:
            del self._gates[number]
            self._settle()
        return gate.release(count)

    def clear(self) -> None:
        """Remove all orders, and drop the sessions that are parked.

        Otherwise they would go on in the test that comes next.
        """
        self._rules.clear()
        gates = list(self._gates.values())
        self._gates.clear()
        for gate in gates:
            gate.release(None, may_go_on=False)
        self._settle()

    # What sessions ask.

    async def pass_gates(self, stage: str, names: Iterable[str]) -> bool:
        """Wait until no gate is in the way.

        :return: Whether the session may go on.
        """
        names = list(names)
        passed: set[int] = set()
        while True:
            ahead = [
                number
                for number, gate in self._gates.items()
                if number not in passed and gate.stage == stage and _meets(gate.when, names)
            ]
            if not ahead:
                return True
            passed.add(ahead[0])
            if not await self._gates[ahead[0]].park():
                return False

    def strike(self, stage: str, names: Iterable[str]) -> Rule | None:
        """Give the order that strikes here, and count it.

        :param stage: The stage.
        :param names: What its glob is matched with.
        :return: The first that is for this; None if there is none.
        """
        names = list(names)
        for number, rule in self._rules.items():
            if rule.stage == stage and _meets(rule.when, names):
                self._fired[number] += 1
                if rule.times == self._fired[number]:
                    self.withdraw(number)
                return rule
        return None

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _settle(self) -> None:
        self.active = bool(self._rules or self._gates)


def _meets(when: str | None, names: list[str]) -> bool:
    return when is None or any(fnmatchcase(name.lower(), when) for name in names)
