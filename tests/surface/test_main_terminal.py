"""The command line in a shell script, and on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import COMMAND, ENVIRONMENT, send_message
from helpers import refused, until
from paths import EXAMPLES

SCRIPT = EXAMPLES / "mail_sink.sh"

ESCAPE = "\x1b"


# In a shell script.


def run_script(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the manual, with a program that sends mail or does not."""
    command = tmp_path / "bin" / "lazr-smtptest"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    environment = {
        **ENVIRONMENT,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "MAILDIR": str(tmp_path / "mail"),
    }
    # The script waits for ten seconds; where it is to fail that is long.
    text = SCRIPT.read_text("utf-8")
    assert "--timeout 10 " in text
    if "smtplib" not in program:
        text = text.replace("--timeout 10 ", "--timeout 0.5 ")
    return subprocess.run(
        ["sh", "-c", text, "mail_sink.sh", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=15,
        check=False,
    )


@pytest.mark.parametrize("lines", [1, 20_000])
def test_script_in_which_the_mail_comes(tmp_path, lines):
    """Be it more than a pipe holds, which nobody reads there."""
    program = textwrap.dedent(f"""
        import os, smtplib
        with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as client:
            mail = "Subject: Lunch?\\n\\n" + {lines} * "At noon.\\n"
            client.sendmail("kim@example.com", "lee@example.com", mail)
    """)
    done = run_script(tmp_path, program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Subject: Lunch?\n", "")


def test_script_in_which_it_does_not(tmp_path):
    done = run_script(tmp_path, "pass")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lazr-smtptest: 0 of 1 messages came to localhost port ")


def test_script_whose_program_fails(tmp_path):
    """Its exit status is that of the script, and nothing stays behind that listens."""
    program = textwrap.dedent("""
        import os, smtplib, sys
        print(os.environ["SMTP_PORT"])
        smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])).quit()
        sys.exit(3)
    """)
    done = run_script(tmp_path, program)
    assert done.returncode == 3
    assert refused(int(done.stdout))
    port = done.stdout.strip()
    assert done.stderr == (
        f"lazr-smtptest: interrupted when 0 of 1 messages came to localhost port {port}\n"
    )


# On a terminal.


class Terminal:
    """A pseudo-terminal with the command in it, as its controlling process."""

    def __init__(self, *arguments: str, columns: int = 60, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns)
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**ENVIRONMENT, "TERM": "xterm", **environment},
        )
        os.close(slave)
        self.shown = ""
        self.port = int(self.read(r"listening on \S+ port (\d+)\r\n")[1])

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)

    def read(self, pattern: str) -> re.Match[str]:
        """Read until something is shown; give and drop all up to it."""
        deadline = time.monotonic() + 10
        while not (found := re.search(pattern, self.shown)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.shown!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    self.shown += os.read(self._master, 100_000).decode()
                except OSError:  # it has ended, and all that it showed has been read
                    raise AssertionError(f"no {pattern!r} in {self.shown!r}") from None
        self.shown = self.shown[found.end() :]
        return found

    def end(self) -> int:
        """Wait for its end, and give the exit status; print what was shown."""
        status = self.process.wait(10)
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.shown += os.read(self._master, 100_000).decode()
            except OSError:  # that was all
                break
        print(self.shown)
        return status

    def message(self, subject: str, number: int) -> list[str]:
        """Send a message, and give the lines that are shown of it."""
        send_message(self.port, subject)
        shown = self.read(rf"[^\n]* message {number} (.|\n)*Hello\.[^\n]*\r\n(.+\r\n)*\r\n")[0]
        return shown.split("\r\n")

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal():
    with contextlib.ExitStack() as opened:

        def start(*arguments: str, **options: Any) -> Terminal:
            return opened.enter_context(contextlib.closing(Terminal(*arguments, **options)))

        yield start


def plain(text: str) -> str:
    """Take the colours out of what is shown."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_terminal_has_colours(terminal):
    lines = terminal().message("trees", 1)
    assert lines[0].startswith("\x1b[1;36m---")
    assert plain(lines[0]) == f"{' message 1 ':-^60}"
    assert "\x1b[1mSubject: trees\x1b[0m" in lines
    assert "Hello." in lines


def test_terminal_has_a_session_that_failed_in_red(terminal):
    shown = terminal("-v")
    with socket.create_connection(("localhost", shown.port), 10) as client:
        shown.read(r"\x1b\[2msession 1: \S+ port \d+ has connected\x1b\[0m\r\n")
        client.sendall(b"EHLO \x1b[7m\r\n")
        shown.read(r"\x1b\[2msession 1 +[\d.]+ C EHLO \\x1b\[7m\x1b\[0m\r\n")
    shown.read(r"\x1b\[31msession 1 failed: .*\r\n")
    shown.type(b"\x03")
    assert shown.end() == 0


def test_terminal_may_want_no_colours(terminal):
    lines = terminal(NO_COLOR="1").message("trees", 1)
    assert lines[0] == f"{' message 1 ':-^60}"
    assert "Subject: trees" in lines
    assert not any(ESCAPE in line for line in lines)


def test_terminal_that_knows_no_colours(terminal):
    lines = terminal(TERM="dumb").message("trees", 1)
    assert not any(ESCAPE in line for line in lines)


def test_terminal_without_rich(terminal, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('it is not installed')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    lines = terminal(PYTHONPATH=path).message("trees", 1)
    assert lines[0] == f"{' message 1 ':-^60}"


def test_terminal_is_safe_from_mail(terminal):
    shown = terminal()
    lines = shown.message("\x1b]0;title\x07\x1b[2J[bold]x[/bold]", 1)
    assert r"Subject: \x1b]0;title\x07\x1b[2J[bold]x[/bold]" in [plain(line) for line in lines]
    assert not any(ESCAPE in plain(line) for line in lines)


def test_terminal_that_changes_its_size(terminal):
    shown = terminal(columns=60)
    assert plain(shown.message("one", 1)[0]) == f"{' message 1 ':-^60}"
    shown.resize(30)
    assert plain(shown.message("two", 2)[0]) == f"{' message 2 ':-^30}"
    shown.resize(200)
    assert plain(shown.message("three", 3)[0]) == f"{' message 3 ':-^72}"
    shown.type(b"\x03")
    assert shown.end() == 0


def test_terminal_ctrl_c(terminal):
    shown = terminal()
    shown.message("one", 1)
    shown.type(b"\x03")
    assert shown.end() == 0
    assert plain(shown.read(r"\A\^C\r\n.*\r\n\Z")[0]) == "^C\r\n1 message, 1 session, 0 failed\r\n"
    assert refused(shown.port)


def test_terminal_ctrl_c_with_a_count(terminal):
    shown = terminal("--count", "2")
    shown.type(b"\x03")
    assert shown.end() == 1
    shown.read("interrupted when 0 of 2 messages came to localhost port")


def test_terminal_whose_output_is_piped(terminal, tmp_path):
    """Standard input and error are a terminal, and output is not."""
    master, slave = pty.openpty()
    with open(tmp_path / "out", "w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--count", "1"],
            stdin=slave,
            stdout=out,
            stderr=slave,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(slave)
        with process:
            path = tmp_path / "out"
            until(lambda: path.read_text().endswith("\n"))
            send_message(int(path.read_text().split()[-1]))
            assert process.wait(10) == 0
    os.close(master)
    assert "Subject: hello\n" in path.read_text()
    assert ESCAPE not in path.read_text()
