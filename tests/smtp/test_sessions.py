"""What is told of sessions: all that was said, and nothing that is secret."""

from __future__ import annotations

import base64
import hmac
import os
import pickle
import re
import signal
import smtplib
import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest
from auth_client import b64, xoauth2
from helpers import EVENT_LOOPS, LOGIN, connected, fresh, loop_name, send, send_to, until
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import Controller, NotRunning, QueueController, Server, ServerDied
from lazr_smtptest._parent.describe import session_lines
from lazr_smtptest.sessions import Line, Session

USER, PASSWORD = LOGIN
TEXT = "what only the recipient may read"


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def shared(request):
    with QueueController("localhost", auth=dict([LOGIN]), uvloop=request.param) as controller:
        yield controller


@pytest.fixture
def server(shared):
    return fresh(shared)


@pytest.fixture(params=["quick", "slow"])
def way(request, server):
    """Both ways of taking commands: a fault that never strikes takes the slow one."""
    if request.param == "slow":
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    return request.param


def dialogue(session: Session) -> list[str]:
    return [f"{line.speaker} {line.text}" for line in session.dialogue]


def only(controller) -> Session:
    (session,) = controller.sessions()
    return session


def ended(controller, count: int = 1) -> list[Session]:
    """Wait until so many sessions have ended; give all."""
    until(lambda: sum(s.ended != "open" for s in controller.sessions()) >= count)
    return controller.sessions()


# What there is.


def test_none(server):
    assert server.sessions() == []


def test_a_whole_session(server, way):
    before = datetime.now(timezone.utc)
    with Wire(server) as wire:
        wire.reply()
        for line in (b"EHLO client.example", *MESSAGE, CONTENT, b"QUIT"):
            wire.say(line)
        me = wire.sock.getsockname()
        # The end of the connection, which comes after it was noted.
        assert wire.reply() == b""
    session = only(server)
    assert session.peer == me
    assert before - timedelta(seconds=1) <= session.connected_at <= datetime.now(timezone.utc)
    assert session.connected_at.utcoffset() == timedelta(0)
    assert session.helo == "client.example"
    assert (session.tls, session.cipher, session.auth_user) == (None, None, None)
    assert session.failed_logins == 0
    assert session.messages == (server.queue.get_nowait().envelope.sequence,)
    assert session.ended == "QUIT"
    assert re.fullmatch(r"S 220 localhost .*", dialogue(session)[0])
    assert dialogue(session)[1:] == [
        "C EHLO client.example",
        "S 250-localhost",
        "S 250-SIZE 33554432",
        "S 250-8BITMIME",
        "S 250-SMTPUTF8",
        "S 250-AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2",
        "S 250-PIPELINING",
        "S 250-ENHANCEDSTATUSCODES",
        "S 250-DSN",
        "S 250 HELP",
        "C MAIL FROM:<kim@example.com>",
        "S 250 2.1.0 OK",
        "C RCPT TO:<lee@example.com>",
        "S 250 2.1.5 OK",
        "C DATA",
        "S 354 End data with <CR><LF>.<CR><LF>",
        "* 25 octets of content",
        "S 250 2.0.0 OK",
        "C QUIT",
        "S 221 2.0.0 Bye",
    ]


def test_times(server, way):
    server.fault("RSET", delay=0.05)
    with connected(server) as client:
        for number in range(10):
            send(client, number)
            client.rset()
    (session,) = ended(server)
    times = [line.at for line in session.dialogue]
    assert times == sorted(times)
    assert times[0] >= 0
    assert 0.05 < times[-1] < 20


def test_what_is_wrong_is_taken_down_too(server, way):
    with greeted(server) as wire:
        wire.say(b"FOO bar", b"", b"MAIL FROM:kim", b"RCPT TO:<lee@example.com>", b"H\xe9LO \xff")
    (session,) = ended(server)
    said = [line.text for line in session.dialogue if line.speaker == "C"]
    assert said == [
        "EHLO client.example",
        "FOO bar",
        "",
        "MAIL FROM:kim",
        "RCPT TO:<lee@example.com>",
        "H\\xe9LO \\xff",
    ]
    codes = [line.text[:3] for line in session.dialogue if line.speaker == "S"][-5:]
    assert codes[0] == codes[1] == codes[4] == "500"
    assert codes[3] in ("503", "250")


def test_pipelined_commands(server, way):
    with greeted(server) as wire:
        wire.sock.sendall(b"\r\n".join([*MESSAGE, CONTENT, b"NOOP", b"QUIT", b""]))
        codes = [wire.reply()[:3].decode() for _ in range(6)]
        assert wire.reply() == b""
    session = only(server)
    tail = dialogue(session)[dialogue(session).index("S 250 HELP") + 1 :]
    assert [line[2:] for line in tail if line[0] == "C"] == [
        *(line.decode() for line in MESSAGE),
        "NOOP",
        "QUIT",
    ]
    assert [line[2:5] for line in tail if line[0] == "S"] == codes
    assert tail.index("* 25 octets of content") < tail.index("C NOOP")


def test_helo_and_another_name(server):
    with Wire(server) as wire:
        wire.reply()
        assert only(server).helo is None
        for line, name in (
            (b"EHLO", None),
            (b"HELO one.example", "one.example"),
            (b"EHLO two.example", "two.example"),
            (b"EHLO", "two.example"),
            (b"RSET", "two.example"),
        ):
            wire.say(line)
            assert only(server).helo == name


def test_tls():
    with QueueController(tls="starttls", auth=dict([LOGIN])) as controller:
        with connected(controller) as client:
            client.ehlo()
            before = only(controller)
            client.starttls(context=controller.client_context())
            between = only(controller)
            client.login(*LOGIN)
            send(client, "hello")
            version, cipher = client.sock.version(), client.sock.cipher()[0]
        session = ended(controller)[0]
        assert (before.tls, before.cipher, before.helo) == (None, None, "client.example")
        assert (between.tls, between.cipher, between.helo) == (version, cipher, None)
        assert (session.tls, session.cipher, session.helo) == (version, cipher, "client.example")
        assert session.auth_user == USER
        assert session.ended == "QUIT"
        text = dialogue(session)
        at = text.index("C STARTTLS")
        assert text[at + 1] == "S 220 2.0.0 Ready to start TLS"
        assert text[at + 2] == f"* {version} with {cipher}"
        assert text[at + 3] == "C ehlo client.example"


def test_implicit_tls():
    with QueueController(tls="implicit") as controller:
        with smtplib.SMTP_SSL(
            controller.host, controller.port, "x", context=controller.client_context()
        ) as client:
            send(client, "hello")
            version = client.sock.version()
        session = ended(controller)[0]
        assert session.tls == version
        assert session.ended == "QUIT"
        assert len(session.messages) == 1


def test_messages_are_sequence_numbers(server, way):
    def client(name: int) -> None:
        with smtplib.SMTP(server.host, server.port, f"{name}.example", timeout=10) as smtp:
            for number in range(5):
                send(smtp, f"{name} {number}")

    threads = [threading.Thread(target=client, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_name: dict = {}
    for message in server:
        by_name.setdefault(message.envelope.helo, []).append(message.envelope.sequence)
    sessions = ended(server, 4)
    assert {s.helo: list(s.messages) for s in sessions} == by_name
    assert sorted(n for numbers in by_name.values() for n in numbers) == sorted(
        n for s in sessions for n in s.messages
    )


def test_a_refused_message(server):
    server.fault("EOM", "452 4.3.1 Full", times=1)
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 452]
        assert only(server).messages == ()
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
        assert len(only(server).messages) == 1


# How it ended.


def test_open(server):
    with greeted(server):
        assert only(server).ended == "open"


@pytest.mark.parametrize(
    "after", [b"", b"EHLO x\r\n", b"EHLO x", b"EHLO x\r\nMAIL FROM:<a@b.c>\r\n"]
)
def test_dropped_by_the_client(server, after):
    with Wire(server) as wire:
        wire.reply()
        wire.sock.sendall(after)
    assert ended(server)[0].ended == "dropped by the client"


def test_dropped_by_the_client_in_the_midst_of_content(server, way):
    with greeted(server) as wire:
        wire.say(*MESSAGE)
        wire.sock.sendall(b"Subject: half")
    assert ended(server)[0].ended == "dropped by the client"
    assert server.queue.qsize() == 0


def test_a_reset_of_the_connection(server):
    with greeted(server) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ended(server)[0].ended == "dropped by the client"


def test_a_client_that_says_no_more_but_listens(server):
    with greeted(server) as wire:
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.reply() == b""
    assert ended(server)[0].ended == "dropped by the client"


def test_dropped_by_the_server(server):
    server.fault("NOOP", "421 4.3.2 Closing")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP") == [421]
        assert wire.reply() == b""
    assert only(server).ended == "dropped by the server"


def test_too_many_unknown_commands(server):
    """aiosmtpd hangs up on those."""
    with greeted(server) as wire:
        for _ in range(20):
            if wire.say(b"FOO").startswith(b"502"):
                break
        assert wire.reply() == b""
    assert only(server).ended == "dropped by the server"


def test_quit_with_an_argument(server):
    """It can mean nothing else, and servers end the session."""
    with greeted(server) as wire:
        assert wire.codes(b"QUIT now") == [221]
        assert wire.reply() == b""
    assert ended(server)[0].ended == "QUIT"


def test_a_connection_without_a_word(server):
    with socket.create_connection((server.host, server.port), 10):
        session = until(server.sessions)[0]
        assert session.helo is None
        assert session.ended == "open"
    (session,) = ended(server)
    assert session.ended == "dropped by the client"
    assert all(line.speaker == "S" for line in session.dialogue)


def test_connections_that_are_closed_at_once(server):
    """The end may be there before the session has begun."""
    for _ in range(10):
        for _ in range(50):
            socket.create_connection((server.host, server.port), 10).close()
        with connected(server) as client:  # by then all of them are accepted
            client.noop()
        until(lambda: not any(s.ended == "open" for s in server.sessions()), 5)
    assert {s.ended for s in server.sessions() if not s.helo and len(s.dialogue) < 3} == {
        "dropped by the client"
    }


# What is no text.


CLIENT_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(range(40, 120))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_client_that_speaks_tls_at_once(server, end):
    with socket.create_connection((server.host, server.port), 10) as sock:
        sock.recv(1000)
        sock.sendall(CLIENT_HELLO + end)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass
    (session,) = ended(server)
    (remark,) = [line.text for line in session.dialogue if line.speaker == "*"]
    assert remark == (
        "TLS ClientHello: the client speaks TLS at once, "
        "and this server was not made with tls='implicit'"
    )
    assert not any(line.speaker == "C" for line in session.dialogue)
    assert any(line.endswith(f"* {remark}") for line in session_lines(session))


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"\0\0\0\0", [("*", "octets that are no text: 4, all of them NUL")]),
        (b"\0" * 3000 + b"abc", [("*", "octets that are no text: 3003, 3000 of them NUL")]),
        (b"\x01\x02\x03\x04ab", [("*", "octets that are no text: 6")]),
        (
            b"GET / HTTP/1.1",
            [
                ("C", "GET / HTTP/1.1"),
                ("*", "an HTTP request: the client takes this for a web server"),
            ],
        ),
        (b"NOOP gr\xc3\xbcn", [("C", "NOOP grün")]),
        (b"NOOP \0", [("C", "NOOP \0")]),
    ],
)
def test_binary_is_named(server, octets, lines):
    with greeted(server) as wire:
        wire.say(octets)
        said = [(line.speaker, line.text) for line in only(server).dialogue if line.speaker != "S"]
    assert said[1:] == lines


def test_the_beginning_of_a_secret_is_not_shown(server):
    with greeted(server) as wire:
        wire.sock.sendall(b"AUTH PLAIN AGtpbQBzM2NyZXQ")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.reply() == b""
    assert "AGtpb" not in str(ended(server)[0])


# How much is kept.


def test_order_and_how_many(server):
    with Wire(server) as first:
        first.reply()
        for number in range(120):
            with Wire(server) as wire:
                wire.reply()
                assert wire.codes(f"HELO {number}.example".encode(), b"QUIT") == [250, 221]
                assert wire.reply() == b""
        with Wire(server) as last:
            last.reply()
            until(lambda: [s.ended for s in server.sessions()].count("open") == 2)
            sessions = server.sessions()
    assert [s.ended for s in sessions] == ["open"] + ["QUIT"] * 100 + ["open"]
    assert [s.helo for s in sessions[1:-1]] == [f"{n}.example" for n in range(20, 120)]
    times = [s.connected_at for s in sessions]
    assert times == sorted(times)


def test_a_long_session_is_cut(server, way):
    """10,000 commands; the last are kept, whole, and in order."""
    with greeted(server) as wire:
        for _ in range(10):
            wire.sock.sendall(b"".join(b"VRFY n%d\r\n" % n for n in range(1000)))
            for _ in range(1000):
                wire.reply()
        session = only(server)
    said = [line.text for line in session.dialogue if line.speaker == "C"]
    assert said == [f"VRFY n{n}" for n in range(1000 - len(said), 1000)]
    assert len(pickle.dumps(session)) < 100_000
    # "The last 100 exchanges": a command and its reply are one.
    assert len(said) == 100
    assert len(session.dialogue) == 200


def test_a_long_session_of_messages_is_cut(server, way):
    with connected(server) as client:
        for number in range(250):
            send(client, number)
    (session,) = ended(server)
    sequence = [message.envelope.sequence for message in server]
    assert list(session.messages) == sequence[-100:]
    assert len(session.dialogue) <= 500
    assert dialogue(session)[-2:] == ["C QUIT", "S 221 2.0.0 Bye"]


def test_a_long_pipelined_session_is_cut(server, way):
    """However many commands come in one packet."""
    batch = MESSAGE[0] + b"\r\n" + (MESSAGE[1] + b"\r\n") * 900 + b"RSET\r\n"
    with greeted(server) as wire:
        for _ in range(30):
            wire.sock.sendall(batch)
            for _ in range(902):
                wire.reply()
        session = only(server)
    assert len(pickle.dumps(session)) < 1_000_000
    assert len(session.dialogue) < 20_000


def test_long_lines_are_cut(server):
    server.fault("NOOP", "250 " + "y" * 5000)
    with greeted(server) as wire:
        wire.say(b"VRFY <" + b"x" * 400 + b">")
        wire.say(b"NOOP")
        wire.say(b"VRFY " + b"z" * 30_000)
    (session,) = ended(server)
    assert max(len(line.text) for line in session.dialogue) == 1000
    assert "C VRFY <" + "x" * 400 + ">" in dialogue(session)
    assert "S 250 " + "y" * 996 in dialogue(session)
    assert "* a line that is too long" in dialogue(session)
    assert "zz" not in str(session)


# What is left out.


@pytest.mark.parametrize("cut", [None, 1, 5, 40, 70])
def test_content_is_left_out(server, way, cut):
    content = f"Subject: {TEXT}\r\n\r\n..{TEXT}\r\nMAIL FROM:<x@y.z>\r\n.\r\n".encode()
    with greeted(server) as wire:
        if cut is None:
            wire.sock.sendall(b"\r\n".join([*MESSAGE, content + b"NOOP", b""]))
            assert [wire.reply()[:3] for _ in range(5)] == [b"250", b"250", b"354", b"250", b"250"]
        else:
            wire.say(*MESSAGE)
            wire.sock.sendall(content[:cut])
            with connected(server) as client:
                client.noop()  # by then that much is read
            assert wire.say(content[cut:-2])[:3] == b"250"
    sessions = ended(server)
    assert TEXT not in str(sessions)
    assert "x@y.z" not in str(sessions)
    assert f"* {len(content) - 3} octets of content" in dialogue(sessions[0])


def test_content_that_is_refused_is_left_out(way, server):
    with QueueController(data_size_limit=200) as controller:
        if way == "slow":
            controller.fault("NOOP", "450 4.0.0 No", when="nobody")
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE, f"Subject: {TEXT}\r\n{TEXT * 30}\r\n.".encode())[-1] == 552
        session = ended(controller)[0]
        assert TEXT not in str(session)
        assert session.messages == ()


def hidden(session: Session, *more: bytes) -> None:
    """See to it that no secret is in what is told of a session."""
    text = str(session)
    for secret in (PASSWORD, "wrong", "wrong-and-robin"):
        plain = b64(f"\0{USER}\0{secret}")
        for form in (secret.encode(), b64(secret), plain, plain[:12], *more):
            assert form.decode() not in text, form


def cram(challenge: bytes, password: str) -> bytes:
    digest = hmac.new(password.encode(), base64.b64decode(challenge[4:]), "md5").hexdigest()
    return b64(f"{USER} {digest}")


#: What is masked of AUTH's line itself; "=" stands for an initial response.
INITIAL = {"PLAIN=": " ***", "LOGIN=": " ***", "XOAUTH2": " ***"}


@pytest.mark.parametrize("password", [PASSWORD, "wrong-and-robin"])
@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "PLAIN=", "LOGIN", "LOGIN=", "CRAM-MD5", "XOAUTH2"]
)
def test_secrets_are_left_out(server, way, mechanism, password):
    secrets = []
    with greeted(server) as wire:
        if mechanism == "PLAIN":
            answer = wire.say(b"AUTH PLAIN", b64(f"\0{USER}\0{password}"))
        elif mechanism == "PLAIN=":
            answer = wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0{password}"))
        elif mechanism == "LOGIN":
            answer = wire.say(b"AUTH LOGIN", b64(USER), b64(password))
        elif mechanism == "LOGIN=":
            answer = wire.say(b"AUTH LOGIN " + b64(USER), b64(password))
        elif mechanism == "CRAM-MD5":
            secrets.append(cram(wire.say(b"AUTH CRAM-MD5"), password))
            answer = wire.say(secrets[0])
        else:
            secrets.append(xoauth2(USER, password))
            answer = wire.say(b"AUTH XOAUTH2 " + secrets[0])
            if answer.startswith(b"334"):
                answer = wire.say(b"")
        right = password == PASSWORD
        assert answer[:3] == (b"235" if right else b"535")
        session = only(server)
        # Somebody who reads it has to see what came first.
        assert dialogue(session)[-1] == f"S {answer.decode().strip()}"
    hidden(session, *secrets)
    assert session.auth_user == (USER if right else None)
    assert session.failed_logins == (not right)
    begins = [line for line in dialogue(session) if line.startswith("C AUTH")]
    assert begins == [f"C AUTH {mechanism.rstrip('=')}{INITIAL.get(mechanism, '')}"]


def test_failed_logins_are_counted(server):
    with greeted(server) as wire:
        for number in range(3):
            assert wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0wrong")).startswith(b"535")
            assert only(server).failed_logins == number + 1
        assert wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}")).startswith(b"235")
        session = only(server)
    assert (session.failed_logins, session.auth_user) == (3, USER)
    hidden(session)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"])
@pytest.mark.parametrize("answer", [b"*", b"not base64 but wrong-and-robin"])
def test_a_cancelled_login(server, way, mechanism, answer):
    with greeted(server) as wire:
        assert wire.say(b"AUTH " + mechanism.encode()).startswith(b"334")
        reply = wire.say(answer)
        assert reply.startswith(b"501")
        assert wire.codes(b"NOOP") == [250]
        session = only(server)
    hidden(session)
    assert session.auth_user is None
    text = dialogue(session)
    # First what was said, and then the reply to it.
    at = text.index(f"S {reply.decode().strip()}")
    assert text[at - 1] == ("C *" if answer == b"*" else "C ***")
    assert text[at + 1 :] == ["C NOOP", "S 250 2.0.0 OK"]


@pytest.mark.parametrize(
    "line",
    [
        b"AUTH PLAIN %s",
        b"auth plain %s",
        b"Auth Plain %s",
        b"AUTH  PLAIN %s",
        b"AUTH PLAIN  %s",
        b"AUTH PLAIN %s ",
        b"AUTH PLAIN %s more",
        b"AUTH FOO %s",
        b"AUTH\tPLAIN %s",
        b"AUTH\tPLAIN\t%s",
        b"AUTH PLAIN\t%s",
        b" AUTH PLAIN %s",
        b"\tAUTH PLAIN %s",
        b"AUTH %s",
        b"AUTH=PLAIN %s",
        b"AUTH PLAIN %s\r",
    ],
)
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_malformed_lines(server, way, line, password):
    with greeted(server) as wire:
        wire.say(line % b64(f"\0{USER}\0{password}"))
        session = only(server)
    hidden(session)


@pytest.mark.parametrize("where", ["before EHLO", "after HELO", "logged in", "refused", "no AUTH"])
def test_secrets_where_auth_is_not_to_be_had(server, where):
    secret = b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}")
    with QueueController(auth=None if where == "no AUTH" else dict([LOGIN])) as controller:
        if where == "refused":
            controller.fault("CONNECT", "554 5.7.1 No")
        with Wire(controller) as wire:
            wire.reply()
            if where == "after HELO":
                wire.say(b"HELO x")
            elif where != "before EHLO":
                wire.say(b"EHLO x")
            if where == "logged in":
                assert wire.say(secret).startswith(b"235")
            assert wire.say(secret)[:1] == b"5"
            session = only(controller)
    hidden(session)


def test_secrets_that_a_fault_refuses(server):
    server.fault("AUTH", "454 4.7.0 Later")
    with greeted(server) as wire:
        wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}"))
        session = only(server)
    hidden(session)
    assert (session.auth_user, session.failed_logins) == (None, 0)


def test_a_login_that_a_fault_refuses_has_failed(server):
    server.fault("AUTH", "535 5.7.8 No", times=1)
    with greeted(server) as wire:
        wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0{PASSWORD}"))
        assert only(server).failed_logins == 1


def test_pipelined_secrets(server, way):
    """Which no client ought to send so, but one that does has secrets, too."""
    with greeted(server) as wire:
        lines = [
            b"NOOP",
            b"AUTH PLAIN " + b64(f"\0{USER}\0wrong"),
            b"AUTH LOGIN",
            b64(USER),
            b64("wrong"),
            b"AUTH PLAIN",
            b64(f"\0{USER}\0{PASSWORD}"),
            *MESSAGE,
            CONTENT,
            b"NOOP",
        ]
        wire.sock.sendall(b"\r\n".join([*lines, b""]))
        replies = [wire.reply()[:3].decode() for _ in lines]
        assert replies == "250 535 334 334 535 334 235 250 250 354 250 250".split()
        session = only(server)
    hidden(session)
    assert (session.auth_user, session.failed_logins) == (USER, 2)
    assert [line.text[:3] for line in session.dialogue if line.speaker == "S"][-12:] == replies


def test_the_rest_of_a_secret_that_is_too_long(server):
    with greeted(server) as wire:
        wire.sock.sendall(b"AUTH XOAUTH2 " + b"A" * 20_000)
        with connected(server) as client:
            client.noop()  # by then that much is read
        assert wire.say(b64(PASSWORD)).startswith(b"500")
        session = server.sessions()[0]
    hidden(session)
    assert "AAAA" not in str(session)


def test_mail_that_is_no_answer_to_a_challenge(server, way):
    """A challenge is answered by the next line, and by no other."""
    with greeted(server) as wire:
        assert wire.codes(b"AUTH LOGIN", MESSAGE[0]) == [334, 501]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]


# Forgetting, and taking along.


@pytest.mark.parametrize("how", ["QUIT", "421"])
def test_reset_forgets_what_is_over_though_the_client_has_not_closed_its_end(server, how):
    with greeted(server) as wire:
        if how == "421":
            server.fault("NOOP", "421 4.3.2 Closing")
        assert wire.say(b"QUIT" if how == "QUIT" else b"NOOP")[:3] in (b"221", b"421")
        until(lambda: [one.ended for one in server.sessions()] != ["open"])
        server.reset()
        assert (server.sessions(), server.connections) == ([], 0)


def test_reset_forgets(server):
    with greeted(server) as wire:
        wire.say(b"AUTH PLAIN " + b64(f"\0{USER}\0wrong"), *MESSAGE, CONTENT)
        send_to(server, "other")
        ended(server)
        server.reset()
        session = only(server)
        assert session.helo == "client.example"
        assert (session.messages, session.dialogue, session.failed_logins) == ((), (), 0)
        assert session.ended == "open"
        wire.say(b"NOOP")
        assert dialogue(only(server)) == ["C NOOP", "S 250 2.0.0 OK"]
        wire.say(*MESSAGE, CONTENT)
        assert only(server).messages == (server.queue.get_nowait().envelope.sequence,)
    ended(server)
    server.reset()
    assert server.sessions() == []


def test_pickling(server):
    send_to(server, "hello")
    (session,) = ended(server)
    again = pickle.loads(pickle.dumps(session))
    assert again == session
    assert type(again) is Session
    assert type(again.dialogue[0]) is Line


def test_what_was_told_does_not_change(server):
    with greeted(server) as wire:
        before = only(server)
        copy = pickle.loads(pickle.dumps(before))
        wire.say(b"NOOP")
        assert before == copy
        assert only(server) != before


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (Line(0.0, "S", "220 hello"), "   0.000 S 220 hello"),
        (Line(1.23456, "C", "QUIT"), "   1.235 C QUIT"),
        (Line(12345.6, "*", "3 octets of content"), "12345.600 * 3 octets of content"),
    ],
)
def test_str_of_a_line(line, text):
    assert str(line) == text


def test_without_a_server():
    controller = Controller(Server())
    with pytest.raises(NotRunning, match=r"sessions\(\)"):
        controller.sessions()
    with controller:
        assert controller.sessions() == []
        with connected(controller) as client:
            send(client, "hello")
        assert ended(controller)[0].messages == (1,)
    assert controller.sessions()[0].messages == (1,)
    with controller:
        assert controller.sessions() == []
    assert controller.sessions() == []


# When the server has been stopped.


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def stopping(request):
    return QueueController("localhost", uvloop=request.param)


def test_they_survive_the_server(stopping):
    stopping.start()
    with Wire(stopping) as wire:
        send_to(stopping, "hello")
        wire.reply()
        assert wire.say(b"EHLO x", b"MAIL FROM:kim@example.com").startswith(b"250")
        running = stopping.sessions()
        stopping.stop()
    stopped = stopping.sessions()
    assert [session.ended for session in stopped] == ["dropped by the server", "QUIT"]
    assert [session._replace(ended="open") for session in stopped[:1]] == running[:1]
    assert [problem.code for problem in stopped[0].problems] == ["path-without-brackets"]
    assert "C QUIT" in dialogue(stopped[1])
    stopping.stop()
    assert stopping.sessions() == stopped
    assert pickle.loads(pickle.dumps(stopped)) == stopped


def test_what_was_before_a_reset_is_forgotten_after_the_stop_too(stopping):
    with stopping:
        send_to(stopping, "hello")
        ended(stopping)
        stopping.reset()
    assert stopping.sessions() == []


def test_many_long_ones_survive(stopping):
    with stopping:
        for _ in range(20):
            with greeted(stopping) as wire:
                wire.sock.sendall(
                    b"VRFY <" + b"x" * 400 + b">\r\n" + b"HELP\r\n" * 300 + b"QUIT\r\n"
                )
                while wire.reply():
                    pass
    assert [session.ended for session in stopping.sessions()] == ["QUIT"] * 20


def test_of_a_process_that_was_killed_they_are_not_known(stopping):
    stopping.start()
    send_to(stopping, "hello")
    os.kill(stopping.pid, signal.SIGKILL)
    stopping.stop()
    for _ in range(2):
        with pytest.raises(ServerDied, match="SIGKILL.*what clients did is not known") as caught:
            stopping.sessions()
        assert caught.value.exitcode == -signal.SIGKILL
    with stopping:
        assert stopping.sessions() == []
    assert stopping.sessions() == []


class Exiting(Server):
    def handle_message(self, message):
        raise SystemExit(7)


def test_of_a_process_that_a_handler_has_ended_they_are_known():
    controller = Controller(Exiting())
    controller.start()
    with greeted(controller) as wire:
        assert wire.say(*MESSAGE, CONTENT) == b""
    with pytest.raises(ServerDied):
        controller.stop()
    (session,) = controller.sessions()
    assert (session.ended, session.messages) == ("dropped by the server", (1,))
