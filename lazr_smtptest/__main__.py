"""The command line, `lazr-smtptest`: arguments and exit status.

Runs in the place of the test process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import mailbox
import os
import re
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, TextIO, TypeVar

from lazr_smtptest._cli import (
    JSONPrinter,
    MailSink,
    OutputStuck,
    Printer,
    announcement,
    maildir,
    mbox,
)
from lazr_smtptest._version import __version__
from lazr_smtptest._wire.rules import make_rule
from lazr_smtptest.controller import QueueController
from lazr_smtptest.errors import SMTPTestError
from lazr_smtptest.server import MECHANISMS, OFFERABLE, Server
from lazr_smtptest.tls import CLIENT_CERTS, MODES, TLS, VERSIONS

__all__ = ["main"]

_Number = TypeVar("_Number", int, float)


def _login(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not user or not colon:
        raise argparse.ArgumentTypeError(f"must be USER:PASSWORD, not {text!r}")
    return user, password


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


_FAULT_OPTIONS = ("when", "times", "delay", "trickle", "drop", "after", "raw")
_FAULT_OPTION = re.compile(rf"(.*),({'|'.join(_FAULT_OPTIONS)})(?:=([^,]*))?", re.DOTALL)


def _fault(text: str) -> dict[str, Any]:
    """Read STAGE[=REPLY][,OPTION...]; return the arguments of `Controller.fault`."""
    stage = re.split("[=,]", text, maxsplit=1)[0]
    reply, options = _off_the_end(text[len(stage) :])
    if reply.startswith("="):
        options["reply"] = reply[1:]
    elif reply:
        known = ", ".join(_FAULT_OPTIONS)
        raise argparse.ArgumentTypeError(f"options are {known}, not {reply[1:]!r}")
    if options.pop("raw", False):
        options["raw"] = _octets(options.pop("reply", None))
    return {"stage": stage, **options}


def _off_the_end(text: str) -> tuple[str, dict[str, Any]]:
    """Take the options off the end of a fault; a reply may have commas, too."""
    options: dict[str, Any] = {}
    while found := _FAULT_OPTION.fullmatch(text):
        text, name, value = found.groups()
        if name in options:
            raise argparse.ArgumentTypeError(f"{name} is there twice")
        options[name] = _option_value(name, value)
    _, comma, last = text.rpartition(",")
    name, equals, _ = last.partition("=")
    near = get_close_matches(name, _FAULT_OPTIONS, 1) if comma and equals else []
    if near:
        raise argparse.ArgumentTypeError(f"{name!r} is no option: did you mean {near[0]}?")
    return text, options


def _option_value(name: str, text: str | None) -> object:
    if text is None and name in ("drop", "raw"):
        return True
    if text is None or name == "raw":
        raise argparse.ArgumentTypeError(f"{name} takes {'a' if text is None else 'no'} value")
    return text if name in ("when", "drop") else _number(text)


def _number(text: str) -> float | str:
    """Return a number, or what is none, which is refused where it is used."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _octets(text: str | None) -> bytes:
    if text is None:
        raise argparse.ArgumentTypeError(r"raw takes octets, as in CONNECT=220\r\n,raw")
    if not re.fullmatch(r"(?:[^\\]|\\[\\rnt]|\\x[0-9A-Fa-f]{2})*", text, re.DOTALL):
        raise argparse.ArgumentTypeError(rf"raw may have \r, \n, \t, \\ and \xHH, not {text!r}")
    octets = text.encode("utf-8", "surrogateescape")
    return octets.decode("unicode_escape").encode("latin-1")


def _check_faults(server: Server, faults: Iterable[dict[str, Any]]) -> None:
    for fault in faults:
        try:
            make_rule(server, **fault)
        except (TypeError, ValueError) as error:
            raise ValueError(f"argument --fault: {error}") from None


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _positive(kind: type[_Number]) -> Callable[[str], _Number]:
    def parse(text: str) -> _Number:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
        return number

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lazr-smtptest",
        description="Run an SMTP server that accepts every message and prints it.",
        epilog="It ends on Ctrl-C, SIGTERM and SIGHUP.  The exit status is 0; or 1 if the server "
        "failed, the time ran out, fewer than N messages came, or --check found an error; or 2 "
        "for wrong arguments.",
    )
    add = parser.add_argument
    add("--host", default="localhost", help="where to listen (%(default)s)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--port", type=int, default=9025,
        help="the port; 0 takes a free one (%(default)s)")  # fmt: skip
    place.add_argument("--unix-socket", type=_path, metavar="PATH",
        help="listen on this UNIX socket, and not on a port")  # fmt: skip
    add("--lmtp", action="store_true", help="speak LMTP (RFC 2033), and not SMTP")
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--auth", type=_login, action="append", default=[],
        metavar="USER:PASSWORD", help="let USER log in; may be repeated")  # fmt: skip
    known.add_argument("--auth-any", action="store_true",
        help="let anybody log in, with any password")  # fmt: skip
    add("--auth-mechanisms", type=_names, metavar="NAME,...",
        help="offer these mechanisms, in this order: " + ", ".join(MECHANISMS))  # fmt: skip
    add("--offer", type=_names, default=[], metavar="NAME,...",
        help="offer these extensions, too: " + ", ".join(OFFERABLE))  # fmt: skip
    _add_tls(parser.add_argument_group("TLS").add_argument)
    add("--idle-timeout", type=_positive(float), default=300.0, metavar="SECONDS",
        help="hang up on a client that is silent for SECONDS (%(default)g)")  # fmt: skip
    add("--max-connections", type=_positive(int), metavar="N",
        help="refuse clients while N others are connected")  # fmt: skip
    add("--fault", type=_fault, action="append", default=[], metavar="STAGE[=REPLY][,OPTION...]",
        help="say REPLY at STAGE, as in 'RCPT=451 4.7.1 Later,times=2', or misbehave in another "
        f"way, as in EOM,drop; options: {', '.join(_FAULT_OPTIONS)}; may be repeated")  # fmt: skip
    add("--count", type=_positive(int), metavar="N", help="end after N messages")
    add("--timeout", type=_positive(float), metavar="SECONDS",
        help="if that has not come to its end after SECONDS, report and fail")  # fmt: skip
    add("--proxy-protocol", action="store_true",
        help="expect the PROXY protocol's header, from HAProxy for one")  # fmt: skip
    add("--check", action="store_true", help="fail if a message or a session has an error")
    add("--maildir", type=_path, metavar="DIR", help="keep the messages in a Maildir")
    add("--mbox", type=_path, metavar="FILE", help="keep the messages in an mbox file")
    add("--report", type=_path, metavar="DIR",
        help="write an HTML page for each message, and an index, to DIR")  # fmt: skip
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print each message as a line of JSON")
    shown.add_argument("--quiet", action="store_true", help="print errors only")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _add_tls(add: Callable[..., argparse.Action]) -> None:
    add("--tls", choices=MODES,
        help="speak TLS; without --certfile it needs the extra tls")  # fmt: skip
    add("--certfile", type=_path, metavar="FILE", help="your own certificate, in PEM form")
    add("--keyfile", type=_path, metavar="FILE", help="its private key, if --certfile has none")
    add("--key-password", metavar="PASSWORD", help="the passphrase of the key")
    add("--ca-file", type=_path, metavar="FILE",
        help="what clients have to trust, if not --certfile itself")  # fmt: skip
    add("--client-cert", choices=CLIENT_CERTS, help="ask clients for a certificate")
    add("--client-ca-file", type=_path, metavar="FILE",
        help="which certificates of clients to trust, if not those made here")  # fmt: skip
    add("--minimum-version", choices=VERSIONS, help="the lowest version of TLS")
    add("--maximum-version", choices=VERSIONS, help="the highest version of TLS")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Blocks until so many messages have come, the time is up, or there is a
    SIGINT, SIGTERM or SIGHUP; and then for as long as it takes to stop, 15
    seconds at most, and to hand on what is there, 10 seconds a message at most.

    :param arguments: The arguments; those of the process if None.
    :return: The exit status: 0, or 1 if the server failed, the time was up,
        fewer messages came, or a check found an error.
    :raises SystemExit: With status 2, the arguments are wrong.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        controller = _controller(options)
        _check_faults(controller.server, options.fault)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    # Mail may have any characters; a terminal may have few.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(MailSink(controller, options.count, options.timeout), options)
    except BrokenPipeError:  # whoever read what was printed has gone
        _drop_output()
        return 0 if options.count is None else 1
    except (ImportError, OSError, mailbox.Error, SMTPTestError) as error:
        if isinstance(error, OutputStuck):
            _drop_output()
        _print(f"lazr-smtptest: {error}", sys.stderr)
        return 1


#: Options that need --tls.
_OF_TLS = (
    "certfile",
    "keyfile",
    "key_password",
    "ca_file",
    "client_cert",
    "client_ca_file",
    "minimum_version",
    "maximum_version",
)


def _tls(options: argparse.Namespace) -> TLS | None:
    given = {name: value for name in _OF_TLS if (value := getattr(options, name)) is not None}
    if options.tls is None:
        for name in given:
            raise ValueError(f"--{name.replace('_', '-')} needs --tls, starttls or implicit")
        return None
    if "key_password" in given:
        given["password"] = given.pop("key_password")
    return TLS(options.tls, **given)


def _controller(options: argparse.Namespace) -> QueueController:
    return QueueController(
        options.host,
        options.port if options.unix_socket is None else 0,
        unix_socket=options.unix_socket,
        lmtp=options.lmtp,
        tls=_tls(options),
        auth=options.auth_any or dict(options.auth) or None,
        auth_mechanisms=options.auth_mechanisms,
        idle_timeout=options.idle_timeout,
        max_connections=options.max_connections,
        proxy_protocol=options.proxy_protocol,
        offer=options.offer,
    )


def _drop_output() -> None:
    """Let what is left in a buffer go nowhere when the process ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(text: str, stream: TextIO | None) -> None:
    if stream is not None:  # as it is where it is closed; and that is not for print()
        print(text, file=stream, flush=True)


def _run(sink: MailSink, options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as kept:
        if options.maildir:
            sink.uses.append(kept.enter_context(maildir(options.maildir)))
        if options.mbox:
            sink.uses.append(kept.enter_context(mbox(options.mbox)))
        if options.report:
            from lazr_smtptest._pages.arrivals import ArrivalPages

            pages = ArrivalPages(options.report)
            sink.uses.append(pages.add_message)
            sink.session_uses.append(pages.add_session)
            kept.callback(pages.close)
        if not options.quiet and sys.stdout is not None:
            _print_to(sink, sys.stdout, as_json=options.json)
        if options.check:
            sink.check()
        all_came = sink.run(options.fault, lambda controller: _announce(controller, options))
    if not all_came:
        _print("lazr-smtptest: " + "\n".join(sink.report()), sys.stderr)
    for error in sink.errors:
        _print(f"lazr-smtptest: {error}", sys.stderr)
    return 0 if all_came and not sink.errors else 1


def _print_to(sink: MailSink, stream: TextIO, *, as_json: bool) -> None:
    if as_json:
        sink.uses.append(JSONPrinter(stream))
        return
    printer = Printer(stream)
    sink.uses.append(printer)
    sink.session_uses.append(printer.session)


def _announce(controller: QueueController, options: argparse.Namespace) -> None:
    if options.quiet and options.port:  # otherwise nobody would know the port
        return
    text = announcement(controller)
    if options.report:
        text += f"\npages are in {os.path.join(options.report, 'index.html')}"
    _print(text, sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
