"""The recipes for CI and containers: they are YAML, hold together, and their commands run."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inner_pytest import USUALLY_OFF
from packaging.requirements import Requirement
from paths import DOCS, EXAMPLES, ROOT, literal_block
from ruamel.yaml import YAML
from scripts import STRICT

import lazr_smtptest

PAGE = (DOCS / "ci.rst").read_text("utf-8")
RECIPES = {
    path.stem: YAML(typ="safe", pure=True).load(path)
    for path in sorted((EXAMPLES / "ci").glob("*.yml"))
}

#: What the recipes have for a port, and for all interfaces.
PORT = "2525"

TEST = """\
import smtplib

import pytest


@pytest.mark.parametrize("n", range(4))
def test_mail(smtptest, n, pytestconfig):
    shared = pytestconfig.getoption("--smtptest-shared")
    kim = smtptest.address("kim") if shared else "kim@example.com"
    assert not shared or smtptest.port == int(shared.rpartition(":")[2])
    with smtplib.SMTP("127.0.0.1" if shared else smtptest.host, smtptest.port) as client:
        client.sendmail("shop@example.com", kim, "Subject: Welcome")
    smtptest.wait(rcpt=kim, timeout=30)
"""


def scripts(recipe: dict[str, Any]) -> Iterator[str]:
    """Return what a recipe has a shell run."""
    for job in recipe.get("jobs", {}).values():
        yield from (step["run"] for step in job["steps"] if "run" in step)
    for service in recipe.get("services", {}).values():
        if "command" in service:
            shell, flag, script = service["command"]
            assert (shell, flag) == ("sh", "-c")
            yield script
    for job in recipe.values():
        if isinstance(job, dict):
            yield from job.get("script", ())


def commands(program: str) -> dict[str, list[str]]:
    """Return the words behind a program's name, by where it is run."""
    texts = {name: "\n".join(scripts(recipe)) for name, recipe in RECIPES.items()}
    texts["page"] = literal_block(PAGE, ".. command: host")
    found = {}
    for name, text in texts.items():
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("exec "))
            if words[: len(program.split())] == program.split():
                assert name not in found
                found[name] = words[len(program.split()) :]
    return found


def values(tree: Any, key: str) -> Iterator[Any]:
    """Return what a recipe has by a key, wherever that is."""
    if isinstance(tree, dict):
        yield from (value for name, value in tree.items() if name == key)
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from values(each, key)


@pytest.fixture
def port() -> int:
    """A port that was free just now, on all interfaces."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        return server.getsockname()[1]


PIP, PYTEST, SINK = commands("pip install"), commands("pytest"), commands("lazr-smtptest")


def test_recipes_have_commands():
    assert {*PIP, "compose_host", "page"} == {*PYTEST, *SINK, "compose_host"} == {*RECIPES, "page"}


@pytest.mark.parametrize("name", PIP)
def test_packages(name):
    """This version, with extras that it has, and what the options of pytest need."""
    required = [Requirement(word) for word in PIP[name] if word != "-q"]
    (own,) = (each for each in required if each.name == "lazr-smtptest")
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert own.extras <= {*config["options.extras_require"]}
    assert own.specifier.contains(lazr_smtptest.__version__)
    assert ("pytest-xdist" in PIP[name]) == ("-n" in PYTEST.get(name, ()))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("command", sorted({shlex.join(words) for words in PYTEST.values()}))
def test_pytest_command(command, tmp_path, port):
    (tmp_path / "test_mail.py").write_text(TEST)
    words = shlex.split(command.replace(PORT, str(port)))
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    package = str(Path(lazr_smtptest.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, *STRICT, "-m", "pytest", *USUALLY_OFF, *words],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": package, "PYTEST_XDIST_AUTO_NUM_WORKERS": "2"},
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b4 passed in ", done.stdout)
    assert (PORT in command) == (f"port {port}\n" in done.stdout)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", SINK)
def test_sink(name, port):
    words = [word.replace(PORT, str(port)) for word in SINK[name]]
    assert str(port) in words
    process = subprocess.Popen(
        [sys.executable, "-m", "lazr_smtptest", *words, "--count", "1", "--timeout", "60"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert f"port {port}\n" in process.stdout.readline()
        (check,) = values(RECIPES[name], "test")
        check = check.replace(PORT, str(port)).replace("python", sys.executable, 1)
        subprocess.run(check, shell=True, check=True, timeout=15)
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("shop@example.com", "kim@example.com", "Subject: Welcome")
        assert "Subject: Welcome" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("name", [n for n in RECIPES if [*values(RECIPES[n], "SMTP_HOST")]])
def test_application_sends_to_the_server(name):
    """To the port that it has, by a name that is known where it runs."""
    recipe = RECIPES[name]
    (host,), (number,) = values(recipe, "SMTP_HOST"), values(recipe, "SMTP_PORT")
    assert number == PORT
    listening = PYTEST.get(name) or SINK.get(name) or PYTEST["page"]
    assert f"0.0.0.0:{PORT}" in listening or {"0.0.0.0", PORT} <= {*listening}
    if host == "build":
        assert [*values(recipe, "FF_NETWORK_PER_BUILD")] == ["true"]
    elif host == "host.docker.internal":
        known = [*values(recipe, "extra_hosts"), *values(recipe, "options")]
        assert f"{host}:host-gateway" in str(known)
    else:
        assert host in recipe["services"]


def test_recipes_are_complete():
    """What each system insists on."""
    for name, recipe in RECIPES.items():
        if "jobs" in recipe:
            assert {"name", "on", "jobs"} == {*recipe}
            for step in recipe["jobs"]["tests"]["steps"]:
                assert ("uses" in step) != ("run" in step)
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
        elif "services" in recipe:
            assert {*recipe} == {"services"}
            for service in recipe["services"].values():
                assert ("image" in service) != ("build" in service)
        else:
            (job,) = recipe.values()
            assert {"image", "script"} <= {*job}
            assert name.startswith("gitlab")


def test_lines_fit():
    """Code is as wide as a page shows it."""
    for path in (EXAMPLES / "ci").glob("*.yml"):
        assert max(map(len, path.read_text("utf-8").splitlines())) <= 72, path
