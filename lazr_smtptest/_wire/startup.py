"""A server on its way to the server process.  Both processes."""

from __future__ import annotations

import socket
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from typing import Any

from lazr_smtptest._wire.endpoint import Endpoint
from lazr_smtptest.errors import StartError
from lazr_smtptest.server import QueueServer, Server


class PickledServer:
    """A server on its way to the server process; pickled, unless that is forked.

    So what goes wrong with pickling, at either end, is kept apart from all else
    that can go wrong with starting a process.
    """

    def __init__(self, server: Server, endpoint: Endpoint) -> None:
        self._server = server
        self.endpoint = endpoint
        self._pickle: bytes | None = None

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle = bytes(ForkingPickler.dumps(self._server))
        except Exception as error:
            raise StartError(
                f"the server for {self.endpoint} cannot start: "
                + _why_unpicklable(self._server, error),
                **self.endpoint.facts,
            ) from error
        return {"_server": None, "endpoint": self.endpoint, "_pickle": pickle}

    def load(self) -> Server:
        if self._pickle is not None:
            self._server = ForkingPickler.loads(self._pickle)
        if isinstance(self._server, QueueServer):
            # Forked, it still has its queue, which stays in the test process.
            vars(self._server).pop("queue", None)
        return self._server


class PassedSocket:
    """A listening socket on its way to the server process.

    It is passed as a descriptor: eventlet's sockets cannot be pickled, and there it is to be
    one of the standard library in any case.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (reduction.DupFd(self.fileno()),)

    def open(self) -> socket.socket:
        """Return it, in the server process."""
        if type(self._socket) is socket.socket:
            return self._socket
        return socket.socket(fileno=self._socket.detach())


def _reopened(fd: Any) -> PassedSocket:
    return PassedSocket(socket.socket(fileno=fd.detach()))


def _why_unpicklable(server: Server, error: Exception) -> str:
    name = type(server).__qualname__
    culprits = []
    for attribute, value in vars(server).items():
        try:
            ForkingPickler.dumps(value)
        except Exception:
            culprits.append(f"{attribute} ({type(value).__name__})")
    if culprits:
        fault = f"the attribute {', '.join(culprits)} of this {name} cannot be pickled"
        advice = "make it in the server process, on first use,"
    else:
        fault = f"this {name} cannot be pickled"
        advice = "define the class at the top level of a module"
    return (
        f"{fault}, which it must be to reach a process that is not forked "
        f"({type(error).__name__}: {error}).  Either {advice} or use start_method='fork'"
    )
