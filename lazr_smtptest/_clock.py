"""The clock that deadlines are measured by.  Both processes.

`time.monotonic` is what a test replaces that freezes time, and a deadline by a
frozen clock never comes.  This is the same clock, asked for in another way.
"""

from __future__ import annotations

import time

__all__ = ["now"]


def now() -> float:
    """Give the time in seconds since some moment; it goes on whatever happens."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
