"""Options that are wrong, or that cannot be had: a line or two, and none of our code."""

from __future__ import annotations

import pytest
from inner_pytest import TIMEOUT, Inner

pytestmark = TIMEOUT

OPTIONS = {
    "prot=2525": "smtptest has no option 'prot'; it has host, port, ",
    "tls='ssl'": "tls must be 'starttls' or 'implicit', not 'ssl': did you mean implicit?",
    "port='2525'": "port must be an int, not '2525'",
    "hostname='127.0.0.1'": "hostname must be a name, for the greeting, ",
    "host='192.0.2.1'": "OSError: [Errno ",
    "host='no-such-host.invalid'": "gaierror: [Errno ",
    "port=TAKEN": "OSError: [Errno ",
    "unix_socket='/none/of/this'": "FileNotFoundError: [Errno 2] cannot listen on /none/of/this: ",
    "tls=TLS(certfile='no/cert.pem')": "FileNotFoundError: [Errno 2] cannot serve TLS with no/",
    "tls=TLS(certfile='/dev/null')": "SSLError: cannot serve TLS with /dev/null: ",
    "uvloop=True": "ImportError: uvloop=True needs uvloop: pip install ",
    "tls='starttls'": "ImportError: tls without a certificate of your own needs trustme: ",
    "auth={'kim': 'x'}, auth_mechanisms=['SCRAM-SHA-256']": "ImportError: SCRAM-SHA-256 needs ",
    "start_timeout=0.0001, start_method='spawn'": "StartTimeout: the server process ",
}

#: What is here in every file: a port that is taken, and what is not installed.
HEAD = """
import socket
import sys

import pytest

from lazr_smtptest import TLS

for name in ("uvloop", "trustme", "scramp"):
    sys.modules[name] = None
HOLDER = socket.create_server(("127.0.0.1", 0))
TAKEN = HOLDER.getsockname()[1]
"""


def run_each(inner: Inner, **files: str) -> dict[str, str]:
    """Run tests that fail for their options; return what the terminal says of each."""
    inner.files(**files)
    run = inner.run("-p", "no:xdist", "-p", "no:uvloop")
    assert set(run.outcomes.values()) == {"error"}
    return {name: run.told(name) for name in run.outcomes}


def check(told: str, start: str) -> None:
    assert told.startswith(start)
    assert "lazr_smtptest/" not in told
    assert 'File "' not in told
    assert len(told) < 1500
    assert told.count("\n") == 1


def test_in_the_marker(inner):
    tests = [
        f"@pytest.mark.smtptest({options})\ndef test_{number}(smtptest): pass\n"
        for number, options in enumerate(OPTIONS)
    ]
    told = run_each(inner, test_marked="\n".join([HEAD, *tests]))
    assert len(told) == len(OPTIONS)
    for number, start in enumerate(OPTIONS.values()):
        check(told[f"test_{number}"], start)


OVERRIDE = """
@pytest.fixture(scope="session")
def smtptest_options():
    return dict({options})

def test_{number}({fixture}):
    pass
"""


def test_in_an_override(inner):
    files = {
        f"test_of_{number}": HEAD
        + OVERRIDE.format(options=options, number=number, fixture="smtptest")
        for number, options in enumerate(OPTIONS)
    }
    told = run_each(inner, **files)
    assert len(told) == len(OPTIONS)
    for number, start in enumerate(OPTIONS.values()):
        check(told[f"test_{number}"], start)


@pytest.mark.parametrize("options", ["prot=2525", "port=TAKEN", "uvloop=True"])
def test_in_an_override_for_fixtures_of_a_wide_scope(inner, options):
    test = OVERRIDE.format(options=options, number=0, fixture="smtptest_server")
    told = run_each(inner, test_server=HEAD + test)
    check(told["test_0"], OPTIONS[options])


def test_a_value_that_cannot_be_made_for_the_marker(inner):
    wrong = "@pytest.mark.smtptest(tls=TLS('ssl'))\ndef test_it(smtptest): pass\n"
    inner.files(test_wrong=HEAD + wrong)
    run = inner.run("-p", "no:xdist")
    assert "E   ValueError: mode must be 'starttls' or 'implicit', not 'ssl': did you" in run.out
    assert "lazr_smtptest/" not in run.out


def test_the_factory_raises_in_the_line_of_the_test(inner):
    tests = [
        f"def test_{number}(smtptest_factory):\n    smtptest_factory({options})\n"
        for number, options in enumerate(OPTIONS)
    ]
    inner.files(test_factory="\n".join([HEAD, *tests]))
    run = inner.run("-p", "no:xdist")
    assert list(run.outcomes.values()) == ["failed"] * len(OPTIONS)
    for number, start in enumerate(OPTIONS.values()):
        told = run.told(f"test_{number}")
        assert f">       smtptest_factory({list(OPTIONS)[number]})\n" in told
        assert f": {start.partition(': ')[2] or start}" in told
        assert "lazr_smtptest/" not in told
