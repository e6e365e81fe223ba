"""The clock that deadlines are measured by, and how long they may be.  Both processes.

`time.monotonic` is what a test replaces that freezes time, and a deadline by a
frozen clock never comes.  This is the same clock, asked for in another way.
"""

from __future__ import annotations

import math
import time

__all__ = ["now", "seconds"]


def now() -> float:
    """Give the time in seconds since some moment; it goes on whatever happens."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def seconds(name: str, value: float) -> float:
    """Check a length of time that a caller gave.

    :param name: What it is called.
    :param value: The length.
    :return: The length.
    :raises TypeError: It is no number.
    :raises ValueError: It is negative, or no finite number.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds from 0 on, not {value!r}")
    return value
