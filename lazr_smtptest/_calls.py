"""What a test asks of a running server.  Test process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazr_smtptest._names import CONTROLLERS_ELSEWHERE, FAULT_ELSEWHERE, checked, is_refusal
from lazr_smtptest._parent import certificates
from lazr_smtptest._util import Found
from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest.errors import NotRunning, ServerDied, ServerStuck, SMTPTestError

if TYPE_CHECKING:
    import ssl

    from lazr_smtptest._parent.describe import Remark
    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest.faults import Drop, Fault, Gate, Stage
    from lazr_smtptest.server import Server
    from lazr_smtptest.sessions import Session

__tracebackhide__ = is_refusal  # for pytest


@checked(
    attributes=CONTROLLERS_ELSEWHERE,
    fault=FAULT_ELSEWHERE,
    gate=FAULT_ELSEWHERE,
    hang_up=FAULT_ELSEWHERE,
    client_context={},
    reset={"timeout": "reset_timeout of the controller"},
    sessions={"timeout": "reset_timeout of the controller"},
)
class ServerCalls:
    """What you can ask of a server: your own, or your part of a shared one."""

    server: Server
    _reset_timeout: float
    _link: ServerLink | None
    _ended: ServerLink | None = None  # of the server that was stopped last

    @property
    def _endpoint(self) -> Endpoint:
        raise NotImplementedError

    @property
    def host(self) -> str:
        """The host that the server listens on, and that clients connect to.

        If that means all interfaces, it is an address of this machine.

        :raises ValueError: It listens on a UNIX socket.
        """
        return self._endpoint.tcp("host").host

    @property
    def port(self) -> int:
        """The port that the server listens on, or last did.

        Before the first `start` it is the one that you asked for.

        :raises NotRunning: You asked for a free one, and `start` has yet to find it.
            (Clients take 0 for their usual port, and would send real mail.)
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

    def reset(self) -> None:
        """Forget all messages that were accepted so far.

        Calls `Server.reset` in the server process, after the handlers that
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
        drop: bool | Drop = False,
        after: int | None = None,
    ) -> Fault:
        """Make the server misbehave, from when this returns until `reset`.

        If several faults match, only the first one created fires.  Blocks for
        ``reset_timeout`` at most.

        :param stage: Where: CONNECT (before the greeting), EHLO, HELO, STARTTLS, AUTH, MAIL,
            RCPT, DATA, BDAT (when the chunk has come; where CHUNKING is offered), EOM (the end
            of the message's content), RSET, NOOP, VRFY, EXPN, HELP or QUIT; for
            :doc:`LMTP <lmtp>`, LHLO in place of EHLO and HELO.
        :param reply: The reply instead of doing what was asked, such as ``"451 4.7.1 Later"``.
            Separate lines by a line feed.  421 closes the connection, too (RFC 5321, 3.8).
        :param raw: Bytes to send instead of a reply, unchanged.  No line end is added, and
            no code is looked at: only ``drop`` closes the connection.
        :param when: A glob, regardless of case.  At MAIL, RCPT, VRFY and EXPN it is for the
            address; at DATA, BDAT and EOM for any address of the message; at AUTH for the
            mechanism, at HELP for the topic, at CONNECT for the client's address; and
            elsewhere for the EHLO name.
        :param times: How often; without it, always.
        :param delay: Seconds to wait first.  Other sessions continue.
        :param trickle: Seconds before each further line of the reply, yours or the usual one;
            or before each further byte, if it has one line, or is ``raw``.
        :param drop: When to close the connection.  ``"before"``: before anything is done.
            ``"instead"``: after everything is done, without a reply.  ``"after"``: after the
            reply; at DATA, when content begins to arrive.  ``"content"``: at DATA, in the
            middle of the content.  True is ``"content"`` with ``after``; otherwise
            ``"after"`` with a reply and ``"before"`` without one.
        :param after: At DATA: how many bytes of content come first, or all of them.  Then
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
        """Hold sessions at a stage, until you open the gate.

        `reset` drops those that are held, so that what they had begun does
        not continue in the next test.

        Use it in a ``with`` statement, which opens it at the end.  Blocks for
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
        """End all open sessions, as a server does after a time limit.

        A client that keeps its connection finds it closed at its next mail.
        Blocks for ``reset_timeout`` at most.

        :param reply: What to send first, such as ``"421 4.4.2 Idle for too long"``;
            by default nothing.  Nothing is sent before implicit TLS is in use, nor in the
            middle of a reply that trickles.
        :return: How many sessions it ended.
        :raises ValueError: The reply does not begin with a code.
        :raises Exception: See `fault`.
        """
        from lazr_smtptest._wire.rules import encode_reply

        encoded = None if reply is None else encode_reply(reply) + b"\r\n"
        count: int = self._ask(self._running("hang_up()"), "hang_up", encoded)
        return count

    def sessions(self) -> list[Session]:
        """Return what clients and server said since the last `reset`.

        These are all open connections, and the last 100 that are closed.  After `stop`,
        you get them as they were then.  Blocks for ``reset_timeout`` at most.

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

        `sessions` has only the last 100 of those that are closed.  After `stop`, this
        is how many had connected by then.  Blocks for ``reset_timeout`` at most.

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
        """Return a context for a client that trusts this server.

        It checks the server's certificate and name, as it should; connect to
        `Controller.host`.  On a UNIX socket the name is ``localhost``.

        :param with_cert: True makes the client show the certificate of
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

    def _remarks(self) -> list[Remark]:
        """Return what else a report on a failed test has to say."""
        return []

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
