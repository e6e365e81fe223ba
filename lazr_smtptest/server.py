"""Servers: what happens to a message.

You make a server in the test process, where it is only data: where to listen
and how to behave.  `Controller.start` copies it to the server process, and
everything else here runs there.  What an override stores on ``self`` stays
in the server process, and the test process does not see it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._names import (
    OF_CONTROLLERS,
    OPTIONS_ELSEWHERE,
    checked,
    has_option,
    hints,
    is_refusal,
    leave_out,
    option,
    setting,
)
from lazr_smtptest._util import file_path, positive_seconds, true_or_false, whole_number
from lazr_smtptest._version import __version__

if TYPE_CHECKING:
    from lazr_smtptest.message import Message
    from lazr_smtptest.tls import TLS, Credentials, Mode

__all__ = ["QueueServer", "Server"]

__tracebackhide__ = is_refusal  # for pytest

#: 2**25 octets, which is what aiosmtpd allows.
_DATA_SIZE_LIMIT = 33_554_432

#: 998 octets (RFC 5322, 2.1.1), CRLF, and the dot that transparency may add
#: (RFC 5321, 4.5.3.1.6).
_LINE_LENGTH_LIMIT = 1001

#: What EHLO's reply can announce.
EXTENSIONS = frozenset(
    "8BITMIME AUTH DSN ENHANCEDSTATUSCODES HELP PIPELINING SIZE SMTPUTF8 STARTTLS".split()
)

#: What it can announce as well, in this order, if asked for (RFC 3030).
OFFERABLE = ("CHUNKING", "BINARYMIME")

#: Ways to log in.  Two are offered only if they are asked for: SCRAM-SHA-256 needs an extra,
#: and EXTERNAL a certificate of the client.
MECHANISMS = ("CRAM-MD5", "EXTERNAL", "LOGIN", "OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "XOAUTH2")

#: Decides by mechanism, user and secret whether a client may log in: a bool, or a refusal.
Decision = Callable[[str, str, str], "bool | str"]

#: Salt, stored key, server key and iterations (RFC 5802, 3).
ScramKeys = tuple[bytes, bytes, bytes, int]

#: RFC 5321, 4.5.3.1.8 asks for no less than 100; many servers stop at 1,000.
_RECIPIENT_LIMIT = 1000

_SMTP_PORT = 25

#: RFC 5321, 4.5.3.2.7 asks for no less than 5 minutes.
_IDLE_TIMEOUT = 300.0

#: Where to listen as others write it, such as smtp://localhost:2525 and unix:/run/mail.sock.
_PLACE = re.compile(
    r"(?:unix:)?(?P<path>\.{0,2}/.*)|(?:[a-z][a-z0-9+.-]*://)?(?:[^@/]*@)?"
    r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:/]*))(?::(?P<port>\d{1,5})?)?(?:/.*)?",
    re.IGNORECASE,
)

#: Octets of a socket's path: sun_path (unix(7)) has them, and a NUL at the end.
_LONGEST_PATH = 107 if sys.platform == "linux" else 103


@checked(__init__=OPTIONS_ELSEWHERE | OF_CONTROLLERS)
class Server:
    """The description of an SMTP or LMTP server.  Subclass it to decide what happens to mail.

    A subclass may also define any handler hook of aiosmtpd, such as
    ``async def handle_RCPT(self, server, session, envelope, address,
    rcpt_options)``.  Hooks run on the server process's event loop and must
    not block; `handle_message` and `reset` run on a thread and may.

    The host, the port, ``unix_socket``, ``lmtp``, ``tls``, ``hostname``, ``ident``, the three
    limits, ``idle_timeout``, ``proxy_protocol`` and ``reset_on_rset`` are attributes, too.

    :param host: A name or an address to listen on.  A name is bound on every
        address it resolves to.  An empty string means all interfaces.
    :param port: The TCP port; 0 takes a free one, which is in `Controller.port`.
    :param unix_socket: The path of a UNIX socket to listen on, instead of host and port.
        A relative one is made absolute at once.  It may be 107 bytes long on Linux, and 103 on
        macOS; abstract sockets are not supported.  The umask decides who may connect, see
        umask(2).
    :param lmtp: Whether to speak LMTP (RFC 2033) and not SMTP: LHLO instead of EHLO and
        HELO, and one reply for each recipient at the end of a message.
    :param tls: ``"starttls"``, ``"implicit"`` or a `TLS`; by default no TLS.
    :param auth: The passwords by user name, for AUTH by PLAIN, LOGIN, CRAM-MD5 and
        SCRAM-SHA-256; for XOAUTH2 and OAUTHBEARER they are tokens, and for EXTERNAL the
        subjects of clients' certificates (RFC 4514).  Or True, to let anybody in; or a
        function that takes the mechanism, the user and the secret, and returns
        True, False, or the reply to a login that fails.  It runs in the server process,
        on a thread of its own, for one login at a time.
    :param auth_mechanisms: The mechanisms to offer, in this order: of CRAM-MD5,
        EXTERNAL, LOGIN, OAUTHBEARER, PLAIN, SCRAM-SHA-256 and XOAUTH2, and those that a
        subclass has.  By default all but SCRAM-SHA-256, which needs the extra ``scram``, and
        EXTERNAL, which needs a ``tls`` with ``client_cert``, and is offered to clients that
        have shown a certificate.
    :param auth_required: Whether to accept mail only after AUTH; before that, the
        reply is 530 (RFC 4954, 6).
    :param auth_require_tls: Whether to offer AUTH only under TLS.
    :param hide: Extensions that the server does not announce in its reply to EHLO,
        and does not have: of 8BITMIME, AUTH, DSN, ENHANCEDSTATUSCODES, HELP,
        PIPELINING, SIZE, SMTPUTF8 and STARTTLS.
    :param offer: Extensions that the server announces in addition, and has:
        CHUNKING, and with it BINARYMIME (RFC 3030).  By default BDAT is refused with 502.
    :param hostname: The name in the greeting and in the reply to EHLO.
    :param ident: The rest of the greeting; by default ESMTP or LMTP, and this package.
    :param data_size_limit: How many bytes a message may have, counted as
        they are sent; beyond it the reply is 552.  None: no limit.
    :param line_length_limit: How many bytes a line of content may have, with
        its CRLF and its transparency dot; beyond it the reply is 500.
    :param recipient_limit: How many recipients a message may have; beyond it
        the reply is 452 (RFC 5321, 4.5.3.1.10).
    :param idle_timeout: Seconds that a client may be silent when it is its turn; then it
        gets 421, and the connection is closed (RFC 5321, 4.5.3.2.7).
    :param max_connections: How many clients may be connected at once; the next one
        gets 421, and its connection is closed.  None: no limit.
    :param proxy_protocol: Whether each connection begins with the header of a proxy (HAProxy's
        PROXY protocol, version 1 or 2), which says who its client is; without one, the
        connection is closed.
    :param reset_on_rset: Whether a client's RSET command resets the server as
        well, as it did in 2.x.
    :raises TypeError: A value is of the wrong type.
    :raises ValueError: The port or a limit is out of range; a name would break the
        line of the greeting; there is no such mechanism or extension; you ask for LMTP
        on port 25 (RFC 2033, 5); a path cannot be a socket's; or you pass it together
        with a host or a port.
    :raises ImportError: You ask for SCRAM-SHA-256, and scramp is not installed.

    >>> Server("localhost", 70000)
    Traceback (most recent call last):
    ...
    ValueError: port must be from 0 to 65535, not 70000
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 0,
        *,
        unix_socket: str | os.PathLike[str] | None = None,
        lmtp: bool = False,
        tls: TLS | Mode | None = None,
        auth: Mapping[str, str] | bool | Callable[[str, str, str], bool | str] | None = None,
        auth_mechanisms: Iterable[str] | None = None,
        auth_required: bool = False,
        auth_require_tls: bool = False,
        hide: Iterable[str] = (),
        offer: Iterable[str] = (),
        hostname: str = "localhost",
        ident: str | None = None,
        data_size_limit: int | None = _DATA_SIZE_LIMIT,
        line_length_limit: int = _LINE_LENGTH_LIMIT,
        recipient_limit: int = _RECIPIENT_LIMIT,
        idle_timeout: float = _IDLE_TIMEOUT,
        max_connections: int | None = None,
        proxy_protocol: bool = False,
        reset_on_rset: bool = False,
    ) -> None:
        self.host = check_host("host", host)
        self.port = _int("port", port, 0, 65535)
        self.unix_socket = None if unix_socket is None else _unix_socket(unix_socket)
        if unix_socket is not None and (host, port) != ("localhost", 0):
            raise ValueError(
                f"{option('unix_socket')} takes the place of {option('host')} and "
                f"{option('port')}, and these are {host!r} and {port}: leave them out"
            )
        self.lmtp = true_or_false("lmtp", lmtp)
        if lmtp and port == _SMTP_PORT:
            raise ValueError(
                f"{option('lmtp')} must not be spoken on port 25, which is SMTP's (RFC 2033, 5)"
            )
        self.tls = None if tls is None else _tls(tls)
        #: The files that TLS takes; a controller's `start` fills this in.
        self._credentials: Credentials | None = None
        self._set_auth(auth, auth_mechanisms)
        self._needs_auth = true_or_false("auth_required", auth_required)
        self._needs_tls_for_auth = true_or_false("auth_require_tls", auth_require_tls)
        if auth_required and not self._offers_auth():
            raise _needs_auth("auth_required")
        if auth_require_tls and self.tls is None:
            raise ValueError(
                f"{option('auth_require_tls')} needs {option('tls')}, "
                f"such as {setting('tls', 'starttls')}"
            )
        self._hidden_extensions = _extensions("hide", hide, sorted(EXTENSIONS), _why_not_hidden)
        self._offered_extensions = _extensions("offer", offer, OFFERABLE, _why_not_offered)
        self._check_binarymime()
        self.hostname = _hostname(hostname)
        self._ident = None if ident is None else _text("ident", ident)
        self.data_size_limit = (
            None if data_size_limit is None else _int("data_size_limit", data_size_limit, 1)
        )
        self.line_length_limit = _int("line_length_limit", line_length_limit, 3)
        self.recipient_limit = _int("recipient_limit", recipient_limit, 1)
        self.idle_timeout = positive_seconds("idle_timeout", idle_timeout)
        self.max_connections = (
            None if max_connections is None else _int("max_connections", max_connections, 1)
        )
        self.proxy_protocol = true_or_false("proxy_protocol", proxy_protocol)
        self.reset_on_rset = true_or_false("reset_on_rset", reset_on_rset)

    @property
    def ident(self) -> str:
        """The rest of the greeting."""
        if self._ident is not None:
            return self._ident
        return f"{'LMTP' if self.lmtp else 'ESMTP'} Python SMTP proxy version {__version__}"

    @ident.setter
    def ident(self, ident: str) -> None:
        self._ident = _text("ident", ident)

    def _check_binarymime(self) -> None:
        if "BINARYMIME" not in self._offered_extensions:
            return
        if "CHUNKING" not in self._offered_extensions:  # RFC 3030, 3
            raise ValueError(
                f"BINARYMIME of {option('offer')} needs CHUNKING: "
                f"{setting('offer', ('CHUNKING', 'BINARYMIME'))}"
            )
        if "8BITMIME" in self._hidden_extensions:
            raise ValueError(
                f"BINARYMIME of {option('offer')} needs the parameter BODY: hide no 8BITMIME"
            )

    def _set_auth(self, auth: object, mechanisms: Iterable[str] | None) -> None:
        # aiosmtpd takes each attribute named auth_* for a way to log in.
        self._auth = None if auth is None else _auth(auth)
        #: In the order in which they are offered; None for all that need no extra.
        self._mechanisms: tuple[str, ...] | None = None
        self._scram_keys: dict[str, ScramKeys] | None = None
        if mechanisms is None:
            return
        if not self._offers_auth():
            raise _needs_auth("auth_mechanisms")
        self._mechanisms = names = _names("auth_mechanisms", mechanisms, "PLAIN")
        own = {_mechanism(hook) for hook in self._auth_hooks()}
        _check_mechanisms(names, own, self._auth)
        if "EXTERNAL" in {*names} - own and getattr(self.tls, "client_cert", None) is None:
            raise ValueError(
                f"EXTERNAL of {option('auth_mechanisms')} needs a certificate of the client: "
                f"{setting('client_cert', 'optional', within='TLS')} or 'required'"
            )
        if "SCRAM-SHA-256" in {*names} - own:
            self._scram_keys = _scram_keys(self._auth)

    # Methods, since aiosmtpd looks at all attributes of a handler with every connection.

    def _auth_hooks(self) -> list[str]:
        return [
            getattr(getattr(type(self), name), "__auth_mechanism_name__", name)
            for name in dir(type(self))
            if name.startswith("auth_") and callable(getattr(type(self), name))
        ]

    def _offers_auth(self) -> bool:
        """Whether a client can log in: by ``auth``, or by aiosmtpd's hooks."""
        has_hook = callable(getattr(type(self), "handle_AUTH", None))
        return self._auth is not None or has_hook or bool(self._auth_hooks())

    def handle_message(self, message: Message) -> str | None:  # noqa: ARG002 -- overrides have it
        """Handle a message that has just arrived; here: do nothing.

        Runs in the server process, on one thread, one message at a time, in
        the order in which the messages were completed.  The client gets its reply
        when this returns.  If this raises, or returns something else, the client
        gets 451, and the test process a `HandlerError`.

        :param message: The message.
        :return: The reply, as in ``'553 5.7.1 Not wanted here'``, whose code is 2xx, 4xx
            or 5xx; None means 250.  It is sent unchanged; separate lines by
            line feeds.  After 421 the connection is closed.
        """
        return None

    def reset(self) -> None:
        """Forget all messages; a plain `Server` has none.

        Runs in the server process, on the thread of `handle_message`.
        """


@checked(__init__=OPTIONS_ELSEWHERE)
class QueueServer(Server):
    """A server that puts each message into a queue of the test process.

    :param host: See `Server`.
    :param port: See `Server`.
    :param queue: A `MessageQueue`, or anything with a method ``put(message)``; its ``put_nowait``
        is used if it has one, so that a full queue raises and does
        not block.  It stays in the test process and is filled there.
    :param options: The keyword arguments of `Server`.

    :ivar queue: The queue.  In the server process it is a `queue.Queue` that sends
        what is put to the real queue, and that reads as empty: ``get`` raises
        `queue.Empty` at once.
    """

    queue: Any

    def __init__(self, host: str, port: int, queue: Any, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.queue = queue

    def __getstate__(self) -> dict[str, Any]:
        """Leave the queue behind when going to another process."""
        state = self.__dict__.copy()
        state.pop("queue", None)
        return state

    def handle_message(self, message: Message) -> str | None:
        """Put the message into the queue.

        An override decides what the test gets, by what it passes to
        ``super().handle_message``: something picklable, once, several times,
        or not at all.  It is pickled at once, and put once the override has returned;
        it is not put if the override raises, or returns a reply of 4xx or 5xx.

        :param message: The message.
        :return: None, which accepts the message.
        """
        if hasattr(type(self.queue), "_put_if_accepted"):  # in the server process
            self.queue._put_if_accepted(message)
        else:
            self.queue.put(message)
        return None


#: The keyword arguments of `Server`, and the attribute that each sets.
OPTIONS = {
    name: {
        "auth": "_auth",
        "auth_mechanisms": "_mechanisms",
        "auth_required": "_needs_auth",
        "auth_require_tls": "_needs_tls_for_auth",
        "hide": "_hidden_extensions",
        "ident": "_ident",
        "offer": "_offered_extensions",
    }.get(name, name)
    for name, parameter in inspect.signature(Server).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def changed_attributes(server: Server, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what attributes other options would set; what is wrong with those is raised."""
    options = {name: getattr(server, attribute) for name, attribute in OPTIONS.items()}
    options.update(changes)
    # Of its class, which may have ways to log in of its own; its __init__ may take anything.
    other = object.__new__(type(server))
    # A server that moves to a UNIX socket keeps these for when it moves back.
    place = (server.host, server.port) if options["unix_socket"] is None else ()
    Server.__init__(other, *place, **options)
    names = [*map(OPTIONS.__getitem__, changes), "_scram_keys"]
    # A certificate is for a TLS, and is made once.
    names += ["_credentials"] if "tls" in changes else []
    return {name: getattr(other, name) for name in names}


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        is_port = name == "host" and isinstance(value, int)
        meant = f": did you mean {setting('port', value)}?" if is_port else ""
        raise TypeError(f"{option(name)} must be a str, not {value!r}{meant}")
    if not value.isprintable():
        raise ValueError(f"{option(name)} must be one line of printable text, not {value!r}")
    return value


def check_host(name: str, value: object) -> str:
    """Check where to listen, and return it: ports, brackets and schemes are no part of a host."""
    host = _text(name, value)
    if "/" not in host and "[" not in host and host.count(":") != 1:
        return host
    found = _PLACE.fullmatch(host)
    place = found.groupdict("") if found else {}
    meant: dict[str, Any] = {name: place.get("v6") or place.get("host")}
    if name == "host":  # port and unix_socket belong to it, and to no other name
        if (port := place.get("port")) and int(port) <= 65535:
            meant["port"] = int(port)
        if path := place.get("path"):
            meant = {"unix_socket": path}
    said = " and ".join(
        setting(*each) for each in meant.items() if each[1] and has_option(each[0])
    )
    raise ValueError(
        f"{option(name)} must be a name or an address alone, without a port, brackets or a "
        f"scheme, not {host!r}{said and f': did you mean {said}?'}"
    )


def _hostname(value: object) -> str:
    """Check the name in the greeting; others' hostname is where to listen."""
    name = _text("hostname", value)
    if not name or _is_address(name):
        raise ValueError(
            f"{option('hostname')} must be a name, for the greeting, or an address in brackets, "
            f"not {name!r}: did you mean {setting('host', name)}?"
        )
    return name


def _is_address(name: str) -> bool:
    if not name[0].isdigit() and ":" not in name:
        return False
    from ipaddress import ip_address

    with contextlib.suppress(ValueError):
        return bool(ip_address(name))
    return False


def _needs_auth(name: str) -> ValueError:
    example = setting("auth", {"kim": "secret"})
    return ValueError(f"{option(name)} needs {option('auth')}, such as {example}")


def _unix_socket(value: str | os.PathLike[str]) -> str:
    """Return the path of a socket, whole, for a process that may be in another folder."""
    path, name = file_path("unix_socket", value), option("unix_socket")
    if not path or "\0" in path:
        raise ValueError(
            f"{name} must not be empty, nor have a NUL, as an abstract socket has: {path!r}"
        )
    with without_fakes():
        path = os.path.abspath(path)
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} cannot be the name of a file here: {error}") from None
    if size > _LONGEST_PATH:
        raise ValueError(
            f"{name} must have at most {_LONGEST_PATH} octets, not {size}: {path!r}.  Choose "
            "a folder with a shorter name, such as one that you make in /tmp"
        )
    return path


def _int(name: str, value: object, least: int, most: int | None = None) -> int:
    return whole_number(name, value, least, most, wrong_type=TypeError)


def _tls(value: TLS | Mode) -> TLS:
    # Not at the head: few servers need it.
    with without_fakes():
        from lazr_smtptest.tls import TLS

    return TLS.of(value)


def _auth(auth: object) -> Mapping[str, str] | bool | Decision:
    if auth is True:
        return True
    if callable(auth) and not isinstance(auth, Mapping):
        return _decision(auth)
    if not isinstance(auth, Mapping):
        # No values here: they may be secrets.
        raise TypeError(
            f"{option('auth')} must map names to passwords, such as {{'kim': 'secret'}}, or be "
            f"True or a function of mechanism, user and secret, not a {type(auth).__name__}"
            f"{leave_out(auth)}"
        )
    return _logins(auth)


def _decision(auth: Decision) -> Decision:
    try:
        inspect.signature(auth).bind("PLAIN", "", "")
    except ValueError:  # of what is written in C, that is not known
        return auth
    except TypeError as error:
        wanted = "auth must be a function of mechanism, user and secret"
        raise TypeError(f"{wanted}: {error}") from None
    if inspect.iscoroutinefunction(auth) or inspect.iscoroutinefunction(
        getattr(auth, "__call__", None)  # noqa: B004 -- what an object of a class calls
    ):
        raise TypeError(
            "auth must be made by def, not by async def: it is called on a thread, "
            "and nobody awaits it"
        )
    return auth


def _logins(auth: Mapping[str, str]) -> dict[str, str]:
    logins = dict(auth)
    for name, password in logins.items():
        if not isinstance(name, str) or not isinstance(password, str):
            raise TypeError("auth must map names to passwords, both of them str")
        if not name or "\0" in name + password:
            raise ValueError("a name in auth must not be empty, and neither may have a NUL")
    return logins


def _mechanism(hook: str) -> str:
    """Return the name of a mechanism, as aiosmtpd makes it of a method's."""
    return hook.replace("auth_", "").replace("__", "-").upper()


def _names(name: str, value: Iterable[str], example: str) -> tuple[str, ...]:
    if isinstance(value, str):
        written = tuple(re.findall(r"[^\s,]+", value)) or (example,)
        raise TypeError(f"{option(name)} must be several names, such as {written!r}")
    names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(each, str) for each in names):
        raise TypeError(f"{option(name)} must be names, such as ({example!r},), not {names!r}")
    return tuple(each.upper() for each in names)


def _check_mechanisms(names: tuple[str, ...], own: set[str], auth: object) -> None:
    """Check that a server has what it is to offer; it has some itself, by its hooks."""
    known = own | ({"LOGIN", "PLAIN"} if auth is None else {*MECHANISMS})
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"{option('auth_mechanisms')} may have {', '.join(sorted(known))}, "
            f"not {', '.join(unknown) or 'nothing at all'}{hints(unknown, known)}"
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{option('auth_mechanisms')} has {', '.join(twice)} more than once")
    if not isinstance(auth, Mapping):
        needy = {"SCRAM-SHA-256"} | ({"CRAM-MD5"} if callable(auth) else set())
        lacking = [name for name in names if name in needy - own]
        if lacking:
            raise ValueError(
                f"{', '.join(lacking)} of {option('auth_mechanisms')} needs the passwords, "
                f"such as {setting('auth', {'kim': 'secret'})}"
            )


def _scram_keys(logins: Any) -> dict[str, ScramKeys]:
    """Make the keys that SCRAM has in place of passwords."""
    try:
        with without_fakes():
            scramp = importlib.import_module("scramp")
    except ImportError:
        raise ImportError(
            "SCRAM-SHA-256 needs scramp: pip install 'lazr-smtptest[scram]', "
            f"or leave it out of {option('auth_mechanisms')}",
            name="scramp",
        ) from None
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    keys = {}
    for user, password in logins.items():
        try:
            salt, stored_key, server_key, iterations = mechanism.make_auth_info(password)
        except scramp.ScramException as error:
            raise ValueError(
                f"SCRAM-SHA-256 cannot have the password of {user!r}: {error.args[0]}"
            ) from error
        # Its own kind of int cannot be unpickled.
        keys[user] = (salt, stored_key, server_key, int(iterations))
    return keys


def _extensions(
    name: str, value: Iterable[str], known: Sequence[str], why_not: Callable[[str], str]
) -> frozenset[str]:
    names = frozenset(_names(name, value, known[0]))
    unknown = sorted(names.difference(known))
    if unknown:
        why = {each: why_not(each) for each in unknown}
        reasons = "".join(f"; {each}" for each in why.values() if each)
        meant = hints([each for each in unknown if not why[each]], known)
        raise ValueError(
            f"{option(name)} may have {', '.join(known)}, not {', '.join(unknown)}{reasons}{meant}"
        )
    return names


def _why_not_hidden(extension: str) -> str:
    if extension not in OFFERABLE:
        return ""
    return f"{extension} is offered only where {option('offer')} has it"


def _why_not_offered(extension: str) -> str:
    """Return why an extension is not to be offered by name."""
    if extension not in EXTENSIONS:
        return ""
    if extension == "STARTTLS":
        return f"{extension} is offered with {setting('tls', 'starttls')}"
    if extension == "AUTH":
        return f"{extension} is offered with {setting('auth', {'kim': 'secret'})}"
    hide = f", unless {setting('hide', (extension,))}" if has_option("hide") else ""
    return f"{extension} is offered already{hide}"
