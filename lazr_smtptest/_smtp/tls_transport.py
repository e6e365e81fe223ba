"""TLS between a session and the wire, and why it failed.  Server process, on its event loop.

This stands in for asyncio's ``start_tls`` and ``create_server(ssl=...)``, and for uvloop's.
Those close the connection before the alert is sent that says why a handshake failed; they
show nobody a client whose handshake failed on a port of implicit TLS; and they close it when
the client says that it sends no more (RFC 8446, 6.1), with replies still to come.  Nor could
a port begin with uvloop's start_tls, which loses a ClientHello that is there before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from typing import Any, Protocol

#: Octets that are decrypted at a time.
_READ_SIZE = 65_536

#: Seconds that a client has to close the connection after we have.
_LINGER = 5.0

#: What OpenSSL calls a failed handshake, and what that means.  An alert is the client's.
_REASONS = {
    "BAD_CERTIFICATE": "the client does not accept the certificate",
    "CERTIFICATE_EXPIRED": "the client does not accept the certificate: it has expired",
    "CERTIFICATE_UNKNOWN": "the client does not accept the certificate",
    "UNKNOWN_CA": "the client does not trust the authority that signed the certificate",
    "PROTOCOL_VERSION": "the client has no TLS version in common with the server",
    "UNSUPPORTED_PROTOCOL": "the client has no TLS version in common with the server",
    "VERSION_TOO_LOW": "the client has no TLS version in common with the server",
    "NO_SHARED_CIPHER": "the client has no cipher in common with the server",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not accepted",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has sent no certificate",
    "HTTP_REQUEST": "the client speaks HTTP",
    "WRONG_VERSION_NUMBER": "what the client sends is not TLS",
    "RECORD_LAYER_FAILURE": "what the client sends is not TLS",
    "PACKET_LENGTH_TOO_LONG": "what the client sends is not TLS",
}


def tls_failure(error: BaseException | None) -> str:
    """Return in words why there is no TLS; without an SSLError, the client has left."""
    if not isinstance(error, ssl.SSLError):
        return "the client ended the connection before the handshake was over"
    # As in TLSV1_ALERT_UNKNOWN_CA and SSLV3_ALERT_CERTIFICATE_UNKNOWN.
    words = _REASONS.get((error.reason or "").rpartition("_ALERT_")[2])
    text = re.sub(r" \(_ssl\.c:\d+\)\Z", "", str(error))
    return f"{words}: {text}" if words else text


class Secured(Protocol):
    """What a `TLSTransport` calls: an `asyncio.Protocol`, and that TLS is there."""

    def secured(self, transport: TLSTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...


class TLSTransport(asyncio.Transport, asyncio.Protocol):
    """A session's transport under TLS, and in turn the protocol of the wire's."""

    def __init__(
        self,
        wire: asyncio.Transport,
        session: Secured,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self._wire, self._session, self._loop = wire, session, loop
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_secured = self._is_closing = self._is_at_eof = False
        self._linger: asyncio.TimerHandle | None = None
        wire.set_protocol(self)

    # What the wire brings.

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._incoming.write(data)
        try:
            if not self._is_secured:
                self._tls.do_handshake()
                self._is_secured = True
                self._session.secured(self)
            self._pass_on()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self.eof_received()
        except ssl.SSLError as error:
            self._finish()  # with the alert that says why
            self._session.connection_lost(error)

    def _pass_on(self) -> None:
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(_READ_SIZE):
                pieces.append(piece)
        finally:
            self._flush()
            if pieces:
                self._session.data_received(b"".join(pieces))
        self.eof_received()  # the client's close_notify, that is

    def eof_received(self) -> bool:
        """The client sends no more; whether it said so by TLS, or by TCP alone."""
        if self._is_closing:
            return False
        if not self._is_secured:
            self._session.connection_lost(None)
            return False
        if not self._is_at_eof:
            self._is_at_eof = True
            self._session.eof_received()
        return True

    def pause_writing(self) -> None:
        self._session.pause_writing()

    def resume_writing(self) -> None:
        self._session.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = True
        if self._linger is not None:
            self._linger.cancel()
        self._session.connection_lost(error)

    # What the session wants.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self.is_closing():
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._wire.write(self._outgoing.read())

    def close(self) -> None:
        if self.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):  # the client's close_notify is yet to come
            self._tls.unwrap()
        self._finish()

    def _finish(self) -> None:
        """Send what there is, and close when the client has read it and closes."""
        self._is_closing = True
        self._flush()
        if self._is_at_eof:
            self._wire.close()
        elif not self._wire.is_closing():
            try:
                # To close with something unread would have TCP take back what was sent.
                self._wire.write_eof()
            except OSError:  # the connection is gone, as asyncio is to find out yet
                self._wire.abort()
                return
            self._wire.resume_reading()
            self._linger = self._loop.call_later(_LINGER, self._wire.abort)

    def abort(self) -> None:
        self._is_closing = True
        self._wire.abort()

    def is_closing(self) -> bool:
        return self._is_closing or self._wire.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._tls.context
        if name == "peercert":
            return self._tls.getpeercert()
        if name in ("cipher", "compression"):
            return getattr(self._tls, name)()
        return self._wire.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._wire.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        self._wire.resume_reading()
