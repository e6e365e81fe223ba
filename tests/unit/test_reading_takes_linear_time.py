"""Reading costs four times as much for four times the octets, whatever they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers import cpu_seconds
from messages import ENVELOPE

from lazr_smtptest._parent.matching import Criteria
from lazr_smtptest.message import Message, parse

#: What makes a message of some size, and could make one reader or another slow.
GROWING: dict[str, Callable[[int], str]] = {
    "recipients": lambda n: "To: " + ",\r\n ".join(f"K {i} <k{i}@x.test>" for i in range(n // 25)),
    "open comments": lambda n: f"To: {'(' * n}",
    "open brackets": lambda n: f"To: {'<a,' * (n // 3)}",
    "open quotes": lambda n: "To: " + '"\\' * (n // 2),
    "backslashes": lambda n: 'To: "' + "\\" * (n // 2 * 2 + 1) + '"',
    "a long subject": lambda n: f"Subject: {'x ' * (n // 2)}",
    "blanks": lambda n: f"Subject: x{' ' * n}y",
    "folds": lambda n: "Subject: x" + "\r\n\t " * (n // 4) + "y",
    "words that begin": lambda n: f"Subject: {'=?utf-8?q?' * (n // 10)}",
    "words": lambda n: f"Subject: {'=?utf-8?q?a?= ' * (n // 14)}",
    "quotes in place of a type": lambda n: f"Content-Type: {chr(34) * n}",
    "strings in place of a type": lambda n: "Content-Type: " + '"a' * (n // 2),
    "parameters": lambda n: f"Content-Type: text/plain{'; a=b' * (n // 5)}",
    "pieces of a parameter": lambda n: "Content-Disposition: attachment"
    + "".join(f"; filename*{i}=a" for i in range(n // 16)),
    "parts": lambda n: "Content-Type: multipart/mixed; boundary=B\r\n\r\n"
    + "--B\r\nContent-Type: text/plain\r\n\r\nx\r\n" * (n // 36),
    "alternatives": lambda n: "Content-Type: multipart/alternative; boundary=B\r\n\r\n"
    + "--B\r\nContent-Type: text/html\r\n\r\nx\r\n" * (n // 35),
    "nested parts": lambda n: "".join(
        f"Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n" for i in range(n // 55)
    ),
    "dashes": lambda n: "Content-Type: multipart/mixed; boundary=B\r\n\r\n" + "--C\r\n" * (n // 5),
    "closing brackets": lambda n: f"\r\nhttps://example.com/{')' * n}",
    "web addresses": lambda n: "\r\n" + "https://a.example/_ " * (n // 20),
    "signs for less": lambda n: f"Content-Type: text/html\r\n\r\n{'<' * n}",
    "open tags": lambda n: f"Content-Type: text/html\r\n\r\n{'<a ' * (n // 3)}",
    "open values": lambda n: "Content-Type: text/html\r\n\r\n" + "<a b='>' c=\"" * (n // 12),
    "open comments in HTML": lambda n: f"Content-Type: text/html\r\n\r\n{'<!--' * (n // 4)}",
    "open styles": lambda n: f"Content-Type: text/html\r\n\r\n{'<style>' * (n // 7)}",
    "references": lambda n: f"Content-Type: text/html\r\n\r\n<a href='{'&copy;' * (n // 6)}'>",
    "flowed lines": lambda n: "Content-Type: text/plain; format=flowed\n\n" + "> a \n" * (n // 5),
    "base64": lambda n: "Content-Transfer-Encoding: base64\r\n\r\n" + "YQ==" * (n // 4),
    "uuencode": lambda n: "Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n"
    + "#0V%T\r\n" * (n // 7),
}  # fmt: skip
SIZE = 24_000


def read(raw: bytes) -> float:
    """Return the CPU seconds that it takes to read everything."""
    return cpu_seconds(lambda: read_all(parse(ENVELOPE, raw)))


def read_all(message: Message) -> None:
    Criteria(to="kim@x.example", subject="y", text="z", cc="a@x.example").unmet(message)
    assert message.header_items() is not None
    assert [message.text, message.html, message.links(), message.attachments, message.problems]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", GROWING)
def test_reading_takes_linear_time(kind):
    small, large = (f"{GROWING[kind](size)}\r\n".encode() for size in (SIZE, 4 * SIZE))
    read(small)
    # Sixteen times as much would be quadratic; caches and the machine's noise are below that.
    assert min(read(large) for _ in range(2)) < 8 * min(read(small) for _ in range(2)) + 0.02


@pytest.mark.timeout(120)
def test_what_broken_mail_costs_at_most():
    """No more than mail of the same size that is as it should be, but for a factor."""
    usual = read(b"Subject: x\r\n\r\n" + b"Hello, this is a line of a letter.\r\n" * 25_000)
    raw = b"Content-Type: text/plain" + b"; a=b" * 180_000 + b"\r\n\r\n"
    assert read(raw) < 60 * usual + 1
