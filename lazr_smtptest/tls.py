"""TLS: which certificates a server and its clients show, and who trusts them.  Both processes.

The test process makes certificates and writes them to files, which the server process
reads.  So it makes no difference how that was started.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from lazr_smtptest._names import (
    MODES_ELSEWHERE,
    TLS_ELSEWHERE,
    VARIANTS_ELSEWHERE,
    VERSIONS_ELSEWHERE,
    check_choice,
    checked,
    is_refusal,
    leave_out,
    one_of,
    option,
)
from lazr_smtptest._util import file_path, true_or_false

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

    from cryptography import x509

__all__ = ["TLS", "ClientCert", "Mode", "Variant", "Version"]

__tracebackhide__ = is_refusal  # for pytest

#: For type checkers: when TLS begins.
Mode = Literal["starttls", "implicit"]

#: For type checkers: what is wrong with a certificate, if anything.
Variant = Literal["valid", "expired", "wrong-host", "untrusted"]

#: For type checkers: whether clients show a certificate.
ClientCert = Literal["optional", "required"]

#: For type checkers: as `ssl.SSLSocket.version` has them, the lowest first.
Version = Literal["TLSv1.2", "TLSv1.3"]

MODES: tuple[Mode, ...] = get_args(Mode)
_VARIANTS: tuple[Variant, ...] = get_args(Variant)
CLIENT_CERTS: tuple[ClientCert, ...] = get_args(ClientCert)
VERSIONS: tuple[Version, ...] = get_args(Version)
NO_OLDER = "; older versions are not offered (RFC 8996)"

#: Reserved: there is no such host (RFC 2606, 2).
_WRONG_HOST = "wrong-host.invalid"

#: Names of the machine itself, beside the one that the server listens on.
_LOCAL = ("localhost", "127.0.0.1", "::1")

#: The name in a client's certificate, where a test does not care.
CLIENT_NAME = "client@example.com"

#: What a common name may have: characters in RFC 5280 (appendix A.1), octets in cryptography.
_COMMON_NAME = 64

#: Of a local part without quotes (RFC 5322, 3.2.3).
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"

_BEGIN, _END = datetime(2000, 1, 1), datetime(3000, 1, 1)  # as trustme has them


class Credentials(NamedTuple):
    """Files in PEM form."""

    certfile: str  # the certificate, with those that lead from it to the one that is trusted
    keyfile: str | None  # None if ``certfile`` has the private key, too
    ca_file: str  # what a client has to trust
    client_ca_file: str | None  # whom the server trusts; None if it asks clients for nothing
    authority: _Authority | None = None  # that makes certificates, if not this process's own


def _files_in(value: object) -> str:
    """Return what files, where a mode should be, were meant to be, as the end of a text."""
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(value, ssl.SSLContext):
        return ": did you mean TLS(certfile=..., keyfile=...)?"
    if isinstance(value, tuple | list) and len(value) == 2:
        return f": did you mean TLS(certfile={str(value[0])!r}, keyfile={str(value[1])!r})?"
    is_file = isinstance(value, os.PathLike) or (isinstance(value, str) and "." in value)
    return f": did you mean TLS(certfile={str(value)!r})?" if is_file else ""


@checked(__init__=TLS_ELSEWHERE)
@dataclass(frozen=True, slots=True)
class TLS:
    """How a server speaks TLS.

    Without files of your own, you get a certificate for the host that the
    server listens on, from an authority that is made once in each test process.
    That requires trustme, which comes with the extra ``tls``.  The same authority
    signs the certificates of clients.

    :param mode: ``"starttls"``, where the client asks for it (RFC 3207), or
        ``"implicit"``, where it comes before everything else (RFC 8314, 3).
    :param required: Whether the client must use TLS before it sends mail; otherwise
        the reply is 530.
    :param variant: ``"expired"``, ``"wrong-host"`` or ``"untrusted"`` for a
        certificate that a client should not accept.
    :param certfile: Your own certificate, in PEM form.
    :param keyfile: Its private key, if that is not in ``certfile``.
    :param password: The passphrase of the private key, if it has one.
    :param ca_file: What a client has to trust; by default ``certfile``.
    :param client_cert: ``"optional"`` to ask each client for a certificate, or
        ``"required"`` to fail the handshake if it shows none.  One that the server does
        not trust fails the handshake in either case.
    :param client_ca_file: The certificates that the server trusts when a client shows one:
        of authorities, or of clients, in PEM form.  By default it is the authority that
        `Controller.client_context` and `Controller.client_cert_file` take theirs from.
    :param minimum_version: The lowest version of TLS that the server speaks, ``"TLSv1.2"``
        or ``"TLSv1.3"``, or one of `ssl.TLSVersion`.
    :param maximum_version: The highest.
    :raises TypeError: ``required`` is no bool, or the password neither str nor bytes.
    :raises ValueError: A mode, a variant or a version is unknown, or a path is empty, or
        values do not go together: files of your own with a variant, ``client_ca_file`` without
        ``client_cert``, a minimum above the maximum.

    >>> TLS("implicit").required
    False
    """

    mode: Mode = "starttls"
    _: KW_ONLY
    required: bool = False
    variant: Variant = "valid"
    certfile: str | os.PathLike[str] | None = None
    keyfile: str | os.PathLike[str] | None = None
    password: str | bytes | None = field(default=None, repr=False)
    ca_file: str | os.PathLike[str] | None = None
    client_cert: ClientCert | None = None
    client_ca_file: str | os.PathLike[str] | None = None
    minimum_version: Version | ssl.TLSVersion = VERSIONS[0]
    maximum_version: Version | ssl.TLSVersion = VERSIONS[-1]

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES, MODES_ELSEWHERE, _files_in(self.mode))
        true_or_false("required", self.required)
        check_choice("variant", self.variant, _VARIANTS, VARIANTS_ELSEWHERE)
        self._check_versions()
        if self.client_cert is not None:
            advice = leave_out(self.client_cert)
            check_choice("client_cert", self.client_cert, CLIENT_CERTS, advice=advice)
        elif self.client_ca_file is not None:
            raise ValueError(
                f"{option('client_ca_file')} needs {option('client_cert')}, {one_of(CLIENT_CERTS)}"
            )
        if not isinstance(self.password, str | bytes | None):
            kind = type(self.password).__name__  # and no value, which may be a secret
            raise TypeError(f"{option('password')} must be a str or bytes, and is of type {kind}")
        for name in ("certfile", "keyfile", "ca_file", "client_ca_file"):
            path = getattr(self, name)
            if path is not None and not file_path(name, path):  # it would be the system's
                raise ValueError(f"{option(name)} must be the path of a file, and is empty")
        others = ("keyfile", "password", "ca_file")
        own = [name for name in others if getattr(self, name) is not None]
        if self.certfile is None and own:
            raise ValueError(
                f"{option(own[0])} needs a {option('certfile')}: give that, too, or neither"
            )
        if self.certfile is not None and self.variant != "valid":
            raise ValueError(f"variant {self.variant!r} is made here: give no certfile with it")

    def _check_versions(self) -> None:
        versions = {}
        for name in ("minimum_version", "maximum_version"):
            versions[name] = version = _version_name(getattr(self, name))
            check_choice(name, version, VERSIONS, VERSIONS_ELSEWHERE, NO_OLDER)
            object.__setattr__(self, name, version)
        lowest, highest = versions.values()
        if lowest > highest:
            lower, upper = map(option, versions)
            raise ValueError(f"{lower} {lowest!r} is above {upper} {highest!r}")

    @classmethod
    def of(cls, value: TLS | Mode) -> TLS:
        """Return a value for what may be the mode alone.

        :param value: A value, or a mode.
        :return: The value.
        :raises TypeError: It is neither.
        :raises ValueError: There is no such mode.
        """
        if isinstance(value, TLS):
            return value
        if not isinstance(value, str):
            modes, meant = one_of(MODES), _files_in(value) or leave_out(value)
            raise TypeError(f"{option('tls')} must be a TLS, {modes}, not {value!r}{meant}")
        check_choice("tls", value, MODES, MODES_ELSEWHERE, _files_in(value))
        return cls(value)

    def credentials(self, host: str) -> Credentials:
        """Return the files; made, by trustme, if there are none of one's own.

        :param host: Where the server listens.
        :return: The files.
        """
        client_ca_file = self.client_ca_file
        if self.client_cert is not None and client_ca_file is None:
            client_ca_file = _authority().ca_file
        trusted = None if client_ca_file is None else os.fspath(client_ca_file)
        if self.certfile is None:
            ours = _authority()
            return Credentials(ours.issue(host, self.variant), None, ours.ca_file, trusted)
        return Credentials(
            os.fspath(self.certfile),
            None if self.keyfile is None else os.fspath(self.keyfile),
            os.fspath(self.certfile if self.ca_file is None else self.ca_file),
            trusted,
        )


def _version_name(version: Any) -> Any:
    """Return the name of a version that may be one of `ssl.TLSVersion`."""
    if isinstance(version, str):
        return version
    import ssl

    return version.name.replace("v1_", "v1.") if isinstance(version, ssl.TLSVersion) else version


def server_context(tls: TLS, credentials: Credentials) -> ssl.SSLContext:
    """Make the context of a server; an OSError says which file is missing or not right."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion[str(tls.minimum_version).replace(".", "_")]
    context.maximum_version = ssl.TLSVersion[str(tls.maximum_version).replace(".", "_")]
    try:
        # With a password, if a wrong one, nobody is asked for it.
        context.load_cert_chain(
            credentials.certfile, credentials.keyfile, password=tls.password or ""
        )
    except OSError as error:
        names = ", ".join(name for name in credentials[:2] if name)
        raise type(error)(
            error.errno,
            f"cannot serve TLS with {names}: {_reason(error)}; {option('certfile')} must have "
            f"the certificate, and {option('keyfile')} or {option('certfile')} its private key, "
            f"in PEM form, and {option('password')} the passphrase of the key if it has one",
        ) from error
    if credentials.client_ca_file is not None:
        is_required = tls.client_cert == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        with _trusting(credentials.client_ca_file, option("client_ca_file")):
            context.load_verify_locations(credentials.client_ca_file)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # for clients' own certificates
    return context


def client_context(credentials: Credentials, cert_file: str | None = None) -> ssl.SSLContext:
    """Make the context of a client that trusts a server, and checks its name.

    :param cert_file: What it shows, if anything.
    """
    import ssl

    with _trusting(credentials.ca_file, f"{option('ca_file')}, or else {option('certfile')},"):
        context = ssl.create_default_context(cafile=credentials.ca_file)
    # A server's own certificate can be what is trusted; Python 3.13 sets this.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if cert_file is not None:
        context.load_cert_chain(cert_file)
    return context


class Trust(NamedTuple):
    """What another process has to know to trust a server, and to make what that trusts."""

    ca_pem: bytes
    ca_key_pem: bytes | None  # None where the certificates are the user's own


def trust_in(tls: TLS, credentials: Credentials) -> Trust:
    if tls.certfile is None and tls.variant != "untrusted":
        return _authority().trust()
    with _trusting(credentials.ca_file, "ca_file, or else certfile,"):
        return Trust(Path(credentials.ca_file).read_bytes(), None)


@functools.cache  # one folder, however many leases there are
def trusting(trust: Trust) -> Credentials:
    """Return the files for clients of a server whose own are elsewhere."""
    authority = _Authority(trust)
    return Credentials("", None, authority.ca_file, None, authority)


def client_cert_file(tls: TLS, name: str, authority: _Authority | None = None) -> str:
    """Return the path of a client's certificate; made, by trustme, for a name.

    :param name: The common name; an e-mail address or a host is an alternative name, too.
    :return: The path of its key and the certificate, in PEM form.
    :raises ValueError: The server asks for none, or trusts none that is made here, or the
        name cannot be in a certificate.
    """
    if tls.client_cert is None:
        raise ValueError(
            "the server asks for no certificate of a client: "
            "make it with tls=TLS(client_cert='optional') or 'required'"
        )
    if tls.client_ca_file is not None:
        raise ValueError(
            "no certificate that the server's own client_ca_file trusts can be made here: "
            "load one of yours, by client_context().load_cert_chain()"
        )
    if not name.isprintable() or not 0 < len(name.encode()) <= _COMMON_NAME:
        raise ValueError(
            f"the name in a certificate must be printable, and have from 1 to {_COMMON_NAME} "
            f"octets in UTF-8, not {name!r}"
        )
    return (authority or _authority()).issue_to_client(name)


@contextlib.contextmanager
def _trusting(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot trust {path}: {_reason(error)}; {what} "
            "must have the certificates to trust, in PEM form",
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class _Authority:
    """A certificate authority, with its files in a folder of their own."""

    def __init__(self, trust: Trust | None = None) -> None:
        self._folder = _temporary_folder()
        atexit.register(_remove, self._folder, os.getpid())
        self.ca_file = str(self._folder / "ca.pem")
        if trust is not None and trust.ca_key_pem is None:
            Path(self.ca_file).write_bytes(trust.ca_pem)
            return
        self._trustme: Any = _import_trustme()
        if trust is None:
            self._ca = self._trustme.CA(organization_name="lazr_smtptest")
        else:
            self._ca = self._trustme.CA.from_pem(trust.ca_pem, trust.ca_key_pem)
        self._ca.cert_pem.write_to_path(self.ca_file)

    def trust(self) -> Trust:
        return Trust(self._ca.cert_pem.bytes(), self._ca.private_key_pem.bytes())

    @functools.cache  # noqa: B019 -- there is one authority, and it stays
    def issue(self, host: str, variant: str) -> str:
        """Make the certificate of a server; return the path of it and its key."""
        ca = self._trustme.CA() if variant == "untrusted" else self._ca
        names = [_WRONG_HOST] if variant == "wrong-host" else [host or "localhost", *_LOCAL]
        # Without asking a clock, which a test may have stopped: what is made is for later
        # tests, too.  trustme's own end is the year 3000.
        end = datetime(2001, 1, 1) if variant == "expired" else None
        leaf = ca.issue_cert(*dict.fromkeys(names), not_after=end)
        return self._keep("server-", leaf.private_key_and_cert_chain_pem.bytes())

    @functools.cache  # noqa: B019 -- as above
    def issue_to_client(self, name: str) -> str:
        """Make the certificate of a client; return the path of it and its key.

        trustme would put a random unit into the subject, which tests look at.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key: Any = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder(ca.subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_BEGIN)
            .not_valid_after(_END)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        )
        if names := _alternative_names(name):
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = made.sign(ca_key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._keep("client-", private + certificate.public_bytes(pem))

    def _keep(self, prefix: str, pem: bytes) -> str:
        fd, path = tempfile.mkstemp(".pem", prefix, self._folder)
        with open(fd, "wb") as file:
            file.write(pem)
        return path


def _alternative_names(name: str) -> list[x509.GeneralName]:
    """Return the names of a certificate's subject that are an address or a host (RFC 5280)."""
    from cryptography import x509

    if re.fullmatch(rf"{_ATOM}(?:\.{_ATOM})*@[a-zA-Z0-9.-]+", name):
        return [x509.RFC822Name(name)]
    return [x509.DNSName(name)] if re.fullmatch(r"[a-zA-Z0-9.-]+", name) else []


_authority = functools.cache(_Authority)


def _import_trustme() -> ModuleType:
    try:
        import trustme
    except ImportError:
        raise ImportError(
            f"{option('tls')} without a certificate of your own needs trustme: "
            f"pip install 'lazr-smtptest[tls]', or a {option('certfile')} and "
            f"{option('keyfile')}, and with {option('client_cert')} a {option('client_ca_file')}",
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
            f"that can be written to, or have a {option('certfile')} and {option('keyfile')}",
        ) from error


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a forked child of it
        shutil.rmtree(folder, ignore_errors=True)
