"""See `lazr_smtptest.controller`, of which this has the same classes."""

from lazr_smtptest.controller import Controller, QueueController

__all__ = ["Controller", "QueueController"]
