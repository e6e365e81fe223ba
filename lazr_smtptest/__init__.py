"""A real SMTP server in a process of its own, for tests.

>>> import smtplib
>>> from lazr_smtptest import QueueController
>>> with QueueController() as controller:
...     with smtplib.SMTP(controller.host, controller.port) as client:
...         refused = client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hi")
...     message = controller.queue.get_nowait()
>>> message["subject"], message.envelope.rcpt_tos
('hi', ('lee@example.com',))

PYTEST_DONT_REWRITE: there are no assertions here for pytest to explain.
"""

from lazr_smtptest import _interrupt  # noqa: F401 -- first, since Ctrl-C may come at any time

# isort: split
import importlib
from typing import TYPE_CHECKING, Any

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._version import __version__

if TYPE_CHECKING:
    from lazr_smtptest.checks import Problem
    from lazr_smtptest.controller import Controller, QueueController
    from lazr_smtptest.errors import (
        AlreadyRunning,
        AttachmentNotFound,
        GateTimeout,
        HandlerDataWarning,
        HandlerError,
        LeaseError,
        MessageNotReceived,
        NearMiss,
        NotRunning,
        ServerDied,
        ServerStuck,
        SMTPTestError,
        StartError,
        StartTimeout,
        UnexpectedMessage,
    )
    from lazr_smtptest.faults import Fault, Gate
    from lazr_smtptest.inbox import MessageQueue
    from lazr_smtptest.message import Attachment, Envelope, Message
    from lazr_smtptest.server import QueueServer, Server
    from lazr_smtptest.sessions import Command, Line, Session
    from lazr_smtptest.shared import Lease, SharedController, UnclaimedMail, connect
    from lazr_smtptest.tls import TLS

__all__ = [
    "TLS",
    "AlreadyRunning",
    "Attachment",
    "AttachmentNotFound",
    "Command",
    "Controller",
    "Envelope",
    "Fault",
    "Gate",
    "GateTimeout",
    "HandlerDataWarning",
    "HandlerError",
    "Lease",
    "LeaseError",
    "Line",
    "Message",
    "MessageNotReceived",
    "MessageQueue",
    "NearMiss",
    "NotRunning",
    "Problem",
    "QueueController",
    "QueueServer",
    "SMTPTestError",
    "Server",
    "ServerDied",
    "ServerStuck",
    "Session",
    "SharedController",
    "StartError",
    "StartTimeout",
    "UnclaimedMail",
    "UnexpectedMessage",
    "__version__",
    "connect",
]

#: Where the names live.  Each is imported when it is first used: pytest loads
#: this package's plugin whether or not any test sends mail.
_MODULES = {
    "checks": "Problem",
    "controller": "Controller QueueController",
    "errors": "AlreadyRunning AttachmentNotFound GateTimeout HandlerDataWarning HandlerError "
    "LeaseError MessageNotReceived "
    "NearMiss NotRunning SMTPTestError ServerDied ServerStuck StartError StartTimeout "
    "UnexpectedMessage",
    "faults": "Fault Gate",
    "inbox": "MessageQueue",
    "message": "Attachment Envelope Message",
    "server": "QueueServer Server",
    "sessions": "Command Line Session",
    "shared": "Lease SharedController UnclaimedMail connect",
    "tls": "TLS",
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names.split():
            with without_fakes():
                value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    text = f"module {__name__!r} has no attribute {name!r}"
    if not name.startswith("_"):
        from lazr_smtptest._names import hint

        text += hint(name, __all__)
    raise AttributeError(text)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
