"""Starting and stopping a server process.  Test process."""

from __future__ import annotations

import contextlib
import traceback
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from lazr_smtptest._calls import ServerCalls
from lazr_smtptest._fakes import imported, without_fakes
from lazr_smtptest._limits import limit_behind
from lazr_smtptest._names import is_refusal
from lazr_smtptest._parent import certificates, options
from lazr_smtptest._parent.forks import ForkSafeLock
from lazr_smtptest._util import now, positive_seconds
from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest.errors import AlreadyRunning, HandlerError, ServerDied, StartError
from lazr_smtptest.inbox import InboxCalls, MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # typing has them from 3.11 on.
    from typing_extensions import Self

    from lazr_smtptest._parent.feeder import QueueFeeder
    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest._wire.sharing import Sharing

__all__ = ["Controller", "QueueController"]

__tracebackhide__ = is_refusal  # for pytest


@options.checked_controller
class Controller(ServerCalls):
    """Runs a `Server` in a process of its own.

    It is also a context manager: entering starts it, leaving stops it.

    :param server: What to run.
    :param start_method: ``"fork"``, ``"forkserver"`` or ``"spawn"``, see
        `multiprocessing`.  By default ``"fork"``; on macOS the platform's
        default, and ``"forkserver"`` in free-threaded Python.
    :param start_timeout: How long the server process may take to serve, in seconds.
    :param stop_timeout: How long `stop` may take, in seconds.
    :param reset_timeout: How long `reset` may take, in seconds.
    :param uvloop: Whether the server process uses uvloop's event loop; by
        default if it is installed.  If gevent or eventlet have replaced threads
        by greenlets, it does not.
    :raises TypeError: The server is no `Server`, or its class is wrong:
        its ``__init__`` does not call that of `Server`, or ``handle_message``
        or ``reset`` is a coroutine.
    :raises ValueError: There is no such start method, or a timeout is not
        positive.

    :ivar server: The `Server` that you passed; a copy of it runs.

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
        options.check_server(server, MessageQueue)
        self.server = server
        self._start_method = options.start_context(start_method)
        self._start_timeout = positive_seconds("start_timeout", start_timeout)
        self._stop_timeout = positive_seconds("stop_timeout", stop_timeout)
        self._reset_timeout = positive_seconds("reset_timeout", reset_timeout)
        self._uvloop = options.use_uvloop(uvloop)
        self._changing = ForkSafeLock()
        self._host: str | None = None
        self._port: int | None = None
        self._link: ServerLink | None = None
        self._ended: ServerLink | None = None  # of the server that was stopped last
        self._feeder: QueueFeeder | None = None
        #: What options had set before the first restart with others.
        self._original: options.Settings | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.is_running else "not running"
        return f"<{type(self).__name__} on {self._endpoint}, {state}>"

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint.of(self.server, self._host, self._port)

    def start(self) -> None:
        """Start the server process, and wait until it serves.

        Clients may connect as soon as this returns.  It first removes what a
        dead server process has left behind.  A server with port 0 keeps its
        port when you start it again, if that is still free.

        :raises AlreadyRunning: It runs already.
        :raises ImportError: You asked for uvloop, and it is not installed.
        :raises OSError: The port is taken, or this machine does not have the host; or there can be
            no UNIX socket at the path.  One that nobody listens on any more is replaced.
        :raises StartError: The server process could not begin; or a limit of the
            system is reached, which the error names.
        :raises StartTimeout: It was not ready within ``start_timeout``.
        """
        with self._changing.lock:
            if self._link is not None and self._link.is_alive():
                raise AlreadyRunning(
                    f"the server runs already, in process {self.pid} on {self._endpoint}: "
                    "call stop() first",
                    **self._link.process.where,
                )
            self._take_down()
            self._ended = None
            self._start()

    def restart(self, **changes: Any) -> None:
        """Stop the server and start it where it was, with other options.

        Options that you do not name stay as they are.  Accepted messages stay
        readable; faults, gates and sessions are gone, as with `stop`.  If an
        option is wrong, the server carries on unchanged.  If the new server process
        cannot start, one starts with the options from before.  A server
        that does not run is started.  ``unix_socket`` moves it there, and None back to its
        host and port.

        :param changes: Keyword arguments of `Server`, and those of `Controller`.
        :raises TypeError: An option is unknown, or of the wrong type.
        :raises ValueError: A value is not possible, or not with the other options.
        :raises HandlerError: A handler had failed, and no call had raised it yet.
            The server is restarted nevertheless.
        :raises Exception: See `start`.
        """
        with self._changing.lock:
            before, wanted = options.current(self), options.changed(self, changes)
            was_running = self.is_running
            try:
                wanted.apply(self)
                link = self._replace()
            except BaseException as error:
                before.apply(self)
                if was_running and not self.is_running:
                    # A socket that a signal handler's exception found open has the port.
                    traceback.clear_frames(error.__traceback__)
                    self._take_down()  # of which it may have left a half
                    self._start(same_port=True)
                raise
            self._original = self._original or before
        if link is not None:
            link.check()

    def _replace(self) -> ServerLink | None:
        """Start a new server process for the one that runs; return what is left of that."""
        from lazr_smtptest._launch import event_loop_factory

        event_loop_factory(self._uvloop)
        certificates.check(self.server, str(self._endpoint))
        link = self._take_down()
        self._start(same_port=True)
        return link

    def _undo_restarts(self) -> None:
        """Take back the options of restarts; the server does not run then."""
        with self._changing.lock:
            if self._original is not None:
                self._take_down()
                self._original.apply(self)
                self._original = None

    def stop(self) -> None:
        """Stop the server process; the port is free when this returns.

        Asks first, then terminates, then kills: ``stop_timeout`` is for all of
        it.  Accepted messages stay readable.  If the server does not run, this
        does nothing.

        :raises HandlerError: A handler had failed, and no call had raised it
            yet.  The server is stopped nevertheless.
        :raises ServerDied: The server process had ended by itself, no call had
            raised it yet, and there is no `MessageQueue` whose next call will.
        """
        with self._changing.lock:
            link = self._take_down()
        if link is None:
            return
        link.check()
        # A MessageQueue raises it when what is left has been taken.
        if self._message_queue() is None and not link.process.death_was_raised:
            link.check_death()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        try:
            self.stop()
        except (HandlerError, ServerDied):
            # The test is failing anyhow; what it says must not be covered up.
            if error is None:
                raise

    # Starting and stopping.

    def _start(self, *, same_port: bool = False) -> None:
        with _limits_named(self._endpoint):
            self._start_process(same_port)

    def _start_process(self, same_port: bool) -> None:
        self._check_handlers()
        self._check_queue_is_free()
        # Not at the head: importing this package is not to cost what running a server does.
        await_ready = imported("lazr_smtptest._launch").await_ready
        started: list[ServerLink] = []
        try:
            self._launch(same_port, started.append)
            await_ready(started[0], self._start_timeout)
            if self.server.unix_socket is None:
                self._host, self._port, _ = started[0].process.endpoint
            self._link, self._ended = started[0], None
        except BaseException:
            for link in started:
                link.abandon()
            raise
        try:
            self._connect_queue(self._link)
        except BaseException:  # there may be no thread for it
            self._give_up()
            raise

    def _launch(self, same_port: bool, keep: Callable[[ServerLink], object]) -> None:
        from lazr_smtptest._launch import launch, listen_for, resolve, standard_descriptors
        from lazr_smtptest._parent.signals import undisturbed

        server = self.server
        certificates.check(server, str(self._endpoint))  # what is wrong is found here
        is_foreign = isinstance(server, QueueServer) and self._message_queue() is None
        # Before what is for a moment only, since to look a name up may take long.
        addresses = resolve(server.host, server.port) if server.unix_socket is None else None
        listen_here = partial(listen_for, server, addresses, self._port, same_port)
        with (
            without_fakes(),
            standard_descriptors(),
            undisturbed(listen_here) as listening,
            self._share() as sharing,
        ):
            method = self._start_method
            launch(method, server, listening, is_foreign, self._uvloop, sharing, keep)

    def _share(self) -> AbstractContextManager[Sharing | None]:
        """Return what a server process has to know that is shared."""
        return contextlib.nullcontext()

    def _check_handlers(self) -> None:
        """Warn of what they would lose; the first step, since a warning may be an exception."""
        server = self.server
        has_code = type(server) not in (Server, QueueServer) or "handle_message" in vars(server)
        if has_code or callable(server._auth):
            from lazr_smtptest._parent.handler_data import warn_of_lost_data

            warn_of_lost_data(server)

    def _take_down(self) -> ServerLink | None:
        """End what runs or has died; return what is left of it."""
        link, feeder = self._link, self._feeder
        if link is None or link.process.is_inherited():
            return None
        deadline = now() + self._stop_timeout
        try:
            link.end(self._stop_timeout)  # which a log handler's exception may leave
            if feeder is not None:
                feeder.join(max(deadline - now(), 0.0))
        finally:
            if link.is_closed:  # and not left half way, by a signal handler's exception
                self._ended, self._link, self._feeder = link, None, None
        return link

    def _give_up(self) -> None:
        """End a server process that is known to be stuck, without asking first."""
        with self._changing.lock:
            if self._link is not None:
                self._link.process.kill()
            self._take_down()

    # Where the messages go: a MessageQueue looks for them by itself; any other
    # queue has to be filled.

    def _message_queue(self) -> MessageQueue | None:
        queue = self.server.queue if isinstance(self.server, QueueServer) else None
        return queue if isinstance(queue, MessageQueue) else None

    def _check_queue_is_free(self) -> None:
        queue = self._message_queue()
        link = None if queue is None else queue._link
        if link is not None and link.is_alive():
            raise AlreadyRunning(
                f"this server's queue is filled by another controller's, {link.process.name}: "
                "give each controller a queue of its own",
                **link.process.where,
            )

    def _connect_queue(self, link: ServerLink) -> None:
        queue = self._message_queue()
        if queue is not None:
            queue._attach(link)
        elif isinstance(self.server, QueueServer):
            # Not at the head: importing this package is not to cost what it needs.
            from lazr_smtptest._parent.feeder import QueueFeeder

            self._feeder = QueueFeeder(self.server.queue, link)


@options.checked_queue_controller
class QueueController(InboxCalls, Controller):
    """Runs a `QueueServer`, and has its queue.

    Iterating takes the messages that are there now, and then stops.

    :param host: See `Server`.
    :param port: See `Server`.
    :param start_method: See `Controller`.
    :param start_timeout: See `Controller`.
    :param stop_timeout: See `Controller`.
    :param reset_timeout: See `Controller`.
    :param uvloop: See `Controller`.
    :param server_options: The keyword arguments of `Server`.

    :ivar queue: The `MessageQueue`.
    :ivar server_options: The keyword arguments of `Server`, as you passed them.
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
        if type(self)._make_server is QueueController._make_server:  # another may know more
            options.check_names(f"{type(self).__name__}()", server_options)
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

        Override this to run another `QueueServer`, as in 2.x.  Pass it ``self.queue`` and
        ``self.server_options``.

        :param host: Where to listen.
        :param port: Where to listen.
        """
        self.server = QueueServer(host, port, self.queue, **self.server_options)

    @property
    def _inbox(self) -> MessageQueue:
        return self.queue


@contextlib.contextmanager
def _limits_named(endpoint: Endpoint) -> Iterator[None]:
    """Raise what a limit of the system lets fail as an error that names the limit."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        limit = limit_behind(error)
        if not limit:
            raise
        raise StartError(
            f"cannot start the server on {endpoint}: "
            f"{getattr(error, 'strerror', '') or repr(error)}; {limit}",
            **endpoint.facts,
        ) from error
