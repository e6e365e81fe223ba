"""The command line, carried out: what it prints, and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import mailbox
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from lazr_smtptest._cli.arguments import SPELLING, parse
from lazr_smtptest._cli.mailboxes import maildir, mbox
from lazr_smtptest._cli.printers import JSONPrinter, Printer, announcement
from lazr_smtptest._cli.sink import LeasingSink, MailSink, OutputStuck
from lazr_smtptest._names import option, spelled
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import SMTPTestError

if TYPE_CHECKING:
    from lazr_smtptest.shared import SharedController


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Blocks until so many messages have come, the time is up, or there is a
    SIGINT, SIGTERM or SIGHUP; and then for as long as it takes to stop, 15
    seconds at most, and to hand on what is there, 10 seconds a message at most.

    :param arguments: The arguments; those of the process if None.
    :return: The exit status: 0, or 1 if the server failed, fewer messages
        came than ``--count`` says, or a check found an error.
    :raises SystemExit: With status 2, the arguments are wrong.
    """
    with spelled(SPELLING):
        return _main(*parse(arguments))


def _main(options: argparse.Namespace, controller: QueueController | SharedController) -> int:
    # aiosmtpd's: sessions show the same, and without what a terminal might obey.
    logging.getLogger("mail.log").addHandler(logging.NullHandler())
    # Mail may have any characters; a terminal may have few.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(_sink(controller, options), options)
    except BrokenPipeError:  # whoever read what was printed has gone
        _drop_output()
        return 0 if options.count is None else 1
    except (ImportError, OSError, mailbox.Error, SMTPTestError) as error:
        if isinstance(error, OutputStuck):
            _drop_output()
        _print(f"lazr-smtptest: {error}", sys.stderr)
        return 1


def _sink(controller: Any, options: argparse.Namespace) -> MailSink:
    if options.shared:
        return LeasingSink(controller, options.timeout)
    return MailSink(controller, options.count, options.timeout)


def _drop_output() -> None:
    """Let what is left in a buffer go nowhere when the process ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str, stream: TextIO | None) -> None:
    if stream is not None:  # as it is where it is closed; and that is not for print()
        print(text, file=stream, flush=True)


def _run(sink: MailSink, options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as kept:
        for name, box in (("maildir", maildir), ("mbox", mbox)):
            if path := getattr(options, name):
                with _blaming(name):
                    sink.uses.append(kept.enter_context(box(path)))
        if options.report:
            from lazr_smtptest._pages.arrivals import ArrivalPages

            with _blaming("report"):
                pages = ArrivalPages(options.report)
            sink.uses.append(pages.add_message)
            sink.session_uses.append(pages.add_session)
            kept.callback(pages.close)
        if not options.quiet and sys.stdout is not None:
            _print_to(sink, sys.stdout, options)
        if options.check:
            sink.check()
        all_came = sink.run(options.fault, lambda controller: _announce(controller, options))
    if not all_came:
        _print("lazr-smtptest: " + "\n".join(sink.report()), sys.stderr)
    for error in sink.errors:
        _print(f"lazr-smtptest: {error}", sys.stderr)
    return 0 if all_came and not sink.errors else 1


@contextlib.contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Name the option whose file the system refuses."""
    try:
        yield
    except OSError as error:
        error.strerror = f"argument {option(name)}: {error.strerror}"
        raise


def _print_to(sink: MailSink, stream: TextIO, options: argparse.Namespace) -> None:
    printer: JSONPrinter | Printer
    if options.json:
        printer = JSONPrinter(stream)
    else:
        printer = Printer(stream, raw=options.raw)
        if not isinstance(sink, LeasingSink):
            sink.last_uses.append(printer.summary)
    if isinstance(sink, LeasingSink):
        sink.last_uses.append(lambda: printer.unclaimed(sink.unclaimed))
    sink.uses.append(printer)
    sink.session_uses.append(printer.session)
    if options.verbose:
        sink.event_uses.append(printer.event)


def _announce(controller: Any, options: argparse.Namespace) -> None:
    if options.quiet and options.port and not options.shared:  # else nobody would know the port
        return
    text = announcement(controller)
    if options.report:
        text += f"\npages are in {os.path.join(options.report, 'index.html')}"
    _print(text, sys.stderr if options.json else sys.stdout)
    if options.shared:
        facts = {"kind": "shared", "address": controller.address, "key": controller.key}
        text = "lease it at {address} with the key {key}".format_map(facts)
        _print(json.dumps(facts) if options.json else text, sys.stdout)
