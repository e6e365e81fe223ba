"""What importing costs those who only have it installed, and what can be imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from scripts import run_python

import lazr_smtptest


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{textwrap.dedent(code)}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=15,
        check=True,
    )
    return set(done.stdout.split())


def test_nothing_heavy_until_a_server_is_made():
    loaded = modules_after("from lazr_smtptest import QueueController, QueueServer, ServerDied")
    heavy = {"aiosmtpd", "asyncio", "ctypes", "email.policy", "multiprocessing", "uvloop"}
    assert not loaded & heavy


def test_aiosmtpd_only_when_a_server_starts():
    loaded = modules_after("""
        from lazr_smtptest import QueueController
        QueueController()
    """)
    assert "aiosmtpd" not in loaded


def test_python_warns_of_nothing_that_aiosmtpd_imports():
    """As Python 3.15 does: its `typing` warns of a name that is going."""
    script = """
        import typing, warnings
        byte_string = vars(typing).pop("ByteString", None)
        def warn(name):
            if name != "ByteString":
                raise AttributeError(name)
            text = "'typing.ByteString' and 'collections.abc.ByteString' are deprecated"
            warnings.warn(text, DeprecationWarning)
            return byte_string
        typing.__getattr__ = warn
        from lazr_smtptest import QueueController
        with QueueController():
            print("started")
    """
    done = run_python(script)
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_aiosmtpd_is_imported_without_a_warning():
    """Python 3.15 has one for it, and to `modules_after` each is an error."""
    assert "aiosmtpd.smtp" in modules_after("import lazr_smtptest._launch")


def test_every_name_can_be_imported():
    for name in lazr_smtptest.__all__:
        assert getattr(lazr_smtptest, name) is not None
    assert lazr_smtptest.Message.__module__ == "lazr_smtptest.message"


def test_there_are_no_other_names():
    try:
        lazr_smtptest.Mesage  # noqa: B018
    except AttributeError as error:
        assert "Mesage" in str(error)
    else:
        raise AssertionError("a name that is not there was found")


def test_aliases_are_the_same_classes():
    import lazr.smtptest.controller
    import lazr.smtptest.server

    assert lazr.smtptest.controller.Controller is lazr_smtptest.Controller
    assert lazr.smtptest.controller.QueueController is lazr_smtptest.QueueController
    assert lazr.smtptest.server.Server is lazr_smtptest.Server
    assert lazr.smtptest.server.QueueServer is lazr_smtptest.QueueServer
    assert lazr.smtptest.__version__ == lazr_smtptest.__version__
