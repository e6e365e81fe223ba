"""Pages of what arrives at the command line."""

from __future__ import annotations

from collections import deque

from lazr_smtptest._pages.escape import counted
from lazr_smtptest._pages.folder import Folder
from lazr_smtptest._pages.message import moment, title_of
from lazr_smtptest._pages.page import ENTRIES, Entry, index, page_of_message, page_of_sessions
from lazr_smtptest._util import addresses
from lazr_smtptest.message import Message
from lazr_smtptest.sessions import Session


class ArrivalPages:
    """A page for each message, and an index that has the newest on top.

    The last 1000 are kept.  The index is there from the start, and is true after each message.

    :raises OSError: The folder cannot be made or changed, or it has an index that is not ours.
    """

    def __init__(self, path: str) -> None:
        self._folder = Folder(path)
        self._folder.begin()
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=ENTRIES)
        self._count = 0
        self._sessions: list[Session] = []
        self._write_index()

    def add_message(self, number: int, message: Message) -> None:
        self._count = number
        if len(self._entries) == ENTRIES:
            self._folder.remove(self._entries[0][1].page)
        name = self._folder.add(f"{number:05d}", page_of_message(number, message))
        envelope = message.envelope
        about = (
            f"Message {number:,}, {moment(envelope)}, from {addresses([envelope.mail_from])} "
            f"to {addresses(envelope.rcpt_tos)}"
        )
        problems = ", ".join(problem.code for problem in message.problems)
        entry = Entry("", name, title_of(message), about, f"Problems: {problems}" * bool(problems))
        self._entries.append((envelope.sequence, entry))
        self._write_index()

    def add_session(self, _number: int, session: Session) -> None:
        self._sessions.append(session)

    def close(self) -> None:
        """Write what clients did; they are known in the end."""
        if self._sessions:
            links = {sequence: entry.page for sequence, entry in self._entries}
            name = self._folder.add("sessions", page_of_sessions(self._sessions, links))
            about = f"What clients did, in {counted(len(self._sessions), 'session')}"
            self._write_index(Entry("Sessions", name, "Sessions", about))

    def _write_index(self, *more: Entry) -> None:
        remarks = [f"{counted(self._count, 'message')} so far.  The newest is on top."]
        if self._count > len(self._entries):
            remarks.append(f"The last {len(self._entries):,} are kept here.")
        entries = [entry for _, entry in reversed(self._entries)]
        self._folder.write_index(index("Mail", remarks, [*more, *entries]))
