"""Starting and stopping a server process.  Test process."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import sys
from collections.abc import Iterator
from queue import Empty
from typing import TYPE_CHECKING, Any

from lazr_smtptest._clock import now, seconds
from lazr_smtptest._controls import Controls
from lazr_smtptest._destination import (
    check_is_free,
    check_queue,
    connect,
    is_acknowledged,
    message_queue,
)
from lazr_smtptest._forks import Turn
from lazr_smtptest.errors import AlreadyRunning, HandlerError, ServerDied
from lazr_smtptest.inbox import MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    import socket
    from multiprocessing.context import BaseContext
    from types import TracebackType

    # typing has them from 3.11 on.
    from typing_extensions import Self, Unpack

    from lazr_smtptest._criteria import Wanted
    from lazr_smtptest._foreign import QueueFiller
    from lazr_smtptest._home import HomeEnd
    from lazr_smtptest.message import Message

__all__ = ["Controller", "QueueController"]

#: What stands for all interfaces, and who to connect to then.
_ALL_INTERFACES = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def _context(start_method: str | None) -> BaseContext:
    """Choose how the process is started: fork where that is safe to have.

    System libraries of macOS do not survive a fork.
    """
    import multiprocessing

    if start_method is None and os.name == "posix" and sys.platform != "darwin":
        start_method = "fork"
    try:
        return multiprocessing.get_context(start_method)
    except ValueError:
        methods = ", ".join(multiprocessing.get_all_start_methods())
        raise ValueError(f"start_method must be one of {methods}, not {start_method!r}") from None


def _positive(name: str, value: float) -> float:
    if isinstance(value, int | float) and not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return float(seconds(name, value))


def _check_server(server: Server) -> None:
    """Find what is wrong with a user's class before a client meets with it.

    :raises TypeError: It is no `Server`, was not set up as one, or has a
        coroutine where nobody would await it.
    """
    if not isinstance(server, Server):
        raise TypeError(f"server must be a lazr_smtptest Server, not {server!r}")
    kind = type(server).__name__
    if not hasattr(server, "tls"):
        raise TypeError(f"{kind}.__init__ must call super().__init__(), and does not")
    for name in ("handle_message", "reset"):
        if inspect.iscoroutinefunction(getattr(server, name)):
            raise TypeError(
                f"{kind}.{name} must be made by def, not by async def: "
                "it is called on a thread, and nobody awaits it"
            )


class Controller(Controls):
    """Runs a `Server` in a process of its own.

    It is a context manager, too: entering starts, leaving stops.

    :param server: What to run.
    :param start_method: ``"fork"``, ``"forkserver"`` or ``"spawn"``, see
        `multiprocessing`.  By default ``"fork"``, and on macOS the platform's
        default.
    :param start_timeout: How long `start` may take, in seconds.
    :param stop_timeout: How long `stop` may take, in seconds.
    :param reset_timeout: How long `reset` may take, in seconds.
    :param uvloop: Whether the server process uses uvloop's event loop; by
        default if it is installed.
    :raises TypeError: The server is no `Server`, or its class is not right:
        its ``__init__`` does not call that of `Server`, or ``handle_message``
        or ``reset`` is a coroutine.
    :raises ValueError: There is no such start method, or a timeout is not
        positive.

    :ivar server: The `Server`, as it was given; a copy of it runs.

    >>> with Controller(Server()) as controller:
    ...     controller.is_running
    True
    >>> controller.is_running
    False
    """

    def __init__(
        self,
        server: Server,
        *,
        start_method: str | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        reset_timeout: float = 5.0,
        uvloop: bool | None = None,
    ) -> None:
        _check_server(server)
        self.server = server
        check_queue(self.server)
        self._context = _context(start_method)
        self._start_timeout = _positive("start_timeout", start_timeout)
        self._stop_timeout = _positive("stop_timeout", stop_timeout)
        self._reset_timeout = _positive("reset_timeout", reset_timeout)
        self._uvloop = uvloop
        self._changing = Turn()
        self._port: int | None = None
        self._home: HomeEnd | None = None
        self._filler: QueueFiller | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.is_running else "not running"
        return f"<{type(self).__name__} on {self.host} port {self.port}, {state}>"

    @property
    def host(self) -> str:
        """The host that the server was asked to listen on; to connect to, too.

        Where that means all interfaces, it is an address of this machine.
        """
        return _ALL_INTERFACES.get(self.server.host, self.server.host)

    @property
    def port(self) -> int:
        """The port that the server listens on, or last did.

        Before the first `start` it is the one asked for.
        """
        return self.server.port if self._port is None else self._port

    @property
    def pid(self) -> int | None:
        """The process id of the server process, or None."""
        return None if self._home is None else self._home.counterpart.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a server process, and it is alive."""
        return self._home is not None and self._home.is_alive()

    def start(self) -> None:
        """Start the server process, and wait until it serves.

        Clients may connect as soon as this returns.  What a server
        process that died has left behind is removed first.  A server that was
        made with port 0 keeps its port when it is started again, if that is
        still free.

        :raises AlreadyRunning: It runs already.
        :raises ImportError: uvloop was asked for and is not installed.
        :raises OSError: The port is taken, or the host is not of this machine.
        :raises StartError: The server process could not begin.
        :raises StartTimeout: It was not ready within ``start_timeout``.
        """
        with self._changing.lock:
            if self.is_running:
                raise AlreadyRunning(
                    f"the server runs already, in process {self.pid} on {self.host} "
                    f"port {self.port}: call stop() first",
                    host=self.host,
                    port=self.port,
                    pid=self.pid,
                )
            self._take_down()
            self._start()

    def stop(self) -> None:
        """Stop the server process; the port is free when this returns.

        Asks first, then terminates, then kills: ``stop_timeout`` is for all of
        it.  Whatever it accepted stays readable.  Stopping what does not run
        does nothing.

        :raises HandlerError: A handler had failed, and no call had said so
            yet.  The server is stopped nevertheless.
        :raises ServerDied: The server process had ended by itself, no call had
            said so yet, and there is no `MessageQueue` whose next call will.
        """
        with self._changing.lock:
            home = self._take_down()
        if home is None:
            return
        home.check()
        if message_queue(self.server) is None:
            home.check_death(again=False)

    def _give_up(self) -> None:
        """End a server process that is known to be stuck, without asking first."""
        with self._changing.lock:
            if self._home is not None:
                self._home.counterpart.kill()
            self._take_down()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except (HandlerError, ServerDied):
            # The test is failing anyhow; what it says must not be covered up.
            if error is None:
                raise

    # Starting and stopping.

    def _start(self) -> None:
        # Not at the head: importing this package is not to cost what running
        # a server does.
        from lazr_smtptest._launch import await_ready, launch, standard_descriptors

        check_is_free(self.server)
        if self.server.tls is not None:
            from lazr_smtptest.tls import server_context

            server_context(self._credentials())  # what is wrong is found here
        with standard_descriptors(), contextlib.ExitStack() as handed_over:
            sockets = [handed_over.enter_context(sock) for sock in self._listen()]
            port = sockets[0].getsockname()[1]
            home = launch(
                self._context,
                self.server,
                sockets,
                self.host,
                acknowledged=is_acknowledged(self.server),
                uvloop=self._uvloop,
            )
        self._port = port
        await_ready(home, self._start_timeout)
        self._home = home
        self._filler = connect(self.server, home)

    def _listen(self) -> list[socket.socket]:
        from lazr_smtptest._listen import listen

        if self.server.port == 0 and self._port is not None:
            with contextlib.suppress(OSError):  # somebody has it now
                return listen(self.server.host, self._port)
        return listen(self.server.host, self.server.port)

    def _take_down(self) -> HomeEnd | None:
        """End what runs or has died; give what is left of it."""
        home, filler = self._home, self._filler
        if home is None or home.counterpart.is_foreign():
            return None
        deadline = now() + self._stop_timeout
        home.end(self._stop_timeout)
        if filler is not None:
            filler.join(max(deadline - now(), 0.0))
        self._home = self._filler = None
        return home


class QueueController(Controller):
    """Runs a `QueueServer`, and has its queue.

    Iterating takes the messages that are there now, and then ends.

    :param host: See `Server`.
    :param port: See `Server`.
    :param start_method: See `Controller`.
    :param start_timeout: See `Controller`.
    :param stop_timeout: See `Controller`.
    :param reset_timeout: See `Controller`.
    :param uvloop: See `Controller`.
    :param server_options: The keyword arguments of `Server`.

    :ivar queue: The `MessageQueue`.
    :ivar server_options: The keyword arguments of `Server`, as they were given.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 0,
        *,
        start_method: str | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        reset_timeout: float = 5.0,
        uvloop: bool | None = None,
        **server_options: Any,
    ) -> None:
        self.queue = MessageQueue()
        self.server_options = server_options
        self._make_server(host, port)
        super().__init__(
            self.server,
            start_method=start_method,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            reset_timeout=reset_timeout,
            uvloop=uvloop,
        )

    def _make_server(self, host: str, port: int) -> None:
        """Make the server, and store it as ``self.server``.

        Subclasses override this to have another `QueueServer`, as they did
        with 2.x.  It should take ``self.queue`` and ``self.server_options``.

        :param host: Where to listen.
        :param port: Where to listen.
        """
        self.server = QueueServer(host, port, self.queue, **self.server_options)

    @property
    def messages(self) -> list[Message]:
        """What is there now, taking nothing; see `MessageQueue.messages`."""
        return self.queue.messages

    def wait(self, timeout: float = 5.0, **wanted: Unpack[Wanted]) -> Message:
        """Take the first message that is wanted; see `MessageQueue.wait`."""
        __tracebackhide__ = True  # for pytest
        return self.queue.wait(timeout, **wanted)

    def wait_many(
        self, count: int, timeout: float = 5.0, **wanted: Unpack[Wanted]
    ) -> list[Message]:
        """Take the first so many that are wanted; see `MessageQueue.wait_many`."""
        __tracebackhide__ = True  # for pytest
        return self.queue.wait_many(count, timeout, **wanted)

    def expect_none(self, quiet: float = 0.2, **wanted: Unpack[Wanted]) -> None:
        """See to it that there is none; see `MessageQueue.expect_none`."""
        __tracebackhide__ = True  # for pytest
        self.queue.expect_none(quiet, **wanted)

    def __iter__(self) -> Iterator[Message]:
        """Take the messages that are there now.

        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        with contextlib.suppress(Empty):
            while True:
                yield self.queue.get_nowait()
