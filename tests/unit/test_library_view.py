"""A message stays the standard library's: all that `email` says of well-formed mail stays true."""

from __future__ import annotations

import copy
import re
import sys
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, default
from typing import Any
from unittest import mock

import pytest
from corpus import Case
from corpus_table import CASES
from hypothesis import given
from hypothesis import strategies as st
from messages import ATTACHED, make
from properties import tries

from lazr_smtptest._reading import parser
from lazr_smtptest.message import Message

OURS = ("X-Peer", "X-MailFrom", "X-RcptTo")


def library(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def outcome(function: Any, *args: Any) -> Any:
    """Return what a call returns, or the type of what it raises."""
    try:
        return function(*args)
    except Exception as error:
        return type(error)


def field(name: str, value: Any) -> tuple[Any, ...]:
    """What a parsed header field says of itself."""
    known = ("addresses", "datetime", "content_type", "params", "content_disposition", "cte")
    more = [repr(getattr(value, attribute, None)) for attribute in known]
    defects = [type(defect) for defect in getattr(value, "defects", ())]
    return (name, str(value), type(value).__name__, *more, defects)


def said_of(part: EmailMessage) -> dict[str, Any]:
    """Return what the library says of a part, its own parts left out."""
    names = (
        *("is_multipart", "get_content_type", "get_content_maintype", "get_content_subtype"),
        *("get_default_type", "get_content_charset", "get_charsets", "get_filename"),
        *("get_boundary", "get_content_disposition", "is_attachment", "get_unixfrom"),
    )
    said = {name: outcome(getattr(part, name)) for name in names}
    said["params"] = outcome(part.get_params)
    said["fields"] = [field(*one) for one in part.items() if one[0] not in OURS]
    said["defects"] = [type(defect) for defect in part.defects]
    said["around"] = (part.preamble, part.epilogue)
    if not part.is_multipart():
        said["payload"] = (part.get_payload(), part.get_payload(decode=True))
        said["content"] = outcome(part.get_content)
    return said


def tree(message: EmailMessage) -> list[dict[str, Any]]:
    return [said_of(part) for part in message.walk()]


def places(message: EmailMessage, found: Any) -> Any:
    """Return where parts are in a message, since they are equal to themselves alone."""
    if isinstance(found, type) or found is None:
        return found
    walked = list(message.walk())
    return [walked.index(part) for part in found]


def chosen(message: EmailMessage) -> dict[str, Any]:
    """Return which parts the library takes for what."""
    return {
        **{
            f"body {kinds}": places(message, [body] if body is not None else None)
            for kinds in [("related", "html", "plain"), ("plain",), ("html",), ("plain", "html")]
            for body in [outcome(message.get_body, kinds)]
            if not isinstance(body, type)
        },
        "attachments": places(message, outcome(lambda: list(message.iter_attachments()))),
        "parts": places(message, outcome(lambda: list(message.iter_parts()))),
    }


def without_ours(message: Message) -> EmailMessage:
    copied = copy.deepcopy(message)
    for name in OURS:
        del copied[name]
    return copied


def assert_same(raw: bytes) -> None:
    message, expected = make(raw), library(raw)
    assert isinstance(message, EmailMessage)
    assert tree(message) == tree(expected)
    assert chosen(message) == chosen(expected)
    assert {type(part) for part in list(message.walk())[1:]} <= {EmailMessage}
    for policy in (default, SMTP):
        written = outcome(lambda: without_ours(message).as_bytes(policy=policy))  # noqa: B023
        assert written == outcome(lambda: expected.as_bytes(policy=policy))  # noqa: B023


def is_well_formed(case: Case) -> bool:
    codes = {problem.code for problem in make(case.octets).problems if problem.level == "error"}
    # These change nothing of the rest.  What the library raises for is not well-formed.
    harmless = {"from-missing", "8bit-undeclared"}
    return codes <= harmless and isinstance(outcome(lambda: tree(library(case.octets))), list)


WELL_FORMED = [case for case in CASES if is_well_formed(case)]


@pytest.mark.parametrize("case", WELL_FORMED, ids=lambda case: case.id)
def test_of_mail_as_programs_make_it(case):
    assert_same(case.octets)


def test_most_messages_of_the_table_are_well_formed():
    assert len(WELL_FORMED) > len(CASES) // 2


def test_all_three_fields_of_ours_come_last():
    assert make(ATTACHED).keys() == [*library(ATTACHED).keys(), *OURS]


characters = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
one_line = st.text(characters, max_size=60).map(lambda text: " ".join(text.split()))
texts = st.text(characters | st.just("\n"), max_size=100).map(lambda text: f"{text}\n")
policies = st.sampled_from([default, SMTP, SMTPUTF8])


@st.composite
def messages(draw: Any) -> EmailMessage:
    """Make a message as `EmailMessage` writes it: a text, and perhaps more of all kinds."""
    message = EmailMessage(policy=draw(policies))
    message["Subject"] = draw(one_line)
    message["To"] = "Kim <kim@example.com>, lee@example.com"
    message.set_content(draw(texts), cte=draw(st.sampled_from([None, "base64"])))
    if draw(st.booleans()):
        message.add_alternative(draw(texts), subtype="html")
        if draw(st.booleans()):
            message.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<a@b>")
    for name in draw(st.lists(one_line, max_size=2)):
        message.add_attachment(draw(st.binary(max_size=50)), "x", "y", filename=name)
    if draw(st.booleans()):
        inner = EmailMessage(policy=message.policy)
        inner["Subject"] = draw(one_line)
        inner.set_content(draw(texts))
        message.add_attachment(inner)
    return message


@tries(25)
@given(messages())
def test_of_mail_that_the_library_wrote(message):
    assert_same(re.sub(rb"\r?\n", b"\r\n", message.as_bytes()))


def whole(raw: bytes) -> EmailMessage:
    """Return the message as the library's parser makes it, which goes through all lines."""
    with mock.patch.object(parser, "_one_part", return_value=None):
        return parser.parsed(raw)


def parts(message: EmailMessage) -> list[Any]:
    return [
        (
            list(part.raw_items()),
            part.get_payload() if not part.is_multipart() else len(part.get_payload()),
            [(type(defect), str(defect)) for defect in part.defects],
            (part.preamble, part.epilogue, part.get_unixfrom(), part.get_default_type()),
            sorted(vars(part)),
        )
        for part in message.walk()
    ]


FRAGMENTS = [
    *(b"Subject: a", b"From kim", b" folded", b"\tfolded", b"no field", b":", b"X-\xe4: \xe4"),
    *(b"Content-Type: text/plain", b"Content-Type: multi(part)part/mixed; boundary=b"),
    *(
        b"Content-Type: multipart/mixed; boundary=b",
        b"content-type:message/rfc822",
        b"--b",
        b"--b--",
    ),
    *(
        b"Content-Type: multi\r\n part/mixed; boundary=b",
        b"Content-Type: =?us-ascii?q?multipart?=",
    ),
    *(b"Content-Type: message/delivery-status", b"Content-Type: message", b"", b"\0", b"text"),
]
ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\x0b", b"\x85", b""]
octets = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(ENDS)), max_size=12).map(
    lambda lines: b"".join(part for line in lines for part in line)
)


@tries(400)
@given(octets)
def test_a_body_that_the_parser_did_not_see_is_as_if_it_had(raw):
    assert parts(parser.parsed(raw)) == parts(whole(raw))


def test_a_large_body_is_not_gone_through():
    small, large = (b"Subject: a\r\n\r\n" + b"text\r\n" * count for count in (1, 100_000))
    calls = [count_calls(lambda: parser.parsed(raw)) for raw in (small, large)]  # noqa: B023
    assert calls[0] == calls[1]


def count_calls(function: Any) -> int:
    """Count the calls that a call makes, those of C code included."""
    counted = [0]

    def count(_frame: Any, _event: str, _arg: Any) -> None:
        counted[0] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return counted[0]
