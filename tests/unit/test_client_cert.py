"""A certificate's subject as a string, and one name for whoever it is."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

from lazr_smtptest._smtp.client_cert import identity_of, subject_of

pytest.importorskip("trustme", reason="trustme is an extra")
x509 = pytest.importorskip("cryptography.x509", reason="cryptography comes with trustme")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

#: Those that RFC 4514, 3 has names for, in the order of the certificate.
SUBJECTS = [
    [],
    [[("COMMON_NAME", "kim@example.com")]],
    [[("COUNTRY_NAME", "DE")], [("ORGANIZATION_NAME", "Example")], [("COMMON_NAME", "Kim")]],
    [
        [("DOMAIN_COMPONENT", "com")],
        [("DOMAIN_COMPONENT", "example")],
        [("STATE_OR_PROVINCE_NAME", "Bavaria")],
        [("LOCALITY_NAME", "Munich")],
        [("STREET_ADDRESS", "Main Street 1")],
        [("ORGANIZATIONAL_UNIT_NAME", "Mail")],
        [("USER_ID", "kim")],
    ],
    [[("ORGANIZATIONAL_UNIT_NAME", "Sales"), ("COMMON_NAME", "J.  Smith")]],
    [[("COMMON_NAME", 'James "Jim" Smith, III')]],
    [[("COMMON_NAME", " both ")]],
    [[("COMMON_NAME", " ")]],
    [[("COMMON_NAME", "#hash; a<b>c+d=e\\f")]],
    [[("COMMON_NAME", "Lučić żółw 日本")]],
]


def name_of(parts: list[list[tuple[str, str]]]) -> Any:
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(getattr(NameOID, kind), value) for kind, value in part
        )
        for part in parts
    )


def shown(folder: Path, subject: Any, alternatives: Any = ()) -> Any:
    """Return what a server's `ssl` makes of a certificate, in a handshake in memory."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1))
        .not_valid_after(datetime.datetime(3000, 1, 1))
    )
    if alternatives:
        names = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    path = folder / "client.pem"
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for context in (server, client):
        context.load_cert_chain(path)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(path)
    server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return handshake(server, client).getpeercert()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the server's side, when it is done."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is other:
                return other
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("parts", SUBJECTS, ids=str)
def test_subject_is_as_another_library_writes_it(tmp_path, parts):
    name = name_of(parts)
    certificate = shown(tmp_path, name, [] if parts else [x509.DNSName("client.example")])
    assert subject_of(certificate) == name.rfc4514_string()


def test_other_attributes_have_their_names_of_openssl(tmp_path):
    parts = [[("SURNAME", "Smith")], [("SERIAL_NUMBER", "7")], [("EMAIL_ADDRESS", "kim@b.c")]]
    certificate = shown(tmp_path, name_of(parts))
    assert subject_of(certificate) == "emailAddress=kim@b.c,serialNumber=7,surname=Smith"


def test_control_characters_are_escaped():
    certificate = {"subject": ((("commonName", "a\r\nb\x85\0"),),)}
    assert subject_of(certificate) == "CN=a\\0D\\0Ab\\C2\\85\\00"


@pytest.mark.parametrize(
    ("parts", "alternatives", "identity"),
    [
        ([[("ORGANIZATION_NAME", "x")], [("COMMON_NAME", "kim")]], ["lee@example.com"], "kim"),
        ([[("COMMON_NAME", "first")], [("COMMON_NAME", "last")]], [], "last"),
        ([[("ORGANIZATION_NAME", "x")]], ["a.example", "lee@example.com"], "lee@example.com"),
        ([[("ORGANIZATION_NAME", "x")]], ["a.example"], "a.example"),
        ([[("ORGANIZATION_NAME", "x")]], [], "O=x"),
        ([], ["a.example"], "a.example"),
    ],
)
def test_identity(tmp_path, parts, alternatives, identity):
    names = [x509.RFC822Name(name) if "@" in name else x509.DNSName(name) for name in alternatives]
    assert identity_of(shown(tmp_path, name_of(parts), names)) == identity
