"""The short cut for plain paths, which agrees with the parser of aiosmtpd."""

from __future__ import annotations

from collections.abc import Iterator

import aiosmtpd.smtp
import pytest
from helpers import session_context
from hypothesis import example, given
from hypothesis import strategies as st
from properties import tries

from lazr_smtptest import Server
from lazr_smtptest._smtp.protocol import PLAIN_PATH
from lazr_smtptest._smtp.session import SMTPSession

many = tries(400)


@pytest.fixture(scope="module")
def protocol() -> Iterator[SMTPSession]:
    """A session that nobody is connected to."""
    import asyncio

    async def deliver(*message: object) -> str:
        raise AssertionError("nothing is delivered here")

    loop = asyncio.new_event_loop()
    yield SMTPSession(session_context(Server(), deliver), loop=loop)
    loop.close()


parameters = st.one_of(
    st.sampled_from(["", " SIZE=100", " SIZE=100 BODY=8BITMIME SMTPUTF8", "  SIZE=1 ", " "]),
    st.lists(
        st.sampled_from([" ", " ", "(", ")", "SIZE=1", "=", "\\", '"', "<", ">", "\t", "é", "\0"]),
        max_size=6,
    ).map("".join),
)
atoms = st.text("kmABZ019_+-", min_size=1, max_size=4)
dot_atoms = st.lists(atoms, min_size=1, max_size=3).map(".".join)
plain_paths = st.builds("<{}@{}>{}".format, dot_atoms, dot_atoms, parameters)
odd_paths = st.lists(
    st.sampled_from(
        [
            *"<>@.,:;\"\\()[] \t-_+'=?!%é\0",
            "kim",
            "example.com",
            "kim@example.com",
            "<kim@example.com>",
            "<@relay.example:kim@example.com>",
            '"kim lee"',
            "[192.0.2.1]",
            "[IPv6:::1]",
            " SIZE=10",
        ]
    ),
    max_size=8,
).map("".join)


@many
@given(plain_paths | odd_paths)
@example("<kim@example.com>")
@example("<kim@example.com> SIZE=100")
@example("<kim.lee+tag@mail.example.com>  SIZE=100  BODY=8BITMIME ")
@example("<kim@example.com> (a comment, as in a header) SIZE=100")
def test_the_short_cut_agrees_with_the_parser(protocol: SMTPSession, path: str) -> None:
    # aiosmtpd strips what it hands over.
    path = path.strip()
    if not PLAIN_PATH.match(path):
        return
    address, options = protocol._getaddr(path)
    full_address, full_options = aiosmtpd.smtp.SMTP._getaddr(protocol, path)
    assert address == full_address
    assert options is not None
    assert full_options is not None
    assert options.split() == full_options.split()


@pytest.mark.parametrize(
    "path",
    [
        "kim@example.com",
        "<>",
        '<"kim lee"@example.com>',
        "<kim@[192.0.2.1]>",
        "<@relay.example:kim@example.com>",
        "<kïm@example.com>",
        "<kim@example.com>SIZE=100",
        "<kim @example.com>",
        "<.kim@example.com>",
        "<kim.@example.com>",
        "<kim>",
        "",
    ],
)
def test_the_short_cut_leaves_the_rest_to_the_parser(protocol: SMTPSession, path: str) -> None:
    assert not PLAIN_PATH.match(path)
    assert protocol._getaddr(path) == aiosmtpd.smtp.SMTP._getaddr(protocol, path)


def test_the_short_cut_heeds_the_limit_of_local_parts(protocol: SMTPSession) -> None:
    path = "<" + "x" * 65 + "@example.com>"
    assert protocol._getaddr(path) == (path[1:-1], "")
    protocol.local_part_limit = 64
    try:
        assert protocol._getaddr(path) == (None, None)
    finally:
        del protocol.local_part_limit
