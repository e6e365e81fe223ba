"""Lets tests run pytest, and keeps the collector off what stays anyway."""

from __future__ import annotations

import gc

pytest_plugins = ["pytester"]


def pytest_collection_finish() -> None:
    """Let no test pay for the modules and items of all others.

    They stay until the end, and there are so many that a test that collects
    garbage would look through them for half a second each time.
    """
    gc.collect()
    gc.freeze()
