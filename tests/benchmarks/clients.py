"""The clients that send: smtp-source, smtplib here, and smtplib in another process."""

from __future__ import annotations

import contextlib
import mmap
import select
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from peers import HOST, Running, find_program

#: Seconds that a client may take for anything.
PATIENCE = 60.0

#: Octets that one run of smtp-source sends at most: ours keeps them all.
_MOST_OCTETS = 400_000_000
_MOST_MESSAGES = 50_000

#: What the octet says that this process and `OtherProcess` share.
WAITING, COMPUTING, SENT = b"w", b"c", b"s"

_LINE = b"The quick brown fox jumps over the lazy dog, and the dog does not mind it.\r\n"


def make_message(size: int) -> bytes:
    """Make a message of just about so many octets, with lines as mail has them."""
    head = b"From: kim@example.com\r\nTo: lee@example.com\r\nSubject: A benchmark\r\n\r\n"
    return head + _LINE * max(1, round((size - len(head)) / len(_LINE)))


class Source:
    """Sends with Postfix's smtp-source, which is faster than any server here.

    Each server gets as many messages as it takes for some time, lest the start
    of the program count, or the slowest hold everything up.
    """

    def __init__(self, size: int, sessions: int, seconds: float, *, reads: bool = False) -> None:
        self._size = size
        self._sessions = sessions
        self._seconds = seconds
        #: Whether messages are taken as they come, where they can be.
        self._reads = reads
        self._counts: dict[int, int] = {}

    def rate(self, server: Running) -> float:
        """Give the messages a second that a server takes."""
        if server.port not in self._counts:
            self._counts[server.port] = self._suitable_count(server)
        count = self._counts[server.port]
        return count / self._send(server, count)

    def _bounds(self) -> tuple[int, int]:
        """Give the least and the greatest number: connecting is not to be what counts."""
        least = self._sessions * (10 if self._size <= 100_000 else 3)
        return least, max(least, min(_MOST_MESSAGES, _MOST_OCTETS // self._size))

    def _suitable_count(self, server: Running) -> int:
        least, most = self._bounds()
        count = min(most, max(least, 100 if self._size <= 100_000 else 0))
        while (elapsed := self._send(server, count)) < self._seconds / 2 and count < most:
            # Twice as many at least, and not hundreds of times as many on a whim.
            count = min(most, round(count * min(8, max(2, self._seconds / elapsed))))
        return max(least, min(most, round(count * self._seconds / elapsed)))

    def _send(self, server: Running, count: int) -> float:
        program = find_program("smtp-source")
        assert program is not None
        command = [program, "-d", "-M", "client.example", "-s", str(self._sessions)]
        command += ["-m", str(count), "-l", str(self._size)]
        command += ["-f", "kim@example.com", "-t", "lee@example.com", f"{HOST}:{server.port}"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                if self._reads and server.queue is not None:
                    for _ in range(count):
                        server.queue.get(timeout=PATIENCE)
                code = process.wait(PATIENCE)
            finally:
                process.kill()
        if code:
            raise subprocess.CalledProcessError(code, command)
        elapsed = time.perf_counter() - started
        server.forget()
        return elapsed


@contextlib.contextmanager
def connected(server: Running) -> Iterator[smtplib.SMTP]:
    """Give a connection; its name is given too, or smtplib asks the resolver."""
    with smtplib.SMTP(HOST, server.port, "client.example", timeout=PATIENCE) as client:
        yield client


def send(client: smtplib.SMTP, message: bytes, count: int) -> None:
    """Send a message a number of times."""
    for _ in range(count):
        client.sendmail("kim@example.com", ["lee@example.com"], message)


class OtherProcess:
    """The program in `sender.py`: a client that the test process does not slow down.

    Both see an octet of shared memory.  To look at it takes no system call, in
    which the test process would let its other threads run: so it can compute
    for just as long as the other one sends.
    """

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(WAITING)
            file.flush()
            self._shared = mmap.mmap(file.fileno(), 1)
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("sender.py")), file.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            # Before the file goes: it has opened that.
            self._hear()

    def rate_while_computing(self, server: Running, seconds: float) -> float:
        """Compute in pure Python while it sends; give its messages a second."""
        self._shared[:] = WAITING
        assert self._process.stdin is not None
        print(server.port, seconds, file=self._process.stdin, flush=True)
        self._hear()
        self._compute(PATIENCE)
        count, elapsed = self._hear().split()
        server.forget()
        return int(count) / float(elapsed)

    def _compute(self, at_most: float) -> None:
        """Say so, and keep the interpreter busy, never waiting, until all is sent."""
        self._shared[:] = COMPUTING
        deadline = time.perf_counter() + at_most
        while self._shared[:] != SENT and time.perf_counter() < deadline:
            total = 0
            for number in range(1000):
                total += number * number

    def _hear(self) -> str:
        # It says one line at a time, so nothing waits in the buffer unseen.
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f"the sending process said nothing for {PATIENCE:g} seconds")
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)
        self._shared.close()
