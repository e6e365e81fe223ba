"""Enhanced status codes: in every reply, or in none."""

from __future__ import annotations

import re

import pytest
from helpers import LOGIN
from raw_client import COMMANDS, CONTENT, MESSAGE, Wire, greeted

from lazr_smtptest import QueueController

EVERYTHING = [
    *(command for command in COMMANDS if b"client.example" not in command),
    b"RCPT TO:<lee@example.com> FOO=1",
    b"MAIL FROM:<kim@example.com> RET=BOTH",
    b"MAIL FROM:<@>",
    b"EXPN list",
    b"HELP",
    b"HELP FOO",
    b"VRFY",
    b"VRFY <kim@example.com>",
    "MAIL FROM:<kïm@example.com>".encode(),
    b"FOO",
    b"\xff\xff",
    b"NOOP " + b"x" * 600,
    b"NOOP " + b"x" * 20_000,
    b"RSET now",
    b"AUTH",
    b"AUTH FOO",
    b"AUTH PLAIN a b",
    b"AUTH PLAIN ====",
    b"AUTH PLAIN AGEAYg==",
    b"AUTH PLAIN AGtpbQB3cmVuLWFuZC1yb2Jpbg==",
    b"STARTTLS now",
    b"QUIT",
]

ENHANCED = re.compile(r"([245])[0-9]{2} \1\.[0-9]{1,3}\.[0-9]{1,3}(?: .*)?")
LOOKS_ENHANCED = re.compile(r"[0-9]{3}[ -][245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |\Z)")


def everything(controller) -> list[tuple[bytes, bytes]]:
    """Have a server say all that it can say; give commands and replies."""
    said = []
    for start in (b"NOOP", b"EHLO client.example", b"HELO client.example"):
        commands = [start]
        for command in EVERYTHING:
            # Each of them: as it is, after MAIL, and after RCPT.
            commands += [
                command,
                b"RSET",
                MESSAGE[0],
                command,
                b"RSET",
                *MESSAGE[:2],
                command,
                b"RSET",
            ]
        wire = Wire(controller)
        greeting = wire.reply()
        assert greeting.startswith(b"220")
        wire.say(start)
        unknown = 0
        for command in commands:
            head, _, content = command.partition(b"\r\n")
            reply = wire.say(head)
            said.append((head, reply))
            if reply.startswith(b"354"):
                said.append((b"EOM", wire.say(content)))
            elif reply.startswith(b"334"):
                said.append((b"AUTH", wire.say(b"*")))
            unknown += b"not recognized" in reply
            if head == b"QUIT" or unknown > 10 or not reply:
                wire.close()
                wire = Wire(controller)
                wire.reply()
                wire.say(start)
                unknown = 0
        wire.close()
    return said


def test_every_reply_has_an_enhanced_code():
    with QueueController(
        "127.0.0.1", auth=dict([LOGIN]), recipient_limit=1, data_size_limit=10_000
    ) as controller:
        said = everything(controller)
    codes = set()
    for command, reply in said:
        verb = command.split(b" ")[0].upper()
        for line in reply.decode().splitlines():
            codes.add(line[:3])
            if line[0] == "3" or verb in (b"EHLO", b"HELO"):
                assert not LOOKS_ENHANCED.match(line), (command, line)
            else:
                assert ENHANCED.fullmatch(line), (command, line)
    assert codes >= set(
        "214 221 235 250 252 334 354 452 500 501 502 503 504 535 552 553 555".split()
    )


def test_no_reply_has_one_when_hidden():
    with QueueController(
        "127.0.0.1",
        auth=dict([LOGIN]),
        recipient_limit=1,
        data_size_limit=10_000,
        hide=("ENHANCEDSTATUSCODES",),
    ) as controller:
        said = everything(controller)
    assert {(c[:40], r) for c, r in said if LOOKS_ENHANCED.match(r.decode())} == set()


def test_no_reply_has_one_when_hidden_and_all_is_refused():
    with QueueController("127.0.0.1", hide=("ENHANCEDSTATUSCODES",)) as controller:
        controller.fault("CONNECT", "554 No")
        with Wire(controller) as wire:
            wire.reply()
            assert not LOOKS_ENHANCED.match(wire.say(b"EHLO x").decode())


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"MAIL FROM:<kim@example.com>", b"250 2.1.0 OK"),
        (b"RCPT TO:<lee@example.com>", b"250 2.1.5 OK"),
        (b"DATA", b"354 End data with <CR><LF>.<CR><LF>"),
        (CONTENT, b"250 2.0.0 OK"),
        (b"RSET", b"250 2.0.0 OK"),
        (b"NOOP", b"250 2.0.0 OK"),
        (b"QUIT", b"221 2.0.0 Bye"),
    ],
)
def test_the_common_replies(server, line, reply):
    lines = [*MESSAGE, CONTENT, b"RSET", b"NOOP", b"QUIT"]
    for way in ("quick", "slow"):
        if way == "slow":
            server.fault("NOOP", "450 4.0.0 No", when="nobody")
        with greeted(server) as wire:
            replies = dict(zip(lines, map(wire.say, lines), strict=True))
        assert replies[line] == reply + b"\r\n"
