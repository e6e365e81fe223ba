"""The command line: a server that prints what it receives.

Runs in the place of the test process.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from queue import Empty
from types import FrameType

from lazr_smtptest._version import __version__
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import SMTPTestError
from lazr_smtptest.message import Message

__all__ = ["main"]


class _Interrupted(BaseException):
    """SIGINT or SIGTERM came in."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: stopping is under way, and is bounded in time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Interrupted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lazr-smtptest",
        description="Run an SMTP server that accepts every message and prints it.",
        epilog="It ends cleanly on Ctrl-C and on SIGTERM.",
    )
    parser.add_argument("--host", default="localhost", help="where to listen (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=9025, help="the port; 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help="end after N messages (default: go on)"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Blocks until as many messages have come as were asked for, or until SIGINT
    or SIGTERM.

    :param arguments: The arguments; those of the process if None.
    :return: The exit status: 0, or 1 if the server failed.
    :raises SystemExit: With status 2, the arguments are wrong.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.count is not None and options.count < 1:
        parser.error(f"argument --count: must be 1 or more, not {options.count}")
    try:
        controller = QueueController(options.host, options.port)
    except ValueError as error:
        parser.error(str(error))
    # Mail may have any octets; a terminal has not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with controller:
            print(f"listening on {controller.host} port {controller.port}", flush=True)
            _print_messages(controller, options.count)
    except _Interrupted:
        return 0
    except (OSError, SMTPTestError) as error:
        print(f"lazr-smtptest: {error}", file=sys.stderr)
        return 1
    return 0


def _print_messages(controller: QueueController, count: int | None) -> None:
    printed = 0
    while count is None or printed < count:
        try:
            message = controller.queue.get()
        except Empty:
            continue
        printed += 1
        print(_as_text(printed, message), flush=True)


def _as_text(number: int, message: Message) -> str:
    title = f"---------- message {number} ----------"
    text = message.raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    envelope = message.envelope
    return (
        f"{title}\nfrom <{envelope.mail_from}> to "
        + ", ".join(f"<{address}>" for address in envelope.rcpt_tos)
        + f"\n\n{text}"
    )


if __name__ == "__main__":
    sys.exit(main())
