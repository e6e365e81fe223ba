"""Whose mail is whose, where many share one server."""

from __future__ import annotations

import contextlib
import os
import smtplib
from collections.abc import Callable

import pytest
from helpers import START_METHODS, connected, send_for, subjects, until

from lazr_smtptest import (
    TLS,
    Lease,
    LeaseError,
    MessageNotReceived,
    NotRunning,
    ServerDied,
    SharedController,
    connect,
)

# Addresses.


def test_each_lease_gets_the_mail_for_its_own_addresses(kim: Lease, lee: Lease) -> None:
    send_for(kim, "one", [kim.address("a")])
    send_for(kim, "two", [lee.address("a")])
    send_for(kim, "three", [kim.address("b"), lee.address("b"), "else@example.com"])
    assert subjects(kim.messages) == ["one", "three"]
    assert subjects(lee.messages) == ["two", "three"]


def test_any_name_at_a_lease_is_its_own(kim: Lease, lee: Lease) -> None:
    name, _, domain = kim.address("kim").partition("@")
    send_for(kim, "tagged", [f"{name}+tag@{domain.upper()}"])
    assert subjects(kim.messages) == ["tagged"]
    assert lee.messages == []


@pytest.mark.parametrize("template", ["{name}+{lease}@example.com", "{lease}.{name}@example.com"])
def test_addresses_are_made_by_a_template(template: str) -> None:
    with (
        SharedController(template=template) as shared,
        connect(shared.address, shared.key) as kim,
        connect(shared.address, shared.key) as lee,
    ):
        assert kim.address("k.im") == template.replace("{name}", "k.im").replace(
            "{lease}", kim.label
        )
        send_for(shared, "one", [kim.address("k.im")])
        send_for(shared, "two", [lee.address("k.im")])
        assert (subjects(kim), subjects(lee)) == (["one"], ["two"])


def test_no_address_is_used_again(running_shared: SharedController) -> None:
    labels = set()
    for _ in range(3):
        with connect(running_shared.address, running_shared.key) as lease:
            labels.add(lease.label)
    assert len(labels) == 3
    running_shared.restart()
    with connect(running_shared.address, running_shared.key) as lease:
        assert lease.label not in labels


# Claims.


def test_a_claim_is_a_lease_s_own(kim: Lease, lee: Lease) -> None:
    kim.claim("kim@example.com", "*@shop.example")
    lee.claim("lee@example.com")
    send_for(kim, "one", ["KIM@Example.COM"])
    send_for(kim, "two", ["anybody@shop.example", "lee@example.com"])
    assert subjects(kim.messages) == ["one", "two"]
    assert subjects(lee.messages) == ["two"]


@pytest.mark.parametrize(
    ("claim", "held"),
    [
        ("kim@example.com", "kim@example.com"),
        ("Kim@EXAMPLE.com", "kim@example.com"),
        ('"kim"@example.com', '"kim"@example.com'),
        ("x@shop.example", "*@shop.example"),
        ("*@example.com", "kim@example.com"),
        ("*@*.example", "*@shop.example"),
        ("k*@shop.*", "*@shop.example"),
        ("k?m@example.[cC]om", "kim@example.com"),
    ],
)
def test_what_another_lease_holds_cannot_be_claimed(
    kim: Lease, lee: Lease, claim: str, held: str
) -> None:
    kim.claim("kim@example.com", "*@shop.example")
    with pytest.raises(LeaseError, match="is claimed already.*by test_kim, gw0") as caught:
        lee.claim("other@example.net", claim)
    assert held.lower() in str(caught.value).lower()
    send_for(kim, "not claimed, either", ["other@example.net"])
    assert lee.messages == []


@pytest.mark.parametrize("claim", ["kim@example.org", "kim@shop.example.net", "lee@example.com"])
def test_what_only_looks_alike_can_be_claimed(kim: Lease, lee: Lease, claim: str) -> None:
    kim.claim("kim@example.com", "*@shop.example", "k*@*.example.com")
    lee.claim(claim)


def test_what_a_lease_holds_it_may_claim_again(kim: Lease) -> None:
    kim.claim("kim@example.com", "*@example.com")
    kim.claim("kim@example.com", "kim@*")


def test_an_address_that_was_made_for_a_lease_stays_its_own(kim: Lease, lee: Lease) -> None:
    lee.claim("*@*")
    send_for(kim, "kim's", [kim.address("kim")])
    send_for(kim, "nobody's else", ["postmaster@example.net"])
    assert subjects(kim.messages) == ["kim's"]
    assert subjects(lee.messages) == ["nobody's else"]


def test_a_star_is_whatever_nobody_else_gets(kim: Lease, lee: Lease) -> None:
    lee.claim("*")
    kim.claim("kim@example.com", "*@shop.example")
    with pytest.raises(LeaseError, match="claimed already"):
        kim.claim("*")
    send_for(kim, "one", ["kim@example.com"])
    send_for(kim, "two", ["x@shop.example"])
    send_for(kim, "three", ["x@example.net"])
    assert (subjects(kim), subjects(lee)) == (["one", "two"], ["three"])


def test_claims_are_free_when_a_lease_is_over(
    lease: Callable[[str], Lease], running_shared: SharedController
) -> None:
    with connect(running_shared.address, running_shared.key, name="first") as first:
        first.claim("kim@example.com", "*@shop.example")
    second = lease("second")

    def is_claimed() -> bool:
        with contextlib.suppress(LeaseError):
            second.claim("kim@example.com", "*@shop.example")
            return True
        return False

    until(is_claimed)  # the server process learns of the end when it reads


# Mail that is nobody's.


def test_mail_that_nobody_leased_is_kept_apart(
    kim: Lease, running_shared: SharedController
) -> None:
    kim.claim("kim@example.com")
    address = kim.address("lee")
    send_for(kim, "typing error", ["kim@exmaple.com"])
    send_for(kim, "another", [address.replace("example.test", "exmaple.test")])
    send_for(kim, "nobody's", ["postmaster@nowhere.invalid"])
    assert kim.messages == []
    assert [str(one) for one in kim.unclaimed] == [
        "from <kim@example.com> to <kim@exmaple.com>, subject 'typing error'; "
        "kim@exmaple.com looks like an address of test_kim, gw0: kim@example.com",
        f"from <kim@example.com> to <{address.replace('example.test', 'exmaple.test')}>, "
        f"subject 'another'; {address.replace('example.test', 'exmaple.test')} looks like an "
        "address of test_kim, gw0",
        'from <kim@example.com> to <postmaster@nowhere.invalid>, subject "nobody\'s"',
    ]
    assert str(kim.unclaimed[-1]) == str(running_shared.unclaimed[-1])
    assert running_shared.unclaimed[-1].message.raw == kim.unclaimed[-1].message.raw


def test_late_mail_is_not_the_next_test_s(running_shared: SharedController) -> None:
    with connect(running_shared.address, running_shared.key, name="test_one") as lease:
        late = lease.address("kim")
        lease._finish()
        lease._begin("test_two")
        send_for(lease, "late", [late])
        assert lease.messages == []
        assert (
            lease.unclaimed[0].nearest
            == f"{late} looks like an address of test_one, which is over"
        )


# What a lease asks.


def test_reset_is_for_a_lease_s_own_mail(kim: Lease, lee: Lease) -> None:
    send_for(kim, "both", [kim.address("a"), lee.address("a")])
    kim.reset()
    assert kim.messages == []
    assert subjects(lee.messages) == ["both"]
    assert (kim.connections, lee.connections) == (0, 1)
    assert (len(kim.sessions()), len(lee.sessions())) == (0, 1)


def test_sessions_are_those_that_named_a_lease(kim: Lease, lee: Lease) -> None:
    with connected(kim) as client:
        client.sendmail("kim@example.com", [kim.address("a")], "Subject: one\r\n\r\n")
        assert [one.ended for one in kim.sessions()] == ["open"]
        assert lee.sessions() == []
        client.docmd("MAIL FROM:<>")
        client.docmd(f"RCPT TO:<{lee.address('a')}>")
        assert len(lee.sessions()) == 1
    until(lambda: lee.sessions()[0].ended == "QUIT")
    assert kim.connections == lee.connections == 1


def test_a_fault_strikes_a_lease_s_own_mail(kim: Lease, lee: Lease) -> None:
    fault = kim.fault("RCPT", "550 5.1.1 No")
    with connected(kim) as client:
        client.sendmail("", [lee.address("a")], "Subject: one\r\n\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("", [kim.address("a")], "Subject: two\r\n\r\n")
    assert fault.fired == 1
    assert subjects(lee.messages) == ["one"]
    kim.reset()
    send_for(kim, "three", [kim.address("a")])
    assert subjects(kim.messages) == ["three"]


def test_a_gate_is_for_a_lease_s_own_mail(kim: Lease, lee: Lease) -> None:
    with kim.gate("EOM") as gate:
        send_for(kim, "passes", [lee.address("a")])
        with connected(kim) as client:
            for line in (
                "EHLO client.example",
                "MAIL FROM:<>",
                f"RCPT TO:<{kim.address('a')}>",
                "DATA",
            ):
                client.docmd(line)
            client.send(b"Subject: parked\r\n\r\n.\r\n")
            gate.wait_parked(timeout=10)
            assert kim.messages == []
            gate.release()
            assert client.getreply()[0] == 250
    assert subjects(kim.messages) == ["parked"]
    assert subjects(lee.messages) == ["passes"]


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "HELO", "STARTTLS", "AUTH", "HELP", "MAIL"])
def test_what_cannot_be_told_apart_is_refused(kim: Lease, stage: str) -> None:
    for call in kim.fault, kim.gate:
        with pytest.raises(LeaseError, match="could affect other leases' mail"):
            call(stage, **({"delay": 1.0} if call == kim.fault else {}))


def test_hang_up_is_for_the_sessions_that_named_a_lease(kim: Lease, lee: Lease) -> None:
    with connected(kim) as own, connected(kim) as other:
        own.sendmail("", [kim.address("a")], "Subject: one\r\n\r\n")
        other.sendmail("", [lee.address("a")], "Subject: two\r\n\r\n")
        assert kim.hang_up() == 1
        assert other.noop()[0] == 250
        with pytest.raises(smtplib.SMTPServerDisconnected):
            own.noop()


# The end.


def test_a_server_that_dies_is_known_at_once(start_method: str) -> None:
    shared = SharedController(start_method=start_method)
    shared.start()
    lease = connect(shared.address, shared.key)
    assert lease.pid == shared.pid
    os.kill(shared.pid or 0, 9)
    with pytest.raises(ServerDied, match="this lease with it"):
        lease.wait(30)
    assert not lease.is_running
    with pytest.raises(ServerDied, match="was killed by SIGKILL"):
        shared.stop()
    assert not os.path.exists(os.path.dirname(shared.addresses[0]))


def test_a_server_that_is_stopped_is_no_death() -> None:
    with SharedController() as shared:
        lease = connect(shared.address, shared.key)
        send_for(lease, "one", [lease.address("kim")])
    assert subjects(lease.messages) == ["one"]
    with pytest.raises(MessageNotReceived, match="No server is running"):
        lease.wait(30, subject="two")
    with pytest.raises(NotRunning, match="stopped by whoever shares it"):
        lease.reset()


def test_a_lease_has_no_server_to_stop(kim: Lease) -> None:
    for call in kim.start, kim.stop, kim.restart:
        with pytest.raises(LeaseError, match="not this lease's to start or stop"):
            call()


def test_the_address_is_gone_with_the_server() -> None:
    with SharedController() as shared:
        folder = os.path.dirname(shared.addresses[0])
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not os.path.exists(folder)
    with pytest.raises(LeaseError, match="cannot connect to a shared server"):
        connect(shared.address, shared.key)


def test_a_wrong_key_is_refused(running_shared: SharedController) -> None:
    with pytest.raises(LeaseError, match="the key is wrong"):
        connect(running_shared.address, "0" * 64)


@pytest.mark.parametrize("method", START_METHODS)
def test_leases_are_taken_by_tcp_where_asked_for(method: str) -> None:
    with (
        SharedController(lease_host="127.0.0.1", start_method=method) as shared,
        connect(shared.address, shared.key) as lease,
    ):
        assert shared.address.startswith("127.0.0.1:")
        send_for(lease, "one", [lease.address("kim")])
        assert subjects(lease.messages) == ["one"]


# TLS.


@pytest.mark.parametrize("method", START_METHODS)
def test_clients_of_a_lease_trust_the_server_and_it_them(method: str) -> None:
    with (
        SharedController(tls=TLS(client_cert="required"), start_method=method) as shared,
        connect(shared.address, shared.key) as lease,
    ):
        assert lease.ca_file != shared.ca_file  # which another machine does not have
        with connected(lease) as client:
            client.starttls(context=lease.client_context(with_cert="lee"))
            client.sendmail("", [lease.address("kim")], "Subject: one\r\n\r\n")
        assert lease.wait().envelope.client_cert_subject == "CN=lee"


def test_what_is_over_gets_no_faults() -> None:
    """Whatever they struck would be another's, and nobody would end them."""
    with SharedController(faults="all") as shared, connect(shared.address, shared.key) as kim:
        kim._finish()
        for ask in lambda stage: kim.fault(stage, "450 Later"), kim.gate:
            with pytest.raises(LeaseError, match=r"is for a lease that is over"):
                ask("NOOP")
        with connected(shared) as client:
            assert client.noop()[0] == 250


def test_an_address_of_this_run_s_is_known_for_ever(running_shared: SharedController) -> None:
    with connect(running_shared.address, running_shared.key) as kim:
        late = kim.address("late")
        for n in range(1_001):
            kim._begin(f"test_{n}")
        send_for(kim, "late", [late])
        (unclaimed,) = kim.unclaimed
        assert unclaimed.nearest == f"{late} looks like an address of a test that is over"
