"""What gevent or eventlet have replaced in the standard library, and how that is undone.

Both replace what blocks by what switches to their event loop, the hub, and with it
threads by greenlets.  A copy of the hub would run the test's greenlets once more.  And
what is made to wait for its greenlets, such as a lock, cannot wait for a thread.
So the server process has a standard library as it was, and no hub from before the fork.

The test process looks for what was replaced; the server process undoes it.
"""

from __future__ import annotations

import select
import selectors
import sys
import threading
from collections.abc import Iterator
from typing import Any

#: What was replaced, and what ran in it.  Kept, since a greenlet that is collected runs
#: to its end, and a file writes what is in its buffer.
_undone: list[Any] = []

#: What eventlet replaces: by module, what `eventlet.monkey_patch` calls that part, and the
#: module of `eventlet.green` that has the replacements.
_EVENTLET = {
    "_thread": ("thread", "thread"),
    "os": ("os", "os"),
    "queue": ("thread", "Queue"),
    "select": ("select", "select"),
    "socket": ("socket", "socket"),
    "subprocess": ("subprocess", "subprocess"),
    "threading": ("thread", "threading"),
    "time": ("time", "time"),
}

#: What eventlet replaces besides that, by Python code of the standard library.
_EVENTLET_MORE = {"threading": ["RLock"], "queue": ["SimpleQueue"]}


def original(module: str, name: str) -> Any:
    """Return what the standard library has by that name, or had before it was replaced.

    None if it never had that.
    """
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_object_patched(module, name):
        return monkey.get_original(module, name)
    part, _ = _EVENTLET.get(module, ("", ""))
    if patcher is not None and patcher.is_monkey_patched(part):
        return getattr(patcher.original(module), name, None)
    return getattr(sys.modules[module], name, None)


class MonkeyPatches:
    """The originals of all that was replaced, by module and name."""

    def __init__(self) -> None:
        self._originals: dict[str, dict[str, Any]] = {}
        for module, name, original in replaced_by_greenlets():
            self._originals.setdefault(module, {})[name] = original

    def are_there_any(self) -> bool:
        return bool(self._originals)

    def are_threads_replaced(self) -> bool:
        return "start_new_thread" in self._originals.get("_thread", {})

    def undo(self) -> None:
        """Undo all that, in the server process.  It imports nothing."""
        for module, originals in self._originals.items():
            attributes = vars(sys.modules[module])
            _undone.extend(attributes[name] for name in originals if name in attributes)
            attributes.update(originals)
        if self.are_threads_replaced():
            # This thread had another number.
            thread: Any = threading.main_thread()
            thread._ident = threading.get_ident()
            threading._active[thread._ident] = thread  # type: ignore[attr-defined]
        _leave_hubs()


def replaced_by_greenlets() -> Iterator[tuple[str, str, Any]]:
    """Yield the module, the name and the original of what gevent or eventlet have replaced."""
    yield from _replaced_by_gevent()
    yield from _replaced_by_eventlet()


def _replaced_by_gevent() -> Iterator[tuple[str, str, Any]]:
    monkey = sys.modules.get("gevent.monkey")
    # Names are listed nowhere else; `gevent.monkey.get_original` wants to know them.
    saved: dict[str, dict[str, Any]] = getattr(monkey, "saved", {})
    for module, originals in saved.items():
        if module in sys.modules:
            for name, original in originals.items():
                yield module, name, original


def _replaced_by_eventlet() -> Iterator[tuple[str, str, Any]]:
    patcher = sys.modules.get("eventlet.patcher")
    for module, (part, green_name) in _EVENTLET.items():
        green = sys.modules.get(f"eventlet.green.{green_name}")
        if patcher is None or green is None or not patcher.is_monkey_patched(part):
            continue
        there_was = patcher.original(module)
        names = [*green.__patched__, *getattr(green, "__deleted__", ())]
        for name in names + _EVENTLET_MORE.get(module, []):
            if hasattr(there_was, name):
                yield module, name, getattr(there_was, name)
    if patcher is not None and patcher.is_monkey_patched("select"):
        # The originals of `selectors` are gone: what is imported now has no poll(2).
        for name in ("DefaultSelector", "PollSelector"):
            yield "selectors", name, _poll_selector()


def _poll_selector() -> type[selectors.BaseSelector]:
    class PollSelector(selectors._PollLikeSelector):
        _selector_cls = original("select", "poll")
        _EVENT_READ = select.POLLIN
        _EVENT_WRITE = select.POLLOUT

    return PollSelector


def _leave_hubs() -> None:
    """Forget all hubs: the next use makes a new one, without the greenlets from before."""
    local = sys.modules.get("gevent._hub_local")
    if local is not None and (old := local.get_hub_if_exists()) is not None:
        _undone.append(old)
        local.set_loop(None)
        # The default loop is libev's one and only: it would be the old.
        local.set_hub(type(old)(default=False))
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None and hasattr(hubs._threadlocal, "hub"):
        _undone.append(hubs.get_hub())
        hubs.use_hub(type(_undone[-1]))
        # Its hub on top of asyncio lets each child go on in the loop of its parent.
        sys.modules["asyncio"]._set_running_loop(None)
