"""What the fixtures of the pytest plugin do.  Test process."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import ServerDied, ServerStuck
from lazr_smtptest.server import Server

__all__ = ["refresh", "start"]

#: Messages that a controller keeps after they were taken, for the report on a
#: failed test.
_KEPT = 20


@contextlib.contextmanager
def start(options: dict[str, Any], worker: str) -> Iterator[QueueController]:
    """Start a server, and stop it in the end.

    :param options: The keyword arguments of `QueueController`.
    :param worker: The name of this process, or an empty string.
    :return: The controller.
    :raises OSError: The port is taken; the text names it, and the worker.
    :raises TypeError: There is no such option.
    """
    _check(options)
    controller = QueueController(**options)
    controller.queue._keep_taken(_KEPT)
    _start(controller, worker)
    try:
        yield controller
    finally:
        controller.stop()


def refresh(controller: QueueController, worker: str) -> None:
    """Have a controller forget its mail, with another server if need be.

    Blocks up to 7 seconds where the server process is stuck.

    :param controller: The controller.
    :param worker: The name of this process, or an empty string.
    """
    try:
        if controller.is_running:
            controller.reset()
    except (ServerDied, ServerStuck):
        controller._give_up()
    if not controller.is_running:
        # A test may have stopped it, or killed it.
        _start(controller, worker)
        controller.reset()
    controller.queue._keep_taken(_KEPT)


def _start(controller: QueueController, worker: str) -> None:
    try:
        controller.start()
    except OSError as error:
        if worker and error.strerror:
            error.strerror = f"pytest-xdist's worker {worker}: {error.strerror}"
        raise


def _check(options: dict[str, Any]) -> None:
    known = [
        name
        for kind in (QueueController, Server)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"smtptest has no option {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(dict.fromkeys(known))}"
        )
