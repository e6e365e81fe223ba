"""PIPELINING: all at once is answered as it is one by one."""

from __future__ import annotations

import socket
import time

import pytest
from helpers import EVENT_LOOPS, LOGIN, loop_name
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_client import COMMANDS, CONTENT, MESSAGE, Wire, ehlo, greeted

from lazr_smtptest import QueueController

#: What may come in any order.  What is behind a CRLF is content, sent if it is
#: asked for; what is behind a bar is an answer to a challenge, likewise.
PIPELINED = [
    *COMMANDS,
    b"MAIL FROM:<kim@example.com> RET=HDRS ENVID=a+2Bb",
    b"MAIL FROM:<kim@example.com> RET=HDRS RET=FULL",
    b"MAIL FROM:<kim@example.com> AUTH=<> SIZE=1",
    b"MAIL FROM:<kim@example.com> ENVID=Case size=2 body=7bit",
    b"RCPT TO:<lee@example.com> ORCPT=rfc822;Lee@example.com NOTIFY=SUCCESS,DELAY",
    b"RCPT TO:<lee@example.com> NOTIFY=NEVER,DELAY",
    b"RCPT TO:<lee@example.com> FOO=1",
    b"AUTH PLAIN AGtpbQB3cmVuLWFuZC1yb2Jpbg==",
    b"AUTH PLAIN AGtpbQB3cm9uZw==",
    b"AUTH LOGIN|a2lt|d3Jlbi1hbmQtcm9iaW4=",
    b"AUTH PLAIN|MAIL FROM:<kim@example.com>",
    b"AUTH LOGIN|DATA|RCPT TO:<lee@example.com>",
    b"AUTH XOAUTH2|*",
    b"MAIL FROM:<" + b"x" * 500 + b"@example.com>",
    b"VRFY <kim@example.com>",
]


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def three_ways(request):
    """Servers of one kind; the second has the quick way switched off."""
    options = {"recipient_limit": 2, "data_size_limit": 100_000, "auth": dict([LOGIN])}
    with QueueController("127.0.0.1", uvloop=request.param, **options) as quick:
        with QueueController("127.0.0.1", uvloop=request.param, **options) as slow:
            yield quick, slow


def one_by_one(controller, commands: list[bytes]) -> tuple[bytes, bytes]:
    """Send each when the last was answered.

    :return: All replies, and all that was sent.
    """
    sent = []
    with Wire(controller, timeout=3) as wire:
        replies = wire.reply()

        def say(line: bytes) -> bytes:
            nonlocal replies
            sent.append(line + b"\r\n")
            reply = wire.say(line)
            replies += reply
            return reply

        for command in commands:
            command, *answers = command.split(b"|")
            head, crlf, content = command.partition(b"\r\n")
            reply = say(head)
            if crlf and reply.startswith(b"354"):
                say(content)
            for answer in answers:
                if reply.startswith(b"334"):
                    reply = say(answer)
            if not reply or not say(b"NOOP"):
                break
        say(b"QUIT")
        replies += wire.reply()
    return replies, b"".join(sent)


def in_pieces(controller, octets: bytes, cuts: list[int]) -> bytes:
    with Wire(controller, timeout=3) as wire:
        position = 0
        try:
            for cut in (*sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)):
                wire.sock.sendall(octets[position:cut])
                position = cut
        except ConnectionError:
            pass
        replies = b""
        while reply := wire.reply():
            replies += reply
    return replies


def arrived(controller) -> list[tuple]:
    return [(*m.envelope[2:8], *m.envelope[9:10], m.envelope[11], m.raw) for m in controller]


SETTINGS = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(
    st.lists(st.sampled_from(PIPELINED), max_size=14), st.lists(st.integers(0, 10_000), max_size=5)
)
@example([b"EHLO x", b"AUTH PLAIN|MAIL FROM:<kim@example.com>", *MESSAGE[:2]], [])
@example([b"EHLO x", *MESSAGE[:2], b"DATA\r\nSubject: a\r\n\r\n."] * 3, [20, 70])
@example([b"EHLO x", b"MAIL FROM:<kim@example.com> RET=HDRS", *PIPELINED[34:36], b"DATA\r\n."], [])
def test_pipelined_is_as_one_by_one(three_ways, commands, cuts):
    quick, slow = three_ways
    for controller in three_ways:
        controller.reset()
    slow.fault("NOOP", "450 4.0.0 No", when="nobody")  # the quick way is off
    replies, sent = one_by_one(quick, commands)
    messages = arrived(quick)
    assert in_pieces(quick, sent, []) == replies
    assert arrived(quick) == messages
    assert in_pieces(quick, sent, cuts) == replies
    assert arrived(quick) == messages
    assert one_by_one(slow, commands) == (replies, sent)
    assert arrived(slow) == messages
    assert in_pieces(slow, sent, cuts) == replies
    assert arrived(slow) == messages


def test_several_transactions_in_one_packet(server):
    group = b"\r\n".join([*MESSAGE, CONTENT, b""])
    with greeted(server) as wire:
        wire.sock.sendall(group * 20 + b"QUIT\r\n")
        replies = [wire.reply()[:3] for _ in range(81)]
        assert wire.reply() == b""
    assert replies == [b"250", b"250", b"354", b"250"] * 20 + [b"221"]
    messages = list(server)
    assert [m["subject"] for m in messages] == ["wire"] * 20
    sequence = [m.envelope.sequence for m in messages]
    assert sequence == list(range(sequence[0], sequence[0] + 20))


def test_a_fault_that_is_made_between_two_packets(server):
    """From the quick way to the slow one and back, in the midst of a group."""
    with greeted(server) as wire:
        for number in range(20):
            wire.sock.sendall(MESSAGE[0] + b"\r\n" + MESSAGE[1] + b"\r\nDA")
            assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
            with server.fault("NOOP", "450 4.0.0 No", when="nobody"):
                wire.sock.sendall(b"TA\r\n")
                assert wire.reply().startswith(b"354")
                if number % 2:
                    wire.sock.sendall(CONTENT[:10])
            wire.sock.sendall((CONTENT[10:] if number % 2 else CONTENT) + b"\r\nNOOP\r\n")
            assert [wire.reply()[:3] for _ in range(2)] == [b"250"] * 2
    assert [m["subject"] for m in server] == ["wire"] * 20


def test_a_group_is_answered_in_one_packet(server):
    with greeted(server) as wire:
        whole = 0
        for _ in range(20):
            wire.sock.sendall(MESSAGE[0] + b"\r\n" + (MESSAGE[1] + b"\r\n") * 10 + b"DATA\r\n")
            received = wire.sock.recv(10_000)
            whole += received.count(b"\r\n") == 12
            while received.count(b"\r\n") < 12:
                received += wire.sock.recv(10_000)
            assert wire.say(CONTENT).startswith(b"250")
    assert whole > 10


def test_pipelining_is_not_slower(server):
    count = 500

    def by_groups() -> None:
        with greeted(server) as wire:
            for _ in range(count):
                wire.sock.sendall(b"\r\n".join([*MESSAGE, b""]))
                for _ in range(3):
                    wire.reply()
                wire.say(CONTENT)

    def by_commands() -> None:
        with greeted(server) as wire:
            for _ in range(count):
                wire.say(*MESSAGE, CONTENT)

    def timed(send) -> float:
        began = time.perf_counter()
        send()
        return time.perf_counter() - began

    ratios = []
    for _ in range(3):
        ratios.append(timed(by_commands) / timed(by_groups))
        if ratios[-1] >= 0.8:
            break
    assert max(ratios) >= 0.8, ratios
    assert server.queue.qsize() == len(ratios) * 2 * count


def test_a_client_that_pipelines_and_does_not_read(server):
    """It is answered when it reads, and nobody is held up meanwhile."""
    with greeted(server) as wire:
        wire.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(400):
                wire.sock.sendall((MESSAGE[0] + b"\r\nRSET\r\n") * 2000)
        assert ehlo(server)[0] == "localhost"
        wire.sock.shutdown(socket.SHUT_RDWR)
