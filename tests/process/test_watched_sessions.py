"""What happens in sessions is sent, to who has asked, in order with the messages."""

from __future__ import annotations

import os
import signal
import smtplib
from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
from helpers import EVENT_LOOPS, START_METHODS, connected, loop_name, send, until

from lazr_smtptest import Message, QueueController, ServerDied
from lazr_smtptest.sessions import SessionEvent


@pytest.fixture(params=EVENT_LOOPS, ids=loop_name)
def server(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    with QueueController(uvloop=request.param, auth={"kim": "s3cret"}) as controller:
        yield controller


def watch(server: QueueController, *, with_lines: bool) -> None:
    server._ask(server._running("watch"), "watch", with_lines)


def taken(server: QueueController, timeout: float = 0.0) -> list[Any]:
    """Take all that is there, or comes until nothing has for so long."""
    found: list[Any] = []
    try:
        while True:
            found.append(server.queue.get(timeout=timeout))
    except Empty:
        return found


def text_of(item: Any) -> list[str]:
    if isinstance(item, Message):
        return [item["subject"]]
    assert isinstance(item, SessionEvent)
    if item.session is not None:
        return [f"{item.number} {item.session.ended}"]
    return [f"{item.number} {line.speaker} {line.text}" for line in item.lines] or [
        f"{item.number} has begun"
    ]


def test_nothing_is_sent_unless_it_is_asked_for(server):
    with connected(server) as client:
        send(client, "one")
    assert [type(item) for item in taken(server)] == [Message]


def test_sessions_begin_and_end_around_their_messages(server):
    watch(server, with_lines=False)
    with connected(server) as client:
        send(client, "one")
        send(client, "two")
    server.stop()
    assert [text_of(item) for item in taken(server)] == [
        ["1 has begun"], ["one"], ["two"], ["1 QUIT"],
    ]  # fmt: skip


def test_each_line_is_sent_before_the_client_has_its_answer(server):
    watch(server, with_lines=True)
    with connected(server) as client:
        assert text_of(server.queue.get(timeout=10)) == ["1 has begun"]
        assert text_of(server.queue.get(timeout=10))[0].startswith("1 S 220 ")
        for command in ("NOOP", "EHLO client.example", "MAIL FROM:<kim@example.com>"):
            client.docmd(command)
            lines = [line for item in taken(server) for line in text_of(item)]
            assert lines[0] == f"1 C {command}"
            assert lines[1].startswith("1 S 250")
        client.login("kim", "s3cret")
        client.docmd("RSET")
        lines = [line for item in taken(server) for line in text_of(item)]
        assert "s3cret" not in str(lines)
        assert any(line.startswith("1 C AUTH") for line in lines)
        send(client, "one")
        lines = [line for item in taken(server) for line in text_of(item)]
        place = lines.index("one")
        assert lines[place - 1].startswith("1 S 354")
        assert lines[place + 1].endswith(" octets of content")
        assert lines[place + 2] == "1 S 250 2.0.0 OK"


def test_the_last_event_is_the_session_with_all_that_was_said(server):
    watch(server, with_lines=True)
    with connected(server) as client:
        send(client, "one")
    server.stop()
    *events, last = [item for item in taken(server) if isinstance(item, SessionEvent)]
    assert last.session.dialogue == tuple(line for event in events for line in event.lines)
    assert last.session == server.sessions()[0]
    assert (last.number, last.peer, last.lines) == (1, last.session.peer, ())


def test_sessions_that_have_begun_before(server):
    with connected(server) as first, connected(server):
        watch(server, with_lines=True)
        with connected(server) as third:
            third.docmd("NOOP")
        first.docmd("NOOP")  # before it was watched, it was not to be sent
        server.stop()
        found = [line for item in taken(server) for line in text_of(item)]
        first.close()
    assert found[:2] == ["1 has begun", "2 has begun"]
    assert found[2] == "3 has begun"
    assert "3 C NOOP" in found
    assert "1 C NOOP" not in found
    assert sorted(found[-3:]) == ["1 open", "2 open", "3 QUIT"]


def test_what_is_sent_of_sessions_counts_as_no_message(server):
    watch(server, with_lines=True)
    with connected(server) as client:
        send(client, "one")
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.is_running)
        with pytest.raises(ServerDied) as caught:
            while True:
                server.queue.get()
        client.close()
    assert caught.value.lost == 0


@pytest.mark.parametrize("method", START_METHODS)
def test_every_start_method(method):
    with QueueController(start_method=method) as server:
        watch(server, with_lines=True)
        with smtplib.SMTP(server.host, server.port, "client.example", timeout=10) as client:
            client.docmd("NOOP")
        server.stop()
        found = [line for item in taken(server) for line in text_of(item)]
    assert found[0] == "1 has begun"
    assert found[2:] == ["1 C NOOP", "1 S 250 2.0.0 OK", "1 C QUIT", "1 S 221 2.0.0 Bye", "1 QUIT"]
