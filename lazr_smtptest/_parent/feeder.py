"""Filling a queue that is not ours.  Test process.

A `MessageQueue` looks for messages when it is asked for them.  Any other
queue has to be filled before the client gets its 250, while the test does
something else; so with such a queue, and only then, there is a thread.
"""

from __future__ import annotations

import queue
import traceback
from threading import Thread
from time import sleep
from typing import Any

from lazr_smtptest._parent.link import FORGET, LONGEST_WAIT, ServerLink
from lazr_smtptest._util import now, refusal, what_raised
from lazr_smtptest.message import PickledItem

#: Seconds that the thread of a `multiprocessing.Queue` has to pass a message on,
#: and between two looks whether it has.  It has to wait itself where the test
#: leaves so many unread that its pipe is full.
_FLUSH_TIMEOUT = 0.2
_FLUSH_INTERVAL = 0.0005


class QueueFeeder:
    """The thread that puts messages into a queue.

    It acknowledges each one by a request, in order: a client gets its 250
    when the test can take its message.
    """

    def __init__(self, target: Any, link: ServerLink) -> None:
        self._target = target
        self._link = link
        self._put = getattr(target, "put_nowait", None) or target.put
        self._is_stock = _is_stock(target)
        self._thread = Thread(target=self._run, name="lazr-smtptest-queue-feeder", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until the server process has ended and all it sent is put."""
        self._thread.join(timeout)

    def _run(self) -> None:
        link = self._link

        def next_item() -> PickledItem | None:
            return link.messages.popleft() if link.messages else None

        while True:
            try:
                item = link.wait_for(next_item, LONGEST_WAIT)
            except BaseException as error:  # of a log handler; this thread has to go on
                link.fail(what_raised("a log handler", error), traceback.format_exc())
                continue
            if item is not None:
                self._handle(item)
            elif link.ended:
                return

    def _handle(self, item: PickledItem) -> None:
        refused = None
        method = "get_nowait" if item is FORGET else "put"
        try:
            if item is FORGET:
                self._empty()
            else:
                self._put(item.load())
                self._await_flush()
        except BaseException as error:  # this thread has to go on, whatever it is
            refused = refusal(error)
            where = f"{type(self._target).__name__}.{method}"
            self._link.fail(what_raised(where, error), traceback.format_exc())
        self._link.send("acknowledge", refused)

    def _await_flush(self) -> None:
        # A multiprocessing.Queue passes on what is put by a thread of its own,
        # and says nothing when that is done.  It has no more to do once its
        # buffer is empty and it waits on its condition.
        deadline = now() + _FLUSH_TIMEOUT
        while self._is_stock and now() < deadline:
            with self._target._notempty:
                if not self._target._buffer and self._target._notempty._waiters:
                    return
            sleep(_FLUSH_INTERVAL)

    def _empty(self) -> None:
        get = getattr(self._target, "get_nowait", None)
        if get is None:  # write-only: there is nothing that could be done
            return
        while True:
            try:
                get()
            except queue.Empty:
                return


def _is_stock(target: Any) -> bool:
    # By what is used of its inside, and not by its class: a release of Python
    # that lacks one of these is served like any other queue.
    return hasattr(target, "_buffer") and hasattr(getattr(target, "_notempty", None), "_waiters")
