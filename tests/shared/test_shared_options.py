"""Shared servers with the options, and the handlers, that any server may have."""

from __future__ import annotations

import contextlib
import os
import smtplib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import (
    EVENT_LOOPS,
    LOGIN,
    START_METHODS,
    awaited,
    connected,
    loop_name,
    send_for,
    stopped,
    subjects,
    until,
)
from unix_sockets import UnixSMTP, short_folder

from lazr_smtptest import HandlerError, Lease, Message, QueueServer, SharedController, connect


@contextlib.contextmanager
def leased(shared: SharedController) -> Iterator[tuple[Lease, Lease]]:
    with (
        shared,
        connect(shared.address, shared.key, name="kim") as kim,
        connect(shared.address, shared.key, name="lee") as lee,
    ):
        yield kim, lee


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_lmtp(uvloop: bool) -> None:
    with leased(SharedController(lmtp=True, uvloop=uvloop)) as (kim, lee):
        fault = kim.fault("EOM", "552 5.2.2 Full", when=kim.address("a"))
        with smtplib.LMTP(kim.host, kim.port, "client.example") as client:
            client.ehlo()
            client.mail("")
            for one in kim.address("a"), kim.address("b"), lee.address("a"):
                assert client.rcpt(one)[0] == 250
            assert client.docmd("DATA")[0] == 354
            client.send(b"Subject: one\r\n\r\n.\r\n")
            assert [client.getreply()[0] for _ in range(3)] == [552, 250, 250]
        assert fault.fired == 1
        (mail,) = lee.messages
        assert mail.envelope.rcpt_refused
        assert subjects(kim.messages) == ["one"]


@pytest.mark.parametrize("method", START_METHODS)
def test_tls_and_a_login(method: str) -> None:
    shared = SharedController(
        tls="starttls", auth=dict([LOGIN]), auth_required=True, start_method=method
    )
    with leased(shared) as (kim, lee):
        with connected(kim) as client:
            client.starttls(context=kim.client_context())
            client.login(*LOGIN)
            client.sendmail("", [kim.address("a")], "Subject: one\r\n\r\n")
        assert kim.wait(0).envelope.auth_user == LOGIN[0]
        assert kim.ca_file == lee.ca_file
        assert Path(kim.ca_file).read_bytes() == Path(shared.ca_file).read_bytes()
        (session,) = kim.sessions()
        assert (session.auth_user, session.tls) == (LOGIN[0], "TLSv1.3")
        assert lee.sessions() == []


def test_a_unix_socket_for_mail() -> None:
    with (
        short_folder() as folder,
        leased(SharedController(unix_socket=f"{folder}/smtp")) as (kim, lee),
    ):
        assert kim.unix_socket == f"{folder}/smtp"
        with UnixSMTP(kim.unix_socket) as client:
            client.sendmail("", [kim.address("a"), lee.address("a")], "Subject: one\r\n\r\n")
        assert subjects(kim) == subjects(lee) == ["one"]
        with pytest.raises(ValueError, match="has no port"):
            kim.port  # noqa: B018


def test_a_folder_for_temporary_files_with_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a UNIX socket has 107 octets at most, on macOS 103."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    shared = SharedController()
    with leased(shared) as (kim, _):
        send_for(kim, "one", [kim.address("kim")])
        assert subjects(kim) == ["one"]
        assert Path(shared.address).parent.stat().st_mode & 0o777 == 0o700
    assert not Path(shared.address).parent.exists()


class Choosy(QueueServer):
    """Refuses, fails, or takes and changes what comes, as the subject says."""

    def handle_message(self, message: Message) -> str | None:
        subject = message["subject"]
        if subject == "refuse":
            return "553 5.7.1 Not this"
        if subject == "fail":
            raise LookupError("no such thing")
        message["X-Seen"] = "yes"
        super().handle_message(message)
        return None


class ChoosyController(SharedController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Choosy(host, port, self.queue, **self.server_options)


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
@pytest.mark.parametrize("method", START_METHODS)
def test_a_handler(method: str, uvloop: bool) -> None:
    shared = ChoosyController(start_method=method, uvloop=uvloop)
    with leased(shared) as (kim, lee):
        send_for(kim, "take", [kim.address("a"), lee.address("a")])
        for lease in kim, lee:
            assert lease.wait(0)["X-Seen"] == "yes"
        with pytest.raises(smtplib.SMTPDataError, match="553, b'5.7.1 Not this'"):
            send_for(kim, "refuse", [kim.address("a")])
        assert kim.messages == []
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send_for(kim, "fail", [kim.address("a")])
        with pytest.raises(HandlerError, match=r"Choosy.handle_message raised LookupError: no"):
            kim.wait(0)
        assert lee.messages == []
        lee.reset()
        # What fails for nobody's mail is the owner's.
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send_for(kim, "fail", ["nobody@example.com"])
        kim.reset()
        with pytest.raises(HandlerError, match=r"Choosy.handle_message raised LookupError"):
            shared.reset()


class Slow(QueueServer):
    """Works on a message, after passing it on, until there is the file of its subject."""

    def handle_message(self, message: Message) -> None:
        super().handle_message(message)
        Path(f"{message['subject']}.begun").touch()
        while not os.path.exists(message["subject"]):
            time.sleep(0.01)


class SlowController(SharedController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Slow(host, port, self.queue, **self.server_options)


def test_a_reset_is_behind_a_handler_that_works(tmp_path: Path) -> None:
    """What it has taken by then is forgotten, too; and what is another lease's is not."""
    path = tmp_path / "may-end"
    with leased(SlowController(reset_timeout=60)) as (kim, lee), ThreadPoolExecutor() as pool:
        sending = pool.submit(send_for, kim, path, [kim.address("a"), lee.address("a")])
        until(tmp_path.joinpath("may-end.begun").exists)
        resetting = pool.submit(kim.reset)
        until(lambda: awaited(kim))
        path.touch()
        sending.result()
        resetting.result()
        assert (subjects(kim.messages), subjects(lee.messages)) == ([], [str(path)])


def test_a_reset_of_a_lease_that_is_over_is_none_of_the_next(tmp_path: Path) -> None:
    """A thread that a test has left waits for it, behind a handler."""
    path = tmp_path / "may-end"
    shared = SlowController()
    with leased(shared) as (kim, _), ThreadPoolExecutor() as pool:
        sending = pool.submit(send_for, kim, path, [kim.address("a"), "nobody@example.com"])
        until(tmp_path.joinpath("may-end.begun").exists)
        with stopped(shared.pid):  # it reads both at once
            resetting = pool.submit(kim.reset)
            until(lambda: awaited(kim))
            beginning = pool.submit(kim._begin, "next")
            until(lambda: len(kim._link._replies) > 2)
        beginning.result()
        fault = kim.fault("RCPT", "450 4.2.1 Later")
        path.touch()
        sending.result()
        resetting.result()
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="450"):
            send_for(kim, path, [kim.address("a")])
        assert fault.fired == 1


class Forwarding(QueueServer):
    """Passes on what comes; on the handlers' thread, since it is a handler."""

    def handle_message(self, message: Message) -> None:
        super().handle_message(message)


class ForwardingController(SharedController):
    def _make_server(self, host: str, port: int) -> None:
        self.server = Forwarding(host, port, self.queue, **self.server_options)


def test_a_handler_s_late_mail_is_not_the_next_test_s() -> None:
    """A client sends to each test's address until the next one's is known."""
    address = [""]

    def send() -> None:
        with connected(kim) as client:
            while address[0]:
                client.sendmail("", [address[0]], f"Subject: {address[0]}\r\n\r\n")

    with leased(ForwardingController()) as (kim, _), ThreadPoolExecutor() as pool:
        address[0] = kim.address("late")
        sending = pool.submit(send)
        for n in range(300):
            kim._begin(f"test_{n}")
            before, address[0] = address[0], kim.address("late")
            assert before not in subjects(kim)
            assert set(subjects(kim)) <= {address[0]}
        address[0] = ""
        sending.result()


# What strikes all.


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "VRFY", "NOOP"])
def test_faults_for_all(stage: str) -> None:
    with leased(SharedController(faults="all")) as (kim, lee):
        fault = kim.fault(stage, "421 4.3.2 Closed", times=1)
        with pytest.raises((smtplib.SMTPException, OSError)), connected(lee) as client:
            client.ehlo_or_helo_if_needed()
            for line in "VRFY kim", "NOOP", "MAIL FROM:<kim@example.com>":
                if client.docmd(line)[0] == 421:
                    raise smtplib.SMTPServerDisconnected
        assert fault.fired == 1
        send_for(lee, "one", [lee.address("a")])
        assert subjects(lee) == ["one"]
        kim.fault("RCPT", "550 No")
        lee.reset()  # of which kim's faults are none
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send_for(lee, "two", [lee.address("a")])
        kim.reset()
        send_for(lee, "three", [lee.address("a")])
        assert subjects(lee) == ["three"]


def test_faults_at_a_stage_with_an_address_of_one_s_own(kim: Lease, lee: Lease) -> None:
    """MAIL, VRFY and EXPN name an address; it may be claimed, as may one that only sends."""
    kim.claim("shop@example.com")
    own = kim.address("kim")
    faults = [
        kim.fault("MAIL", "550 5.7.1 Not you", when="shop@example.com"),
        kim.fault("VRFY", "550 5.1.1 Nobody", when=own),
        kim.fault("EXPN", "550 5.1.1 No list", when=own.upper()),
    ]
    with connected(lee) as client:
        client.ehlo()
        assert client.docmd("MAIL FROM:<lee@example.com>")[0] == 250
        client.rset()
        assert client.docmd("MAIL FROM:<SHOP@example.com>")[0] == 550
        assert client.docmd(f"VRFY <{own}>")[0] == 550
        assert client.docmd(f"VRFY <{lee.address('a')}>")[0] == 252
        assert client.docmd(f"EXPN {own}")[0] == 550
    assert [fault.fired for fault in faults] == [1, 1, 1]
