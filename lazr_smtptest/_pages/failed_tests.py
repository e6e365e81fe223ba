"""Pages of failed tests, and their index by worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lazr_smtptest._pages.escape import counted
from lazr_smtptest._pages.folder import Folder
from lazr_smtptest._pages.page import Entry, MailOfServer, index, page_of_test

#: Pages that one process writes; more failures than that mostly have one cause.
_PAGES = 500


class FailedTestPages:
    """The pages that one process writes which runs tests.

    :param path: The folder.
    :param worker: What pytest-xdist calls the process; empty without it.
    """

    def __init__(self, path: str, worker: str) -> None:
        self._folder = Folder(path)
        self._worker = worker
        self._count = 0

    def add(
        self,
        test: str,
        when: str,
        failure: str,
        servers: Sequence[MailOfServer],
        *,
        with_problems: bool,
    ) -> Entry | None:
        """Write the page of a test; return its entry, or None if there are enough pages.

        :param test: The test's node id.
        :param when: In which phase it failed.
        :param failure: What pytest says of the failure.
        :raises OSError: The page cannot be written.
        """
        if self._count >= _PAGES:
            return None
        about = [("Failed in", when), *([("Worker", self._worker)] if self._worker else [])]
        page = page_of_test(test, about, failure, servers, with_problems=with_problems)
        name = self._folder.add(f"{self._worker}-{test}-{when}", page)
        self._count += 1
        lines = [line.strip() for line in failure.splitlines() if line.startswith("E ")]
        why = lines[0].removeprefix("E ").strip() if lines else failure.strip().partition("\n")[0]
        return Entry(self._worker, name, test, _about(when, servers), why.removesuffix(":"))


def _about(when: str, servers: Sequence[MailOfServer]) -> str:
    taken = sum(server.taken_count for server in servers)
    left = sum(server.left_count for server in servers)
    facts = [f"failed in {when}", counted(taken + left, "message")]
    facts += [f"{left:,} of them unread"] if left else []
    return ", ".join(facts)


def begin(path: str) -> None:
    """Make the folder, and remove what the run before has written; see `Folder.begin`."""
    Folder(path).begin()


def write_index(path: str, entries: Iterable[Entry]) -> None:
    """Write the index of all workers' pages.

    :raises OSError: It cannot be written.
    """
    # In the order of the workers' numbers: gw2 is before gw10.
    found = sorted(entries, key=lambda entry: (len(entry.group), entry.group))
    remark = (
        f"{counted(len(found), 'failure')} of tests with an SMTP server"
        if found
        else "No test failed that had an SMTP server."
    )
    Folder(path).write_index(index("Mail of failed tests", [remark], found))
