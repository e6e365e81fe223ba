"""What the fixtures of the pytest plugin do.  Test process."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import ServerDied, ServerStuck
from lazr_smtptest.server import Server

__all__ = ["Worker", "check_all_read"]

#: Messages that a controller keeps after they were taken, for the report on a
#: failed test.
_KEPT = 20


class Worker:
    """The servers of one process that runs tests.

    It has one server that stays, as long as the options stay the same, and is
    used by one test after the other.

    :param name: What pytest-xdist calls this process; empty without it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        #: One for all options that were ever asked for; no more than one of
        #: them runs.
        self._controllers: list[tuple[dict[str, Any], QueueController]] = []
        self._controller: QueueController | None = None

    def serve(self, options: dict[str, Any]) -> QueueController:
        """Give the server that stays; start it if it does not run.

        With other options than last time, it is another one, on the same port
        if that can be.

        :param options: The keyword arguments of `QueueController`.
        :raises OSError: The port is taken; the text names it, and the worker.
        :raises TypeError: There is no such option.
        """
        last, wanted = self._controller, self._find(options)
        if last is not None and last is not wanted:
            last.stop()
            wanted._port = last._port
        self._controller = wanted
        self._start(wanted)
        return wanted

    def _find(self, options: dict[str, Any]) -> QueueController:
        for known, controller in self._controllers:
            if known == options:
                return controller
        controller = _make(options)
        self._controllers.append((dict(options), controller))
        return controller

    def lend(
        self, options: dict[str, Any], marks: Sequence[pytest.Mark]
    ) -> AbstractContextManager[QueueController]:
        """Give a server to one test: the one that stays, or one for it alone.

        :param options: See `serve`.
        :param marks: The test's ``smtptest`` marks, the nearest first; with
            any, it is one for it alone, with the options that they have.
        :raises TypeError: A mark has an argument without a name.
        """
        args = [arg for mark in marks for arg in mark.args]
        if args:
            raise TypeError(
                "@pytest.mark.smtptest takes keyword arguments only, such as port=2525, "
                f"not {', '.join(map(repr, args))}"
            )
        if not marks:
            return contextlib.nullcontext(self.serve_afresh(options))
        own = {name: value for mark in reversed(marks) for name, value in mark.kwargs.items()}
        return self.start(options, own, instead=True)

    def serve_afresh(self, options: dict[str, Any]) -> QueueController:
        """Give the server that stays, with no mail, and well.

        Blocks up to 7 seconds where it turns out to be stuck.

        :param options: See `serve`.
        """
        running = self._controller
        try:
            if running is not None and running.is_running:
                running.queue._begin_anew()
                running.reset()
                running.queue.empty()  # what it should have sent, it has sent
        except (ServerDied, ServerStuck):
            assert running is not None
            running._give_up()
        # It may also be that a test has stopped it, or killed it.
        controller = self.serve(options)
        controller.queue._keep_taken(_KEPT)
        if not controller.queue.empty():  # of one that died
            controller.reset()
        return controller

    @contextlib.contextmanager
    def start(
        self, options: dict[str, Any], own: dict[str, Any], *, instead: bool = False
    ) -> Iterator[QueueController]:
        """Start one more server, and stop it in the end.

        :param options: See `serve`; but the port is a free one.
        :param own: The options that are to differ.
        :param instead: Whether it is to have the port of the server that
            stays, where that is given; which is stopped for so long.
        """
        _check(options)
        wanted = {**options, "port": options.get("port", 0) if instead else 0, **own}
        controller = _make(wanted)
        controller.queue._keep_taken(_KEPT)
        lasting = self._controller
        if lasting is not None and instead and wanted["port"] == lasting.server.port != 0:
            makes_room = lasting.is_running
            lasting.stop()
        else:
            makes_room = False
        try:
            self._start(controller)
            try:
                yield controller
            finally:
                controller.stop()
        finally:
            if makes_room and lasting is not None:
                self._start(lasting)

    def stop(self) -> None:
        """Stop the server that stays, until it is used again."""
        if self._controller is not None:
            self._controller.stop()

    def _start(self, controller: QueueController) -> None:
        if controller.is_running:
            return
        try:
            controller.start()
        except OSError as error:
            if self._name and error.strerror:
                error.strerror = f"pytest-xdist's worker {self._name}: {error.strerror}"
            raise


def check_all_read(used: Iterable[QueueController]) -> None:
    """Fail a test that leaves mail unread.

    :param used: The controllers that it used.
    """
    from lazr_smtptest._report import unread  # few runs ask for this

    left = [line for controller in used for line in unread(controller)]
    if left:
        pytest.fail("\n".join(left), pytrace=False)


def _make(options: dict[str, Any]) -> QueueController:
    _check(options)
    return QueueController(**options)


def _check(options: dict[str, Any]) -> None:
    if not isinstance(options, Mapping):
        raise TypeError(f"smtptest_options must be a dict of options, not {options!r}")
    known = [
        name
        for kind in (QueueController, Server)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"smtptest has no option {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(dict.fromkeys(known))}"
        )
