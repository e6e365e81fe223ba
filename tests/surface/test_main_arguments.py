"""Arguments that the command line refuses: in its own words, whoever finds what is wrong."""

from __future__ import annotations

import pytest
from command_line import assert_no_python

from lazr_smtptest._cli import arguments
from lazr_smtptest._cli.command import main


@pytest.mark.parametrize(
    "text",
    ["auth={'kim': 'x'}", "auth_mechanisms has", "give TLS(certfile=", "drop='x'", "a True b"],
)
def test_python_is_found(text):
    with pytest.raises(AssertionError):
        assert_no_python(text)


#: All options but these two, which end it.
ACTIONS = [
    action for action in arguments._parser()._actions if action.dest not in ("help", "version")
]

LARGE = "9" * 20
WRONG_VALUES = ("", "no-such", "-1", "0", LARGE, "\a", "x,y", "/dev/null/x", "RCPT=450,times=x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("action", ACTIONS, ids=[action.option_strings[-1] for action in ACTIONS])
def test_wrong_values_of_each_option(action, capsys, monkeypatch, tmp_path):
    """What is refused names the option, whoever refuses it: argparse, the server, the system."""
    monkeypatch.chdir(tmp_path)  # as a path, hardly any of them is wrong
    option, refused = action.option_strings[-1], 0
    usual = ["--timeout", "0.01"] if action.dest != "timeout" else ["--count", "1"]
    usual += ["--port", "0"] if action.dest not in ("port", "unix_socket") else []
    if action.dest in arguments._OF_TLS:
        usual += ["--tls", "starttls"]
    # A wrong host would be looked for in the whole net.
    for value in WRONG_VALUES if action.dest != "host" else ("\a",):
        if action.dest == "timeout" and value == LARGE:
            continue  # which it would wait for
        try:
            main([*usual, f"{option}={value}"])
        except SystemExit as error:
            assert error.code == 2
            refused += 1
        for line in capsys.readouterr().err.splitlines():
            if line.startswith("lazr-smtptest: ") and " messages came" not in line:
                assert_no_python(line)
                named = {option, "cannot listen on", "cannot trust", "cannot serve TLS with"}
                assert any(name in line for name in named), line
    assert refused or action.dest == "key_password"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            "--tls starttls --certfile no.pem",
            "--certfile must have the certificate, and --keyfile",
        ),
        ("--tls starttls --certfile /dev/null --key-password x", "and --key-password the passph"),
        ("--tls starttls --client-cert required --client-ca-file no.pem", "; --client-ca-file mu"),
        ("--maildir /dev/null/x", "argument --maildir: Not a directory"),
        ("--mbox /none/of/this", "argument --mbox: No such file or directory"),
        ("--unix-socket /none/of/this", "cannot listen on /none/of/this: "),
        ("--host 192.0.2.1 --port 0", "the host must be a name or an address of this machine"),
    ],
)
def test_what_is_only_found_by_starting(arguments, why, capsys):
    place = [] if "--port" in arguments or "--unix-socket" in arguments else ["--port", "0"]
    assert main([*arguments.split(), *place, "--timeout", "0.01"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert_no_python(line)
