"""A test reads a message as its reader would: many messages, as programs make them."""

from __future__ import annotations

import pytest
from corpus_table import CASES
from messages import make

from lazr_smtptest._parent.matching import Criteria


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_the_reader_sees(case):
    message = make(case.octets)
    assert message.text == case.text
    assert message.html == case.html
    assert message.attachments == list(case.attachments)
    assert message.links() == list(case.links)
    assert {name: message.header(name) for name in case.header} == case.header
    assert set(case.problems) <= {problem.code for problem in message.problems}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_attachments_are_found_by_name_and_content_id(case):
    message = make(case.octets)
    names = [one.name for one in case.attachments]
    for one in case.attachments:
        if one.name is not None:
            assert message.attachment(one.name) == case.attachments[names.index(one.name)]
        elif one.content_id is not None:
            assert message.attachment(f"cid:{one.content_id}") == one
            assert message.attachment(f"<{one.content_id}>") == one


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_criteria(case):
    message = make(case.octets)
    meets = [*case.meets, *((kind, text) for kind, text in [("text", case.text)] if text)]
    meets += [("subject", case.header["Subject"])] if "Subject" in case.header else []
    assert [one for one in meets if Criteria(**dict([one])).unmet(message)] == []
    assert [one for one in case.misses if not Criteria(**dict([one])).unmet(message)] == []


def test_there_are_many_and_each_is_another():
    assert len(CASES) >= 150
    assert len({case.id for case in CASES}) == len(CASES)
    assert len({case.octets for case in CASES}) == len(CASES)
