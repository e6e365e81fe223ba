"""The certificates of a server and its clients, made when they are needed.  Test process.

`lazr_smtptest.tls` is imported by then, and not before: few servers have TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._names import is_refusal
from lazr_smtptest._parent.forks import ForkSafeLock

if TYPE_CHECKING:
    import ssl

    from lazr_smtptest.server import Server
    from lazr_smtptest.tls import TLS, Credentials, Trust

__tracebackhide__ = is_refusal  # for pytest


#: Held while something is made that is kept: of threads that start servers at once, each would
#: have an authority of its own, of which the next one knows nothing.
_MAKING = ForkSafeLock()


def credentials(server: Server, place: str) -> Credentials:
    """Return the files of a server's TLS.

    :param place: Where the server listens, for an error.
    """
    tls = _tls_of(server, place)
    if server._credentials is None:
        with without_fakes(), _MAKING.lock:
            server._credentials = tls.credentials(server.host)
    return server._credentials


def check(server: Server, place: str) -> None:
    """Find what is wrong with the files now, and not in the server process."""
    if server.tls is None:
        return
    files = credentials(server, place)
    with without_fakes():
        from lazr_smtptest.tls import server_context

        server_context(server.tls, files)


def client_context(server: Server, place: str, with_cert: bool | str) -> ssl.SSLContext:
    if not isinstance(with_cert, bool | str):
        raise TypeError(
            f"with_cert must be True, False or the name in the certificate, not {with_cert!r}"
        )
    files = credentials(server, place)
    name = None if with_cert is True else with_cert
    shown = None if name is False else client_cert_file(server, place, name)
    with without_fakes():
        from lazr_smtptest.tls import client_context

        return client_context(files, shown)


def client_cert_file(server: Server, place: str, name: str | None = None) -> str:
    tls = _tls_of(server, place)
    files = server._credentials
    with without_fakes(), _MAKING.lock:
        from lazr_smtptest.tls import CLIENT_NAME, client_cert_file

        authority = None if files is None else files.authority
        return client_cert_file(tls, CLIENT_NAME if name is None else name, authority)


def trust_in(server: Server, place: str) -> Trust | None:
    """Return what another process has to know of a server's certificates, if it has any."""
    if server.tls is None:
        return None
    files = credentials(server, place)
    with without_fakes(), _MAKING.lock:
        from lazr_smtptest.tls import trust_in

        return trust_in(server.tls, files)


def trusting(trust: Trust) -> Credentials:
    with without_fakes():
        from lazr_smtptest.tls import trusting

        return trusting(trust)


def _tls_of(server: Server, place: str) -> TLS:
    if server.tls is None:
        raise ValueError(
            f"the server on {place} has no TLS: make it with tls='starttls' or 'implicit'"
        )
    return server.tls
