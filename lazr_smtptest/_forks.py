"""What a forked child has no part in, and how it is kept out.  Test process.

A child gets a copy of everything, the locks that other threads hold included,
and those threads do not exist there.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["FORKING", "STARTING", "Turn", "disown_in_children"]

#: Held while descriptors are closed that a forked child would close again,
#: and held over every fork: the child would hit what has that number by then.
#: Nobody may fork while holding it: other modules have such locks, too, and
#: who forks takes those first that came last.
FORKING = threading.RLock()


class Disownable(Protocol):
    """Something that a forked child has no part in."""

    def disown(self) -> None: ...


_disownable: weakref.WeakSet[Disownable] = weakref.WeakSet()


def disown_in_children(thing: Disownable) -> None:
    """Have the ``disown`` of something called in every child that is forked.

    A child that kept the lifeline's writing end would keep the server process
    alive after the test process had died.  multiprocessing's own sentinel of
    the parent has that flaw.

    :param thing: What has the method.
    """
    _disownable.add(thing)


class Turn:
    """A lock for what one thread at a time may do; a forked child has its own.

    :ivar lock: The lock, to be taken as itself: see `_watch.Watch`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        disown_in_children(self)

    def disown(self) -> None:
        """Have a lock, in a forked child, that no other thread holds."""
        self.lock = threading.RLock()


#: For starting a process, and for closing one that has ended: as it starts
#: one, multiprocessing looks at all, and stumbles over one that is half closed.
#: Whoever needs `FORKING`, too, takes this first.
STARTING = Turn()


def _after_fork_in_child() -> None:
    for thing in list(_disownable):
        thing.disown()
    FORKING.release()


os.register_at_fork(
    before=FORKING.acquire,
    after_in_parent=FORKING.release,
    after_in_child=_after_fork_in_child,
)
