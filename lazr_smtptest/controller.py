"""Starting and stopping a server process.  Test process."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from queue import Empty
from typing import TYPE_CHECKING, Any

from lazr_smtptest._clock import now, seconds
from lazr_smtptest._ending import describe_end
from lazr_smtptest.errors import (
    AlreadyRunning,
    HandlerError,
    NotRunning,
    ServerDied,
    ServerStuck,
    SMTPTestError,
    StartError,
    StartTimeout,
)
from lazr_smtptest.inbox import MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    import socket
    import ssl
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType

    # typing has them from 3.11 on.
    from typing_extensions import Self, Unpack

    from lazr_smtptest._channel import ServerEnd
    from lazr_smtptest._criteria import Wanted
    from lazr_smtptest._foreign import QueueFiller
    from lazr_smtptest._home import HomeEnd
    from lazr_smtptest.faults import Fault, Gate
    from lazr_smtptest.message import Message
    from lazr_smtptest.sessions import Session
    from lazr_smtptest.tls import Credentials

__all__ = ["Controller", "QueueController"]

_log = logging.getLogger("lazr_smtptest")

#: Seconds, of those that stop() has, for each step after asking: showing the
#: stack, being terminated, being killed.
_LADDER_STEP = 1.0

_SEE_STDERR = (
    "Its standard error may say why.  Unless it is forked, it imports the main module "
    "again, which must be a file, and guard what it runs by __name__ == '__main__'"
)

#: What stands for all interfaces, and who to connect to then.
_ALL_INTERFACES = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

#: Seconds for a server process that cannot serve to end by itself.
_END_TIMEOUT = 5.0

#: Seconds until a killed process is gone, unless the kernel itself is stuck.
_KILL_TIMEOUT = 5.0


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


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Start a process without a warning, and without a Ctrl-C in between.

    One at a time: the warning filters are the whole process's.

    Python 3.12 and later warn when a process with threads forks, since a lock
    may stay locked in the child for ever; `_child` sees to it that none such
    is needed.  A Ctrl-C would be raised in the child, before that can ignore
    it; blocked signals are inherited, and it unblocks them when it is ready.
    """
    from lazr_smtptest._channel import FORKING

    with FORKING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _standard_descriptors() -> Iterator[None]:
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


def _end(home: HomeEnd, timeout: float) -> None:
    """End a server process: ask, terminate, kill."""
    step = min(_LADDER_STEP, timeout / 4)
    if not home.ask_to_stop(timeout - 3 * step):
        _log.warning(
            "%s did not stop when asked, and is terminated.  It was here:\n%s",
            home.name,
            home.show_stacks(step) or "(it does not show its stack)",
        )
        home.terminate()
        if not home.await_end(step):
            _kill(home)
    home.close()


def _kill(home: HomeEnd) -> None:
    home.kill()
    home.await_end(_KILL_TIMEOUT)


class Controller:
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
    :raises TypeError: The server is no `Server`.
    :raises ValueError: There is no such start method, or a timeout is not
        positive.

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
        if not isinstance(server, Server):
            raise TypeError(f"server must be a lazr_smtptest Server, not {server!r}")
        self.server = server
        self._check_queue()
        self._context = _context(start_method)
        self._start_timeout = _positive("start_timeout", start_timeout)
        self._stop_timeout = _positive("stop_timeout", stop_timeout)
        self._reset_timeout = _positive("reset_timeout", reset_timeout)
        self._uvloop = uvloop
        self._changing = threading.RLock()
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
        return None if self._home is None else self._home.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a server process, and it is alive."""
        return self._home is not None and self._home.is_alive()

    def start(self) -> None:
        """Start the server process, and wait until it serves.

        Clients may connect as soon as this returns.  A server process that
        died is cleaned up after first.  Where any free port will do, the one
        of the last time is taken again if it still is free.

        :raises AlreadyRunning: It runs already.
        :raises ImportError: uvloop was asked for and is not installed.
        :raises OSError: The port is taken, or the host is not of this machine.
        :raises StartError: The server process could not begin.
        :raises StartTimeout: It was not ready within ``start_timeout``.
        """
        with self._changing:
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
        with self._changing:
            home = self._take_down()
        if home is None:
            return
        home.check()
        if self._own_queue() is None:
            home.check_death(again=False)

    def reset(self) -> None:
        """Forget all messages that were accepted so far.

        Calls `Server.reset` in the server process, behind the handlers that
        are running.

        :raises HandlerError: A handler had failed, or `Server.reset` did.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer within ``reset_timeout``.
        """
        home = self._running("reset()")
        with self._changing:
            home.request("reset", timeout=self._reset_timeout, option="reset_timeout")
            home.check()

    def fault(
        self,
        stage: str,
        reply: str | None = None,
        *,
        when: str | None = None,
        times: int | None = None,
        delay: float = 0.0,
        drop: bool | str = False,
    ) -> Fault:
        """Have the server misbehave, from when this returns until `reset`.

        Of several faults that are for the same, the one that was made first
        strikes.  Blocks for ``reset_timeout`` at most.

        :param stage: Where: CONNECT (before the greeting), EHLO, HELO,
            STARTTLS, AUTH, MAIL, RCPT, DATA, EOM (the end of the message's
            content), RSET, NOOP or QUIT.
        :param reply: What to say instead of what would be done; such as
            ``"451 4.7.1 Later"``.  Lines are separated by a line feed.  421
            closes the connection, too (RFC 5321, 3.8).
        :param when: A glob, regardless of case: for the address at MAIL and
            RCPT, any of the message's at DATA and EOM, the mechanism at AUTH,
            the client's address at CONNECT, and elsewhere the EHLO name.
        :param times: How often; without, always.
        :param delay: Seconds to wait first.  Other sessions go on.
        :param drop: When to close the connection: ``"before"`` anything is
            done, ``"instead"`` of the reply but when all is done, or
            ``"after"`` the reply (at DATA, when content begins to arrive).
            True is ``"after"`` with a reply and ``"before"`` without.
        :return: The fault; its ``fired`` says how often it struck.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        :raises TypeError: A value is of the wrong type.
        :raises ValueError: There is no such stage, the reply is none, or
            another value is not possible.

        >>> with QueueController() as controller:
        ...     greylisting = controller.fault("RCPT", "451 4.7.1 Try again later", times=2)
        ...     greylisting.fired
        0
        """
        from lazr_smtptest.faults import Fault, make_rule

        rule = make_rule(stage, reply, when, times, delay, drop)
        home = self._running("fault()")
        number = home.request("fault", rule, timeout=self._reset_timeout, option="reset_timeout")
        return Fault(home, number)

    def gate(self, stage: str, *, when: str | None = None) -> Gate:
        """Park sessions at a stage, until the gate is opened.

        `reset` drops those that are parked, so that what they had begun does
        not go on in the next test.

        Made for a ``with`` statement, which opens it in the end.  Blocks for
        ``reset_timeout`` at most.

        :param stage: See `fault`.
        :param when: See `fault`.
        :return: The gate.
        :raises Exception: See `fault`.
        """
        from lazr_smtptest.faults import Gate, check_stage

        check_stage(stage, when)
        home = self._running("gate()")
        number = home.request(
            "gate",
            stage,
            when and when.lower(),
            timeout=self._reset_timeout,
            option="reset_timeout",
        )
        return Gate(home, number, stage)

    def sessions(self) -> list[Session]:
        """Tell what clients said and were told since the last `reset`.

        That is all connections that are open, and the last 100 that are not.
        Blocks for ``reset_timeout`` at most.

        :return: The sessions, in the order in which the clients connected.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        """
        home = self._running("sessions()")
        sessions: list[Session] = home.request(
            "sessions", timeout=self._reset_timeout, option="reset_timeout"
        )
        return sessions

    def client_context(self) -> ssl.SSLContext:
        """Make a context for a client that is to trust this server.

        It checks the server's certificate and name, as it should; use
        `Controller.host` to connect.

        :return: The context.
        :raises ImportError: The certificate has yet to be made, and trustme
            is not installed.
        :raises OSError: A file of your own is missing, or not right.
        :raises ValueError: The server has no TLS.
        """
        from lazr_smtptest.tls import client_context

        return client_context(self._credentials())

    @property
    def ca_file(self) -> str:
        """The path of the certificates, in PEM form, that a client has to trust.

        :raises Exception: See `client_context`.
        """
        return self._credentials().ca_file

    def _credentials(self) -> Credentials:
        if self.server.tls is None:
            raise ValueError(
                f"the server on {self.host} port {self.port} has no TLS: "
                "make it with tls='starttls' or 'implicit'"
            )
        if self.server._credentials is None:
            self.server._credentials = self.server.tls.credentials(self.server.host)
        return self.server._credentials

    def _running(self, what: str) -> HomeEnd:
        if self._home is None:
            raise NotRunning(
                f"{what} needs a running server, and none runs on {self.host} "
                f"port {self.port}: call start() first",
                host=self.host,
                port=self.port,
            )
        return self._home

    def _diagnose(self, timeout: float) -> tuple[SMTPTestError | None, list[Session]]:
        """Find out whether something is wrong with the server process.

        :param timeout: How long it may take to answer, in seconds.
        :return: That it died or is stuck, or None if it is well, or was
            stopped; and the sessions, where they are to be had.
        """
        home = self._home
        if home is None:
            return None, []
        try:
            return None, home.request("sessions", timeout=timeout)
        except NotRunning:  # it has been stopped meanwhile, or this is a forked child
            return None, []
        except (ServerDied, ServerStuck) as error:
            return error, []

    def _give_up(self) -> None:
        """End a server process that is known to be stuck, without asking first."""
        with self._changing:
            if self._home is not None:
                self._home.kill()
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

    # Starting.

    def _start(self) -> None:
        # Not at the head: importing this package is not to cost what running
        # a server does.
        from lazr_smtptest._channel import open_channel
        from lazr_smtptest._home import HomeEnd

        self._check_queue_is_free()
        if self.server.tls is not None:
            from lazr_smtptest.tls import server_context

            server_context(self._credentials())  # what is wrong is found here
        with contextlib.ExitStack() as handed_over:
            handed_over.enter_context(_standard_descriptors())
            sockets = self._listen()
            for sock in sockets:
                handed_over.enter_context(sock)
            port = sockets[0].getsockname()[1]
            channel = open_channel(self._context)
            handed_over.callback(channel.theirs.close)
            home = HomeEnd(channel)
            try:
                process = self._launch(channel.theirs, sockets, port)
                home.attach(process, self.host, port)
            except BaseException:
                home.close()
                raise
        self._port = port
        try:
            self._await_ready(home)
        except BaseException:
            _kill(home)
            home.close()
            raise
        self._home = home
        self._join_queue(home)

    def _listen(self) -> list[socket.socket]:
        from lazr_smtptest._listen import listen

        if self.server.port == 0 and self._port is not None:
            with contextlib.suppress(OSError):  # somebody has it now
                return listen(self.server.host, self._port)
        return listen(self.server.host, self.server.port)

    def _launch(self, theirs: ServerEnd, sockets: list[socket.socket], port: int) -> BaseProcess:
        from lazr_smtptest import _child

        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
            target=_child.main,
            args=(
                theirs,
                sockets,
                _child.Shipment(self.server, port),
                isinstance(self.server, QueueServer) and self._own_queue() is None,
                self._context.get_start_method() == "fork",
                logging.getLogger().level,
                _child.event_loop_factory(self._uvloop),
            ),
            name="lazr-smtptest",
            daemon=True,
        )
        try:
            with _undisturbed():
                process.start()
        except AssertionError as error:
            raise StartError(
                f"cannot start a server process for {self.host} port {port}: {error}.  Start it "
                "from a process that may have children, such as the one that started this one",
                host=self.host,
                port=port,
            ) from error
        return process

    def _await_ready(self, home: HomeEnd) -> None:
        where = home.where
        try:
            problem = home.await_reply(0, self._start_timeout, "was not ready")
        except ServerStuck as error:
            raise StartTimeout(
                f"{home.name} was started, and did not report that it serves within "
                f"{self._start_timeout:g} seconds.  "
                "Look for what keeps it, or give a longer start_timeout on a busy machine"
                + (f".  It was here:\n{error.stack}" if error.stack else ""),
                elapsed=self._start_timeout,
                **where,
            ) from None
        except ServerDied as error:
            raise StartError(
                f"{home.name} {describe_end(error.exitcode)} before it served.  "
                + (f"Its last words say why:\n{error.stack}" if error.stack else _SEE_STDERR),
                exitcode=error.exitcode,
                **where,
            ) from None
        if problem is not None:
            home.await_end(_END_TIMEOUT)
            raise StartError(f"{home.name} {problem}", exitcode=home.exitcode, **where)

    def _check_queue(self) -> None:
        queue = getattr(self.server, "queue", None)
        if not isinstance(self.server, QueueServer) or isinstance(queue, MessageQueue):
            return
        if not callable(getattr(queue, "put", None)):
            raise TypeError(
                "the server's queue must have a put(message), as a MessageQueue() has; "
                f"{queue!r} has none"
            )

    def _own_queue(self) -> MessageQueue | None:
        if not isinstance(self.server, QueueServer):
            return None
        queue = self.server.queue
        return queue if isinstance(queue, MessageQueue) else None

    def _check_queue_is_free(self) -> None:
        queue = self._own_queue()
        home = None if queue is None else queue._home
        if home is not None and home.is_alive():
            raise AlreadyRunning(
                f"this server's queue is filled by another controller's, {home.name}: "
                "give each controller a queue of its own",
                **home.where,
            )

    def _join_queue(self, home: HomeEnd) -> None:
        queue = self._own_queue()
        if queue is not None:
            queue._attach(home)
        elif isinstance(self.server, QueueServer):
            from lazr_smtptest._foreign import QueueFiller

            self._filler = QueueFiller(self.server.queue, home)

    # Stopping.

    def _take_down(self) -> HomeEnd | None:
        """End what runs or has died; give what is left of it."""
        home, filler = self._home, self._filler
        if home is None or home.is_foreign():
            return None
        deadline = now() + self._stop_timeout
        _end(home, self._stop_timeout)
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
