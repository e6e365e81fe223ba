"""Starting and stopping a server process.  Test process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from queue import Empty
from typing import TYPE_CHECKING, Any

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._limits import check_descriptors
from lazr_smtptest._parent import certificates, options
from lazr_smtptest._parent.forks import ForkSafeLock
from lazr_smtptest._util import Found, now, positive_seconds
from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest.errors import (
    AlreadyRunning,
    HandlerError,
    NotRunning,
    ServerDied,
    ServerStuck,
    SMTPTestError,
)
from lazr_smtptest.inbox import InboxCalls, MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    import ssl

    # typing has them from 3.11 on.
    from typing_extensions import Self

    from lazr_smtptest._parent.feeder import QueueFeeder
    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest.faults import Fault, Gate, Stage
    from lazr_smtptest.message import Message
    from lazr_smtptest.sessions import Session

__all__ = ["Controller", "QueueController"]


@options.checked_controller
class Controller:
    """Runs a `Server` in a process of its own.

    It is a context manager, too: entering starts, leaving stops.

    :param server: What to run.
    :param start_method: ``"fork"``, ``"forkserver"`` or ``"spawn"``, see
        `multiprocessing`.  By default ``"fork"``; on macOS the platform's
        default, and ``"forkserver"`` in free-threaded Python.
    :param start_timeout: How long the server process may take to serve, in seconds.
    :param stop_timeout: How long `stop` may take, in seconds.
    :param reset_timeout: How long `reset` may take, in seconds.
    :param uvloop: Whether the server process uses uvloop's event loop; by
        default if it is installed.  Where gevent or eventlet have replaced threads
        by greenlets, it does not.
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

    @property
    def host(self) -> str:
        """The host that the server was asked to listen on; to connect to, too.

        Where that means all interfaces, it is an address of this machine.

        :raises ValueError: It listens on a UNIX socket.
        """
        return self._endpoint.tcp("host").host

    @property
    def port(self) -> int:
        """The port that the server listens on, or last did.

        Before the first `start` it is the one asked for.

        :raises NotRunning: A free one was asked for, and `start` has yet to find it.
            (Clients take 0 for their usual port, and mail goes out for real.)
        :raises ValueError: It listens on a UNIX socket.
        """
        host, port, _ = self._endpoint.tcp("port")
        if not port:
            raise NotRunning(
                f"the server on {host} has no port before it is started, since it was asked "
                "to take a free one: call start() first, or make it with a port of your own",
                host=host,
            )
        return port

    @property
    def unix_socket(self) -> str | None:
        """The absolute path of the UNIX socket to connect to; None for a host and a port."""
        return self._endpoint.unix_socket

    @property
    def pid(self) -> int | None:
        """The process id of the server process, or None."""
        return None if self._link is None else self._link.process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a server process, and it is alive."""
        return self._link is not None and self._link.is_alive()

    def start(self) -> None:
        """Start the server process, and wait until it serves.

        Clients may connect as soon as this returns.  What a server
        process that died has left behind is removed first.  A server that was
        made with port 0 keeps its port when it is started again, if that is
        still free.

        :raises AlreadyRunning: It runs already.
        :raises ImportError: uvloop was asked for and is not installed.
        :raises OSError: The port is taken, or the host is not of this machine; or there can be
            no UNIX socket at the path.  One that nobody listens on any more is replaced.
        :raises StartError: The server process could not begin; or a limit of the
            system is reached, which is named then.
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

        Options that are not named stay as they are.  Messages that were accepted
        stay readable; faults, gates and sessions go, as with `stop`.  If an
        option is wrong, the server goes on as it was; if the new server process
        cannot start, one is started with the options from before.  A server
        that does not run is started.  ``unix_socket`` moves it there, and None back to its
        host and port.

        :param changes: Keyword arguments of `Server`, and those of `Controller`.
        :raises TypeError: An option is unknown, or of the wrong type.
        :raises ValueError: A value is not possible, or not with the other options.
        :raises HandlerError: A handler had failed, and no call had said so yet.
            The server is restarted nevertheless.
        :raises Exception: See `start`.
        """
        with self._changing.lock:
            before, wanted = options.current(self), options.changed(self, changes)
            was_running = self.is_running
            try:
                wanted.apply(self)
                link = self._replace()
            except BaseException:
                before.apply(self)
                if was_running and not self.is_running:
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
        it.  Whatever it accepted stays readable.  Stopping what does not run
        does nothing.

        :raises HandlerError: A handler had failed, and no call had said so
            yet.  The server is stopped nevertheless.
        :raises ServerDied: The server process had ended by itself, no call had
            said so yet, and there is no `MessageQueue` whose next call will.
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

    # What a test asks of a running server.

    def reset(self) -> None:
        """Forget all messages that were accepted so far.

        Calls `Server.reset` in the server process, behind the handlers that
        are running.

        :raises HandlerError: A handler had failed, or `Server.reset` did.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer within ``reset_timeout``.
        """
        link = self._running("reset()")
        self._ask(link, "reset")
        link.check()

    def fault(
        self,
        stage: Stage,
        reply: str | None = None,
        *,
        raw: bytes | None = None,
        when: str | None = None,
        times: int | None = None,
        delay: float = 0.0,
        trickle: float = 0.0,
        drop: bool | str = False,
        after: int | None = None,
    ) -> Fault:
        """Make the server misbehave, from when this returns until `reset`.

        If several faults match, only the first one made fires.  Blocks for
        ``reset_timeout`` at most.

        :param stage: Where: CONNECT (before the greeting), EHLO, HELO, STARTTLS, AUTH, MAIL,
            RCPT, DATA, BDAT (when the chunk has come; where CHUNKING is offered), EOM (the end
            of the message's content), RSET, NOOP, VRFY, EXPN, HELP or QUIT; for
            :doc:`LMTP <lmtp>`, LHLO in place of EHLO and HELO.
        :param reply: What to say instead of what would be done; such as ``"451 4.7.1 Later"``.
            Lines are separated by a line feed.  421 closes the connection, too (RFC 5321, 3.8).
        :param raw: Octets to send in place of a reply, as they are.  No line end is added, and
            no code is looked at: only ``drop`` closes the connection.
        :param when: A glob, regardless of case: for the address at MAIL, RCPT, VRFY and EXPN,
            any of the message's at DATA, BDAT and EOM, the mechanism at AUTH, the topic at HELP,
            the client's address at CONNECT, and elsewhere the EHLO name.
        :param times: How often; without, always.
        :param delay: Seconds to wait first.  Other sessions go on.
        :param trickle: Seconds before each further line of the reply, yours or the usual one;
            or before each further octet, if it has one line, or is ``raw``.
        :param drop: When to close the connection: ``"before"`` anything is done, ``"instead"``
            of the reply but when all is done, ``"after"`` the reply (at DATA, when content
            begins to arrive), or, at DATA, amid the ``"content"``.  True is ``"content"`` with
            ``after``; without, ``"after"`` with a reply and ``"before"`` with none.
        :param after: At DATA: how many octets of content come first, or all there are.  Then
            come the delay, in which nothing is read, the reply, which is the only one that
            the message gets, and the drop.  ``drop="content"`` alone means 1.
        :return: The fault; its ``fired`` says how often it fired.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        :raises TypeError: A value is of the wrong type.
        :raises ValueError: A value is not possible, or not with the others.
        """
        from lazr_smtptest._wire.rules import make_rule
        from lazr_smtptest.faults import Fault

        rule = make_rule(self.server, stage, reply, raw, when, times, delay, trickle, drop, after)
        link = self._running("fault()")
        return Fault(link, self._ask(link, "fault", rule), rule)

    def gate(self, stage: Stage, *, when: str | None = None) -> Gate:
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
        from lazr_smtptest._wire.rules import check_stage
        from lazr_smtptest.faults import Gate

        name, when = check_stage(self.server, stage, when)
        link = self._running("gate()")
        return Gate(link, self._ask(link, "gate", name, when), name)

    def hang_up(self, reply: str | None = None) -> int:
        """End all sessions that are open, as a server does that has had enough.

        For a client that keeps its connection: its next mail finds it closed.
        Blocks for ``reset_timeout`` at most.

        :param reply: What to say first, such as ``"421 4.4.2 Idle for too long"``;
            without, nothing.  Nothing is said before TLS that is to come first, nor amid a
            reply that trickles.
        :return: How many sessions have been ended.
        :raises ValueError: The reply does not begin with a code.
        :raises Exception: See `fault`.
        """
        from lazr_smtptest._wire.rules import encode_reply

        encoded = None if reply is None else encode_reply(reply) + b"\r\n"
        count: int = self._ask(self._running("hang_up()"), "hang_up", encoded)
        return count

    def sessions(self) -> list[Session]:
        """Return what clients said and were told since the last `reset`.

        That is all connections that are open, and the last 100 that are not.
        When the server has been stopped, it is what they had done by then.
        Blocks for ``reset_timeout`` at most.

        :return: The sessions, in the order in which the clients connected.
        :raises NotRunning: The server has not been started.
        :raises ServerDied: The server process has ended by itself, or had to be
            killed, and nobody knows what clients did.
        :raises ServerStuck: It did not answer.
        """
        ended = self._ended
        if self._link is not None or ended is None:
            sessions = self._ask(self._running("sessions()"), "sessions")
        else:
            sessions = ended.last_sessions()
            if sessions is None:
                raise ended.death("; what clients did is not known")
        what = f"no more than {len(sessions)} clients have" if sessions else "no client has"
        return Found(sessions, f"{what} connected to {self._endpoint} since the last reset()")

    @property
    def connections(self) -> int:
        """How many clients have connected since the last `reset`.

        `sessions` has no more than the last 100 of those that are gone.  When the
        server has been stopped, it is how many had by then.  Blocks for
        ``reset_timeout`` at most.

        :raises Exception: See `sessions`.
        """
        ended = self._ended
        if self._link is not None or ended is None:
            count: int = self._ask(self._running("connections"), "connections")
            return count
        if ended.last_connections is None:
            raise ended.death("; what clients did is not known")
        return ended.last_connections

    def client_context(self, *, with_cert: bool | str = False) -> ssl.SSLContext:
        """Make a context for a client that is to trust this server.

        It checks the server's certificate and name, as it should; use
        `Controller.host` to connect.  On a UNIX socket the name is ``localhost``.

        :param with_cert: True to have the client show the certificate of
            `client_cert_file`; or the common name of another one, such as
            ``"kim@example.com"``.
        :return: The context.
        :raises ImportError: A certificate has yet to be made, and trustme
            is not installed.
        :raises OSError: A file of your own is missing, or not right.
        :raises TypeError: ``with_cert`` is neither a bool nor a str.
        :raises ValueError: The server has no TLS; or, ``with_cert``, asks for no certificate
            of a client, or has a ``client_ca_file`` of your own; or a certificate cannot have
            the name.
        """
        return certificates.client_context(self.server, str(self._endpoint), with_cert)

    @property
    def ca_file(self) -> str:
        """The path of the certificates, in PEM form, that a client has to trust.

        :raises Exception: See `client_context`.
        """
        return certificates.credentials(self.server, str(self._endpoint)).ca_file

    @property
    def client_cert_file(self) -> str:
        """The path of a certificate that clients can show, and its key, in PEM form.

        It is for ``client@example.com``, and the server trusts it.

        :raises Exception: See `client_context`.
        """
        return certificates.client_cert_file(self.server, str(self._endpoint))

    def _running(self, what: str) -> ServerLink:
        if self._link is None:
            raise NotRunning(
                f"{what} needs a running server, and none runs on {self._endpoint}: "
                "call start() first",
                **self._endpoint.facts,
            )
        return self._link

    def _ask(self, link: ServerLink, what: str, *details: Any) -> Any:
        return link.request(what, *details, timeout=self._reset_timeout, option="reset_timeout")

    def _diagnose(self, timeout: float) -> tuple[SMTPTestError | None, list[Session] | None]:
        """Return that the server process died or is stuck, if so; and the sessions, if known."""
        link = self._link
        if link is None:
            return None, [] if self._ended is None else self._ended.last_sessions()
        try:
            return None, link.request("sessions", timeout=timeout)
        except NotRunning:  # it has been stopped meanwhile, or this is a forked child
            return None, link.last_sessions()
        except (ServerDied, ServerStuck) as error:
            return error, link.last_sessions()

    # Starting and stopping.

    def _start(self, *, same_port: bool = False) -> None:
        with without_fakes():
            # Not at the head: importing this package is not to cost what running a server does.
            from lazr_smtptest._parent.process import limits_named

        with limits_named(self._endpoint):
            self._start_process(same_port)

    def _start_process(self, same_port: bool) -> None:
        self._check_handlers()
        self._check_queue_is_free()
        with without_fakes():
            from lazr_smtptest._launch import await_ready

            check_descriptors()
        link = self._launch(same_port)
        await_ready(link, self._start_timeout)
        if self.server.unix_socket is None:
            self._host, self._port, _ = link.process.endpoint
        self._link, self._ended = link, None
        try:
            self._connect_queue(link)
        except BaseException:  # there may be no thread for it
            self._give_up()
            raise

    def _launch(self, same_port: bool) -> ServerLink:
        from lazr_smtptest._launch import launch, listen_for, standard_descriptors

        certificates.check(self.server, str(self._endpoint))  # what is wrong is found here
        is_foreign = isinstance(self.server, QueueServer) and self._message_queue() is None
        with (
            standard_descriptors(),
            listen_for(self.server, self._port, same_port) as listening,
            without_fakes(),  # now, since to look a name up may take long
        ):
            method, server = self._start_method, self.server
            return launch(method, server, listening, is_foreign, self._uvloop)

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

        Subclasses override this to have another `QueueServer`, as they did
        with 2.x.  It should take ``self.queue`` and ``self.server_options``.

        :param host: Where to listen.
        :param port: Where to listen.
        """
        self.server = QueueServer(host, port, self.queue, **self.server_options)

    @property
    def _inbox(self) -> MessageQueue:
        return self.queue

    def __iter__(self) -> Iterator[Message]:
        """Take the messages that are there now.

        :raises HandlerError: See `MessageQueue.get`.
        :raises ServerDied: See `MessageQueue.get`.
        :raises ServerStuck: See `MessageQueue.get`.
        """
        with contextlib.suppress(Empty):
            while True:
                yield self.queue.get_nowait()
