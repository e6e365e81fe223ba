"""The names of lazr.smtptest 2.x, for code that imports them from there."""

from lazr_smtptest._version import __version__

__all__ = ["__version__"]
