"""The SMTP protocol, on top of aiosmtpd's.  Server process, on its event loop."""

import warnings

with warnings.catch_warnings():
    # aiosmtpd 1.4.6 uses typing.ByteString, of which Python 3.15 warns.  That is nothing that
    # users could mend, and where they make warnings errors, nothing would start.
    warnings.simplefilter("ignore", DeprecationWarning)
    import aiosmtpd.smtp  # noqa: F401
