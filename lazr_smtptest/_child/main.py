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
import faulthandler
import fcntl
import gc
import logging
import logging.handlers
import os
import resource
import select
import signal
import sys
import threading
import traceback
from _signal import (  # signal's deal in enums
    SIG_DFL,
    SIG_IGN,
    getsignal,
    pthread_sigmask,
    valid_signals,
)
from _signal import signal as set_handler
from collections.abc import Callable, Sequence
from multiprocessing import util
from typing import NoReturn

from lazr_smtptest._child.delivery import Outbox
from lazr_smtptest._child.inherited import FirstStep, find_coverage, find_loggers
from lazr_smtptest._child.loop import EX_SOFTWARE, ServerLoop
from lazr_smtptest._child.remover import remover
from lazr_smtptest._fakes import end_time_travel
from lazr_smtptest._greenlets import MonkeyPatches
from lazr_smtptest._limits import limit_behind
from lazr_smtptest._util import FREE_THREADED
from lazr_smtptest._wire.channel import STACK_SIGNAL, ChildEnds
from lazr_smtptest._wire.endpoint import SocketFile
from lazr_smtptest._wire.startup import PassedSocket, PickledServer

#: Seconds that the feeder threads of a handler's queues have to finish.
_FEEDERS_TIMEOUT = 1.0


def main(
    ends: ChildEnds,
    sockets: list[PassedSocket],
    socket_files: Sequence[SocketFile],
    server: PickledServer,
    make_loop: Callable[[], ServerLoop],
    first_step: FirstStep | None,
    log_level: int,
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> NoReturn:
    """Run the server process.

    A forked process has taken its ``first_step`` before this.
    ``log_level`` is that of the test process's root logger.
    """
    code = EX_SOFTWARE
    try:
        if not FREE_THREADED:  # there it stops all threads, and may wait for one that is gone
            gc.freeze()
        end_time_travel()
        if first_step is not None:
            first_step.check()
        # What was spawned may have imported a program that replaces things, too.
        (first_step.patches if first_step else MonkeyPatches()).undo()
        _reset_signals(ends)
        _raise_descriptor_limit()
        listening = [passed.open() for passed in sockets]
        event_loop = new_event_loop()
        # With python -X dev it would log each step that takes a tenth of a second, as
        # many do while the machine is busy, and each is slower.
        event_loop.set_debug(False)
        loop = (first_step and first_step.loop) or make_loop()
        loggers = first_step.loggers if first_step else find_loggers()
        _forward_logs(loop.outbox, log_level, loggers)
        with remover(socket_files, ends.lifeline) if socket_files else contextlib.nullcontext():
            code = loop.run(event_loop, listening, server)
            _finish_queues()
            _save_coverage(first_step)
    except BaseException as error:
        # Nobody is left to tell but whoever reads the last words.
        words = traceback.format_exc() + limit_behind(error)
        text = words.encode("utf-8", "backslashreplace")
        os.write(ends.stacks.fileno(), text[-4096:])
    finally:
        try:
            _flush_streams()
        finally:
            os._exit(code)


# At its beginning.


def _reset_signals(ends: ChildEnds) -> None:
    """Undo the test process's signal handling, and die with that process."""
    signal.set_wakeup_fd(-1)
    for number in valid_signals():
        if callable(getsignal(number)):
            set_handler(number, SIG_DFL)
    # What is ignored stays ignored over a fork, and what is not is not.
    set_handler(signal.SIGTERM, SIG_DFL)
    set_handler(signal.SIGCHLD, SIG_DFL)
    set_handler(signal.SIGPIPE, SIG_IGN)
    # Ctrl-C goes to the whole process group, but it is meant for the test.
    set_handler(signal.SIGINT, SIG_IGN)
    # faulthandler writes from within a C signal handler, so it works even
    # while some C code keeps the interpreter lock.
    faulthandler.enable(ends.stacks.fileno())
    faulthandler.register(STACK_SIGNAL, ends.stacks.fileno(), all_threads=True, chain=False)
    _die_with_test_process(ends.lifeline.fileno())
    pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with_test_process(lifeline: int) -> None:
    # At the end of file the kernel sends SIGIO, and that kills, whatever this
    # process is stuck in.
    set_handler(signal.SIGIO, SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    # It may have ended before it was armed.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(0)


def _raise_descriptor_limit() -> None:
    """Allow as many sessions as the system does; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):  # a sandbox may not allow it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _ForwardingHandler(logging.handlers.QueueHandler):
    """Sends log records to the test process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a record picklable, whatever ``extra`` put on it."""
        record = super().prepare(record)
        for name, value in vars(record).items():
            if type(value) not in (str, int, float, type(None)):
                setattr(record, name, repr(value))
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send("log", record)  # type: ignore[attr-defined]


#: Handlers of the test process.  Kept, because collecting one would write, here
#: too, what it has in its buffer.
_inherited: list[logging.Handler] = []


def _forward_logs(outbox: Outbox, level: int, loggers: list[logging.Logger]) -> None:
    """Replace every log handler: the test process has the real ones."""
    handler = _ForwardingHandler(outbox)  # type: ignore[arg-type]
    root = logging.getLogger()
    if root.level != level:  # to set it touches all loggers
        root.setLevel(level)
    for logger in loggers:
        _inherited.extend(logger.handlers)
        outermost = logger is root or not logger.propagate
        logger.handlers = [handler] if outermost else []


# At its end.


def _finish_queues() -> None:
    """Wait until the feeder threads of a handler's multiprocessing queues finish.

    Cut off half way through a record, they would leave a test waiting for the
    rest of it.  This happens at an orderly end only, and not for ever: if
    nobody reads such a queue, its thread cannot finish.
    """
    if "multiprocessing.queues" not in sys.modules:
        return
    if any(thread.name == "QueueFeederThread" for thread in threading.enumerate()):
        finisher = threading.Thread(target=util._run_finalizers, daemon=True)  # type: ignore[attr-defined]
        finisher.start()
        finisher.join(_FEEDERS_TIMEOUT)


def _save_coverage(first_step: FirstStep | None) -> None:
    """Save which lines ran here, where coverage.py measures this process.

    It would do so behind the target of a process, or in an exit handler, and neither is
    reached.  What a fork has copied is the test process's, with its file, unless each
    process is to have a file of its own.
    """
    coverage = find_coverage()
    is_inherited = first_step is not None and coverage is first_step.coverage
    if coverage and not (is_inherited and not coverage.get_option("run:parallel")):
        coverage.stop()
        coverage.save()


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed or replaced it, or its reader be gone.
        with contextlib.suppress(Exception):
            stream.flush()
