"""The command line: what it prints, what its server is, and what it is told."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from datetime import datetime, timedelta, timezone

import pytest
from command_line import (
    COMMAND,
    ENVIRONMENT,
    assert_no_python,
    finish,
    run_command,
    running,
    send_message,
    send_octets,
)
from helpers import refused, send, until
from paths import DOCS
from programs import missing
from scripts import run_python

import lazr_smtptest
from lazr_smtptest._cli import arguments as arguments_module
from lazr_smtptest._cli.command import main
from lazr_smtptest._cli.printers import harmless

# What it prints.


def test_count_ends_it_after_so_many_messages():
    with running("--count", "2") as (process, port):
        send_message(port, "one")
        send_message(port, "two")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == ["one", "two"]
        assert out.count("from <kim@example.com> to <lee@example.com>") == 2
        assert refused(port)


def test_a_message_is_printed_for_people():
    with running("--count", "1") as (process, port):
        send_octets(
            port,
            b"Subject: =?utf-8?q?B=C3=A4ume?=\r\nX-Order: 17,\r\n 18\r\nMIME-Version: 1.0\r\n"
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
            b"--b\r\n\r\nTwo\r\nlines.\r\n"
            b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
            b'Content-Disposition: attachment; filename="leaf.png"\r\n\r\nAAAA\r\n'
            b"--b\r\nContent-Type: image/png\r\nContent-Disposition: inline\r\n\r\n\r\n--b--\r\n",
        )
        status, out, err = finish(process)
        at = re.search("\nat (.*), in the clear\n", out)[1]
        age = datetime.now(timezone.utc) - datetime.strptime(at, "%Y-%m-%d %H:%M:%S %z")
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert (status, out, err) == (
            0,
            "------------------------------ message 1 -------------------------------\n"
            "from <kim@example.com> to <lee@example.com>, <max@example.com>\n"
            f"at {at}, in the clear\n"
            "\n"
            "Subject: Bäume\n"
            "X-Order: 17, 18\n"
            "MIME-Version: 1.0\n"
            'Content-Type: multipart/mixed; boundary="b"\n'
            "\n"
            "Two\n"
            "lines.\n"
            "attached: leaf.png (image/png, 3 octets)\n"
            "inline: without a name (image/png, 0 octets)\n"
            "error: from-missing: There is no From field; add one.\n"
            "advice: date-missing: There is no Date field; add one.\n"
            "advice: message-id-missing: There is no Message-ID field; add one.\n"
            "\n"
            "1 message, 1 session, 0 failed\n",
            "",
        )


#: Without problems; and with one error in it, and two.
RIGHT = (
    b"From: kim@example.com\r\nDate: Fri, 27 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: hello\r\n\r\nHello.\r\n"
)
WRONG = RIGHT.replace(b"From", b"Form")
ADVICE = RIGHT.replace(b"Message-ID", b"X-ID")


@pytest.mark.parametrize(
    ("octets", "line"),
    [
        (RIGHT, ""),
        (WRONG, "error: from-missing: There is no From field; add one.\n"),
        (ADVICE, "advice: message-id-missing: There is no Message-ID field; add one.\n"),
    ],
)
def test_a_line_for_each_problem(octets, line):
    with running("--count", "1") as (process, port):
        send_octets(port, octets)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.endswith(f"\nHello.\n{line}\n1 message, 1 session, 0 failed\n")


def test_a_check_fails_for_errors():
    with running("--check", "--quiet", "--count", "3") as (process, port):
        for octets in (RIGHT, WRONG, ADVICE):
            send_octets(port, octets)
        assert finish(process) == (
            1,
            "",
            "lazr-smtptest: message 2: from-missing: There is no From field; add one.\n",
        )


def send_from_a_bare_path(port: int) -> None:
    with smtplib.SMTP("localhost", port, timeout=10) as client:
        client.ehlo()
        client.docmd("MAIL FROM:kim@example.com")
        client.docmd("RCPT TO:<lee@example.com>")
        client.data(RIGHT)


def test_a_check_looks_at_sessions():
    with running("--check", "--quiet", "--count", "1") as (process, port):
        send_from_a_bare_path(port)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        assert err.startswith(
            "lazr-smtptest: session 1: path-without-brackets: 'kim@example.com' needs angle "
        )
        assert err.count("\n") == 1


def test_a_check_that_is_interrupted_looks_at_sessions():
    with running("--check", "--quiet") as (process, port):
        send_from_a_bare_path(port)
        process.send_signal(signal.SIGINT)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        assert err.startswith("lazr-smtptest: session 1: path-without-brackets: ")


def test_a_line_for_each_problem_of_a_session():
    with running("--count", "1") as (process, port):
        send_from_a_bare_path(port)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        *_, last, summary = out.splitlines()
        assert last.startswith("session 1: error: path-without-brackets: 'kim@example.com' needs")
        assert summary == "1 message, 1 session, 0 failed"


@pytest.mark.parametrize("octets", [RIGHT, ADVICE])
def test_a_check_passes_without_errors(octets):
    with running("--check", "--quiet", "--count", "1") as (process, port):
        send_octets(port, octets)
        assert finish(process) == (0, "", "")


def test_each_message_is_printed_as_it_arrives():
    with running() as (process, port):
        for subject in ("one", "two"):
            send_message(port, subject)
            while (line := process.stdout.readline()) != f"Subject: {subject}\n":
                assert line


def test_octets_that_are_no_text_are_printed_somehow():
    with running("--count", "1") as (process, port):
        send_octets(port, b"Subject: \xff\x00\r\n\r\n\x80")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "Subject: ÿ\\x00\n\n€\n" in out


def test_what_the_encoding_lacks_is_escaped():
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with running("--count", "1", env=environment) as (process, port):
        send_octets(port, "Subject: Bäume\r\n\r\n".encode())
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert r"Subject: B\xe4ume" in out


def test_the_command_line_on_a_terminal_that_knows_no_umlauts():
    script = textwrap.dedent("""
        import re, smtplib, subprocess, sys
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "lazr_smtptest", "--port", "0", "--count", "1"],
            stdout=subprocess.PIPE, text=True,
        )
        port = int(re.search(r"port ([0-9]+)", process.stdout.readline())[1])
        with smtplib.SMTP("localhost", port) as client:
            client.sendmail("a@b.c", ["d@e.f"], "Subject: \\u00fc\\r\\n\\r\\n".encode())
        print(process.communicate(timeout=10)[0], process.returncode)
    """)
    done = run_python(script, PYTHONIOENCODING="ascii")
    assert "Subject: \\xfc" in done.stdout
    assert done.stdout.endswith(" 0\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("Bäume 木 \U0001f333", "Bäume 木 \U0001f333"),
        ("12\xa0€", "12\xa0€"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("over\rwrite\b\x7f\x9b31m", r"over\rwrite\x08\x7f\x9b31m"),
        ("left\u202eright\u2066\u200b\ufeff", r"left\u202eright\u2066\u200b\ufeff"),
        ("\udc80\ud800", r"\udc80\ud800"),
    ],
)
def test_what_would_do_something_to_a_terminal_is_escaped(text, shown):
    assert harmless(text) == shown


def test_json_is_an_object_a_line():
    raw = b"Subject: =?utf-8?q?B=C3=A4ume?=\r\n\r\nSee https://example.com/trees.\r\n"
    broken = b"Subject: \xff\x00\r\nContent-Type: nonsense; charset=nope\r\n\r\n\x80\r\n"
    with running("--count", "2", "--json", announced="stderr") as (process, port):
        send_octets(port, raw)
        send_octets(port, broken)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert out.isascii()
        objects = list(map(json.loads, out.splitlines()))
        first, second = (one for one in objects if one["kind"] == "message")
        assert first.pop("received_at").endswith("+00:00")
        assert first.pop("peer")[0] in ("127.0.0.1", "::1")
        assert first.pop("helo")
        problems = first.pop("problems")
        assert [p["code"] for p in problems] == [
            "from-missing",
            "date-missing",
            "message-id-missing",
        ]
        assert problems[0] == {
            "code": "from-missing",
            "level": "error",
            "text": "There is no From field; add one.",
            "where": "",
        }
        assert first == {
            "kind": "message",
            "sequence": 1,
            "tls": None,
            "client_cert_subject": None,
            "auth_user": None,
            "mail_from": "kim@example.com",
            "rcpt_tos": ["lee@example.com", "max@example.com"],
            "subject": "Bäume",
            "headers": [["Subject", "Bäume"]],
            "text": "See https://example.com/trees.\n",
            "html": "",
            "links": ["https://example.com/trees"],
            "attachments": [],
            "raw": base64.b64encode(raw).decode(),
        }
        assert base64.b64decode(second["raw"]) == broken


def test_quiet_prints_nothing():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "--quiet", "--port", str(port), "--count", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        until(lambda: not refused(port))
        send_message(port)
        assert finish(process)[:2] == (0, "")


def test_quiet_tells_a_free_port_and_no_more():
    with running("--quiet", "--count", "1") as (process, port):
        send_message(port)
        assert finish(process) == (0, "", "")


def test_json_alone_is_on_standard_output_though_standard_error_is_closed():
    command = " ".join([*COMMAND, "--json --count 1 --timeout 0.1 --port 0 2>&-"])
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_header_field_is_one_line():
    with running("--count", "1") as (process, port):
        send_octets(port, b"Subject: =?utf-8?q?one=0AX-Forged:_two?=\r\n\r\n")
        assert "Subject: one X-Forged: two\n" in finish(process)[1]


# What the server is.


def test_fault():
    faults = ["--fault", "rcpt=451 4.7.1 Later", "--fault", "MAIL=250 2.1.0 Hm"]
    with running(*faults) as (_process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            assert client.mail("kim@example.com") == (250, b"2.1.0 Hm")
            assert client.rcpt("lee@example.com") == (451, b"4.7.1 Later")


def test_lmtp():
    faults = ["--fault", "lhlo=550 Not yet", "--lmtp"]
    with running(*faults) as (_process, port):
        with smtplib.LMTP("localhost", port, timeout=10) as client:
            assert client.ehlo() == (550, b"Not yet")
            assert client.docmd("EHLO", "x")[0] == 500


def test_faults_with_options():
    faults = [
        "RCPT=451 4.7.1 Later, not now,times=2,when=lee@*",
        "vrfy,drop=instead",
        "DATA=552 5.3.4 Too much, by far,after=1000,drop=content,times=1",
        "EOM,drop,times=1",
        r"NOOP=25\xff\\\r\n,raw",
        "HELP=214-a\n214 b,trickle=.01",
        "RSET,delay=0.1",
    ]
    with running(*(word for fault in faults for word in ("--fault", fault))) as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            client.sock.sendall(b"NOOP\r\n")
            assert client.file.readline() == b"25\xff\\\r\n"
            assert client.docmd("HELP") == (214, b"a\nb")
            began = time.monotonic()
            assert client.rset()[0] == 250
            assert time.monotonic() - began >= 0.09
            client.mail("kim@example.com")
            codes = [client.rcpt(f"{name}@example.com")[0] for name in "kim lee lee lee".split()]
            assert codes == [250, 451, 451, 250]
            assert client.data("x\r\n" * 1000) == (552, b"5.3.4 Too much, by far")
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
        for broken in ("EOM", "VRFY"):
            with smtplib.SMTP("localhost", port, timeout=10) as client:
                with pytest.raises(smtplib.SMTPServerDisconnected):
                    client.vrfy("x") if broken == "VRFY" else send(client, "lost")
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            send(client, "kept")
        process.terminate()
        out = finish(process)[1]
    assert "kept" in out
    assert "lost" not in out


def test_auth():
    with running("--auth", "kim:s3:cret", "--auth", "lee:", "--count", "1") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("kim", "s3")
            client.login("kim", "s3:cret")
            send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "in the clear, logged in as kim\n" in out


def test_anybody_may_log_in():
    arguments = ("--auth-any", "--auth-mechanisms", "LOGIN, plain", "--count", "1")
    with running(*arguments) as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            assert client.esmtp_features["auth"].split() == ["LOGIN", "PLAIN"]
            client.login("kim", "anything")
            send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert "in the clear, logged in as kim\n" in out


def test_behind_a_proxy():
    arguments = ("--proxy-protocol", "--count", "1", "--json")
    with running(*arguments, announced="stderr") as (process, port):
        with smtplib.SMTP() as client:
            client.sock = socket.create_connection(("localhost", port), 10)
            client.sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n")
            assert client.getreply()[0] == 220
            send(client, "hello")
        status, out, _ = finish(process)
    peers = [json.loads(line)["peer"] for line in out.splitlines()]
    assert (status, peers) == (0, [["192.0.2.7", 4711]] * 2)


def test_chunks():
    arguments = ("--offer", "chunking, binarymime", "--fault", "BDAT=550 5.7.1 No")
    with running(*arguments) as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            assert {"chunking", "binarymime"} <= set(client.esmtp_features)
            assert client.docmd("BDAT", "0 LAST") == (550, b"5.7.1 No")
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == 0


def test_scram_without_scramp(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scramp", None)
    arguments = "--auth kim:secret --auth-mechanisms SCRAM-SHA-256".split()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert "pip install 'lazr-smtptest[scram]', or leave it out of --auth-mechanisms" in line
    assert_no_python(line)


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
def test_tls(kind):
    with running("--tls", kind, "--count", "1") as (process, port):
        line = process.stdout.readline()
        ca_file = re.fullmatch(r"clients have to trust (.+)\n", line)[1]
        context = ssl.create_default_context(cafile=ca_file)
        if kind == "implicit":
            client = smtplib.SMTP_SSL("localhost", port, timeout=10, context=context)
        else:
            client = smtplib.SMTP("localhost", port, timeout=10)
            client.starttls(context=context)
        with client:
            send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert ", TLSv1.3\n" in out
        assert not os.path.exists(ca_file)


@pytest.mark.parametrize(("client_cert", "may"), [("optional", "may"), ("required", "have to")])
def test_certificates_of_clients(client_cert, may):
    arguments = ["--tls", "starttls", "--client-cert", client_cert, "--minimum-version", "TLSv1.3"]
    login = ["--auth", "kim:CN=client@example.com", "--auth-mechanisms", "EXTERNAL"]
    with running(*arguments, *login, "--count", "2") as (process, port):
        trusted = re.fullmatch(r"clients have to trust (.+)\n", process.stdout.readline())[1]
        line = process.stdout.readline()
        shown = re.fullmatch(rf"clients {may} show a certificate, such as (.+)\n", line)[1]
        context = ssl.create_default_context(cafile=trusted)
        context.load_cert_chain(shown)
        for logs_in in (False, True):
            with smtplib.SMTP("localhost", port, timeout=10) as client:
                client.starttls(context=context)
                if logs_in:
                    client.ehlo()
                    client.auth("EXTERNAL", lambda challenge=None: "")
                send(client, "hello")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        with_it = "TLSv1.3, with the certificate CN=client@example.com"
        assert re.findall(r"^at [-\d]+ [:\d]+ [-+]\d+, (.*)", out, re.MULTILINE) == [
            with_it,
            f"{with_it}, logged in as kim",
        ]
        assert not os.path.exists(shown)


def test_json_has_the_certificate_of_the_client():
    arguments = ["--tls", "implicit", "--client-cert", "required", "--json", "--count", "1"]
    with running(*arguments, announced="stderr") as (process, port):
        files = [process.stderr.readline().split()[-1] for _ in range(2)]
        context = ssl.create_default_context(cafile=files[0])
        context.load_cert_chain(files[1])
        with smtplib.SMTP_SSL("localhost", port, timeout=10, context=context) as client:
            send(client, "hello")
        status, out, err = finish(process)
    assert (status, err) == (0, "")
    for one in map(json.loads, out.splitlines()):
        assert one["client_cert_subject"] == "CN=client@example.com"
        assert one["tls"] == "TLSv1.3"


def test_a_certificate_of_ones_own(tmp_path):
    trustme = pytest.importorskip("trustme", reason="trustme is an extra")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    authority, clients = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    arguments = [
        *("--tls", "starttls", "--maximum-version", "TLSv1.2", "--count", "1"),
        *("--certfile", f"{tmp_path}/cert.pem", "--keyfile", f"{tmp_path}/key.pem"),
        *("--key-password", "open sesame", "--ca-file", f"{tmp_path}/ca.pem"),
        *("--client-cert", "required", "--client-ca-file", f"{tmp_path}/clients.pem"),
    ]
    with running(*arguments) as (process, port):
        assert process.stdout.readline() == f"clients have to trust {tmp_path}/ca.pem\n"
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        clients.issue_cert("kim@example.com", common_name="kim").configure_cert(context)
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.starttls(context=context)
            send(client, "hello")
        status, out, err = finish(process)
    assert (status, err) == (0, "")
    assert ", TLSv1.2, with the certificate CN=kim,OU=" in out


def test_a_certificate_that_is_not_there():
    arguments = ["--port", "0", "--tls", "starttls", "--certfile", "no/cert.pem"]
    status, out, err = run_command(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno 2] cannot serve TLS with no/cert.pem: ")


def test_tls_without_trustme():
    code = (
        "import sys; sys.modules['trustme'] = None\n"
        "from lazr_smtptest._cli.command import main\n"
        "sys.exit(main(['--tls', 'starttls', '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lazr-smtptest: ")
    assert "pip install 'lazr-smtptest[tls]'" in done.stderr
    assert "--tls without a certificate of your own" in done.stderr
    assert "a --certfile and --keyfile, and with --client-cert a --client-ca-file" in done.stderr
    assert_no_python(done.stderr)
    assert done.stderr.count("\n") == 1


def test_version():
    assert run_command("--version") == (0, f"lazr-smtptest {lazr_smtptest.__version__}\n", "")


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_all_interfaces(host):
    """The first line is where to connect from here, for scripts."""
    with running("--host", host) as (process, _):
        second = process.stdout.readline()
    assert second == "clients elsewhere can use any address of this machine\n"


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        status, out, err = run_command("--host", "127.0.0.1", "--port", port)
    assert (status, out) == (1, "")
    assert err.startswith("lazr-smtptest: [Errno 98] cannot listen on '127.0.0.1' port " + port)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--port 70000", "70000"),
        ("--port x", "argument --port: invalid int value: 'x'"),
        ("--count 0", "argument --count: must be more than 0, not 0"),
        ("--count 1.5", "argument --count: invalid int value: '1.5'"),
        ("--timeout nan", "argument --timeout: must be more than 0, not nan"),
        ("--timeout inf", "argument --timeout: must be more than 0, not inf"),
        ("--timeout -1", "argument --timeout: must be more than 0, not -1"),
        ("--timeout soon", "argument --timeout: invalid float value: 'soon'"),
        ("--auth kim", "argument --auth: must be USER:PASSWORD, not 'kim'"),
        ("--auth :secret", "argument --auth: must be USER:PASSWORD, not ':secret'"),
        ("--auth-any --auth kim:x", "argument --auth: not allowed with argument --auth-any"),
        ("--auth-mechanisms PLAIN", "--auth-mechanisms needs --auth, such as --auth kim:secret"),
        ("--auth-any --auth-mechanisms PLAIN,NTLM", "--auth-mechanisms may have CRAM-MD5, "),
        ("--auth-any --auth-mechanisms=", "--auth-mechanisms may have CRAM-MD5, "),
        ("--auth-any --auth-mechanisms SCRAM-SHA-256", "needs the passwords"),
        ("--fault RCTP=451", "not 'RCTP': did you mean RCPT?"),
        ("--fault RCPT", "argument --fault: a fault needs a reply, raw, a delay"),
        ("--fault RCPT=later", "argument --fault: reply must begin with a reply code"),
        ("--fault RCPT=", "argument --fault: reply must begin with a reply code"),
        ("--fault RCPT=,drop", "argument --fault: reply must begin with a reply code"),
        ("--fault =451", "argument --fault: stage must be one of CONNECT, "),
        ("--fault RCPT=451,times=0", "argument --fault: times must be a whole number from 1 on"),
        ("--fault RCPT=451,times=1.5", "argument --fault: times must be a whole number"),
        ("--fault RCPT=451,times=two", "argument --fault: times must be a whole number"),
        ("--fault RCPT=451,times", "argument --fault: times takes a value"),
        ("--fault RCPT=451,times=2,times=3", "argument --fault: times is there twice"),
        ("--fault RCPT=451,tims=2", "argument --fault: 'tims' is no option: did you mean times?"),
        ("--fault RCPT,dealy=2", "argument --fault: 'dealy' is no option: did you mean delay?"),
        (
            "--fault RCPT,often",
            "argument --fault: options are when, times, delay, trickle, drop, ",
        ),
        ("--fault RCPT,delay=long", "argument --fault: delay must be a number of seconds, not 'l"),
        ("--fault RCPT,delay=-1", "argument --fault: delay must be a finite number"),
        ("--fault RCPT,delay=nan", "argument --fault: delay must be a finite number"),
        ("--fault RCPT,trickle=", "argument --fault: trickle must be a number of seconds, not ''"),
        ("--fault RCPT,drop=soon", "argument --fault: drop must be alone, or one of 'before'"),
        ("--fault RCPT=451,drop=before", "argument --fault: drop=before means"),
        ("--fault RCPT,drop,after=5", "argument --fault: after is for DATA, not for RCPT"),
        ("--fault RCPT,raw", "argument --fault: raw takes octets"),
        ("--fault RCPT=25,raw=yes", "argument --fault: raw takes no value"),
        (
            r"--fault RCPT=25\q,raw",
            r"argument --fault: raw may have \r, \n, \t, \\ and \xHH, not ",
        ),
        ("--fault BDAT=451", "only a server with --offer CHUNKING has it"),
        ("--offer DSN", "--offer may have CHUNKING, BINARYMIME, not DSN; DSN is offered already"),
        ("--offer AUTH", "AUTH is offered with --auth kim:secret"),
        ("--host localhost:25", "did you mean --host localhost and --port 25?"),
        ("--offer BINARYMIME", "of --offer needs CHUNKING: --offer CHUNKING,BINARYMIME"),
        ("--fault LHLO=450", "argument --fault: stage must be one of CONNECT, EHLO, "),
        ("--lmtp --fault EHLO=450", "argument --fault: stage must be one of CONNECT, LHLO, "),
        ("--lmtp --port 25", "--lmtp must not be spoken on port 25"),
        ("--tls ssl", "invalid choice: 'ssl', must be 'starttls' or 'implicit': did you mean im"),
        ("--prot 25", "unrecognized arguments: --prot 25: did you mean --port?"),
        ("--bad", "error: unrecognized arguments: --bad"),
        ("--hide DSN", "unrecognized arguments: --hide DSN"),
        ("2525", "unrecognized arguments: 2525: did you mean --port 2525?"),
        ("--starttls", "unrecognized arguments: --starttls: did you mean --tls starttls?"),
        ("--tls-cert=a.pem", "unrecognized arguments: --tls-cert=a.pem: did you mean --certf"),
        ("--auth_any", "unrecognized arguments: --auth_any: did you mean --auth-any?"),
        (
            "--fault RCPT=451,count=2",
            "argument --fault: 'count' is no option: did you mean times?",
        ),
        (
            "--fault RCPT,tims",
            "options are when, times, delay, trickle, drop, after, raw, not 'tims'",
        ),
        (
            "--fault DATA,drop=instead,after=5",
            "after goes with drop=content or none, not with drop=",
        ),
        ("--auth-any --auth-mechanisms PLAN", "not PLAN: did you mean PLAIN?"),
        ("--tls starttls --ca-file c.pem", "--ca-file needs a --certfile"),
        ("--unix-socket /tmp/s --host x", "--unix-socket takes the place of --host and --port"),
        ("--host=\t7", "--host must be one line of printable text"),
        ("--certfile a.pem --keyfile b.pem", "--certfile needs --tls, starttls or implicit"),
        ("--key-password x", "--key-password needs --tls"),
        ("--client-cert required", "--client-cert needs --tls"),
        ("--minimum-version TLSv1.3", "--minimum-version needs --tls"),
        ("--tls starttls --keyfile b.pem", "--keyfile needs a --certfile"),
        ("--tls starttls --key-password x", "--key-password needs a --certfile"),
        (
            "--tls starttls --client-ca-file c.pem",
            "--client-ca-file needs --client-cert, 'optional' or",
        ),
        ("--tls starttls --client-cert maybe", "argument --client-cert: invalid choice: 'maybe'"),
        (
            "--tls starttls --maximum-version TLSv1.1",
            "argument --maximum-version: invalid choice: 'TLSv1.1', must be 'TLSv1.2' or "
            "'TLSv1.3'; older versions are not offered (RFC 8996)",
        ),
        ("--tls starttls --minimum-version 1.3", "'TLSv1.3': did you mean TLSv1.3?"),
        (
            "--tls starttls --minimum-version TLSv1.3 --maximum-version TLSv1.2",
            "--minimum-version 'TLSv1.3' is above --maximum-version 'TLSv1.2'",
        ),
        (
            "--auth-any --auth-mechanisms EXTERNAL",
            "EXTERNAL of --auth-mechanisms needs a certificate of the client: --client-c",
        ),
        ("--certfile=", "argument --certfile: must not be empty"),
        ("--json --quiet", "argument --quiet: not allowed with argument --json"),
        ("--raw --json", "argument --json: not allowed with argument --raw"),
        ("--quiet -v", "argument --quiet: not allowed with argument --verbose"),
        ("--auth-required", "--auth-required needs --auth, such as --auth kim:secret"),
        ("--maildir=", "argument --maildir: must not be empty"),
        ("--mbox=", "argument --mbox: must not be empty"),
    ],
)
def test_bad_arguments(arguments, why, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split(" "))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, advice = err.splitlines()
    assert error.startswith("lazr-smtptest: error: ")
    assert why in error
    assert_no_python(error)
    assert advice == "see lazr-smtptest --help"


def test_default_is_localhost_9025():
    assert arguments_module._parser().parse_args([]).port == 9025
    assert arguments_module._parser().parse_args([]).host == "localhost"


def test_the_manual_has_all_options():
    page = (DOCS / "command-line.rst").read_text("utf-8")
    actions = arguments_module._parser()._actions
    known = {action.option_strings[-1] for action in actions}
    assert sorted(re.findall(r"^\.\. option:: (?:-\w, )?(\S+)", page, re.M)) == sorted(known)


def test_the_tools_of_these_tests_are_there():
    for name in "bash", "pgrep":
        if shutil.which(name) is None:
            missing(f"the program {name} is not installed")
