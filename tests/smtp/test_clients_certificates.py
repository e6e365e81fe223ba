"""Real clients that show a certificate, and some that log in by it (EXTERNAL).

Where a program is missing, its tests are skipped, and fail where CI is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import aiosmtplib
import pytest
from helpers import fresh, only_message, subjects
from mailers import Mailers, as_ordered
from programs import DOMAIN, RECIPIENTS, SENDER, TIMEOUT, Failed, Login, Programs, mode_of

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")

CONTENT = (
    b"From: kim@example.com\r\n"
    b"To: lee@example.com\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Subject: secure\r\n\r\nHello.\r\n"
)
MODES = ["starttls", "implicit"]
USER = "kim"
SUBJECT = "CN=client@example.com"


@pytest.fixture(scope="module")
def all_running() -> Iterator[dict[str, QueueController]]:
    with contextlib.ExitStack() as stack:
        yield {
            mode: stack.enter_context(
                QueueController(
                    tls=TLS(mode, required=True, client_cert="required"),
                    auth={USER: SUBJECT},
                    auth_mechanisms=["EXTERNAL"],
                )
            )
            for mode in MODES
        }


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, all_running: dict[str, QueueController]
) -> QueueController:
    return fresh(all_running[request.param])


@pytest.fixture
def tools(programs: Programs, mailers: Mailers) -> tuple[Programs, Mailers]:
    return programs, mailers


# The clients.  Each sends CONTENT, shows a certificate if it is told to, and logs in if it is
# told to; and raises Failed if it is not let in.


def swaks(server, tools, shown: str, login: bool) -> None:
    assert not login
    begin = {"starttls": "--tls", "implicit": "--tls-on-connect"}[mode_of(server)]
    programs = tools[0]
    programs.swaks(
        server,
        *(begin, "--tls-verify", f"--tls-ca-path={server.ca_file}"),
        *([f"--tls-cert={shown}", f"--tls-key={shown}"] if shown else []),
        "--no-data-fixup",
        "--data",
        "@" + programs.file(CONTENT + b"."),
    )


def msmtp(server, tools, shown: str, login: bool) -> None:
    starttls = "on" if mode_of(server) == "starttls" else "off"
    tools[0].msmtp(
        server,
        *("--tls=on", f"--tls-starttls={starttls}", f"--tls-trust-file={server.ca_file}"),
        *([f"--tls-cert-file={shown}", f"--tls-key-file={shown}"] if shown else []),
        *(["--auth=external", f"--user={USER}"] if login else []),
        "--",
        *RECIPIENTS,
        given=CONTENT.replace(b"\r\n", b"\n"),
    )


def curl(server, tools, shown: str, login: bool) -> None:
    is_implicit = mode_of(server) == "implicit"
    programs = tools[0]
    programs.curl(
        server,
        *("--ssl-reqd", "--cacert", server.ca_file),
        *(["--cert", shown] if shown else []),
        *(["--login-options", "AUTH=EXTERNAL", "--user", f"{USER}:"] if login else []),
        "--upload-file",
        programs.file(CONTENT),
        scheme="smtps" if is_implicit else "smtp",
    )


def s_client(server, tools, shown: str, login: bool) -> None:
    """OpenSSL's own, for which somebody types: all at once, and it reads no reply."""
    recipients = [f"RCPT TO:<{recipient}>" for recipient in RECIPIENTS]
    lines = [f"EHLO {DOMAIN}", *(["AUTH EXTERNAL ="] if login else [])]
    lines += [f"MAIL FROM:<{SENDER}>", *recipients, "DATA"]
    typed = "".join(f"{line}\n" for line in lines).encode()
    programs = tools[0]
    programs.run(
        "openssl",
        *("s_client", "-quiet", "-crlf", "-connect", f"{server.host}:{server.port}"),
        *(["-starttls", "smtp"] if mode_of(server) == "starttls" else []),
        *("-CAfile", server.ca_file, "-verify_return_error"),
        *(["-cert", shown] if shown else []),
        given=typed + CONTENT.replace(b"\r\n", b"\n") + b".\nQUIT\n",
    )


def in_smtplib(server, tools, shown: str, login: bool) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    if shown:
        context.load_cert_chain(shown)
    where: Any = {"host": server.host, "port": server.port, "timeout": TIMEOUT}
    try:
        with contextlib.ExitStack() as stack:
            if mode_of(server) == "implicit":
                client = stack.enter_context(smtplib.SMTP_SSL(**where, context=context))
            else:
                client = stack.enter_context(smtplib.SMTP(**where))
                client.starttls(context=context)
            client.ehlo(DOMAIN)
            if login:
                client.auth("EXTERNAL", lambda challenge=None: USER)
            assert client.sendmail(SENDER, RECIPIENTS, CONTENT) == {}
    except (ssl.SSLError, smtplib.SMTPException) as error:
        raise Failed(str(error)) from error


def in_aiosmtplib(server, tools, shown: str, login: bool) -> None:
    assert not login
    mode = mode_of(server)

    async def go() -> None:
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=DOMAIN,
            timeout=TIMEOUT,
            use_tls=mode == "implicit",
            start_tls=mode == "starttls",
            cert_bundle=server.ca_file,
            client_cert=shown or None,
        )
        async with client:
            transport = client.transport
            try:
                refused, _ = await client.sendmail(SENDER, RECIPIENTS, CONTENT)
                assert refused == {}
                await client.quit()
            finally:
                # It would leave TLS to end by itself, after the event loop.
                transport.abort()

    try:
        asyncio.run(go())
    except (ssl.SSLError, aiosmtplib.SMTPException) as error:
        raise Failed(str(error)) from error


def exim(server, tools, shown: str, login: bool) -> None:
    known = Login("EXTERNAL", USER, "") if login else None
    tools[1].exim(server, CONTENT, known, shown)


def postfix(server, tools, shown: str, login: bool) -> None:
    assert not login
    tools[1].postfix(server, CONTENT, None, shown)


def neomutt(server, tools, shown: str, login: bool) -> None:
    assert not login
    tools[1].neomutt(server, CONTENT, None, shown)


Send = Callable[..., None]

CLIENTS: list[Send] = [
    swaks,
    msmtp,
    curl,
    s_client,
    in_smtplib,
    in_aiosmtplib,
    exim,
    postfix,
    neomutt,
]

#: Those that know EXTERNAL.
LOGGING_IN: list[Send] = [msmtp, curl, s_client, in_smtplib, exim]


@pytest.mark.parametrize("client", CLIENTS)
def test_its_subject_is_on_the_envelope(server, tools, client):
    client(server, tools, server.client_cert_file, login=False)
    message = only_message(server)
    assert as_ordered(message, CONTENT) == CONTENT
    assert message.envelope.client_cert_subject == SUBJECT
    assert message.envelope.auth_user is None
    assert set(message.envelope.rcpt_tos) == set(RECIPIENTS)


@pytest.mark.parametrize("client", CLIENTS)
def test_without_one_it_is_refused(server, tools, client):
    with pytest.raises(Failed):
        client(server, tools, "", login=False)
    assert subjects(server) == []
    remarks = [line.text for session in server.sessions() for line in session.dialogue]
    assert any("the client has sent no certificate" in remark for remark in remarks)


@pytest.mark.parametrize("client", LOGGING_IN)
def test_it_logs_in(server, tools, client):
    client(server, tools, server.client_cert_file, login=True)
    envelope = only_message(server).envelope
    assert (envelope.auth_user, envelope.client_cert_subject) == (USER, SUBJECT)
