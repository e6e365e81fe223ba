"""Names in errors: what a wrong one was meant to be, and how an option is written.

Every refusal of a name asks here, whether it is of an option, an attribute or a value.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def is_refusal(excinfo: Any) -> bool:
    """Whether an error is an argument's that we have refused.

    Modules have this as ``__tracebackhide__``: what pytest shows then is the test's own line
    and the error, and with ``--full-trace`` all.  What goes wrong in our code itself is shown.

    :param excinfo: pytest's `ExceptionInfo`.
    """
    if excinfo is None or type(excinfo.value) not in (TypeError, ValueError):
        return False
    trace = excinfo.tb  # what is shown; of the error itself, a test may have taken it
    while trace.tb_next is not None:
        trace = trace.tb_next
    from opcode import opmap

    code, globals_ = trace.tb_frame.f_code, trace.tb_frame.f_globals
    is_raised = code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]
    return is_raised and globals_.get("__tracebackhide__") is is_refusal


__tracebackhide__ = is_refusal

#: Letters of a name that are enough for a guess.
_SHORTEST = 3

#: How like a name must be to one of ours, and to what that is called elsewhere, as difflib
#: measures it.  Three letters of four are not enough: smtp is not meant to be lmtp.
_LIKE, _LIKE_ELSEWHERE = 0.76, 0.89

#: What inspect.CO_COROUTINE is.
_COROUTINE = 0x80

# What was meant.  The tables have what it is called elsewhere: in aiosmtpd, smtpdfix,
# pytest-localserver, smtplib and Django, and in other calls of this package.

_OF_TLS = {
    name: f"tls=TLS({name}=...)"
    for name in (
        "certfile keyfile ca_file password client_cert client_ca_file variant required "
        "minimum_version maximum_version"
    ).split()
}

#: Options of servers and controllers.
OPTIONS_ELSEWHERE = {
    **_OF_TLS,
    **dict.fromkeys("ssl_context tls_context context ssl_cert_files".split(), _OF_TLS["certfile"]),
    **dict.fromkeys("cert certificate ssl_certs_path".split(), _OF_TLS["certfile"]),
    **dict.fromkeys("key ssl_key_file".split(), _OF_TLS["keyfile"]),
    **dict.fromkeys("ssl use_ssl use_tls implicit smtps".split(), "tls='implicit'"),
    **dict.fromkeys("starttls use_starttls".split(), "tls='starttls'"),
    **dict.fromkeys("require_starttls require_tls tls_required".split(), _OF_TLS["required"]),
    **dict.fromkeys("username user login login_username login_name".split(), "auth"),
    **dict.fromkeys(
        "login_password users credentials authenticator auth_callback".split(), "auth"
    ),
    **dict.fromkeys("enforce_auth require_auth".split(), "auth_required"),
    **dict.fromkeys("mechanisms auth_exclude_mechanism auth_methods".split(), "auth_mechanisms"),
    "auth_requires_tls": "auth_require_tls",
    **dict.fromkeys("address addr bind interface ip server".split(), "host"),
    **dict.fromkeys("server_hostname fqdn name local_hostname".split(), "hostname"),
    **dict.fromkeys("socket path unix uds".split(), "unix_socket"),
    **dict.fromkeys("greeting banner".split(), "ident"),
    **dict.fromkeys("size max_size message_size max_message_size".split(), "data_size_limit"),
    **dict.fromkeys("max_recipients command_call_limit".split(), "recipient_limit"),
    "timeout": "idle_timeout",
    "ready_timeout": "start_timeout",
    "method": "start_method",
    "loop": "uvloop",
    "proxy_protocol_timeout": "proxy_protocol",
    "enable_smtputf8": "hide=('SMTPUTF8',)",
    **dict.fromkeys("esmtp_extensions extensions features".split(), "offer"),
    "handler": "a subclass of Server with handle_message()",
}

#: Options of controllers, for whom makes a server.
OF_CONTROLLERS = {
    name: f"Controller({name}=...)"
    for name in "start_method start_timeout stop_timeout reset_timeout uvloop".split()
}

#: Options of TLS.
TLS_ELSEWHERE = {
    **dict.fromkeys("cert certificate cert_file certificate_file certs".split(), "certfile"),
    **dict.fromkeys("key key_file private_key".split(), "keyfile"),
    **dict.fromkeys("context ssl_context tls_context sslcontext".split(), "certfile and keyfile"),
    **dict.fromkeys("cafile ca capath cadata trust".split(), "ca_file"),
    **dict.fromkeys("client_cafile client_ca".split(), "client_ca_file"),
    **dict.fromkeys("cert_reqs verify_mode verify client_certificate".split(), "client_cert"),
    **dict.fromkeys("kind type tls".split(), "mode"),
    **dict.fromkeys("require force require_starttls".split(), "required"),
    **dict.fromkeys("passphrase key_password".split(), "password"),
    **dict.fromkeys("version min_version".split(), "minimum_version"),
    "max_version": "maximum_version",
    **dict.fromkeys("expired untrusted wrong_host".split(), "variant"),
}

#: Modes of TLS.
MODES_ELSEWHERE = {
    **dict.fromkeys("ssl smtps wrapped wrapper on-connect tls-on-connect".split(), "implicit"),
    **dict.fromkeys("tls start_tls explicit opportunistic upgrade".split(), "starttls"),
}

#: Certificates that a client should not accept.
VARIANTS_ELSEWHERE = {
    **dict.fromkeys("invalid self-signed selfsigned unknown-ca self_signed".split(), "untrusted"),
    **dict.fromkeys("not-yet-valid outdated old".split(), "expired"),
    **dict.fromkeys("trusted good".split(), "valid"),
    **dict.fromkeys(
        "host hostname wrong-name wrong_hostname wrong-hostname".split(), "wrong-host"
    ),
}

#: Versions of TLS.
VERSIONS_ELSEWHERE = {
    form.format(digit): f"TLSv1.{digit}"
    for digit in "23"
    for form in ("1.{}", "tls1.{}", "tlsv1_{}", "tls1_{}", "tls 1.{}", "tlsv1{}")
}

#: Arguments of faults and gates.
FAULT_ELSEWHERE = {
    **dict.fromkeys("count n number repeat limit max_times how_often".split(), "times"),
    **dict.fromkeys("command verb at where state".split(), "stage"),
    **dict.fromkeys("response message text status code answer".split(), "reply"),
    **dict.fromkeys("octets bytes data".split(), "raw"),
    **dict.fromkeys("match pattern glob address rcpt sender recipient to only".split(), "when"),
    **dict.fromkeys("seconds wait sleep timeout latency".split(), "delay"),
    **dict.fromkeys("close disconnect hang_up hangup abort".split(), "drop"),
    **dict.fromkeys("size offset".split(), "after"),
    **dict.fromkeys("slow rate interval".split(), "trickle"),
}

#: Stages of sessions.
STAGES_ELSEWHERE = {
    **dict.fromkeys("greeting banner connection accept".split(), "CONNECT"),
    **dict.fromkeys("hello".split(), "EHLO"),
    **dict.fromkeys("tls ssl handshake".split(), "STARTTLS"),
    **dict.fromkeys("login authenticate".split(), "AUTH"),
    **dict.fromkeys(["from", "mail_from", "mail from", "sender"], "MAIL"),
    **dict.fromkeys(["to", "rcpt_to", "rcpt to", "recipient", "recipients"], "RCPT"),
    **dict.fromkeys(
        "end end_of_data data_end end_of_message message content body .".split(), "EOM"
    ),
    "reset": "RSET",
    "verify": "VRFY",
    **dict.fromkeys("disconnect close bye".split(), "QUIT"),
}

#: Options of the command line.
FLAGS_ELSEWHERE = {
    **dict.fromkeys("listen bind address addr interface ip".split(), "--host"),
    **dict.fromkeys("p number".split(), "--port"),
    **dict.fromkeys("ssl smtps use-ssl".split(), "--tls implicit"),
    **dict.fromkeys("starttls use-tls".split(), "--tls starttls"),
    **dict.fromkeys("cert ssl-cert tls-cert".split(), "--certfile"),
    **dict.fromkeys("key ssl-key tls-key".split(), "--keyfile"),
    **dict.fromkeys("user username login".split(), "--auth"),
    **dict.fromkeys("no-auth anonymous".split(), "--auth-any"),
    **dict.fromkeys("max limit n messages".split(), "--count"),
    **dict.fromkeys("output out dir mailbox directory".split(), "--maildir or --mbox"),
    **dict.fromkeys("html pages".split(), "--report"),
    **dict.fromkeys("debug d log trace".split(), "--verbose"),
    **dict.fromkeys("silent q".split(), "--quiet"),
    **dict.fromkeys("socket unix uds".split(), "--unix-socket"),
}

#: Arguments of calls that wait, or look for messages.
CRITERIA_ELSEWHERE = {
    **dict.fromkeys(
        "recipient recipients recepient rcpts rcpt_to rcpt_tos rcpttos to_addr to_addrs".split(),
        "rcpt",
    ),
    "bcc": "rcpt",
    **dict.fromkeys("from from_ from_addr from_email mail_from mailfrom".split(), "sender"),
    **dict.fromkeys("header_to".split(), "to"),
    **dict.fromkeys("title topic".split(), "subject"),
    **dict.fromkeys("body content html_text message plain contains".split(), "text"),
    **dict.fromkeys("predicate match matching filter key condition check".split(), "where"),
    **dict.fromkeys("header headers date message_id attachment attachments html".split(), "where"),
    **dict.fromkeys("n number times how_many".split(), "count"),
    **dict.fromkeys("seconds within deadline delay sleep max_wait quiet".split(), "timeout"),
}
EXPECT_NONE_ELSEWHERE = {
    **{name: meant for name, meant in CRITERIA_ELSEWHERE.items() if meant != "timeout"},
    **dict.fromkeys("timeout seconds within deadline duration delay wait".split(), "quiet"),
}

#: Attributes of controllers and their queues.
CONTROLLERS_ELSEWHERE = {
    **dict.fromkeys("hostname ip server_host".split(), "host"),
    **dict.fromkeys("addr server_address url".split(), "host and port"),
    "address": "host, or address() of a Lease, which smtptest_shared gives each test",
    "claim": "claim() of a Lease, which smtptest_shared gives each test",
    "unclaimed": "unclaimed of a Lease, which smtptest_shared gives each test",
    **dict.fromkeys(
        "outbox inbox mails emails mail mailbox received messages_".split(), "messages"
    ),
    **dict.fromkeys("is_alive accepting alive running started".split(), "is_running"),
    **dict.fromkeys("clear flush empty_outbox delete_messages clear_messages".split(), "reset()"),
    **dict.fromkeys("close end shutdown terminate join kill".split(), "stop()"),
    **dict.fromkeys("begin serve run launch".split(), "start()"),
    "config": "restart(), with the options to change",
    "handler": "server",
    **dict.fromkeys("ssl_context context".split(), "client_context()"),
    **dict.fromkeys("certfile cafile ca ca_cert certificate".split(), "ca_file"),
    **dict.fromkeys("wait_for wait_for_message wait_until".split(), "wait()"),
    **dict.fromkeys("wait_for_messages wait_for_count".split(), "wait_many()"),
    **dict.fromkeys("last first last_message pop peek".split(), "messages or wait()"),
    **dict.fromkeys("put put_nowait".split(), "get()"),
    **dict.fromkeys("count size length".split(), "qsize()"),
}

#: Attributes of faults and gates.
FAULTS_ELSEWHERE = {
    **dict.fromkeys("count times hits calls struck used".split(), "fired"),
    **dict.fromkeys("wait await_parked parked".split(), "wait_parked()"),
    **dict.fromkeys("open close let_go".split(), "release()"),
    **dict.fromkeys("withdraw delete cancel stop reset".split(), "remove()"),
}

#: Attributes of messages.
MESSAGES_ELSEWHERE = {
    "subject": "header('Subject')",
    **dict.fromkeys("sender from_ from_email".split(), "header('From'), or envelope.mail_from"),
    **dict.fromkeys("to recipient recipients rcpt".split(), "header('To'), or envelope.rcpt_tos"),
    "cc": "header('Cc')",
    "bcc": "envelope.rcpt_tos",
    "reply_to": "header('Reply-To')",
    "date": "header('Date')",
    **{
        name: f"envelope.{name}"
        for name in "mail_from rcpt_tos helo peer tls auth_user received_at".split()
    },
    "mailfrom": "envelope.mail_from",
    "rcpttos": "envelope.rcpt_tos",
    **dict.fromkeys("body plain content text_body".split(), "text"),
    **dict.fromkeys("html_body alternatives".split(), "html"),
    **dict.fromkeys("data content_bytes original_content source octets".split(), "raw"),
    "headers": "header_items()",
}

#: Attributes of envelopes.
ENVELOPES_ELSEWHERE = {
    **dict.fromkeys("sender from_ mailfrom from_addr".split(), "mail_from"),
    **dict.fromkeys("to rcpt rcpts rcpttos recipients to_addrs rcpt_to".split(), "rcpt_tos"),
    **dict.fromkeys("content original_content raw data".split(), "the message's raw"),
    **dict.fromkeys("client client_address address".split(), "peer"),
    **dict.fromkeys("ehlo host_name hostname client_name".split(), "helo"),
    **dict.fromkeys("user username login".split(), "auth_user"),
    **dict.fromkeys("date time timestamp received".split(), "received_at"),
}


def hint(name: object, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return what a wrong name was meant to be, as the end of a text; or nothing."""
    if not isinstance(name, str):
        return ""
    name, elsewhere = name.lower().lstrip("-"), elsewhere or {}
    ours = {each.lower().lstrip("-"): each for each in known}
    if name in elsewhere:
        meant = elsewhere[name]
    elif len(name) < _SHORTEST:
        return ""
    elif near := _nearest(name, ours, _LIKE, _begun(name, ours)):
        meant = ours[near]
    elif near := _nearest(name, elsewhere, _LIKE_ELSEWHERE):
        meant = elsewhere[near]
    else:
        return ""
    return f": did you mean {meant}?"


def _begun(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that a name begins or ends, or goes on from."""
    return [
        each
        for each in known
        if each.startswith(name)
        or each.endswith(name)
        or (len(each) >= _SHORTEST and name.startswith(each))
    ]


def _nearest(
    name: str, known: Iterable[str], cutoff: float, near: Collection[str] = ()
) -> str | None:
    """Return what a name is misspelt from, or the one that is most like it of some; or None.

    Other digits make another name: TLSv1.1 is not misspelt.
    """
    from difflib import get_close_matches  # for errors alone

    def digits(text: str) -> str:
        return "".join(filter(str.isdigit, text))

    same = [one for one in known if not digits(name) or digits(one) in ("", digits(name))]
    swapped = [one for one in same if sorted(one) == sorted(name)]  # as in "prot"
    like = swapped or get_close_matches(name, same, 1, cutoff) or [n for n in near if n in same]
    return next(iter(get_close_matches(name, like, 1, 0.0)), None)


def hints(
    names: Iterable[object], known: Collection[str], elsewhere: Mapping[str, str] | None = None
) -> str:
    """Return what some wrong names were meant to be; see `hint`."""
    found = [hint(name, known, elsewhere)[len(": did you mean ") : -1] for name in names]
    meant = ", ".join(filter(None, found))
    return f": did you mean {meant}?" if meant else ""


def no_option(
    what: str,
    unknown: Collection[str],
    known: Collection[str],
    elsewhere: Mapping[str, str] | None = None,
) -> TypeError:
    """Make the error for names that are no options of something."""
    names = ", ".join(map(repr, unknown))
    meant = hints(unknown, known, elsewhere)
    return TypeError(f"{what} has no option {names}; it has {', '.join(known) or 'none'}{meant}")


def one_of(names: Iterable[str]) -> str:
    *all_but_last, last = map(repr, names)
    return f"{', '.join(all_but_last)} or {last}" if all_but_last else last


def leave_out(value: object) -> str:
    """Return what to do where False is given for an option that may be None."""
    return ": leave it out for none" if value is False else ""


def check_choice(
    name: str,
    value: object,
    known: Collection[str],
    elsewhere: Mapping[str, str] | None = None,
    advice: str = "",
) -> None:
    """Check an option that is one of a few names; the advice is for what is no name."""
    if value not in known:
        meant = hint(value, known, elsewhere) or advice
        raise ValueError(f"{option(name)} must be {one_of(known)}, not {value!r}{meant}")


# Calls that do not fit what is called, and attributes that there are not.


def checked(
    *,
    attributes: Mapping[str, str] | None = None,
    also: Collection[str] = (),
    **methods: Mapping[str, str],
) -> Callable[[type[_T]], type[_T]]:
    """Have a class refuse names that it has not in our words.

    :param attributes: What its attributes are called elsewhere, if these are checked.
    :param also: What its methods take as ``**options``.
    :param methods: What the arguments of these methods are called elsewhere.
    """

    def wrap(cls: type[_T]) -> type[_T]:
        made: Any = cls
        for name, elsewhere in methods.items():
            setattr(made, name, _checked_call(vars(made)[name], elsewhere, also))
        if attributes is not None:
            made.__getattr__ = functools.partialmethod(no_attribute, attributes=attributes)
        return cls

    return wrap


def no_attribute(self: object, name: str, attributes: Mapping[str, str]) -> Any:
    """Raise an AttributeError that says what was meant."""
    __tracebackhide__ = True  # for pytest
    kind = type(self)
    if hasattr(kind, name):  # a property, and what it raised is raised again
        return object.__getattribute__(self, name)
    text = f"{kind.__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        text += hint(name, [each for each in dir(kind) if each[0] != "_"], attributes)
    raise AttributeError(text)


def checked_function(elsewhere: Mapping[str, str]) -> Callable[[_Function], _Function]:
    """Have a function refuse names that it has not in our words, as `checked` does."""

    def wrap(function: _Function) -> _Function:
        wrapped: _Function = _checked_call(function, elsewhere, (), owners=0)
        return wrapped

    return wrap


def _checked_call(
    function: Any, elsewhere: Mapping[str, str], also: Collection[str], owners: int = 1
) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True  # for pytest
        try:
            return function(*args, **options)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # it had begun
        raise _misfit(function, args, options, elsewhere, also, owners)

    @functools.wraps(function)
    async def call_async(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True  # for pytest
        return await call(*args, **options)

    return call_async if function.__code__.co_flags & _COROUTINE else call


def _misfit(
    function: Any,
    args: Sequence[Any],
    options: Mapping[str, Any],
    elsewhere: Mapping[str, str],
    also: Collection[str],
    owners: int,
) -> TypeError:
    """Make the error for arguments that do not fit; a method has one owner, ``self``."""
    import inspect

    what = f"{function.__qualname__.removesuffix('.__init__').rpartition('.')[2]}()"
    if len(args) < owners:
        return TypeError(f"{what} is a method: call it of an object, and not of its class")
    parameters = [*inspect.signature(function).parameters.values()][owners:]
    args = args[owners:]
    known = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    placed = [p.name for p in known if p.kind is not p.KEYWORD_ONLY]
    is_open = len(known) < len(parameters)
    names = [*(p.name for p in known), *(also if is_open else ())]
    unknown = [name for name in options if name not in names]
    if unknown and not is_open:
        return no_option(what, unknown, names, elsewhere)
    if more := args[len(placed) :]:
        rest = ", ".join(name for name in names if name not in placed)
        return TypeError(
            f"{what} takes {' and '.join(placed) or 'nothing'} without a name, and there is one "
            f"more, of type {type(more[0]).__name__}: "
            + (f"name it, as one of {rest}" if rest else "leave it out")
        )
    placed = placed[: len(args)]
    if twice := [name for name in placed if name in options]:
        return TypeError(f"{what} has {twice[0]} twice, without its name and with it")
    given = {*placed, *options}
    missing = [p.name for p in known if p.default is p.empty and p.name not in given]
    return TypeError(f"{what} needs {' and '.join(missing)}, and has none")


# How an option is written, and what the reader of an error can do: as a program in Python
# has it, but on the command line, and for what pytest runs by itself.


class Spelling:
    """What a program in Python writes."""

    #: What stands before the other values of an option that may be a bool.
    bool_or = "True, False or"
    #: Whether the reader's own program starts the server, and may have put code into it.
    is_program = True
    #: What to do where a server process has died.
    anew = "call start() for a new one"
    #: How to have a lease again, when there is none any more, and when it was closed.
    lease_anew = "connect() anew, when whoever shares it has started it again"
    lease_closed = "connect() anew"
    #: What a lease is not for: to start and stop the server.
    own_server = "close() gives the lease back; a QueueController has a server of its own"

    def has(self, name: str) -> bool:  # noqa: ARG002
        """Whether the reader can set this option."""
        return True

    def option(self, name: str) -> str:
        return name

    def call(self, name: str) -> str:
        """Return a call, behind a verb; empty where the reader makes none."""
        return f" {name}()"

    def longer(self, name: str) -> str:
        """Return advice to set a longer time limit; empty where the reader cannot."""
        return f"give a longer {self.option(name)}" if self.has(name) else ""

    def setting(self, name: str, value: object, within: str = "") -> str:
        setting = f"{name}={value!r}"
        return f"{within.lower()}={within}({setting})" if within else setting


class CommandLine(Spelling):
    """How options are written on the command line.

    :param flags: Its options, such as ``--auth``.
    """

    bool_or = "alone, or"
    is_program = False
    anew = "run it again"

    def __init__(self, flags: Collection[str]) -> None:
        self._flags = flags

    def has(self, name: str) -> bool:
        return self.option(name) in self._flags

    def option(self, name: str) -> str:
        name = {"mode": "tls", "password": "key_password"}.get(name, name)
        flag = f"--{name.replace('_', '-')}"
        return flag if flag in self._flags else name  # such as one of a fault

    def call(self, name: str) -> str:  # noqa: ARG002
        return ""

    def setting(self, name: str, value: object, within: str = "") -> str:  # noqa: ARG002
        written = self.option(name)
        if value is True:
            return written
        if isinstance(value, Mapping):
            value = " ".join(f"{user}:{password}" for user, password in value.items())
        elif isinstance(value, tuple):
            value = ",".join(value)
        return f"{written}{' ' if written in self._flags else '='}{value}"


class IniFile(Spelling):
    """How options are written in pytest's ini file, which has these two alone."""

    def has(self, name: str) -> bool:
        return name in ("host", "port")

    def option(self, name: str) -> str:
        return f"smtptest_{name}"

    def setting(self, name: str, value: object, within: str = "") -> str:  # noqa: ARG002
        return f"{self.option(name)} = {value}"


INI_FILE = IniFile()


class SharedRunSpelling(Spelling):
    """How the options of a server are set that pytest starts before the tests."""

    is_program = False
    anew = "run the tests again"
    lease_anew = "the end of the run says how it ended"
    lease_closed = "leave close() to the fixture"
    own_server = "smtptest_factory() starts a server for this test"

    def longer(self, name: str) -> str:
        return (
            f"return a longer {name} from the hook pytest_smtptest_shared_options(config) in "
            "conftest.py"
        )


SHARED_RUN = SharedRunSpelling()

#: Set by the command line, which writes them in another way.
SPELLING = ContextVar("SPELLING", default=Spelling())  # noqa: B039 -- it has no state


def option(name: str) -> str:
    """Return how an option is written."""
    return SPELLING.get().option(name)


def has_option(name: str) -> bool:
    """Whether the reader can set an option; there are fewer on the command line."""
    return SPELLING.get().has(name)


def or_longer(name: str, when: str = "") -> str:
    """Return how to set a longer time limit, as an alternative; empty if the reader cannot."""
    longer = SPELLING.get().longer(name)
    return f", or {longer}{when}" if longer else ""


def setting(name: str, value: object, within: str = "") -> str:
    """Return how an option is set to a value; one of TLS is within that."""
    return SPELLING.get().setting(name, value, within)


def bool_or() -> str:
    return SPELLING.get().bool_or


@contextlib.contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Write options in another way for a while."""
    before = SPELLING.set(spelling)
    try:
        yield
    finally:
        SPELLING.reset(before)
