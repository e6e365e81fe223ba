"""Options of a controller and of its server, and what a restart changes.  Test process."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._fakes import imported
from lazr_smtptest._names import OPTIONS_ELSEWHERE, checked, hint, is_refusal, no_option
from lazr_smtptest._util import FREE_THREADED, positive_seconds, true_or_false
from lazr_smtptest.server import OPTIONS, QueueServer, Server, changed_attributes

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from lazr_smtptest.controller import Controller

__tracebackhide__ = is_refusal  # for pytest


def start_context(start_method: str | None) -> BaseContext:
    """Choose how the process is started: fork where that is safe.

    System libraries of macOS do not survive a fork.  Nor, now and then, does a Python without
    the interpreter lock, if another thread runs meanwhile: that may be in the middle of
    anything, with a lock of the interpreter's own.
    """
    multiprocessing = imported("multiprocessing")
    if start_method is None and os.name == "posix" and sys.platform != "darwin":
        start_method = "forkserver" if FREE_THREADED else "fork"
    try:
        context: BaseContext = multiprocessing.get_context(start_method)
    except ValueError:
        methods = multiprocessing.get_all_start_methods()
        raise ValueError(
            f"start_method must be one of {', '.join(methods)}, not {start_method!r}"
            f"{hint(start_method, methods)}"
        ) from None
    return context


def check_server(server: Server, message_queue: type) -> None:
    """Find what is wrong with a user's class before a client does."""
    if not isinstance(server, Server):
        wanted = "a lazr_smtptest Server, such as Server('localhost', 2525)"
        raise TypeError(f"server must be {wanted}, not {server!r}")
    kind = type(server).__name__
    if not hasattr(server, "tls"):
        raise TypeError(f"{kind}.__init__ must call super().__init__(), and does not")
    for name in ("handle_message", "reset"):
        if inspect.iscoroutinefunction(getattr(server, name)):
            raise TypeError(
                f"{kind}.{name} must be made by def, not by async def: "
                "it is called on a thread, and nobody awaits it"
            )
    if not isinstance(server, QueueServer):
        return
    queue = getattr(server, "queue", None)
    if not isinstance(queue, message_queue) and not callable(getattr(queue, "put", None)):
        raise TypeError(
            "the server's queue must have a put(message), as a MessageQueue() has; "
            f"{queue!r} has none"
        )


def use_uvloop(value: bool | None) -> bool | None:
    return None if value is None else true_or_false("uvloop", value)


#: A controller's own options, and how each is checked; the attributes begin with "_".
_OWN: dict[str, Callable[[Any], Any]] = {
    "start_method": start_context,
    "start_timeout": partial(positive_seconds, "start_timeout"),
    "stop_timeout": partial(positive_seconds, "stop_timeout"),
    "reset_timeout": partial(positive_seconds, "reset_timeout"),
    "uvloop": use_uvloop,
}


#: Where a server listens.
_PLACE = ("host", "port")


def check_names(
    what: str,
    options: Iterable[str],
    known: Collection[str] = (*_PLACE, *_OWN, *OPTIONS),
    elsewhere: Mapping[str, str] = OPTIONS_ELSEWHERE,
) -> None:
    """Check that there are such options; the error says what was meant."""
    unknown = [name for name in options if name not in known]
    if unknown:
        raise no_option(what, unknown, known, elsewhere)


checked_controller = checked(
    __init__={name: f"Server({name}=...)" for name in (*_PLACE, *OPTIONS)},
    start={"timeout": "start_timeout of the controller"},
    stop={"timeout": "stop_timeout of the controller"},
    restart=OPTIONS_ELSEWHERE,
    also=OPTIONS,
)
checked_queue_controller = checked(__init__=OPTIONS_ELSEWHERE, also=OPTIONS)


class Settings(NamedTuple):
    """What options have set: attributes of a controller, and of its server."""

    own: dict[str, Any]
    server: dict[str, Any]

    def apply(self, controller: Controller) -> None:
        vars(controller).update(self.own)
        vars(controller.server).update(self.server)


def current(controller: Controller) -> Settings:
    own = {f"_{name}": getattr(controller, f"_{name}") for name in _OWN}
    if "server_options" in vars(controller):
        own["server_options"] = vars(controller)["server_options"]
    server = controller.server
    attributes = [*OPTIONS.values(), "_credentials", "_scram_keys"]
    return Settings(own, {name: getattr(server, name) for name in attributes})


def changed(controller: Controller, changes: dict[str, Any]) -> Settings:
    """Return what other options would set.

    :raises TypeError: An option is unknown, or of the wrong type.
    :raises ValueError: A value is not possible.
    """
    stays = dict.fromkeys(_PLACE, "a new controller (this one stays where it is)")
    check_names("restart()", changes, [*_OWN, *OPTIONS], OPTIONS_ELSEWHERE | stays)
    of_server = {name: value for name, value in changes.items() if name in OPTIONS}
    own = {f"_{name}": _OWN[name](changes[name]) for name in _OWN if name in changes}
    if "server_options" in vars(controller):
        own["server_options"] = {**vars(controller)["server_options"], **of_server}
    return Settings(own, changed_attributes(controller.server, of_server))
