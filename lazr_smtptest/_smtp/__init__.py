"""The SMTP protocol, on top of aiosmtpd's.  Server process, on its event loop."""

import warnings

with warnings.catch_warnings():
    # aiosmtpd imports this name, which Python 3.15 warns of; nobody here can help it.
    warnings.filterwarnings("ignore", r"'typing\.ByteString'", DeprecationWarning)
    import aiosmtpd.smtp  # noqa: F401
