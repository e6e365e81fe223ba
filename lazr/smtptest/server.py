"""See `lazr_smtptest.server`, of which this has the same classes."""

from lazr_smtptest.server import QueueServer, Server

__all__ = ["QueueServer", "Server"]
