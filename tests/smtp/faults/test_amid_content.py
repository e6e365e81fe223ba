"""Faults amid the content: a reply before its end, a connection that breaks, no reading."""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
import time

import aiosmtplib
import pytest
from helpers import connected, fresh, send, send_to, subjects, until
from mail_libraries import with_nodemailer, with_phpmailer
from programs import RECIPIENTS, SENDER, TIMEOUT, Failed, unix
from raw_client import CONTENT, MESSAGE, greeted, silent

from lazr_smtptest import QueueController

FULL = "552 5.3.4 Too much"

#: More than is on the way between two processes of one machine, in any case.
HUGE = b"Subject: huge\r\n\r\n" + (b"x" * 998 + b"\r\n") * 25_000


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)


@contextlib.contextmanager
def sending(controller):
    """Give a session that has been told 354."""
    with greeted(controller) as wire:
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        yield wire


def dialogue(controller) -> list[str]:
    return [line.text for line in controller.sessions()[-1].dialogue if line.speaker != "C"]


def seen(controller, octets: int) -> None:
    """Wait until the server has taken so much, of which no reply tells."""
    until(lambda: f"{octets} octets of content so far" in dialogue(controller))


# When so much has come.


def test_the_connection_is_closed(server):
    fault = server.fault("DATA", drop="content", after=100)
    with sending(server) as wire:
        wire.sock.sendall(b"x" * 99)
        assert silent(wire)
        assert server.sessions()[0].ended == "open"
        wire.sock.sendall(b"y")
        assert wire.rest() == b""
    assert dialogue(server)[-1] == "100 octets of content so far"
    assert server.sessions()[0].ended == "dropped by the server"
    assert (fault.fired, server.queue.qsize()) == (1, 0)


@pytest.mark.parametrize("options", [{"drop": "content"}, {"drop": True, "after": 1}])
def test_it_is_closed_at_the_first_octet(server, options):
    server.fault("DATA", **options)
    with sending(server) as wire:
        assert silent(wire)
        wire.sock.sendall(b"x")
        assert wire.rest() == b""


@pytest.mark.parametrize("options", [{"reply": FULL}, {"raw": f"{FULL}\r\n".encode()}])
def test_a_reply_and_the_rest_is_read(server, options):
    fault = server.fault("DATA", **options, after=100, times=1)
    end = server.fault("EOM", "451 4.3.0 Not struck", times=1)
    with sending(server) as wire:
        wire.sock.sendall(b"x" * 98 + b"\r\n")
        assert wire.reply() == b"552 5.3.4 Too much\r\n"
        # None of this is a command, and nothing more is said about it.
        wire.sock.sendall(b"QUIT\r\nNOOP\r\n..\r\n.\r\nHELP\r\n")
        assert wire.reply()[:3] == b"214"
        # The transaction is over, and the next one is as usual, but for what else was ordered.
        assert wire.codes(b"DATA", *MESSAGE, CONTENT) == [503, 250, 250, 354, 451]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    assert (fault.fired, end.fired, server.queue.qsize()) == (1, 1, 1)
    told = dialogue(server)
    at = told.index("100 octets of content so far")
    assert told[at + 1].startswith(FULL if "reply" in options else f"sent as it is: b'{FULL}")
    assert told[at + 2] == "116 octets of content"


@pytest.mark.parametrize(
    "options",
    [
        {"reply": FULL, "drop": "content", "after": 100},
        {"reply": FULL, "drop": True, "after": 100},
        {"reply": "421 4.3.2 Closing", "after": 100},
        {"raw": b"552-no end", "drop": True, "after": 100},
        {"reply": "552-5.3.4 Too\n552 much", "trickle": 0.01, "drop": True, "after": 100},
    ],
)
def test_a_reply_and_the_connection_is_closed(server, options):
    server.fault("DATA", **options)
    with sending(server) as wire:
        wire.sock.sendall(b"x" * 100)
        assert wire.rest() == (
            options.get("raw") or options["reply"].replace("\n", "\r\n").encode() + b"\r\n"
        )
        # What it still says is read; so TCP does not take back what it has yet to read.
        wire.sock.sendall(b"y" * 100)
    until(lambda: server.sessions()[0].ended == "dropped by the server")
    assert server.queue.qsize() == 0


def test_less_than_that_comes(server):
    """At the end of the data at the latest."""
    fault = server.fault("DATA", FULL, after=1_000_000)
    with sending(server) as wire:
        wire.sock.sendall(b"Subject: short\r\n")
        assert silent(wire)
        assert wire.codes(b".", b"NOOP") == [552, 250]
        assert wire.codes(*MESSAGE, b".") == [250, 250, 354, 552]  # none at all
    assert (fault.fired, server.queue.qsize()) == (2, 0)


def test_all_of_a_session_in_one_piece(server):
    server.fault("DATA", FULL, after=5, when="kim@*")
    with greeted(server) as wire:
        wire.sock.sendall(
            b"\r\n".join([*MESSAGE, CONTENT, *MESSAGE, CONTENT, b"NOOP", b"QUIT", b""])
        )
        codes = [line[:3] for line in wire.rest().splitlines()]
    assert codes == b"250 250 354 552 250 250 354 552 250 221".split()


def test_a_client_that_leaves_before(server):
    fault = server.fault("DATA", FULL, after=100)
    with sending(server) as wire:
        wire.sock.sendall(b"x" * 99)
    until(lambda: server.sessions()[0].ended == "dropped by the client")
    assert FULL not in dialogue(server)
    assert fault.fired == 1  # it was ordered for this content, which ended there


@pytest.mark.parametrize("options", [{"reply": FULL}, {"drop": True}])
def test_only_where_content_comes(server, options):
    fault = server.fault("DATA", **options, after=1)
    with greeted(server) as wire:
        assert wire.codes(b"DATA", MESSAGE[0], b"DATA") == [503, 250, 503]
        assert fault.fired == 0


def test_which_and_how_often(server):
    for_lee = server.fault("DATA", "552 5.3.4 Lee", when="lee@*", after=3, times=1)
    at_once = server.fault("DATA", "451 4.3.0 Later", times=1)
    for_all = server.fault("DATA", "554 5.6.0 All", after=3, times=1)
    with greeted(server) as wire:
        # The command is a place of its own, and comes first.
        assert wire.codes(*MESSAGE) == [250, 250, 451]
        assert wire.codes(b"DATA", CONTENT) == [354, 552]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 554]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    assert [fault.fired for fault in (for_lee, at_once, for_all)] == [1, 1, 1]


def test_a_positive_reply_is_a_lie(server):
    server.fault("DATA", "250 2.0.0 Taken", after=3)
    send_to(server, "hello")
    assert server.queue.qsize() == 0
    assert server.sessions()[0].messages == ()


def test_a_gate_and_a_fault_at_the_command(server):
    server.fault("DATA", FULL, after=3)
    with server.gate("DATA") as gate, greeted(server) as wire:
        assert wire.codes(*MESSAGE[:2]) == [250, 250]
        wire.sock.sendall(b"DATA\r\n")
        gate.wait_parked()
        assert silent(wire)
        gate.release()
        assert wire.reply()[:3] == b"354"
        assert wire.codes(CONTENT) == [552]


# A server that reads no more.


def test_a_client_cannot_write_meanwhile(server):
    fault = server.fault("DATA", delay=1.0, after=1000)
    with sending(server) as wire:
        began = time.monotonic()
        wire.sock.sendall(HUGE)
        assert time.monotonic() - began >= 0.95
        assert wire.codes(b".") == [250]
    assert fault.fired == 1
    assert server.queue.get_nowait().raw == HUGE


def test_a_client_that_gives_up_writing(server):
    """What it has written may be a whole message; it must not come in the next test."""
    server.fault("DATA", delay=60, after=10)
    with sending(server) as wire:
        wire.sock.sendall(b"Subject: late\r\n\r\n")
        seen(server, len(b"Subject: late\r\n\r\n"))
        wire.sock.sendall(b"Hello.\r\n.\r\nQUIT\r\n")
    assert server.sessions()[0].ended == "open"
    server.reset()
    assert server.sessions() == []
    assert server.queue.qsize() == 0


def test_smtplib_times_out_in_the_middle_of_writing(server):
    server.fault("DATA", delay=60, after=10)
    with smtplib.SMTP(server.host, server.port, timeout=0.5) as client:
        client.ehlo()
        client.mail(SENDER)
        client.rcpt(RECIPIENTS[0])
        with pytest.raises(smtplib.SMTPServerDisconnected) as caught:
            client.data(HUGE)
        assert isinstance(caught.value.__context__, TimeoutError)
    server.reset()


def test_a_delay_before_the_reply(server):
    server.fault("DATA", FULL, delay=0.3, after=10)
    with sending(server) as wire:
        began = time.monotonic()
        wire.sock.sendall(b"x" * 10)
        assert wire.reply()[:3] == b"552"
        assert time.monotonic() - began >= 0.29
        assert wire.codes(b"\r\n.\r\nNOOP") == [250]


def test_stop_does_not_wait_for_it():
    controller = QueueController("127.0.0.1")
    controller.start()
    with sending(controller) as wire:
        controller.fault("RSET", "450 4.0.0 No")
        wire.sock.sendall(b".\r\n")
        assert wire.reply()[:3] == b"250"
        controller.fault("DATA", delay=60, after=1)
        assert wire.codes(*MESSAGE) == [250, 250, 354]
        wire.sock.sendall(b"x")
        seen(controller, 1)
        began = time.monotonic()
        controller.stop()
        assert time.monotonic() - began < 5
        assert wire.rest() == b""


@pytest.mark.parametrize("uvloop", [False, None])
def test_a_silent_client_is_not_waited_for_long(caplog, uvloop):
    """It has its reply, and neither closes the connection nor sends more."""
    with QueueController("127.0.0.1", idle_timeout=0.5, uvloop=uvloop) as controller:
        controller.fault("DATA", FULL, drop=True, after=1)
        with sending(controller) as wire:
            wire.sock.sendall(b"x")
            assert wire.rest() == b"552 5.3.4 Too much\r\n"
            until(lambda: closed(wire))
        assert controller.sessions()[0].ended == "dropped by the server"
        assert dialogue_of(controller.sessions()[0])[-1] == FULL
    assert caplog.records == []


def closed(wire) -> bool:
    """Whether what is sent reaches nobody any more."""
    try:
        wire.sock.sendall(b"x")
    except ConnectionError:
        return True
    return False


def dialogue_of(session) -> list[str]:
    return [line.text for line in session.dialogue]


# With TLS.


@pytest.mark.parametrize("options", [{}, {"drop": "content"}])
def test_under_tls(server, options):
    server.fault("DATA", FULL, after=100_000, **options)
    with connected(server) as client:
        client.starttls(context=server.client_context())
        with pytest.raises(smtplib.SMTPDataError, match="Too much"):
            client.sendmail(SENDER, RECIPIENTS, HUGE)
        client.close()
    assert server.queue.qsize() == 0


def test_a_drop_under_tls(server):
    server.fault("DATA", drop="content", after=100_000)
    with connected(server) as client:
        client.starttls(context=server.client_context())
        with pytest.raises((OSError, smtplib.SMTPServerDisconnected)):
            client.sendmail(SENDER, RECIPIENTS, HUGE)
        client.close()


# What clients of others make of it, with a message that they cannot send in one piece.

BIG = b"From: kim@example.com\r\nTo: lee@example.com\r\nSubject: big\r\n\r\n" + HUGE[17:8_000_017]


def with_smtplib(server, _mailers) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        client.sendmail(SENDER, RECIPIENTS, BIG)


def with_aiosmtplib(server, _mailers) -> None:
    place = {"hostname": server.host, "port": server.port, "timeout": TIMEOUT}
    asyncio.run(aiosmtplib.send(BIG, sender=SENDER, recipients=[*RECIPIENTS], **place))


def with_curl(server, mailers) -> None:
    mailers.curl(server, "--upload-file", mailers.file(BIG))


def with_swaks(server, mailers) -> None:
    mailers.swaks(server, "--data", "@" + mailers.file(BIG))


def with_msmtp(server, mailers) -> None:
    mailers.msmtp(server, "--", *RECIPIENTS, given=unix(BIG))


def with_go(server, mailers) -> None:
    mailers.go(server, BIG)


def with_exim(server, mailers) -> None:
    mailers.exim(server, BIG)


def with_php(server, mailers) -> None:
    with_phpmailer(server, mailers, len(BIG) // 78, TIMEOUT)


def with_node(server, mailers) -> None:
    with_nodemailer(server, mailers, 20_000, TIMEOUT)  # it takes long for more


#: What each says about the reply, and about a connection that breaks.
SAYS = {
    with_smtplib: ("552.*Too much", "unexpectedly closed|not connected|reset|Broken pipe"),
    with_aiosmtplib: ("552.*Too much", "lost|Unexpected EOF|reset by peer|Broken pipe"),
    with_curl: ("Weird server reply|552", r"curl: \((55|56)\)"),
    with_swaks: (r"<\*\* 552 5.3.4 Too much", "xxxx"),  # it shows what it sent, and nothing else
    with_msmtp: ("server message: 552 5.3.4 Too much", "write error"),
    with_go: ("552 5.3.4 Too much", "reset by peer|broken pipe"),
    with_exim: ("after end of data:\\s+552 5.3.4 Too much", "retry timeout exceeded|closed"),
    with_php: ("data not accepted", "data not accepted"),
    with_node: ("Message failed: 552 5.3.4 Too much", "closed unexpectedly|(?i:reset)|EPIPE"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["reply", "reply and drop", "drop"])
@pytest.mark.parametrize("client", SAYS)
def test_clients(running, mailers, client, kind):
    running.reset()
    options = {"reply": FULL} if "reply" in kind else {}
    running.fault("DATA", **options, after=1_000_000, drop="drop" in kind)
    errors = (Failed, smtplib.SMTPException, aiosmtplib.SMTPException, OSError)
    with pytest.raises(errors) as caught:
        client(running, mailers)
    assert re.search(SAYS[client]["reply" not in kind], str(caught.value)), caught.value
    assert running.queue.qsize() == 0


def test_a_client_tries_again(server):
    server.fault("DATA", "452 4.3.1 Full", after=50_000, times=1)
    server.fault("DATA", drop="content", after=50_000, times=1)
    seen_by_client = []
    while len(seen_by_client) < 3:
        try:
            with connected(server) as client:
                send(client, "patience", "x\r\n" * 50_000)
            seen_by_client.append(250)
        except smtplib.SMTPDataError as error:
            seen_by_client.append(error.smtp_code)
        except (OSError, smtplib.SMTPServerDisconnected):
            seen_by_client.append(0)
    assert seen_by_client == [452, 0, 250]
    assert subjects(server) == ["patience"]
