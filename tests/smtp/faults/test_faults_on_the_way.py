"""Faults in sessions that are under way, delays, and mailers that try again."""

from __future__ import annotations

import smtplib
import time

import pytest
from helpers import connected, send, subjects
from raw_client import CONTENT, MESSAGE, greeted

# Sessions that are under way.


def test_in_force_in_the_midst_of_a_transaction(server):
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0]) == [250]
        with server.fault("RCPT", "450 4.2.1 Busy"):
            assert wire.codes(MESSAGE[1]) == [450]
        assert wire.codes(*MESSAGE[1:]) == [250, 354]
        with server.fault("EOM", "452 4.3.1 Full"):
            assert wire.codes(CONTENT) == [452]
        # A transaction that was refused at its end is over.
        assert wire.codes(b"DATA", *MESSAGE, CONTENT) == [503, 250, 250, 354, 250]
    assert server.queue.qsize() == 1


def test_an_eom_fault_that_is_made_while_content_arrives(server):
    with greeted(server) as wire:
        for kind, expected in (
            ({"reply": "452 4.3.1 Full"}, 452),
            ({"delay": 0.03}, 250),
            ({"reply": "250 2.0.0 Taken, not"}, 250),
        ):
            assert wire.codes(*MESSAGE) == [250, 250, 354]
            wire.sock.sendall(b"Subject: half\r\n\r\n")
            with server.fault("EOM", **kind) as fault:
                assert wire.codes(b"Hello.\r\n.") == [expected]
                assert fault.fired == 1
        # What was sent behind the end waits for its turn.
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: pipelined\r\n\r\n")
        with server.fault("EOM", delay=0.03):
            wire.sock.sendall(b".\r\nNOOP\r\nMAIL FROM:<a@b.c>\r\nVRFY x\r\n")
            replies = [wire.reply()[:9] for _ in range(4)]
        assert replies == [b"250 2.0.0", b"250 2.0.0", b"250 2.1.0", b"252 2.0.0"]
    assert subjects(server) == ["half", "pipelined"]


def test_a_line_that_is_too_long_behind_content_is_answered_behind_it(server):
    """Replies come in the order of what they are replies to, also under a delay."""
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        with server.fault("EOM", delay=0.05):
            wire.sock.sendall(CONTENT + b"\r\nNOOP " + b"x" * 20_000 + b"\r\nQUIT\r\n")
            assert [wire.reply()[:3] for _ in range(3)] == [b"250", b"500", b"221"]


def test_the_rest_of_a_line_that_is_too_long_is_not_struck(server):
    fault = server.fault("MAIL", "451 4.7.1 Later")
    with greeted(server) as wire:
        wire.sock.sendall(b"NOOP " + b"a" * 20_000)
        send_noop_elsewhere(server)
        wire.sock.sendall(b"MAIL FROM:<evil@example.com>\r\n")
        assert wire.reply() == b"500 5.5.2 Command line too long\r\n"
        assert fault.fired == 0
        assert wire.codes(b"RSET", MESSAGE[0]) == [250, 451]


def send_noop_elsewhere(controller) -> None:
    """Let the server read what it was sent: a whole session takes longer."""
    with connected(controller) as client:
        client.noop()


@pytest.mark.parametrize("drop", ["before", "instead", "after"])
def test_an_eom_drop_that_is_made_while_content_arrives(server, drop):
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"Subject: half\r\n\r\n")
        server.fault("EOM", drop=drop)
        assert wire.codes(b".")[0] == (250 if drop == "after" else 0)
        assert wire.reply() == b""
    assert server.queue.qsize() == (drop != "before")
    assert server.sessions()[0].ended == "dropped by the server"


def test_a_fault_for_pipelined_commands(server):
    server.fault("RCPT", "450 4.2.1 Busy", when="bob@*")
    with greeted(server) as wire:
        wire.sock.sendall(
            b"MAIL FROM:<a@b.c>\r\nRCPT TO:<ann@b.c>\r\nRCPT TO:<bob@b.c>\r\nDATA\r\n"
            + CONTENT
            + b"\r\nQUIT\r\n"
        )
        codes = [wire.reply()[:3] for _ in range(6)]
    assert codes == [b"250", b"250", b"450", b"354", b"250", b"221"]
    assert server.queue.get_nowait().envelope.rcpt_tos == ("ann@b.c",)


def test_a_421_for_pipelined_commands_is_the_last_word(server):
    server.fault("RCPT", "421 4.3.2 Closing")
    with greeted(server) as wire:
        wire.sock.sendall(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<ann@b.c>\r\nNOOP\r\nQUIT\r\n")
        assert [wire.reply()[:3] for _ in range(3)] == [b"250", b"421", b""]


# Delays.


def test_a_delay_stalls_nobody_else(server):
    with greeted(server) as slow, connected(server) as client:
        server.fault("MAIL", delay=1.0, when="slow@*")
        slow.sock.sendall(b"MAIL FROM:<slow@example.com>\r\n")
        began = time.monotonic()
        for number in range(20):
            send(client, number)
        with connected(server) as another:
            send(another, "another")
        assert time.monotonic() - began < 0.9
        slow.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.sock.recv(1)
        slow.sock.settimeout(10)
        assert slow.reply().startswith(b"250")
        assert time.monotonic() - began >= 0.95
    assert server.queue.qsize() == 21


def test_a_delay_with_a_reply_and_with_a_drop(server):
    began = time.monotonic()
    with greeted(server) as wire:
        server.fault("NOOP", "450 4.0.0 No", delay=0.05)
        server.fault("RSET", drop=True, delay=0.05)
        assert wire.codes(b"NOOP", b"RSET") == [450, 0]
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "DATA", "EOM"])
def test_a_client_that_does_not_wait_so_long(server, stage):
    fault = server.fault(stage, delay=60)
    client = smtplib.SMTP(local_hostname="client.example", timeout=0.2)
    with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected), match="timed out"):
        client.connect(server.host, server.port)
        client.ehlo()
        send(client, "never")
    client.close()
    assert fault.fired == 1
    # It may as well be one that listens, so the server goes on; but not in the next test.
    (session,) = server.sessions()
    assert session.ended == "open"
    server.reset()
    assert server.sessions() == []
    assert server.queue.qsize() == 0


# A mailer that tries again.


def mail(controller, subject: str, recipients: list[str], *, attempts: int = 10) -> int:
    """Send as a mailer does that has a queue: what failed for now is tried again.

    :return: How many attempts it took.
    """
    for attempt in range(1, attempts + 1):
        try:
            with connected(controller) as client:
                refused = client.sendmail(
                    "kim@example.com", recipients, f"Subject: {subject}\r\n\r\n".encode()
                )
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPResponseException as error:
            refused = dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
        except smtplib.SMTPServerDisconnected:
            refused = dict.fromkeys(recipients, (451, b"no reply"))
        recipients = [name for name, (code, _) in refused.items() if 400 <= code < 500]
        if not recipients:
            return attempt
    raise AssertionError(f"gave up after {attempts} attempts")


@pytest.mark.parametrize("stage", ["CONNECT", "MAIL", "RCPT", "DATA", "EOM"])
@pytest.mark.parametrize("fault", [{"reply": "451 4.7.1 Later"}, {"drop": True}])
def test_fail_twice_then_accept(server, stage, fault):
    ordered = server.fault(stage, **fault, times=2)
    assert mail(server, "patience", ["lee@example.com"]) == 3
    assert ordered.fired == 2
    assert subjects(server) == ["patience"]


def test_a_mailer_does_not_retry_what_is_refused_for_good(server):
    server.fault("RCPT", "550 5.1.1 No such user", when="nobody@*")
    assert mail(server, "hello", ["nobody@example.com", "lee@example.com"]) == 1
    assert server.queue.get_nowait().envelope.rcpt_tos == ("lee@example.com",)


def test_greylisting_by_recipient(server):
    server.fault("RCPT", "451 4.7.1 Greylisted", when="*@grey.example", times=2)
    server.fault("RCPT", "451 4.7.1 Greylisted", when="*@slow.example", times=3)
    recipients = ["ann@grey.example", "bob@slow.example", "cat@example.com"]
    assert mail(server, "patience", recipients) == 4
    assert [m.envelope.rcpt_tos for m in server] == [
        ("cat@example.com",),
        ("ann@grey.example",),
        ("bob@slow.example",),
    ]


def test_accepted_but_the_client_is_not_told_so_it_comes_twice(server):
    server.fault("EOM", drop="instead", times=1)
    assert mail(server, "twice", ["lee@example.com"]) == 2
    assert subjects(server) == ["twice", "twice"]
    first, second = server.sessions()
    assert (first.ended, second.ended) == ("dropped by the server", "QUIT")
    assert first.dialogue[-1].text.endswith("octets of content")  # and not a word more


# Positive replies.


def test_a_message_that_is_swallowed(server):
    fault = server.fault("EOM", "250 2.0.0 Queued as 12345", times=1)
    with connected(server) as client:
        send(client, "swallowed")
        send(client, "taken")
    assert fault.fired == 1
    assert subjects(server) == ["taken"]
    (session,) = server.sessions()
    assert len(session.messages) == 1


def test_a_recipient_that_is_swallowed(server):
    server.fault("RCPT", "250 2.1.5 Sure", when="bob@*")
    with connected(server) as client:
        recipients = ["ann@example.com", "bob@example.com"]
        assert client.sendmail("kim@example.com", recipients, b"Subject: x\r\n\r\n") == {}
    assert server.queue.get_nowait().envelope.rcpt_tos == ("ann@example.com",)


def test_a_421_at_quit_and_a_221_at_noop(server):
    server.fault("NOOP", "221 2.0.0 Not yet")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"RSET") == [221, 250]  # only 421 closes
