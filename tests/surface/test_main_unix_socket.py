"""The command line on a UNIX socket; and its limits on clients."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command_line import COMMAND, ENVIRONMENT, finish, run_command, running
from helpers import until
from unix_sockets import UnixSMTP, send_to_path, short_folder


@pytest.fixture
def path() -> Iterator[str]:
    with short_folder() as folder:
        yield f"{folder}/smtp"


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_it_says_where_it_listens(path):
    with started("--unix-socket", path, "--count", "1") as process:
        assert process.stdout.readline() == f"listening on {path}\n"
        send_to_path(path, "one")
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == ["one"]
        assert not os.path.exists(path)


def test_quiet_and_json(path):
    with started("--unix-socket", path, "--count", "1", "--quiet") as process:
        until(lambda: os.path.exists(path))
        send_to_path(path, "one")
        assert finish(process) == (0, "", "")
    with started("--unix-socket", path, "--count", "1", "--json") as process:
        assert process.stderr.readline() == f"listening on {path}\n"
        send_to_path(path, "one")
        message, session = map(json.loads, finish(process)[1].splitlines())
        assert message["peer"] == session["peer"] == [""]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_file_is_gone_when_it_is_killed(path, number):
    with started("--unix-socket", path) as process:
        process.stdout.readline()
        os.killpg(process.pid, number)
        process.wait(10)
        until(lambda: not os.path.exists(path))


def test_what_came_when_the_time_is_up(path):
    status, out, err = run_command(
        "--unix-socket", path, "--timeout", "0.3", "--count", "1", "--quiet"
    )
    assert (status, out) == (1, "")
    assert err == (
        f"lazr-smtptest: 0 of 1 messages came to {path} within 0.3 seconds\n"
        "No client has connected: see where it was told to send its mail.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "9025"], "not allowed with argument"),
        (["--host", "127.0.0.1"], "--unix-socket takes the place of --host and --port"),
        (["--unix-socket", ""], "argument --unix-socket: must not be empty"),
        (["--unix-socket", "x" * 200], "--unix-socket must have at most 10"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_arguments(path, arguments, said):
    status, out, err = run_command("--unix-socket", path, *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_a_path_that_is_no_socket(path):
    with open(path, "w"):
        pass
    status, out, err = run_command("--unix-socket", path)
    assert (status, out) == (1, "")
    assert f"cannot listen on {path}: File exists; what is there is no socket" in err


def test_a_silent_client(path):
    with started("--unix-socket", path, "--idle-timeout", "0.3") as process:
        process.stdout.readline()
        with UnixSMTP(path) as client:
            assert client.getreply()[0] == 421
            client.close()


def test_a_client_too_many():
    with running("--max-connections", "1") as (_, port):
        with smtplib.SMTP("localhost", port):
            with pytest.raises(smtplib.SMTPConnectError, match="421"):
                smtplib.SMTP("localhost", port)


@pytest.mark.parametrize(
    "argument", [("--idle-timeout", "0"), ("--max-connections", "0"), ("--max-connections", "x")]
)
def test_limits_that_are_none(argument):
    status, _, err = run_command(*argument)
    assert status == 2
    assert f"argument {argument[0]}: " in err
