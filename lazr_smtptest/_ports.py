"""Which worker of pytest-xdist has which port.  Test process."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["describe", "port_of"]


def port_of(worker: str, base: int) -> int:
    """Give the port of a worker.

    :param worker: The worker's name, such as ``gw1``; empty without any.
    :param base: The port of the first; 0 asks for a free one, for each.
    :return: The port.
    """
    number = re.search(r"\d+\Z", worker)
    return base + int(number[0]) if base and number else base


def describe(host: str, base: int, specs: Sequence[str]) -> str:
    """Say who has which port, for the head of pytest's report.

    :param host: Where the servers listen.
    :param base: The port of the first.
    :param specs: What pytest-xdist starts its workers by, such as ``4*popen``.
    :return: One line.
    """
    workers = sum(
        int(count) if star and count.isdigit() else 1
        for count, star, _ in (spec.partition("*") for spec in specs)
    )
    owners = [f"port {base + n} for gw{n}" for n in range(workers)] or [f"port {base}"]
    return f"smtptest: {host or 'all interfaces'}, {', '.join(owners)}"
