"""Use the installed package as somebody would who has nothing else.

Run by each Python, in an environment with the wheel and what it requires: no
pytest, and nothing of the checkout.  It prints what has been tried.
"""

from __future__ import annotations

import importlib
import re
import smtplib
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import lazr_smtptest
from lazr_smtptest import QueueController

PROJECT = "lazr-smtptest"

#: What a module may miss: pytest where its plugin is, and what the extras bring.
OPTIONAL = {"pytest", "scramp", "trustme", "uvloop"}

STRICT = [sys.executable, "-I", "-W", "error"]


def every_module() -> None:
    paths = [path for path in metadata.files(PROJECT) or () if path.suffix == ".py"]
    assert Path(lazr_smtptest.__file__).is_relative_to(sys.prefix)
    for path in paths:
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name in OPTIONAL, f"{name} needs {error.name}"


def version() -> None:
    script = str(Path(sys.executable).with_name(PROJECT))
    for command in [*STRICT, "-m", "lazr_smtptest"], [script]:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20)
        said = (done.returncode, done.stdout, done.stderr)
        assert said == (0, f"{PROJECT} {metadata.version(PROJECT)}\n", ""), said


def console_script() -> None:
    """Leave its standard error to it: whoever runs this looks at that."""
    script = [*STRICT, str(Path(sys.executable).with_name(PROJECT))]
    with subprocess.Popen(
        [*script, "--port", "0", "--count", "1"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            listening = process.stdout.readline()
            found = re.fullmatch(r"listening on (\S+) port (\d+)\n", listening)
            assert found, listening
            _send(found[1], int(found[2]), "printed")
            printed, _ = process.communicate(timeout=20)
            assert process.returncode == 0
            assert "Subject: printed\n" in printed, printed
        finally:
            process.kill()


def message() -> None:
    _receives(QueueController())


def spawned() -> None:
    _receives(QueueController(start_method="spawn"))


def _receives(controller: QueueController) -> None:
    with controller:
        _send(controller.host, controller.port, "queued")
        received = controller.queue.get_nowait()
    assert received["Subject"] == "queued"
    assert received.raw == b"Subject: queued\r\n\r\nHello.\r\n"
    assert not controller.is_running


def _send(host: str, port: int, subject: str) -> None:
    text = f"Subject: {subject}\r\n\r\nHello.\r\n"
    with smtplib.SMTP(host, port, timeout=20) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], text)


def no_tls() -> None:
    try:
        QueueController(tls="starttls").start()
    except ImportError as error:
        assert error.name == "trustme", error
        assert "pip install 'lazr-smtptest[tls]'" in str(error), error
    else:
        raise AssertionError("TLS without a certificate, and without trustme")


def old_names() -> None:
    for module, name in ("controller", "QueueController"), ("server", "QueueServer"):
        old = importlib.import_module(f"lazr.smtptest.{module}")
        assert getattr(old, name) is getattr(lazr_smtptest, name)


def typed() -> None:
    for package in "lazr_smtptest", "lazr.smtptest":
        assert files(package).joinpath("py.typed").is_file(), package


TRIALS = [every_module, version, console_script, message, spawned, no_tls, old_names, typed]

if __name__ == "__main__":
    for trial in TRIALS:
        trial()
        print(trial.__name__.replace("_", " "))
