"""Fixtures with the names of other packages' ones, on this package's server.  Test process.

Only ``pytest -p lazr_smtptest.compat`` brings them: ``smtpd``, as smtpdfix has it, and
``smtpserver``, as pytest-localserver does.  A message is an `email.message.Message`, as sent.
"""

from __future__ import annotations

import contextlib
import email
import functools
import os
from collections import UserList
from collections.abc import Callable, Generator, Iterable
from socket import SOCK_STREAM, getaddrinfo
from types import SimpleNamespace
from typing import Any

import pytest

from lazr_smtptest import TLS, Message, QueueController

_CERTIFICATE, _KEY = "SMTPD_SSL_CERTIFICATE_FILE", "SMTPD_SSL_KEY_FILE"
_TRUTH = {word: n < 6 for n, word in enumerate("y yes t true on 1 n no f false off 0".split())}


def _truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() not in _TRUTH:
        raise ValueError(f"a truth value must be one of {', '.join(_TRUTH)}, not {value!r}")
    return _TRUTH[value.lower()] if isinstance(value, str) else bool(value)


def _files(value: Any) -> tuple[str | None, str | None]:
    certificate, key = value if isinstance(value, tuple) else (value, None)
    for file in filter(None, (certificate, key)):  # without a key, one file has both
        os.stat(file)  # raises FileNotFoundError
    return certificate, key


#: The variable that each setting begins with, its default, and how both are read.
_SETTINGS: dict[str, tuple[str, str | None, Callable[[Any], Any]]] = {
    "host": ("SMTPD_HOST", None, lambda value: value),
    "port": ("SMTPD_PORT", None, int),
    "ready_timeout": ("SMTPD_READY_TIMEOUT", "10.0", float),
    "login_username": ("SMTPD_LOGIN_NAME", "user", str),
    "login_password": ("SMTPD_LOGIN_PASSWORD", "password", str),
    "enforce_auth": ("SMTPD_ENFORCE_AUTH", "False", _truth),
    "auth_require_tls": ("SMTPD_AUTH_REQUIRE_TLS", "True", _truth),
    "ssl_cert_files": (_CERTIFICATE, None, _files),
    "use_starttls": ("SMTPD_USE_STARTTLS", "False", _truth),
    "use_ssl": ("SMTPD_USE_SSL", "False", _truth),
}


class _Config(SimpleNamespace):
    """Settings with the names of smtpdfix.  Setting one restarts the server, if need be."""

    def __init__(self, own_certificate: str | None) -> None:
        (values := vars(self)).update(_own_certificate=own_certificate, _server=SimpleNamespace())
        for name, (variable, default, read) in _SETTINGS.items():
            if (value := os.environ.get(variable, default)) is not None:
                values[name] = read(value)
        values["ssl_cert_files"] = _files((os.environ.get(_CERTIFICATE), os.environ.get(_KEY)))
        values["use_ssl"] |= _truth(os.environ.get("SMTPD_USE_TLS", "False"))

    def __getattr__(self, name: str) -> Any:  # such as the port, where nobody has chosen one
        return getattr(vars(self)["_server"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self)[name] = _SETTINGS[name][2](value) if name in _SETTINGS else value
        if "_controller" in vars(self._server) and self._server.is_running:
            self._server.start()

    def place(self) -> dict[str, Any]:  # where to listen, as options of a controller
        return {name: vars(self)[name] for name in ("host", "port") if name in vars(self)}

    def options(self) -> dict[str, Any]:  # all else
        is_own = self.ssl_cert_files[0] == self._own_certificate
        certificate, key = (None, None) if is_own else self.ssl_cert_files
        mode: Any = "starttls" if self.use_starttls else "implicit" if self.use_ssl else None
        tls = mode and TLS(mode, required=self.use_starttls, certfile=certificate, keyfile=key)
        return {
            "tls": tls,
            "auth": {self.login_username: self.login_password},
            "auth_mechanisms": ("CRAM-MD5", "LOGIN", "PLAIN"),
            "auth_required": self.enforce_auth,
            "auth_require_tls": self.auth_require_tls and tls is not None,
            "hide": ("SMTPUTF8", "AUTH") if self.auth_require_tls and not tls else ("SMTPUTF8",),
            "start_timeout": self.ready_timeout,
        }


class _Outbox(UserList[Any]):
    """The messages that have come: a list that grows by itself."""

    def __init__(self, found: Any = (), arrivals: Callable[[], Iterable[Any]] = tuple) -> None:
        self._found, self._arrivals = list(found), arrivals

    __copy__ = UserList.copy  # UserList's own looks for data among the variables
    data = property(lambda self: self._found.extend(self._arrivals()) or self._found)


class _LocalServer:
    """A controller, lent when it is needed, with the names of pytest-localserver, too."""

    def __init__(self, lend: Callable[[], Any], convert: Callable[[Message], Any]) -> None:
        self._lend = lend
        self.outbox = _Outbox(arrivals=lambda: map(convert, vars(self).get("_controller", ())))

    def __getattr__(self, name: str) -> Any:
        theirs = {"hostname": "host", "accepting": "is_running"}
        return getattr(self._controller, theirs.get(name, name))

    _controller = functools.cached_property(lambda self: self._lend())
    addr = property(lambda self: min(getaddrinfo(self.host, self.port, 0, SOCK_STREAM))[4][:2])

    def is_alive(self) -> Any:
        return self.is_running

    def stop(self, timeout: float | None = None) -> None:  # noqa: ARG002 -- stop_timeout is it
        self._controller.stop()


class _SMTPDFix(_LocalServer):
    """A controller with the names of smtpdfix, too."""

    def __init__(self, config: _Config, request: pytest.FixtureRequest) -> None:
        super().__init__(self._lend_first, _with_fields)
        self.config, self._request, vars(config)["_server"] = config, request, self

    messages = property(lambda self: list(self.outbox))

    def _lend_first(self) -> Any:
        self._applied = self.config.place(), self.config.options()
        return _lend(self._request, self._applied[0] | self._applied[1])

    def start(self) -> None:
        controller, wanted = self._controller, (self.config.place(), self.config.options())
        if wanted[0] != self._applied[0]:
            len(self.outbox)  # takes what is there
            controller.stop()
            self._controller = _lend(self._request, wanted[0] | wanted[1])
        elif wanted != self._applied or not self.is_running:
            controller.restart(**wanted[1])
        self._applied = wanted

    def reset(self, persist_messages: bool = True) -> None:
        self.outbox[:] = self.messages if persist_messages else []
        if self.is_running:
            self._controller.restart()


def _with_fields(message: Message) -> Any:
    theirs, envelope = email.message_from_bytes(message.raw), message.envelope
    theirs["X-Peer"] = str(envelope.peer)
    theirs["X-MailFrom"] = envelope.mail_from
    theirs["X-RcptTo"] = ", ".join(envelope.rcpt_tos)
    return theirs


def _with_details(message: Message) -> Any:
    theirs, of = email.message_from_bytes(message.raw), message.envelope
    details = SimpleNamespace(peer=of.peer, mailfrom=of.mail_from, rcpttos=[*of.rcpt_tos])
    vars(theirs).update(details=details)
    return theirs


def _lend(request: pytest.FixtureRequest, options: dict[str, Any]) -> Any:
    if "smtptest" in request.fixturenames:  # the test has that already, or had
        return request.getfixturevalue("smtptest_factory")(**options)
    if options:
        request.node.add_marker(pytest.mark.smtptest(**options), append=False)
    return request.getfixturevalue("smtptest")


class _Fixtures:
    @pytest.fixture
    def smtpd(self, request: pytest.FixtureRequest) -> Generator[_SMTPDFix]:
        """An SMTP server with the names of smtpdfix: messages, config, and others."""
        own = None
        with pytest.MonkeyPatch.context() as patch:
            if _CERTIFICATE not in os.environ:  # smtpdfix sets it, and suites use it
                with contextlib.suppress(ImportError):  # of trustme; TLS will say so
                    patch.setenv(_CERTIFICATE, own := QueueController(tls="starttls").ca_file)
            server = _SMTPDFix(_Config(own), request)
            if (request.getfixturevalue("smtptest_options") | server.config.place()).get("port"):
                server.start()  # a program may know the port, and not ask for it
            yield server
            vars(server.config)["_server"] = SimpleNamespace()  # a patch may be undone later

    @pytest.fixture
    def smtpserver(self, request: pytest.FixtureRequest) -> _LocalServer:
        """An SMTP server with the names of pytest-localserver: addr, outbox, and others."""
        lent = _lend(request, {})
        return _LocalServer(lambda: lent, _with_details)


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures behind those of all other plugins: of one name, the last is used."""
    config.pluginmanager.register(_Fixtures(), "lazr_smtptest.compat fixtures")
