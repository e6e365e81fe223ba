"""What a test may have put in the place of clocks, files and system calls.  Both processes.

Tests freeze time (freezegun, time-machine), have files in memory (pyfakefs), and
replace functions by mocks.  None of that is meant for a server beside the test.

What is called for each message and each wait is held by reference from the import of
its module on, so that a mock of ``os.readv`` is not called here.  But the standard
library looks up what it calls, a forked process keeps for life what its parent had
replaced, and a module that is imported meanwhile keeps what it found.  So whatever
imports, forks, or goes through `multiprocessing` does so `without_fakes`.

This module is imported first of all, as a rule when nothing is replaced yet.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module as _import
from types import ModuleType
from typing import Any


def _pyfakefs_patcher() -> Any:
    """Return what has put files in memory into the place of the real ones, if that is so."""
    pyfakefs: Any = sys.modules.get("pyfakefs.fake_filesystem_unittest")
    patcher = getattr(getattr(pyfakefs, "Patcher", None), "PATCHER", None)
    # ``is_patching``, since 5.9
    return patcher if getattr(patcher, "_patching", False) else None


@contextlib.contextmanager
def _real_files() -> Iterator[None]:
    patcher = _pyfakefs_patcher()
    if patcher is None:
        yield
        return
    # It would have what has been imported meanwhile imported again, as another module.
    # (In releases before 5.8 that cannot be helped.)
    kept = getattr(patcher, "cleanup_handlers", {})
    for name in list(sys.modules):
        if name.partition(".")[0] == "lazr_smtptest":
            kept[name] = lambda _: True
    with sys.modules["pyfakefs.fake_filesystem_unittest"].Pause(patcher):
        yield


def _reals(freezegun: ModuleType) -> dict[int, Any]:
    """Return what freezegun replaces, by the ids of what it puts in its place."""
    names = vars(freezegun)
    return {
        id(fake): names[real]
        for name, fake in names.items()
        if name[:4].lower() == "fake"  # FakeDate, fake_time
        and (real := f"real_{name[4:].strip('_').lower()}") in names
    }


def _functions(owner: ModuleType | type) -> dict[str, Any]:
    """Return the functions of a module, or the methods of a class, as they are now."""
    freezegun = sys.modules.get("freezegun.api")
    reals = {} if freezegun is None else _reals(freezegun)
    return {
        name: reals.get(id(value), value)
        for name, value in vars(owner).items()
        if callable(value)
        and (not name.startswith("_") or name == "_exit")
        # What is mocked while this is imported is not known.
        and type(value).__module__ != "unittest.mock"
        # What a host's name stands for is for the test to say.
        if name != "getaddrinfo"
    }


def _inherited(owner: ModuleType | type) -> dict[str, Any]:
    """Return the methods that a class has from its bases."""
    if isinstance(owner, ModuleType):
        return {}
    return {
        name: value
        for name in dir(owner)
        if not name.startswith("_") and name not in vars(owner)
        if callable(value := getattr(owner, name))
    }


with _real_files():
    import atexit
    import builtins
    import copyreg
    import datetime
    import fcntl
    import gc
    import io
    import logging
    import os
    import select
    import selectors
    import signal
    import socket
    import tempfile
    import threading
    import time
    from operator import itemgetter

    from lazr_smtptest._greenlets import replaced_by_greenlets

    #: The functions and classes of the standard library that multiprocessing and asyncio
    #: look up, and those of their methods that a test can replace, as they are without a
    #: test: whose they are, by name what is there, the same as a tuple, what takes such a
    #: tuple out of a namespace, and what a class inherits.
    _REAL = [
        (owner, functions, tuple(functions.values()), itemgetter(*functions), _inherited(owner))
        for owner, functions in (
            (owner, _functions(owner))
            for owner in (
                *(atexit, builtins, datetime, fcntl, gc, io, logging, os),
                *(select, selectors, signal, socket, tempfile, threading, time),
                *(logging.Handler, logging.Logger, socket.socket, threading.Condition),
                *(threading.Event, threading.Semaphore, threading.Thread),
            )
        )
        if functions  # a class of gevent's may have none of its own
    ]

#: Packages that wrap functions for good.
_TOOLS = frozenset({"_pydev_bundle", "_pydevd_bundle", "coverage", "pydevd"})

#: The swap affects the whole process: one at a time, and a nested one does nothing.
#: Code that takes other locks, too, takes this before `STARTING` and `FORKING`.
_swapping = threading.RLock()


def _after_fork_in_child() -> None:
    global _swapping  # which a thread may have held that does not exist here
    _swapping = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_of_a_tool(replacement: Any) -> bool:
    """Return whether a debugger or coverage follows processes by it, and means to."""
    module = getattr(replacement, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in _TOOLS


def _is_untouched(
    namespace: Mapping[str, Any],
    reals: tuple[Any, ...],
    take: itemgetter[Any],
    inherited: dict[str, Any],
) -> bool:
    # Whatever Python looks at one by one, it counts references to; and behind a fork, each
    # page of memory that is written to has to be copied.  This looks at half as many.
    try:
        is_as_it_was = bool(take(namespace) == reals)
    except KeyError:
        return False
    # Of the views, the shorter one is gone through.
    return is_as_it_was and not (inherited and inherited.keys() & namespace.keys())


def _replaced(only: Collection[ModuleType] = ()) -> list[tuple[Any, str, Any, Any]]:
    """Return what a test has replaced: whose it is, the name, what is there, what was."""
    changed = [
        (owner, name, vars(owner)[name], real)
        for owner, functions, reals, take, inherited in _REAL
        if not only or owner in only
        if not _is_untouched(vars(owner), reals, take, inherited)
        for name, real in (functions | inherited).items()
        if vars(owner).get(name, real) is not real
    ]
    # Not what gevent or eventlet have replaced: they notice, and the server process
    # undoes that in order.
    kept = {(module, name) for module, name, _ in replaced_by_greenlets()} if changed else ()
    return [
        one
        for one in changed
        if (one[0].__name__, one[1]) not in kept and not _is_of_a_tool(one[2])
    ]


@contextlib.contextmanager
def without_fakes(*only: ModuleType) -> Iterator[None]:
    """Restore the real functions and the real files for a moment; see the module.

    Where a test has replaced nothing, this does nothing.  Other threads have them, too,
    so it is for moments only.  A process that is forked in it keeps them.

    :param only: The modules whose functions are needed, which is quicker than all.
    """
    if _pyfakefs_patcher() is None and not _replaced(only):
        yield
        return
    with _swapping, _real_files():
        replaced = _replaced(only)
        try:
            for owner, name, _, real in replaced:
                setattr(owner, name, real)
            yield
        finally:
            for owner, name, fake, real in replaced:
                if vars(owner).get(name) is real:  # nobody has replaced it anew
                    setattr(owner, name, fake)


def imported(name: str) -> ModuleType:
    """Return a module, and import it if need be, with all that it needs as it is."""
    if name not in sys.modules:
        with without_fakes():
            return _import(name)
    return _import(name)  # another thread may be about to import it: that is waited for


# In a new server process.


def end_time_travel() -> None:
    """Start the clocks again that stood still when this process was forked.

    What stopped them does not exist here, and would never start them again.
    """
    time_machine: Any = sys.modules.get("time_machine")
    while time_machine is not None and time_machine.escape_hatch.is_travelling():
        time_machine.travel(0).stop()  # which ends the last journey, whosever it is
    freezegun: Any = sys.modules.get("freezegun.api")
    if freezegun is not None and freezegun.freeze_factories:
        _unfreeze(freezegun)
    if "libfaketime" in sys.modules:
        # Its C library, which is behind all clocks but the monotonic one, looks here each time.
        for name in ("FAKETIME", "FAKETIME_TIMESTAMP_FILE"):
            os.environ.pop(name, None)


def _unfreeze(freezegun: ModuleType) -> None:
    """Do what the end of freezegun's outermost context does; only that object could."""
    reals = _reals(freezegun)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module is not freezegun:
            namespace = vars(module)
            namespace.update(
                {name: reals[id(fake)] for name, fake in namespace.items() if id(fake) in reals}
            )
    # Where else they are held, fakes whose freezing has ended call what is real.
    freezegun.freeze_factories.clear()
    freezegun.ignore_lists.clear()
    for kind in (datetime.datetime, datetime.date):
        copyreg.dispatch_table.pop(kind, None)
