"""A program of its own that has a lease, does what it is told, and may be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from lazr_smtptest import SharedController, SMTPTestError, connect


class LeaseProgram:
    """It evaluates what it is told, with ``lease`` at hand, and tells what came of it.

    :ivar pid: Its number.
    """

    def __init__(self, address: str, key: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, address, key, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self.label: str = self.tell("lease.label")

    def tell(self, expression: str) -> Any:
        """Return what it made of an expression, or the text of an error of ours."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{expression}\n")
        return eval(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def lease_program(shared: SharedController, name: str = "a program") -> Iterator[LeaseProgram]:
    program = LeaseProgram(shared.address, shared.key, name)
    try:
        yield program
    finally:
        program.kill()


def main() -> None:
    address, key, name = sys.argv[1:]
    lease = connect(address, key, name=name, timeout=60)
    for line in sys.stdin:
        try:
            value = eval(line, {"lease": lease})
        except SMTPTestError as error:
            value = f"{type(error).__name__}: {error}"
        print(repr(value), flush=True)


if __name__ == "__main__":
    main()
