"""Debuggers in handlers, which run in the server process."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import textwrap

import pytest
from dap import Debugger
from helpers import START_METHODS
from paths import DOCS, SUPPORT, literal_block

DEBUGGED = SUPPORT / "debugged.py"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", START_METHODS)
def test_debugpy_stops_at_breakpoints_in_handlers_and_hooks(method):
    text = DEBUGGED.read_text().splitlines()
    lines = [number for number, line in enumerate(text, 1) if "# stop in the" in line]
    assert len(lines) == 2
    command = [sys.executable, "-Xfrozen_modules=off", str(DEBUGGED), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            port = int(program.stdout.readline())
            with contextlib.closing(Debugger(port, str(DEBUGGED), lines)) as debugger:
                assert program.wait(100) == 0
        finally:
            program.kill()
    assert debugger.hits == ["breakpoint", "breakpoint"]


TERMINAL = """
import smtplib
from lazr_smtptest import Controller, MessageQueue, QueueServer

class Stopping(QueueServer):
    def handle_message(self, message):
        subject = message["Subject"]
{recipe}
        super().handle_message(message)

inbox = MessageQueue()
with Controller(Stopping("localhost", 0, inbox)) as controller:
    with smtplib.SMTP(controller.host, controller.port) as client:
        client.sendmail("kim@example.com", "lee@example.com", "Subject: one\\n\\n")
    print("got", inbox.get()["Subject"])
"""


def test_pdb_at_the_terminal_as_the_manual_says():
    recipe = literal_block((DOCS / "debugging.rst").read_text("utf-8"), "Or stop it right there::")
    script = TERMINAL.format(recipe=textwrap.indent(recipe, " " * 8))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])
    shown = _dialogue(terminal, {"(Pdb) ": "p subject + '!'", "'one!'": "c"})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert "got one" in shown


def _dialogue(terminal: int, answers: dict[str, str]) -> str:
    """Answer what a program shows at its terminal; return all of it."""
    shown = ""
    with contextlib.suppress(OSError):  # EIO at the end
        while piece := os.read(terminal, 1000):
            shown += piece.decode()
            for cue in [cue for cue in answers if cue in shown]:
                os.write(terminal, answers.pop(cue).encode() + b"\n")
                break
    os.close(terminal)
    return shown
