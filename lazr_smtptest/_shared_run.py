"""One server for a whole run of pytest, and a lease of it for each test.  Test process.

`pytest_plugin` imports this where ``smtptest_shared`` is set.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest

from lazr_smtptest._fixtures import WorkerServers, _left, _mapping
from lazr_smtptest._names import SHARED_RUN, hint, spelled
from lazr_smtptest._parent.options import check_names
from lazr_smtptest._util import what_raised
from lazr_smtptest._wire.endpoint import ALL_INTERFACES
from lazr_smtptest._wire.sharing import SCOPES, AddressTemplate
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import HandlerDataWarning, HandlerError, LeaseError, SMTPTestError
from lazr_smtptest.shared import SHARED_OPTIONS, Lease, SharedController, connect

#: Log records of the server process that the end of the run shows.
_LOGGED = 20

#: What this process of pytest's needs to lease: the places, and the key.
Access = dict[str, Any]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_HOOK = "pytest_smtptest_shared_options"

_PLACE = re.compile(r"(?:\[(?P<v6>[^\[\]/]+)\]|(?P<host>[^\[\]:/]*)):(?P<port>\d{1,5})")

#: What the ini file says of the shared server, and its owner must not say again.
_IN_THE_INI_FILE = ("host", "port")

#: What its owner may say.
_OPTIONS = [name for name in SHARED_OPTIONS if name not in (*_IN_THE_INI_FILE, "reset_on_rset")]


def ini_options(config: pytest.Config) -> dict[str, Any]:
    """Return what the ini file says of the server, as options of `SharedController`.

    :raises pytest.UsageError: It cannot be so.
    """
    faults, template = config.getini("smtptest_shared_faults"), config.getini("smtptest_address")
    if faults not in SCOPES:
        raise pytest.UsageError(
            f"smtptest_shared_faults must be own or all, not {faults}{hint(faults, SCOPES)}"
        )
    if not template:
        return {"faults": faults}
    try:
        AddressTemplate(template)
    except ValueError as error:
        raise pytest.UsageError(f"smtptest_address: {error}") from None
    return {"faults": faults, "template": template}


class HookOptions(NamedTuple):
    """What conftest.py says of the server.

    :ivar options: Options of `SharedController`; none if no hook returned any.
    :ivar source: Which hook that is, and where it is.
    """

    options: Mapping[str, Any]
    source: str

    @classmethod
    def of(cls, config: pytest.Config) -> HookOptions:
        """Ask the hook.

        :raises pytest.UsageError: It raises, or what it returns is no dict of options.
        """
        impls = config.hook.pytest_smtptest_shared_options.get_hookimpls()
        found = [inspect.unwrap(impl.function) for impl in reversed(impls)]
        codes = [code for one in found if (code := getattr(one, "__code__", None))]
        places = {code.co_filename: code.co_firstlineno for code in codes}
        source = f"{_HOOK}{_in_files(config, places)}"
        try:
            options = config.hook.pytest_smtptest_shared_options(config=config)
        except (pytest.UsageError, pytest.exit.Exception):
            raise
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
            trace = traceback.extract_tb(error.__traceback__)
            lines = {at.filename: at.lineno for at in trace if at.filename in places}
            source = f"{_HOOK}{_in_files(config, lines or places)}"
            raise pytest.UsageError(what_raised(source, error)) from None
        if options is None:
            return cls({}, "")
        _check_returned(source, options)
        return cls(options, source)


def _check_returned(source: str, options: object) -> None:
    if not isinstance(options, Mapping):
        raise pytest.UsageError(f"{source} must return a dict of options, not {options!r}")
    if said := [one for one in _IN_THE_INI_FILE if one in options]:
        raise pytest.UsageError(
            f"{source} must not return {' and '.join(said)}: smtptest_shared says where to listen"
        )
    try:
        check_names(source, options, _OPTIONS)
    except TypeError as error:
        raise pytest.UsageError(str(error)) from None


def _in_files(config: pytest.Config, places: Mapping[str, int | None]) -> str:
    """Return in which files something is, and in which line of each."""
    folder = config.invocation_params.dir
    shown = [f"{os.path.relpath(name, folder)}:{line}" for name, line in places.items()]
    return f" in {' and '.join(shown)}" if shown else ""


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

    def __init__(self, config: pytest.Config, where: str, *, has_remote_workers: bool) -> None:
        host, port = place(where)
        hook = HookOptions.of(config)
        options = {**ini_options(config), **hook.options}
        if has_remote_workers:
            if host in ALL_INTERFACES and "lease_host" not in options:
                raise pytest.UsageError(
                    f"smtptest_shared = {where} does not say by which address workers on other "
                    "machines reach this one: give that instead of "
                    f"{host or 'no host'}, or return it as lease_host from the hook "
                    "pytest_smtptest_shared_options(config) in conftest.py"
                )
            options = {"lease_host": "127.0.0.1" if host in _LOOPBACK else host, **options}
        try:
            self._controller = SharedController(host, port, **options)
        except (TypeError, ValueError, ImportError) as error:
            raise pytest.UsageError(f"{hook.source or 'smtptest_shared'}: {error}") from None
        try:
            with spelled(SHARED_RUN):
                self._controller.start()
        except (OSError, ImportError, SMTPTestError, HandlerDataWarning) as error:
            raise pytest.UsageError(f"smtptest_shared: {error}") from None
        self._log = _Log()
        #: What the end of the run has to say, and whether that is to fail it.
        self.lines: list[str] = []
        self.has_failed = False

    def __str__(self) -> str:
        where = str(self._controller._endpoint)
        if self._controller.server.host in ALL_INTERFACES:
            where = f"every address of this machine, such as {where}"
        return f"one server for all tests, on {where}"

    @property
    def access(self) -> Access:
        return {"addresses": list(self._controller.addresses), "key": self._controller.key}

    def pytest_runtest_logreport(self) -> None:
        """Read what the server process has sent, such as log records."""
        if self._controller._link is not None:
            with self._log, spelled(SHARED_RUN):
                self._controller._link.try_now(lambda: True)

    def stop(self) -> None:
        """Stop the server, and refuse further leases."""
        if self._controller._link is None:
            return
        with self._log, spelled(SHARED_RUN):
            for step in self._note_unclaimed, self._controller.stop:
                try:
                    step()
                except SMTPTestError as error:
                    self.lines.append(f"{type(error).__name__}: {error}")
                    self.has_failed = True
        self.lines += self._log.lines()

    def _note_unclaimed(self) -> None:
        strays = self._controller._strays()._replace(sessions=[])
        self.lines += [line for remark in strays.remarks("in this run") for line in remark.lines]


class _Log(logging.Handler):
    """Keeps what the server process logs: no test runs here whose report would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("- %(levelname)s %(name)s: %(message)s"))
        self._records: deque[str] = deque(maxlen=_LOGGED)
        self._count = 0

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._count += 1
        self._records.append(self.format(record))

    def lines(self) -> list[str]:
        """Return what a report has to say of them."""
        if not self._count:
            return []
        more = self._count - len(self._records)
        return [
            f"{self._count} logged by the server process:",
            *([f"- and {more} more, before these"] if more else []),
            *self._records,
        ]


class WorkerLeases(WorkerServers):
    """The leases of one process that runs tests: one that stays, and one for each test.

    What `start` starts are servers of its own.
    """

    def __init__(self, name: str, check: str, access: Access, host: str) -> None:
        super().__init__(name, check)
        self._access = access
        self._host = host  # of servers of a test's own
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

    def start(
        self, options: dict[str, Any], own: dict[str, Any]
    ) -> AbstractContextManager[QueueController]:
        return super().start({"host": self._host, **_mapping(options)}, own)

    def stop(self) -> None:
        super().stop()
        for lease in self._leases.values():
            lease.close()

    def _lease(self, name: str, *, lasts: bool) -> Lease:
        lease = self._leases.get(lasts)
        try:
            if lease is None or lease._link.is_closed:
                addresses, key = self._access["addresses"], self._access["key"]
                with spelled(SHARED_RUN):
                    lease = self._leases[lasts] = connect(addresses, key, name=name)
            elif not lasts:
                lease._begin(name)
        except SMTPTestError as error:
            raise pytest.fail.Exception(
                "no lease of the server of this run; if that has ended, the end of the run says "
                f"how.  {type(error).__name__}: {error}",
                pytrace=False,
            ) from None
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
