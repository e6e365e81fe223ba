"""Faults and gates of an LMTP server: at the end of a message, each recipient is on its own."""

from __future__ import annotations

import smtplib
import time
from datetime import datetime, timedelta, timezone

import pytest
from helpers import only_message, until
from raw_client import CONTENT, MESSAGE, Wire, greeted, replies_by_lmtp, to

from lazr_smtptest import QueueController

LEE, MOE, NED = "lee@example.com", "moe@example.com", "ned@example.com"
ALL = (LEE, MOE, NED)
OK, NO = "250 2.0.0 OK", "550 5.2.1 No"


def outcome(server, *, rcpt_tos, rcpt_refused):
    envelope = only_message(server).envelope
    assert (envelope.rcpt_tos, envelope.rcpt_refused) == (rcpt_tos, rcpt_refused)


# Stages.


@pytest.mark.parametrize("order", ["fault", "gate"])
@pytest.mark.parametrize("stage", ["EHLO", "HELO"])
def test_stages_that_lmtp_lacks(server, order, stage):
    arguments = [stage, "550 No"] if order == "fault" else [stage]
    with pytest.raises(ValueError, match="CONNECT, LHLO, STARTTLS.*an LMTP server has LHLO"):
        getattr(server, order)(*arguments)


@pytest.mark.parametrize("order", ["fault", "gate"])
def test_a_stage_that_smtp_lacks(order):
    arguments = ["LHLO", "550 No"] if order == "fault" else ["LHLO"]
    with QueueController() as server:
        with pytest.raises(ValueError, match="CONNECT, EHLO, HELO, STARTTLS.*with lmtp=True"):
            getattr(server, order)(*arguments)
        server.restart(lmtp=True)
        getattr(server, order)(*arguments)
        with pytest.raises(ValueError, match="CONNECT, LHLO, STARTTLS"):
            server.fault("EHLO", "550 No")


def test_lhlo(server):
    fault = server.fault("LHLO", "550 5.7.1 Not you", when="*.dynamic.example")
    dropping = server.fault("LHLO", drop="instead", when="gone")
    with Wire(server) as wire:
        wire.reply()
        assert wire.say(b"LHLO a.Dynamic.example") == b"550 5.7.1 Not you\r\n"
        assert wire.codes(MESSAGE[0], b"LHLO client.example", MESSAGE[0]) == [503, 250, 250]
        assert wire.say(b"LHLO gone") == b""
    assert (fault.fired, dropping.fired) == (1, 1)
    gate = server.gate("LHLO")
    with Wire(server) as wire:
        wire.reply()
        wire.sock.sendall(b"LHLO x\r\n")
        assert gate.wait_parked(timeout=10) == 1
        gate.release()
        assert wire.reply().startswith(b"250")


def test_when_is_the_lhlo_name_elsewhere(server):
    fault = server.fault("NOOP", "550 5.7.1 No", when="client.*")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"LHLO other.example", b"NOOP") == [550, 250, 250]
    assert fault.fired == 1


# A reply.


def test_one_of_them(server):
    fault = server.fault("EOM", "550-5.2.1 No\n550 Never", when="MOE@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [OK, "550-5.2.1 No\r\n550 Never", OK]
        assert wire.codes(b"RSET") == [250]
    assert fault.fired == 1
    outcome(server, rcpt_tos=(LEE, NED), rcpt_refused=(MOE,))


def test_raw_octets_for_one_of_them(server):
    server.fault("EOM", raw=b"25\r\n", when="moe@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [OK, "25", OK]
    outcome(server, rcpt_tos=(LEE, NED), rcpt_refused=(MOE,))


def test_a_trickle_for_one_of_them(server):
    server.fault("EOM", "250-a\n250 b", trickle=0.5, when="moe@*")
    with greeted(server) as wire:
        began = time.monotonic()
        assert replies_by_lmtp(wire, *ALL) == [OK, "250-a\r\n250 b", OK]
        # The next reply comes at once, or its octets would take 6 seconds.
        assert 0.45 < time.monotonic() - began < 5
    outcome(server, rcpt_tos=(LEE, NED), rcpt_refused=(MOE,))


def test_a_trickle_of_the_usual_reply(server):
    server.fault("EOM", trickle=0.02, when="moe@*")
    with greeted(server) as wire:
        began = time.monotonic()
        assert replies_by_lmtp(wire, *ALL) == [OK] * 3
        assert time.monotonic() - began > 0.2
    outcome(server, rcpt_tos=ALL, rcpt_refused=())


def test_a_reply_amid_the_content_is_the_only_one(server):
    fault = server.fault("DATA", "552 5.3.4 Too much", after=5, times=1)
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0], *map(to, ALL), b"DATA") == [250, 250, 250, 250, 354]
        wire.sock.sendall(b"Subject: x\r\n")
        assert wire.reply() == b"552 5.3.4 Too much\r\n"
        assert wire.codes(b".\r\nRSET") == [250]
        assert replies_by_lmtp(wire, *ALL) == [OK] * 3
    assert fault.fired == 1
    outcome(server, rcpt_tos=ALL, rcpt_refused=())


def test_all_of_them(server):
    fault = server.fault("EOM", NO)
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [NO] * 3
        assert server.queue.empty()
        assert server.sessions()[0].messages == ()
        fault.remove()
        assert fault.fired == 3
        assert replies_by_lmtp(wire, *ALL) == [OK] * 3
    assert only_message(server).envelope.rcpt_tos == ALL


def test_by_the_sender_it_is_all(server):
    server.fault("EOM", NO, when="kim@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [NO] * 3
    assert server.queue.empty()


def test_times_are_recipients(server):
    fault = server.fault("EOM", NO, times=4)
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [NO] * 3
        assert replies_by_lmtp(wire, *ALL) == [NO, OK, OK]
    assert fault.fired == 4
    outcome(server, rcpt_tos=(MOE, NED), rcpt_refused=(LEE,))


def test_of_several_the_first_is_for_each(server):
    first = server.fault("EOM", "451 4.2.0 Later", when="[lm]*", times=1)
    second = server.fault("EOM", NO, when="moe@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == ["451 4.2.0 Later", NO, OK]
    assert (first.fired, second.fired) == (1, 1)
    outcome(server, rcpt_tos=(NED,), rcpt_refused=(LEE, MOE))


def test_one_recipient_twice(server):
    server.fault("EOM", NO, when="lee@*", times=1)
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, LEE, MOE, LEE) == [NO, OK, OK]
    outcome(server, rcpt_tos=(MOE, LEE), rcpt_refused=(LEE,))


def test_parameters_stay_with_their_recipient(server):
    server.fault("EOM", NO, when="moe@*")
    with greeted(server) as wire:
        wire.codes(
            MESSAGE[0],
            to(LEE),
            to(MOE) + b" NOTIFY=NEVER",
            to(NED) + b" NOTIFY=DELAY ORCPT=rfc822;ned@example.org",
            MESSAGE[2],
        )
        assert wire.codes(CONTENT, b"", b"RSET")[0] == 250
    envelope = server.queue.get_nowait().envelope
    assert envelope.rcpt_tos == (LEE, NED)
    assert envelope.rcpt_options == ("NOTIFY=DELAY", "ORCPT=rfc822;ned@example.org")
    assert envelope.rcpt_parameters == ((), envelope.rcpt_options)
    assert envelope.notify == (None, ("DELAY",))
    # And where none is left, none is there.
    with greeted(server) as wire:
        wire.codes(MESSAGE[0], to(LEE), to(MOE) + b" NOTIFY=NEVER", MESSAGE[2])
        assert wire.codes(CONTENT) == [250]
        assert wire.reply() == b"550 5.2.1 No\r\n"
    envelope = only_message(server).envelope
    assert (envelope.rcpt_options, envelope.rcpt_parameters) == ((), ())


def test_a_search_finds_what_was_delivered(server):
    server.fault("EOM", NO, when="moe@*")
    with greeted(server) as wire:
        replies_by_lmtp(wire, LEE, MOE)
        assert [found.envelope.rcpt_tos for found in server.messages] == [(LEE,)]
        replies_by_lmtp(wire, NED)
        assert server.wait(timeout=10, rcpt=NED).envelope.rcpt_tos == (NED,)
        with pytest.raises(AssertionError):
            server.wait(timeout=0, rcpt=MOE)


def test_at_other_stages_it_is_as_in_smtp(server):
    server.fault("RCPT", NO, when="moe@*")
    fault = server.fault("DATA", "451 4.3.0 Later", when="ned@*", times=1)
    with greeted(server) as wire:
        assert wire.codes(MESSAGE[0], *map(to, ALL), b"DATA", b"RSET") == [
            *(250, 250, 550, 250),
            *(451, 250),
        ]
        assert replies_by_lmtp(wire, *ALL) == [OK, OK]
    assert fault.fired == 1


# The end of the connection.


def test_421_for_one(server):
    """RFC 5321, 3.8: the connection is closed; nobody hears of those behind it."""
    fault = server.fault("EOM", "421 4.3.2 Closing", when="moe@*")
    last = server.fault("EOM", NO, when="ned@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [OK, "421 4.3.2 Closing", ""]
    outcome(server, rcpt_tos=(LEE,), rcpt_refused=(MOE, NED))
    assert (fault.fired, last.fired) == (1, 0)
    assert server.sessions()[0].ended == "dropped by the server"


@pytest.mark.parametrize(
    ("drop", "said", "rcpt_tos", "fired"),
    [
        ("before", [OK, "", ""], (LEE,), 1),
        ("instead", [OK, "", ""], ALL, 1),
        ("after", [OK, OK, ""], (LEE, MOE), 1),
    ],
)
def test_a_drop_for_one(server, drop, said, rcpt_tos, fired):
    fault = server.fault("EOM", drop=drop, when="moe@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == said
    outcome(server, rcpt_tos=rcpt_tos, rcpt_refused=ALL[len(rcpt_tos) :])
    assert fault.fired == fired
    assert until(lambda: server.sessions()[0].ended) == "dropped by the server"


@pytest.mark.parametrize(
    ("drop", "said", "rcpt_tos", "fired"),
    [
        ("before", ["", "", ""], None, 1),
        ("instead", ["", "", ""], ALL, 3),
        ("after", [OK, "", ""], (LEE,), 1),
    ],
)
def test_a_drop_for_all(server, drop, said, rcpt_tos, fired):
    fault = server.fault("EOM", drop=drop)
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == said
    if rcpt_tos is None:
        assert server.queue.empty()
    else:
        outcome(server, rcpt_tos=rcpt_tos, rcpt_refused=ALL[len(rcpt_tos) :])
    assert fault.fired == fired


def test_what_a_lost_reply_is_about_may_be_refused(server):
    """All is done, and that is what another fault says as well."""
    server.fault("EOM", drop="instead", when="lee@*")
    server.fault("EOM", NO, when="moe@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == ["", "", ""]
    outcome(server, rcpt_tos=(LEE, NED), rcpt_refused=(MOE,))


def test_a_reply_and_the_end(server):
    server.fault("EOM", NO, drop="after", when="lee@*")
    with greeted(server) as wire:
        assert replies_by_lmtp(wire, *ALL) == [NO, "", ""]
    assert server.queue.empty()


# Time.


def test_a_delay_is_for_one(server):
    """Those before are told at once; and the rest when it is over."""
    fault = server.fault("EOM", delay=1.0, when="moe@*")
    with greeted(server) as wire:
        wire.codes(MESSAGE[0], *map(to, ALL), MESSAGE[2])
        began = time.monotonic()
        assert wire.say(CONTENT) == b"250 2.0.0 OK\r\n"
        assert only_message(server).envelope.rcpt_tos == ALL
        assert [wire.reply(), wire.reply()] == [b"250 2.0.0 OK\r\n"] * 2
        assert time.monotonic() - began >= 1.0
    assert fault.fired == 1


def test_delays_add_up_and_come_before_the_message(server):
    server.fault("EOM", delay=0.3)
    with greeted(server) as wire:
        wire.codes(MESSAGE[0], *map(to, ALL), MESSAGE[2])
        began, at = time.monotonic(), datetime.now(timezone.utc)
        wire.sock.sendall(CONTENT + b"\r\n")
        assert [wire.reply() for _ in ALL] == [b"250 2.0.0 OK\r\n"] * 3
        assert time.monotonic() - began >= 0.9
    envelope = only_message(server).envelope
    assert envelope.rcpt_tos == ALL
    assert envelope.received_at - at >= timedelta(seconds=0.29)  # by another clock


def test_a_reset_ends_a_client_that_gave_up_in_a_delay(server):
    server.fault("EOM", delay=3600, when="moe@*")
    with greeted(server) as wire:
        wire.codes(MESSAGE[0], to(LEE), to(MOE), MESSAGE[2])
        assert wire.say(CONTENT) == b"250 2.0.0 OK\r\n"
    until(lambda: any("sends no more" in str(line) for line in server.sessions()[0].dialogue))
    server.reset()
    until(lambda: all(session.ended != "open" for session in server.sessions()))


def test_a_gate_parks_the_message_once(server):
    with greeted(server) as wire, server.gate("EOM", when="moe@*") as gate:
        wire.codes(MESSAGE[0], *map(to, ALL), MESSAGE[2])
        wire.sock.sendall(CONTENT + b"\r\n")
        assert gate.wait_parked(timeout=10) == 1
        assert server.queue.empty()
        fault = server.fault("EOM", NO, when="lee@*")  # comes after the gate
        assert gate.release(1) == 1
        assert [wire.reply()[:3] for _ in ALL] == [b"550", b"250", b"250"]
        assert fault.fired == 1
        outcome(server, rcpt_tos=(MOE, NED), rcpt_refused=(LEE,))


def test_a_gate_for_somebody_else(server):
    with greeted(server) as wire, server.gate("EOM", when="other@*"):
        assert replies_by_lmtp(wire, *ALL) == [OK] * 3


def test_smtp_has_one_reply():
    with QueueController() as server:
        fault = server.fault("EOM", NO, when="moe@*")
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            with pytest.raises(smtplib.SMTPDataError):
                client.sendmail("kim@example.com", ALL, "Subject: x\r\n\r\n")
        assert fault.fired == 1
        assert server.queue.empty()
