"""The values that `auth` and `tls` can have, and those that they cannot."""

from __future__ import annotations

import copy
import pickle
import ssl
from pathlib import Path

import pytest

from lazr_smtptest import Server
from lazr_smtptest.tls import TLS

# AUTH.


@pytest.mark.parametrize(
    "auth",
    [
        "kim:secret",
        [("kim", "secret")],
        ("kim", "secret"),
        5,
        1,
        False,
        {"kim": b"secret"},
        {b"kim": "secret"},
        {"kim": None},
        {None: "secret"},
        {1: "2"},
    ],
)
def test_auth_of_the_wrong_type(auth):
    with pytest.raises(TypeError, match="auth must map names to passwords"):
        Server(auth=auth)


@pytest.mark.parametrize("auth", [{"": "secret"}, {"k\0m": "secret"}, {"kim": "sec\0ret"}])
def test_auth_that_cannot_be(auth):
    with pytest.raises(ValueError, match="auth must not"):
        Server(auth=auth)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"auth_required": True}, "auth_required needs auth"),
        ({"auth_require_tls": True, "auth": {"kim": "x"}}, "auth_require_tls needs tls"),
    ],
)
def test_options_that_do_not_go_together(options, text):
    with pytest.raises(ValueError, match=text):
        Server(**options)


@pytest.mark.parametrize("auth", ["kim:hunter2", [("kim", "hunter2")], {"kim": b"hunter2"}])
def test_errors_have_no_secret(auth):
    with pytest.raises(TypeError) as caught:
        Server(auth=auth)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        (lambda: True, "auth must be a function of mechanism, user and secret: "),
        (lambda user, secret: True, "auth must be a function of mechanism, user and secret: "),
        (lambda *, mechanism, user, secret: True, "auth must be a function of mechanism"),
    ],
)
def test_functions_of_something_else(auth, text):
    with pytest.raises(TypeError, match=text):
        Server(auth=auth)


def test_a_coroutine_function():
    async def decide(mechanism, user, secret):
        return True

    class Deciding:
        async def __call__(self, mechanism, user, secret):
            return True

    for auth in (decide, Deciding()):
        with pytest.raises(TypeError, match="auth must be made by def, not by async def"):
            Server(auth=auth)


def test_functions_that_will_do():
    for auth in (lambda *args: True, lambda a, b, c, d=None: False, max):
        assert Server(auth=auth)._auth is auth


@pytest.mark.parametrize(
    ("mechanisms", "error", "text"),
    [
        ("PLAIN", TypeError, r"auth_mechanisms must be several names, such as \('PLAIN',\)"),
        (["PLAIN", 7], TypeError, "auth_mechanisms must be names, such as"),
        ([], ValueError, "auth_mechanisms may have CRAM-MD5, EXTERNAL, .*, not nothing at all"),
        (["NTLM", "PLAIN"], ValueError, "auth_mechanisms may have CRAM-MD5, .*, not NTLM$"),
        (["EXTERNAL"], ValueError, "EXTERNAL of auth_mechanisms needs a certificate"),
        (["plain", "LOGIN", "PLAIN"], ValueError, "auth_mechanisms has PLAIN more than once"),
    ],
)
def test_mechanisms_that_cannot_be(mechanisms, error, text):
    with pytest.raises(error, match=text):
        Server(auth=True, auth_mechanisms=mechanisms)


@pytest.mark.parametrize(
    ("auth", "mechanism"), [(True, "SCRAM-SHA-256"), (max, "SCRAM-SHA-256"), (max, "CRAM-MD5")]
)
def test_mechanisms_that_need_passwords(auth, mechanism):
    with pytest.raises(ValueError, match=f"{mechanism} of auth_mechanisms needs the passwords"):
        Server(auth=auth, auth_mechanisms=["PLAIN", mechanism])


@pytest.mark.parametrize("tls", [None, "starttls", TLS("implicit")])
def test_external_needs_a_certificate_of_the_client(tls):
    with pytest.raises(ValueError, match="EXTERNAL of auth_mechanisms needs a certificate"):
        Server(auth=True, auth_mechanisms=["external", "PLAIN"], tls=tls)
    server = Server(auth=True, auth_mechanisms=["external"], tls=TLS(client_cert="optional"))
    assert server._mechanisms == ("EXTERNAL",)


def test_mechanisms_for_nobody():
    with pytest.raises(ValueError, match="auth_mechanisms needs auth"):
        Server(auth_mechanisms=["PLAIN"])


# TLS.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mode": "ssl"}, "mode must be 'starttls' or 'implicit', not 'ssl'"),
        ({"mode": None}, "mode must be"),
        ({"mode": "STARTTLS"}, "mode must be"),
        ({"variant": "revoked"}, "variant must be .*'wrong-host'.*not 'revoked'"),
        ({"variant": None}, "variant must be"),
        ({"keyfile": "key.pem"}, "keyfile needs a certfile"),
        ({"ca_file": "ca.pem"}, "ca_file needs a certfile"),
        ({"certfile": "cert.pem", "variant": "expired"}, "give no certfile"),
        ({"password": "open sesame"}, "password needs a certfile"),
        ({"client_cert": "none"}, "client_cert must be 'optional' or 'required', not 'none'"),
        ({"client_cert": True}, "client_cert must be 'optional' or 'required', not True"),
        ({"client_ca_file": "ca.pem"}, "client_ca_file needs client_cert, 'optional' or"),
        (
            {"minimum_version": "TLSv1.1"},
            "minimum_version must be 'TLSv1.2' or 'TLSv1.3', not 'TLSv1.1'",
        ),
        ({"minimum_version": None}, "minimum_version must be"),
        ({"maximum_version": 1.3}, "maximum_version must be"),
        ({"maximum_version": "TLSv1_3"}, "maximum_version must be"),
        (
            {"maximum_version": ssl.TLSVersion.MAXIMUM_SUPPORTED},
            "maximum_version must be .*, not 'MAXIMUM.SUPPORTED'",
        ),
        (
            {"minimum_version": "TLSv1.3", "maximum_version": "TLSv1.2"},
            "minimum_version 'TLSv1.3' is above maximum_version 'TLSv1.2'",
        ),
    ],
)
def test_tls_that_cannot_be(arguments, text):
    with pytest.raises(ValueError, match=text):
        TLS(**arguments)


@pytest.mark.parametrize("password", [7, ["open sesame"], lambda: "open sesame"])
def test_a_password_of_the_wrong_type(password):
    with pytest.raises(TypeError, match="password must be a str or bytes, and is") as caught:
        TLS(certfile="cert.pem", password=password)
    assert "sesame" not in str(caught.value)


def test_a_password_is_not_shown():
    tls = TLS(certfile="cert.pem", password="open sesame")
    assert "sesame" not in repr(tls)
    assert tls.password == "open sesame"
    assert tls != TLS(certfile="cert.pem", password="other")


def test_versions_are_names():
    tls = TLS(minimum_version=ssl.TLSVersion.TLSv1_2, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert tls == TLS(minimum_version="TLSv1.2", maximum_version="TLSv1.2")
    assert (TLS().minimum_version, TLS().maximum_version) == ("TLSv1.2", "TLSv1.3")


def test_a_server_takes_a_mode_or_a_value():
    assert Server(tls="implicit").tls == TLS("implicit")
    assert Server(tls=TLS(required=True)).tls == TLS("starttls", required=True)
    assert Server().tls is None
    with pytest.raises(ValueError, match="tls must be 'starttls' or 'implicit', not"):
        Server(tls="ssl")
    for value in (True, 5, ssl.create_default_context(), {"mode": "implicit"}):
        with pytest.raises(TypeError, match="tls must be a TLS, 'starttls' or 'implicit'"):
            Server(tls=value)


def test_only_the_mode_goes_without_a_name():
    with pytest.raises(TypeError):
        TLS("starttls", True)


def test_a_value_stays_as_it_is():
    tls = TLS("implicit", certfile=Path("cert.pem"))
    # A TypeError in Python 3.10, where slots do not go well with freezing.
    with pytest.raises((AttributeError, TypeError)):
        tls.mode = "starttls"
    assert tls.mode == "implicit"
    assert hash(tls) == hash(TLS("implicit", certfile=Path("cert.pem")))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_can_be_pickled(protocol):
    tls = TLS("implicit", required=True, certfile=Path("a.pem"), keyfile="b.pem", ca_file="c.pem")
    assert pickle.loads(pickle.dumps(tls, protocol)) == tls
    assert copy.deepcopy(tls) == tls
