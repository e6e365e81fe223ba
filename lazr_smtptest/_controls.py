"""What a test asks of a running server.  Test process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazr_smtptest.errors import NotRunning, ServerDied, ServerStuck, SMTPTestError

if TYPE_CHECKING:
    import ssl

    from lazr_smtptest._forks import Turn
    from lazr_smtptest._home import HomeEnd
    from lazr_smtptest.faults import Fault, Gate
    from lazr_smtptest.server import Server
    from lazr_smtptest.sessions import Session
    from lazr_smtptest.tls import Credentials

__all__ = ["Controls"]


class Controls:
    """The part of a `Controller` that talks to the server process while it runs."""

    # These are the controller's.
    server: Server
    _changing: Turn
    _home: HomeEnd | None
    _reset_timeout: float
    if TYPE_CHECKING:

        @property
        def host(self) -> str:
            """See `Controller.host`."""

        @property
        def port(self) -> int:
            """See `Controller.port`."""

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
        with self._changing.lock:
            self._ask(home, "reset")
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
        :raises ValueError: There is no such stage, the reply does not begin
            with a code, or another value is not possible.

        >>> from lazr_smtptest import QueueController
        >>> with QueueController() as controller:
        ...     greylisting = controller.fault("RCPT", "451 4.7.1 Try again later", times=2)
        ...     greylisting.fired
        0
        """
        from lazr_smtptest.faults import Fault, make_rule

        rule = make_rule(stage, reply, when, times, delay, drop)
        home = self._running("fault()")
        return Fault(home, self._ask(home, "fault", rule))

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
        return Gate(home, self._ask(home, "gate", stage, when and when.lower()), stage)

    def sessions(self) -> list[Session]:
        """Tell what clients said and were told since the last `reset`.

        That is all connections that are open, and the last 100 that are not.
        Blocks for ``reset_timeout`` at most.

        :return: The sessions, in the order in which the clients connected.
        :raises NotRunning: The server is not running.
        :raises ServerDied: The server process has ended by itself.
        :raises ServerStuck: It did not answer.
        """
        sessions: list[Session] = self._ask(self._running("sessions()"), "sessions")
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

    def _ask(self, home: HomeEnd, what: str, *details: Any) -> Any:
        return home.request(what, *details, timeout=self._reset_timeout, option="reset_timeout")

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
