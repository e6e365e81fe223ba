"""The commands of a session, and how many clients have connected."""

from __future__ import annotations

import asyncio
import pickle
import smtplib
import socket

import aiosmtplib
import pytest
from helpers import connected, send_to

from lazr_smtptest import Command, NotRunning, QueueController


@pytest.fixture(params=[False, None], ids=["asyncio", "uvloop"])
def controller(request):
    with QueueController(uvloop=request.param, auth={"kim": "secret"}) as controller:
        yield controller


def raw(controller: QueueController, *lines: str) -> None:
    with socket.create_connection((controller.host, controller.port)) as client:
        replies = client.makefile("rb")
        replies.readline()
        for line in lines:
            client.sendall(f"{line}\r\n".encode())
            while replies.readline()[3:4] == b"-":
                pass


def commands(controller: QueueController) -> list[Command]:
    return list(controller.sessions()[-1].commands)


def test_commands_of_smtplib(controller):
    with smtplib.SMTP(controller.host, controller.port, "shop.example.com") as client:
        client.login("kim", "secret")
        client.sendmail(
            "kim@example.com",
            ["lee@example.com", "max@example.com"],
            "Subject: one\r\n\r\n",
            mail_options=["BODY=8BITMIME"],
            rcpt_options=["NOTIFY=NEVER"],
        )
    assert commands(controller) == [
        ("EHLO", "shop.example.com", ()),
        ("AUTH", "CRAM-MD5", ()),
        ("MAIL", "kim@example.com", ("size=16", "BODY=8BITMIME")),
        ("RCPT", "lee@example.com", ("NOTIFY=NEVER",)),
        ("RCPT", "max@example.com", ("NOTIFY=NEVER",)),
        ("DATA", "", ()),
        ("QUIT", "", ()),
    ]
    assert commands(controller)[0].verb == "EHLO"


def test_commands_of_aiosmtplib(controller):
    async def main() -> None:
        client = aiosmtplib.SMTP(hostname=controller.host, port=controller.port)
        async with client:
            await client.vrfy("lee@example.com")
            await client.sendmail("kim@example.com", ["lee@example.com"], "Subject: one\r\n\r\n")

    asyncio.run(main())
    verbs = [command.verb for command in commands(controller)]
    assert verbs == ["EHLO", "VRFY", "MAIL", "RCPT", "DATA", "QUIT"]
    assert commands(controller)[1].argument == "lee@example.com"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("mail from:<>", ("MAIL", "", ())),
        ("MAIL FROM:kim@example.com SIZE=3", ("MAIL", "kim@example.com", ("SIZE=3",))),
        ('MAIL FROM:<"a > b"@example.com>', ("MAIL", '"a > b"@example.com', ())),
        ("MAIL kim@example.com", ("MAIL", "kim@example.com", ())),
        ("NOOP  two  words ", ("NOOP", "two  words", ())),
        ("nonsense", ("NONSENSE", "", ())),
        ("AUTH PLAIN AGtpbQBzZWNyZXQ=", ("AUTH", "PLAIN", ())),
        ("auth plain AGtpbQB3cm9uZw==", ("AUTH", "PLAIN", ())),
        ("AUTH AGtpbQBzZWNyZXQ=", ("AUTH", "", ())),
        ("AUTH", ("AUTH", "", ())),
    ],
)
def test_a_command(controller, line, command):
    raw(controller, "EHLO shop.example.com", line)
    assert commands(controller) == [("EHLO", "shop.example.com", ()), command]


def test_no_secret_is_in_them(controller):
    with smtplib.SMTP(controller.host, controller.port) as client:
        client.ehlo()
        client.user, client.password = "kim", "secret"
        client.auth("LOGIN", client.auth_login)
    assert commands(controller)[1:] == [("AUTH", "LOGIN", ()), ("QUIT", "", ())]


def test_they_are_those_of_a_session_that_was_pickled(controller):
    send_to(controller, "one")
    (session,) = controller.sessions()
    assert pickle.loads(pickle.dumps(session)).commands == session.commands


def test_content_is_no_command(controller):
    with connected(controller) as client:
        client.sendmail("kim@example.com", ["lee@example.com"], "Subject: x\r\n\r\nNOOP\r\n")
    assert "NOOP" not in [command.verb for command in commands(controller)]


# Connections.


def test_all_connections_are_counted(controller):
    for _ in range(130):
        socket.create_connection((controller.host, controller.port)).close()
    assert controller.connections == 130
    with connected(controller):
        assert controller.connections == 131


@pytest.mark.parametrize("round_number", range(5))
def test_who_has_just_connected_counts(controller, round_number):
    with socket.create_connection((controller.host, controller.port)):
        assert controller.connections == 1


def test_a_client_that_keeps_its_connection(controller):
    with connected(controller) as client:
        for _ in range(3):
            client.sendmail("kim@example.com", ["lee@example.com"], "Subject: x\r\n\r\n")
    assert controller.connections == 1


def test_they_are_counted_from_the_last_reset_on(controller):
    with connected(controller) as client:
        assert controller.connections == 1
        controller.reset()
        client.noop()
        assert controller.connections == 0
        send_to(controller, "one")
        assert controller.connections == 1


def test_who_is_turned_away_by_a_fault_has_connected(controller):
    controller.fault("CONNECT", drop=True)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        smtplib.SMTP(controller.host, controller.port)
    assert controller.connections == 1


def test_they_are_known_when_the_server_was_stopped(controller):
    send_to(controller, "one")
    controller.stop()
    assert controller.connections == 1


def test_where_there_was_no_server():
    with pytest.raises(NotRunning, match="connections needs a running server"):
        QueueController().connections  # noqa: B018
