"""The command line: what it waits for, and all the ways in which it ends."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from command_line import (
    COMMAND,
    assert_no_python,
    finish,
    run_command,
    running,
    send_message,
    send_octets,
)
from helpers import refused
from programs import missing

import lazr_smtptest
from lazr_smtptest import QueueController
from lazr_smtptest._cli import arguments
from lazr_smtptest._cli.command import main


def server_of(process: subprocess.Popen) -> int:
    """Give the process id of the server process."""
    if shutil.which("pgrep") is None:
        missing("the program pgrep is not installed")
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


# What it waits for.


def test_timeout_fails_if_no_client_came():
    with running("--count", "2", "--timeout", "0.2") as (process, port):
        assert finish(process) == (
            1,
            "0 messages, 0 sessions, 0 failed\n",
            f"lazr-smtptest: 0 of 2 messages came to localhost port {port} within 0.2 seconds\n"
            "No client has connected: see where it was told to send its mail.\n",
        )
        assert refused(port)


def test_timeout_reports_what_clients_did():
    with running("--count", "2", "--timeout", "1", "--quiet", "--fault", "EOM=552 5.2.2 Full") as (
        process,
        port,
    ):
        with pytest.raises(smtplib.SMTPDataError):
            send_message(port)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        first, *session = err.splitlines()
        assert (
            first
            == f"lazr-smtptest: 0 of 2 messages came to localhost port {port} within 1 seconds"
        )
        assert re.fullmatch(r"- \S+ port \d+, which calls itself '.+': QUIT", session[0])
        assert sum(line.endswith(" S 552 5.2.2 Full") for line in session) == 1


def test_timeout_without_count_is_how_long_it_receives():
    began = time.monotonic()
    with running("--timeout", "1.5") as (process, port):
        send_message(port, "one")
        status, out, err = finish(process)
        assert (status, out.count("Subject: one\n"), err) == (0, 1, "")
        assert out.endswith("\n1 message, 1 session, 0 failed\n")
        assert time.monotonic() - began >= 1.5
        assert refused(port)


@pytest.mark.parametrize("arguments", [[], ["--quiet"], ["--json"]])
def test_timeout_without_count_and_without_mail(arguments):
    status, out, err = run_command("--port", "0", "--timeout", "0.2", *arguments)
    summary = "" if arguments else "0 messages, 0 sessions, 0 failed\n"
    announced = rf"listening on localhost port \d+\n{summary}"
    assert status == 0
    assert re.fullmatch(announced, out + err)


def test_count_in_time_is_no_failure():
    with running("--count", "1", "--timeout", "60") as (process, port):
        send_message(port)
        status, out, err = finish(process)
        assert (status, out.count("Subject: hello\n"), err) == (0, 1, "")


def test_more_than_the_count_are_printed_if_they_were_accepted():
    with running("--count", "1") as (process, port):
        process.send_signal(signal.SIGSTOP)  # it takes none until all are there
        send_message(port, *map(str, range(20)))
        process.send_signal(signal.SIGCONT)
        status, out, err = finish(process)
        assert (status, err) == (0, "")
        assert re.findall("^Subject: (.*)$", out, re.MULTILINE) == list(map(str, range(20)))


# How it ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_ends_it_cleanly(number, whole_group):
    with running() as (process, port):
        (os.killpg if whole_group else os.kill)(process.pid, number)
        assert finish(process) == (0, "0 messages, 0 sessions, 0 failed\n", "")
        assert refused(port)


def test_nohup():
    """What is ignored from the start stays ignored."""
    with running("--count", "1", preexec_fn=_ignore_sighup) as (process, port):
        process.send_signal(signal.SIGHUP)
        send_message(port)
        assert finish(process)[::2] == (0, "")


def _ignore_sighup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("arguments", [[], ["--timeout", "1"]])
def test_a_reader_that_does_not_read(arguments):
    """The pipe is full, and still it ends."""
    impatient = (
        "import sys; from lazr_smtptest._cli import command, sink; sink._PATIENCE = 0.5;"
        "sys.exit(command.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", impatient, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        port = int(process.stdout.readline().split()[-1])
        send_octets(port, b"Subject: much\r\n\r\n" + 20_000 * b"a line of text\r\n")
        if not arguments:
            process.terminate()
        try:
            assert process.wait(10) == 1
        finally:
            process.kill()
        assert process.stderr.read() == (
            "lazr-smtptest: nobody has read what was printed for 0.5 seconds\n"
        )


def test_a_signal_before_all_have_come_is_a_failure():
    with running("--count", "2") as (process, port):
        send_message(port)
        while process.stdout.readline() != "Hello.\n":
            pass
        process.send_signal(signal.SIGINT)
        status, _, err = finish(process)
    assert status == 1
    assert (
        err == f"lazr-smtptest: interrupted when 1 of 2 messages came to localhost port {port}\n"
    )


ARMED = """
import os, signal, sys, threading
from lazr_smtptest._cli import command
from lazr_smtptest._cli.sink import MailSink

class Armed(MailSink):
    def run(self, *arguments):
        with self._until_signalled():  # the handlers are there from here on
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()
            return super().run(*arguments)
        return True  # it struck between these two lines

command.MailSink = Armed
sys.exit(command.main(["--quiet", "--port", "{port}", "--timeout", "10"]))
"""


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_a_signal_while_it_starts(delay):
    """Wherever it strikes, there is no traceback and no server left."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", ARMED.format(delay=delay, port=port)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert refused(port)


#: At an import of what the command needs, there is a Ctrl-C: number 0 is the package's first,
#: and makes those after it quiet.  Python runs this before the command.
INTERRUPTED = """
import atexit, os, signal, sys

imports = -2
def count(event, arguments):
    global imports
    if event == "import" and (imports > -2 or arguments[0] == "lazr_smtptest"):
        imports += 1
        if str(imports) == os.environ["MOMENT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(count)
atexit.register(lambda: print(imports))
"""

SCRIPT = Path(sysconfig.get_path("scripts"), "lazr-smtptest")
COMMANDS = [[SCRIPT], [sys.executable, SCRIPT], COMMAND, [sys.executable, "-mlazr_smtptest"]]


@pytest.fixture
def run_interrupted(tmp_path):
    """Return a function that runs it from a shell, which says what it says of a program."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)

    def run_interrupted(
        command: list[object], moment: int | None, before: str = ""
    ) -> subprocess.CompletedProcess:
        words = shlex.join([*map(str, command), "--version"])
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            ["sh", "-c", f"{before} {words}; echo status $?"],
            env={**os.environ, "MOMENT": str(moment), "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )

    return run_interrupted


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_it_imports(run_interrupted, command):
    """At the first import, at the last, and between them."""
    version = f"lazr-smtptest {lazr_smtptest.__version__}"
    undisturbed = run_interrupted(command, None)
    count = int(undisturbed.stdout.split()[2])
    assert undisturbed.stdout == f"{version}\n{count}\nstatus 0\n"
    assert count > 50
    for moment in sorted({1, 2, 3, count, *range(5, count, count // 8)}):
        done = run_interrupted(command, moment)
        assert (moment, done.stdout, done.stderr) == (moment, "status 130\n", "")


def test_ctrl_c_that_is_ignored_while_it_imports(run_interrupted):
    """As it is for what a script has started in the background."""
    done = run_interrupted(COMMAND, 3, before="trap '' INT;")
    assert done.stdout.startswith(f"lazr-smtptest {lazr_smtptest.__version__}\n")
    assert done.stdout.endswith("\nstatus 0\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "import lazr_smtptest, tool.__main__"],
        ["-m", "tool", "lazr_smtptest"],
        ["-m", "tool", "--", "-m", "lazr_smtptest"],
    ],
)
def test_ctrl_c_is_left_alone_where_the_package_is_imported(tmp_path, command):
    """A program of its own, or one that runs as a module, whose package is imported first."""
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text("import lazr_smtptest\n")
    (tmp_path / "tool" / "__main__.py").write_text(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=15,
        check=True,
    )
    assert done.stdout == "True\n"


def test_a_server_that_dies():
    with running("--count", "1", "--timeout", "10") as (process, port):
        os.kill(server_of(process), signal.SIGKILL)
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        assert err.startswith("lazr-smtptest: the server process ")
        assert f"port {port}" in err
        assert "Traceback" not in err
        assert "and run it again" in err
        assert_no_python(err)


def test_a_server_that_does_not_start_in_time(monkeypatch, capsys):
    """What is advised can be done on the command line, which has no such option."""
    late = functools.partial(QueueController, start_method="spawn", start_timeout=0.001)
    monkeypatch.setattr(arguments, "QueueController", late)
    assert main(["--port", "0"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lazr-smtptest: the server process ")
    assert "did not report that it serves within 0.001 seconds.  Look for what keeps it" in err
    assert_no_python(err.partition(".  It was here:")[0])


@pytest.mark.parametrize(("options", "expected"), [([], 0), (["--count", "9"], 1)])
def test_a_reader_that_goes_away(options, expected):
    with running(*options) as (process, port):
        process.stdout.close()
        send_message(port)
        assert process.wait(timeout=10) == expected
        assert process.stderr.read() == ""
        assert refused(port)
        process.stdout = None


def test_no_standard_output_at_all(tmp_path):
    command = " ".join([*COMMAND, "--timeout 0.1 --count 1 --port 0 >&-"])
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        "lazr-smtptest: 0 of 1 messages came to .+ within 0.1 seconds\nNo client .+\n", done.stderr
    )
