"""The server process, from its first step to its last.

`main` is the target of the process and never returns: a forked process must
not run what the test process had planned for its own end.

Where the process was forked from one with threads, a lock may be held by a
thread that does not exist here.  So between the fork and serving, nothing
here imports a module, resolves a name, or writes to an inherited stream;
every module that is needed is imported at the head of this one, or of one
that it imports, in the test process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import util
from typing import NoReturn

from lazr_smtptest._channel import ServerEnd
from lazr_smtptest._detach import let_go, raise_descriptor_limit, take_own_signals
from lazr_smtptest._logs import send_logs_home
from lazr_smtptest._serving import EX_SOFTWARE, ServerProcess
from lazr_smtptest._shipment import Shipment

__all__ = ["event_loop_factory", "main"]

#: Seconds that the feeder threads of a handler's queues have to finish.
_FEEDERS_TIMEOUT = 1.0


def event_loop_factory(uvloop: bool | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """Choose the event loop, in the test process: the other must not import.

    :param uvloop: Whether to use uvloop's; None if it is installed.
    :return: What makes the event loop.
    :raises ImportError: It was asked for and is not installed.
    """
    if uvloop is False:
        return asyncio.new_event_loop
    try:
        from uvloop import new_event_loop
    except ImportError:
        if uvloop:
            raise ImportError(
                "uvloop=True needs uvloop: pip install 'lazr-smtptest[speed]'", name="uvloop"
            ) from None
        return asyncio.new_event_loop
    return new_event_loop


def main(
    end: ServerEnd,
    sockets: list[socket.socket],
    shipment: Shipment,
    acknowledged: bool,
    forked: bool,
    log_level: int,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> NoReturn:
    """Run the server process.

    :param end: The channel to the test process.
    :param sockets: Bound and listening.
    :param shipment: The server.
    :param acknowledged: Whether the test process has to put each message into
        a queue before it counts as accepted.
    :param forked: Whether this is a copy of the test process.
    :param log_level: The level of the root logger in the test process.
    :param new_event_loop: Makes the event loop.
    """
    code = EX_SOFTWARE
    try:
        if forked:
            let_go(end, sockets, shipment.unpack())
        take_own_signals(end)
        raise_descriptor_limit()
        process = ServerProcess(end, sockets, acknowledged, new_event_loop())
        send_logs_home(process.outbox, log_level)
        gc.freeze()
        code = process.run(shipment)
        _finish_queues()
    except BaseException:
        # Nobody is left to tell but whoever reads the last words.
        _write_traceback(end)
    finally:
        try:
            _flush_streams()
        finally:
            os._exit(code)


def _finish_queues() -> None:
    """Let the feeder threads of a handler's multiprocessing queues finish.

    Cut off half way through a record, they would leave a test waiting for the
    rest of it.  This happens at an orderly end only, and not for ever: if
    nobody reads such a queue, its thread cannot finish.
    """
    if any(thread.name == "QueueFeederThread" for thread in threading.enumerate()):
        finisher = threading.Thread(target=util._run_finalizers, daemon=True)  # type: ignore[attr-defined]
        finisher.start()
        finisher.join(_FEEDERS_TIMEOUT)


def _write_traceback(end: ServerEnd) -> None:
    text = traceback.format_exc().encode("utf-8", "backslashreplace")
    os.write(end.stacks.fileno(), text[-4096:])


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed or replaced it, or its reader be gone.
        with contextlib.suppress(Exception):
            stream.flush()
