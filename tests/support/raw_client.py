"""SMTP clients that send just the octets they are told to.

smtplib is no use for that: it rewrites line ends, and takes a bare LF for one.
`RawClient` insists on replies that are right; `Wire` gives them as they come.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

#: Seconds that a reply may take.
TIMEOUT = 15.0

SENDER = "kim@example.com"
RECIPIENTS = ("lee@example.com",)

#: What a `Wire` says to send a message: until 354, and after it.
MESSAGE = (b"MAIL FROM:<kim@example.com>", b"RCPT TO:<lee@example.com>", b"DATA")
CONTENT = b"Subject: wire\r\n\r\nHello.\r\n."

#: The first two of these, for parameters behind them.
MAIL = b"MAIL FROM:<kim@example.com> "
RCPT = b"RCPT TO:<lee@example.com> "

#: What clients may say, well or badly, in any order.  What is behind a CRLF is content.
COMMANDS = [
    b"EHLO client.example",
    b"HELO client.example",
    b"MAIL FROM:<kim@example.com>",
    b"mail from:<kim@example.com> size=100 body=8bitmime",
    b"MAIL FROM:<kim@example.com> SIZE=99999999",
    b"MAIL FROM:<kim@example.com> SIZE=1 SIZE=2",
    b"MAIL FROM:<kim@example.com> SIZE=",
    b"MAIL FROM:<kim@example.com> SMTPUTF8",
    b"MAIL FROM:<kim@example.com> BODY=BINARYMIME",
    b"MAIL FROM: <kim@example.com>",
    b"MAIL FROM:<>",
    b'MAIL FROM:<"kim lee"@example.com>',
    b"MAIL FROM:kim@example.com",
    b"MAIL",
    b"RCPT TO:<lee@example.com>",
    b"rcpt to:<LEE@example.com>",
    b"RCPT TO:<lee@example.com> NOTIFY=NEVER",
    b"RCPT TO:<lee@[127.0.0.1]>",
    b"RCPT TO:<lee..lee@example.com>",
    b"RCPT TO:<lee>",
    b"DATA\r\nSubject: hello\r\n\r\n..dot\r\n.",
    b"DATA\r\n.",
    b"DATA now",
    b"RSET",
    b"NOOP",
    b"VRFY kim",
    b"HELP MAIL",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"",
]


class Reply(NamedTuple):
    code: int
    text: str


def stuff(content: bytes) -> bytes:
    """Add transparency (RFC 5321, 4.5.2): a dot in front of each leading dot.

    Where no line but the last ends in CRLF, lines end in LF, as they do for smtplib.
    """
    line_end = rb"\r\n" if b"\r\n" in content.removesuffix(b"\r\n") else rb"\n"
    return re.sub(rb"(\A|%b)\." % line_end, rb"\1..", content)


def wire(content: bytes) -> bytes:
    """Give what a client sends after 354, end of data included."""
    return stuff(arriving(content)) + b".\r\n"


def arriving(content: bytes) -> bytes:
    """Give the content that arrives: SMTP can send whole lines only."""
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


class _Connection:
    """One session.

    :param controller: Whose server to connect to.
    :param timeout: Seconds that a reply may take.
    """

    def __init__(self, controller: Any, *, timeout: float = TIMEOUT) -> None:
        self.sock = socket.create_connection((controller.host, controller.port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self.sock.makefile("rb")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._replies.close()
        self.sock.close()


class RawClient(_Connection):
    """A session that begins with EHLO, and has to go well."""

    def __enter__(self) -> RawClient:
        assert self.reply().code == 220
        assert self.command(b"EHLO client.example").code == 250
        return self

    def send(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def send_in_pieces(self, octets: bytes, cuts: Iterable[int]) -> None:
        """Send in one call for each piece between two cuts."""
        position = 0
        for cut in (*sorted(cuts), len(octets)):
            self.send(octets[position:cut])
            position = cut

    def reply(self) -> Reply:
        lines = []
        while True:
            line = self._replies.readline()
            assert line.endswith(b"\r\n"), f"the server hung up after {lines} {line!r}"
            lines.append(line[4:-2].decode())
            if line[3:4] == b" ":
                return Reply(int(line[:3]), "\n".join(lines))

    def command(self, line: bytes) -> Reply:
        self.send(line + b"\r\n")
        return self.reply()

    def begin(
        self, mail_from: str = SENDER, rcpt_tos: Iterable[str] = RECIPIENTS, mail_options: str = ""
    ) -> None:
        """Come as far as 354."""
        mail = f"MAIL FROM:<{mail_from}> {mail_options}".rstrip()
        commands = [mail, *(f"RCPT TO:<{address}>" for address in rcpt_tos)]
        self.send("".join(f"{command}\r\n" for command in (*commands, "DATA")).encode())
        for command in commands:
            reply = self.reply()
            assert reply.code == 250, (command, reply)
        assert self.reply().code == 354

    def deliver(
        self, content: bytes, mail_from: str = SENDER, rcpt_tos: Iterable[str] = RECIPIENTS
    ) -> Reply:
        """Send a whole message, and give the reply to its end."""
        self.begin(mail_from, rcpt_tos)
        self.send(wire(content))
        return self.reply()


class Wire(_Connection):
    """A session in octets: what is sent and what comes back, line by line."""

    def __enter__(self) -> Wire:
        return self

    def reply(self) -> bytes:
        """Give one whole reply; nothing, if the server hung up."""
        lines = b""
        with contextlib.suppress(ConnectionError):
            while line := self._replies.readline():
                lines += line
                if line[3:4] != b"-":
                    break
        return lines

    def rest(self) -> bytes:
        """Give what the server says until it hangs up."""
        with contextlib.suppress(ConnectionError):
            return self._replies.read()
        return b""

    def say(self, *lines: bytes) -> bytes:
        """Send each line when the last was answered; give the last reply."""
        answer = b""
        for line in lines:
            with contextlib.suppress(ConnectionError):
                self.sock.sendall(line + b"\r\n")
            answer = self.reply()
        return answer

    def codes(self, *lines: bytes) -> list[int]:
        return [int(self.say(line)[:3] or 0) for line in lines]


def silent(wire: Wire) -> bool:
    """Whether nothing more has come."""
    wire.sock.settimeout(0.05)
    try:
        return not wire.sock.recv(1)
    except TimeoutError:
        return True
    finally:
        wire.sock.settimeout(10)


@contextlib.contextmanager
def greeted(controller: Any) -> Iterator[Wire]:
    """Give a session that is past EHLO, or LHLO."""
    verb = b"LHLO" if controller.server.lmtp else b"EHLO"
    with Wire(controller) as wire:
        assert wire.reply().startswith(b"220 ")
        assert wire.say(verb + b" client.example").startswith(b"250")
        yield wire


def texts(reply: bytes) -> list[str]:
    """Take a reply of several lines apart, and see to its form."""
    lines = reply.decode().split("\r\n")
    assert lines.pop() == ""
    assert all(line[:4] == f"{lines[0][:3]}-" for line in lines[:-1])
    assert lines[-1][:4] == f"{lines[0][:3]} "
    return [line[4:] for line in lines]


def ehlo(controller: Any, verb: bytes = b"EHLO") -> list[str]:
    """Give the lines of the reply to EHLO, without their codes."""
    with Wire(controller) as wire:
        wire.reply()
        return texts(wire.say(verb + b" x"))


def to(address: str) -> bytes:
    return f"RCPT TO:<{address}>".encode()


def replies_by_lmtp(wire: Wire, *recipients: str, content: bytes = CONTENT) -> list[str]:
    """Send a message, and give the reply for each recipient that RCPT accepts."""
    assert wire.say(MESSAGE[0]).startswith(b"250 ")
    accepted = [one for one in recipients if wire.say(to(one)).startswith(b"250 ")]
    assert wire.say(b"DATA").startswith(b"354 ")
    wire.sock.sendall(content + b"\r\n")
    return [wire.reply().decode().removesuffix("\r\n") for _ in accepted]
