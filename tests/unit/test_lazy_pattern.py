"""Regular expressions that are compiled when they are first used."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re

import pytest

import lazr_smtptest
from lazr_smtptest._util import _LazyPattern, lazy_pattern


def test_it_does_what_a_pattern_does():
    pattern = lazy_pattern("(A+)b", re.IGNORECASE)
    assert pattern.fullmatch("aaB")[1] == "aa"
    assert pattern.sub("-", "ab, AB") == "-, -"
    assert pattern.pattern == "(A+)b"
    assert lazy_pattern(rb"\d").search(b"a1")[0] == b"1"


def test_it_is_compiled_once(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "lazr_smtptest._util._compile", lambda *args: compiled.append(args) or re.Pattern
    )
    pattern = lazy_pattern("a", re.DOTALL)
    assert compiled == []
    for _ in range(2):
        pattern.search  # noqa: B018
    assert compiled == [("a", re.DOTALL)]


def test_what_a_test_has_in_place_of_re_compile_is_not_kept(monkeypatch):
    pattern = lazy_pattern("a")
    monkeypatch.setattr("re.compile", lambda *_args: re.Match)
    assert pattern.fullmatch("a")


@pytest.mark.parametrize(
    "a_copy", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_it_can_be_copied_and_pickled_used_or_not(a_copy):
    pattern = lazy_pattern("(A+)b", re.IGNORECASE)
    for _ in range(2):
        assert a_copy(pattern).fullmatch("aaB")[1] == "aa"
        pattern.search("")


def test_all_can_be_compiled():
    """An error in one would be seen when it is first used, and not at import."""
    names = [one.name for one in pkgutil.walk_packages(lazr_smtptest.__path__, "lazr_smtptest.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    found = {
        id(value): value
        for module in modules
        for value in vars(module).values()
        if type(value) is _LazyPattern
    }
    assert len(found) > 40
    for value in found.values():
        re.compile(*value._args)
