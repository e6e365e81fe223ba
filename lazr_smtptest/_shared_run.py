"""One server for a whole run of pytest, and a lease of it for each test.  Test process.

`pytest_plugin` imports this where ``smtptest_shared`` is set.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from lazr_smtptest._fixtures import WorkerServers, _left
from lazr_smtptest.errors import HandlerError, LeaseError, SMTPTestError
from lazr_smtptest.shared import Lease, SharedController, connect

#: What this process of pytest's needs to lease: the places, and the key.
Access = dict[str, Any]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_PLACE = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\[\]:]*)):(?P<port>\d{1,5})")


def place(text: str) -> tuple[str, int]:
    """Return host and port.

    :raises pytest.UsageError: It is not ``HOST:PORT``.
    """
    found = _PLACE.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise pytest.UsageError(
            "smtptest_shared must be HOST:PORT, such as localhost:2525, with port 0 for a free "
            f"one, not {text}"
        )
    return found["v6"] or found["host"], int(found["port"])


class SharedRun:
    """The server of a run, in the process that pytest was started in."""

    def __init__(self, where: str, options: dict[str, Any], *, has_remote_workers: bool) -> None:
        host, port = place(where)
        if has_remote_workers:
            options = {"lease_host": "127.0.0.1" if host in _LOOPBACK else host, **options}
        try:
            self._controller = SharedController(host, port, **options)
        except (TypeError, ValueError, ImportError) as error:
            raise pytest.UsageError(f"smtptest_shared: {error}") from None
        try:
            self._controller.start()
        except (OSError, SMTPTestError) as error:
            raise pytest.UsageError(f"smtptest_shared: {error}") from None
        #: What the end of the run has to say.
        self.lines: list[str] = []

    def __str__(self) -> str:
        return f"one server for all tests, on {self._controller._endpoint}"

    @property
    def access(self) -> Access:
        return {"addresses": list(self._controller.addresses), "key": self._controller.key}

    def pytest_runtest_logreport(self) -> None:
        """Take in what the server process has sent, such as log records."""
        if self._controller._link is not None:
            self._controller._link.try_now(lambda: True)

    def stop(self) -> None:
        """Stop the server; nobody leases any more."""
        if self._controller._link is None:
            return
        for step in self._note_unclaimed, self._controller.stop:
            try:
                step()
            except SMTPTestError as error:
                self.lines.append(f"{type(error).__name__}: {error}")

    def _note_unclaimed(self) -> None:
        self.lines += self._controller._strays().mail_lines("in this run")


class WorkerLeases(WorkerServers):
    """The leases of one process that runs tests: one that stays, and one for each test.

    What `start` starts are servers of its own.
    """

    def __init__(self, name: str, check: str, access: Access) -> None:
        super().__init__(name, check)
        self._access = access
        self._leases: dict[bool, Lease] = {}

    def serve(self, options: dict[str, Any]) -> Any:
        """Return the lease that stays, for fixtures of a wide scope."""
        _refuse(options, ())
        return self._lease(self._name or "the run", lasts=True)

    def lend(
        self, options: dict[str, Any], marks: Sequence[pytest.Mark], test: str
    ) -> AbstractContextManager[Any]:
        """Return a lease for one test."""
        _refuse(options, marks)
        return self._lent_lease(f"{test}, {self._name}" if self._name else test)

    def stop(self) -> None:
        super().stop()
        for lease in self._leases.values():
            lease.close()

    def _lease(self, name: str, *, lasts: bool) -> Lease:
        lease = self._leases.get(lasts)
        if lease is None or lease._link.is_closed:
            addresses, key = self._access["addresses"], self._access["key"]
            lease = self._leases[lasts] = connect(addresses, key, name=name)
        elif not lasts:
            lease._begin(name)
        return lease

    @contextlib.contextmanager
    def _lent_lease(self, name: str) -> Iterator[Lease]:
        lease = self._lease(name, lasts=False)
        lease.queue._keep_taken(self._kept)
        yield lease
        _, failure = _left(lease)
        with contextlib.suppress(SMTPTestError):  # of a server that is gone: the next test says it
            lease._finish()
        if isinstance(failure, HandlerError | LeaseError):
            raise failure


def _refuse(options: dict[str, Any], marks: Sequence[pytest.Mark]) -> None:
    """Fail a test that wants other options: the server is there before any test."""
    wanted = [*options, *(name for mark in marks for name in [*mark.kwargs, *mark.args])]
    if wanted or marks:
        pytest.fail(
            "with smtptest_shared there is one server for all tests, and it is started before "
            f"them: it cannot have {', '.join(map(str, wanted)) or 'a mark'} for this one.  "
            "Return options from the hook pytest_smtptest_shared_options(config) in conftest.py, "
            "or have smtptest_factory() start a server for this test",
            pytrace=False,
        )
