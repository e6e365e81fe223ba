"""What is wrong with what clients said, by name: each code, and what just has it not."""

from __future__ import annotations

import base64
import smtplib
import socket
from collections.abc import Iterator

import pytest
from helpers import LOGIN, connected, fresh, send_to, until
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from raw_client import CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import QueueController
from lazr_smtptest.sessions import SESSION_CODES, Line, Session

many = tries(400)


@pytest.fixture
def server(each_loop: QueueController) -> QueueController:
    return fresh(each_loop)


@pytest.fixture(scope="module")
def bare() -> Iterator[QueueController]:
    """A server without TLS, AUTH and PIPELINING."""
    with QueueController("127.0.0.1", hide=["PIPELINING"], line_length_limit=5000) as controller:
        yield controller


def codes(server: QueueController) -> list[str]:
    """Give the codes of the only session, when it has ended."""
    (session,) = until(lambda: [s for s in server.sessions() if s.ended != "open"])
    assert all(p.level == SESSION_CODES.get(p.code, ("error",))[0] for p in session.problems)
    return [problem.code for problem in session.problems]


def said(server: QueueController, *lines: bytes) -> list[str]:
    with greeted(server) as wire:
        for line in lines:
            wire.say(line)
        wire.say(b"QUIT")
    return codes(server)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("<kim@b.example>", []),
        ("kim@b.example", ["path-without-brackets"]),
        ("<=?utf-8?q?j=C3=B6rg?=@b.example>", ["encoded-word-in-path"]),
        ("<j=?rg@b.example>", []),
        ("<bounce=?x?=y@b.example>", []),
        ("<kim\x01lee@b.example>", ["control-character-in-path"]),
        ('<"kim lee"@b.example>', []),
        ('<"kim<lee>"@b.example>', []),
        ("<@relay.example:kim@b.example>", []),
        ("<kim@[192.0.2.1]>", []),
        ("<postmaster>", []),
        ("<kim>", ["path-odd"]),
        ("<kim.@b.example>", ["path-odd"]),
        ("<kim..lee@b.example>", ["path-odd"]),
        ("<kim@b_c.example>", ["path-odd"]),
        ("<kim@b.example.>", ["path-odd"]),
        ("<" + "l" * 64 + "@b.example>", []),
        ("<" + "l" * 65 + "@b.example>", ["path-odd"]),
    ],
)
def test_paths(bare, path, expected):
    server = fresh(bare)
    assert said(server, MESSAGE[0], f"RCPT TO:{path}".encode()) == expected
    assert said(fresh(server), f"MAIL FROM:{path}".encode()) == expected


def test_the_null_path_is_none_of_them(bare):
    assert said(fresh(bare), b"MAIL FROM:<>", MESSAGE[1]) == []


def test_correct_mail_has_none(bare):
    server = fresh(bare)
    send_to(server, "one", "two")
    assert codes(server) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Subject: x\r\n\r\nHello.\r\n", []),
        (b"Subject: x\r\n\r\nHello.\nKim\r\n", ["bare-lf"]),
        (b"Subject: x\r\n\r\nHello.\rKim\r\n", ["bare-cr"]),
        (b"Subject: x\r\n\r\nHello.\0\r\n", ["nul"]),
        ("Subject: x\r\n\r\nGrüße.\r\n".encode(), ["8bit-undeclared"]),
        (b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n", []),
        (b"Subject: x\r\n\r\n" + b"x" * 999 + b"\r\n", ["line-too-long"]),
    ],
)
def test_octets(bare, content, expected):
    assert said(fresh(bare), *MESSAGE, content + b".") == expected


@pytest.mark.parametrize(
    ("declared", "content", "expected"),
    [
        (b"BODY=8BITMIME", "Subject: x\r\n\r\nGrüße.\r\n.", []),
        (b"body=8bitmime", "Subject: x\r\n\r\nGrüße.\r\n.", []),
        # SMTPUTF8 declares a header alone (RFC 6531, 3.6).
        (b"SMTPUTF8", "Subject: Grüße\r\n\r\nHello.\r\n.", []),
        (b"SMTPUTF8", "Subject: Grüße\r\n\r\nGrüße.\r\n.", ["8bit-undeclared"]),
        (b"SMTPUTF8 BODY=8BITMIME", "Subject: Grüße\r\n\r\nGrüße.\r\n.", []),
    ],
)
def test_octets_that_are_declared(bare, declared, content, expected):
    mail = MESSAGE[0] + b" " + declared
    assert said(fresh(bare), mail, *MESSAGE[1:], content.encode()) == expected


def test_the_slow_way_notices_the_same(server):
    with server.fault("NOOP", delay=0.001):  # what is usual is not answered on the spot now
        assert "bare-lf" in said(server, *MESSAGE, b"Subject: x\n\nHello.\r\n.")


def test_content_before_the_354(bare):
    with greeted(fresh(bare)) as wire:
        wire.say(MESSAGE[0])
        wire.say(MESSAGE[1])
        wire.sock.sendall(MESSAGE[2] + b"\r\n" + CONTENT + b"\r\n")
        assert [wire.reply()[:3], wire.reply()[:3]] == [b"354", b"250"]
        wire.say(b"QUIT")
    assert codes(bare) == ["early-talk"]


@pytest.mark.parametrize("greeting", [b"EHLO x", b"HELO x"])
def test_pipelining(server, bare, greeting):
    """It is early talk where it was not offered, and after HELO."""
    for controller in fresh(server), fresh(bare):
        with Wire(controller) as wire:
            wire.reply()
            wire.say(greeting)
            wire.sock.sendall(b"\r\n".join(MESSAGE[:2]) + b"\r\n")
            assert [wire.reply()[:3], wire.reply()[:3]] == [b"250", b"250"]
            wire.say(b"QUIT")
        may = controller is server and greeting == b"EHLO x"
        assert ("early-talk" in codes(controller)) is not may


def test_a_command_before_the_greeting(server):
    server.fault("CONNECT", delay=0.2)
    with socket.create_connection((server.host, server.port), 10) as sock:
        sock.sendall(b"EHLO x\r\nQUIT\r\n")
        while sock.recv(1000):
            continue
    assert "early-talk" in codes(server)


def test_tls_that_is_offered(server):
    with connected(server) as client:
        client.ehlo()
        client.login(*LOGIN)
        client.sendmail("kim@b.example", "lee@b.example", "Subject: x")
    assert codes(server) == ["starttls-not-used"]  # CRAM-MD5 shows no password


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_password_in_the_clear(server, mechanism):
    user, password = (text.encode() for text in LOGIN)
    with greeted(server) as wire:
        if mechanism == "PLAIN":
            assert wire.say(b"AUTH PLAIN " + b64(b"\0" + user + b"\0" + password))[:3] == b"235"
        else:
            wire.say(b"AUTH LOGIN")
            wire.say(b64(user))
            assert wire.say(b64(password))[:3] == b"235"
        wire.say(b"QUIT")
    assert codes(server) == ["password-in-clear"]


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def test_tls_that_is_used(server):
    with connected(server) as client:
        client.starttls(context=server.client_context())
        client.user, client.password = LOGIN
        client.ehlo()
        client.auth("PLAIN", client.auth_plain)
        client.sendmail("kim@b.example", "lee@b.example", "Subject: x")
    assert codes(server) == []


def test_a_client_that_leaves_without_a_word(bare):
    server = fresh(bare)
    with Wire(server) as wire:
        wire.reply()
        wire.say(b"EHLO x")
        for line in (*MESSAGE, CONTENT):
            wire.say(line)
    assert codes(server) == ["no-quit"]


@pytest.mark.parametrize(("size", "expected"), [(1000, []), (10, ["size-exceeded-by-declared"])])
def test_declared_sizes(bare, size, expected):
    mail = MESSAGE[0] + b" SIZE=%d" % size
    content = b"Subject: x\r\n\r\n" + b"x" * 970 + b"\r\n."
    assert said(fresh(bare), mail, *MESSAGE[1:], content) == expected


def test_reset_forgets_them(bare):
    with greeted(fresh(bare)) as wire:
        for line in (*MESSAGE, b"Subject: x\n\nHello.\r\n."):
            wire.say(line)
        assert [p.code for p in bare.sessions()[0].problems] == ["bare-lf"]
        bare.reset()
        assert bare.sessions()[0].problems == ()


def test_each_says_what_to_do(bare):
    fresh(bare)
    with smtplib.SMTP(bare.host, bare.port) as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:kim@b.example")
        (problem,) = bare.sessions()[0].problems
    assert problem.code == "path-without-brackets"
    assert problem.text == "'kim@b.example' needs angle brackets around it"
    assert problem.where.endswith("MAIL FROM:kim@b.example")


@many
@given(
    st.lists(
        st.builds(
            Line,
            st.just(0.1),
            st.sampled_from("CS*"),
            st.text(max_size=40)
            | st.text('MAIL FROMRCPTO:<>@".\\=? ', max_size=40)
            | st.sampled_from(["250-STARTTLS", "AUTH PLAIN", "MAIL FROM:", 'RCPT TO:<"', "AUTH"]),
        ),
        max_size=8,
    ),
    st.lists(st.text(max_size=20) | st.sampled_from(["bare-lf", "nul"]), max_size=3),
)
def test_no_dialogue_raises(dialogue, noticed):
    session = Session(
        (), None, None, None, None, None, 0, (1,), tuple(dialogue), "open", tuple(noticed)
    )
    assert len(set(session.problems)) == len(session.problems)
