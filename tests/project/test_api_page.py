"""The API page and the docstrings it shows: all that is public, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
import typing

import pytest
from paths import DOCS

import lazr_smtptest
from lazr_smtptest import Controller, MessageQueue, QueueController, compat, pytest_plugin
from lazr_smtptest._parent.matching import CriteriaArgs

PAGE = (DOCS / "api.rst").read_text("utf-8")

#: What pytest loads has fixtures and hooks instead of names to import.
PUBLIC_MODULES = [
    f"lazr_smtptest.{module.name}"
    for module in pkgutil.iter_modules(lazr_smtptest.__path__)
    if not module.name.startswith("_") and module.name not in ("pytest_plugin", "compat")
]

#: Each entry of the page at the left margin: its kind, name and signature, and what is below.
ENTRIES = [
    (kind, name, signature, textwrap.dedent(below))
    for kind, name, signature, below in re.findall(
        r"^\.\. (auto\w+|data):: ([\w.]+)(.*)\n((?:   .*\n|\n)*)", PAGE, re.M
    )
]
DOCUMENTED = {name: (signature, below) for _, name, signature, below in ENTRIES}


def public_names() -> set[str]:
    """What the page has to have, as it has to be named there."""
    names = set(lazr_smtptest.__all__)
    for module in PUBLIC_MODULES:
        for name in importlib.import_module(module).__all__:
            names.add(name if name in lazr_smtptest.__all__ else f"{module}.{name}")
    return names


def resolve(name: str) -> object:
    """Give what is meant by a name on the page."""
    module, _, name = name.rpartition(".")
    return getattr(importlib.import_module(module or "lazr_smtptest"), name)


def is_private(name: str) -> bool:
    return name.startswith("_")


def own_members(cls: type) -> dict[str, object]:
    """The public methods and properties that a class does not have from another on the page."""
    found = {}
    for base in cls.__mro__:
        is_ours = base.__module__.startswith("lazr_smtptest.")
        if base is not cls and (base.__name__ in DOCUMENTED or not is_ours):
            break
        for name, value in vars(base).items():
            if inspect.isfunction(value) or isinstance(value, (property, classmethod)):
                found.setdefault(name, value)
    return {name: value for name, value in found.items() if not is_private(name)}


def fields_of(doc: str, field: str) -> list[str]:
    return re.findall(rf"^:{field} (\w+):", doc, re.M)


CLASSES = [name for name in DOCUMENTED if inspect.isclass(resolve(name))]

#: Of the others, Sphinx lists all.
LISTED_BY_HAND = [name for name in CLASSES if ":members:" not in DOCUMENTED[name][1]]


# The page.


def test_page_has_each_name_once():
    assert sorted(name for _, name, _, _ in ENTRIES) == sorted(public_names())


@pytest.mark.parametrize("name", LISTED_BY_HAND)
def test_page_has_each_method(name):
    cls = resolve(name)
    below = DOCUMENTED[name][1]
    listed = re.findall(r"^\.\. auto(?:method|property):: (\w+)", below, re.M)
    # A server's own business; and how it comes by its files.
    beside = {"of", "credentials"} if name == "TLS" else set()
    assert {n for n in listed if not is_private(n)} == own_members(cls).keys() - beside


def test_page_has_each_inherited_method():
    below = DOCUMENTED["QueueController"][1]
    listed = re.findall(r"`~Controller\.(\w+)`", below)
    assert sorted(listed) == sorted(own_members(Controller))


@pytest.mark.parametrize("cls", [MessageQueue, QueueController])
@pytest.mark.parametrize(
    "method",
    [
        *("wait", "wait_many", "wait_for_each", "expect_none"),
        *("wait_async", "wait_many_async", "expect_none_async"),
    ],
)
def test_signatures_that_the_page_spells_out(cls, method):
    """These take ``**wanted``, which says nothing."""
    below = DOCUMENTED[cls.__name__][1]
    (spelled,) = re.findall(rf"^\.\. automethod:: {method}\((.*)\)$", below, re.M)
    own = list(inspect.signature(getattr(cls, method)).parameters.values())[1:-1]
    has_recipients = method == "wait_for_each"
    own = [p.replace(annotation=p.empty) for p in own]
    by_name = [str(p) for p in own if p.kind is p.KEYWORD_ONLY]
    by_place = [str(p) for p in own if p.kind is not p.KEYWORD_ONLY]
    wanted = [f"{name}=..." for name in typing.get_type_hints(CriteriaArgs)][has_recipients:]
    assert spelled == ", ".join([*by_place, "*", *by_name, *wanted])


def test_page_has_each_fixture_marker_and_setting():
    source = inspect.getsource(pytest_plugin)
    sources = source + inspect.getsource(compat)
    fixtures = re.findall(r"^ *@pytest\.fixture.*\n *def (\w+)", sources, re.M)
    on_page = re.findall(r"^\.\. fixture:: (\w+)$", PAGE, re.M)
    assert sorted(on_page) == sorted(name for name in fixtures if not is_private(name))
    settings = re.findall(r"addini\(\s*\"(\w+)\"", source)
    assert sorted(re.findall(r"^\.\. confval:: (\w+)$", PAGE, re.M)) == sorted(settings)
    markers = re.findall(r"\"markers\",\s+\"(\w+)\(", source)
    assert re.findall(r"^\.\. decorator:: pytest\.mark\.(\w+)\(", PAGE, re.M) == markers
    assert fixtures
    assert settings
    assert markers


# The docstrings.


CALLABLES = [
    *((name, name) for name in DOCUMENTED if inspect.isfunction(resolve(name))),
    *((name, f"{name}.{member}") for name in CLASSES for member in own_members(resolve(name))),
]


def what_it_is(owner: str, path: str) -> tuple[object, object]:
    """Give what a class has by a name, and the function behind it."""
    thing = resolve(owner)
    if path != owner:
        thing = inspect.getattr_static(thing, path.rpartition(".")[2])
    return thing, getattr(thing, "fget", None) or getattr(thing, "__func__", thing)


@pytest.mark.parametrize(("owner", "path"), CALLABLES)
def test_docstring_is_complete(owner, path):
    thing, function = what_it_is(owner, path)
    doc = inspect.getdoc(thing) or ""
    summary = doc.partition("\n\n")[0]
    assert summary.endswith(".")
    if re.search(r"; see `\w+\.\w+`\.$", summary):
        return  # Everything is said there.
    parameters = list(inspect.signature(function).parameters)
    if "." in path and path != owner:
        parameters = parameters[1:]
    assert fields_of(doc, "param") == parameters
    returned = inspect.signature(function).return_annotation
    if returned not in ("None", "NoReturn") and not isinstance(thing, property):
        assert ":return: " in doc
    body = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if any(isinstance(node, ast.Raise) for node in ast.walk(body)):
        assert ":raises " in doc


@pytest.mark.parametrize("name", CLASSES)
def test_docstring_of_class_is_complete(name):
    cls = resolve(name)
    doc = inspect.getdoc(cls)
    assert "__doc__" in vars(cls)
    if hasattr(cls, "_fields"):
        assert fields_of(doc, "ivar") == list(cls._fields)
    elif issubclass(cls, BaseException):
        assert fields_of(doc, "ivar") == list(inspect.get_annotations(cls))
    elif DOCUMENTED[name][0] == "()":
        assert not fields_of(doc, "param")  # None of them is made by hand.
    else:
        parameters = inspect.signature(cls).parameters
        assert fields_of(doc, "param") == [name for name in parameters if not is_private(name)]


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.walk_packages(lazr_smtptest.__path__, "lazr_smtptest.")]
)
def test_names_are_sorted(name):
    """Constants, then classes, then the rest, each by the alphabet."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert len(set(names)) == len(names)
    assert all(hasattr(module, n) for n in names)


def test_names_of_the_package_are_sorted():
    names = lazr_smtptest.__all__
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
