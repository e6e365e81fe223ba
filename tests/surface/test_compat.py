"""Fixtures with the names of other packages': what a suite does with theirs, it does with ours.

Suites are run twice, on the package that they were written for and on this one.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest
from inner_pytest import TIMEOUT, USUALLY_OFF
from paths import DOCS, EXAMPLES
from programs import installed
from test_coming_from import literals

import lazr_smtptest

pytestmark = TIMEOUT

#: The packages themselves are loaded: fixtures of the same names are there, and give way.
OTHERS_ON = tuple(
    word
    for option in zip(USUALLY_OFF[::2], USUALLY_OFF[1::2], strict=True)
    if option[1] not in ("no:localserver", "no:smtpd")
    for word in option
)

OURS = ("-p", "lazr_smtptest.compat")

both = pytest.mark.parametrize("args", [(), OURS], ids=["theirs", "ours"])


def passed(run) -> list[str]:
    assert set(run.outcomes.values()) == {"passed"}, run.out
    return list(run.outcomes)


def test_only_on_request(inner):
    inner.files(
        test_it="""
        import sys

        def test_smtpd(smtpd): pass
        def test_smtpserver(smtpserver): pass
        def test_neither(): assert "lazr_smtptest.compat" not in sys.modules
        """
    )
    assert inner.run().outcomes == {
        "test_smtpd": "error",
        "test_smtpserver": "error",
        "test_neither": "passed",
    }


def test_it_is_short_and_made_of_public_names():
    source = Path(lazr_smtptest.__file__).with_name("compat.py").read_text("utf-8")
    assert len(source.splitlines()) <= 200
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if str(node.module).startswith("lazr_smtptest")]
    assert [node.module for node in ours] == ["lazr_smtptest"]
    assert {name.name for name in ours[0].names} <= set(lazr_smtptest.__all__)
    private = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }
    assert {name.rpartition(".")[0] for name in private} == {"self", "super()"}


SMTPDFIX = r"""
import email.message
import os
import smtplib
import ssl
import sys

import pytest

CONTENT = (
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nFrom: \"Kim\" <kim@example.com>\r\n"
    "To: lee@example.com,\r\n max@example.com\r\nX-Mailfrom: forged@example.com\r\n\r\n.Hello\r\n"
)

def send(smtpd, make=smtplib.SMTP, *, secure=False, login=None, **options):
    with make(smtpd.hostname, smtpd.port, **options) as client:
        if secure:
            client.starttls(context=trusting())
        if login:
            client.login(*login)
        client.sendmail("kim@example.com", ["lee@example.com", "max@example.com"], CONTENT)

def trusting():
    return ssl.create_default_context(cafile=os.environ["SMTPD_SSL_CERTIFICATE_FILE"])

def test_messages(smtpd):
    assert smtpd.messages == []
    send(smtpd)
    send(smtpd)
    first, second = smtpd.messages
    assert type(first) is email.message.Message
    assert first["Subject"] == "=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    assert first["From"] == '"Kim" <kim@example.com>'
    assert first["To"] == "lee@example.com,\r\n max@example.com"
    assert first.get_all("X-MailFrom") == ["forged@example.com", "kim@example.com"]
    assert first["X-RcptTo"] == "lee@example.com, max@example.com"
    host, port = eval(first["X-Peer"])[:2]
    assert host in ("127.0.0.1", "::1") and port > 0
    assert first.keys()[-3:] == ["X-Peer", "X-MailFrom", "X-RcptTo"]
    assert first.get_payload() == ".Hello\r\n"
    del first["Subject"]
    assert smtpd.messages[0]["Subject"] is None  # the same object
    smtpd.messages.clear()  # of a copy
    assert len(smtpd.messages) == 2

def test_it_begins_anew(smtpd):
    assert smtpd.messages == []
    assert smtpd.hostname == smtpd.config.host == "localhost"
    assert smtpd.port == smtpd.config.port > 0
    assert smtpd.config.ready_timeout == 10.0
    assert smtpd.config.login_username == "user"
    assert smtpd.config.login_password == "password"
    assert smtpd.config.enforce_auth is False
    assert smtpd.config.auth_require_tls is True
    assert smtpd.config.use_starttls is False
    assert smtpd.config.use_ssl is False
    certificate, key = smtpd.config.ssl_cert_files
    assert os.path.isfile(certificate) and key is None
    with smtplib.SMTP(smtpd.hostname, smtpd.port) as client:
        client.ehlo()
        assert not {"auth", "starttls", "smtputf8"} & client.esmtp_features.keys()

def test_starttls_in_the_middle(smtpd):
    port = smtpd.port
    send(smtpd)
    smtpd.config.use_starttls = True
    assert smtpd.port == port
    with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
        send(smtpd)
    send(smtpd, secure=True)
    send(smtpd, secure=True, login=("user", "password"))
    with smtplib.SMTP(smtpd.hostname, port) as client:
        client.starttls(context=trusting())
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["CRAM-MD5", "LOGIN", "PLAIN"]
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("user", "wrong")
    smtpd.config.login_username, smtpd.config.login_password = "shop", "s3cret"
    send(smtpd, secure=True, login=("shop", "s3cret"))
    smtpd.config.use_starttls = "no"
    send(smtpd)
    assert len(smtpd.messages) == 5

def test_implicit_tls(smtpd):
    smtpd.config.use_ssl = True
    send(smtpd, smtplib.SMTP_SSL, context=trusting())
    context = ssl.create_default_context(cafile=smtpd.config.ssl_cert_files[0])
    send(smtpd, smtplib.SMTP_SSL, context=context)
    smtpd.config.use_starttls = True  # which comes first
    send(smtpd, secure=True)
    assert len(smtpd.messages) == 3

def test_authentication(smtpd, monkeypatch):
    monkeypatch.setattr(smtpd.config, "enforce_auth", "yes")
    with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
        send(smtpd)
    with pytest.raises(smtplib.SMTPNotSupportedError):
        send(smtpd, login=("user", "password"))
    smtpd.config.auth_require_tls = 0
    send(smtpd, login=("user", "password"))
    assert len(smtpd.messages) == 1

def test_a_patch_may_outlive_the_fixture(monkeypatch, request):
    smtpd = request.getfixturevalue("smtpd")
    monkeypatch.setattr(smtpd.config, "use_starttls", True)
    send(smtpd, secure=True)

def test_it_is_as_before(smtpd):
    assert smtpd.config.use_starttls is False
    send(smtpd)

@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("SMTPD_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTPD_READY_TIMEOUT", "12")
    monkeypatch.setenv("SMTPD_LOGIN_NAME", "shop")
    monkeypatch.setenv("SMTPD_LOGIN_PASSWORD", "s3cret")
    monkeypatch.setenv("SMTPD_ENFORCE_AUTH", "1")
    monkeypatch.setenv("SMTPD_AUTH_REQUIRE_TLS", "True")
    monkeypatch.setenv("SMTPD_USE_STARTTLS", "on")
    monkeypatch.setenv("SMTPD_USE_TLS", "t")

def test_environment(environment, smtpd):
    assert smtpd.hostname == smtpd.config.host == "127.0.0.1"
    assert smtpd.config.ready_timeout == 12.0
    assert smtpd.config.use_ssl is True
    send(smtpd, secure=True, login=("shop", "s3cret"))
    with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
        send(smtpd, secure=True)
    assert len(smtpd.messages) == 1

def test_wrong_values(smtpd, tmp_path):
    for name in "enforce_auth", "auth_require_tls", "use_starttls", "use_ssl":
        with pytest.raises(ValueError, match="truth value"):
            setattr(smtpd.config, name, "perhaps")
    with pytest.raises(ValueError, match="int"):
        smtpd.config.port = "smtp"
    with pytest.raises(FileNotFoundError):
        smtpd.config.ssl_cert_files = str(tmp_path / "none.pem")
    with pytest.raises(FileNotFoundError):
        smtpd.config.ssl_cert_files = smtpd.config.ssl_cert_files[0], str(tmp_path / "none.pem")

def test_own_certificate(smtpd, pem):
    smtpd.config.ssl_cert_files = pem
    smtpd.config.use_ssl = True
    assert smtpd.config.ssl_cert_files == (pem, None)
    with pytest.raises(ssl.SSLCertVerificationError):
        send(smtpd, smtplib.SMTP_SSL, context=trusting())
    context = ssl.create_default_context(cafile=pem.replace("both.pem", "ca.pem"))
    send(smtpd, smtplib.SMTP_SSL, context=context)

def test_another_port(smtpd, unused_port):
    send(smtpd)
    before = smtpd.port
    smtpd.config.port = str(unused_port)
    assert smtpd.port == smtpd.config.port == unused_port != before
    send(smtpd)
    assert len(smtpd.messages) == 2
    smtpd.config.use_starttls = True
    assert smtpd.port == unused_port
    send(smtpd, secure=True)
    with pytest.raises(ConnectionRefusedError):
        smtplib.SMTP(smtpd.hostname, before)

def test_stop_and_start(smtpd):
    send(smtpd)
    smtpd.stop()
    with pytest.raises(ConnectionRefusedError):
        send(smtpd)
    assert len(smtpd.messages) == 1
    smtpd.reset()
    smtpd.start()
    send(smtpd)
    assert len(smtpd.messages) == 2

def test_reset(smtpd):
    send(smtpd)
    smtpd.reset()
    assert len(smtpd.messages) == 1
    smtpd.reset(persist_messages=False)
    assert smtpd.messages == []
    send(smtpd)
    assert len(smtpd.messages) == 1

@pytest.fixture
def pem(tmp_path):
    import trustme
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = ca.issue_cert("localhost", "127.0.0.1", "::1")
    cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    return str(tmp_path / "both.pem")

@pytest.fixture
def unused_port():
    import portpicker
    return portpicker.pick_unused_port()
"""


@both
def test_what_suites_do_with_smtpdfix(inner, args):
    inner.files(test_smtpdfix=SMTPDFIX)
    assert len(passed(inner.run(*args, off=OTHERS_ON))) == 13


LOCALSERVER = r"""
import copy
import email.message
import smtplib

import pytest

@pytest.fixture
def outbox(smtpserver):
    return smtpserver.outbox

def send(smtpserver, subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?="):
    with smtplib.SMTP(*smtpserver.addr) as client:
        recipients = ["lee@example.com", "max@example.com"]
        client.sendmail("kim@example.com", recipients, f"Subject: {subject}\r\n\r\nHello.\r\n")

def test_outbox(smtpserver, outbox):
    assert len(outbox) == 0 and not outbox and outbox == []
    send(smtpserver)
    assert len(outbox) == 1
    [message] = outbox
    assert message is smtpserver.outbox[-1] is outbox[0]
    assert type(message) is email.message.Message
    assert message.items() == [("Subject", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=")]
    assert message.get_payload() == "Hello.\r\n"
    assert message.details.mailfrom == "kim@example.com"
    assert message.details.rcpttos == ["lee@example.com", "max@example.com"]
    assert message.details.peer[0] in ("127.0.0.1", "::1")
    assert vars(message.details).keys() == {"peer", "mailfrom", "rcpttos"}

def test_outbox_is_a_list(smtpserver, outbox):
    for subject in "one", "two", "three", "four":
        send(smtpserver, subject)
    assert [message["Subject"] for message in outbox] == ["one", "two", "three", "four"]
    assert copy.copy(outbox) == outbox.copy() == outbox
    assert [message["Subject"] for message in outbox[1:3]] == ["two", "three"]
    assert outbox.pop()["Subject"] == "four"
    assert outbox.pop(0)["Subject"] == "one"
    del outbox[:]
    assert len(smtpserver.outbox) == 0
    send(smtpserver, "five")
    assert outbox[0]["Subject"] == "five"
    outbox.clear()
    assert not smtpserver.outbox

def test_the_server(smtpserver, outbox):
    assert outbox == []
    host, port = smtpserver.addr
    assert host in ("127.0.0.1", "::1") and port == smtpserver.port
    assert smtpserver.is_alive() and smtpserver.accepting
    send(smtpserver)
    smtpserver.stop(5.0)
    assert not smtpserver.is_alive()
    assert len(outbox) == 1
    with pytest.raises(ConnectionRefusedError):
        send(smtpserver)
    smtpserver.stop()

def test_another_has_its_server(smtpserver):
    send(smtpserver)
    assert len(smtpserver.outbox) == 1
"""


@both
def test_what_suites_do_with_pytest_localserver(inner, args):
    inner.files(test_localserver=LOCALSERVER)
    assert len(passed(inner.run(*args, off=OTHERS_ON))) == 4


@pytest.mark.parametrize("name", ["from_smtpdfix", "from_pytest_localserver"])
def test_the_suites_of_the_manual(inner, pytester, name):
    shutil.copytree(EXAMPLES / name, pytester.path, dirs_exist_ok=True)
    assert len(passed(inner.run(*OURS, "test_before.py", off=OTHERS_ON))) == 2


# What a column of old names has, after a message to each server.
NAMES = """
import smtplib

import pytest

CONTENT = "Subject: Hello\\n\\nHello.\\n"

@pytest.mark.parametrize("literal", {literals!r})
def test_name({fixture}, literal):
    with smtplib.SMTP({fixture}.hostname, {fixture}.port) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], CONTENT)
    names = {{"{fixture}": {fixture}, "message": {fixture}.{messages}[0]}}
    eval(literal.replace(".stop(timeout)", ".stop(5)"), names)
"""


@pytest.mark.parametrize(
    ("page", "fixture", "messages"),
    [("from-smtpdfix", "smtpd", "messages"), ("from-pytest-localserver", "smtpserver", "outbox")],
)
def test_all_names_in_the_tables_are_there(inner, page, fixture, messages):
    found = [one for one in literals(page, 0) if one.startswith((f"{fixture}.", "message", "len"))]
    found = [one for one in found if one != f"{fixture}.start()"]  # it runs
    inner.files(test_names=NAMES.format(literals=found, fixture=fixture, messages=messages))
    assert len(passed(inner.run(*OURS))) == len(found) >= 9


TOGETHER = """
import pytest
from helpers import send_to, subjects
from inner import note

@pytest.mark.parametrize("n", range(3))
def test_alike(smtpd, n):
    note(of="smtpd", pid=smtpd.pid)
    assert smtpd.messages == []
    send_to(smtpd, n)
    assert subjects(smtpd.messages) == [str(n)]

def test_with_ours(smtptest, smtpd, smtpserver):
    servers = smtptest, smtpd, smtpserver
    for server in servers:
        note(pid=server.pid)
    assert len({server.port for server in servers}) == 3
    for n, server in enumerate(servers):
        send_to(server, n)
    assert smtptest.wait()["Subject"] == "0"
    assert subjects(smtpd.messages) == ["1"]
    assert subjects(smtpserver.outbox) == ["2"]

def test_both(smtpserver, smtpd):
    note(pid=smtpd.pid)
    assert smtpserver.port != smtpd.port

def test_more_than_they_have(smtpd, smtpserver):
    note(pid=smtpd.pid)
    send_to(smtpd, "one", "two")
    assert smtpd.wait(subject="two")["Subject"] == "two"
    assert subjects(smtpd.messages) == ["one"]
    assert len(smtpd.sessions()) == 1
    smtpserver.fault("CONNECT", "421 4.3.2 Not now")
    with pytest.raises(AttributeError, match="lunch"):
        smtpserver.lunch

def test_fails(smtpd):
    note(pid=smtpd.pid)
    send_to(smtpd, "read")
    assert smtpd.messages == []

def test_leaves_mail_unread(smtpserver):
    note(pid=smtpserver.pid)
    send_to(smtpserver, "left")
"""


def test_beside_the_fixtures_of_this_package(inner):
    inner.ini(smtptest_strict="true")
    inner.files(test_together=TOGETHER)
    run = inner.run(*OURS, "-p", "no:xdist", "--strict-markers", off=OTHERS_ON)
    failed = {name for name, outcome in run.outcomes.items() if outcome == "failed"}
    assert failed == {"test_fails", "test_leaves_mail_unread"}
    assert len(run.outcomes) == 8
    assert len({note["pid"] for note in run.notes if note.get("of") == "smtpd"}) == 1
    assert "1 read by the test:\n- from <kim@example.com>" in run.section("test_fails")
    assert "the test left mail unread" in run.told("test_leaves_mail_unread")


def test_in_workers_of_xdist(inner):
    inner.files(test_smtpdfix=SMTPDFIX, test_localserver=LOCALSERVER)
    assert len(passed(inner.run(*OURS, "-n", "2"))) == 17


KNOWN_PORT = """
import smtplib

import pytest
from inner import note

@pytest.fixture
def set_port(monkeypatch):
    monkeypatch.setenv("SMTPD_PORT", "{port}")

def send():
    with smtplib.SMTP("localhost", {port}) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], "Subject: Hello\\n\\nHello.\\n")

def test_by_variable(set_port, smtpd):
    send()
    assert len(smtpd.messages) == 1
    note(pid=smtpd.pid)

def test_nobody_is_there_now(smtpd):
    with pytest.raises(ConnectionRefusedError):
        send()
"""


def test_a_server_on_a_known_port_need_not_be_asked_for(inner, base_port):
    inner.files(test_port=KNOWN_PORT.format(port=base_port))
    assert len(passed(inner.run(*OURS))) == 2


SETTINGS_FIRST = """
import smtplib

import pytest
from inner import note

@pytest.fixture(autouse=True)
def nothing_is_left(smtpd):
    yield
    assert smtpd.messages == []

@pytest.fixture
def secure(smtpd):
    smtpd.config.use_starttls = True
    return smtpd

@pytest.mark.parametrize("n", range(3))
def test_secure(secure, n):
    with smtplib.SMTP(secure.hostname, secure.port) as client:
        client.starttls()
    note(pid=secure.pid)

def test_unused(smtpd):
    pass
"""


def test_settings_before_the_first_use_restart_nothing(inner):
    inner.files(test_settings=SETTINGS_FIRST)
    run = inner.run(*OURS, "-W", "error", "-p", "no:xdist")
    assert len(passed(run)) == 4
    assert len(set(run.noted("pid"))) == 1


WITHOUT_TRUSTME = """
import smtplib
import sys

import pytest

@pytest.fixture(autouse=True)
def without_trustme(monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)

def test_in_the_clear(without_trustme, smtpd):
    with smtplib.SMTP(smtpd.hostname, smtpd.port) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], "Subject: Hello\\n\\nHello.\\n")
    assert len(smtpd.messages) == 1

def test_tls(without_trustme, smtpd):
    assert smtpd.port
    with pytest.raises(ImportError, match=r"lazr-smtptest\\[tls\\]"):
        smtpd.config.use_starttls = True
    assert smtpd.is_running
"""


def test_without_trustme_there_is_no_tls_and_all_else(inner):
    inner.files(test_without=WITHOUT_TRUSTME)
    assert len(passed(inner.run(*OURS))) == 2


SWAKS = """
import subprocess

from inner import note

def test_swaks(smtpd):
    smtpd.config.use_starttls = smtpd.config.enforce_auth = True
    note(pid=smtpd.pid)
    subprocess.run(
        [
            "swaks", "--server", smtpd.hostname, "--port", str(smtpd.port), "--tls",
            "--auth", "LOGIN", "--auth-user", smtpd.config.login_username,
            "--auth-password", smtpd.config.login_password,
            "--from", "kim@example.com", "--to", "lee@example.com",
        ],
        check=True,
        timeout=60,
    )
    (message,) = smtpd.messages
    assert message["X-RcptTo"] == "lee@example.com"
    assert message["X-Mailer"].startswith("swaks")
"""


def test_swaks(inner):
    installed("swaks")
    inner.files(test_swaks=SWAKS)
    assert passed(inner.run(*OURS)) == ["test_swaks"]


def test_the_manual_says_how():
    for page, fixture in ("from-smtpdfix", "smtpd"), ("from-pytest-localserver", "smtpserver"):
        head = (DOCS / f"{page}.rst").read_text("utf-8").partition("A suite before and after")[0]
        assert "-p lazr_smtptest.compat" in head
        assert f"``{fixture}``" in head
