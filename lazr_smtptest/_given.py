"""Which descriptors a server was given.  Server process, after a fork.

A forked server process lets go of every descriptor it inherited, but for its
own and for those the server's code was given on purpose: a
`multiprocessing.Queue` to send results through, a socket, an open file.  Those
are the ones that can be reached from the server object: by its attributes,
and by the variables that its class's own functions use.
"""

from __future__ import annotations

import contextlib
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["given_descriptors"]

#: How many objects to look at.  A server that carries more than that hardly
#: carries them for the sake of their descriptors.
_MOST = 20_000

_OPAQUE = (str, bytes, bytearray, int, float, complex, type, type(None), types.ModuleType)


def given_descriptors(server: object) -> set[int]:
    """Find the descriptors that can be reached from a server.

    :param server: The server.
    :return: Their numbers.
    """
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
    """Give what a function can see: its closure, and the globals that it names."""
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
