"""Messages for tests of what can be read in them, and of what is wanted of them."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

from lazr_smtptest.message import Envelope, Message, parse

ENVELOPE = Envelope(
    sequence=7,
    peer=("127.0.0.1", 50_000),
    helo="client.example",
    mail_from="kim@example.com",
    rcpt_tos=("lee@example.com", "bcc@example.com"),
    mail_options=("SIZE=100",),
    rcpt_options=(),
    smtp_utf8=False,
    tls=None,
    auth_user=None,
    received_at=datetime(2024, 2, 29, 23, 59, 59, 999_999, timezone.utc),
)

ATTACHED = (
    b"From: kim@example.com\r\n"
    b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
    b"MIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="outer"\r\n'
    b"\r\n"
    b"--outer\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
    b"gr\xc3\xbc\xc3\x9fe\r\n"
    b"--outer\r\n"
    b"Content-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="all.bin"\r\n'
    b"\r\n"
    b"AAEC/f7/\r\n"
    b"--outer\r\n"
    b"Content-Type: message/rfc822\r\n"
    b"\r\n"
    b"Subject: inner\r\n"
    b"X-Peer: of the inner message\r\n"
    b"\r\n"
    b"inner body\r\n"
    b"--outer--\r\n"
)

#: Each line opens one message within the last, until the parser, which calls
#: itself for each, has no stack left.
TOO_DEEP = b"Content-Type: message/rfc822\r\n\r\n" * sys.getrecursionlimit()

#: A star that nothing follows is an IndexError in the parser of Python 3.10
#: to 3.13, when it looks for a boundary.
LONE_STAR = b"Subject: a lone star\r\nContent-Type: text/plain; charset*\r\n\r\nbody\r\n"


def make(raw: bytes | str = b"", **envelope: Any) -> Message:
    """Make the message that a server makes of these octets."""
    raw = raw.encode() if isinstance(raw, str) else raw
    return parse(ENVELOPE._replace(**envelope), raw)


def to(value: bytes | str) -> Message:
    """Make a message whose header is a To field alone."""
    value = value.encode() if isinstance(value, str) else value
    return make(b"To: " + value + b"\r\n\r\n")


def about(value: bytes | str) -> Message:
    """Make a message whose header is a Subject field alone."""
    value = value.encode() if isinstance(value, str) else value
    return make(b"Subject: " + value + b"\r\n\r\n")


def body(octets: bytes | str, content_type: str = "text/plain", *lines: str) -> Message:
    """Make a message of one part."""
    octets = octets.encode() if isinstance(octets, str) else octets
    head = "".join(f"{line}\r\n" for line in (f"Content-Type: {content_type}", *lines))
    return make(head.encode() + b"\r\n" + octets)


def multipart(*parts: bytes | str, kind: str = "mixed", boundary: str = "x") -> bytes:
    """Make a part of parts; each of those begins with its header."""
    between = f"\r\n--{boundary}\r\n".encode()
    octets = [part.encode() if isinstance(part, str) else part for part in parts]
    return (
        f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
        + b"".join(between + part for part in octets)
        + f"\r\n--{boundary}--\r\n".encode()
    )


#: A message that differs from its envelope.
MAIL = make(
    b"From: Kim <kim@example.com>\r\nTo: Lee <lee@example.com>, max@example.org\r\n"
    b"Cc: cc@example.com\r\nReply-To: Front Desk <desk@example.com>\r\n"
    b"Subject: Lunch at noon\r\n\r\nBring a spoon.\r\n",
    mail_from="bounces+7@example.net",
    rcpt_tos=("lee@example.com", "blind@example.com"),
)


def wanting(_: object) -> bool:
    """Want no message: a criterion whose name can be seen in reports."""
    return False
