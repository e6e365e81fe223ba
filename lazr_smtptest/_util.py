"""Small things that both processes use: the clock, checks of arguments, quoting."""

from __future__ import annotations

import errno
import functools
import math
import os
import queue
import re
import selectors
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from select import POLLIN, POLLOUT
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime
from typing import Any, AnyStr, TypeVar, cast

from lazr_smtptest._greenlets import original
from lazr_smtptest._names import is_refusal, option

__tracebackhide__ = is_refusal  # for pytest

_T = TypeVar("_T")

#: Characters of a text, and addresses, that a report shows.
_WIDTH = 100
_ADDRESSES = 5

#: Seconds; a larger int is no float.
_LONGEST = sys.float_info.max

#: Errors that mean "no room": 452 and not 451 (RFC 5321, 4.2.3).
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

#: Whether this Python is built to run without its interpreter lock, whether in use or not.
FREE_THREADED = "t" in getattr(sys, "abiflags", "")


_compile = re.compile  # a test may have replaced it when a pattern is first used


class _LazyPattern:
    """Stands in for a regular expression, and is one as soon as it is used."""

    def __init__(self, *args: Any) -> None:
        self._args = args

    def __getattr__(self, name: str) -> Any:
        found = getattr(_compile(*self._args), name)
        setattr(self, name, found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return lazy_pattern, self._args


def lazy_pattern(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return what `re.compile` does, but compile it when one of its methods is first used.

    All patterns take a third of the time that it takes to import this package, and most
    test runs use few of them.
    """
    return cast("re.Pattern[AnyStr]", _LazyPattern(pattern, flags))


def now() -> float:
    """Return the seconds since some moment; no test can stop this clock.

    Tests that freeze time replace `time.monotonic`, and a deadline by a frozen
    clock never comes.  This is the same clock, read in a way that neither freezegun
    nor time-machine replaces.
    """
    return clock_gettime(CLOCK_MONOTONIC)


def time_of_day() -> float:
    """Return the seconds since the epoch, for the server process: see `now`.

    In the test process, time-machine replaces this, too.
    """
    return clock_gettime(CLOCK_REALTIME)


def utc(timestamp: float) -> datetime:
    """Return the time, in UTC, that is this many seconds after the epoch."""
    return datetime.fromtimestamp(timestamp, timezone.utc)


#: As it is now: a test may put something else in its place.
new_poll = original("select", "poll")


def wait_ready(
    readers: Iterable[Any], writers: Iterable[Any] = (), *, timeout: float
) -> list[Any]:
    """Wait until descriptors, or what has one each, can be read from or written to.

    Greenlets run meanwhile.  Without them, this takes half the time of `selectors`.

    :param timeout: How long to wait, in seconds.
    :return: Those that can be, or have been closed at the other end; none if time is up.
    :raises OSError, ValueError: One is closed.
    """
    if "gevent.monkey" in sys.modules or "eventlet.patcher" in sys.modules:
        return _wait_with_greenlets(readers, writers, timeout)
    poll = new_poll()
    found: dict[int, Any] = {}
    for event, things in ((POLLIN, readers), (POLLOUT, writers)):
        for thing in things:
            fd = thing if isinstance(thing, int) else thing.fileno()
            found[fd] = thing
            poll.register(fd, event)
    return [found[fd] for fd, _ in poll.poll(math.ceil(timeout * 1000))]


def _wait_with_greenlets(
    readers: Iterable[Any], writers: Iterable[Any], timeout: float
) -> list[Any]:
    with _selector_of_greenlets()() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        for writer in writers:
            selector.register(writer, selectors.EVENT_WRITE)
        return [key.fileobj for key, _ in selector.select(timeout)]


def _selector_of_greenlets() -> type[selectors.BaseSelector]:
    """Return what is there at this moment, and takes any descriptor.

    Eventlet takes away poll(2), and brings a select(2) without its limit.
    """
    kind = getattr(selectors, "PollSelector", None)
    if kind is None and "eventlet.patcher" in sys.modules:
        return _for_eventlet(selectors.SelectSelector)
    return kind or selectors.SelectSelector


@functools.cache
def _for_eventlet(kind: type[selectors.BaseSelector]) -> type[selectors.BaseSelector]:
    """Return a selector that takes each wake-up which is its own.

    Where two descriptors are ready at once, eventlet's hub wakes whoever selected twice: the
    second time from what that waits for next, as if it were the answer.  So that is here.
    """

    class Selector(kind):  # type: ignore[misc,valid-type]
        def select(self, timeout: float | None = None) -> Any:
            ready = super().select(timeout)
            if timeout != 0 and len(self.get_map()) > 1:
                sys.modules["eventlet"].sleep(0)
            return ready

    return Selector


# Arguments that a caller got wrong.


def seconds(name: str, value: float) -> float:
    """Check a length of time, and return it."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{option(name)} must be a number of seconds, not {value!r}")
    if not 0 <= value <= _LONGEST:
        raise ValueError(
            f"{option(name)} must be a finite number of seconds from 0 on, not {value!r}"
        )
    return value


def positive_seconds(name: str, value: float) -> float:
    """Check a length of time that must not be 0, and return it as a float."""
    if isinstance(value, int | float) and value is not False and not 0 < value <= _LONGEST:
        raise ValueError(f"{option(name)} must be a positive number of seconds, not {value!r}")
    return float(seconds(name, value))


def true_or_false(name: str, value: object) -> bool:
    """Check an option that is a bool; a string, such as ``"no"``, would count as True."""
    if not isinstance(value, bool):
        raise TypeError(f"{option(name)} must be True or False, not {value!r}")
    return value


def whole_number(
    name: str,
    value: object,
    least: int,
    most: int | None = None,
    *,
    wrong_type: type[Exception] = ValueError,
) -> int:
    """Check a whole number, and return it."""
    bound = f"a whole number from {least} on" if most is None else f"from {least} to {most}"
    if not isinstance(value, int) or isinstance(value, bool):
        bound = "an int" if wrong_type is TypeError else bound
        raise wrong_type(f"{option(name)} must be {bound}, not {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{option(name)} must be {bound}, not {value}")
    return value


def file_path(name: str, value: str | os.PathLike[str]) -> str:
    """Check the path of a file, and return it as a str."""
    try:
        path: object = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise TypeError(
            f"{option(name)} must be the path of a file, as a str or a path-like object, "
            f"not {value!r}"
        )
    return path


class Found(list[_T]):
    """A list whose `IndexError` says why there is no more, and what to do."""

    def __init__(self, items: Iterable[_T], why: str) -> None:
        super().__init__(items)
        self._why = why

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except IndexError:
            __tracebackhide__ = True  # for pytest
        raise IndexError(self._why)


# What clients sent, in reports: it may hold control characters, or have no end.


def quoted(text: str) -> str:
    """Return a text as a Python literal, cut if it is long."""
    return repr(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}...")


def plain(text: str) -> str:
    """Return a text without quotes, unless it needs them."""
    return text if text.isprintable() and len(text) <= _WIDTH else quoted(text)


def addresses(found: Iterable[str]) -> str:
    """Return addresses as SMTP writes them; the first few."""
    texts = [f"<{plain(address)}>" for address in found]
    more = len(texts) - _ADDRESSES
    shown = ", ".join(texts[:_ADDRESSES])
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"


# What the test's own code raised.


def what_raised(where: str, error: BaseException) -> str:
    """Return a line that says what raised, and what it raised."""
    text = " ".join(str(error).split())[:400]
    return f"{where} raised {type(error).__name__}{': ' if text else ''}{text}"


def refusal(error: BaseException) -> str:
    """Return the reply for a client whose message plugged-in code failed on.

    That is 452 if storage ran out, else 451 (RFC 5321, 4.2.3), with an enhanced
    code (RFC 3463), the exception's name, and its text.
    """
    text = " ".join(str(error).encode("ascii", "backslashreplace").decode().split())
    reason = f"({type(error).__name__}) {text[:400]}".rstrip()
    full = isinstance(error, queue.Full) or (
        isinstance(error, OSError) and error.errno in _NO_ROOM
    )
    return f"452 4.3.1 Error: {reason}" if full else f"451 4.3.0 Error: {reason}"
