"""Each difference from aiosmtpd that is meant, shown beside aiosmtpd itself.

The list is that of docs/tls-and-auth.rst.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import warnings
from typing import Any

import aiosmtpd.smtp
import pytest
from aiosmtpd.smtp import AuthResult

from lazr_smtptest import QueueController

LOGIN = b"AUTH PLAIN " + base64.b64encode(b"\0kim\0secret")
MAIL = b"MAIL FROM:<kim@example.com>"
RCPT = b"RCPT TO:<lee@example.com>"


def talk(address: tuple[Any, ...], *lines: bytes) -> bytes:
    """Send one line after the other; give the whole reply to the last."""
    with socket.create_connection(address[:2], timeout=10) as sock, sock.makefile("rb") as file:
        for line in (b"", *lines):
            if line:
                sock.sendall(line + b"\r\n")
            reply = file.readline()
            while reply.splitlines()[-1][3:4] == b"-":
                reply += file.readline()
    return reply


def theirs(*lines: bytes, **options: Any) -> bytes:
    """Give aiosmtpd's reply; everybody may log in there."""

    def accept(*login: object) -> AuthResult:
        return AuthResult(success=True, auth_data=login[-1])

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: aiosmtpd.smtp.SMTP(
                object(), hostname="localhost", authenticator=accept, loop=loop, **options
            ),
            "127.0.0.1",
            0,
        )
        try:
            return await asyncio.to_thread(talk, server.sockets[0].getsockname(), *lines)
        finally:
            server.close()

    return asyncio.run(main())


def ours(*lines: bytes, **options: Any) -> bytes:
    with QueueController("127.0.0.1", **options) as controller:
        return talk((controller.host, controller.port), *lines)


NO_TLS = {"auth_require_tls": False}
AUTH = {"auth": {"kim": "secret"}}


def test_auth_is_offered_without_tls():
    assert b"250-AUTH " not in theirs(b"EHLO x")
    assert b"250-AUTH " in ours(b"EHLO x", **AUTH)


def test_auth_does_not_exist_where_nobody_can_log_in():
    assert b"250-AUTH " in theirs(b"EHLO x", **NO_TLS)
    assert theirs(b"EHLO x", LOGIN).startswith(b"538 ")
    assert b"250-AUTH " not in ours(b"EHLO x")
    assert ours(b"EHLO x", LOGIN).startswith(b"500 ")


def test_auth_that_is_required_without_tls_gives_no_warning(caplog):
    with pytest.warns(UserWarning, match="Requiring AUTH while not requiring TLS"):
        assert theirs(b"EHLO x", MAIL, auth_required=True, **NO_TLS).startswith(b"530 ")
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours(b"EHLO x", MAIL, auth_required=True, **AUTH).startswith(b"530 ")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_there_are_more_mechanisms():
    assert b"250-AUTH LOGIN PLAIN\r\n" in theirs(b"EHLO x", **NO_TLS)
    assert b"250-AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2\r\n" in ours(b"EHLO x", **AUTH)


def test_a_mechanism_may_be_in_any_case():
    assert theirs(b"EHLO x", LOGIN.replace(b"PLAIN", b"plain"), **NO_TLS).startswith(b"504 ")
    assert ours(b"EHLO x", LOGIN.replace(b"PLAIN", b"plain"), **AUTH).startswith(b"235 ")


def test_auth_is_refused_within_a_mail_transaction():
    assert theirs(b"EHLO x", MAIL, LOGIN, **NO_TLS).startswith(b"235 ")
    assert ours(b"EHLO x", MAIL, LOGIN, **AUTH).startswith(b"503 ")


def test_lines_of_auth_may_be_long():
    long = b"AUTH PLAIN " + base64.b64encode(b"\0kim\0" + b"x" * 2000)
    assert theirs(b"EHLO x", long, **NO_TLS).startswith(b"500 ")
    assert ours(b"EHLO x", long, auth={"kim": "x" * 2000}).startswith(b"235 ")


def test_what_cannot_be_decoded_is_not_logged(caplog):
    caplog.set_level(logging.DEBUG, "mail.log")
    assert theirs(b"EHLO x", b"AUTH LOGIN", b"my:secret", **NO_TLS).startswith(b"501 ")
    assert "can't decode base64: b'my:secret'" in caplog.text
    caplog.clear()
    assert ours(b"EHLO x", b"AUTH LOGIN", b"my:secret", **AUTH).startswith(b"501 ")
    assert caplog.text
    assert "my:secret" not in caplog.text


def test_a_login_gives_no_warning(caplog):
    assert theirs(b"EHLO x", LOGIN, **NO_TLS).startswith(b"235 ")
    assert "login_data is deprecated" in caplog.text
    caplog.clear()
    assert ours(b"EHLO x", LOGIN, **AUTH).startswith(b"235 ")
    assert "login_data" not in caplog.text


@pytest.mark.parametrize("name", [b"PIPELINING", b"ENHANCEDSTATUSCODES", b"DSN"])
def test_there_are_more_extensions(name):
    assert name not in theirs(b"EHLO x")
    assert b"250-" + name + b"\r\n" in ours(b"EHLO x")


def test_replies_have_enhanced_codes():
    assert theirs(b"EHLO x", MAIL) == b"250 OK\r\n"
    assert ours(b"EHLO x", MAIL) == b"250 2.1.0 OK\r\n"
    assert ours(b"EHLO x", MAIL, hide=["ENHANCEDSTATUSCODES"]) == b"250 OK\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        (MAIL + b" RET=HDRS ENVID=a",),
        (MAIL, RCPT + b" NOTIFY=NEVER ORCPT=rfc822;lee@example.com"),
        (MAIL + b" AUTH=<>",),
    ],
)
def test_there_are_more_parameters(lines):
    assert theirs(b"EHLO x", *lines, **NO_TLS).startswith(b"555 ")
    assert ours(b"EHLO x", *lines, **AUTH).startswith(b"250 ")


def test_chunks():
    chunk = b"BDAT 6 LAST\r\nNOOP"
    assert theirs(b"EHLO x", MAIL, RCPT, chunk).startswith(b"500 ")
    assert ours(b"EHLO x", MAIL, RCPT, chunk).startswith(b"502 ")
    assert ours(b"EHLO x", MAIL, RCPT, chunk, b"FOO").startswith(b"500 ")
    assert ours(b"EHLO x", MAIL, RCPT, chunk, offer=["CHUNKING"]).startswith(b"250 ")


def test_there_is_a_limit_of_recipients():
    assert theirs(b"EHLO x", MAIL, *[RCPT] * 1001).startswith(b"250 ")
    assert ours(b"EHLO x", MAIL, *[RCPT] * 1001).startswith(b"452 ")
    assert ours(b"EHLO x", MAIL, *[RCPT] * 1001, recipient_limit=2000).startswith(b"250 ")
