"""The command line's sink, printers and mailboxes.  In the place of the test process.

A signal, the end of the time, or enough messages stop the server, whatever is
under way here.  What it had accepted until then is still handed on: a client
that got its 250 finds its message printed and kept.

That waits for whoever reads what is printed, and as soon as it is to end, it
does so for a limited time: a system call that blocks is ended by a SIGALRM.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mailbox
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty
from types import FrameType
from typing import Any, TextIO

from lazr_smtptest._parent.describe import problem_line, session_lines
from lazr_smtptest._util import now
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import ServerDied, StartError
from lazr_smtptest.message import Envelope, Message
from lazr_smtptest.sessions import Session

#: A terminal that goes away sends SIGHUP.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Exit codes of a process that these have ended.
_KILLED = tuple(-number for number in _SIGNALS)

#: Seconds that handing on one message may take once it is to end.
_PATIENCE = 10.0

#: Seconds that a timer can be set to, more or less, on any system.
_LONGEST_TIMER = 1e8

#: Sessions that the report shows.
_SESSIONS = 3


class OutputStuck(OSError):
    """Nobody reads what is printed."""


class MailSink:
    """Takes messages from a server until there are enough, or the time is up."""

    def __init__(
        self, controller: QueueController, count: int | None, timeout: float | None
    ) -> None:
        #: What is done with each message, in this order; called with its number, too.
        self.uses: list[Callable[[int, Message], None]] = []
        #: What is done with each session, in the end.
        self.session_uses: list[Callable[[int, Session], None]] = []
        #: What is wrong, by `check`, in the order in which it came.
        self.errors: list[str] = []
        self._controller = controller
        self._count = count
        self._timeout = timeout
        self._deadline = self._limited_from = math.inf
        self._number = 0
        self._receiving = self._told_to_end = self._time_is_up = False
        self._sessions: list[Session] | None = []

    def run(
        self, faults: Iterable[dict[str, Any]], announce: Callable[[QueueController], None]
    ) -> bool:
        """Run the server, and take what comes; return whether all came that was to come.

        ``announce`` is called when it serves.
        """
        with self._until_signalled(), self._controller as controller:
            # timeout(1), and a terminal that goes away, signal the whole process
            # group; what the server process had not handed on would be lost.
            assert controller.pid is not None
            # It can be done to what was forked, and not to what was spawned since.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(controller.pid, 0)
            for fault in faults:
                controller.fault(**fault)
            if self._timeout is not None:
                self._deadline = now() + self._timeout
                self._limited_from = min(self._limited_from, self._deadline)
            self._receiving = True  # clients may know the port already, and do from here on
            if not self._told_to_end:
                announce(controller)
            self._receive()
            with self._time_limit():
                for number, session in enumerate(self._sessions or (), 1):
                    for use in self.session_uses:
                        use(number, session)
        return not self._time_is_up if self._count is None else self._is_enough()

    def check(self) -> None:
        """Look for errors in all messages and sessions."""
        self.uses.append(lambda number, message: self._add_errors(f"message {number}", message))
        self.session_uses.append(
            lambda number, session: self._add_errors(f"session {number}", session)
        )

    def _add_errors(self, what: str, thing: Message | Session) -> None:
        self.errors += [
            f"{what}: {problem_line(problem)}"
            for problem in thing.problems
            if problem.level == "error"
        ]

    def report(self) -> list[str]:
        """Return lines on what came when not all did, and what clients did instead."""
        wanted = "" if self._count is None else f" of {self._count}"
        came = f"{self._number}{wanted} messages came"
        where = f"to {self._controller._endpoint}"
        if not self._time_is_up:
            return [f"interrupted when {came} {where}"]
        lines = [f"{came} {where} within {self._timeout:g} seconds"]
        if self._sessions is None:
            return [*lines, "What clients did is not known."]
        if not self._sessions:
            lines.append("No client has connected: see where it was told to send its mail.")
        for session in self._sessions[-_SESSIONS:]:
            lines += session_lines(session)
        return lines

    def _is_enough(self) -> bool:
        return self._count is not None and self._number >= self._count

    def _is_over(self) -> bool:
        """Return whether it is to end."""
        if self._told_to_end or self._is_enough():
            return True
        self._time_is_up = now() >= self._deadline
        return self._time_is_up

    def _receive(self) -> None:
        while True:
            was_running = self._controller.is_running
            if was_running and self._is_over():
                self._stop()
            left = max(self._deadline - now(), 0.0)
            try:
                self._hand_on(self._controller.queue.get(timeout=min(left, 60.0)))
            except Empty:
                if not was_running:  # a signal may have come, and messages, since
                    return
            except ServerDied as error:
                if error.exitcode in _KILLED and not error.lost:
                    return
                raise

    def _stop(self) -> None:
        """Stop the server, and keep what clients did."""
        try:
            self._controller.stop()
        finally:
            _, self._sessions = self._controller._diagnose(0)

    def _hand_on(self, message: Message) -> None:
        self._number += 1
        with self._time_limit():
            for use in self.uses:
                use(self._number, message)

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        self._limit_time()
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _limit_time(self) -> None:
        """Call `_give_up` when a message has taken too long."""
        if self._limited_from < math.inf:
            left = max(self._limited_from - now(), 0.0) + _PATIENCE
            signal.setitimer(signal.ITIMER_REAL, min(left, _LONGEST_TIMER))

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        raise OutputStuck(f"nobody has read what was printed for {_PATIENCE:g} seconds")

    @contextlib.contextmanager
    def _until_signalled(self) -> Iterator[None]:
        handlers = dict.fromkeys(_SIGNALS, self._end) | {signal.SIGALRM: self._give_up}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup was asked to see to that
            del handlers[signal.SIGHUP]
        before = [(number, signal.signal(number, handlers[number])) for number in handlers]
        try:
            yield
        except (ServerDied, StartError):
            # Whoever ends a process group ends the server process, too.
            if self._receiving or not self._told_to_end:
                raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before:
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """Stop the server, on a signal; that ends the waiting for messages.

        While it starts, that has to wait: an exception that a handler raises
        can come up anywhere, in a callback that cannot pass it on, too.
        """
        # Once is enough: stopping is under way, and is bounded in time.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._told_to_end = True
        self._limited_from = now()
        if self._receiving:
            self._stop()
            self._limit_time()


# Printers.  Mail may have anything in it, terminal escapes included; what is
# printed for people is made harmless first.


#: Columns of a title, at most.
_WIDTH = 72

#: Characters that change how a terminal shows others, or that it cannot show.
_UNSAFE = re.compile(
    r"[^\n\t -~\xa0-\U0010ffff]"
    r"|[\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """Escape what could do something to a terminal, but for tabs and line feeds."""
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def announcement(controller: QueueController) -> str:
    """Return where a server listens, in one line; and one for each file of its TLS."""
    lines = [f"listening on {controller._endpoint}"]
    tls = controller.server.tls
    if tls is not None:
        lines.append(f"clients have to trust {controller.ca_file}")
        if tls.client_cert is not None and tls.client_ca_file is None:
            may = "may" if tls.client_cert == "optional" else "have to"
            shown = controller.client_cert_file
            lines.append(f"clients {may} show a certificate, such as {shown}")
    return "\n".join(lines)


class Printer:
    """Prints messages for people.

    In colour on a terminal, if rich is installed and NO_COLOR is not set.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = _console(stream) if stream.isatty() else None

    def __call__(self, number: int, message: Message) -> None:
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
        for problem in message.problems:
            self._print_line(f"{problem.level}: {problem_line(problem)}", "yellow")
        self._print("")
        self._stream.flush()

    def session(self, number: int, session: Session) -> None:
        """Print a line for each problem of a session."""
        for problem in session.problems:
            self._print_line(
                f"session {number}: {problem.level}: {problem_line(problem)}", "yellow"
            )
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
    subject = envelope.client_cert_subject
    shown = "" if subject is None else f", with the certificate {subject}"
    return [
        f"from <{envelope.mail_from}> to {recipients}",
        f"{envelope.tls or 'in the clear'}{shown}{user}",
    ]


class JSONPrinter:
    """Prints messages for programs, as one line of JSON each.

    In ASCII, so that it is the same in all encodings.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, _number: int, message: Message) -> None:
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
        "client_cert_subject": envelope.client_cert_subject,
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
        "problems": [problem._asdict() for problem in message.problems],
        "raw": base64.b64encode(message.raw).decode("ascii"),
    }


# Mailboxes.


#: Seconds that another program may keep an mbox file locked.
_LOCK_TIMEOUT = 5.0

#: Seconds between two attempts to lock it.
_LOCK_INTERVAL = 0.01


@contextlib.contextmanager
def maildir(path: str) -> Iterator[Callable[[int, Message], None]]:
    """Open a Maildir, and make it if it is not there; yield what adds to it."""
    # mailbox makes these with a new folder only.
    for name in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(path, name), exist_ok=True)
    with contextlib.closing(mailbox.Maildir(path)) as box:

        def add(_number: int, message: Message) -> None:
            box.add(_delivered(message))

        yield add


@contextlib.contextmanager
def mbox(path: str) -> Iterator[Callable[[int, Message], None]]:
    """Open a file in mbox format, and make it if it is not there; yield what adds to it.

    Each message is in the file, and the file is unlocked, when it was added.  If
    another program keeps it locked for 5 seconds, that raises `mailbox.Error`.
    """

    def add(_number: int, message: Message) -> None:
        _lock(box)
        try:
            # Octets: mailbox would parse a message, and write it anew.
            box.add(_from_line(message.envelope) + _delivered(message))
            box.flush()
        finally:
            box.unlock()

    with contextlib.closing(mailbox.mbox(path)) as box:
        yield add


def _lock(box: mailbox.mbox) -> None:
    deadline = now() + _LOCK_TIMEOUT
    while True:
        try:
            return box.lock()
        except mailbox.ExternalClashError:
            if now() >= deadline:
                raise
        time.sleep(_LOCK_INTERVAL)  # a file that is the lock tells nobody when it goes


def _from_line(envelope: Envelope) -> bytes:
    """Make the line that begins a message in an mbox file (RFC 4155)."""
    sender = envelope.mail_from or "MAILER-DAEMON"
    date = time.asctime(envelope.received_at.utctimetuple())
    return f"From {sender} {date}\n".encode("utf-8", "surrogateescape")


def _delivered(message: Message) -> bytes:
    """Add what final delivery adds (RFC 5321, 4.4), in the system's line ends."""
    envelope = message.envelope
    lines = [f"Return-Path: <{envelope.mail_from}>"]
    lines += [f"Delivered-To: {address}" for address in envelope.rcpt_tos]
    head = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    # A mailbox's own first line would end the header here; Gnus keeps it so.
    content = re.sub(rb"\A>?From ", b"X-From-Line: ", message.raw)
    return head + content.replace(b"\r\n", b"\n")
