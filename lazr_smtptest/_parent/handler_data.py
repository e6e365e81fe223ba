"""What handlers put where only the test process would look for it.  Test process.

A handler runs in the server process, on a copy: what it puts into a
`queue.Queue` of the test's is lost there silently.  So before a server
starts, this reads the bytecode of what will run there: the methods that are
called with mail and commands, and the functions that these name in turn.  None of
it is run.

An object is reported if that code writes to it and never reads from it: only the
test can be meant to read it.  What is used in any other way is the server's own
affair, such as a cache, or a queue that a thread is started with.  `Server.reset` does
not count as a reader, since what it reads is thrown away.  If code looks attributes
up by names that it computes, nothing is known of it, and nothing is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import io
import itertools
import os
import queue
import sys
import threading
import types
import warnings
from collections import UserDict, UserList, deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from lazr_smtptest.errors import HandlerDataWarning
from lazr_smtptest.server import QueueServer, Server

#: How many functions to read.  What a server with more of them reads is not known.
_MOST = 60


class _Kind(NamedTuple):
    """Objects that are written to in one place and read in another.

    Each use that is not one of ``writes`` is reading.
    """

    types: tuple[type, ...]
    writes: frozenset[str]


def _kind(types: tuple[type, ...], writes: str) -> _Kind:
    # One may be a mock while this is imported.
    return _Kind(
        tuple(each for each in types if isinstance(each, type)), frozenset(writes.split())
    )


_KINDS = (
    _kind((queue.Queue, queue.SimpleQueue, asyncio.Queue), "put put_nowait"),
    _kind((threading.Event, asyncio.Event), "set"),
    _kind((threading.Semaphore, asyncio.Semaphore), "release"),
    _kind((Future, asyncio.Future), "set_result set_exception"),
    _kind((list, deque, UserList), "append appendleft extend extendleft insert"),
    _kind((set,), "add update"),
    _kind((dict, UserDict), "update"),
    _kind((bytearray,), "append extend"),
    _kind((io.StringIO, io.BytesIO), "write writelines"),
)

#: Methods that write to what a subscript found, as in ``messages[name].append(message)``.
_WRITES = frozenset().union(*(kind.writes for kind in _KINDS))

_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
#: As in ``super().reset``; Python 3.12 and later have one instruction for both.
_AFTER_CALLS = _ATTRIBUTES | {"LOAD_SUPER_ATTR"}
#: Calls without keywords.
_CALLS = frozenset(("CALL", "CALL_FUNCTION", "CALL_METHOD"))
#: What only puts something on top of the stack.
_LOADS = frozenset(("LOAD_CONST", "LOAD_CLOSURE", "LOAD_SMALL_INT", "PUSH_NULL"))
_NOISE = frozenset("CACHE EXTENDED_ARG NOP RESUME".split())

_STANDARD_LIBRARY = os.path.dirname(os.__file__)


class _Step(NamedTuple):
    """An instruction; one that is two in one has been taken apart."""

    op: str
    name: Any
    effect: int
    symbol: str


class _Found(NamedTuple):
    """An object, and where it was found.  None is nothing, or nothing known."""

    value: Any
    where: str
    #: The variable or attribute that has it: the namespace's id, and the name.  Behind
    #: an object's own come those of its classes, which are read where it has none.
    places: tuple[tuple[int, str], ...] = ()


_UNKNOWN = _Found(None, "")


class _Code(NamedTuple):
    """A function that is going to run in the server process."""

    function: Any  # mypy would take a FunctionType here for a method
    instance: Any
    #: The method that it is called from, in the end.
    hook: str
    #: What is known of what it is called with, by the parameter's number.
    arguments: tuple[tuple[int, _Found], ...] = ()

    def key(self) -> tuple[object, ...]:
        values = [(number, id(found.value)) for number, found in self.arguments]
        return (id(self.function.__code__), id(self.instance), self.hook == "reset", *values)


def warn_of_lost_data(server: Server) -> None:
    """Warn of each object that the server's code writes to and only a test would read."""
    lost: list[str] = []
    # What is odd enough to be misread here is no reason not to start.
    with contextlib.suppress(Exception):
        lost = _Reader(server).lost()
    for text in lost:
        warnings.warn(text, HandlerDataWarning, stacklevel=_depth_of_caller())


def _depth_of_caller() -> int:
    """Return how far up the first call is that does not come from this package."""
    depth, frame = 0, sys._getframe(0)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("lazr_smtptest."):
        depth, frame = depth + 1, frame.f_back
    return depth


class _Reader:
    """Reads the code of a server, and notes what it writes to and what it reads."""

    def __init__(self, server: Server) -> None:
        self._server = server
        own = [base.__module__ for base in type(server).__mro__ if _is_users(base)]
        self._packages = {name.partition(".")[0] for name in own}
        self._todo: deque[_Code] = deque()
        self._seen: set[tuple[object, ...]] = set()
        self._written: dict[object, tuple[_Found, str]] = {}
        self._read: set[object] = set()
        #: Whether some of the code cannot be followed.
        self.is_lost = False

    def lost(self) -> list[str]:
        for name in _hooks(self._server):
            self.follow(self.attribute(_Found(self._server, ""), name), self._server, name)
        while self._todo and len(self._seen) < _MOST:
            code = self._todo.popleft()
            if code.key() not in self._seen:
                self._seen.add(code.key())
                _FunctionReader(self, code).read()
        if self._todo or self.is_lost:
            return []
        return [
            text
            for key, (found, text) in self._written.items()
            if key not in self._read and not self._read.intersection(_names(found))
        ]

    def use(self, found: _Found, method: str, hook: str) -> None:
        """Note that a method is called, or is at hand to be called."""
        kind = _kind_of(found.value)
        assert kind is not None
        if method in kind.writes:
            self.write(found, f"calls {method}() of", hook)
        elif method != "clear":
            self.read(found, hook)

    def write(self, found: _Found, verb: str, hook: str) -> None:
        if not found.where:  # a library's
            return
        what = f"{verb} the {_type_name(found.value)} in {found.where}"
        self._written.setdefault(id(found.value), (found, self._explain(what, hook)))

    def read(self, found: _Found, hook: str) -> None:
        if hook != "reset":
            self._read.add(id(found.value))

    def look_by_name(self, name: str, hook: str) -> None:
        """Note that some object's attribute is used, which may well be the server's."""
        if hook != "reset":
            self._read.add(name)

    def _explain(self, what: str, hook: str) -> str:
        where = f"{type(self._server).__name__}.{hook.lstrip('_')}"
        return (
            f"{where} {what}, and only the test would read it.  The "
            "server runs in a process of its own, with a copy, so the test will not see that.  "
            "Use a QueueServer, whose queue the test can read, or a multiprocessing.Queue; "
            "sessions() shows what clients did"
        )

    def follow(
        self, found: _Found, instance: Any, hook: str, arguments: dict[int, _Found] | None = None
    ) -> bool:
        """Read what is going to run if an object is called; return whether that can be read."""
        value = found.value
        if _is(value, functools.partial):
            value = value.func
        target = value.__self__ if _is(value, types.MethodType, types.BuiltinMethodType) else None
        if _kind_of(target):
            self.use(_Found(target, f"the callable in {found.where}"), value.__name__, hook)
            return False
        first = 0
        if _is(value, types.MethodType):
            value, instance, first = value.__func__, target, 1
        elif not _is(value, types.FunctionType):
            value, instance, first = _lookup(type(value), "__call__"), value, 1
        if not _is(value, types.FunctionType) or not self._is_own(value):
            return False
        passed = [(first + slot - 1, each) for slot, each in (arguments or {}).items()]
        self._todo.append(_Code(value, instance, hook, tuple(passed)))
        return True

    def _is_own(self, function: types.FunctionType) -> bool:
        """Return whether a function is the user's, and not some library's."""
        package = (function.__module__ or "").partition(".")[0]
        return package in self._packages or not _is_library(function.__code__.co_filename)

    def attribute(self, found: _Found, name: str) -> _Found:
        """Look an attribute up without running any code."""
        owner = found.value
        if _is(owner, types.ModuleType):
            if _is_library(vars(owner).get("__file__")):
                return _UNKNOWN
            return _global(vars(owner), name)
        if name == "queue" and _is(owner, QueueServer):
            return _UNKNOWN  # what is put there, the test gets
        cls = owner if _is(owner, type) else type(owner)
        if cls is owner:
            value = _lookup(cls, name)
        else:
            value = _own(owner, name)
            if value is None:
                value = _bind(_lookup(cls, name), owner)
        places = [(id(each), name) for each in (owner, *cls.__mro__)]
        if owner is not self._server and not self._is_own_class(cls):
            return _Found(value, "")
        return _Found(value, f"the attribute {name!r} of {cls.__name__}", tuple(places))

    def _is_own_class(self, cls: type) -> bool:
        module = cls.__module__
        return (
            cls is types.SimpleNamespace
            or module == "__main__"
            or module.partition(".")[0] in self._packages
            or not _is_library(getattr(sys.modules.get(module), "__file__", None))
        )


def _global(namespace: dict[str, Any], name: str) -> _Found:
    where = f"the global variable {name!r} of {namespace.get('__name__')}"
    return _Found(namespace.get(name), where, ((id(namespace), name),))


#: By these, code reads attributes whose names it does not show.
_REFLECTION = frozenset(("__dict__", "attrgetter", "getattr", "vars"))


def _is(value: Any, *kinds: type) -> bool:
    """Return whether an object is of one of these types; a proxy is of its own only."""
    return issubclass(type(value), kinds)


def _is_users(base: type) -> bool:
    return not base.__module__.startswith(("lazr_smtptest.", "builtins"))


def _is_library(file: str | None) -> bool:
    return (
        file is None
        or file.startswith((_STANDARD_LIBRARY, "<frozen "))
        or "site-packages" in file
        or "dist-packages" in file
    )


def _hooks(server: Server) -> list[str]:
    names = [*vars(server)]
    names += [name for base in type(server).__mro__ if _is_users(base) for name in vars(base)]
    known = ("_auth", "reset")
    return [name for name in dict.fromkeys(names) if name in known or name.startswith(_PREFIXES)]


#: What aiosmtpd calls, and `Server.handle_message`.
_PREFIXES = ("handle_", "auth_")


def _kind_of(value: Any) -> _Kind | None:
    return next((kind for kind in _KINDS if _is(value, *kind.types)), None)


def _lookup(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _own(owner: Any, name: str) -> Any:
    """Return what an instance has of its own by a name."""
    for base in type(owner).__mro__:
        descriptor: Any = vars(base).get("__dict__")
        if _is(descriptor, types.GetSetDescriptorType):  # and not what a proxy has instead
            return descriptor.__get__(owner).get(name)
    return None


def _bind(value: Any, owner: Any) -> Any:
    """Return what a class's attribute is for an instance."""
    if _is(value, staticmethod, classmethod):
        target = type(owner)
        return value.__func__ if _is(value, staticmethod) else value.__get__(owner, target)
    if _is(value, types.FunctionType):
        return types.MethodType(value, owner)
    if _is(value, types.MemberDescriptorType):  # a slot
        try:
            return value.__get__(owner)
        except AttributeError:
            return None
    if _is(value, property) and value.fget is not None:
        return types.MethodType(value.fget, owner)
    return value


def _type_name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__.lstrip("_")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _names(found: _Found) -> set[str]:
    """Return the name of an attribute; that of a variable can be read by nobody else."""
    return {name for _, name in found.places[:1]} if len(found.places) > 1 else set()


class _Frame(NamedTuple):
    """Code that is being read, and what is known of its local variables."""

    code: types.CodeType
    steps: list[_Step]
    names: dict[str, _Found]


class _FunctionReader:
    """Reads one function, and the functions that are made within it."""

    def __init__(self, reader: _Reader, code: _Code) -> None:
        self._reader = reader
        self._function = code.function
        self._instance = code.instance
        self._hook = code.hook
        self._is_hook = code.function.__name__ == code.hook
        self._arguments = code.arguments
        #: Where in the code an object is loaded that is passed to a function that is read.
        self._passed: set[tuple[int, int]] = set()

    def read(self) -> None:
        function = self._function
        self._reader.is_lost |= not _REFLECTION.isdisjoint(function.__code__.co_names)
        names = self._parameters(function.__code__)
        closure = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, closure, strict=True):
            where = f"the variable {name!r} that {function.__qualname__} closes over"
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                value = None
            names[name] = _Found(value, where, ((id(cell), name),))
        self._read_code(function.__code__, names)

    def _parameters(self, code: types.CodeType) -> dict[str, _Found]:
        """Return the parameters whose values are known: defaults, and the instance."""
        function = self._function
        positional = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        pairs = [*zip(positional[::-1], defaults[::-1], strict=False)]
        pairs += (function.__kwdefaults__ or {}).items()
        where = "the parameter {!r} of " + function.__qualname__
        names = {name: _Found(value, where.format(name)) for name, value in pairs}
        if positional and positional[0] in ("self", "cls"):
            names[positional[0]] = _Found(self._instance, "")
        known = [(n, found) for n, found in self._arguments if n < len(positional)]
        return names | {positional[n]: found for n, found in known}

    def _read_code(self, code: types.CodeType, names: dict[str, _Found]) -> None:
        frame = _Frame(code, [*_steps(code)], names)
        at = 0
        while at < len(frame.steps):
            root = self._root(frame, at)
            at += 1
            if root is None:
                self._read_other(frame.steps[at - 1], frame)
            else:
                at = self._read_path(frame, at, root)
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                count = inner.co_argcount + inner.co_kwonlyargcount
                own = inner.co_varnames[:count]
                self._read_code(inner, {k: v for k, v in names.items() if k not in own})

    def _read_other(self, step: _Step, frame: _Frame) -> None:
        """Read an instruction that loads nothing by a name."""
        if step.op in ("STORE_DEREF", "STORE_FAST"):
            frame.names.pop(step.name, None)
        elif step.op in _AFTER_CALLS and "super" in frame.code.co_names:
            self._read_super(step.name, frame.names)

    def _root(self, frame: _Frame, at: int) -> _Found | None:
        """Return what an instruction loads by name, if it does."""
        op, name = frame.steps[at][:2]
        if op in ("LOAD_GLOBAL", "LOAD_NAME"):
            return _global(self._function.__globals__, name)
        # By LOAD_FAST, a variable of that kind is only passed on to an inner function.
        is_passed_on = name in frame.code.co_cellvars or name in frame.code.co_freevars
        if op == "LOAD_DEREF" or (op.startswith("LOAD_FAST") and not is_passed_on):
            found: _Found = frame.names.get(name, _UNKNOWN)
            return found
        return None

    def _read_path(self, frame: _Frame, at: int, found: _Found) -> int:
        """Read the attributes that follow a name; return where that ends."""
        steps = frame.steps
        while steps[at].op in _ATTRIBUTES or _is_copied(steps, at):
            is_copied = _is_copied(steps, at)
            name = steps[at + is_copied].name
            at += is_copied + 1
            if _kind_of(found.value):
                self._reader.use(found, name, self._hook)
                return at
            if found.value is None and not self._is_hook:
                self._reader.look_by_name(name, self._hook)
            found = self._reader.attribute(found, name)
            if _is(found.value, types.MethodType):  # which a property is here, too
                self._reader.follow(found, self._instance, self._hook)
        if steps[at].op == "STORE_FAST":
            frame.names[steps[at].name] = found
            return at + 1
        if steps[at].op == "STORE_ATTR":  # it gets another attribute
            return at + 1
        self._read_use(frame, at, found)
        return at

    def _read_use(self, frame: _Frame, at: int, found: _Found) -> None:
        """Read what is done to an object that was loaded just before."""
        kind = _kind_of(found.value)
        if kind is None:
            self._follow_call(frame, at, found)
        elif _is_stored_into(frame.steps, at):
            self._reader.write(found, "stores into", self._hook)
        elif (id(frame.code), at) not in self._passed:
            self._reader.read(found, self._hook)

    def _follow_call(self, frame: _Frame, at: int, found: _Found) -> None:
        """Follow what may be called, with those of its arguments that are known."""
        if found.value is None:
            return
        loaded = self._find_arguments(frame, at)
        known = {slot: each for slot, (_, each) in loaded.items()}
        if self._reader.follow(found, self._instance, self._hook, known):
            self._passed |= {(id(frame.code), where) for where, _ in loaded.values()}

    def _find_arguments(self, frame: _Frame, at: int) -> dict[int, tuple[int, _Found]]:
        """Return what a call takes by position, of what is passed as it was loaded.

        The key is a number, from 1; the value has the place behind what loads it, too.
        """
        depth = 0  # on the stack, above what is called
        loaded: dict[int, tuple[int, _Found]] = {}
        if frame.steps[at].op == "PUSH_NULL":  # Python 3.13 has it here
            at += 1
        while at < len(frame.steps):
            step = frame.steps[at]
            found = self._root(frame, at)
            at += 1
            if found is None:
                # What an instruction takes off or puts in its place begins here.
                lowest = depth + 1 if step.op in _LOADS else depth + min(step.effect, 0)
                if lowest <= 0:
                    return loaded if step.op in _CALLS else {}
                loaded = {slot: each for slot, each in loaded.items() if slot < lowest}
            depth += step.effect
            if found is not None:
                at, found, effect = self._pass_attributes(frame, at, found)
                depth += effect
                loaded[depth] = (at, found)
        return {}

    def _pass_attributes(self, frame: _Frame, at: int, found: _Found) -> tuple[int, _Found, int]:
        effect = 0
        while frame.steps[at].op in _ATTRIBUTES:
            found = self._reader.attribute(found, frame.steps[at].name)
            effect += frame.steps[at].effect
            at += 1
        return at, found, effect

    def _read_super(self, name: str, names: dict[str, _Found]) -> None:
        """Follow a method of a base class, in a function that uses super()."""
        here = names.get("__class__", _UNKNOWN).value
        mro = type(self._instance).__mro__
        for base in mro[mro.index(here) + 1 :] if here in mro else ():
            if name in vars(base):
                method = _bind(vars(base)[name], self._instance)
                self._reader.follow(_Found(method, ""), self._instance, self._hook)
                return


def _steps(code: types.CodeType) -> Iterator[_Step]:
    taken = 0
    for each in dis.get_instructions(code):
        if each.opname in _NOISE:
            continue
        if each.opname == "PRECALL":  # in Python 3.11, the first half of a call
            taken = dis.stack_effect(each.opcode, each.arg)
            continue
        if isinstance(each.argval, tuple) and each.opname.count("_FAST") > 1:
            # Such as STORE_FAST_LOAD_FAST, of Python 3.13.
            verbs = [word for word in each.opname.split("_") if word in ("LOAD", "STORE")]
            for verb, name in zip(verbs, each.argval, strict=True):
                yield _Step(f"{verb}_FAST", name, 1 if verb == "LOAD" else -1, "")
        else:
            effect = dis.stack_effect(each.opcode, each.arg, jump=False) + taken
            yield _Step(each.opname, each.argval, effect, each.argrepr)
            taken = 0


def _is_copied(steps: list[_Step], at: int) -> bool:
    """Return whether an object is copied, to change its attribute: ``self.names += [name]``."""
    return steps[at].op in ("COPY", "DUP_TOP") and steps[at + 1].op in _ATTRIBUTES


def _is_stored_into(steps: list[_Step], at: int) -> bool:
    """Return whether the object that was just loaded is changed by an operator.

    Follows it on the stack, to the instruction that takes it off.
    """
    depth = 1
    for step, following in itertools.pairwise(steps[at:]):
        if depth == 2 and step.op == "STORE_SUBSCR":
            return True
        if depth in (2, 4) and _is_in_place(step):  # 4 for ``names[key] += 1``
            return True
        is_subscript = step.op == "BINARY_SUBSCR" or step.symbol == "[]"
        if depth == 2 and is_subscript and following.op in _ATTRIBUTES:
            return following.name in _WRITES
        depth += step.effect
        if depth < 1:
            return False
    return False


def _is_in_place(step: _Step) -> bool:
    return step.op.startswith("INPLACE_") or (step.op == "BINARY_OP" and step.symbol[-1:] == "=")
