"""What the fork copied into a new server process, and what of it is kept.

A forked server process drops every descriptor it inherited, except its own, the
standard streams, and those the server's code was given on
purpose: a `multiprocessing.Queue` to send results through, a socket, an open
file.  Those are the ones that can be reached from the server object: by its
attributes, and by the variables that its class's own functions use.

Server process, right after the fork.  None of this imports a module, or writes to an
inherited stream: see `main`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lazr_smtptest._child.anonymous import AnonymousInodes, kind_of, open_idle
from lazr_smtptest._greenlets import MonkeyPatches
from lazr_smtptest._wire.channel import ChildEnds
from lazr_smtptest._wire.startup import PassedSocket, PickledServer

if TYPE_CHECKING:
    from lazr_smtptest._child.loop import ServerLoop
    from lazr_smtptest.server import Server

#: How many objects to look at.  A server that carries more than that hardly
#: carries them for the sake of their descriptors.
_MOST = 20_000

_OPAQUE = (str, bytes, bytearray, int, float, complex, type, type(None), types.ModuleType)


class FirstStep:
    """What a forked server process does before anything else can run there.

    It is called by the fork itself, and not from `main`.  What is opened there between the
    two, by a debugger that connects anew, say, is the server process's own, and stays.
    """

    def __init__(
        self,
        ends: ChildEnds,
        sockets: Iterable[PassedSocket],
        server: PickledServer,
        patches: MonkeyPatches,
    ) -> None:
        """Look at what there is, in the test process.

        What is found out here, the server process need not: after a fork, each page of
        memory that is looked at has to be copied.
        """
        self._server = server
        own = {*(pipe.fileno() for pipe in ends.pipes()), *(sock.fileno() for sock in sockets)}
        standard = _standard_descriptors()
        self._keep = standard | own
        # Fresh streams: the copied ones may have text in them that the test
        # process is going to write too, and their locks may be held for ever.
        self._out, self._err = (_open_stream(fd) if fd in standard else None for fd in (1, 2))
        self.patches = patches
        self._anonymous = AnonymousInodes(open_descriptors())
        self.coverage = find_coverage()
        self.loggers = find_loggers()
        self._was_taken = False
        self._error: BaseException | None = None
        #: What runs there, if that has been prepared here.
        self.loop: ServerLoop | None = None

    def prepare(self, make_loop: Callable[[], ServerLoop], server: Server) -> None:
        """Make what the server process runs, in the test process.

        If that fails because of the server, it does so there, too, and `main` tells of it.
        """
        loop = make_loop()
        try:
            loop.prepare(server)
        except Exception:
            loop.drop()
        else:
            self.loop = loop

    def close(self) -> None:
        """Close what is no longer needed; in both processes."""
        self._anonymous.close()

    def drop(self) -> None:
        """Let go of what was made for the server process, which is gone."""
        if self.loop is not None:
            self.loop.drop()

    def __call__(self) -> None:
        """Take that step.  An exception would be lost here, so `check` raises it."""
        try:
            self._drop_inherited_descriptors()
            self._was_taken = True
        except BaseException as error:
            self._error = error
        self.close()

    def _drop_inherited_descriptors(self) -> None:
        """Drop all descriptors that the fork copied and that are not for this process.

        They are pointed at the null device and not closed: the objects that hold
        their numbers live on here, and would one day close what had been given
        those numbers since.
        """
        # Not in the test process, where to look at other people's objects might change them.
        keep = self._keep | reachable_descriptors(self._server.load())
        null = os.open(os.devnull, os.O_RDWR)
        for fd in open_descriptors():
            if fd in keep or fd == null:
                continue
            with contextlib.suppress(OSError):  # the descriptor that the listing itself used
                if kind := kind_of(fd):
                    if self._anonymous.is_inherited(fd):
                        _replace(fd, open_idle(kind, fcntl.fcntl(fd, fcntl.F_GETFL)))
                else:
                    os.dup2(null, fd, inheritable=False)
        _inherited.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
        sys.stdout = sys.__stdout__ = self._out or _open_stream(null)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self._err or _open_stream(null)  # type: ignore[misc]

    def check(self) -> None:
        if self._error is not None:
            raise self._error
        assert self._was_taken, "a hook of the fork failed before this one"


def find_coverage() -> Any:
    """Return the `coverage.Coverage` object that measures this process, if one does."""
    module = sys.modules.get("coverage")  # which may be any module of that name
    current = getattr(getattr(module, "Coverage", None), "current", None)
    return None if current is None else current()


def find_loggers() -> list[logging.Logger]:
    """Return the loggers that have handlers, and those that pass nothing on: the root, for one."""
    root = logging.getLogger()
    known = list(root.manager.loggerDict.values())  # at once: other threads may get new ones
    found = [one for one in known if isinstance(one, logging.Logger)]
    return [root, *(logger for logger in found if logger.handlers or not logger.propagate)]


def _replace(fd: int, new: int) -> None:
    os.dup2(new, fd, inheritable=False)
    os.close(new)


#: Streams of the test process.  Kept, because collecting one would write, here
#: too, what it has in its buffer.
_inherited: list[Any] = []


def _standard_descriptors() -> set[int]:
    """Return those of 0, 1 and 2 that are standard streams.

    Where one is closed, the next file that the test process opens gets its
    number.  What this program opened is not inheritable (PEP 446); what it was
    started with is, and so is what it put in its place by `os.dup2`.
    """
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return {
        fd
        for fd, stream in enumerate(streams)
        if stream is not None and _is_open(fd) and os.get_inheritable(fd)
    }


def _open_stream(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def open_descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return [fd for fd in range(min(os.sysconf("SC_OPEN_MAX"), 65_536)) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# What was given on purpose.


def reachable_descriptors(server: object) -> set[int]:
    """Return the descriptors that can be reached from a server."""
    found: set[int] = set()
    seen: set[int] = set()
    todo: deque[Any] = deque([server, *_own_functions(type(server))])
    while todo and len(seen) < _MOST:
        thing = todo.popleft()
        if id(thing) in seen or issubclass(type(thing), _OPAQUE):
            continue
        seen.add(id(thing))
        # Other people's objects may raise whatever they like when looked at: a
        # proxy does, for one, while there is nothing that it stands for.
        with contextlib.suppress(Exception):
            found.update(_descriptor(thing))
        with contextlib.suppress(Exception):
            todo.extend(list(_within(thing)))
    return found


def _own_functions(cls: type) -> Iterator[types.FunctionType]:
    for base in cls.__mro__:
        if not base.__module__.startswith(("lazr_smtptest.", "builtins")):
            for value in vars(base).values():
                function = getattr(value, "__func__", value)
                if isinstance(function, types.FunctionType):
                    yield function


def _descriptor(thing: Any) -> Iterable[int]:
    fileno = getattr(type(thing), "fileno", None)
    if not callable(fileno):
        return ()
    number = thing.fileno()
    return (number,) if isinstance(number, int) and number >= 0 else ()


def _within(thing: Any) -> Iterator[Any]:
    kind = type(thing)
    if issubclass(kind, dict):
        yield from thing.keys()
        yield from thing.values()
    elif issubclass(kind, (list, tuple, set, frozenset, deque)):
        yield from thing
    elif issubclass(kind, types.FunctionType):
        yield from _variables(thing)
    elif issubclass(kind, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    else:
        yield from getattr(thing, "__dict__", {}).values()
        for cls in kind.__mro__:
            for name in _slots(cls):
                yield getattr(thing, name, None)


def _slots(cls: type) -> Iterable[str]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


def _variables(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function can see: its closure, and the globals that it names."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
        for name in code.co_names:
            value = function.__globals__.get(name)
            # Functions of other modules have state of their own, not ours.
            if type(value) is not types.FunctionType or value.__module__ == function.__module__:
                yield value
