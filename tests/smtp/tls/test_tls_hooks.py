"""Hooks, and what they see of TLS."""

from __future__ import annotations

import ssl

import pytest
from helpers import connected, send, serving
from tls_client import ImplicitClient, TLSClient, secured, versions

from lazr_smtptest import HandlerError, QueueServer

pytest.importorskip("trustme", reason="trustme is an extra")


class Particular(QueueServer):
    """Tells what it was given, and refuses TLS 1.2."""

    def handle_STARTTLS(self, server, session, envelope):
        self.queue.put(
            (
                session.ssl["ssl_object"].version(),
                session.host_name,
                session.peer is not None,
                envelope.mail_from,
                server.session is session,
            )
        )
        return session.ssl["cipher"][1] == "TLSv1.3"


def test_the_hook_for_starttls(loop):
    with serving(Particular, uvloop=loop, tls="starttls") as controller:
        queue = controller.server.queue
        with connected(controller) as client:
            client.ehlo()
            client.mail("kim@example.com")  # to be forgotten
            client.starttls(context=controller.client_context())
            send(client, "hello")
        assert queue.get_nowait() == ("TLSv1.3", None, True, None, True)
        assert queue.get_nowait()["subject"] == "hello"
        context = versions(maximum_version=ssl.TLSVersion.TLSv1_2)(controller)
        with secured(controller, context) as client:
            assert client.docmd("EHLO", "client.example")[0] == 554
            assert client.docmd("MAIL", "FROM:<kim@example.com>")[0] == 554
            assert client.docmd("QUIT")[0] == 221
        assert queue.get_nowait() == ("TLSv1.2", None, True, None, True)
        assert queue.empty()


class Raising(QueueServer):
    def handle_STARTTLS(self, server, session, envelope):
        raise LookupError("I have lost my list")


def test_a_hook_for_starttls_that_raises(loop):
    """The test is told; and the client gets a reply to what it sends, only."""
    with serving(Raising, uvloop=loop, tls="starttls") as controller:
        with TLSClient(controller) as client:
            client.starttls()
            client.send(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
            replies = client.rest().splitlines()
        assert len(replies) <= 3 or replies[2][3:4] == b"-"
        with pytest.raises(HandlerError, match="handle_STARTTLS raised LookupError"):
            controller.server.queue.get_nowait()


class Looking(QueueServer):
    """Says in its reply to MAIL what it knows of TLS."""

    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return f"250 2.1.0 {session.ssl and session.ssl['cipher'][1]}"


def test_hooks_see_tls_in_the_session(loop):
    with serving(Looking, uvloop=loop, tls="starttls") as controller:
        with TLSClient(controller) as client:
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 None"
            client.starttls()
            assert client.command(b"EHLO client.example").code == 250
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 TLSv1.3"
    with serving(Looking, uvloop=loop, tls="implicit") as controller:
        with ImplicitClient(controller) as client:
            assert client.command(b"MAIL FROM:<a@b.c>").text == "2.1.0 TLSv1.3"
