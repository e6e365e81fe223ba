"""The command line's server that many processes share."""

from __future__ import annotations

import json
import re

import pytest
from command_line import running
from helpers import send_for, subjects

from lazr_smtptest import connect
from lazr_smtptest._cli.command import main


def test_programs_get_address_and_key_as_json() -> None:
    options = ("--shared", "--json", "--template", "{name}+{lease}@x.example")
    with running(*options, announced="stderr") as (process, port):
        facts = json.loads(process.stdout.readline())
        assert facts["kind"] == "shared"
        with connect(facts["address"], facts["key"]) as lease:
            assert lease.port == port
            address = lease.address("kim")
            assert address == f"kim+{lease.label}@x.example"
            send_for(lease, "one", [address])
            send_for(lease, "two", ["kim@nowhere.example"])
            assert subjects(lease.messages) == ["one"]
        process.terminate()
        last = [json.loads(line) for line in process.communicate(timeout=20)[0].splitlines()][-1]
    assert process.returncode == 0
    assert (last["kind"], last["rcpt_tos"]) == ("unclaimed", ["kim@nowhere.example"])


def test_people_get_them_in_a_line() -> None:
    with running("--shared", "--lease-host", "127.0.0.1", "--quiet") as (process, port):
        line = process.stdout.readline()
        found = re.fullmatch(r"lease it at (127.0.0.1:\d+) with the key (\w+)\n", line)
        with connect(*found.groups()) as lease:
            assert lease.port == port


def test_what_nobody_leased_is_printed() -> None:
    with running("--shared") as (process, _):
        found = re.search(r"lease it at (\S+) with the key (\w+)", process.stdout.readline())
        with connect(*found.groups(), name="test_kim") as lease:
            lease.claim("kim@example.com")
            send_for(lease, "late", ["kim@exmaple.com"])
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert "nobody leased mail from <kim@example.com> to <kim@exmaple.com>, subject 'la" in out
    assert "looks like an address of test_kim: kim@example.com" in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--shared --count 1", "--count does not go with --shared"),
        ("--shared --mbox x", "--mbox does not go with --shared"),
        ("--template {name}@x", "--template needs --shared"),
        ("--lease-host localhost", "--lease-host needs --shared"),
        ("--shared --template kim@x", "--template must have"),
    ],
)
def test_bad_arguments(arguments: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert why in capsys.readouterr().err.splitlines()[0]
