"""A server that many processes share, and each test's part of it.  Test process."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lazr_smtptest._calls import ServerCalls
from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._names import (
    OPTIONS_ELSEWHERE,
    check_choice,
    checked,
    checked_function,
    is_refusal,
)
from lazr_smtptest._parent import certificates, options
from lazr_smtptest._parent.describe import Remark
from lazr_smtptest._util import Found, positive_seconds, whole_number
from lazr_smtptest._wire.endpoint import Endpoint, SocketFile
from lazr_smtptest._wire.sharing import (
    ADDRESS,
    SCOPES,
    UNREAD_LIMIT,
    AddressTemplate,
    Scope,
    Sharing,
    check_claims,
    check_name,
)
from lazr_smtptest._wire.startup import PassedSocket
from lazr_smtptest.controller import Controller
from lazr_smtptest.errors import LeaseError, SMTPTestError
from lazr_smtptest.inbox import InboxCalls, MessageQueue
from lazr_smtptest.message import Message, headline, parse
from lazr_smtptest.server import OPTIONS, QueueServer, check_host

if TYPE_CHECKING:
    from typing_extensions import Self

    from lazr_smtptest._parent.lease_link import LeaseLink
    from lazr_smtptest._parent.link import ServerLink
    from lazr_smtptest._wire.sharing import Strays, Welcome
    from lazr_smtptest.sessions import Session

__all__ = ["Lease", "SharedController", "UnclaimedMail", "connect"]

__tracebackhide__ = is_refusal  # for pytest

#: Octets of randomness in a key, and in what tells one run's addresses from another's.
_KEY = 32
_RUN = 3

#: The name of the socket in its folder, and the longest path that macOS, which has the least
#: room for it, can bind (``sun_path``, less the NUL at its end).
_SOCKET = "leases"
_LONGEST_PATH = 103

#: Messages for nobody that a report lists.
_SHOWN = 20

_NONE_UNCLAIMED = "no mail came that no lease was for"


class UnclaimedMail(NamedTuple):
    """A message for no lease.

    :ivar message: The message; of its content, the first 4,096 octets.
    :ivar nearest: Whose mail it was or may have been meant to be, in words; empty if
        nothing comes near, and for all but the last 20.
    """

    message: Message
    nearest: str

    def __str__(self) -> str:
        return headline(self.message) + (f"; {self.nearest}" if self.nearest else "")


@checked(__init__=OPTIONS_ELSEWHERE, also=OPTIONS)
class SharedController(Controller):
    """Runs one server for many processes, each of which gets its own mail.

    Made for one application under test, which knows one mail server, and many tests at
    once.  Start it in one process, and `connect` from any, by its ``address`` and ``key``;
    each `Lease` has its own addresses.

    :param host: See `Server`.
    :param port: See `Server`.
    :param template: How `Lease.address` makes addresses: ``{name}`` and ``{lease}`` are
        replaced.
    :param faults: ``"own"`` if the faults and gates of a lease may affect only its own mail (what
        cannot be limited so is refused); or ``"all"`` if they may affect everybody.
    :param unread_limit: The octets of mail that may wait for one lease to read them, or one
        message, however large; beyond it, further mail is refused with 452, and the lease's
        next call raises LeaseError.
    :param lease_host: A host of this machine on which leases are taken by TCP, too; without,
        they are taken on a UNIX socket alone, which only this user may open.
    :param start_method: See `Controller`.
    :param start_timeout: See `Controller`.
    :param stop_timeout: See `Controller`.
    :param reset_timeout: See `Controller`.
    :param uvloop: See `Controller`.
    :param server_options: The keyword arguments of `Server`, without ``reset_on_rset``.
    :raises TypeError: A value is of the wrong type.
    :raises ValueError: A value is not possible; or see `Server`.

    :ivar key: What `connect` needs beside the address: whoever has it may read the mail.

    >>> with SharedController() as shared, connect(shared.address, shared.key) as lease:
    ...     lease.address("kim").startswith("kim@t1-")
    True
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 0,
        *,
        template: str = ADDRESS,
        faults: Scope = "own",
        unread_limit: int = UNREAD_LIMIT,
        lease_host: str | None = None,
        start_method: str | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        reset_timeout: float = 5.0,
        uvloop: bool | None = None,
        **server_options: Any,
    ) -> None:
        options.check_names(f"{type(self).__name__}()", server_options, SHARED_OPTIONS)
        AddressTemplate(template)
        check_choice("faults", faults, SCOPES)
        if server_options.get("reset_on_rset"):
            raise ValueError("reset_on_rset is not for a shared server: it would reset all leases")
        if lease_host is not None:
            check_host("lease_host", lease_host)
        self._template = template
        self._scope = faults
        self._unread_limit = whole_number("unread_limit", unread_limit, 1)
        self._lease_host = lease_host
        self.key = secrets.token_hex(_KEY)
        self._folder = _free_folder()
        self._tcp_address: str | None = None
        self.server_options = server_options
        #: What a handler passes on that is no message.
        self.queue = MessageQueue()
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
        """Make the server; see `QueueController`, whose subclasses override this, too."""
        self.server = QueueServer(host, port, self.queue, **self.server_options)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where leases are taken: the path of a UNIX socket, and ``host:port`` if asked for."""
        path = os.path.join(self._folder, _SOCKET)
        return (path,) if self._tcp_address is None else (path, self._tcp_address)

    @property
    def address(self) -> str:
        """Where leases are taken: ``host:port`` with a ``lease_host``, or else a path."""
        return self.addresses[-1]

    def stop(self) -> None:
        """Stop the server process: see `Controller.stop`.  All leases end.

        Leases with unread mail have a second to read it.

        :raises ServerDied: The server process had ended by itself.
        """
        super().stop()
        ended = self._ended
        if ended is not None and not ended.process.death_was_raised:
            ended.check_death()

    @property
    def unclaimed(self) -> list[UnclaimedMail]:
        """Mail that no lease was for, since the start: the last 1,000 messages.

        Blocks for ``reset_timeout`` at most.

        :raises Exception: See `Controller.sessions`.
        """
        return Found(self._strays().mail, _NONE_UNCLAIMED)

    def _strays(self) -> _Strays:
        return _Strays.of(self._ask(self._running("unclaimed"), "unclaimed"))

    @contextlib.contextmanager
    def _share(self) -> Iterator[Sharing]:
        from lazr_smtptest._launch import host_for_clients, listen, resolve

        with contextlib.ExitStack() as stack:
            path = self.addresses[0]
            sockets = [stack.enter_context(self._listen(path))]
            file = SocketFile.at(path)
            assert file is not None
            file = file._replace(has_own_folder=True)
            with contextlib.ExitStack() as undo:
                undo.callback(file.remove)
                if self._lease_host is not None:
                    found, bound = listen(resolve(self._lease_host, 0), 0)
                    sockets += [stack.enter_context(one) for one in found]
                    host = host_for_clients(self._lease_host, bound)
                    shown = f"[{host}]" if ":" in host else host
                    self._tcp_address = f"{shown}:{bound[0][1]}"
                yield Sharing(
                    sockets=[PassedSocket(one) for one in sockets],
                    file=file,
                    key=self.key.encode(),
                    template=self._template,
                    run=secrets.token_hex(_RUN),
                    scope=self._scope,
                    unread_limit=self._unread_limit,
                    trust=certificates.trust_in(self.server, str(self._endpoint)),
                )
                undo.pop_all()

    def _listen(self, path: str) -> socket.socket:
        from lazr_smtptest._launch import listen_unix

        while True:
            with contextlib.suppress(FileExistsError):  # made by an earlier start
                os.mkdir(self._folder, 0o700)
            # Unless whatever removes it after that one's end was late, and did so now.
            with contextlib.suppress(FileNotFoundError):
                return listen_unix(path)


#: What a `SharedController` takes; ``reset_on_rset`` has an error of its own.
SHARED_OPTIONS = tuple(
    dict.fromkeys(
        name
        for name in [*inspect.signature(SharedController).parameters, *OPTIONS]
        if name != "server_options"
    )
)


def _free_folder() -> str:
    """Choose a new folder for the socket; in /tmp, if elsewhere its path would be too long."""
    name = f"lazr-smtptest-{secrets.token_hex(_KEY // 4)}"
    folder = os.path.join(tempfile.gettempdir(), name)
    if len(os.fsencode(os.path.join(folder, _SOCKET))) <= _LONGEST_PATH:
        return folder
    return os.path.join("/tmp", name)  # noqa: S108 -- which is made with mode 0700, or not at all


class _Strays(NamedTuple):
    """Mail that no lease was for, and sessions that named no lease's recipients."""

    mail: list[UnclaimedMail]
    sessions: list[Session]  # the last

    @classmethod
    def of(cls, answer: Strays) -> _Strays:
        mail, sessions = answer
        found = [UnclaimedMail(parse(one.envelope, one.head), one.nearest) for one in mail]
        return cls(found, sessions)

    def remarks(self, when: str) -> list[Remark]:
        """Return what a report has to say of them."""
        more = len(self.mail) - _SHOWN
        points = [f"and {more} more, before these"] if more > 0 else []
        points += [str(one) for one in self.mail[-_SHOWN:]]
        mail = Remark(f"{len(self.mail)} sent {when} to an address of no test", points)
        sessions = Remark(
            f"Sessions {when} that named no recipient of any test, the last",
            sessions=self.sessions,
        )
        return [*([mail] if self.mail else []), *([sessions] if self.sessions else [])]


class Lease(InboxCalls, ServerCalls):
    """One test's part of a shared server; `connect` returns it.

    It gets the mail for its own recipients: the addresses that `address` makes, and those
    that `claim` adds.  A message to recipients of two leases reaches both.  `Controller.reset`,
    faults and gates are for its own recipients, and for the sessions that have named them.

    It is also a context manager: leaving closes it.

    :ivar queue: The `MessageQueue`.
    :ivar label: What its addresses have in place of ``{lease}``; no other lease ever has it.
    """

    _reset_timeout = 5.0

    def __init__(self, link: LeaseLink, welcome: Welcome, name: str) -> None:
        self._link: LeaseLink = link
        self.server = welcome.server
        if welcome.trust is not None:
            self.server._credentials = certificates.trusting(welcome.trust)
        self._template = AddressTemplate(welcome.template)
        self.queue = MessageQueue()
        self.queue._attach(link)
        self._begin(name)

    def __repr__(self) -> str:
        state = "" if self.is_running else ", not running"
        return f"<Lease {self.label} of {self._link.process.name}{state}>"

    @property
    def _endpoint(self) -> Endpoint:
        endpoint: Endpoint = self._link.process.endpoint
        return endpoint

    @property
    def _inbox(self) -> MessageQueue:
        return self.queue

    def address(self, name: str) -> str:
        """Return an address that belongs to this lease, and never to another.

        Made by the template of the `SharedController`.  Any other name there is this lease's,
        too, so that a program may add to the local part.

        :param name: What stands for ``{name}``, such as ``"kim"``.
        :return: The address.
        :raises TypeError: The name is no str.
        :raises ValueError: It cannot stand in an address without quotes.
        """
        return self._template.make(check_name(name), self.label)

    def claim(self, *addresses: str) -> None:
        """Get the mail for other addresses, too, until this lease ends.

        An address that `address` made for another lease stays that one's, also where a glob
        matches it.  Blocks up to 5 seconds.

        :param addresses: Addresses, or globs such as ``"*@shop.example"``; ``"*"`` is whatever
            nobody else gets.  Their case is ignored.
        :raises LeaseError: Another lease holds one of them, or it is made for another; then none
            is claimed.
        :raises TypeError: There is none, or one is no str.
        :raises ValueError: One is no address.
        :raises Exception: See `Controller.reset`.
        """
        held = self._ask(self._link, "claim", check_claims(addresses))
        if held is not None:
            raise LeaseError(
                f"{held}: take an address of your own, by address(), or run these tests one "
                "after the other",
                **self._link.process.where,
            )

    @property
    def unclaimed(self) -> list[UnclaimedMail]:
        """Mail since this lease began that no lease was for.  Blocks up to 5 seconds.

        :raises Exception: See `Controller.reset`.
        """
        return Found(self._strays().mail, _NONE_UNCLAIMED)

    def _strays(self) -> _Strays:
        return _Strays.of(self._ask(self._link, "unclaimed"))

    def _remarks(self) -> list[Remark]:
        try:
            return self._strays().remarks("since the test began")
        except SMTPTestError:  # of a server that is gone, which the report says before this
            return []

    def close(self) -> None:
        """Give up the lease: from now on nobody has its addresses.

        You can still read what has arrived.  Blocks only if another thread waits for mail of
        this lease, until that has noticed; up to 5 seconds.
        """
        self._link.end()

    def start(self) -> NoReturn:
        """Raise an error, as `stop` and `restart` do: the server is not this lease's.

        :raises LeaseError: Always.
        """
        raise LeaseError(
            f"{self._link.process.name} is not this lease's to start or stop: whoever shares it "
            f"does that.  {self._link.process.spelling.own_server}",
            **self._link.process.where,
        )

    def stop(self) -> NoReturn:
        """Raise an error; see `Lease.start`."""
        self.start()

    def restart(self, **_changes: object) -> NoReturn:
        """Raise an error; see `Lease.start`."""
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, link: ServerLink, what: str, *details: Any) -> Any:
        answer = link.request(what, *details, timeout=self._reset_timeout)
        if what in ("fault", "gate") and isinstance(answer, str):
            raise LeaseError(f"this {what} {answer}", **self._link.process.where)
        return answer

    # What the plugin asks for.

    def _begin(self, name: str) -> None:
        """Begin anew, with other addresses; end all waiting."""
        self.queue._begin_anew()
        self.label: str = self._ask(self._link, "begin", name or f"process {os.getpid()}")
        with self._link.lock:
            self._link.failures.clear()

    def _finish(self) -> None:
        """End it, and keep the connection for another."""
        self._ask(self._link, "end")


@checked_function({"host": "address", "port": "address", "password": "key"})
def connect(
    address: str | Iterable[str], key: str, *, name: str = "", timeout: float = 10.0
) -> Lease:
    """Take a lease of a shared server.

    :param address: `SharedController.address`; or several, of which the first that answers
        is taken.
    :param key: `SharedController.key`.
    :param name: Whose it is, for errors of others; by default the process.
    :param timeout: How long to wait at most, in seconds.
    :return: The lease.
    :raises LeaseError: Nobody answers there, or the key is wrong; or a limit of the system is
        reached, which is named then.
    :raises ServerDied: The server process has ended meanwhile.
    :raises ServerStuck: It did not answer.
    :raises TypeError: A value is of the wrong type.
    :raises ValueError: An address is no path and no ``host:port``, or the timeout is not
        positive.
    """
    with without_fakes():
        import lazr_smtptest._parent.preloaded
        import lazr_smtptest.faults  # noqa: F401
        from lazr_smtptest._parent.lease_link import connect_to
    places = _check_places(address)
    if not isinstance(key, str):
        raise TypeError("key must be a str, as a SharedController has it")
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, such as the test's, not {name!r}")
    link, welcome = connect_to(places, key.encode(), positive_seconds("timeout", timeout))
    try:
        return Lease(link, welcome, name)
    except BaseException:
        link.close()
        raise


def _check_places(address: object) -> list[str]:
    """Check where a shared server may be, and return that as a list."""
    places = [address]
    if isinstance(address, Iterable) and not isinstance(address, str | bytes):
        places = [*address]
    must = "address must be what a SharedController has for it, a path or host:port"
    found = []
    for place in places:
        if not isinstance(place, str):
            raise TypeError(f"{must}, not {place!r}")
        port = re.fullmatch(r".+:(\d{1,5})", place)
        if "/" not in place and not (port and 0 < int(port[1]) < 65536):
            raise ValueError(f"{must}, not {place!r}")
        found.append(place)
    if not found:
        raise ValueError(f"{must}, not {address!r}")
    return found
