"""Filling a queue that is not ours.  Test process.

A `MessageQueue` looks for messages when it is asked for them.  Any other
queue has to be filled before the client is told 250, while the test does
something else; so with such a queue, and only then, there is a thread.
"""

from __future__ import annotations

import queue
import threading
import traceback
from typing import Any

from lazr_smtptest._channel import FORGET
from lazr_smtptest._home import HomeEnd
from lazr_smtptest._parcel import Parcel
from lazr_smtptest.errors import ServerDied, ServerStuck

__all__ = ["QueueFiller"]

#: Seconds until the thread looks whether it is still needed.  It is woken when
#: something happens, so this matters to nobody.
_LOOK_UP = 3600.0


class QueueFiller:
    """The thread that puts messages into a queue.

    :param target: The queue.
    :param home: Where the messages come from.
    """

    def __init__(self, target: Any, home: HomeEnd) -> None:
        self._target = target
        self._home = home
        self._put = getattr(target, "put_nowait", None) or target.put
        self._thread = threading.Thread(
            target=self._run, name="lazr-smtptest-queue-filler", daemon=True
        )
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until the server process has ended and all it sent is put.

        :param timeout: How long to wait, in seconds.
        """
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                parcel = self._home.take(_LOOK_UP, failures=False)
            except ServerDied:
                return
            except ServerStuck:
                continue
            if parcel is not None:
                self._place(*parcel.open())
            elif self._home.ended:
                return

    def _place(self, number: int, octets: bytes) -> None:
        from lazr_smtptest._delivery import refusal, what_raised

        refused = None
        method = "put"
        try:
            message = Parcel(octets).open()
            if message == FORGET:
                method = "get_nowait"
                self._empty()
            else:
                self._put(message)
        except Exception as error:
            refused = refusal(error)
            where = f"{type(self._target).__name__}.{method}"
            self._home.fail(what_raised(where, error), traceback.format_exc())
        self._home.tell("put", number, refused)

    def _empty(self) -> None:
        get = getattr(self._target, "get_nowait", None)
        if get is None:  # write-only: there is nothing that could be done
            return
        while True:
            try:
                get()
            except queue.Empty:
                return
