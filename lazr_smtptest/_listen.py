"""Sockets to listen on.  Test process.

They are bound here and handed over, so that a taken port is an error of
``start()``, a free port is known without a race, and a client that is early
waits in the backlog.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

__all__ = ["BACKLOG", "listen"]

#: Connections that may wait to be accepted.  Linux cuts it to somaxconn.
BACKLOG = 4096

#: How often to look for another port when the free one that the first address
#: got is taken on the second.
_ATTEMPTS = 20

#: An address of the wrong family or none of ours: a name like localhost may
#: stand for ::1 on a machine without IPv6.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind and listen on each address of a host, all on one port.

    :param host: A name or an address; empty for all interfaces.
    :param port: The port; 0 for one that is free.
    :return: The sockets, in the order of the addresses.
    :raises OSError: The port is taken, or the host has no address of this
        machine.  The text names both; ``errno`` is the system's.
    """
    try:
        addresses = _resolve(host, port)
    except UnicodeError as error:
        unknown = socket.gaierror(socket.EAI_NONAME, f"not a host name ({error})")
        raise _named(unknown, host, port) from error
    except OSError as error:
        raise _named(error, host, port) from error
    for attempt in range(_ATTEMPTS):
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            elsewhere = port == 0 and error.errno == errno.EADDRINUSE
            if not elsewhere or attempt == _ATTEMPTS - 1:
                raise _named(error, host, port) from error
    raise AssertionError("unreachable")


def _resolve(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind_all(addresses: list[tuple[int, tuple[object, ...]]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    with ExitStack() as stack:
        for family, address in addresses:
            try:
                sock = stack.enter_context(_bind(family, address, port))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                absent = error
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            assert absent is not None
            raise absent
        stack.pop_all()
    return sockets


def _bind(family: int, address: tuple[object, ...], port: int) -> socket.socket:
    with ExitStack() as stack:
        # asyncio turns Nagle's algorithm off only where the protocol is named:
        # without, each session would take 40 milliseconds more.
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        if os.name == "posix":
            # Lets a port be used again whose last connections still linger;
            # not (unlike SO_REUSEPORT) one that somebody listens on.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Its own addresses only: 0.0.0.0 has a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address[0], port, *address[2:]))
        sock.listen(BACKLOG)
        stack.pop_all()
    return sock


def _named(error: OSError, host: str, port: int) -> OSError:
    reason = error.strerror or str(error)
    advice = {
        errno.EADDRINUSE: "; somebody listens there: choose another port, or 0 for a free one",
        errno.EADDRNOTAVAIL: "; the host must be a name or an address of this machine",
        errno.EACCES: "; ports below 1024 need privilege: choose another, or 0 for a free one",
    }.get(error.errno or 0, "")
    if isinstance(error, socket.gaierror):
        advice = "; the host must be a name or an address of this machine"
        if host == "localhost":
            advice = "; /etc/hosts should have this name: add it, or give '127.0.0.1' as the host"
    return type(error)(error.errno, f"cannot listen on {host!r} port {port}: {reason}{advice}")
