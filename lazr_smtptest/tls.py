"""TLS: which certificate a server shows, and who trusts it.  Both processes.

Certificates are made in the test process, into files, and the server process
reads those: so it makes no difference how it was started.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

__all__ = ["TLS"]

_MODES = ("starttls", "implicit")
_VARIANTS = ("valid", "expired", "wrong-host", "untrusted")

#: Reserved: there is no such host (RFC 2606, 2).
_WRONG_HOST = "wrong-host.invalid"

#: Names of the machine itself, beside the one that the server listens on.
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Credentials(NamedTuple):
    """Files in PEM form."""

    certfile: str  # the certificate, with those that lead from it to the one that is trusted
    keyfile: str | None  # None if ``certfile`` has the private key, too
    ca_file: str  # what a client has to trust


@dataclass(frozen=True, slots=True)
class TLS:
    """How a server speaks TLS: 1.2 or 1.3.

    Without files of your own, a certificate is made for the host that the
    server listens on, by an authority that is made once in each test process.
    That takes trustme, which comes with the extra ``tls``.

    :param mode: ``"starttls"``, where the client asks for it (RFC 3207), or
        ``"implicit"``, where it comes before all else (RFC 8314, 3).
    :param required: Whether the server insists that the client asks before it
        sends mail; the reply is 530 if not.
    :param variant: ``"expired"``, ``"wrong-host"`` or ``"untrusted"`` for a
        certificate that a client should not accept.
    :param certfile: Your own certificate, in PEM form.
    :param keyfile: Its private key, if that is not in ``certfile``.
    :param ca_file: What a client has to trust; by default ``certfile``.
    :raises ValueError: A mode or variant is unknown, or files of your own are
        given with a variant.

    >>> TLS("implicit").required
    False
    """

    mode: str = "starttls"
    _: KW_ONLY
    required: bool = False
    variant: str = "valid"
    certfile: str | os.PathLike[str] | None = None
    keyfile: str | os.PathLike[str] | None = None
    ca_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _check("mode", self.mode, _MODES)
        _check("variant", self.variant, _VARIANTS)
        own = [name for name in ("keyfile", "ca_file") if getattr(self, name) is not None]
        if self.certfile is None and own:
            raise ValueError(f"{own[0]} needs a certfile: give that, too, or neither")
        if self.certfile is not None and self.variant != "valid":
            raise ValueError(f"variant {self.variant!r} is made here: give no certfile with it")

    @classmethod
    def of(cls, value: TLS | str) -> TLS:
        """Return a value for what may be the mode alone.

        :param value: A value, or a mode.
        :return: The value.
        :raises TypeError: It is neither.
        """
        if isinstance(value, TLS):
            return value
        if not isinstance(value, str):
            raise TypeError(f"tls must be a TLS, {' or '.join(map(repr, _MODES))}, not {value!r}")
        return cls(value)

    def credentials(self, host: str) -> Credentials:
        """Return the files; made, by trustme, if there are none of one's own.

        :param host: Where the server listens.
        :return: The files.
        """
        if self.certfile is None:
            return _authority().issue(host, self.variant)
        return Credentials(
            os.fspath(self.certfile),
            None if self.keyfile is None else os.fspath(self.keyfile),
            os.fspath(self.certfile if self.ca_file is None else self.ca_file),
        )


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """Make the context of a server; an OSError says which file is missing or not right."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # With a password, if a wrong one, nobody is asked for it.
        context.load_cert_chain(credentials.certfile, credentials.keyfile, password="")
    except OSError as error:
        names = ", ".join(name for name in credentials[:2] if name)
        raise type(error)(
            error.errno,
            f"cannot serve TLS with {names}: {_reason(error)}; certfile must have the "
            "certificate, and keyfile or certfile its private key, in PEM form and not encrypted",
        ) from error
    return context


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Make the context of a client that trusts a server, and checks its name."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=credentials.ca_file)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot trust {credentials.ca_file}: {_reason(error)}; ca_file, or else certfile, "
            "must have the certificates to trust, in PEM form",
        ) from error
    # A server's own certificate can be what is trusted; Python 3.13 sets this.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class _Authority:
    """A certificate authority, with its files in a folder of their own."""

    def __init__(self) -> None:
        self._trustme: Any = _import_trustme()
        self._folder = _temporary_folder()
        atexit.register(_remove, self._folder, os.getpid())
        self._ca = self._trustme.CA(organization_name="lazr_smtptest")
        self._ca_file = self._folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self._ca_file)

    @functools.cache  # noqa: B019 -- there is one authority, and it stays
    def issue(self, host: str, variant: str) -> Credentials:
        ca = self._trustme.CA() if variant == "untrusted" else self._ca
        names = [_WRONG_HOST] if variant == "wrong-host" else [host or "localhost", *_LOCAL]
        # Without asking a clock, which a test may have stopped: what is made is for later
        # tests, too.  trustme's own end is the year 3000.
        end = datetime(2001, 1, 1) if variant == "expired" else None
        leaf = ca.issue_cert(*dict.fromkeys(names), not_after=end)
        fd, path = tempfile.mkstemp(".pem", "server-", self._folder)
        with open(fd, "wb") as file:
            file.write(leaf.private_key_and_cert_chain_pem.bytes())
        return Credentials(path, None, str(self._ca_file))


_authority = functools.cache(_Authority)


def _import_trustme() -> ModuleType:
    try:
        import trustme
    except ImportError:
        raise ImportError(
            "tls without a certificate of your own needs trustme: "
            "pip install 'lazr-smtptest[tls]', or give TLS a certfile and keyfile",
            name="trustme",
        ) from None
    return trustme


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="lazr-smtptest-"))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot keep the files of a certificate: {_reason(error)}; set TMPDIR to a folder "
            "that can be written to, or give TLS a certfile and keyfile",
        ) from error


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a forked child of it
        shutil.rmtree(folder, ignore_errors=True)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        choice = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise ValueError(f"{name} must be {choice}, not {value!r}")
