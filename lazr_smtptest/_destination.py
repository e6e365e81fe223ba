"""Where a server's messages go.  Test process.

Those of a `QueueServer` go into its queue.  A `MessageQueue` looks for them
by itself; any other has to be filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazr_smtptest.errors import AlreadyRunning
from lazr_smtptest.inbox import MessageQueue
from lazr_smtptest.server import QueueServer, Server

if TYPE_CHECKING:
    from lazr_smtptest._foreign import QueueFiller
    from lazr_smtptest._home import HomeEnd

__all__ = ["check_is_free", "check_queue", "connect", "is_acknowledged", "message_queue"]


def check_queue(server: Server) -> None:
    """See to it that messages can be put into a server's queue.

    :raises TypeError: It has no ``put``.
    """
    queue = getattr(server, "queue", None)
    if not isinstance(server, QueueServer) or isinstance(queue, MessageQueue):
        return
    if not callable(getattr(queue, "put", None)):
        raise TypeError(
            "the server's queue must have a put(message), as a MessageQueue() has; "
            f"{queue!r} has none"
        )


def message_queue(server: Server) -> MessageQueue | None:
    """Give a server's queue, if it is one of ours."""
    queue = server.queue if isinstance(server, QueueServer) else None
    return queue if isinstance(queue, MessageQueue) else None


def check_is_free(server: Server) -> None:
    """See to it that no other server's messages go there.

    :raises AlreadyRunning: One's do.
    """
    queue = message_queue(server)
    home = None if queue is None else queue._home
    if home is not None and home.is_alive():
        raise AlreadyRunning(
            f"this server's queue is filled by another controller's, {home.name}: "
            "give each controller a queue of its own",
            **home.where,
        )


def is_acknowledged(server: Server) -> bool:
    """Say whether a client is told 250 only when this process has the message."""
    return isinstance(server, QueueServer) and message_queue(server) is None


def connect(server: Server, home: HomeEnd) -> QueueFiller | None:
    """Have what arrives get into the server's queue.

    :param server: The server.
    :param home: Where the messages come from.
    :return: What fills the queue, if it is not one of ours.
    """
    queue = message_queue(server)
    if queue is not None:
        queue._attach(home)
    elif isinstance(server, QueueServer):
        # Not at the head: importing this package is not to cost what it needs.
        from lazr_smtptest._foreign import QueueFiller

        return QueueFiller(server.queue, home)
    return None
