"""Log records on their way to the test process.  Server process."""

from __future__ import annotations

import logging
import logging.handlers

from lazr_smtptest._delivery import Outbox

__all__ = ["send_logs_home"]


class _LogsHome(logging.handlers.QueueHandler):
    """Sends log records to the test process."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox)  # type: ignore[arg-type]
        self._outbox = outbox

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a record fit for the journey, whatever ``extra`` put on it."""
        record = super().prepare(record)
        for name, value in vars(record).items():
            if type(value) not in (str, int, float, type(None)):
                setattr(record, name, repr(value))
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        self._outbox.send("log", record)


#: Handlers of the test process.  Kept, because collecting one would write, here
#: too, what it has in its buffer.
_inherited: list[logging.Handler] = []


def send_logs_home(outbox: Outbox, level: int) -> None:
    """Replace every log handler: the test process has the real ones.

    :param outbox: The way to the test process.
    :param level: The level of its root logger.
    """
    handler = _LogsHome(outbox)
    root = logging.getLogger()
    root.setLevel(level)
    for logger in [root, *root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            _inherited.extend(logger.handlers)
            outermost = logger is root or not logger.propagate
            logger.handlers = [handler] if outermost else []
