"""The arguments of the command line, and the server that they ask for."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lazr_smtptest._names import (
    FAULT_ELSEWHERE,
    FLAGS_ELSEWHERE,
    MODES_ELSEWHERE,
    VERSIONS_ELSEWHERE,
    CommandLine,
    hint,
    hints,
    one_of,
)
from lazr_smtptest._version import __version__
from lazr_smtptest._wire.rules import make_rule
from lazr_smtptest._wire.sharing import ADDRESS
from lazr_smtptest.controller import QueueController
from lazr_smtptest.server import MECHANISMS, OFFERABLE, Server
from lazr_smtptest.tls import CLIENT_CERTS, MODES, NO_OLDER, TLS, VERSIONS

if TYPE_CHECKING:
    from lazr_smtptest.shared import SharedController

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
        known, name = ", ".join(_FAULT_OPTIONS), reply[1:].partition("=")[0]
        meant = hint(name, _FAULT_OPTIONS, FAULT_ELSEWHERE)
        raise argparse.ArgumentTypeError(f"options are {known}, not {reply[1:]!r}{meant}")
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
    meant = hint(name, _FAULT_OPTIONS, FAULT_ELSEWHERE) if comma and equals else ""
    if meant:
        raise argparse.ArgumentTypeError(f"{name!r} is no option{meant}")
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


def _choice(
    known: Collection[str], elsewhere: Mapping[str, str] | None = None, advice: str = ""
) -> dict[str, Any]:
    """Return the parameters of an option that is one of a few names; see `check_choice`."""

    def parse(text: str) -> str:
        if text not in known:
            meant = hint(text, known, elsewhere) or advice
            raise argparse.ArgumentTypeError(
                f"invalid choice: {text!r}, must be {one_of(known)}{meant}"
            )
        return text

    return {"type": parse, "metavar": f"{{{','.join(known)}}}"}


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


#: All options in the order of --help, by group: what argparse wants to know of each.
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "where it listens": {
        "--host": {"default": "localhost", "help": "where to listen (%(default)s)"},
        "--port": {
            "type": int,
            "default": 9025,
            "help": "the port; 0 takes a free one (%(default)s)",
        },
        "--unix-socket": {
            "type": _path,
            "metavar": "PATH",
            "help": "listen on this UNIX socket, and not on a port",
        },
        "--proxy-protocol": {
            "action": "store_true",
            "help": "expect the PROXY protocol's header, from HAProxy for one",
        },
    },
    "one server for many processes": {
        "--shared": {
            "action": "store_true",
            "help": "keep mail for those who take a part of the server, and print how to",
        },
        "--lease-host": {
            "metavar": "HOST",
            "help": "take them by TCP on HOST, too, and not on a UNIX socket alone",
        },
        "--template": {"metavar": "TEMPLATE", "help": f"how their addresses are made ({ADDRESS})"},
    },
    "when it ends": {
        "--count": {"type": _positive(int), "metavar": "N", "help": "end after N messages"},
        "--timeout": {
            "type": _positive(float),
            "metavar": "SECONDS",
            "help": "end after SECONDS; with --count, and fewer messages by then, fail",
        },
        "--check": {"action": "store_true", "help": "fail if a message or a session has an error"},
    },
    "what it prints and keeps": {
        "-v --verbose": {
            "action": "store_true",
            "help": "print each line of each session as it comes, too",
        },
        "--raw": {"action": "store_true", "help": "print messages as they were sent"},
        "--json": {"action": "store_true", "help": "print objects of JSON, one a line"},
        "--quiet": {"action": "store_true", "help": "print errors only"},
        "--maildir": {"type": _path, "metavar": "DIR", "help": "keep the messages in a Maildir"},
        "--mbox": {"type": _path, "metavar": "FILE", "help": "keep the messages in an mbox file"},
        "--report": {
            "type": _path,
            "metavar": "DIR",
            "help": "write an HTML page for each message, and an index, to DIR",
        },
    },
    "what it speaks": {
        "--lmtp": {"action": "store_true", "help": "speak LMTP (RFC 2033), and not SMTP"},
        "--offer": {
            "type": _names,
            "default": [],
            "metavar": "NAME,...",
            "help": "offer these extensions, too: " + ", ".join(OFFERABLE),
        },
        "--auth": {
            "type": _login,
            "action": "append",
            "default": [],
            "metavar": "USER:PASSWORD",
            "help": "let USER log in; may be repeated",
        },
        "--auth-any": {"action": "store_true", "help": "let anybody log in, with any password"},
        "--auth-required": {
            "action": "store_true",
            "help": "refuse mail of clients that have not logged in",
        },
        "--auth-mechanisms": {
            "type": _names,
            "metavar": "NAME,...",
            "help": "offer these mechanisms, in this order: " + ", ".join(MECHANISMS),
        },
    },
    "TLS": {
        "--tls": {
            **_choice(MODES, MODES_ELSEWHERE),
            "help": "speak TLS; without --certfile it needs the extra tls",
        },
        "--certfile": {
            "type": _path,
            "metavar": "FILE",
            "help": "your own certificate, in PEM form",
        },
        "--keyfile": {
            "type": _path,
            "metavar": "FILE",
            "help": "its private key, if --certfile has none",
        },
        "--key-password": {"metavar": "PASSWORD", "help": "the passphrase of the key"},
        "--ca-file": {
            "type": _path,
            "metavar": "FILE",
            "help": "what clients have to trust, if not --certfile itself",
        },
        "--client-cert": {**_choice(CLIENT_CERTS), "help": "ask clients for a certificate"},
        "--client-ca-file": {
            "type": _path,
            "metavar": "FILE",
            "help": "which certificates of clients to trust, if not those made here",
        },
        "--minimum-version": {
            **_choice(VERSIONS, VERSIONS_ELSEWHERE, NO_OLDER),
            "help": "the lowest version of TLS",
        },
        "--maximum-version": {
            **_choice(VERSIONS, VERSIONS_ELSEWHERE, NO_OLDER),
            "help": "the highest version of TLS",
        },
    },
    "how it misbehaves": {
        "--fault": {
            "type": _fault,
            "action": "append",
            "default": [],
            "metavar": "STAGE[=REPLY][,OPTION...]",
            "help": "say REPLY at STAGE, as in 'RCPT=451 4.7.1 Later,times=2', or misbehave in "
            f"another way, as in EOM,drop; options: {', '.join(_FAULT_OPTIONS)}; may be repeated",
        },
        "--idle-timeout": {
            "type": _positive(float),
            "default": 300.0,
            "metavar": "SECONDS",
            "help": "hang up on a client that is silent for SECONDS (%(default)g)",
        },
        "--max-connections": {
            "type": _positive(int),
            "metavar": "N",
            "help": "refuse clients while N others are connected",
        },
    },
}

_FLAGS = [flags.split()[-1] for options in _OPTIONS.values() for flags in options]

#: How errors write options here.
SPELLING = CommandLine(_FLAGS)

#: Of each of these, one may be given.
_EITHER = (("--port", "--unix-socket"), ("--auth", "--auth-any"), ("--raw", "--json", "--quiet"))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong, and not how all of it is used."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\nsee {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lazr-smtptest",
        description="Run an SMTP server that accepts every message and prints it.",
        epilog="It ends on Ctrl-C, SIGTERM and SIGHUP.  The exit status is 0; or 1 if the server "
        "failed, fewer than N messages came, or --check found an error; or 2 for wrong "
        "arguments; or 130 for Ctrl-C before there was a server to end.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        either: dict[tuple[str, ...], Any] = {}
        for flags, settings in options.items():
            names = next((names for names in _EITHER if flags in names), None)
            if names is not None and names not in either:
                either[names] = group.add_mutually_exclusive_group()
            place = group if names is None else either[names]
            place.add_argument(*flags.split(), **settings)
    return parser


def parse(
    arguments: list[str] | None,
) -> tuple[argparse.Namespace, QueueController | SharedController]:
    """Return the options, and a controller of the server that they ask for.

    :param arguments: The arguments; those of the process if None.
    :raises SystemExit: With status 2, they are wrong.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = [word.partition("=")[0] for word in unknown]
        port = {names[0]: f"--port {names[0]}"} if names[0].isdecimal() else {}
        meant = hints(names, _FLAGS, FLAGS_ELSEWHERE | port)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    if options.verbose and options.quiet:
        parser.error("argument --quiet: not allowed with argument --verbose")
    try:
        controller = _controller(options)
        _check_faults(controller.server, options.fault)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    return options, controller


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


def _kind(options: argparse.Namespace) -> Callable[..., QueueController | SharedController]:
    if not options.shared:
        return QueueController
    from lazr_smtptest.shared import SharedController

    return SharedController


#: Options that are for mail which the command takes itself.
_OF_MAIL = ("count", "check", "raw", "maildir", "mbox", "report")


def _controller(options: argparse.Namespace) -> QueueController | SharedController:
    shared = {name: getattr(options, name) for name in ("template", "lease_host")}
    given = {name: value for name, value in shared.items() if value is not None}
    for name in _OF_MAIL if options.shared else given:
        if getattr(options, name) not in (None, False):
            needs = "does not go with" if options.shared else "needs"
            raise ValueError(f"--{name.replace('_', '-')} {needs} --shared")
    return _kind(options)(
        options.host,
        options.port if options.unix_socket is None else 0,
        **given,
        unix_socket=options.unix_socket,
        lmtp=options.lmtp,
        tls=_tls(options),
        auth=options.auth_any or dict(options.auth) or None,
        auth_required=options.auth_required,
        auth_mechanisms=options.auth_mechanisms,
        idle_timeout=options.idle_timeout,
        max_connections=options.max_connections,
        proxy_protocol=options.proxy_protocol,
        offer=options.offer,
    )
