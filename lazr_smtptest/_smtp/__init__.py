"""The SMTP protocol, on top of aiosmtpd's.  Server process, on its event loop."""
