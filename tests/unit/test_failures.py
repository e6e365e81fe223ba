"""Which sessions have failed, and in which words."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from lazr_smtptest import Line, Session
from lazr_smtptest._parent.describe import failure

NOW = datetime(2026, 11, 27, tzinfo=timezone.utc)


def session(*lines: str, ended: str = "QUIT", messages: int = 0, **others: Any) -> Session:
    """Make one, of lines that each begin with their speaker."""
    return Session(
        peer=("127.0.0.1", 4711),
        connected_at=NOW,
        helo="client.example",
        tls=None,
        cipher=None,
        auth_user=others.pop("auth_user", None),
        failed_logins=0,
        messages=tuple(range(1, messages + 1)),
        dialogue=tuple(Line(0.0, line[0], line[2:]) for line in lines),
        ended=ended,
        **others,
    )


GREETED = ("S 220 localhost", "C EHLO client.example", "S 250-localhost", "S 250 HELP")
SENDER = ("C MAIL FROM:<kim@example.com>", "S 250 OK")
RECIPIENT = ("C RCPT TO:<lee@example.com>", "S 250 OK")
CONTENT = ("C DATA", "S 354 Go", "* 120 octets of content")
BYE = ("C QUIT", "S 221 Bye")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (session(*GREETED, *SENDER, *RECIPIENT, *CONTENT, "S 250 OK", *BYE, messages=1), ""),
        (session(*GREETED, *BYE), ""),
        (session(*GREETED, "C VRFY kim", "S 252 Perhaps", *BYE), ""),
        # Somebody who looks whether the port is open.
        (session("S 220 localhost", ended="dropped by the client"), ""),
        (session(ended="dropped by the client"), ""),
        (session(*GREETED, ended="open"), ""),
        (session(*GREETED, ended="dropped by the client"), "dropped by the client"),
        (session(*GREETED, ended="dropped by the client", messages=1), ""),
        (session(*GREETED, ended="dropped by the server"), "dropped by the server"),
        (
            session(*GREETED, messages=1, ended="dropped by the server"),
            "dropped by the server",
        ),
        (session("S 554 No service", *BYE), "refused: 554 No service"),
        (
            session(*GREETED, "S 421 4.4.2 Too slow", ended="dropped by the server"),
            "refused: 421 4.4.2 Too slow; dropped by the server",
        ),
        # Old clients, and new servers.
        (session("S 220 x", "C EHLO x", "S 502 What?", "C HELO x", "S 250 x", messages=1), ""),
        (session("S 220 x", "C EHLO x", "S 502 What?", *BYE), "EHLO x refused: 502 What?"),
        (
            session(*GREETED, *SENDER, "C RCPT TO:<lee@example.com>", "S 550 No", *RECIPIENT),
            "RCPT TO:<lee@example.com> refused: 550 No",
        ),
        (
            session(*GREETED, *SENDER, "C rcpt to:<lee@example.com>", "S 450 No", messages=1),
            "rcpt to:<lee@example.com> refused: 450 No",
        ),
        (
            session(*GREETED, *SENDER, "C RCPT TO:<a@x>", "C RCPT TO:<b@x>", "C DATA")
            ._replace(dialogue=session(
                *GREETED, "C MAIL FROM:<k@x>", "C RCPT TO:<a@x>", "C RCPT TO:<b@x>", "C DATA",
                "S 250 OK", "S 550-No", "S 550 Not here", "S 451 Later", "S 503 Whom?",
            ).dialogue),
            "RCPT TO:<a@x> refused: 550 Not here; 2 more refused",
        ),
        (
            session(*GREETED, *SENDER, *RECIPIENT, *CONTENT, "S 552 Too large"),
            "the content refused: 552 Too large",
        ),
        (
            session(*GREETED, *SENDER, *RECIPIENT, *CONTENT, "S 250 OK", "S 450 Not hers"),
            "the content refused: 450 Not hers",
        ),
        (
            session(*GREETED, "C BDAT 9 LAST", "* 9 octets of content", "S 554 No", *BYE),
            "BDAT 9 LAST refused: 554 No",
        ),
        (
            session(*GREETED, "C AUTH PLAIN ***", "S 535 Wrong", *BYE),
            "login failed: 535 Wrong",
        ),
        (
            session(*GREETED, "C AUTH LOGIN", "S 334 V", "C ***", "S 334 P", "C ***", "S 535 No"),
            "login failed: 535 No",
        ),
        (
            session(
                *GREETED, "C AUTH NTLM", "S 504 What?", "C AUTH PLAIN ***", "S 235 Yes",
                auth_user="kim",
            ),
            "",
        ),
        (
            session(*GREETED, "C STARTTLS", "S 220 Go", "* TLS failed: who are you?",
                    ended="dropped by the client"),
            "TLS failed: who are you?",
        ),
        (
            session(*GREETED, "C NOOP", "* sent as it is: b'1'", "C RSET", "S 450 No", *BYE),
            "RSET refused: 450 No",
        ),
        (
            session(*GREETED, "C MAIL FROM:<\x1b[2J>", "S 501 \u202eNo", *BYE),
            r"'MAIL FROM:<\x1b[2J>' refused: '501 \u202eNo'",
        ),
    ],
)  # fmt: skip
def test_why_a_session_failed(made, why):
    assert failure(made) == why
