"""Messages for people, and for programs.  In the place of the test process.

Mail may have anything in it, terminal escapes included.  What is printed for
people is made harmless first.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any, TextIO

from lazr_smtptest.controller import QueueController
from lazr_smtptest.message import Message

__all__ = ["JSONPrinter", "Printer", "announcement", "harmless"]

#: Columns of a title, at most.
_WIDTH = 72

#: Characters that change how a terminal shows others, or that it cannot show.
_UNSAFE = re.compile(
    r"[^\n\t -~\xa0-\U0010ffff]"
    r"|[\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """Escape what could do something to a terminal.

    :param text: Any text.
    :return: The text, printable but for tabs and line feeds.
    """
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def announcement(controller: QueueController) -> str:
    """Say where a server listens, in one line or two.

    :param controller: Its controller.
    :return: The lines.
    """
    lines = [f"listening on {controller.host} port {controller.port}"]
    if controller.server.tls is not None:
        lines.append(f"clients have to trust {controller.ca_file}")
    return "\n".join(lines)


class Printer:
    """Prints messages for people.

    In colour on a terminal, if rich is installed and NO_COLOR is not set.

    :param stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = _console(stream) if stream.isatty() else None

    def __call__(self, number: int, message: Message) -> None:
        """Print a message.

        :param number: How many it makes.
        :param message: The message.
        """
        self._print(self._title(f" message {number} "), "bold cyan")
        for line in _circumstances(message):
            self._print_line(line, "cyan")
        self._print("")
        for name, value in message.header_items():
            self._print_line(f"{name}: {value}", "bold" if name.lower() == "subject" else "")
        text = (message.text or message.html).rstrip()
        if text:
            self._print(f"\n{text}")
        for found in message.attachments:
            size = f"{len(found.data):,} octets"
            self._print_line(
                f"attached: {found.name or 'without a name'} ({found.type}, {size})", "dim"
            )
        self._print("")
        self._stream.flush()

    def _title(self, text: str) -> str:
        # Asked for each time: a window may have changed its size.
        columns = _WIDTH
        if self._stream.isatty():
            columns = min(columns, os.get_terminal_size(self._stream.fileno()).columns)
        return text.center(columns, "-")

    def _print_line(self, text: str, style: str) -> None:
        # Encoded words may have line feeds, which would make lines of their own.
        self._print(text.replace("\n", "\\n"), style)

    def _print(self, text: str, style: str = "") -> None:
        text = harmless(text)
        if self._console is None:
            self._stream.write(f"{text}\n")
        else:
            self._console.out(text, style=style or None, highlight=False)


def _console(stream: TextIO) -> Any:
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def _circumstances(message: Message) -> list[str]:
    envelope = message.envelope
    recipients = ", ".join(f"<{address}>" for address in envelope.rcpt_tos)
    user = "" if envelope.auth_user is None else f", logged in as {envelope.auth_user}"
    return [
        f"from <{envelope.mail_from}> to {recipients}",
        f"{envelope.tls or 'in the clear'}{user}",
    ]


class JSONPrinter:
    """Prints messages for programs, as one line of JSON each.

    In ASCII, so that it is the same in all encodings.

    :param stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, _number: int, message: Message) -> None:
        """Print a message.

        :param _number: How many it makes.
        :param message: The message.
        """
        self._stream.write(f"{json.dumps(_facts(message))}\n")
        self._stream.flush()


def _facts(message: Message) -> dict[str, Any]:
    envelope = message.envelope
    return {
        "sequence": envelope.sequence,
        "received_at": envelope.received_at.isoformat(),
        "peer": envelope.peer,
        "helo": envelope.helo,
        "tls": envelope.tls,
        "auth_user": envelope.auth_user,
        "mail_from": envelope.mail_from,
        "rcpt_tos": envelope.rcpt_tos,
        "subject": message.header("Subject"),
        "headers": message.header_items(),
        "text": message.text,
        "html": message.html,
        "links": message.links(),
        "attachments": [
            {"name": found.name, "type": found.type, "size": len(found.data)}
            for found in message.attachments
        ],
        "raw": base64.b64encode(message.raw).decode("ascii"),
    }
