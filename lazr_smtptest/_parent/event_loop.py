"""Waiting on an event loop of asyncio, without a thread.  Test process.

A pipe and a process are descriptors, and a loop watches any number of those.  A call
can be cancelled only while it waits, and then takes nothing: from taking to returning,
nothing is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from lazr_smtptest._names import is_refusal
from lazr_smtptest._parent.link import LONGEST_WAIT, LOOK_INTERVAL, ServerLink, Steps, Wait
from lazr_smtptest._util import now, wait_ready

__tracebackhide__ = is_refusal  # for pytest

#: Seconds that a loop stands still at most, where its own clock cannot end a wait.
_TURN = 0.01

T = TypeVar("T")


async def run(steps: Steps[T], name: str) -> T:
    """Run a call; the event loop continues while it waits."""
    __tracebackhide__ = True  # for pytest
    _check_loop(name)
    came: Any = None
    with contextlib.closing(steps):
        while True:
            try:
                awaited = steps.send(came)
            except StopIteration as done:
                result: T = done.value
                return result
            came = await _wait_for(awaited)


def _check_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"{name}_async() needs a running event loop of asyncio: in a coroutine of trio, "
            f"call {name}() on a thread, by trio.to_thread.run_sync(), and elsewhere as it is"
        ) from None


async def _wait_for(awaited: Wait) -> Any:
    """Do what `ServerLink.wait_for` does."""
    link, attempt, timeout = awaited
    deadline = now() + timeout
    came = link.try_now(attempt)
    if came is not None or timeout <= 0:  # as a rule, so nothing is set up before
        return came
    with _Watch(link) as watch:
        while True:
            watch.news.clear()  # before looking: what comes after it is news
            came = link.try_now(attempt)
            left = min(deadline - now(), LONGEST_WAIT)
            if came is not None or link.ended or left <= 0:
                return came
            await watch.wait(left)


class _Watch:
    """Makes an event loop watch for news of a server process, for one call.

    The descriptors are copies: a loop knows each once, and several calls may wait; and
    stopping the server closes the others meanwhile.
    """

    def __init__(self, link: ServerLink) -> None:
        self.news = asyncio.Event()
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._descriptors: list[int] = []
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> _Watch:
        with self._undo, self._link.lock:
            # Another thread that reads, or ends the server, takes away what could be seen.
            self._link.listeners.append(self._notify)
            self._undo.callback(self._link.listeners.remove, self._notify)
            for fd in self._link.watched():
                self._watch(os.dup(fd))
            self._undo = self._undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    async def wait(self, timeout: float) -> None:
        if not self._link.tells_its_end:
            timeout = min(timeout, LOOK_INTERVAL)
        # A test that freezes time stops the loop's timers.
        if abs(self._loop.time() - now()) > 1.0:
            await self._wait_in_turns(timeout)
            return
        timer = self._loop.call_later(timeout, self.news.set)
        try:
            await self.news.wait()
        finally:
            timer.cancel()

    async def _wait_in_turns(self, timeout: float) -> None:
        wait_ready(self._descriptors, timeout=min(timeout, _TURN))
        await asyncio.sleep(0)

    def _watch(self, fd: int) -> None:
        self._undo.callback(os.close, fd)
        self._descriptors.append(fd)
        self._loop.add_reader(fd, self.news.set)
        self._undo.callback(self._unless_closed, self._loop.remove_reader, fd)

    def _notify(self) -> None:
        # On any thread.
        self._unless_closed(self._loop.call_soon_threadsafe, self.news.set)

    def _unless_closed(self, call: Callable[..., object], *args: object) -> None:
        # A loop may be closed with a call left in it, which nobody awaits any more.
        try:
            call(*args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
