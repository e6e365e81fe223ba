"""What shared servers and leases may be given, and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lazr_smtptest import Lease, LeaseError, SharedController, connect


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{name}",
        "{lease}@example.com",
        "{name}@example.com",
        "{name}{lease}@example.com",
        "{name}+{lease}",
        "{name}+{lease}@example.com@example.net",
        "{name}+{lease}+{lease}@example.com",
        "{name} {lease}@example.com",
        "{name}@{lease}.example.com\n",
        "{name}@{lease}.{}",
        "{0}@{lease}.example.com",
        "{name!r}@{lease}.example.com",
        '"{name}"@{lease}.example.com',
    ],
)
def test_a_template_without_an_address_for_each_lease(template: str) -> None:
    with pytest.raises(ValueError, match=r"template must have \{name\} and"):
        SharedController(template=template)


@pytest.mark.parametrize("template", [None, 7, b"{name}@{lease}.example.test"])
def test_a_template_of_a_wrong_type(template: Any) -> None:
    with pytest.raises(TypeError, match="template must be a str, such as"):
        SharedController(template=template)


@pytest.mark.parametrize("faults", ["", "mine", None, True, ["own"]])
def test_whom_faults_may_strike(faults: Any) -> None:
    with pytest.raises(ValueError, match="faults must be 'own' or 'all', not"):
        SharedController(faults=faults)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", None, True])
def test_an_unread_limit_is_a_number_of_octets(limit: Any) -> None:
    with pytest.raises(ValueError, match="unread_limit must be a whole number from 1 on"):
        SharedController(unread_limit=limit)


@pytest.mark.parametrize("host", [7, b"127.0.0.1", ("127.0.0.1", 25), True])
def test_a_lease_host_of_a_wrong_type(host: Any) -> None:
    with pytest.raises(TypeError, match="lease_host must be a str"):
        SharedController(lease_host=host)


def test_no_client_may_reset_all_leases() -> None:
    with pytest.raises(ValueError, match="reset_on_rset is not for a shared server"):
        SharedController(reset_on_rset=True)


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="colour"):
        SharedController(colour="blue")


@pytest.mark.parametrize("name", ["start_timeout", "stop_timeout", "reset_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_timeouts_are_positive(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SharedController(**{name: value})


def test_a_lease_host_that_is_none_of_this_machine() -> None:
    shared = SharedController(lease_host="192.0.2.1")
    with pytest.raises(OSError, match="'192.0.2.1' port 0.*must be a name or an address of this"):
        shared.start()
    assert not Path(shared.addresses[0]).parent.exists()


@pytest.mark.parametrize("address", ["leases", "localhost", "localhost:0", "localhost:65536", ""])
def test_an_address_that_is_neither_path_nor_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="address must be what a SharedController has for it"):
        connect(address, "")
    with pytest.raises(ValueError, match="address must be what a SharedController has for it"):
        connect(["/nowhere/leases", address], "")


def test_no_address_at_all() -> None:
    with pytest.raises(ValueError, match=r"address must be what a .* host:port, not \[\]"):
        connect([], "")


@pytest.mark.parametrize("address", [None, 7, b"/leases", Path("/leases"), [Path("/leases")]])
def test_an_address_of_a_wrong_type(address: Any) -> None:
    with pytest.raises(TypeError, match="address must be what a SharedController has for it"):
        connect(address, "")


@pytest.mark.parametrize("key", [None, b"key", 7])
def test_a_key_of_a_wrong_type(key: Any) -> None:
    with pytest.raises(TypeError, match="key must be a str") as caught:
        connect("/leases", key)
    assert repr(key) not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
        connect("/leases", "", timeout=timeout)


def test_a_name_of_a_wrong_type() -> None:
    with pytest.raises(TypeError, match="name must be a str, such as the test's, not 7"):
        connect("/leases", "", name=7)  # type: ignore[arg-type]


def test_a_timeout_may_be_very_long(running_shared: SharedController) -> None:
    with connect(running_shared.address, running_shared.key, timeout=1e300) as lease:
        assert lease.is_running


def test_the_first_address_that_answers_is_taken(running_shared: SharedController) -> None:
    with connect(["/nowhere/leases", *running_shared.addresses], running_shared.key) as lease:
        assert lease.pid == running_shared.pid
    with pytest.raises(LeaseError, match=r"/nowhere/leases: No such file.*; localhost:1: "):
        connect(["/nowhere/leases", "localhost:1"], running_shared.key)


@pytest.mark.parametrize(
    "name", ["", "k im", "kim@example.com", ".kim", "kim.", "k..im", "kïm", '"k"']
)
def test_a_name_that_is_no_local_part(kim: Lease, name: str) -> None:
    with pytest.raises(ValueError, match="name must be what may come before the at sign"):
        kim.address(name)


@pytest.mark.parametrize("name", [None, 7, b"kim"])
def test_an_address_s_name_of_a_wrong_type(kim: Lease, name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str, such as 'kim'"):
        kim.address(name)


@pytest.mark.parametrize("claim", ["", "kim", "kim@", "@example.com", "k im@example.com", "a@b@c"])
def test_a_claim_that_is_no_address(kim: Lease, claim: str) -> None:
    with pytest.raises(ValueError, match="claim.. takes addresses, such as"):
        kim.claim("lee@example.com", claim)


@pytest.mark.parametrize("claim", [None, 7, b"kim@example.com", ["kim@example.com"]])
def test_a_claim_of_a_wrong_type(kim: Lease, claim: Any) -> None:
    with pytest.raises(TypeError, match="claim.. takes addresses, such as"):
        kim.claim("lee@example.com", claim)


def test_a_claim_of_nothing(kim: Lease) -> None:
    with pytest.raises(TypeError, match="claim.. needs an address"):
        kim.claim()
