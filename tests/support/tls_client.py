"""Clients under TLS: of smtplib, and one that sends just the octets it is told to."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from helpers import send, subjects, until
from raw_client import RawClient

from lazr_smtptest import Controller

MODES = ["starttls", "implicit"]
LOGINS = {"kim": "a secret"}


@contextlib.contextmanager
def secured(controller: Any, context: ssl.SSLContext | None = None) -> Iterator[smtplib.SMTP]:
    """Give a client that is connected, and under TLS."""
    context = context or controller.client_context()
    where = (controller.host, controller.port, "client.example")
    if controller.server.tls.mode == "implicit":
        with smtplib.SMTP_SSL(*where, timeout=10, context=context) as client:
            yield client
    else:
        with smtplib.SMTP(*where, timeout=10) as client:
            assert client.starttls(context=context)[0] == 220
            yield client


class TLSClient(RawClient):
    """Sends just the octets it is told to, in TLS or in the clear."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._host, self._context = controller.host, controller.client_context()

    def secure(self) -> None:
        self._replies.close()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._host)
        self._replies = self.sock.makefile("rb")

    def starttls(self) -> None:
        assert self.command(b"STARTTLS").code == 220
        self.secure()

    def rest(self) -> bytes:
        """Give what the server says until it hangs up."""
        with contextlib.suppress(ConnectionResetError):
            return self._replies.read()
        return b""


class ImplicitClient(TLSClient):
    """Is under TLS from the start."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self.secure()


@contextlib.contextmanager
def plain_socket(controller: Any) -> Iterator[socket.socket]:
    with socket.create_connection((controller.host, controller.port), timeout=10) as sock:
        yield sock


def versions(**limits: Any) -> Callable[[Any], ssl.SSLContext]:
    def make(controller: Any) -> ssl.SSLContext:
        context = controller.client_context()
        for name, version in limits.items():
            setattr(context, name, version)
        return context

    return make


def assert_serves(controller: Any) -> None:
    """See to it that whatever has happened did no harm."""
    with secured(controller) as client:
        send(client, "alive")
    assert "alive" in subjects(controller)


def ended(controller: Any) -> Any:
    """Give the last session, once it has ended."""
    return until(lambda: [s for s in controller.sessions()[-1:] if s.ended != "open"])[0]
