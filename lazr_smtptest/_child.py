"""The server process, from its first step to its last.

`main` is the target of the process and never returns: a forked process must
not run what the test process had planned for its own end.

Where the process was forked from one with threads, a lock may be held by a
thread that does not exist here.  So between the fork and serving, nothing
here imports a module, resolves a name, or writes to an inherited stream;
every module that is needed is imported at the head of this one, in the test
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import functools
import gc
import itertools
import logging
import logging.handlers
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from lazr_smtptest._channel import ServerEnd
from lazr_smtptest._delivery import AcknowledgedOutbox, Outbox, RefusedAtHome, way_of_delivery
from lazr_smtptest._frames import FrameReader
from lazr_smtptest._given import given_descriptors
from lazr_smtptest._listen import BACKLOG
from lazr_smtptest._process import STACK_SIGNAL
from lazr_smtptest._record import Records
from lazr_smtptest._script import Script
from lazr_smtptest._smtp import SMTP
from lazr_smtptest._staged import Terms
from lazr_smtptest.errors import StartError
from lazr_smtptest.server import QueueServer, Server
from lazr_smtptest.tls import server_context

#: Seconds that the feeder threads of a handler's queues have to finish.
_FEEDERS_TIMEOUT = 1.0

__all__ = ["Shipment", "event_loop_factory", "main"]

#: What `main` exits with when it could not even begin.
_EX_SOFTWARE = 70


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


class Shipment:
    """A server on its way to the server process.

    Under fork it is simply there.  Otherwise it is pickled, and what goes
    wrong with that, at either end, is told apart from all else that can go
    wrong with starting a process.

    :param server: The server.
    :param port: The port that it has been given.
    """

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._pickled: bytes | None = None

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickled = bytes(ForkingPickler.dumps(self._server))
        except Exception as error:
            raise StartError(
                f"the server for {self._server.host} port {self._port} cannot start: "
                + _why_unpicklable(self._server, error),
                host=self._server.host,
                port=self._port,
            ) from error
        return {"_server": None, "_port": self._port, "_pickled": pickled}

    def unpack(self) -> Server:
        """Give the server, in the server process.

        :raises Exception: Whatever unpickling raises.
        """
        if self._pickled is not None:
            self._server = pickle.loads(self._pickled)
        if isinstance(self._server, QueueServer):
            # Forked, it still has its queue, which stays in the test process.
            vars(self._server).pop("queue", None)
        return self._server


def _why_unpicklable(server: Server, error: Exception) -> str:
    name = type(server).__qualname__
    culprits = []
    for attribute, value in vars(server).items():
        try:
            ForkingPickler.dumps(value)
        except Exception:
            culprits.append(f"{attribute} ({type(value).__name__})")
    if culprits:
        fault = f"the attribute {', '.join(culprits)} of this {name} cannot be pickled"
        advice = "make it in the server process, on first use,"
    else:
        fault = f"this {name} cannot be pickled"
        advice = "define the class at the top level of a module"
    return (
        f"{fault}, which it must be to reach a process that is not forked "
        f"({type(error).__name__}: {error}).  Either {advice} or use start_method='fork'"
    )


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
    code = _EX_SOFTWARE
    try:
        if forked:
            _let_go(end, sockets, shipment)
        _take_own_signals(end)
        process = ServerProcess(end, sockets, acknowledged, new_event_loop())
        _send_logs_home(process.outbox, log_level)
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


def _let_go(end: ServerEnd, sockets: Iterable[socket.socket], shipment: Shipment) -> None:
    """Let go of all that the fork copied and that is not for this process.

    Descriptors are pointed at the null device and not closed: the objects
    that hold their numbers live on here, and would one day close what had
    been given those numbers since.
    """
    keep = {0, 1, 2, *(pipe.fileno() for pipe in end.pipes()), *(s.fileno() for s in sockets)}
    keep |= given_descriptors(shipment.unpack())
    null = os.open(os.devnull, os.O_RDWR)
    for fd in _open_descriptors():
        if fd not in keep and fd != null:
            try:
                os.dup2(null, fd, inheritable=False)
            except OSError:  # the descriptor that the listing itself used
                continue
    # Fresh streams: the copied ones may have text in them that the test
    # process is going to write too, and their locks may be held for ever.
    _inherited.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
    sys.stdout = sys.__stdout__ = _open_stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _open_stream(2)  # type: ignore[misc]


#: Streams and log handlers of the test process.  Kept, because collecting one
#: would write, here too, what it has in its buffer.
_inherited: list[Any] = []


def _open_stream(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _open_descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return [fd for fd in range(3, min(os.sysconf("SC_OPEN_MAX"), 65_536)) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _take_own_signals(end: ServerEnd) -> None:
    """Have no signal do what the test process wanted of it, and die with it."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # What is ignored stays ignored over a fork, and what is not is not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # Ctrl-C goes to the whole process group, but it is meant for the test.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # faulthandler writes from within a C signal handler, so it works even
    # while some C code keeps the interpreter lock.
    faulthandler.enable(end.stacks.fileno())
    faulthandler.register(STACK_SIGNAL, end.stacks.fileno(), all_threads=True, chain=False)
    _raise_descriptor_limit()
    # At the end of file the kernel sends SIGIO, and that kills, whatever this
    # process is stuck in.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    lifeline = end.lifeline.fileno()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # It may have ended before it was armed.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(0)


def _raise_descriptor_limit() -> None:
    """Allow as many sessions as the system does; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _LogsHome(logging.handlers.QueueHandler):
    """Sends log records to the test process."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox)  # type: ignore[arg-type]
        self._outbox = outbox

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a record fit for the journey, whatever ``extra`` put on it."""
        record = super().prepare(record)
        for name, value in vars(record).items():
            if type(value) not in (str, int, float, type(None)):
                setattr(record, name, repr(value))
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        self._outbox.send("log", record)


def _send_logs_home(outbox: Outbox, level: int) -> None:
    """Replace every log handler: the test process has the real ones."""
    handler = _LogsHome(outbox)
    root = logging.getLogger()
    root.setLevel(level)
    for logger in [root, *root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            _inherited.extend(logger.handlers)
            outermost = logger is root or not logger.propagate
            logger.handlers = [handler] if outermost else []


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
    import traceback

    text = traceback.format_exc().encode("utf-8", "backslashreplace")
    os.write(end.stacks.fileno(), text[-4096:])


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed or replaced it, or its reader be gone.
        with contextlib.suppress(Exception):
            stream.flush()


class ServerProcess:
    """The event loop and what hangs on it.

    :param end: The channel to the test process.
    :param sockets: Bound and listening.
    :param acknowledged: See `main`.
    :param loop: The event loop.
    """

    def __init__(
        self,
        end: ServerEnd,
        sockets: list[socket.socket],
        acknowledged: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._end = end
        self._sockets = sockets
        self._loop = loop
        outbox = AcknowledgedOutbox if acknowledged else Outbox
        self.outbox = outbox(end, self._on_backlog)
        self._requests = FrameReader(end.requests.fileno())
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="handler")
        self._script = Script()
        self._records = Records()
        self._stopped: asyncio.Future[int] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: weakref.WeakSet[SMTP] = weakref.WeakSet()
        self._has_room = asyncio.Event()

    def run(self, shipment: Shipment) -> int:
        """Serve until asked to stop.

        :return: The exit code.
        """
        try:
            self._server = shipment.unpack()
        except Exception as error:
            self.outbox.send(
                "reply",
                0,
                f"could not unpickle its server: {error!r}.  All that the server has must be "
                "importable and picklable there, or use start_method='fork'",
            )
            return _EX_SOFTWARE
        if isinstance(self._server, QueueServer):
            self._server.queue = self.outbox
        self._deliver = way_of_delivery(self._server, self.outbox, self._worker, self._exit)
        credentials = self._server._credentials
        self._terms = Terms(
            self._server,
            deliver=self._deliver,
            report=self.outbox.report,
            on_rset=self._reset_server if self._server.reset_on_rset else None,
            numbers=itertools.count(1),
            script=self._script,
            records=self._records,
            tls_context=None if credentials is None else server_context(credentials),
        )
        if type(self._server) not in (QueueServer, Server):
            # aiosmtpd looks at all attributes of a server, and at its hooks'
            # signatures, when a client connects.  Better it does so now.
            try:
                self._open_session()
            except Exception as error:
                name = type(self._server).__name__
                self.outbox.send(
                    "reply",
                    0,
                    f"could not make a session for {name}: {error!r}.  "
                    "Mend what a session needs of it: its attributes, and its aiosmtpd hooks",
                )
                return _EX_SOFTWARE
        return self._loop.run_until_complete(self._serve())

    async def _serve(self) -> int:
        loop = self._loop
        loop.add_reader(self._end.lifeline, os._exit, 0)
        loop.add_reader(self._end.requests, self._on_requests)
        servers = [
            await loop.create_server(
                self._open_session,
                sock=sock,
                backlog=BACKLOG,
                ssl=self._terms.tls_context if self._terms.tls_at_once else None,
            )
            for sock in self._sockets
        ]
        self.outbox.send("reply", 0, None)
        code = await self._stopped
        for server in servers:
            server.close()
        for session in list(self._sessions):
            session.abort()
        # Waits for as long as the test process takes to read, or lives.
        while not self.outbox.flush():
            self._has_room.clear()
            await self._has_room.wait()
        return code

    def _open_session(self) -> SMTP:
        session = SMTP(self._terms, loop=self._loop)
        self._sessions.add(session)
        return session

    def _exit(self, code: int) -> None:
        """End the process, in order; from any thread."""
        self._loop.call_soon_threadsafe(self._stop, code)

    def _stop(self, code: int) -> None:
        if not self._stopped.done():
            self._stopped.set_result(code)

    # What does not fit into the pipe.

    def _on_backlog(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.add_writer, self._end.records, self._on_room)

    def _on_room(self) -> None:
        if self.outbox.flush():
            self._loop.remove_writer(self._end.records)
            self._has_room.set()

    # What the test process asks for.

    def _on_requests(self) -> None:
        try:
            requests = self._requests.read() or ()
        except EOFError:
            self._loop.remove_reader(self._end.requests)
            return
        for number, what, *details in requests:
            task = self._loop.create_task(self._answer(number, what, *details))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @functools.cached_property
    def _at_once(self) -> dict[str, Callable[..., Any]]:
        """What can be answered on the spot."""
        return {
            "fault": self._script.add_rule,
            "fired": self._script.fired,
            "gate": self._script.add_gate,
            "release": self._script.release,
            "remove": self._script.withdraw,
            "sessions": self._records.export,
        }

    async def _answer(self, number: int, what: str, *details: Any) -> None:
        if what == "stop":
            self._stop(0)
        elif what == "reset":
            await self._reset()
            self.outbox.send("reply", number, None)
        elif what == "put":
            assert isinstance(self.outbox, AcknowledgedOutbox)
            self.outbox.acknowledge(*details)
        elif what == "wait_parked":
            self.outbox.send("reply", number, await self._script.parked(*details))
        else:
            self.outbox.send("reply", number, self._at_once[what](*details))

    async def _reset(self) -> None:
        """Reset all there is."""
        try:
            await self._reset_server()
        finally:
            self._script.clear()
            self._records.clear()

    async def _reset_server(self) -> None:
        """Reset the server object, behind the handlers that are running.

        That is all that a client's RSET may do.
        """
        try:
            # The thread is idle where messages do not go by way of it.
            nothing_to_do = type(self._server).reset is Server.reset
            if not (nothing_to_do and self._deliver.immediate):
                await self._loop.run_in_executor(self._worker, self._server.reset)
            await self.outbox.forget()
        except RefusedAtHome:
            return
        except Exception as error:
            self.outbox.report(f"{type(self._server).__name__}.reset", error)
