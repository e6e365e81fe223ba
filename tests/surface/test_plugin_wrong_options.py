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


#: What a test calls, and what is wrong with it.
CALLS = {
    "smtptest.fault('rcptt', '550 No')": "ValueError: stage must be one of CONNECT, ",
    "smtptest.fault('RCPT', '550 No', count=2)": "TypeError: fault() has no option 'count'",
    "smtptest.gate('RCPT').wait_parked(timeout=-1)": "ValueError: timeout must be a finite ",
    "smtptest.wait(timout=5)": "TypeError: a message has no 'timout' to look for",
    "smtptest.wait('kim@x')": "TypeError: timeout must be a number of seconds, not 'kim@x'",
    "smtptest.wait_for_each([7])": "TypeError: recipients must be addresses, each a str, not 7",
    "smtptest.queue.get(timeout='x')": "TypeError: timeout must be a number of seconds, not 'x'",
    "smtptest.restart(tls='ssl')": "ValueError: tls must be 'starttls' or 'implicit', not 'ssl'",
    "smtptest.client_context()": "ValueError: the server on localhost port ",
    "QueueController(prot=1)": "TypeError: QueueController() has no option 'prot'",
    "QueueController(port=70000)": "ValueError: port must be from 0 to 65535, not 70000",
    "SharedController(faults='mine')": "ValueError: faults must be 'own' or 'all', not 'mine'",
    "connect('leases', 'key')": "ValueError: address must be what a SharedController has",
    "TLS(variant='revoked')": "ValueError: variant must be 'valid', 'expired', 'wrong-host'",
}

OF_CALLS = """
from lazr_smtptest import *

"""


def test_a_refused_argument_is_shown_in_the_line_of_the_test(inner):
    tests = [f"def test_{n}(smtptest):\n    {call}\n" for n, call in enumerate(CALLS)]
    inner.files(test_calls="\n".join([OF_CALLS, *tests]))
    run = inner.run("-p", "no:xdist")
    assert list(run.outcomes.values()) == ["failed"] * len(CALLS)
    for number, (call, start) in enumerate(CALLS.items()):
        told = run.told(f"test_{number}")
        assert f">       {call}\n" in told
        assert f"E       {start}" in told
        assert "lazr_smtptest/" not in told


def test_a_refused_argument_of_a_coroutine(inner):
    test = """
        import asyncio

        async def wait(server):
            await server.wait_async("x")

        def test_it(smtptest):
            asyncio.run(wait(smtptest))
        """
    inner.files(test_it=test)
    told = inner.run("-p", "no:xdist").told("test_it")
    assert '>       await server.wait_async("x")\n' in told
    assert "lazr_smtptest/" not in told


def test_a_refused_argument_with_a_full_trace(inner):
    inner.files(test_it="def test_it(smtptest):\n    smtptest.fault('rcptt', '550 No')\n")
    run = inner.run("-p", "no:xdist", "--full-trace")
    assert "lazr_smtptest/_wire/rules.py" in run.told("test_it")


def test_what_goes_wrong_in_our_code_is_shown(inner):
    """No argument is refused there."""
    inner.files(
        test_it="""
            def test_it(smtptest, monkeypatch):
                monkeypatch.setattr("lazr_smtptest._wire.rules.STAGES", None)
                smtptest.fault("RCPT", "550 No")
            """
    )
    run = inner.run("-p", "no:xdist")
    assert "for name in STAGES" in run.told("test_it")
    assert "lazr_smtptest/_wire/rules.py" in run.told("test_it")
