"""What joins a server that is shared with those who have a lease of it.  Both processes.

A lease's requests and records go over one socket, by the classes that carry them over
pipes.  Before the first of them, each side shows the other that it has the key, by
`multiprocessing.connection`'s own challenge: nothing is unpickled before that.
"""

from __future__ import annotations

import errno
import hmac  # noqa: F401 -- which the challenge imports when it is too late to import
import re
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from multiprocessing import AuthenticationError, connection
from os import set_blocking
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from lazr_smtptest._names import is_refusal, option
from lazr_smtptest._reading.addresses import for_fnmatch, is_glob
from lazr_smtptest._wire.endpoint import Endpoint, SocketFile
from lazr_smtptest._wire.startup import PassedSocket
from lazr_smtptest.server import Server
from lazr_smtptest.sessions import Session

if TYPE_CHECKING:
    from lazr_smtptest.tls import Trust

__tracebackhide__ = is_refusal  # for pytest

#: What `Lease.address` makes, unless the owner of the run says otherwise.
ADDRESS = "{name}@{lease}.example.test"

#: Octets of mail that wait in the server process for a lease that does not read.
UNREAD_LIMIT = 268_435_456

#: Whose mail a lease's faults and gates may affect: its own, or everybody's.
Scope = Literal["own", "all"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: What a lease is named in its addresses: a number, and the run's own letters.
LABEL = "t[0-9]+-[0-9a-f]{6}"

#: What a local part and a domain may have beside the two fields (RFC 5321, 4.1.2).
_FIXED = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`|~-]*@[A-Za-z0-9.-]+")


class AddressTemplate:
    """How the addresses of leases are made, and how they are known.

    :raises TypeError: It is no str.
    :raises ValueError: No address can be made by it, or not one for each lease.
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise TypeError(
                f"{option('template')} must be a str, such as {ADDRESS!r}, not {template!r}"
            )
        parts = re.split(r"(\{name\}|\{lease\})", template)
        filled = template.replace("{name}", "n").replace("{lease}", "t1")
        is_whole = sorted(parts[1::2]) == ["{lease}", "{name}"]
        if not is_whole or "{name}{lease}" in template or not _FIXED.fullmatch(filled):
            raise ValueError(
                f"{option('template')} must have {{name}} and {{lease}} in it, each once and "
                f"apart, such as {ADDRESS!r} or '{{name}}+{{lease}}@example.com', not {template!r}"
            )
        self.text = template
        patterns = {"{name}": "(?P<name>.+)", "{lease}": f"(?P<lease>{LABEL})"}
        self._pattern = re.compile(
            "".join(patterns.get(part) or re.escape(part.casefold()) for part in parts)
        )

    def make(self, name: str, label: str) -> str:
        return self.text.replace("{name}", name).replace("{lease}", label)

    def label_in(self, address: str) -> str | None:
        """Return which lease an address, as `normal` has it, was made for; None for none."""
        found = self._pattern.fullmatch(address)
        return None if found is None else found["lease"]


def check_name(name: object) -> str:
    """Check what is before the at sign of an address to be."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, such as 'kim', not {name!r}")
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`|~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`|~-]+)*", name):
        whole = ": claim() takes whole addresses" if "@" in name else ""
        raise ValueError(
            "name must be what may come before the at sign of an address without quotes, "
            f"such as 'kim', not {name!r}{whole}"
        )
    return name


def check_claims(addresses: Iterable[object]) -> list[str]:
    """Check the addresses to claim, and return them."""
    claims = []
    for one in addresses:
        if not isinstance(one, str):
            raise TypeError(
                "claim() takes addresses, such as 'kim@example.com' or '*@example.com', "
                f"not {one!r}"
            )
        if one != "*" and not re.fullmatch(r"[^\s@]+@[^\s@]+|\".*\"@[^\s@]+", one):
            raise ValueError(
                "claim() takes addresses, such as 'kim@example.com' or '*@example.com', or '*' "
                f"for all that is left, not {one!r}"
            )
        claims.append(one)
    if not claims:
        raise TypeError("claim() needs an address, such as 'kim@example.com' or '*@example.com'")
    return claims


#: What `fnmatch` takes for one of a set of characters.
_SET = re.compile(r"\[(?:!.|[^!])[^\]]*\]")


def overlap(one: str, other: str) -> bool:
    """Return whether an address may match both globs; in doubt, that is so."""
    if not (is_glob(one) and is_glob(other)):
        return fnmatchcase(one, for_fnmatch(other)) or fnmatchcase(other, for_fnmatch(one))
    one, other = (_SET.sub("?", for_fnmatch(glob)) for glob in (one, other))
    #: Where the rest of ``other`` may begin that the rest of ``one`` has to meet.
    reached = _past_stars({0}, other)
    for mark in one:
        if mark == "*":
            reached = set(range(min(reached), len(other) + 1)) if reached else reached
            continue
        stays = {at for at in reached if at < len(other) and other[at] == "*"}
        steps = {
            at + 1
            for at in reached
            if at < len(other) and (other[at] in (mark, "?") or (mark == "?" and other[at] != "*"))
        }
        reached = _past_stars(stays | steps, other)
    return len(other) in reached


def _past_stars(reached: set[int], glob: str) -> set[int]:
    found = set(reached)
    for at in reached:
        while at < len(glob) and glob[at] == "*":
            at += 1
            found.add(at)
    return found


class Sharing(NamedTuple):
    """What the server process of a shared server has to know of leases."""

    sockets: list[PassedSocket]  # where it takes those who want one
    file: SocketFile  # of the first of these
    key: bytes
    template: str  # of addresses
    run: str  # six letters that are in no other run's addresses
    scope: str  # one of `SCOPES`
    unread_limit: int
    trust: Trust | None  # in its certificates


class Welcome(NamedTuple):
    """The first record that a client gets."""

    pid: int  # of the server process
    endpoint: Endpoint
    server: Server  # as far as a client of it has to know
    template: str
    trust: Trust | None


class Unclaimed(NamedTuple):
    """Mail that is nobody's, as far as a report needs it."""

    envelope: Any
    head: bytes  # the beginning of its content
    nearest: str  # whose it may have been meant to be, in words


#: Mail that is nobody's, and the last sessions that named nobody who has a lease.
Strays = tuple[list[Unclaimed], list[Session]]

#: Attributes of a server that its clients' side needs.
_FACTS = "host port unix_socket lmtp tls _offered_extensions".split()


def known_of(server: Server) -> Server:
    """Return a server without what cannot leave its process, such as handlers."""
    bare = Server()
    vars(bare).update({name: getattr(server, name) for name in _FACTS})
    return bare


def limit_time(sock: socket.socket, seconds: float) -> None:
    """Set a time limit on each call that waits for a socket's other side."""
    set_blocking(sock.fileno(), True)  # one of gevent's or eventlet's only looks so
    spell = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    for each in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        sock.setsockopt(socket.SOL_SOCKET, each, spell)


def prove(
    sock: socket.socket, key: bytes, timeout: float, *, is_server: bool
) -> connection.Connection:
    """Show the other side that this one has the key, and have it show that, too.

    Blocks up to ``timeout`` seconds for each of six steps.  The socket is this call's: it is
    returned as a connection, or closed.

    :raises AuthenticationError: The other side has another key, or is something else.
    :raises OSError: It did not answer, or closed the connection.
    """
    limit_time(sock, timeout)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with ExitStack() as stack:
        pipe = connection.Connection(sock.detach())
        stack.callback(pipe.close)
        steps = [connection.deliver_challenge, connection.answer_challenge]
        try:
            for step in steps if is_server else reversed(steps):
                step(pipe, key)
        except (AssertionError, AuthenticationError, ValueError) as error:
            if "digest received" in str(error) or "digest sent" in str(error):
                raise
            # It is no challenge, or no answer to one.
            raise AuthenticationError("it speaks another protocol") from None
        except EOFError:
            raise ConnectionResetError(errno.ECONNRESET, "it closed the connection") from None
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "it did not answer in time") from None
        stack.pop_all()
    return pipe
