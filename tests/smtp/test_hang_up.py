"""Clients that keep their connection, and find it closed; and clients that are too many."""

from __future__ import annotations

import asyncio
import smtplib
import socket

import aiosmtplib
import pytest
from helpers import connected, send, subjects, until

from lazr_smtptest import QueueController


@pytest.fixture(params=[False, None], ids=["asyncio", "uvloop"])
def controller(request):
    with QueueController(uvloop=request.param, max_connections=3) as controller:
        yield controller


def test_the_second_mail_of_a_client_that_kept_its_connection(controller):
    with connected(controller) as client:
        send(client, "one")
        assert controller.hang_up() == 1
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send(client, "two")
    assert subjects(controller) == ["one"]
    assert controller.sessions()[0].ended == "dropped by the server"


def test_after_a_reply(controller):
    with socket.create_connection((controller.host, controller.port)) as client:
        replies = client.makefile("rb")
        replies.readline()
        assert controller.hang_up("421 4.4.2 Idle\nfor too long") == 1
        assert replies.read() == b"421-4.4.2 Idle\r\n421 for too long\r\n"
    (session,) = controller.sessions()
    assert session.dialogue[-1].text == "421 for too long"


def test_aiosmtplib_hears_of_it(controller):
    async def main() -> None:
        client = aiosmtplib.SMTP(hostname=controller.host, port=controller.port)
        await client.connect()
        await client.sendmail("kim@example.com", ["lee@example.com"], "Subject: one\r\n\r\n")
        assert controller.hang_up("421 4.4.2 Idle for too long") == 1
        with pytest.raises(aiosmtplib.SMTPException):
            await client.sendmail("kim@example.com", ["lee@example.com"], "Subject: x\r\n\r\n")

    asyncio.run(main())


def test_all_are_ended_and_counted_and_new_ones_are_served(controller):
    clients = [socket.create_connection((controller.host, controller.port)) for _ in range(3)]
    assert controller.hang_up() == 3
    for client in clients:
        assert client.makefile("rb").read().count(b"\r\n") <= 1
        client.close()
    assert controller.hang_up() == 0
    with connected(controller) as client:
        send(client, "one")
    assert subjects(controller) == ["one"]


def test_who_is_parked_at_a_gate_is_ended_too(controller):
    with controller.gate("RCPT") as gate, connected(controller) as client:
        client.ehlo()
        client.mail("kim@example.com")
        client.send("RCPT TO:<lee@example.com>\r\n")
        gate.wait_parked()
        assert controller.hang_up() == 1
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.getreply()


@pytest.mark.parametrize("tls", [None, "starttls"])
@pytest.mark.parametrize("how", ["gate", "delay"])
def test_who_was_hung_up_on_is_not_served_any_more(controller, tls, how):
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    controller.restart(tls=tls)
    fault = controller.fault("EOM", delay=0.2) if how == "delay" else None
    with controller.gate("EOM", when="kim*") as gate, connected(controller) as client:
        if tls:
            client.starttls(context=controller.client_context())
        client.ehlo()
        sender = "lee@example.com" if fault else "kim@example.com"
        client.mail(sender)
        client.rcpt("max@example.com")
        client.docmd("DATA")
        client.send(b"Subject: one\r\n\r\n.\r\n")
        if fault:
            until(lambda: fault.fired)
        else:
            gate.wait_parked()
        assert controller.hang_up("421 4.4.2 Bye") == 1
        assert client.getreply() == (421, b"4.4.2 Bye")
        gate.release()
        # The client has not closed its end, and the server waits for that under TLS.
        controller.expect_none(0.4)
        assert controller.sessions()[0].dialogue[-1].text == "421 4.4.2 Bye"
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.getreply()


@pytest.mark.parametrize("stage", ["EHLO", "NOOP"])
def test_nothing_is_said_amid_a_reply(controller, stage):
    """The client would take the two for one, whose code is that of the first."""
    with socket.create_connection((controller.host, controller.port)) as client:
        replies = client.makefile("rb")
        replies.readline()
        fault = controller.fault(stage, trickle=60.0)
        client.sendall(f"{stage} client.example\r\n".encode())
        assert replies.read(1) == b"2"
        until(lambda: fault.fired)
        assert controller.hang_up("421 4.4.2 Bye") == 1
        assert b"421" not in replies.read()


def test_under_tls():
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    with QueueController(tls="implicit") as controller:
        context = controller.client_context()
        with smtplib.SMTP_SSL(controller.host, controller.port, context=context) as client:
            assert client.noop()[0] == 250
            assert controller.hang_up("421 Bye") == 1
            assert client.getreply() == (421, b"Bye")


# Too many.


def test_one_too_many_is_told_so(controller):
    clients = [smtplib.SMTP(controller.host, controller.port) for _ in range(3)]
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        smtplib.SMTP(controller.host, controller.port)
    assert caught.value.args == (421, b"4.7.0 Error: too many connections")
    clients[0].quit()
    clients[0] = smtplib.SMTP(controller.host, controller.port)
    for client in clients:
        assert client.noop()[0] == 250
        client.close()
    ended = [session.ended for session in controller.sessions()]
    assert ended[3] == "dropped by the server"


def test_one_after_the_other_is_not_too_many(controller):
    controller.restart(max_connections=1)
    for number in range(20):
        with connected(controller) as client:
            send(client, number)
    assert subjects(controller) == [str(number) for number in range(20)]
    until(lambda: all(session.ended == "QUIT" for session in controller.sessions()))
