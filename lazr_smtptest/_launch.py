"""Starting a server process.  Test process.

This is imported when the first server is started, and with it all that runs
in a server process: that one imports nothing once it is forked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess, current_process
from typing import Any

from lazr_smtptest import _child
from lazr_smtptest._channel import ServerEnd, open_channel
from lazr_smtptest._ending import describe_end
from lazr_smtptest._forks import STARTING
from lazr_smtptest._home import HomeEnd
from lazr_smtptest._shipment import Shipment
from lazr_smtptest._watch import RAISING
from lazr_smtptest.errors import ServerDied, ServerStuck, StartError, StartTimeout
from lazr_smtptest.server import Server

__all__ = ["await_ready", "launch", "standard_descriptors"]

#: Seconds for a server process that cannot serve to end by itself.
_END_TIMEOUT = 5.0

_SEE_STDERR = (
    "Its standard error may say why.  Unless it is forked, it imports the main module "
    "again, which must be a file, and guard what it runs by __name__ == '__main__'"
)


@contextlib.contextmanager
def standard_descriptors() -> Iterator[None]:
    """See to it that 0, 1 and 2 are taken, if only by the null device.

    Otherwise a pipe of ours would get such a number, and whatever the server
    process prints would be written to it.
    """
    placeholders = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            placeholders.append(fd)
        os.close(fd)
        yield
    finally:
        for fd in placeholders:
            os.close(fd)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Start a process without a warning, and without an exception in between.

    One at a time: the warning filters are the whole process's.

    Python 3.12 and later warn when a process with threads forks, since a lock
    may stay locked in the child for ever; `_child` sees to it that none such
    is needed.  A Ctrl-C would be raised in the child, before that can ignore
    it; blocked signals are inherited, and it unblocks them when it is ready.
    Here, what a signal handler raised would be lost, or have multiprocessing
    lose the child.
    """
    with STARTING.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, RAISING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _free_to_have_children() -> Iterator[None]:
    """Start a process from one that is daemonic, as a worker of a Pool is.

    Django's parallel test runner has such workers.  multiprocessing forbids
    them children, because whoever ends them ends no children of theirs; a
    server process ends with its parent, however that is ended.
    """
    config: dict[str, Any] = getattr(current_process(), "_config", {})
    daemonic = config.pop("daemon", None)
    try:
        yield
    finally:
        if daemonic is not None:
            config["daemon"] = daemonic


def launch(
    context: BaseContext,
    server: Server,
    sockets: list[socket.socket],
    host: str,
    *,
    acknowledged: bool,
    uvloop: bool | None,
) -> HomeEnd:
    """Start a server process; it is not waited for.

    :param context: How to start it.
    :param server: What it runs.
    :param sockets: What it listens on.
    :param host: The host to connect to.
    :param acknowledged: See `_child.main`.
    :param uvloop: See `_child.event_loop_factory`.
    :return: This process's end of the channel to it.
    :raises ImportError: uvloop was asked for and is not installed.
    """
    port = sockets[0].getsockname()[1]
    channel = open_channel(context)
    with contextlib.closing(channel.theirs):
        home = HomeEnd(channel)
        try:
            process = _process(context, server, sockets, channel.theirs, acknowledged, uvloop)
            if context.get_start_method() == "forkserver":
                # Not with signals blocked: all its children would inherit that.
                forkserver.ensure_running()
            with _undisturbed(), _free_to_have_children():
                process.start()
            home.counterpart.attach(process, host, port)
        except BaseException:
            home.close()
            raise
    return home


def _process(
    context: BaseContext,
    server: Server,
    sockets: list[socket.socket],
    theirs: ServerEnd,
    acknowledged: bool,
    uvloop: bool | None,
) -> BaseProcess:
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=_child.main,
        args=(
            theirs,
            sockets,
            Shipment(server, sockets[0].getsockname()[1]),
            acknowledged,
            context.get_start_method() == "fork",
            logging.getLogger().level,
            _child.event_loop_factory(uvloop),
        ),
        name="lazr-smtptest",
        daemon=True,
    )
    return process


def await_ready(home: HomeEnd, timeout: float) -> None:
    """Wait until a server process serves; end it if it does not.

    :param home: This process's end of the channel to it.
    :param timeout: How long to wait, in seconds.
    :raises StartError: It could not begin to serve.
    :raises StartTimeout: It has not begun in time.
    """
    try:
        problem = _await_report(home, timeout)
        if problem is not None:
            home.await_end(_END_TIMEOUT)
            exitcode = home.counterpart.exitcode
            raise StartError(f"{home.name} {problem}", exitcode=exitcode, **home.where)
    except BaseException:
        home.kill()
        home.close()
        raise


def _await_report(home: HomeEnd, timeout: float) -> str | None:
    """Wait for a server process to say that it serves, or why it cannot.

    :return: Why it cannot.
    """
    try:
        problem: str | None = home.await_reply(0, timeout, "was not ready")
    except ServerStuck as error:
        raise StartTimeout(
            f"{home.name} was started, and did not report that it serves within "
            f"{timeout:g} seconds.  "
            "Look for what keeps it, or give a longer start_timeout on a busy machine"
            + (f".  It was here:\n{error.stack}" if error.stack else ""),
            elapsed=timeout,
            **home.where,
        ) from None
    except ServerDied as error:
        raise StartError(
            f"{home.name} {describe_end(error.exitcode)} before it served.  "
            + (f"Its last words say why:\n{error.stack}" if error.stack else _SEE_STDERR),
            exitcode=error.exitcode,
            **home.where,
        ) from None
    return problem
