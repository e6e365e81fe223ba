"""The command line: what it says about sessions, and of messages as they are read.

The clients are programs, as in shell scripts.
"""

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
import textwrap
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from command_line import COMMAND, ENVIRONMENT, finish, running, send_message, send_octets
from helpers import send
from programs import HEAD, RECIPIENTS, Failed, Programs, installed, missing

SECRET = "wren-and-robin"


def at(port: int) -> SimpleNamespace:
    """Return what `Programs` need to know of a server."""
    return SimpleNamespace(
        host="localhost", port=port, unix_socket=None, server=SimpleNamespace(tls=None)
    )


def ended(process: subprocess.Popen) -> list[str]:
    """End it by Ctrl-C, and return the lines that it has printed since."""
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, err) == (0, "")
    return out.splitlines()


# Each line, as it comes.


def test_lines_are_printed_while_the_session_goes_on():
    with running("--verbose", "--auth", f"kim:{SECRET}") as (process, port):
        with smtplib.SMTP(timeout=10) as client:
            client.connect("localhost", port)  # and nothing has been said yet
            _, host_port = client.sock.getsockname()[:2]
            line = process.stdout.readline()
            assert re.fullmatch(rf"session 1: \S+ port {host_port} has connected\n", line)
            assert re.fullmatch(
                r"session 1 +\d\.\d{3} S 220 localhost .*\n", process.stdout.readline()
            )
            client.docmd("NOOP")
            assert process.stdout.readline().endswith(" C NOOP\n")
            assert process.stdout.readline().endswith(" S 250 2.0.0 OK\n")


def test_a_message_is_printed_amid_its_session_and_secrets_never(programs):
    arguments = ("-v", "--auth", f"kim:{SECRET}", "--auth-mechanisms", "PLAIN,LOGIN")
    with running(*arguments) as (process, port):
        for mechanism in ("PLAIN", "LOGIN"):
            programs.swaks(
                at(port), "--auth", mechanism, "--auth-user", "kim", "--auth-password", SECRET
            )
        lines = ended(process)
    said = [re.sub(r"session (\d) +[\d.]+ ", r"\1 ", line) for line in lines]
    order = [
        "1 C AUTH PLAIN ***",
        "1 S 235 2.7.0 Authentication successful",
        "1 C DATA",
        "------------------------------ message 1 -------------------------------",
        "1 S 250 2.0.0 OK",
        "1 C QUIT",
        "2 C AUTH LOGIN",
        "2 C ***",
        "------------------------------ message 2 -------------------------------",
        "2 C QUIT",
    ]
    places = [said.index(line, 0 if line[0] == "-" else _start(said, line)) for line in order]
    assert places == sorted(places)
    for secret in (SECRET, _base64(SECRET), _base64(f"\0kim\0{SECRET}")):
        assert secret not in "\n".join(lines)
    assert lines[-1] == "2 messages, 2 sessions, 0 failed"


def _start(said: list[str], line: str) -> int:
    """Return where to look: the reply to content, for one, is like others before it."""
    return said.index("1 C DATA") if line == "1 S 250 2.0.0 OK" else 0


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_sessions_at_the_same_time_are_told_apart():
    with running("-v") as (process, port):
        clients = [smtplib.SMTP("localhost", port, timeout=10) for _ in range(3)]
        for number in (2, 0, 1):
            clients[number].docmd("NOOP")
        for client in clients:
            client.quit()
        noops = [line for line in ended(process) if line.endswith(" C NOOP")]
    assert [line[:9] for line in noops] == ["session 3", "session 1", "session 2"]


def test_what_a_client_says_does_nothing_to_a_terminal():
    with running("-v") as (process, port):
        with socket.create_connection(("localhost", port), 10) as client:
            client.sendall(b"\x1b]0;title\x07 \xe2\x80\xae\r\nQUIT\r\n")
            while client.recv(4096):
                pass
        lines = "\n".join(ended(process))
    assert r"C \x1b]0;title\x07 \u202e" in lines
    assert lines.isprintable() or not set(lines) & {"\x1b", "\x07", "\u202e"}


def test_without_verbose_no_line_is_printed():
    with running("--count", "1") as (process, port):
        send_message(port)
        assert not re.search("^session", finish(process)[1], re.MULTILINE)


# Sessions that failed, one line each.


def _wrong_password(programs: Programs, port: int) -> None:
    with pytest.raises(Failed):
        programs.swaks(at(port), "--auth", "PLAIN", "--auth-user", "kim", "--auth-password", "no")


def _sender_refused(programs: Programs, port: int) -> None:
    with pytest.raises(Failed):
        programs.swaks(at(port))


def _recipient_refused(programs: Programs, port: int) -> None:
    with pytest.raises(Failed):
        programs.msmtp(at(port), "--", *RECIPIENTS, given=HEAD + b"x\n\nHello.\n")


def _curl(programs: Programs, port: int) -> None:
    with pytest.raises(Failed):
        programs.curl(at(port), "--upload-file", programs.file(HEAD + b"x\r\n\r\nHello.\r\n"))


def _web_client(programs: Programs, port: int) -> None:
    with pytest.raises(Failed):
        programs.run("curl", "-q", "-sS", "--max-time", "10", f"http://localhost:{port}/")


def _client_that_leaves(_programs: Programs, port: int) -> None:
    with socket.create_connection(("localhost", port), 10) as client:
        client.sendall(b"EHLO client.example\r\n")
        client.recv(4096)


@pytest.mark.parametrize(
    ("arguments", "client", "line"),
    [
        (
            ["--auth", "kim:x"],
            _wrong_password,
            "login failed: 535 5.7.8 Authentication credentials invalid (client.example)",
        ),
        (
            ["--auth-any", "--auth-required"],
            _sender_refused,
            "MAIL FROM:<kim@example.com> refused: 530 5.7.0 Authentication required "
            "(client.example)",
        ),
        (
            ["--fault", "RCPT=550 5.1.1 No such user,when=bcc@*"],
            _recipient_refused,
            "RCPT TO:<bcc@example.com> refused: 550 5.1.1 No such user (client.example)",
        ),
        (
            ["--fault", "EOM=452 4.2.2 Full"],
            _curl,
            "the content refused: 452 4.2.2 Full (client.example)",
        ),
        (["--fault", "EOM,drop"], _curl, "dropped by the server (client.example)"),
        (
            ["--fault", "CONNECT=554 5.3.2 Closed"],
            _curl,
            r"refused: 554 5.3.2 Closed \(\S+ port \d+\)",
        ),
        ([], _client_that_leaves, "dropped by the client (client.example)"),
        (
            [],
            _web_client,
            "an HTTP request: the client takes this for a web server; "
            r"GET / HTTP/1.1 refused: 500 .*",
        ),
    ],
)
def test_a_line_for_a_session_that_failed(
    arguments: list[str], client: Callable[[Programs, int], None], line: str, programs: Programs
):
    with running(*arguments) as (process, port):
        client(programs, port)
        shown = process.stdout.readline()  # when it has ended, and not when all has
        if not line.endswith(("*", r"\)")):
            line = re.escape(line)
        assert re.fullmatch(f"session 1 failed: {line}\n", shown)
        assert ended(process)[-1] == "0 messages, 1 session, 1 failed"


def test_a_client_that_does_not_trust_the_server(programs):
    pytest.importorskip("trustme", reason="trustme is an extra")
    with running("--tls", "starttls") as (process, port):
        process.stdout.readline()  # what clients have to trust
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                client.starttls(context=ssl.create_default_context())
        assert re.match("session 1 failed: TLS failed: .*certificate", process.stdout.readline())


def test_a_client_too_many_has_failed():
    with running("--max-connections", "1") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as first:
            with pytest.raises(smtplib.SMTPConnectError):
                smtplib.SMTP("localhost", port, timeout=10)
            assert re.match(
                "session 2 failed: refused: 421 4.7.0 Error: too many", process.stdout.readline()
            )
            send(first, "hello")
        assert ended(process)[-1] == "1 message, 2 sessions, 1 failed"


def test_who_only_looks_whether_the_port_is_open_has_not_failed():
    with running() as (process, port):
        socket.create_connection(("localhost", port), 10).close()
        with smtplib.SMTP("localhost", port, timeout=10):
            pass  # EHLO is not needed, either
        assert ended(process) == ["0 messages, 2 sessions, 0 failed"]


def test_all_sessions_are_counted_and_checked():
    """And not only the last that the server process keeps."""
    with running("--check") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            client.docmd("MAIL FROM:kim@example.com")
        for _ in range(150):
            with smtplib.SMTP("localhost", port, timeout=10):
                pass
        process.send_signal(signal.SIGINT)
        status, out, err = finish(process)
    assert status == 1
    assert out.splitlines()[-1] == "0 messages, 151 sessions, 0 failed"
    assert err.startswith("lazr-smtptest: session 1: path-without-brackets: ")


def test_a_server_that_dies_amid_a_session_has_lost_no_message():
    if shutil.which("pgrep") is None:
        missing("the program pgrep is not installed")
    with running("-v") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.ehlo()
            found = subprocess.run(
                ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
            )
            os.kill(int(found.stdout), signal.SIGKILL)
            status, _, err = finish(process)
            client.close()
    assert status == 1
    assert "was killed" in err or "SIGKILL" in err
    assert "accepted message" not in err


# For programs.


def test_json_has_sessions_and_their_problems(programs):
    with running("--json", "--fault", "RCPT=451 4.7.1 Later,times=2", announced="stderr") as (
        process,
        port,
    ):
        with pytest.raises(Failed):
            programs.swaks(at(port))
        with smtplib.SMTP("localhost", port, "client.example", timeout=10) as client:
            client.ehlo()
            client.docmd("MAIL FROM:kim@example.com")
            client.docmd("RCPT TO:<lee@example.com>")
            client.data(HEAD + b"x\r\n\r\nHello.\r\n")
        objects = [json.loads(line) for line in ended(process)]
    assert [one["kind"] for one in objects] == ["session", "message", "session"]
    first, message, second = objects
    assert first.pop("connected_at").endswith("+00:00")
    assert first.pop("peer")[0] in ("127.0.0.1", "::1")
    assert first == {
        "kind": "session",
        "session": 1,
        "helo": "client.example",
        "tls": None,
        "client_cert_subject": None,
        "auth_user": None,
        "failed_logins": 0,
        "messages": [],
        "ended": "QUIT",
        "failure": "RCPT TO:<lee@example.com> refused: 451 4.7.1 Later; 1 more refused",
        "problems": [],
    }
    assert second["messages"] == [message["sequence"]]
    assert second["failure"] is None
    (problem,) = second["problems"]
    assert (problem["code"], problem["level"]) == ("path-without-brackets", "error")


def test_json_has_lines_if_asked():
    with running("--json", "-v", announced="stderr") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10):
            line = json.loads(process.stdout.readline())
            assert line.pop("at") >= 0
            assert line.pop("text").startswith("220 localhost ")
            assert line == {"kind": "line", "session": 1, "speaker": "S"}
        objects = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert ended(process) == []
    assert [(one["kind"], one.get("text")) for one in objects] == [
        ("line", "QUIT"),
        ("line", "221 2.0.0 Bye"),
        ("session", None),
    ]


def test_a_session_that_is_open_in_the_end():
    with running("--json", announced="stderr") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            client.docmd("NOOP")
            (session,) = map(json.loads, ended(process))
            client.close()
    assert (session["ended"], session["failure"]) == ("open", None)


# Messages as they are read.

HTML = "<head><title>x</title></head><p>Pay <b>now</b>:</p><a href='https://example.com/1'>Pay</a>"


def shown(octets: bytes, *arguments: str) -> str:
    """Return what is printed of a message, but for what is above it, and its problems."""
    with running("--count", "1", *arguments) as (process, port):
        send_octets(port, octets)
        status, out, err = finish(process)
    assert (status, err) == (0, "")
    return re.sub(
        "^(session 1: )?(error|advice): .*\n", "", out.split("\n\n", 1)[1], flags=re.MULTILINE
    )


def test_html_alone_is_shown_by_its_words():
    octets = HEAD + b"x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + HTML.encode()
    text = shown(octets).partition("\n\n")[2]
    assert text.startswith(f"Pay now:\nPay\nHTML: {len(HTML) + 1} octets, 1 link\n\n")


def test_html_beside_text_is_a_line():
    two = HTML.replace("</a>", "ä</a> <a href='https://example.com/2'>Later</a>")
    octets = (
        f"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        f"--b\r\n\r\nPay now.\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n\r\n{two}\r\n--b--\r\n"
    ).encode()
    text = shown(octets).partition("\n\n")[2]
    assert text.startswith(f"Pay now.\nHTML: {len(two.encode())} octets, 2 links\n\n")


def test_raw_shows_the_source():
    octets = (
        b"Subject: =?utf-8?q?B=C3=A4ume?=\r\n folded\r\nContent-Type: text/html\r\n\r\n"
        b"<p>B\xc3\xa4ume</p>=20\r\n\x1b[31m \xe4 \r x\r\n"
    )
    assert shown(octets, "--raw") == (
        "Subject: =?utf-8?q?B=C3=A4ume?=\n folded\nContent-Type: text/html\n\n"
        "<p>Bäume</p>=20\n\\x1b[31m \\xe4 \\r x\n\n1 message, 1 session, 0 failed\n"
    )


def test_a_message_that_is_empty():
    assert shown(b"") == "\n1 message, 1 session, 0 failed\n"
    assert shown(b"", "--raw") == "\n\n1 message, 1 session, 0 failed\n"


# In a shell script.


def test_a_client_can_say_goodbye():
    """When enough messages have come, too: else swaks would fail now and then."""
    with running("--count", "1") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            send(client, "hello")
            while process.stdout.readline() != "Hello.\n":
                pass
            for _ in range(100):
                assert client.noop()[0] == 250
            assert client.quit()[0] == 221
        assert finish(process)[::2] == (0, "")


def test_a_client_that_does_not_say_goodbye():
    with running("--count", "1", "--json", announced="stderr") as (process, port):
        with smtplib.SMTP("localhost", port, timeout=10) as client:
            send(client, "one")
            send(client, "two")  # there is time, and what is accepted is printed
            status, out, err = finish(process)
            client.close()
    assert (status, err) == (0, "")
    *messages, session = map(json.loads, out.splitlines())
    assert [one["subject"] for one in messages] == ["one", "two"]
    assert (session["ended"], session["messages"]) == ("open", [1, 2])


def test_a_program_that_tries_again(tmp_path):
    """Refused twice and then accepted, which the log tells."""
    swaks, bash = installed("swaks"), installed("bash")
    script = textwrap.dedent(f"""
        set -euo pipefail
        {" ".join(COMMAND)} --port 0 --count 1 --timeout 60 \\
            --fault 'RCPT=451 4.7.1 Later,times=2' >log &
        sink=$!
        until read -r _ _ host _ port <log; do sleep 0.01; done
        tries=1
        until {swaks} --server "$host" --port "$port" --to lee@example.com \\
            --from kim@example.com --helo client.example >/dev/null; do (( ++tries < 9 )); done
        wait "$sink"
        echo "$tries tries"
        grep -c '^session . failed: RCPT TO:<lee@example.com> refused: 451 4.7.1 Later' log
        tail -n 1 log
    """)
    done = subprocess.run(
        [bash, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
        env={**ENVIRONMENT, "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (
        0,
        "3 tries\n2\n1 message, 3 sessions, 2 failed\n",
    ), done.stderr
