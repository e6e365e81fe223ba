"""Real clients on a UNIX socket, in the clear and under TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import smtplib
import subprocess
from collections.abc import Callable, Iterator

import aiosmtplib
import pytest
from helpers import fresh, only_message, send
from mailers import Mailers
from programs import (
    DOMAIN,
    NODE_MODULES,
    PATH,
    RECIPIENTS,
    SENDER,
    TIMEOUT,
    Failed,
    mode_of,
    needed,
    unix,
)
from raw_client import stuff
from unix_sockets import UnixSMTP, short_folder

from lazr_smtptest import QueueController

MODES = ["clear", "starttls", "implicit"]

CONTENT = (
    b"From: kim@example.com\r\n"
    b"To: lee@example.com\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Subject: sent\r\n\r\n.\r\nHello.\r\n"
)


@pytest.fixture(scope="module")
def all_running() -> Iterator[dict[str, QueueController]]:
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        yield {
            mode: stack.enter_context(
                QueueController(
                    unix_socket=f"{folder}/{mode}", tls=None if mode == "clear" else mode
                )
            )
            for mode in MODES
        }


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, all_running: dict[str, QueueController]
) -> QueueController:
    return fresh(all_running[request.param])


def with_swaks(server: QueueController, mailers: Mailers) -> None:
    begin = {"starttls": "--tls", "implicit": "--tls-on-connect"}.get(mode_of(server))
    secure = [begin, "--tls-verify", f"--tls-ca-path={server.ca_file}"] if begin else []
    data = "@" + mailers.file(stuff(CONTENT) + b".")
    mailers.swaks(server, *secure, "--no-data-fixup", "--data", data)


def with_msmtp(server: QueueController, mailers: Mailers) -> None:
    mode = mode_of(server)
    secure = ["--tls=on", f"--tls-starttls={'on' if mode == 'starttls' else 'off'}"]
    secure = [*secure, f"--tls-trust-file={server.ca_file}"] if mode != "clear" else []
    mailers.msmtp(server, *secure, "--", *RECIPIENTS, given=unix(CONTENT))


def with_curl(server: QueueController, mailers: Mailers) -> None:
    mode = mode_of(server)
    mailers.curl(
        server,
        *(["--ssl-reqd"] if mode == "starttls" else []),
        *(["--cacert", server.ca_file] if mode != "clear" else []),
        "--upload-file",
        mailers.file(CONTENT),
        scheme="smtps" if mode == "implicit" else "smtp",
    )


def with_go(server: QueueController, mailers: Mailers) -> None:
    mailers.go(server, CONTENT)


def with_aiosmtplib(server: QueueController, mailers: Mailers) -> None:
    mode = mode_of(server)

    async def go() -> None:
        client = aiosmtplib.SMTP(
            hostname="localhost",
            socket_path=server.unix_socket,
            local_hostname=DOMAIN,
            timeout=TIMEOUT,
            use_tls=mode == "implicit",
            start_tls=False,
            tls_context=None if mode == "clear" else server.client_context(),
        )
        async with client:
            transport = client.transport
            try:
                if mode == "starttls":
                    await client.starttls()
                refused, _ = await client.sendmail(SENDER, RECIPIENTS, CONTENT)
                assert refused == {}
                await client.quit()
            finally:
                # It would leave TLS to end by itself, after the event loop.
                transport.abort()

    asyncio.run(go())


NODE_SCRIPT = """
const job = JSON.parse(require("fs").readFileSync(0, "utf8"));
const transport = require(job.module).createTransport({
  ...job.transport,
  getSocket: (_, callback) => {
    const connection = require("net").connect(job.path, () => callback(null, {connection}));
  },
});
transport.sendMail(job.message).catch(error => {
  console.log(error.code + ": " + error.message);
  process.exitCode = 1;
});
"""


def with_nodemailer(server: QueueController, mailers: Mailers) -> None:
    node = shutil.which("node", path=PATH)
    if node is None:
        pytest.skip("the program node is not installed")
    mode = mode_of(server)
    job = {
        "module": needed(f"{NODE_MODULES}/nodemailer"),
        "path": server.unix_socket,
        "transport": {
            "host": "localhost",
            "name": DOMAIN,
            "secure": mode == "implicit",
            "requireTLS": mode == "starttls",
            "tls": {} if mode == "clear" else {"ca": read(server.ca_file)},
        },
        "message": {"envelope": {"from": SENDER, "to": RECIPIENTS}, "raw": CONTENT.decode()},
    }
    done = subprocess.run(
        [node, "-e", NODE_SCRIPT],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


CLIENTS = [with_swaks, with_msmtp, with_curl, with_go, with_aiosmtplib, with_nodemailer]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_content_and_envelope_arrive(
    server: QueueController, mailers: Mailers, client: Callable[[QueueController, Mailers], None]
) -> None:
    client(server, mailers)
    message = only_message(server)
    assert message.raw == CONTENT
    envelope = message.envelope
    assert (envelope.helo, envelope.mail_from, envelope.rcpt_tos) == (DOMAIN, SENDER, RECIPIENTS)
    assert envelope.peer == ("",)
    assert (envelope.tls is None) == (mode_of(server) == "clear")
    (session,) = server.sessions()
    assert session.ended in ("QUIT", "dropped by the client")


def test_smtp_source(all_running: dict[str, QueueController], mailers: Mailers) -> None:
    """Postfix's, with several connections at a time."""
    server = all_running["clear"]
    server.reset()
    path = f"unix:{server.unix_socket}"
    mailers.run("smtp-source", "-m100", "-s10", f"-f{SENDER}", "-tlee@example.com", path)
    assert len(list(server)) == 100
    assert server.connections == 100


@pytest.mark.parametrize("mode", ["clear", "starttls"])
def test_smtplib(all_running: dict[str, QueueController], mode: str) -> None:
    server = all_running[mode]
    server.reset()
    with UnixSMTP(server.unix_socket) as client:
        if mode == "starttls":
            client.starttls(context=server.client_context())
        send(client, "one")
    assert only_message(server)["subject"] == "one"


# LMTP, for which mail servers use UNIX sockets most.


@pytest.fixture
def lmtp() -> Iterator[QueueController]:
    with short_folder() as folder:
        with QueueController(unix_socket=f"{folder}/lmtp", lmtp=True) as controller:
            # Postfix has a user of its own.
            os.chmod(folder, 0o755)
            os.chmod(f"{folder}/lmtp", 0o666)
            yield controller


def test_lmtp_of_smtplib(lmtp: QueueController) -> None:
    """It takes a path for its host."""
    assert lmtp.unix_socket is not None
    with smtplib.LMTP(lmtp.unix_socket, local_hostname=DOMAIN, timeout=TIMEOUT) as client:
        assert client.sendmail(SENDER, RECIPIENTS[0], CONTENT) == {}
    assert only_message(lmtp).raw == CONTENT
    (session,) = lmtp.sessions()
    assert session.commands[0] == ("LHLO", DOMAIN, ())


def test_lmtp_of_swaks(lmtp: QueueController, mailers: Mailers) -> None:
    data = "@" + mailers.file(stuff(CONTENT) + b".")
    mailers.swaks(lmtp, "--protocol", "LMTP", "--no-data-fixup", "--data", data)
    assert only_message(lmtp).envelope.rcpt_tos == RECIPIENTS


def test_lmtp_of_postfix(lmtp: QueueController, mailers: Mailers) -> None:
    lmtp.fault("EOM", "552 5.2.2 Full", when="bcc@*")
    with pytest.raises(Failed, match="552 5.2.2 Full"):
        mailers.postfix(lmtp, CONTENT)
    message = only_message(lmtp)
    assert message.raw == CONTENT
    assert message.envelope.rcpt_tos == ("lee@example.com",)
    assert message.envelope.rcpt_refused == ("bcc@example.com",)
