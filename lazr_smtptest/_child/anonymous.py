"""Descriptors of anonymous inodes, such as epoll instances, in a forked process.  Linux.

Both processes: the test process looks before the fork, and the server process after it.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Iterable

from lazr_smtptest._greenlets import original

_PREFIX = "anon_inode:"


def kind_of(fd: int) -> str:
    """Return what an anonymous inode is, as "[eventpoll]"; nothing for any other descriptor."""
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode):  # anonymous inodes alone have no type
            return ""
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
    return target.removeprefix(_PREFIX) if target.startswith(_PREFIX) else ""


class AnonymousInodes:
    """Those that the test process has as it forks.

    A copy of an epoll instance is the same instance: what a child registers there is
    registered in the test process, and an event that it takes is gone.  So the server
    process must not have it.  But C code with threads of its own, gRPC's for one, opens
    new ones in every child, which often get the numbers of the old, and starts its threads
    again, all before any Python code runs there; without its descriptors it aborts.

    All anonymous inodes look alike from outside, but an epoll instance knows what is
    registered with it, number and object, and a fork copies that one, too.
    """

    def __init__(self, descriptors: Iterable[int]) -> None:
        """Note them, in the test process."""
        self._known: select.epoll | None = None
        found = [fd for fd in descriptors if kind_of(fd)]
        if found:
            self._known = original("select", "epoll")()
        for fd in found:
            with contextlib.suppress(OSError):  # closed meanwhile, or of a kind that cannot be
                self._register(fd)

    def _register(self, fd: int) -> None:
        assert self._known is not None
        self._known.register(fd, 0)

    def close(self) -> None:
        if self._known is not None:
            self._known.close()

    def is_inherited(self, fd: int) -> bool:
        """Whether the fork copied it, in the server process."""
        try:
            if self._known is not None:
                self._register(fd)
        except FileExistsError:
            return True
        except OSError:
            # It cannot be registered, and no thread waits for what cannot be ready.
            return True
        return False


def open_idle(kind: str, flags: int) -> int:
    """Open what can stand in for an anonymous inode: usable, and nothing ever happens there.

    To an owner that lives on here, that is an epoll instance with nothing registered; for
    all other kinds an eventfd, which is never readable either.
    """
    if kind == "[eventpoll]":
        with contextlib.closing(original("select", "epoll")()) as idle:
            return os.dup(idle.fileno())
    return os.eventfd(0, (os.EFD_NONBLOCK if flags & os.O_NONBLOCK else 0) | os.EFD_CLOEXEC)
