"""The test process's end of a lease: a socket, in place of pipes and a process of its own.

Test process.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from os import dup, getpid
from typing import TYPE_CHECKING, Any

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._limits import limit_behind
from lazr_smtptest._names import SPELLING
from lazr_smtptest._parent.forks import FORKING
from lazr_smtptest._parent.link import LONGEST_WAIT, ServerLink
from lazr_smtptest._util import now
from lazr_smtptest._wire.channel import CAUGHT_UP, COUNTED, UNASKED
from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest._wire.sharing import Welcome, limit_time, prove
from lazr_smtptest.errors import LeaseError, NotRunning, ServerDied

if TYPE_CHECKING:
    from typing import NoReturn

_TAKE_KEY = (
    ".  Take address and key from the SharedController, while that runs; its log may say more"
)

#: Seconds that one step of connecting has at least, however late it is.
_LEAST = 0.1


class _LeaseEnds:
    """An end of the socket, as `ParentEnds` is of pipes."""

    def __init__(self, pipe: Connection) -> None:
        self.records = pipe
        # A descriptor of its own, since a selector knows each once.
        self.requests = Connection(dup(pipe.fileno()))
        #: Nobody else writes these: see `LeaseLink.catch_up`.
        self.counters = memoryview(bytearray(8 * len(COUNTED))).cast("Q")

    def close(self) -> None:
        self.records.close()
        self.requests.close()


class RemoteServer:
    """A server process that somebody else started, as far as it can be known from here.

    It takes the place of a `ServerProcess`.  The socket's end of file says that it has ended.
    """

    pidfd = None
    must_be_looked_at = False
    exitcode: int | None = None

    def __init__(self, address: str) -> None:
        self._owner = getpid()
        #: Of whoever took the lease: a test, or pytest.
        self.spelling = SPELLING.get()
        self.name = f"the shared server at {address}"
        self.endpoint = Endpoint()
        self.where: dict[str, Any] = {}
        self.pid: int | None = None
        self.asked_to_stop = self.death_was_raised = self.was_given_back = False

    def introduce(self, welcome: Welcome) -> None:
        """Note what it says of itself."""
        where = welcome.endpoint
        self.endpoint, self.pid = where, welcome.pid
        self.where = {**where.facts, "pid": welcome.pid}
        self.name = f"the shared server process {welcome.pid} on {where}"

    @property
    def absence(self) -> str:
        return "This lease is closed" if self.was_given_back else "No server is running"

    @property
    def advice(self) -> str:
        return self.spelling.lease_closed if self.was_given_back else self.spelling.lease_anew

    @property
    def closed(self) -> str:
        return f"this lease of {self.name} is closed: {self.spelling.lease_closed}"

    def is_inherited(self) -> bool:
        return getpid() != self._owner

    def check_owner(self) -> None:
        """Raise NotRunning in a child of the process that has the lease."""
        if self.is_inherited():
            raise NotRunning(
                f"this lease of {self.name} belongs to process {self._owner}; this is process "
                f"{getpid()}, a child of that.  connect() here for another",
                **self.where,
            )

    def is_gone(self) -> bool:
        return False

    def show_stacks(self, _timeout: float = 0.0) -> str:
        return ""  # it would show them to the process that started it

    def note_end(self) -> None:
        """Do nothing: how it ended, nobody knows here."""

    kill = close = note_end

    def ended_well(self, _lost: int) -> bool:
        return self.asked_to_stop

    def death(self, _lost: int, more: str = "") -> ServerDied:
        self.death_was_raised = True
        return ServerDied(
            f"{self.name} has ended, and this lease with it; mail that was on its way is lost"
            f"{more}.  Whoever started it knows how it ended: by pytest, see the end of the run",
            **self.where,
        )


class LeaseLink(ServerLink):
    """A socket to a shared server, what has come through it, and who waits."""

    process: Any  # a RemoteServer, which stands in for a ServerProcess

    def __init__(self, pipe: Connection, address: str) -> None:
        ends: Any = _LeaseEnds(pipe)
        super().__init__(ends)
        self.begin(RemoteServer(address))
        self._catch_ups = itertools.count(1)

    def introduce(self, welcome: Welcome) -> None:
        self.process.introduce(welcome)

    def is_alive(self) -> bool:
        with self.lock:
            while self._read():  # the end of file is behind all else
                pass
        return super().is_alive()

    def catch_up(self) -> None:
        """Ask for a record behind all that there is by now.

        Nothing counts as complete before that has come: no memory is shared that says how
        much has been sent.  A signal handler that raises may come between any two steps: nothing
        is awaited that was not asked for, and what was asked for in vain is no answer to the next.
        """
        with self.lock:
            if not self.ended:
                number = next(self._catch_ups)
                self._send(UNASKED, "catch_up", number)
                self._counters[CAUGHT_UP] = number

    def _note_caught_up(self, number: int) -> None:
        self._received[CAUGHT_UP] = number

    def _note_unread(self, limit: int) -> None:
        self.note_failure(
            LeaseError(
                f"{self.process.name} refused mail with 452, since more than {limit} "
                "octets waited for this lease to be read: read it sooner, call reset(), "
                "or share the server with a larger unread_limit",
                **self.process.where,
            )
        )

    def _note_stopped(self) -> None:
        self.process.asked_to_stop = True

    def end(self, _timeout: float = 0.0) -> None:
        """End the lease; the server carries on."""
        self.process.asked_to_stop = self.process.was_given_back = True
        with self.lock:
            self._read_the_rest()
        self.close()

    def raise_silence(self, what: str, elapsed: float, option: str = "") -> NoReturn:
        if self.ended and self.process.ended_well(0):
            raise NotRunning(
                f"{self.process.name} was stopped by whoever shares it, while this call waited",
                **self.process.where,
            )
        super().raise_silence(what, elapsed, option)


def connect_to(addresses: Iterable[str], key: bytes, timeout: float) -> tuple[LeaseLink, Welcome]:
    """Connect to a shared server, at the first of these addresses where it is.

    :raises LeaseError: It is at none of them, or has another key.
    """
    deadline = now() + min(timeout, LONGEST_WAIT)
    reasons = []
    for address in addresses:
        try:
            return _connect(address, key, deadline)
        except AuthenticationError as error:
            reasons.append(f"{address}: the key is wrong, or something else is there ({error})")
        except OSError as error:
            limit = limit_behind(error)
            reason = error.strerror or str(error)
            reasons.append(f"{address}: {reason}" + (f"; {limit}" if limit else ""))
    raise LeaseError(
        "cannot connect to a shared server: "
        + "; ".join(reasons)
        + (_TAKE_KEY if SPELLING.get().is_program else "")
    )


def _connect(address: str, key: bytes, deadline: float) -> tuple[LeaseLink, Welcome]:
    with without_fakes():
        sock = _dial(address, max(deadline - now(), _LEAST))
        pipe = prove(sock, key, max(deadline - now(), _LEAST), is_server=False)
        with FORKING:
            link = LeaseLink(pipe, address)
    try:
        welcome: Welcome = link.await_ready(max(deadline - now(), _LEAST))
    except BaseException:
        link.close()
        raise
    link.introduce(welcome)
    return link, welcome


def _dial(address: str, timeout: float) -> socket.socket:
    """Connect a socket to a path, or to a host and a port."""
    if "/" in address:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            limit_time(sock, timeout)
            sock.connect(address)
        except BlockingIOError:  # its backlog is full
            sock.close()
            raise TimeoutError(errno.ETIMEDOUT, "it did not answer in time") from None
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)
