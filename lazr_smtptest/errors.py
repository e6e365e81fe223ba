"""Every exception and warning that comes from this package itself.  Both processes.

`SMTPTestError` is never raised itself.  Its subclasses say where the fault
is: `AlreadyRunning` and `NotRunning` are the caller's mistakes,
`HandlerError` is a mistake in the test's own code in the server,
`MessageNotReceived` and `UnexpectedMessage` are what a test is for, and the
rest is about the server process.  If a port or a UNIX socket is taken, or this machine
does not have the host, the plain `OSError` of the operating system is raised.
`HandlerDataWarning` is the one warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = [
    "AlreadyRunning",
    "AttachmentNotFound",
    "Difference",
    "GateTimeout",
    "HandlerDataWarning",
    "HandlerError",
    "LeaseError",
    "MessageNotReceived",
    "NearMiss",
    "NotRunning",
    "SMTPTestError",
    "ServerDied",
    "ServerStuck",
    "StartError",
    "StartTimeout",
    "UnexpectedMessage",
]


class Difference(NamedTuple):
    """One criterion that a message does not match.

    :ivar field: The criterion's name.
    :ivar explanation: What you wanted, what was found, and what the difference
        is, if that is hard to see.
    """

    field: str
    explanation: str


class NearMiss(NamedTuple):
    """A message that did not match.

    :ivar message: The message.
    :ivar differences: Each criterion that it does not match.
    """

    message: Any
    differences: Sequence[Difference]


class SMTPTestError(Exception):
    """The base of all errors of this package; catch it to catch them all.

    Its keyword arguments, which all errors have, are kept as attributes.

    :ivar host: The host the server was asked to listen on, or None.
    :ivar port: The port the server listens on, or None.
    :ivar unix_socket: The path of the UNIX socket the server listens on, or None.
    :ivar pid: The server process's id, or None.
    :ivar elapsed: Seconds that were spent waiting, or None.
    """

    host: str | None = None
    port: int | None = None
    unix_socket: str | None = None
    pid: int | None = None
    elapsed: float | None = None

    # An exception crosses process borders here, and again in parallel test
    # runners.  So its text stays in ``args`` and its facts in ``__dict__``:
    # that is all that pickle carries of an exception.
    def __init__(self, message: str = "", /, **facts: Any) -> None:
        super().__init__(message)
        for name in facts:
            if not hasattr(type(self), name) or hasattr(Exception, name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
        vars(self).update(facts)


class AlreadyRunning(SMTPTestError):
    """Raised by ``start()`` when the controller's server is running already."""


class NotRunning(SMTPTestError):
    """Raised by a call that needs a running server when there is none."""


class StartError(SMTPTestError):
    """Raised by ``start()`` when the server process could not begin to serve.

    Nothing is left behind: no process, and the port is free again.

    :ivar exitcode: The exit code of the server process, or None if it never
        ran.
    """

    exitcode: int | None = None


class StartTimeout(StartError, TimeoutError):
    """Raised by ``start()`` when the server is not ready within start_timeout."""


class ServerDied(SMTPTestError):
    """Raised when the server process ended without having been asked to.

    It is raised after you have read every message that the server process
    still delivered.

    :ivar exitcode: The exit code; negative for the signal that killed it.
    :ivar lost: How many messages it had accepted that never got here.
    :ivar stack: What the interpreter wrote as it crashed, or an empty string.
    """

    exitcode: int | None = None
    lost: int = 0
    stack: str = ""


class ServerStuck(SMTPTestError, TimeoutError):
    """Raised when a living server process does not answer in time.

    :ivar stack: The stacks of the server process's threads at that moment,
        innermost call first, or an empty string if there is none.
    """

    stack: str = ""


class HandlerError(SMTPTestError):
    """Raised when your own code in the server raised.

    That is an override of `Server.handle_message` or `Server.reset`, a
    ``handle_*`` hook, or the ``put`` of a `QueueServer`'s queue.  The client
    got a ``451`` (``452`` if storage ran out); the next call into the
    controller or its queue raises this.

    :ivar traceback: The whole traceback, as text, where the error happened.
    """

    traceback: str = ""


class LeaseError(SMTPTestError):
    """Raised if a shared server refuses a lease, or something that a lease asks for.

    It cannot be reached, or the key is wrong; an address is claimed already; a fault would
    affect other tests' mail; or mail was refused because a test did not read it.
    """


class AttachmentNotFound(SMTPTestError, LookupError):
    """Raised by `Message.attachment` if there is none with that name or Content-ID."""


class HandlerDataWarning(UserWarning):
    """Issued by ``start()`` when what a handler collects would never reach the test.

    It names the object: a `queue.Queue`, an event, a list or the like, or a variable,
    that the server's code writes to and does not read.  That code runs in a process of
    its own, on a copy.
    """


class GateTimeout(SMTPTestError, AssertionError, TimeoutError):
    """Raised when sessions did not reach a gate in time."""


class MessageNotReceived(SMTPTestError, AssertionError, TimeoutError):
    """Raised when a message did not come in time.

    :ivar near_misses: The messages that came nearest to it, nearest first, at
        most five: each a `NearMiss`.
    :ivar missing: The recipients that lack a message, if you asked for one
        for each.
    """

    near_misses: Sequence[NearMiss] = ()
    missing: Sequence[str] = ()


class UnexpectedMessage(SMTPTestError, AssertionError):
    """Raised when a message came that must not come.

    :ivar message: The `Message`.
    """

    message: Any = None
