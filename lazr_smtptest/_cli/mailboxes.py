"""The mailboxes in which the command line keeps messages."""

from __future__ import annotations

import contextlib
import mailbox
import os
import re
import time
from collections.abc import Callable, Iterator

from lazr_smtptest._util import now
from lazr_smtptest.message import Envelope, Message

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
