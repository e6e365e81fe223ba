"""What a test may have put in the place of clocks, files and system calls.  Both processes.

Tests freeze time (freezegun, time-machine), have files in memory (pyfakefs), and
replace functions by mocks.  None of that is meant for a server beside the test.

What is called for each message and each wait is held by reference from the import of
its module on, so that a mock of ``os.readv`` is not called here.  But the standard
library looks up what it calls, a forked process keeps for life what its parent had
replaced, and a module that is imported meanwhile keeps what it found.  So whatever
imports, forks, or goes through `multiprocessing` does so `without_fakes`.

This module is imported first of all, when nothing is replaced yet.
"""

from __future__ import annotations

import builtins
import contextlib
import copyreg
import datetime
import fcntl
import gc
import io
import logging
import os
import pickle
import resource
import select
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

#: The functions and classes of the standard library that multiprocessing and asyncio
#: look up, as they are without a test.
_REAL = [
    (
        vars(module),
        {
            name: value
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_")
        },
    )
    for module in (
        *(builtins, datetime, fcntl, gc, io, logging, os, pickle, resource),
        *(select, selectors, signal, socket, tempfile, threading, time),
    )
]

#: The swap is the whole process's: one at a time, and within another there is none to do.
#: Whoever takes other locks, too, takes this before `STARTING` and `FORKING`.
_swapping = threading.RLock()


def _after_fork_in_child() -> None:
    global _swapping  # which a thread may have held that does not exist here
    _swapping = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def without_fakes() -> Iterator[None]:
    """Have the real functions and the real files for a moment; see the module.

    Other threads have them, too, so it is for moments only.  A process that is forked
    in it keeps them.
    """
    with _swapping, _real_files():
        replaced = [
            (namespace, name, namespace[name], real)
            for namespace, reals in _REAL
            for name, real in reals.items()
            if namespace.get(name, real) is not real
        ]
        try:
            for namespace, name, _, real in replaced:
                namespace[name] = real
            yield
        finally:
            for namespace, name, fake, _ in replaced:
                namespace[name] = fake


@contextlib.contextmanager
def _real_files() -> Iterator[None]:
    pyfakefs: Any = sys.modules.get("pyfakefs.fake_filesystem_unittest")
    patcher = getattr(getattr(pyfakefs, "Patcher", None), "PATCHER", None)
    if patcher is None or not patcher.is_patching:
        yield
    else:
        with pyfakefs.Pause(patcher):
            yield


# In a new server process.


def end_time_travel() -> None:
    """Set the clocks going that stood still when this process was forked.

    Whoever stopped them does not exist here, and would never set them going.
    """
    time_machine: Any = sys.modules.get("time_machine")
    while time_machine is not None and time_machine.escape_hatch.is_travelling():
        time_machine.travel(0).stop()  # which ends the last journey, whosever it is
    freezegun: Any = sys.modules.get("freezegun.api")
    if freezegun is not None and freezegun.freeze_factories:
        _unfreeze(freezegun)


def _unfreeze(freezegun: ModuleType) -> None:
    """Do what the end of freezegun's outermost context does; only that object could."""
    fakes = vars(freezegun)
    reals = {
        id(fake): fakes[real]
        for name, fake in fakes.items()
        if name[:4].lower() == "fake"
        and (real := f"real_{name[4:].strip('_').lower()}") in fakes  # FakeDate, fake_time
    }
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module is not freezegun:
            namespace = vars(module)
            namespace.update(
                {name: reals[id(fake)] for name, fake in namespace.items() if id(fake) in reals}
            )
    # Where else they are held, fakes whose freezing has ended call what is real.
    fakes["freeze_factories"].clear()
    fakes["ignore_lists"].clear()
    for kind in (datetime.datetime, datetime.date):
        copyreg.dispatch_table.pop(kind, None)
