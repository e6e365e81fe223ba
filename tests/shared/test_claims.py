"""Which addresses are the same, and which globs may share one."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable

import pytest
from helpers import send_for, subjects
from hypothesis import example, given, settings
from hypothesis.strategies import text

from lazr_smtptest import Lease, LeaseError
from lazr_smtptest._reading.addresses import is_glob, normal
from lazr_smtptest._wire.sharing import overlap

#: All short words of an alphabet that has each mark that a glob gives a meaning to.
WORDS = ["".join(w) for n in range(5) for w in itertools.product("ab[]!-", repeat=n)]

globs = text("ab[]!-*?", min_size=1, max_size=5)


def matched(glob: str) -> set[str]:
    matches = re.compile(fnmatch.translate(glob)).match
    return {word for word in WORDS if matches(word)}


@given(globs, globs)
@example("[!]]b*", "ab?")
@example("[!]*", "[!]")
@example("[]]*", "]?")
@example("[a*", "[?")
@settings(max_examples=300, deadline=None)
def test_globs_that_share_a_word_overlap(one: str, other: str) -> None:
    if matched(one) & matched(other):
        assert overlap(one, other)
    assert overlap(one, other) == overlap(other, one)


plain_globs = text("ab*?", min_size=1, max_size=4)


@given(plain_globs, plain_globs)
@settings(max_examples=300, deadline=None)
def test_globs_without_sets_overlap_only_where_they_share_a_word(one: str, other: str) -> None:
    """A word of four letters has room for one letter of each mark but the stars."""
    letters = [len(glob.replace("*", "")) for glob in (one, other)]
    if is_glob(one) and is_glob(other) and sum(letters) <= 4:
        assert overlap(one, other) == bool(matched(one) & matched(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kim@example.com", "KIM@EXAMPLE.COM"),
        ("kim@example.com", '"kim"@example.com'),
        ("kim@example.com", '"k\\im"@example.com'),
        ("kim@bücher.example", "kim@xn--bcher-kva.example"),
        ("kim@BÜCHER.example", "kim@XN--BCHER-KVA.EXAMPLE"),
        ("KÏM@example.com", "kïm@example.com"),
        ("kim@[192.0.2.1]", "KIM@[192.0.2.1]"),
    ],
)
def test_addresses_that_reach_one_mailbox_are_one(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other", "may_share"),
    [
        ("*@[192.0.2.1]", "kim@[192.0.2.1]", True),
        ("*@[192.0.2.1]", "k*@[192.0.2.1]", True),
        ("*@[192.0.2.1]", "kim@1", False),
        ("*@[192.0.2.1]", "k*@[192.0.2.2]", False),
    ],
)
def test_an_address_of_the_network_is_no_set(one: str, other: str, may_share: bool) -> None:
    assert (overlap(one, other), overlap(other, one)) == (may_share, may_share)


@pytest.mark.parametrize(
    ("claim", "address"),
    [
        ("Kim@Example.COM", "kIM@example.com"),
        ("kim@example.org", '"kim"@example.org'),
        ('"k@m"@example.com', '"k@m"@example.com'),
        ('"a>b"@example.com', '"a>b"@example.com'),
        ("*@*.shop.example", "kim@a.SHOP.example"),
        ("k[ia]m@example.net", "KAM@example.net"),
        ("root@[192.0.2.1]", "root@[192.0.2.1]"),
        ("*@[192.0.2.1]", "root@[192.0.2.1]"),
    ],
)
def test_a_claim_is_known_however_it_is_written(kim: Lease, claim: str, address: str) -> None:
    kim.claim(claim)
    send_for(kim, "one", [f"<{address}>"])
    assert subjects(kim.messages) == ["one"]
    assert len(kim.sessions()) == 1


def test_a_claim_in_another_script(kim: Lease, lee: Lease) -> None:
    kim.claim("kim@bücher.example")
    lee.claim("*@straße.example")
    with pytest.raises(LeaseError, match="claimed already, by test_kim"):
        lee.claim("kim@xn--bcher-kva.example")
    send_for(kim, "one", ["kim@xn--bcher-kva.example"])
    send_for(kim, "two", [f"lee@{'straße.example'.encode('idna').decode()}"])
    assert (subjects(kim), subjects(lee)) == (["one"], ["two"])


def test_an_address_that_was_made_for_another_cannot_be_claimed(kim: Lease, lee: Lease) -> None:
    address = lee.address("lee")
    with pytest.raises(LeaseError, match="is claimed already, by test_lee, gw1"):
        kim.claim(address.upper())
    with pytest.raises(LeaseError, match="is claimed already, by test_lee, gw1"):
        kim.claim(f"*@{address.partition('@')[2]}")
    kim.claim(kim.address("kim"))


def test_many_claims(kim: Lease, lease: Callable[[str], Lease]) -> None:
    """More globs than the standard library keeps compiled."""
    kim.claim(*(f"{n}-*@example.com" for n in range(1000)))
    send_for(kim, "one", ["999-a@example.com", "0-b@example.com"])
    send_for(kim, "two", ["1000-a@example.com"])
    assert subjects(kim) == ["one"]


def test_a_claim_that_was_given_up_on_is_undone(kim: Lease, lee: Lease) -> None:
    """As a request is that had no answer in time: the lease learns of none, so it has none."""
    kim.claim("kim@example.com", "*@shop.example")
    before = len(kim.unclaimed)
    kim.claim("kim@example.com", "late@example.com", "*@late.example")
    kim._link.send("cancel", last_request(kim))
    assert len(kim.unclaimed) == before  # so it has been read by now
    lee.claim("late@example.com", "*@late.example")
    for claim in "kim@example.com", "a@shop.example":
        with pytest.raises(LeaseError, match="claimed already"):
            lee.claim(claim)


def last_request(lease: Lease) -> int:
    """Return the number of a lease's last request."""
    return next(lease._link._numbers) - 1
