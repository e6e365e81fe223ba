"""A real SMTP server in a process of its own, for tests.

>>> import smtplib
>>> with QueueController() as controller:
...     with smtplib.SMTP(controller.host, controller.port) as client:
...         refused = client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hi")
...     message = controller.queue.get_nowait()
>>> message["subject"], message.envelope.rcpt_tos
('hi', ('lee@example.com',))
"""

from typing import TYPE_CHECKING, Any

from lazr_smtptest._version import __version__
from lazr_smtptest.controller import Controller, QueueController
from lazr_smtptest.errors import (
    AlreadyRunning,
    HandlerError,
    NotRunning,
    ServerDied,
    ServerStuck,
    SMTPTestError,
    StartError,
    StartTimeout,
)
from lazr_smtptest.inbox import MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    from lazr_smtptest.message import Envelope, Message

__all__ = [
    "AlreadyRunning",
    "Controller",
    "Envelope",
    "HandlerError",
    "Message",
    "MessageQueue",
    "NotRunning",
    "QueueController",
    "QueueServer",
    "SMTPTestError",
    "Server",
    "ServerDied",
    "ServerStuck",
    "StartError",
    "StartTimeout",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import on first use what takes the whole email package."""
    if name in ("Envelope", "Message"):
        from lazr_smtptest import message

        return getattr(message, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
