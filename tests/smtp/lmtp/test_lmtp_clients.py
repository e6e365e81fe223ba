"""LMTP with clients of others: what each of them makes of a reply for each recipient."""

from __future__ import annotations

import re
import smtplib

import pytest
from helpers import LOGIN, only_message
from mailers import Mailers
from programs import DOMAIN, RECIPIENTS, SENDER, TIMEOUT, Failed, Login

from lazr_smtptest import TLS, QueueController

CONTENT = (
    b"From: kim@example.com\r\nTo: lee@example.com\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: lmtp\r\n\r\nHello.\r\n..\r\n.\r\n"
)
REFUSED = "550 5.2.1 No such\nmailbox here"


def with_swaks(server: QueueController, mailers: Mailers) -> None:
    # It takes the file as it is, with its transparency.
    data = "@" + mailers.file(CONTENT.replace(b"\r\n.", b"\r\n..") + b".")
    mailers.swaks(server, "--protocol", "LMTP", "--no-data-fixup", "--data", data)


def with_postfix(server: QueueController, mailers: Mailers) -> None:
    mailers.postfix(server, CONTENT)


def with_exim(server: QueueController, mailers: Mailers) -> None:
    mailers.exim(server, CONTENT)


@pytest.mark.parametrize("client", [with_swaks, with_postfix, with_exim])
def test_all_are_accepted(server, mailers, client):
    client(server, mailers)
    message = only_message(server)
    assert message.raw == CONTENT
    envelope = message.envelope
    assert (envelope.helo, envelope.mail_from) == (DOMAIN, SENDER)
    assert sorted(envelope.rcpt_tos) == sorted(RECIPIENTS)
    assert envelope.rcpt_refused == ()
    (session,) = server.sessions()
    assert session.helo == DOMAIN
    assert session.commands[0] == ("LHLO", DOMAIN, ())
    assert "early-talk" not in [problem.code for problem in session.problems]


@pytest.mark.parametrize("client", [with_postfix, with_exim])
def test_one_is_refused(server, mailers, client):
    fault = server.fault("EOM", REFUSED, when="bcc@*")
    with pytest.raises(Failed) as caught:
        client(server, mailers)
    # The bounce, which follows the log, is about this one alone.
    _, bounce = re.split("(?m)^This (?:is the mail system|message was cr)", str(caught.value))
    assert "No such" in bounce
    assert "mailbox here" in bounce
    assert "<lee@example.com>" not in bounce
    assert fault.fired == 1
    envelope = only_message(server).envelope
    assert envelope.rcpt_tos == ("lee@example.com",)
    assert envelope.rcpt_refused == ("bcc@example.com",)
    # Postfix declares the original recipients (RFC 3461), Exim does not.
    assert envelope.rcpt_options in ((), ("ORCPT=rfc822;lee@example.com",))


def test_swaks_is_told_of_one(server, mailers):
    server.fault("EOM", REFUSED, when="lee@*")
    with_swaks(server, mailers)  # its exit status is 0 as long as one is accepted
    assert only_message(server).envelope.rcpt_tos == ("bcc@example.com",)
    server.fault("EOM", REFUSED)
    with pytest.raises(Failed, match="<\\*\\* 550 mailbox here"):
        with_swaks(server, mailers)
    assert server.queue.empty()


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_postfix_under_tls_with_a_login(mailers, mode):
    tls = TLS(mode, required=mode == "starttls")
    with QueueController(lmtp=True, tls=tls, auth=dict([LOGIN]), auth_required=True) as server:
        fault = server.fault("EOM", REFUSED, when="bcc@*", times=1)
        with pytest.raises(Failed, match="mailbox here"):
            mailers.postfix(server, CONTENT, Login("PLAIN", *LOGIN))
        assert fault.fired == 1
        envelope = only_message(server).envelope
        assert envelope.rcpt_tos == ("lee@example.com",)
        assert envelope.tls == "TLSv1.3"
        assert envelope.auth_user == LOGIN[0]


def test_exim_under_tls(mailers):
    with QueueController(lmtp=True, tls="starttls") as server:
        mailers.exim(server, CONTENT)
        assert only_message(server).envelope.tls == "TLSv1.3"


def test_smtplib_with_one_recipient(server):
    """It reads one reply, whatever was said before."""
    with smtplib.LMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        client.login(*LOGIN)
        for recipient in RECIPIENTS:
            assert client.sendmail(SENDER, recipient, CONTENT) == {}
            assert only_message(server).envelope.rcpt_tos == (recipient,)
        server.fault("EOM", REFUSED)
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail(SENDER, RECIPIENTS[0], CONTENT)
    assert caught.value.smtp_code == 550
    assert server.queue.empty()
    (session,) = server.sessions()
    assert session.ended == "QUIT"
    assert session.auth_user == LOGIN[0]


def test_smtplib_with_several(server):
    server.fault("EOM", REFUSED, when="lee@*")
    with smtplib.LMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        client.ehlo()
        client.mail(SENDER)
        assert [client.rcpt(recipient)[0] for recipient in RECIPIENTS] == [250, 250]
        replies = [client.data(CONTENT), client.getreply()]
        assert replies == [(550, b"5.2.1 No such\nmailbox here"), (250, b"2.0.0 OK")]
        assert only_message(server).envelope.rcpt_refused == ("lee@example.com",)
