"""Names that callers get wrong: each is refused in our words, with what was meant."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from messages import ENVELOPE
from paths import ROOT

from lazr_smtptest import (
    TLS,
    Controller,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
    _names,
    faults,
    server,
    tls,
)
from lazr_smtptest._cli import arguments
from lazr_smtptest._names import hint
from lazr_smtptest._parent import options
from lazr_smtptest._parent.matching import CriteriaArgs
from lazr_smtptest._util import Found
from lazr_smtptest.faults import Fault, Gate
from lazr_smtptest.message import parse

CRITERIA = tuple(CriteriaArgs.__annotations__)
SERVER_OPTIONS = tuple(options.OPTIONS)
OWN_OPTIONS = tuple(_names.OF_CONTROLLERS)


def idle_controller() -> QueueController:
    return QueueController()


def gate() -> Gate:
    return Gate(None, 1, "RCPT")


def with_calls(make, *names):
    return [(f"{make.__name__}.{name}", lambda name=name: getattr(make(), name)) for name in names]


#: What can be called; whatever it is called with, it is refused before it does something.
CALLS = dict(
    [
        *((kind.__name__, lambda kind=kind: kind) for kind in (QueueController, Server, TLS)),
        ("QueueServer", lambda: QueueServer),
        ("Controller", lambda: lambda **wrong: Controller(Server(), **wrong)),
        *with_calls(idle_controller, "restart", "fault", "gate", "hang_up", "client_context"),
        *with_calls(MessageQueue, "wait", "wait_many", "wait_for_each", "expect_none", "get"),
        *with_calls(gate, "wait_parked", "release"),
    ]
)

#: The arguments that each has by name.
ARGUMENTS = {
    "QueueController": ("host", "port", *OWN_OPTIONS, *SERVER_OPTIONS),
    "Server": ("host", "port", *SERVER_OPTIONS),
    "Controller": OWN_OPTIONS,
    "QueueServer": ("host", "port", *SERVER_OPTIONS),
    "TLS": tuple(inspect.signature(TLS).parameters),
    "idle_controller.restart": (*OWN_OPTIONS, *SERVER_OPTIONS),
    "idle_controller.fault": tuple(inspect.signature(Controller.fault).parameters)[1:],
    "idle_controller.gate": ("stage", "when"),
    "idle_controller.hang_up": ("reply",),
    "idle_controller.client_context": ("with_cert",),
    "MessageQueue.wait": ("timeout", *CRITERIA),
    "MessageQueue.wait_many": ("count", "timeout", *CRITERIA),
    "MessageQueue.wait_for_each": ("recipients", "timeout", "count", *CRITERIA),
    "MessageQueue.expect_none": ("quiet", *CRITERIA),
    "MessageQueue.get": ("block", "timeout"),
    "gate.wait_parked": ("count", "timeout"),
    "gate.release": ("count",),
}

#: Of those with ``**options``: what else they need.
NEEDED = {
    "QueueServer": {"host": "localhost", "port": 0, "queue": None},
    "MessageQueue.wait_many": {"count": 1},
    "MessageQueue.wait_for_each": {"recipients": ["kim@example.com"]},
}


def misspelt(name: str) -> list[str]:
    """Return a name without a letter, with two exchanged, with one more, and in capitals."""
    middle = max(1, len(name) // 2)
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return [name[:middle] + name[middle + 1 :], swapped, f"{name}{name[-1]}", name.upper()]


def refusal(call: str, wrong: str, without: str) -> str:
    """Return what a call says of an argument, where one that it needs may be missing."""
    needed = {key: value for key, value in NEEDED.get(call, {}).items() if key != without}
    with pytest.raises(TypeError) as caught:
        CALLS[call]()(**needed, **{wrong: 7})
    return str(caught.value)


@pytest.mark.parametrize(("call", "names"), ARGUMENTS.items(), ids=list(ARGUMENTS))
def test_a_misspelt_argument(call, names):
    for name in names:
        for wrong in misspelt(name):
            if len(wrong) < 3 or wrong in names:
                continue
            text = refusal(call, wrong, name)
            if call in NEEDED and name in NEEDED[call]:  # what is missing is missed first
                assert text == f"{call.rpartition('.')[2]}() needs {name}, and has none"
            else:
                assert repr(wrong) in text
                assert text.endswith(f": did you mean {name}?")


def test_no_argument_was_forgotten():
    """What has arguments and is public is above; what only has ``self`` is Python's."""
    public = {QueueController: "idle_controller", MessageQueue: "MessageQueue", Gate: "gate"}
    found = set()
    for kind, make in public.items():
        for name, function in inspect.getmembers(kind, inspect.isfunction):
            if name[0] != "_" and len(inspect.signature(function).parameters) > 1:
                found.add(f"{make}.{name.removesuffix('_async')}")
    own = {call for call in CALLS if "." in call}
    inherited = {f"idle_controller.wait{rest}" for rest in ("", "_many", "_for_each")}
    assert found == own | inherited | {"idle_controller.expect_none"}


@pytest.mark.parametrize("call", [c for c in CALLS if c not in ("Controller", "QueueServer")])
def test_one_argument_too_many(call):
    callee = CALLS[call]()
    parameters = inspect.signature(callee).parameters.values()
    placed = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    with pytest.raises(TypeError) as caught:
        callee(*(7 for _ in placed), {"kim": "secret"})
    text = str(caught.value)
    assert re.search(r"\(\) takes .* without a name, and there is one more, of type dict: ", text)
    assert "secret" not in text


@pytest.mark.parametrize("name", ["wait_async", "wait_many_async", "expect_none_async"])
def test_coroutines_refuse_when_they_are_awaited(name):
    queue = MessageQueue()
    needed = [1] if "many" in name else []
    assert inspect.iscoroutinefunction(getattr(queue, name))
    with pytest.raises(TypeError, match=r"\(\) takes .* without a name, and there is one more"):
        getattr(queue, name)(*needed, 1, "kim@example.com").send(None)


def test_an_error_of_what_was_called_stays_as_it_is():
    class Failing(QueueController):
        def _make_server(self, host, port):
            raise TypeError("of my own")

    with pytest.raises(TypeError, match="^of my own$"):
        Failing()


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        # aiosmtpd's Controller and SMTP.
        (lambda: QueueController(hostname="127.0.0.1"), "host='127.0.0.1'"),
        (lambda: QueueController(hostname="::"), "host='::'"),
        (lambda: QueueController(hostname=""), "host=''"),
        (lambda: QueueController(ready_timeout=3), "start_timeout"),
        (lambda: QueueController(server_hostname="x"), "hostname"),
        (lambda: QueueController(auth_callback=None), "auth"),
        (lambda: QueueController(require_starttls=True), "tls=TLS(required=...)"),
        (lambda: QueueController(tls_context=None), "tls=TLS(certfile=...)"),
        (lambda: QueueController(timeout=3), "idle_timeout"),
        (lambda: idle_controller().hostname, "host"),
        (lambda: idle_controller().begin, "start()"),
        # smtpdfix, pytest-localserver, smtplib, Django.
        (lambda: QueueController(use_ssl=True), "tls='implicit'"),
        (lambda: QueueController(enforce_auth=True), "auth_required"),
        (lambda: QueueController(certfile="x"), "tls=TLS(certfile=...)"),
        (lambda: QueueController(username="kim", password="x"), "auth, tls=TLS(password=...)"),
        (lambda: idle_controller().addr, "host and port"),
        (lambda: idle_controller().outbox, "messages"),
        (lambda: idle_controller().is_alive, "is_running"),
        (lambda: idle_controller().clear, "reset()"),
        (lambda: MessageQueue().outbox, "messages"),
        (lambda: MessageQueue().put, "get()"),
        # Other calls of this package.
        (lambda: Controller(Server(), port=2525), "Server(port=...)"),
        (lambda: Server(start_timeout=3), "Controller(start_timeout=...)"),
        (lambda: MessageQueue().get(subject="x"), "wait(subject=...)"),
        (lambda: MessageQueue().wait(count=2), "wait_many()"),
        (lambda: MessageQueue().wait(quiet=2), "timeout"),
        (lambda: MessageQueue().expect_none(timeout=2), "quiet"),
        (lambda: MessageQueue().expect_none(timout=2), "quiet"),
        (lambda: MessageQueue().wait("kim@example.com"), "rcpt='kim@example.com'"),
        (lambda: MessageQueue().wait("Your order"), "subject='Your order'"),
        (lambda: MessageQueue().wait(re.compile("order")), "subject=re.compile('order')"),
        (lambda: MessageQueue().wait(lambda message: True), "where=..."),
        (lambda: MessageQueue().expect_none("kim@example.com"), "rcpt='kim@example.com'"),
        (lambda: MessageQueue().wait_many("kim@example.com"), "rcpt='kim@example.com'"),
        (lambda: MessageQueue().wait(recipients="x"), "rcpt"),
        (lambda: MessageQueue().wait(from_addr="x"), "sender"),
        (lambda: MessageQueue().wait(body="x"), "text"),
        (lambda: idle_controller().fault("rcpt", "450 No", count=2), "times"),
        (lambda: idle_controller().fault("rcpt", code=450), "reply"),
        (lambda: idle_controller().fault("rcpt", disconnect=True), "drop"),
        (lambda: idle_controller().fault("end_of_data", "450 No"), "EOM"),
        (lambda: idle_controller().fault("rcpt", drop="befor"), "before"),
        (lambda: idle_controller().gate("mail from"), "MAIL"),
        (lambda: idle_controller().hang_up(message="421 Bye"), "reply"),
        (lambda: gate().wait_parked(number=2), "count"),
        (lambda: gate().open, "release()"),
        (lambda: Fault(None, 1, None).count, "fired"),
        # Arguments in the wrong place.
        (lambda: QueueController(2525), "port=2525"),
        (lambda: MessageQueue().wait_many(0.5, 2), "timeout=0.5"),
        (lambda: idle_controller().fault("450 No", "RCPT"), "reply='450 No'"),
        (lambda: idle_controller().gate("kim@example.com"), "when='kim@example.com'"),
        # Values that are names.
        (lambda: Server(tls="ssl"), "implicit"),
        (lambda: Server(tls="tls"), "starttls"),
        (lambda: Server(tls=ssl.create_default_context()), "TLS(certfile=..., keyfile=...)"),
        (lambda: TLS(ssl.create_default_context()), "TLS(certfile=..., keyfile=...)"),
        (lambda: TLS(context=ssl.create_default_context()), "certfile and keyfile"),
        (lambda: TLS("cert.pem"), "TLS(certfile='cert.pem')"),
        (lambda: Server(tls="cert.pem"), "TLS(certfile='cert.pem')"),
        (lambda: Server(tls=Path("cert.pem")), "TLS(certfile='cert.pem')"),
        (lambda: TLS(variant="expire"), "expired"),
        (lambda: TLS(variant="invalid"), "untrusted"),
        (lambda: TLS(client_cert="require"), "required"),
        (lambda: TLS(client_cert="CERT_OPTIONAL"), "optional"),
        (lambda: TLS(minimum_version="1.3"), "TLSv1.3"),
        (lambda: Server(offer=["CHUNK"]), "CHUNKING"),
        (lambda: Server(hide=["SMTPUTF-8"]), "SMTPUTF8"),
        (lambda: Server(auth=True, auth_mechanisms=["PLAN"]), "PLAIN"),
        (lambda: Server(hide=["UTF8"]), "SMTPUTF8"),
        (lambda: QueueController(start_method="forks"), "fork"),
        (lambda: QueueController(start_method="fork-server"), "forkserver"),
        (lambda: QueueController(idle=3), "idle_timeout"),
        (lambda: QueueController(tsl="starttls"), "tls"),
        (lambda: QueueController(require_tls=True), "tls=TLS(required=...)"),
        (lambda: MessageQueue().wait(bcc="x"), "rcpt"),
    ],
)
def test_what_was_meant(call, meant):
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        call()
    assert str(caught.value).endswith(f": did you mean {meant}?")


@pytest.mark.parametrize("hostname", ["localhost", "mx1.example.com", "[127.0.0.1]", "7.example"])
def test_names_in_the_greeting(hostname):
    assert Server(hostname=hostname).hostname == hostname


@pytest.mark.parametrize("path", [5, b"cert.pem", True, ["cert.pem"]])
@pytest.mark.parametrize("name", ["certfile", "keyfile", "ca_file", "client_ca_file"])
def test_paths_of_a_wrong_type(name, path):
    with pytest.raises(TypeError) as caught:
        TLS(client_cert="optional", **{"certfile": "cert.pem", name: path})
    assert str(caught.value) == (
        f"{name} must be the path of a file, as a str or a path-like object, not {path!r}"
    )


def test_paths_that_are_no_str():
    assert TLS(certfile=Path("cert.pem")).certfile == Path("cert.pem")


def test_the_tables_lead_to_names_that_there_are():
    stages = [_names.STAGES_ELSEWHERE[name] for name in _names.STAGES_ELSEWHERE]
    assert {*stages} <= {*faults.STAGES}
    fault = {*inspect.signature(Controller.fault).parameters}
    assert {*_names.FAULT_ELSEWHERE.values()} <= fault
    assert {*_names.CRITERIA_ELSEWHERE.values()} <= {*CRITERIA, "count", "timeout"}
    assert {*_names.EXPECT_NONE_ELSEWHERE.values()} <= {*CRITERIA, "count", "quiet"}
    assert {*_names.OF_CONTROLLERS} == {*options._OWN}
    known = {"host", "port", *OWN_OPTIONS, *SERVER_OPTIONS, "a subclass of Server with h"}
    assert {re.split("=|andle", meant)[0] for meant in _names.OPTIONS_ELSEWHERE.values()} <= known
    assert {*_names.VARIANTS_ELSEWHERE.values()} <= {*tls._VARIANTS}
    assert {*_names.VERSIONS_ELSEWHERE.values()} == {*tls.VERSIONS}
    flags = " ".join(_names.FLAGS_ELSEWHERE.values()).split()
    assert {flag for flag in flags if flag.startswith("-")} <= {*arguments._FLAGS}
    fields = {*inspect.signature(TLS).parameters, "certfile and keyfile"}
    assert {*_names.TLS_ELSEWHERE.values()} <= fields


def test_no_table_hides_a_name_that_there_is():
    """What another package calls so is not what we call so."""
    assert not _names.OPTIONS_ELSEWHERE.keys() & {"host", "port", *SERVER_OPTIONS, *OWN_OPTIONS}
    assert not _names.FAULT_ELSEWHERE.keys() & {*ARGUMENTS["idle_controller.fault"]}
    assert not _names.CRITERIA_ELSEWHERE.keys() & {*CRITERIA, "count", "timeout"}
    for kind in (QueueController, Controller):
        assert not [name for name in _names.CONTROLLERS_ELSEWHERE if name in vars(kind)]


@pytest.mark.parametrize(
    ("names", "known", "elsewhere"),
    [
        ("colour fault verbose backlog smtp", SERVER_OPTIONS, _names.OPTIONS_ELSEWHERE),
        ("colour helo priority", CRITERIA, _names.CRITERIA_ELSEWHERE),
        ("TURN ETRN SEND XCLIENT message-id", faults.STAGES, _names.STAGES_ELSEWHERE),
        ("TLSv1.1 TLSv1 SSLv3", tls.VERSIONS, _names.VERSIONS_ELSEWHERE),
        ("8BITMIME VRFY", server.OFFERABLE, {}),
        ("BINARYMIME ESMTP VRFY", server.EXTENSIONS, {}),
        ("NTLM SCRAM-SHA-1 DIGEST-MD5", server.MECHANISMS, {}),
        ("--bad --hide --ident --size --smtp", arguments._FLAGS, _names.FLAGS_ELSEWHERE),
    ],
)
def test_names_that_are_like_no_other(names, known, elsewhere):
    """A guess that is no good is worse than none."""
    assert [name for name in names.split() if hint(name, known, elsewhere)] == []


def test_what_is_no_name_is_like_no_other():
    assert hint(7, SERVER_OPTIONS) == ""


def test_stages_for_type_checkers():
    """Capitals and small letters; ``typed_calls.py`` has what mypy makes of them."""
    assert sorted(get_args(faults.Stage)) == sorted(
        [*faults.STAGES, *(stage.lower() for stage in faults.STAGES)]
    )
    for method in (Controller.fault, Controller.gate):
        assert inspect.signature(method).parameters["stage"].annotation == "Stage"


@pytest.mark.timeout(120)
def test_what_mypy_says_of_calls():
    pytest.importorskip("mypy", reason="mypy is for tox -e lint, which runs this, too")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "tests/support/typed_calls.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Attributes.


def test_an_attribute_is_refused_like_any_other():
    controller = idle_controller()
    assert not hasattr(controller, "hostname")
    assert getattr(controller, "hostname", "none") == "none"
    assert hasattr(controller, "sessions")
    with pytest.raises(AttributeError, match="^'QueueController' object has no attribute '_x'$"):
        _ = controller._x


def test_a_property_that_fails_is_heard():
    class Broken(QueueController):
        @property
        def label(self):
            return self.server.no_such_thing

    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = Broken().label


def test_names_of_messages_and_envelopes():
    message = parse(ENVELOPE, b"Subject: hello\r\n\r\n")
    for name, meant in {
        "subject": r"header\('Subject'\)",
        "rcpt_tos": "envelope.rcpt_tos",
    }.items():
        with pytest.raises(AttributeError, match=f"'Message' .* {name!r}: did you mean {meant}"):
            getattr(message, name)
    with pytest.raises(AttributeError, match="'Envelope' .* did you mean rcpt_tos?"):
        _ = message.envelope.recipients
    assert copy.copy(message)["Subject"] == "hello"
    assert pickle.loads(pickle.dumps(message.envelope)) == message.envelope


# Lists that say why there is nothing.


def test_a_list_that_says_why_there_is_no_more():
    found = Found([1, 2], "there is no more than 2")
    assert found == [1, 2]
    assert found[0] == 1
    assert found[-1] == 2
    assert found[5:] == []
    for index in (2, -3):
        with pytest.raises(IndexError, match="^there is no more than 2$"):
            found[index]
    with pytest.raises(TypeError, match="indices must be integers"):
        found["x"]
    for again in (copy.copy(found), pickle.loads(pickle.dumps(found))):
        assert again == [1, 2]
        with pytest.raises(IndexError, match="^there is no more than 2$"):
            again[2]


def test_a_refusal_whose_traceback_has_been_taken():
    """As programs do to end reference cycles; pytest still has it."""
    with pytest.raises(ValueError) as caught:
        TLS("ssl")
    caught.value.__traceback__ = None
    shown = [entry.path.name for entry in caught.traceback.filter(caught)]
    assert shown == [Path(__file__).name]
