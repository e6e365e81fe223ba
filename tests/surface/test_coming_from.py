"""The tables on what takes the place of what: both sides exist, as they are written there.

Each literal in a table is evaluated: the left ones with the other package's
server and a message that it has received, the right ones with ours.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import smtplib
from collections.abc import Iterator
from typing import Any

import aiosmtpd.controller
import aiosmtpd.smtp
import pytest
import pytest_localserver.smtp
import smtpdfix
import smtpdfix.configuration
from paths import DOCS
from unix_sockets import send_to_path, short_folder

import lazr_smtptest
from lazr_smtptest import TLS, QueueController, Server

#: What both servers get.
CONTENT = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nTo: lee@example.com\r\n\r\nHello.\r\n"


#: What a subclass of 2.x had: that package cannot be run any more.
SUBCLASSES = "from-lazr-smtptest-2#Channels and servers of your own"


def rows(page: str) -> Iterator[tuple[str, str]]:
    """Give the two cells of each row, without the heads; of a page, or from a heading on."""
    page, _, heading = page.partition("#")
    text = (DOCS / f"{page}.rst").read_text("utf-8").partition(f"\n{heading}\n")[2]
    for table in re.findall(r"^\.\. list-table::\n(.+?)(?=^\S)", text + "\nend", re.M | re.S):
        left, *_ = found = re.findall(
            r"^   \* - (.+?)\n     - (.+?)(?=^   \* - |\Z)", table, re.M | re.S
        )
        assert left == found[0]
        yield from found[1:]


def literals(page: str, column: int) -> list[str]:
    """Give the literals of a column, each once."""
    found = [re.findall(r"``(.+?)``", " ".join(row[column].split())) for row in rows(page)]
    return list(dict.fromkeys(name for names in found for name in names))


def receive(host: str, port: int) -> None:
    with smtplib.SMTP(host, port) as client:
        client.sendmail("kim@example.com", ["lee@example.com", "max@example.com"], CONTENT)


def exists(literal: str, names: dict[str, Any]) -> None:
    """Evaluate an expression.

    Calls are not made, but of a message; that their arguments exist is looked up.
    """
    tree = ast.parse(literal, mode="eval").body
    if isinstance(tree, ast.Call) and not literal.startswith(("len(", "message.")):
        arguments = [argument.arg for argument in tree.keywords]
        arguments += [argument.id for argument in tree.args if isinstance(argument, ast.Name)]
        function = eval(ast.unparse(tree.func), names)
        assert set(arguments) <= set(inspect.signature(function).parameters), literal
    else:
        eval(literal, names)


@pytest.fixture(scope="module")
def smtpdfix_names():
    with smtpdfix.SMTPDFix("localhost") as server:
        receive(server.hostname, server.port)
        (message,) = server.messages
        yield {"smtpd": server, "smtpdfix": smtpdfix, "message": message}


@pytest.fixture(scope="module")
def localserver_names():
    server = pytest_localserver.smtp.Server()
    server.start()
    try:
        receive(*server.addr)
        (message,) = server.outbox
        yield {"smtpserver": server, "pytest_localserver": pytest_localserver, "message": message}
    finally:
        server.stop()


class TestSMTPDFix:
    PAGE = "from-smtpdfix"

    @pytest.mark.parametrize("literal", literals(PAGE, 0))
    def test_old_name(self, literal, smtpdfix_names):
        if literal.isupper():
            sources = inspect.getsource(smtpdfix.configuration)
            assert f'os.getenv("{literal}"' in sources
        else:
            exists(literal, smtpdfix_names)

    def test_all_settings_are_in_the_table(self):
        sources = inspect.getsource(smtpdfix.configuration)
        variables = set(re.findall(r"SMTPD_\w+", sources))
        config = {
            f"smtpd.config.{name}"
            for name, value in vars(smtpdfix.Config).items()
            if isinstance(value, property)
        }
        assert len(variables) >= 12
        assert len(config) >= 9
        assert variables | config <= set(literals(self.PAGE, 0))


class TestLocalserver:
    PAGE = "from-pytest-localserver"

    @pytest.mark.parametrize("literal", literals(PAGE, 0))
    def test_old_name(self, literal, localserver_names):
        exists(literal, localserver_names)

    def test_details_are_all_in_the_table(self, localserver_names):
        details = {
            f"message.details.{name}" for name in vars(localserver_names["message"].details)
        }
        assert len(details) == 3
        assert details <= set(literals(self.PAGE, 0))


class Collector:
    """What a suite has aiosmtpd do."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.sessions: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope)
        self.sessions.append(session)
        return "250 OK"


@pytest.fixture(scope="module")
def aiosmtpd_names():
    """By a path, since a free port would have to be searched for."""
    handler = Collector()
    with short_folder() as folder:
        path = f"{folder}/sock"
        server = aiosmtpd.controller.UnixSocketController(handler, unix_socket=path)
        server.start()
        try:
            send_to_path(path, "Hello")
        finally:
            server.stop()
    loop = asyncio.new_event_loop()  # which it does not close if it never starts
    controller = aiosmtpd.controller.Controller(handler, hostname="127.0.0.1", loop=loop)
    yield {
        "Controller": aiosmtpd.controller.Controller,
        "UnixSocketController": aiosmtpd.controller.UnixSocketController,
        "controller": controller,
        "envelope": handler.messages[0],
        "session": handler.sessions[0],
    }
    loop.close()


class TestAiosmtpd:
    PAGE = "from-aiosmtpd"

    @pytest.mark.parametrize("literal", literals(PAGE, 0))
    def test_old_name(self, literal, aiosmtpd_names):
        option = re.fullmatch(r"(\w+)=", literal)
        if option:
            kinds = aiosmtpd.controller.Controller, aiosmtpd.smtp.SMTP
            kinds += (aiosmtpd.controller.BaseThreadedController,)
            assert any(option[1] in inspect.signature(kind).parameters for kind in kinds)
        else:
            exists(literal, aiosmtpd_names)


@pytest.fixture(scope="module")
def ours():
    with QueueController() as controller:
        receive(controller.host, controller.port)
        yield {
            "smtptest": controller,
            "controller": controller,
            "smtplib": smtplib,
            "lazr_smtptest": lazr_smtptest,
            "TLS": TLS,
            "message": controller.messages[0],
        }


OPTIONS = {
    name for kind in (QueueController, Server, TLS) for name in inspect.signature(kind).parameters
}


#: What some options need beside them.
NEEDED: dict[str, dict[str, Any]] = {
    "auth_mechanisms": {"auth": {"user": "password"}},
    "auth_required": {"auth": {"user": "password"}},
    "auth_require_tls": {"auth": {"user": "password"}, "tls": "starttls"},
}


@pytest.mark.parametrize(
    ("page", "literal"),
    [
        pytest.param(page, literal, id=f"{page}-{literal}")
        for page in ("from-aiosmtpd", "from-smtpdfix", "from-pytest-localserver", SUBCLASSES)
        for literal in literals(page, 1)
    ],
)
def test_new_name(page, literal, ours, pytestconfig):
    option = re.fullmatch(r"(\w+)=(.*)", literal)
    if option and option[2]:
        Server(**NEEDED.get(option[1], {}), **{option[1]: eval(option[2], dict(ours))})
    elif option:
        assert option[1] in OPTIONS
    elif literal in ("smtptest_host", "smtptest_port"):
        pytestconfig.getini(literal)
    elif literal != "pytest.ini":
        exists(literal, ours)


def test_a_name_that_does_not_exist_is_noticed(ours):
    with pytest.raises(AttributeError):
        exists("smtptest.outbox", ours)
    with pytest.raises(AssertionError):
        exists("smtptest.wait(seconds=1)", ours)
