"""Whose certificate a client has shown.  Server process.

What `ssl.SSLObject.getpeercert` returns is read here: a certificate that the server trusts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lazr_smtptest._util import lazy_pattern

#: RFC 4514, 3.  All other attributes have the names that OpenSSL has for them.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

#: What must be escaped somewhere (RFC 4514, 2.4), and control characters.
_SPECIAL = lazy_pattern(r'[",+;<>\\]|\A[ #]| \Z')
_CONTROL = lazy_pattern(r"[\x00-\x1f\x7f-\x9f]")


def subject_of(certificate: Mapping[str, Any]) -> str:
    """Return the subject as a string, the most specific part first (RFC 4514)."""
    names = (
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in parts)
        for parts in reversed(certificate["subject"])
    )
    return ",".join(names)


def identity_of(certificate: Mapping[str, Any]) -> str:
    """Return one name for the owner.

    It is the last common name; or else an alternative name, an e-mail address before a host;
    or else the subject.
    """
    attributes = [attribute for parts in certificate["subject"] for attribute in parts]
    common = [value for name, value in attributes if name == "commonName"]
    alternatives = certificate.get("subjectAltName", ())
    others = [value for kind in ("email", "DNS") for name, value in alternatives if name == kind]
    return next(iter([*reversed(common), *others]), "") or subject_of(certificate)


def _escaped(value: str) -> str:
    value = _SPECIAL.sub(r"\\\g<0>", value)
    return _CONTROL.sub(lambda found: "".join(f"\\{n:02X}" for n in found[0].encode()), value)
