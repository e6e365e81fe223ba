"""A message that `handle_message` refuses, or accepts in words of its own."""

from __future__ import annotations

import queue
import smtplib
import threading

import pytest
from helpers import connected, send, send_to, serving, subjects

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
)


class Choosy(QueueServer):
    """Returns a message's subject for the reply; before that, or not, it is passed on."""

    def handle_message(self, message):
        if message["to"] != "nobody":
            super().handle_message(message)
        return eval(message["subject"])


def reply_to(client: smtplib.SMTP, subject: str, to: str = "lee") -> tuple[int, bytes]:
    client.ehlo_or_helo_if_needed()
    client.mail("kim@example.com")
    client.rcpt("lee@example.com")
    return client.data(f"To: {to}\r\nSubject: {subject}\r\n\r\nHello.\r\n".encode())


class ChoosyController(QueueController):
    def _make_server(self, host, port):
        self.server = Choosy(host, port, self.queue)


@pytest.fixture(scope="module")
def running():
    with ChoosyController() as controller:
        yield controller


REFUSALS = {
    "'553 5.7.1 no'": (553, b"5.7.1 no"),
    "'553'": (553, b""),
    "'451 4.7.1 Later'": (451, b"4.7.1 Later"),
    "'550 Spam'": (550, b"Spam"),
    "'554-5.7.1 No,\\n554 5.7.1 and never'": (554, b"5.7.1 No,\n5.7.1 and never"),
    "'554 No,\\nand never'": (554, b"No,\nand never"),
    "'550 5.7.1 Größe'": (550, "5.7.1 Größe".encode()),
}


@pytest.mark.parametrize("to", ["lee", "nobody"], ids=["passed on", "not passed on"])
@pytest.mark.parametrize(("subject", "reply"), REFUSALS.items(), ids=REFUSALS.keys())
def test_a_refused_message_is_not_there(server, subject, reply, to):
    with connected(server) as client:
        assert reply_to(client, subject, to) == reply
        assert server.queue.qsize() == 0
        assert server.queue.empty()
        with pytest.raises(queue.Empty):
            server.queue.get_nowait()
        server.queue.expect_none()
        assert reply_to(client, "None")[0] == 250
        assert subjects(server) == ["None"]
    assert [line.text for line in server.sessions()[-1].dialogue if line.text[:3] == str(reply[0])]


ACCEPTING = {
    "None": (250, b"2.0.0 OK"),
    "'250 2.0.0 Queued as 7'": (250, b"2.0.0 Queued as 7"),
    "'251'": (251, b""),
}


@pytest.mark.parametrize(("subject", "reply"), ACCEPTING.items(), ids=ACCEPTING.keys())
def test_a_message_that_is_accepted_in_other_words(server, subject, reply):
    with connected(server) as client:
        code, text = reply_to(client, subject)
        assert server.queue.qsize() == 1
        assert server.queue.get_nowait()["subject"] == subject
    assert (code, text) == reply or subject == "None"
    assert code == reply[0]


NO_REPLIES = {
    "7": "TypeError: handle_message must return None or a reply, such as '553 5.7.1 No', not 7",
    "False": "TypeError: .*, not False",
    "b'550 No'": "TypeError: .*, not b'550 No'",
    "''": "ValueError: .*: reply must begin with a reply code",
    "'no'": "ValueError: .*: reply must begin with a reply code, .*, not 'no'",
    "'150 no'": "ValueError: .*: reply must begin with a reply code",
    "'5500 no'": "ValueError: .*: reply must begin with a reply code",
    "'550 a\\n551 b'": "ValueError: .*: reply must have one code in all its lines",
    "'550 a\\rb'": "ValueError: .*: reply must be printable text",
    "'550 a\\r\\n\\0'": "ValueError: .*: reply must be printable text",
    "'354 Go ahead'": "ValueError: .*, and none of 3xx, not '354 Go ahead'",
}


@pytest.mark.parametrize(("subject", "text"), NO_REPLIES.items(), ids=NO_REPLIES.keys())
def test_what_is_no_reply(server, subject, text):
    with connected(server) as client:
        code, told = reply_to(client, subject)
        assert (code, told[:6]) == (451, b"4.3.0 ")
        with pytest.raises(HandlerError, match=rf"Choosy\.handle_message raised {text}"):
            server.queue.get_nowait()
        assert server.queue.empty()
        assert client.noop()[0] == 250


def test_what_was_passed_on_before_an_exception_is_not_there(server):
    """The client is told 451, and will send it again."""
    with connected(server) as client:
        assert reply_to(client, "1 / 0")[0] == 451
    with pytest.raises(HandlerError, match="ZeroDivisionError"):
        server.queue.get_nowait()
    assert server.queue.empty()


def test_a_reply_of_421_closes_the_connection(server):
    with connected(server) as client:
        assert reply_to(client, "'421 4.3.2 Closing'") == (421, b"4.3.2 Closing")
        assert client.sock is None or client.sock.recv(1) == b""
        client.close()
    assert server.sessions()[-1].ended == "dropped by the server"


def test_a_hook_that_replies_421_closes_the_connection():
    class Closing(QueueServer):
        async def handle_MAIL(self, server, session, envelope, address, options):
            return "421 4.3.2 Closing"

    with serving(Closing) as controller, connected(controller) as client:
        client.ehlo()
        client.putcmd("MAIL", "FROM:<kim@example.com>")
        assert client.getreply() == (421, b"4.3.2 Closing")
        assert client.sock.recv(1) == b""
        client.close()


def test_pipelined_messages_get_their_own_replies(server):
    with connected(server) as client:
        client.ehlo()
        for subject in ("None", "'550 No'", "None"):
            client.send("MAIL FROM:<kim@example.com>\r\nRCPT TO:<lee@example.com>\r\nDATA\r\n")
            assert [client.getreply()[0] for _ in range(3)] == [250, 250, 354]
            client.send(f"Subject: {subject}\r\n\r\n.\r\n")
            assert client.getreply()[0] == (550 if "550" in subject else 250)
    assert subjects(server) == ["None", "None"]


class Strict(Server):
    def handle_message(self, message):
        return "553 5.7.1 no" if "viagra" in message["subject"] else None


def test_a_server_without_a_queue(start_method):
    with Controller(Strict(), start_method=start_method) as controller:
        with connected(controller) as client:
            send(client, "hello")
            with pytest.raises(smtplib.SMTPDataError) as caught:
                send(client, "viagra")
    assert (caught.value.smtp_code, caught.value.smtp_error) == (553, b"5.7.1 no")


def test_a_queue_of_somebody_elses():
    inbox: queue.Queue = queue.Queue()
    with Controller(Choosy("localhost", 0, inbox)) as controller, connected(controller) as client:
        assert reply_to(client, "'553 5.7.1 no'") == (553, b"5.7.1 no")
        assert reply_to(client, "'250 Well'") == (250, b"Well")
        assert inbox.get_nowait()["subject"] == "'250 Well'"
        assert inbox.empty()


def test_a_queue_of_somebody_elses_that_is_full():
    inbox: queue.Queue = queue.Queue(maxsize=1)
    with Controller(Choosy("localhost", 0, inbox)) as controller:
        with connected(controller) as client:
            assert reply_to(client, "None")[0] == 250
            assert reply_to(client, "'553 5.7.1 no'") == (553, b"5.7.1 no")
            assert reply_to(client, "'250 Well'") == (452, b"4.3.1 Error: (Full)")
        with pytest.raises(HandlerError, match="Full"):
            controller.reset()


def test_what_is_put_by_hand_is_there_at_once():
    class ByHand(QueueServer):
        def handle_message(self, message):
            self.queue.put("seen")
            return "550 No"

    inbox = MessageQueue()
    with Controller(ByHand("localhost", 0, inbox)) as controller:
        with pytest.raises(smtplib.SMTPDataError):
            send_to(controller, "hi")
        assert inbox.get_nowait() == "seen"


def test_a_message_is_passed_on_as_it_was_then():
    class Changing(QueueServer):
        def handle_message(self, message):
            super().handle_message(message)
            del message["Subject"]
            return "250 OK"

    with serving(Changing) as controller:
        send_to(controller, "first")
        assert controller.server.queue.get_nowait()["subject"] == "first"


def test_another_thread_of_a_handler_puts_at_once():
    class Threaded(QueueServer):
        def handle_message(self, message):
            put = super().handle_message
            thread = threading.Thread(target=put, args=(message,))
            thread.start()
            thread.join()
            return "250 Threaded"

    with serving(Threaded) as controller:
        send_to(controller, "by a thread")
        assert controller.server.queue.get_nowait()["subject"] == "by a thread"


def test_a_reset_that_puts_does_so_at_once():
    class Telling(QueueServer):
        def reset(self):
            super().handle_message("reset")

    inbox = MessageQueue()
    with Controller(Telling("localhost", 0, inbox)) as controller:
        controller.reset()
        assert inbox.empty(), "it is forgotten with all that came before"
        send_to(controller, "hi")
        assert inbox.get_nowait()["subject"] == "hi"
