"""A program's connection that stays, and carries the mail of one test after the other."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import connected, subjects, until

from lazr_smtptest import Lease, SharedController

#: More than a session keeps of what was said, and of messages.
MANY = 120


@pytest.fixture
def client(running_shared: SharedController) -> Iterator[smtplib.SMTP]:
    with connected(running_shared) as client:
        yield client


def deliver(client: smtplib.SMTP, subject: object, *recipients: str) -> None:
    client.sendmail("shop@example.com", recipients, f"From: <a@b.c>\r\nSubject: {subject}\r\n\r\n")


def test_each_lease_has_its_own_mail(
    client: smtplib.SMTP, lease: Callable[[str], Lease], kim: Lease
) -> None:
    for n in range(5):
        one = lease(f"test_{n}")
        deliver(client, n, one.address("a"))
        assert one.wait(0)["subject"] == str(n)
        assert one.connections == 1
        (session,) = one.sessions()
        assert session.ended == "open"
        named = [line.text for line in session.dialogue if "RCPT TO" in line.text.upper()]
        assert [one.address("a") in text for text in named] == [True]
        one.close()
    assert (kim.sessions(), kim.connections) == ([], 0)


def test_another_s_mail_afterwards_hides_nothing(
    client: smtplib.SMTP, kim: Lease, lee: Lease
) -> None:
    deliver(client, "one", kim.address("a"))
    for n in range(MANY):
        deliver(client, n, lee.address("a"))
    assert kim.connections == lee.connections == 1
    assert len(kim.sessions()) == len(lee.sessions()) == 1
    client.quit()
    until(lambda: kim.sessions()[0].ended == "QUIT")
    assert kim.connections == lee.connections == 1


def test_problems_are_those_since_a_lease_began(
    client: smtplib.SMTP, lease: Callable[[str], Lease], kim: Lease
) -> None:
    address = kim.address("a")
    client.ehlo()
    client.mail("shop@example.com", ["SIZE=1"])
    client.docmd(f"RCPT TO:{address}")
    client.docmd("DATA")
    client.send(b"Subject: one\n\n" + b"y" * 998 + b"\0\r\n.\r\n")
    assert client.getreply()[0] == 250
    codes = {problem.code for problem in kim.sessions()[0].problems}
    assert codes >= {"bare-lf", "nul", "path-without-brackets"}
    assert "size-exceeded-by-declared" in codes
    later = lease("test_later")
    deliver(client, "two", later.address("a"))
    (session,) = later.sessions()
    assert (session.noticed, session.problems) == ((), ())
    assert len(session.messages) == 1
    kim.reset()
    assert kim.sessions() == []
    deliver(client, "three", address)
    (session,) = kim.sessions()
    assert session.problems == ()


def test_faults_strike_the_mail_of_one(client: smtplib.SMTP, kim: Lease, lee: Lease) -> None:
    faults = [
        kim.fault(stage, reply)
        for stage, reply in [("RSET", "421 No RSET"), ("NOOP", "451 No NOOP")]
    ]
    deliver(client, "lee's", lee.address("a"))
    assert client.noop()[0] == client.rset()[0] == 250
    eom = kim.fault("EOM", "554 5.6.0 Bad content", times=1)
    with pytest.raises(smtplib.SMTPDataError, match="554"):
        deliver(client, "kim's", kim.address("a"))
    client.close()
    client.connect(lee.host, lee.port)
    client.ehlo()
    deliver(client, "kim's", kim.address("a"))
    assert client.noop() == (451, b"No NOOP")
    # From a reset on, it has not named this lease yet.
    kim.reset()
    assert client.noop()[0] == client.rset()[0] == 250
    assert [fault.fired for fault in [*faults, eom]] == [1, 1, 1]
    assert subjects(lee) == ["lee's"]


def test_a_gate_parks_the_mail_of_one(client: smtplib.SMTP, kim: Lease, lee: Lease) -> None:
    with ThreadPoolExecutor() as pool:
        gate = kim.gate("DATA")
        deliver(client, "lee's", lee.address("a"))
        parked = pool.submit(deliver, client, "kim's", kim.address("a"))
        gate.wait_parked(timeout=30)
        lee.reset()  # which named it, too; and does not have it parked
        assert gate.wait_parked(timeout=0) == 1
        gate.release()
        parked.result()
        assert kim.wait(0)["subject"] == "kim's"


def test_a_reset_drops_what_is_parked(client: smtplib.SMTP, kim: Lease, lee: Lease) -> None:
    deliver(client, "lee's", lee.address("a"))
    with ThreadPoolExecutor() as pool:
        gate = kim.gate("EOM")
        parked = pool.submit(deliver, client, "kim's", kim.address("a"))
        gate.wait_parked(timeout=30)
        kim.reset()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            parked.result()
    assert kim.messages == []
    assert subjects(lee) == ["lee's"]


def test_an_end_drops_what_is_parked(client: smtplib.SMTP, kim: Lease, lee: Lease) -> None:
    with ThreadPoolExecutor() as pool:
        gate = kim.gate("EOM")
        parked = pool.submit(deliver, client, "kim's", kim.address("a"), lee.address("a"))
        gate.wait_parked(timeout=30)
        kim._finish()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            parked.result()
    assert lee.messages == []


def test_hang_up_ends_a_connection_for_all_who_use_it(
    client: smtplib.SMTP, kim: Lease, lee: Lease
) -> None:
    deliver(client, "kim's", kim.address("a"))
    deliver(client, "lee's", lee.address("a"))
    assert kim.hang_up("421 4.4.2 Idle for too long") == 1
    with pytest.raises((smtplib.SMTPException, socket.error)):
        deliver(client, "lost", lee.address("a"))
    until(lambda: lee.sessions()[0].ended == "dropped by the server")
    assert kim.hang_up() == 0
    client.close()
    client.connect(kim.host, kim.port)
    client.ehlo()
    assert kim.hang_up() == 0  # the new one has named nobody
    deliver(client, "one", lee.address("a"))
    assert subjects(lee) == ["lee's", "one"]


def test_recipients_that_come_together(client: smtplib.SMTP, kim: Lease, lee: Lease) -> None:
    """So many that the session does not keep them all."""
    names = [lee.address(f"a-{n}") for n in range(200)] + [kim.address("last")]
    lines = ["MAIL FROM:<>", *(f"RCPT TO:<{name}>" for name in names), "DATA"]
    client.ehlo()
    client.send("".join(f"{line}\r\n" for line in lines))
    assert {client.getreply()[0] for _ in lines[:-1]} == {250}
    assert client.getreply()[0] == 354
    client.send(b"Subject: one\r\n\r\n.\r\n")
    assert client.getreply()[0] == 250
    for lease in kim, lee:
        assert subjects(lease) == ["one"]
        assert lease.connections == 1
