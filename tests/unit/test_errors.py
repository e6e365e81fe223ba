"""The exceptions: what they hold, and that they get across processes whole."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lazr_smtptest
from lazr_smtptest import errors

CLASSES = [
    value
    for value in (getattr(errors, name) for name in errors.__all__)
    if issubclass(value, Exception) and not issubclass(value, Warning)
]

SOURCES = sorted(Path(lazr_smtptest.__file__).parent.rglob("*.py"))

#: One value for each attribute that an error can have.
VALUES = {
    "host": "localhost",
    "port": 9025,
    "unix_socket": "/run/mail.sock",
    "pid": 12345,
    "elapsed": 1.5,
    "exitcode": -9,
    "lost": 3,
    "stack": 'File "x.py", line 1 in main\n',
    "near_misses": ("a miss",),
    "missing": ("lee@example.com",),
    "message": "a message",
    "traceback": "Traceback (most recent call last):\nValueError: ü\n",
}

WAYS = {
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def keywords(cls: type[Exception]) -> dict[str, Any]:
    """Give a value for each keyword argument of a class."""
    names = [
        name
        for base in cls.__mro__
        if issubclass(base, lazr_smtptest.SMTPTestError)
        for name in inspect.get_annotations(base)
    ]
    assert {"host", "port", "unix_socket", "pid", "elapsed"} <= set(names)
    return {name: VALUES[name] for name in names}


def test_all_is_all() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)
    assert defined - {"Difference"} <= set(lazr_smtptest.__all__)
    assert all(
        getattr(lazr_smtptest, name) is getattr(errors, name) for name in defined - {"Difference"}
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_no_fact_is_made_up(cls: type[Exception]) -> None:
    for name in ("prot", "args", "with_traceback"):
        with pytest.raises(TypeError, match=f"{cls.__name__} has no attribute '{name}'"):
            cls("what happened", **{name: 1})


@pytest.mark.parametrize("cls", CLASSES)
def test_each_is_one_of_ours(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.SMTPTestError)
    assert issubclass(cls, Exception)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_timeouts_are_timeout_errors(cls: type[Exception]) -> None:
    timeouts = {
        errors.GateTimeout,
        errors.MessageNotReceived,
        errors.ServerStuck,
        errors.StartTimeout,
    }
    assert issubclass(cls, TimeoutError) is (cls in timeouts)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_holds_its_facts(cls: type[Exception]) -> None:
    facts = keywords(cls)
    error = cls("what happened", **facts)
    assert str(error) == "what happened"
    assert error.args == ("what happened",)
    assert {name: getattr(error, name) for name in facts} == facts
    # Whatever is caught as the base has what the base promises.
    for name in ("host", "port", "unix_socket", "pid", "elapsed"):
        assert hasattr(error, name)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_can_do_without_facts(cls: type[Exception]) -> None:
    error = cls()
    assert str(error) == ""
    assert not any(getattr(error, name) for name in keywords(cls))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("cls", CLASSES)
def test_each_survives_pickling_and_copying(cls: type[Exception], way: Any) -> None:
    error = cls("what happened", **keywords(cls))
    again = way(error)
    assert type(again) is cls
    assert again is not error
    assert str(again) == "what happened"
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_survives_pickling_after_it_was_raised(cls: type[Exception]) -> None:
    with pytest.raises(errors.SMTPTestError) as caught:
        raise cls("what happened", **keywords(cls)) from ValueError("why")
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is cls
    assert vars(again) == vars(caught.value)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_says_when_it_is_raised(cls: type[Exception]) -> None:
    assert cls.__doc__
    if cls is not errors.SMTPTestError:
        assert cls.__doc__.startswith("Raised ")


@functools.cache
def tree_of(source: Path) -> ast.AST:
    return ast.parse(source.read_text(encoding="utf-8"))


def uses_of(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    """Find what would raise a class: calls of it, and raise statements with it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            target = node.func
        elif isinstance(node, ast.Raise):
            target = node.exc
        else:
            continue
        if name in (getattr(target, "id", None), getattr(target, "attr", None)):
            yield node


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_base_is_never_raised_itself(source: Path) -> None:
    tree = tree_of(source)
    assert [node.lineno for node in uses_of(tree, "SMTPTestError")] == []


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not errors.SMTPTestError])
def test_each_other_one_is_raised_somewhere(cls: type[Exception]) -> None:
    assert any(list(uses_of(tree_of(source), cls.__name__)) for source in SOURCES)


def test_the_search_finds_what_it_is_to_find() -> None:
    for code in (
        "raise SMTPTestError",
        "raise SMTPTestError('x') from None",
        "error = errors.SMTPTestError('x')",
        "raise errors.SMTPTestError",
    ):
        assert list(uses_of(ast.parse(code), "SMTPTestError"))
    code = "try:\n    pass\nexcept SMTPTestError:\n    raise\n"
    assert not list(uses_of(ast.parse(code), "SMTPTestError"))
