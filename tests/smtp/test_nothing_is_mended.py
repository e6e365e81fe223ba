"""What a client said is what the test sees: whatever it was, by both ways of taking commands."""

from __future__ import annotations

import pytest
from helpers import fresh
from hypothesis import given
from hypothesis import strategies as st
from properties import tries
from raw_client import CONTENT, MESSAGE, greeted

from lazr_smtptest import QueueController

EIGHT_BIT = "Subject: grün\r\n\r\nHällo.\r\n.".encode()


@pytest.fixture(scope="module")
def lasting():
    with QueueController("127.0.0.1") as controller:
        yield controller


@pytest.fixture
def server(lasting: QueueController) -> QueueController:
    return fresh(lasting)


def take_the_long_way(server: QueueController) -> None:
    """A fault that never strikes has every command go through aiosmtpd."""
    server.fault("NOOP", "450 4.0.0 No", when="nobody")


# Paths, of all kinds.

pieces = st.sampled_from(
    [
        *("<", ">", "@", "a", "kim", ".", "..", '"', "\\", " ", "\t", "(", ")", ",", ":", ";"),
        *("-", "_", "[", "]", "[127.0.0.1]", "[IPv6:::1]", "b.example", "@x.example:", "ö"),
        *("\x0b", "\x7f", "\0", "=?utf-8?q?x?=", "l" * 70),
        *(" SIZE=5", " SMTPUTF8", " BODY=8BITMIME", " X=1", " NOTIFY=NEVER"),
    ]
)
paths = st.one_of(
    st.lists(pieces, max_size=6).map("".join),
    st.lists(pieces, max_size=4).map(lambda some: f"<{''.join(some)}@b.example>"),
).map(str.encode) | st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b""))


@tries(150)
@given(sender=paths, recipients=st.lists(paths, min_size=1, max_size=3))
def test_both_ways_agree_on_any_path(lasting, sender, recipients):
    commands = [b"MAIL FROM:" + sender, MESSAGE[0], *(b"RCPT TO:" + path for path in recipients)]
    seen = []
    for prepare in (fresh, lambda server: take_the_long_way(fresh(server))):
        prepare(lasting)
        with greeted(lasting) as wire:
            replies = [wire.say(command) for command in [*commands, MESSAGE[1], b"DATA", CONTENT]]
        envelope = lasting.queue.get_nowait().envelope
        seen.append((replies, envelope.mail_from, envelope.rcpt_tos, envelope.rcpt_parameters))
    assert seen[0] == seen[1]
    for path in seen[0][2]:
        assert path.encode("utf-8", "surrogateescape") in b"".join([*recipients, MESSAGE[1]])


@pytest.mark.parametrize("is_quick", [True, False])
def test_an_encoded_word_is_not_decoded(server, is_quick):
    if not is_quick:
        take_the_long_way(server)
    with greeted(server) as wire:
        path = b"RCPT TO:<=?utf-8?q?j=C3=B6rg?=@example.com>"
        assert wire.codes(MESSAGE[0], path, b"DATA", CONTENT) == [250, 250, 354, 250]
    with pytest.raises(AssertionError):
        server.wait(0.1, rcpt="jörg@example.com")
    assert server.wait(rcpt="=?utf-8?q?j=C3=B6rg?=@example.com")
    assert "encoded-word-in-path" in [p.code for p in server.sessions()[0].problems]


# 8-bit content.


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize(
    ("content", "parameters", "reply"),
    [
        (EIGHT_BIT, b"", b"554 5.6.1 "),
        (b"Subject: \x80\r\n.", b"", b"554 5.6.1 "),
        (CONTENT, b"", b"250 "),
        (EIGHT_BIT, b" SMTPUTF8", b"250 "),  # which brings it along: RFC 6531, 3.1
    ],
)
def test_what_is_8_bit_where_that_is_not_offered(content, parameters, reply, is_quick):
    with QueueController("127.0.0.1", hide=["8BITMIME"]) as server:
        if not is_quick:
            take_the_long_way(server)
        with greeted(server) as wire:
            assert wire.codes(MESSAGE[0] + parameters, *MESSAGE[1:]) == [250, 250, 354]
            assert wire.say(content).startswith(reply)
            assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250], "the session goes on"
        assert server.queue.qsize() == 1 + (reply == b"250 ")


@pytest.mark.parametrize("parameters", [b"", b" BODY=8BITMIME", b" BODY=7BIT"])
def test_what_is_8_bit_is_taken_elsewhere(server, parameters):
    with greeted(server) as wire:
        wire.codes(MESSAGE[0] + parameters, *MESSAGE[1:])
        assert wire.say(EIGHT_BIT).startswith(b"250 ")
    assert server.queue.get_nowait().raw == EIGHT_BIT[:-1]
