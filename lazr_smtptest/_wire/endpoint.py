"""Where a server listens: on a host and a port, or on a UNIX socket.  Both processes."""

from __future__ import annotations

import contextlib
import stat
from os import lstat, rmdir, unlink
from os.path import dirname
from typing import TYPE_CHECKING, Any, NamedTuple

from lazr_smtptest._names import is_refusal

if TYPE_CHECKING:
    from lazr_smtptest.server import Server

__tracebackhide__ = is_refusal  # for pytest

#: What stands for all interfaces, and who to connect to then, as far as is known
#: before the server listens.
ALL_INTERFACES = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Endpoint(NamedTuple):
    """Where clients find a server.

    :ivar host: The host; empty for a UNIX socket.
    :ivar port: The port; 0 for a free one that is yet to be found.
    :ivar unix_socket: The path of the UNIX socket, or None.
    """

    host: str = ""
    port: int = 0
    unix_socket: str | None = None

    @classmethod
    def of(cls, server: Server, host: str | None, port: int | None) -> Endpoint:
        """Return where a server is to listen; on the host and port that it last had, if any."""
        if server.unix_socket is not None:
            return cls(unix_socket=server.unix_socket)
        return cls(
            ALL_INTERFACES.get(server.host, server.host) if host is None else host,
            server.port if port is None else port,
        )

    def __str__(self) -> str:
        """Return it in words, as they come after "on" and "to"."""
        path = self.unix_socket
        if path is not None:
            return path if path.isprintable() else repr(path)
        return f"{self.host} port {self.port}" if self.port else f"{self.host}, a free port"

    def tcp(self, what: str) -> Endpoint:
        """Return it, for a client that needs a host and a port; ValueError if it has none."""
        if self.unix_socket is not None:
            raise ValueError(
                f"the server on {self} has no {what}: connect to the controller's unix_socket"
            )
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """The attributes of errors."""
        if self.unix_socket is not None:
            return {"unix_socket": self.unix_socket}
        return {"host": self.host, "port": self.port or None}


class SocketFile(NamedTuple):
    """The file of a UNIX socket, which no system removes with its socket.

    File systems use the number of a file again at once, so the time when it was made
    belongs to what it is known by.
    """

    path: str
    identity: tuple[int, int, int]
    has_own_folder: bool = False  # which was made for it, and goes with it

    @classmethod
    def at(cls, path: str) -> SocketFile | None:
        """Return the one at a path; None if no file is there, or one that is no socket."""
        with contextlib.suppress(OSError):
            found = lstat(path)
            if stat.S_ISSOCK(found.st_mode):
                return cls(path, (found.st_dev, found.st_ino, found.st_mtime_ns))
        return None

    def remove(self) -> None:
        """Remove it, unless something else is there by now; more than once does no harm.

        In a folder that nobody may write to any more it stays.
        """
        found = SocketFile.at(self.path)
        with contextlib.suppress(OSError):
            if found is not None and found.identity == self.identity:
                unlink(self.path)
            if self.has_own_folder:
                rmdir(dirname(self.path))
