"""What forked children of the test process close at once.  Test process.

A child gets a copy of everything, the locks that other threads hold included,
and those threads do not exist there.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from threading import RLock, get_ident
from typing import Protocol

#: Held while descriptors are closed that a forked child would close again,
#: and held over every fork: the child would hit what has that number by then.
#: No code may fork while holding it: other modules have such locks, too, and
#: a fork takes those first that came last.
FORKING = RLock()


class Disownable(Protocol):
    def disown(self) -> None: ...


_disownable: weakref.WeakSet[Disownable] = weakref.WeakSet()


def disown_in_children(thing: Disownable) -> None:
    """Call ``thing.disown()`` in every child that is forked from now on.

    A child that kept the lifeline's writing end would keep the server process
    alive after the test process had died.  multiprocessing's own sentinel of
    the parent has that flaw.
    """
    _disownable.add(thing)


class ForkSafeLock:
    """A lock that no thread holds in a forked child.

    Its ``lock`` is taken as itself: a ``with`` of our own would be Python code,
    where an exception from a signal handler would leave it locked.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        disown_in_children(self)

    def disown(self) -> None:
        self.lock = RLock()


#: For starting a process, and for closing one that has ended: as it starts
#: one, multiprocessing looks at all, and stumbles over one that is half closed.
#: Whoever needs `FORKING`, too, takes this first.
STARTING = ForkSafeLock()


#: By thread, what the child does first that this thread forks now.
_first_steps: dict[int, Callable[[], None]] = {}


def fork_with(step: Callable[[], None], start: Callable[[], object]) -> None:
    """Call ``start()``, which forks on this thread, and ``step()`` first of all in the child."""
    _first_steps[get_ident()] = step
    try:
        start()
    finally:
        _first_steps.pop(get_ident(), None)


def _after_fork_in_child() -> None:
    for thing in list(_disownable):
        thing.disown()
    FORKING.release()
    step = _first_steps.get(get_ident())
    _first_steps.clear()
    if step is not None:
        step()


def _before_fork() -> None:
    # By its name: eventlet puts other locks in the place of those that it finds.
    FORKING.acquire()


def _after_fork_in_parent() -> None:
    FORKING.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
