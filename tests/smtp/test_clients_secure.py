"""Real clients in the clear, by STARTTLS and under TLS; with AUTH, and refused.

Each checks the server's certificate.  Where a program is missing, its tests are
skipped, and fail where CI is set.  Those of nodemailer need Node, and are skipped
without; nodemailer itself is installed from npm, once, or is Debian's where there is
no npm.  Where there is Node but that fails, they are skipped with npm's words for a
reason, and fail where CI is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from helpers import fresh, only_message, subjects
from mailers import as_ordered
from programs import (
    DOMAIN,
    NODE_MODULES,
    PATH,
    RECIPIENTS,
    SENDER,
    TIMEOUT,
    Failed,
    Login,
    missing,
    mode_of,
)

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")

USER, PASSWORD = "kim", "a secret: 100%"
WRONG = "no such secret"

CONTENT = (
    b"From: kim@example.com\r\n"
    b"To: lee@example.com\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"Subject: secure\r\n\r\n.\r\nHello.\r\n..x\r\n"
)

MODES = ["starttls", "implicit"]
WAYS = ["clear", *MODES]
VARIANTS = ["expired", "wrong-host", "untrusted"]

#: nodemailer's releases from this one on are taken to work alike.
NODEMAILER = "nodemailer@10"


#: With OAUTHBEARER on offer, curl would take that for XOAUTH2.
USUAL = ("CRAM-MD5", "LOGIN", "PLAIN", "XOAUTH2")


@pytest.fixture(scope="module")
def all_running() -> Iterator[dict[str, QueueController]]:
    with contextlib.ExitStack() as stack:
        options = {
            mode: {"tls": TLS(mode, required=True), "auth_require_tls": True} for mode in MODES
        }
        yield {
            way: stack.enter_context(
                QueueController(
                    auth={USER: PASSWORD}, auth_mechanisms=USUAL, **options.get(way, {})
                )
            )
            for way in WAYS
        }


@pytest.fixture(params=WAYS)
def server(
    request: pytest.FixtureRequest, all_running: dict[str, QueueController]
) -> QueueController:
    return fresh(all_running[request.param])


# The clients.  Each sends CONTENT, and logs in if it is told a mechanism;
# and raises Failed if it does not trust the server, or is not let in.

Send = Callable[..., None]


def swaks(server, programs, mechanism=None, password=PASSWORD) -> None:
    begin = {"starttls": "--tls", "implicit": "--tls-on-connect"}.get(mode_of(server))
    secure = [begin, "--tls-verify", f"--tls-ca-path={server.ca_file}"] if begin else []
    login = [f"--auth={mechanism}", f"--auth-user={USER}", f"--auth-password={password}"]
    programs.swaks(
        server,
        *secure,
        *(login if mechanism else []),
        "--no-data-fixup",
        "--data",
        "@" + programs.file(CONTENT.replace(b"\r\n.", b"\r\n..") + b"."),
    )


def msmtp(server, programs, mechanism=None, password=PASSWORD) -> None:
    secret = programs.home / "secret"
    secret.write_text(password)
    login = [f"--auth={(mechanism or '').lower()}", f"--user={USER}"]
    login += [f"--passwordeval=cat {secret}"]
    mode = mode_of(server)
    secure = ["--tls=on", f"--tls-starttls={'on' if mode == 'starttls' else 'off'}"]
    programs.msmtp(
        server,
        *([*secure, f"--tls-trust-file={server.ca_file}"] if mode != "clear" else []),
        *(login if mechanism else []),
        "--",
        *RECIPIENTS,
        given=CONTENT.replace(b"\r\n", b"\n"),
    )


def curl(server, programs, mechanism=None, password=PASSWORD) -> None:
    mode = mode_of(server)
    login = ["--login-options", f"AUTH={mechanism}", "--user"]
    has_token = mechanism in ("XOAUTH2", "OAUTHBEARER")
    login += [USER, "--oauth2-bearer", password] if has_token else [f"{USER}:{password}"]
    programs.curl(
        server,
        *(["--ssl-reqd"] if mode == "starttls" else []),
        *(["--cacert", server.ca_file] if mode != "clear" else []),
        *(login if mechanism else []),
        "--upload-file",
        programs.file(CONTENT),
        scheme="smtps" if mode == "implicit" else "smtp",
    )


def in_smtplib(server, programs, mechanism=None, password=PASSWORD) -> None:
    mode = mode_of(server)
    where: Any = {"host": server.host, "port": server.port, "local_hostname": DOMAIN}
    try:
        with contextlib.ExitStack() as stack:
            if mode == "implicit":
                where["context"] = server.client_context()
            kind: Any = smtplib.SMTP_SSL if mode == "implicit" else smtplib.SMTP
            client = stack.enter_context(kind(**where, timeout=TIMEOUT))
            if mode == "starttls":
                client.starttls(context=server.client_context())
            client.ehlo()
            if mechanism:
                client.user, client.password = USER, password
                method = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
                client.auth(mechanism, method)
            assert client.sendmail(SENDER, RECIPIENTS, CONTENT) == {}
    except (ssl.SSLError, smtplib.SMTPException) as error:
        raise Failed(str(error)) from error


def in_aiosmtplib(server, programs, mechanism=None, password=PASSWORD) -> None:
    async def go() -> None:
        mode = mode_of(server)
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=DOMAIN,
            timeout=TIMEOUT,
            use_tls=mode == "implicit",
            start_tls=mode == "starttls",
            tls_context=None if mode == "clear" else server.client_context(),
        )
        async with client:
            transport = client.transport
            await client.ehlo()
            try:
                if mechanism:
                    name = "auth_" + mechanism.lower().replace("-", "")
                    await getattr(client, name)(USER, password)
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


NODE_SCRIPT = """
const job = JSON.parse(require("fs").readFileSync(0, "utf8"));
const transport = require("nodemailer").createTransport(job.transport);
(async () => {
  try {
    await Promise.all(job.messages.map(message => transport.sendMail(message)));
  } catch (error) {
    console.log(error.code + ": " + error.message);
    process.exitCode = 1;
  }
  transport.close();
})();
"""


class Nodemailer:
    """Runs nodemailer; its folder is the current one."""

    def __init__(self, node: str, folder: Path) -> None:
        self.node, self.folder = node, folder

    def send(self, server: QueueController, *messages: Any, **transport: Any) -> None:
        mode = mode_of(server)
        everything = {
            "host": server.host,
            "port": server.port,
            "name": DOMAIN,
            "secure": mode == "implicit",
            "requireTLS": mode != "clear",
            "tls": {} if mode == "clear" else {"ca": Path(server.ca_file).read_text()},
            **transport,
        }
        done = subprocess.run(
            [self.node, "-e", NODE_SCRIPT],
            input=json.dumps({"transport": everything, "messages": messages}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            cwd=self.folder,
            env={"PATH": PATH, "HOME": str(self.folder)},
        )
        if done.returncode:
            raise Failed(done.stdout)


@pytest.fixture(scope="session")
def nodemailer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    """Install nodemailer; give its folder, or the reason why there is none."""
    folder = tmp_path_factory.mktemp("nodemailer")
    npm = shutil.which("npm", path=PATH)
    if npm is None and os.path.exists(f"{NODE_MODULES}/nodemailer"):
        (folder / "node_modules").symlink_to(NODE_MODULES)
        return folder
    if npm is None:
        return "nodemailer cannot be installed: there is Node, but no npm"
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
    try:
        done = subprocess.run(
            [*command, str(folder), "--fetch-retries=1", "--fetch-timeout=5000", NODEMAILER],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            cwd=folder,
        )
    except subprocess.TimeoutExpired:
        return f"nodemailer cannot be installed: npm took more than {TIMEOUT} seconds"
    if done.returncode:
        return f"nodemailer cannot be installed: {' / '.join(done.stdout.splitlines())}"
    return folder


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Nodemailer:
    program = shutil.which("node", path=PATH)
    if program is None:
        # Not to be had by pip or from a Debian package of the same name; so
        # whoever has it has it on purpose, and that goes for CI as well.
        pytest.skip("the program node is not installed")
    folder = request.getfixturevalue("nodemailer_folder")
    if isinstance(folder, str):
        missing(folder)
    return Nodemailer(program, folder)


def nodemailer(server, node, mechanism=None, password=PASSWORD) -> None:
    auth = {"user": USER, "pass": password}
    if mechanism == "XOAUTH2":
        auth = {"type": "OAuth2", "user": USER, "accessToken": password}
    login = {"auth": auth, "authMethod": mechanism}
    message = {"envelope": {"from": SENDER, "to": RECIPIENTS}, "raw": CONTENT.decode()}
    node.send(server, message, **(login if mechanism else {}))


def login(mechanism: str | None, password: str) -> Login | None:
    return Login(mechanism, USER, password) if mechanism else None


def exim(server, mailers, mechanism=None, password=PASSWORD) -> None:
    mailers.exim(server, CONTENT, login(mechanism, password))


def postfix(server, mailers, mechanism=None, password=PASSWORD) -> None:
    mailers.postfix(server, CONTENT, login(mechanism, password))


def neomutt(server, mailers, mechanism=None, password=PASSWORD) -> None:
    mailers.neomutt(server, CONTENT, login(mechanism, password))


def go(server, mailers, mechanism=None, password=PASSWORD) -> None:
    mailers.go(server, CONTENT, login(mechanism, password))


MECHANISMS = {
    swaks: ["PLAIN", "LOGIN", "CRAM-MD5"],
    msmtp: ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"],
    curl: ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"],
    in_smtplib: ["PLAIN", "LOGIN", "CRAM-MD5"],
    in_aiosmtplib: ["PLAIN", "LOGIN", "CRAM-MD5"],
    nodemailer: ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"],
    exim: ["PLAIN", "LOGIN", "CRAM-MD5"],
    postfix: ["PLAIN", "LOGIN", "CRAM-MD5"],
    neomutt: ["PLAIN", "LOGIN", "CRAM-MD5"],
    go: ["PLAIN", "LOGIN", "CRAM-MD5"],
}
if hasattr(aiosmtplib.SMTP, "auth_xoauth2"):
    MECHANISMS[in_aiosmtplib].append("XOAUTH2")

EACH = [
    pytest.param(client, mechanism, id=f"{client.__name__}-{mechanism or 'no AUTH'}")
    for client, mechanisms in MECHANISMS.items()
    for mechanism in [None, *mechanisms]
]
EACH_LOGIN = [parameter for parameter in EACH if parameter.values[1]]


def tool(client: Send, request: pytest.FixtureRequest) -> Any:
    """Give what a client needs to run."""
    return request.getfixturevalue("node" if client is nodemailer else "mailers")


@pytest.mark.parametrize(("client", "mechanism"), EACH)
def test_content_and_envelope_arrive(request, server, client, mechanism):
    client(server, tool(client, request), mechanism)
    message = only_message(server)
    assert as_ordered(message, CONTENT) == CONTENT
    envelope = message.envelope
    assert envelope.mail_from == SENDER
    assert envelope.rcpt_tos == (tuple(sorted(RECIPIENTS)) if client is postfix else RECIPIENTS)
    assert envelope.helo == DOMAIN
    assert envelope.tls in ((None,) if mode_of(server) == "clear" else ("TLSv1.2", "TLSv1.3"))
    assert envelope.auth_user == (USER if mechanism else None)
    session = server.sessions()[-1]
    assert session.failed_logins == 0
    said = [line.text for line in session.dialogue if line.text.startswith("AUTH ")]
    assert [text.split()[1].upper() for text in said] == ([mechanism] if mechanism else [])


#: What clients say then: the code, or what curl and NeoMutt make of it.
DENIED = ("535", "Login denied", "SASL authentication failed")


@pytest.mark.parametrize(("client", "mechanism"), EACH_LOGIN)
def test_a_wrong_secret_is_refused(request, server, client, mechanism):
    tools = tool(client, request)
    with pytest.raises(Failed) as failed:
        client(server, tools, mechanism, WRONG)
    assert any(words in str(failed.value) for words in DENIED), failed.value
    session = server.sessions()[-1]
    assert session.auth_user is None
    if (client, mechanism) != (curl, "XOAUTH2"):  # it hangs up when it is told why
        assert session.failed_logins >= 1
    assert subjects(server) == []
    client(server, tools, mechanism)
    assert only_message(server).envelope.auth_user == USER


# Mechanisms that few clients have; where they are offered, some prefer them.

NEWER = [
    (curl, "OAUTHBEARER"),
    (msmtp, "OAUTHBEARER"),
    (msmtp, "SCRAM-SHA-256"),
    (neomutt, "SCRAM-SHA-256"),
    (postfix, "SCRAM-SHA-256"),
]


@pytest.fixture(scope="module", params=["clear", "starttls"])
def newer(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    pytest.importorskip("scramp", reason="scramp is an extra")
    with QueueController(
        tls=None if request.param == "clear" else request.param,
        auth={USER: PASSWORD},
        auth_mechanisms=("SCRAM-SHA-256", "OAUTHBEARER"),
    ) as controller:
        yield controller


@pytest.mark.parametrize(("client", "mechanism"), NEWER)
def test_newer_mechanisms(request, newer, client, mechanism):
    newer.reset()
    tools = tool(client, request)
    client(newer, tools, mechanism)
    message = only_message(newer)
    assert as_ordered(message, CONTENT) == CONTENT
    assert message.envelope.auth_user == USER
    said = [line.text for line in newer.sessions()[-1].dialogue if line.text[:5] == "AUTH "]
    assert said in ([f"AUTH {mechanism}"], [f"AUTH {mechanism} ***"])
    with pytest.raises(Failed) as failed:
        client(newer, tools, mechanism, WRONG)
    assert any(words in str(failed.value) for words in DENIED), failed.value
    assert subjects(newer) == []


# Servers that let in anybody, and whom a function does.

FIRST = [(client, mechanisms[0]) for client, mechanisms in MECHANISMS.items()]


@pytest.fixture(scope="module")
def anybodys() -> Iterator[QueueController]:
    with QueueController(auth=True, auth_mechanisms=("PLAIN",), auth_required=True) as controller:
        yield controller


@pytest.mark.parametrize(("client", "mechanism"), FIRST)
@pytest.mark.parametrize("password", [PASSWORD, WRONG])
def test_anybody_is_let_in(request, anybodys, client, mechanism, password):
    anybodys.reset()
    client(anybodys, tool(client, request), mechanism, password)
    assert only_message(anybodys).envelope.auth_user == USER


@pytest.fixture(scope="module")
def choosy() -> Iterator[QueueController]:
    with QueueController(
        auth=lambda _, user, secret: (user, secret) == (USER, PASSWORD) or "535 5.7.8 Locked",
        start_method="fork",
    ) as controller:
        yield controller


@pytest.mark.parametrize(("client", "mechanism"), FIRST)
def test_a_function_decides(request, choosy, client, mechanism):
    choosy.reset()
    tools = tool(client, request)
    client(choosy, tools, mechanism)
    assert only_message(choosy).envelope.auth_user == USER
    with pytest.raises(Failed):
        client(choosy, tools, mechanism, WRONG)
    assert subjects(choosy) == []
    assert any("5.7.8 Locked" in str(session.dialogue) for session in choosy.sessions())


@pytest.fixture(scope="module")
def all_bad() -> Iterator[dict[tuple[str, str], QueueController]]:
    with contextlib.ExitStack() as stack:
        yield {
            (mode, variant): stack.enter_context(QueueController(tls=TLS(mode, variant=variant)))
            for mode in MODES
            for variant in VARIANTS
        }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("client", "variant"),
    [
        pytest.param(client, variant, id=f"{client.__name__}-{variant}")
        for client in MECHANISMS
        for variant in VARIANTS
        # swaks did not look at the name before 2024.
        if (client, variant) != (swaks, "wrong-host")
    ],
)
def test_a_bad_certificate_is_refused(request, all_bad, client, mode, variant):
    server = all_bad[mode, variant]
    tools = tool(client, request)
    for _ in range(2):  # and the server goes on
        with pytest.raises(Failed) as failed:
            client(server, tools)
    # It is for that reason, and no other.
    told = str(failed.value).lower()
    if client is neomutt:  # it asks what to do, and says nothing where nobody can answer
        assert told == ""
    else:
        assert any(word in told for word in REASONS), told
    assert subjects(server) == []
    assert {session.messages for session in server.sessions()} <= {()}


#: curl does not pass on what the server says.
CURL_WORDS = {"RCPT": ["RCPT failed: 550"], "EOM": ["Weird server reply"]}

#: What clients say of a certificate.
REASONS = ("certificate", "altname", "trust", "tls startup failed", "verify")


REFUSALS = {"RCPT": "550 5.1.1 No such user here", "EOM": "554 5.7.1 Not wanted here"}


@pytest.mark.parametrize("stage", REFUSALS)
@pytest.mark.parametrize("client", MECHANISMS)
def test_the_user_is_told_of_a_refusal(request, server, client, stage):
    tools, reply = tool(client, request), REFUSALS[stage]
    server.fault(stage, reply)
    with pytest.raises(Failed) as failed:
        client(server, tools)
    told = " ".join(str(failed.value).split())
    words = CURL_WORDS[stage] if client is curl else reply.split(" ", 1)
    assert all(word in told for word in words), told
    assert subjects(server) == []


@pytest.mark.parametrize("client", [exim, postfix, neomutt, go])
def test_an_answer_that_takes_a_while_is_waited_for(server, mailers, client):
    """Exim has said QUIT by then, and sent the end of its side."""
    server.fault("EOM", delay=0.3)
    client(server, mailers)
    assert as_ordered(only_message(server), CONTENT) == CONTENT


@pytest.mark.parametrize("client", [exim, postfix])
def test_a_mail_server_delivers_to_whom_it_can(server, mailers, client):
    """And it returns the message for the others, once."""
    server.fault("RCPT", REFUSALS["RCPT"], when="bcc@example.com")
    with pytest.raises(Failed) as failed:
        client(server, mailers)
    message = only_message(server)
    assert message.raw == CONTENT
    assert message.envelope.rcpt_tos == ("lee@example.com",)
    bounce = str(failed.value).partition("This ")[2]
    assert "bcc@example.com" in bounce
    assert REFUSALS["RCPT"] in " ".join(bounce.split())
    assert "lee@example.com" not in bounce


def test_a_client_in_the_clear_is_told_to_begin_tls(all_running):
    server = all_running["starttls"]
    server.reset()
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail(SENDER, RECIPIENTS, CONTENT)
    assert refused.value.smtp_code == 530
    assert subjects(server) == []


# What is special to nodemailer.


@pytest.mark.parametrize("ways", [{"pool": True}, {"pool": True, "maxConnections": 1}, {}])
def test_nodemailer_sends_several(server, node, ways):
    count = 8
    messages = [
        {"from": SENDER, "to": RECIPIENTS, "subject": f"żółw {number}", "text": "Grüße\n.\n"}
        for number in range(count)
    ]
    node.send(server, *messages, **ways, auth={"user": USER, "pass": PASSWORD})
    received = list(server)
    assert sorted(m.header("Subject") for m in received) == [f"żółw {n}" for n in range(count)]
    assert {m.envelope.auth_user for m in received} == {USER}
    assert {m.envelope.tls is None for m in received} == {mode_of(server) == "clear"}
    assert {m.text.rstrip("\n") for m in received} == {"Grüße\n."}
    peers = {m.envelope.peer for m in received}
    if not ways:
        assert len(peers) == count
    else:
        assert len(peers) <= ways.get("maxConnections", 5)


def test_nodemailer_upgrades_by_itself(all_running, node):
    """Without requireTLS it takes STARTTLS where that is offered."""
    server = all_running["starttls"]
    server.reset()
    message = {"from": SENDER, "to": RECIPIENTS, "subject": "upgraded", "text": "Hello."}
    node.send(server, message, requireTLS=False)
    assert only_message(server).envelope.tls


def test_nodemailer_insists_on_tls(node):
    message = {"from": SENDER, "to": RECIPIENTS, "subject": "in the clear", "text": "Hello."}
    with QueueController(tls=TLS("starttls"), hide=["STARTTLS"]) as server:
        with pytest.raises(Failed):
            node.send(server, message)
        assert subjects(server) == []
        node.send(server, message, requireTLS=False)
        assert only_message(server).envelope.tls is None
