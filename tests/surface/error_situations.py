"""What the situations of `test_error_texts` are made of: servers, and what befalls them.

What is imported here under its own name again is for the table alone.
"""

from __future__ import annotations

import asyncio as asyncio
import contextlib
import ctypes as ctypes
import fcntl
import importlib
import logging
import multiprocessing
import os
import pkgutil
import queue
import re
import resource
import signal
import smtplib
import socket
import ssl
import stat
import sys
import tempfile
import threading
import time as time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import Mock

import helpers
import messages
import pytest
from helpers import awaited, connected, send, state, until
from unix_sockets import short_folder

import lazr_smtptest
from lazr_smtptest import (
    Controller,
    LeaseError,
    QueueController,
    QueueServer,
    Server,
    SharedController,
    SMTPTestError,
    connect,
    tls,
)
from lazr_smtptest._cli.arguments import SPELLING
from lazr_smtptest._fixtures import WorkerServers as WorkerServers
from lazr_smtptest._names import SHARED_RUN, spelled
from lazr_smtptest.message import parse

#: Seconds that a server has for what it will not do.
SOON = 0.2

#: A signal that has no name, where there are such.
NAMELESS = getattr(signal, "SIGRTMIN", 0) + 3

ENVELOPE = ("MAIL FROM:<kim@example.com>", "RCPT TO:<lee@example.com>", "DATA")

#: Lines that keep a server busy.
LONG_MAIL = (*ENVELOPE, "Subject: self.queue.put(7); time.sleep(60)\r\n\r\nHello.\r\n.")
LONG_NOOP = "NOOP self.queue.put(7) or time.sleep(60)"

# What is private to the package; `WorkerServers`, above, is, too.

ANSWER_TIMEOUT = "_ANSWER_TIMEOUT"
PUT_TIMEOUT = "_PUT_TIMEOUT"
RESET_TIMEOUT = "_reset_timeout"
TRANSIT_TIMEOUT = "_TRANSIT_TIMEOUT"


def show_stacks_of(controller: Any) -> Any:
    return type(controller.queue._link.process).show_stacks


# Servers, and queues.


def obey(line: str, **names: Any) -> Any:
    """Run a line of Python; give what it calls `value`, if anything."""
    public = {name: getattr(lazr_smtptest, name) for name in lazr_smtptest.__all__}
    names = {"value": None, **public, **vars(helpers), **globals(), **names}
    exec(line, names)
    return names["value"]


class Obedient(QueueServer):
    """Does what a message's subject says, or a NOOP: that is Python."""

    def handle_message(self, message: Any) -> None:
        obey(message["subject"], self=self, message=message)
        super().handle_message(message)

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: str) -> Any:
        return obey(arg, self=self)


class Returning(QueueServer):
    """Returns what a message's subject comes to."""

    def handle_message(self, message: Any) -> Any:
        return eval(message["subject"])


class Forgetful(QueueServer):
    async def handle_MAIL(self, *of_the_session: Any) -> None:
        """Take the sender, and say nothing."""


class Repetitive(QueueServer):
    """Replies twice to each message."""

    async def handle_DATA(self, *of_the_session: Any) -> str:
        return "250 One\r\n250 two"


class Awkward(Server):
    """Runs a line of Python while a session is made for the first time."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line

    @property
    def auth_AWKWARD(self) -> None:
        obey(self.line)


class Own(QueueController):
    """Runs a server of a class of one's own."""

    def __init__(self, kind: type[QueueServer], **options: Any) -> None:
        self.kind = kind
        super().__init__(**options)

    def _make_server(self, host: str, port: int) -> None:
        self.server = self.kind(host, port, self.queue)


class Drained(queue.Queue):  # type: ignore[type-arg]
    """A queue that takes, and gives nothing."""

    def get_nowait(self) -> Any:
        raise RuntimeError("nothing leaves this queue")


class Stage:
    """Where a situation takes place; it can call all that is public here.

    :param ending: What undoes it.

    :ivar where: The host, port and pid of the server that it is about, if any.
    :ivar reply: What that server said last, if it was asked.
    """

    def __init__(self, request: pytest.FixtureRequest, ending: contextlib.ExitStack) -> None:
        self._request = request
        self._ending = ending
        self._monkeypatch = request.getfixturevalue("monkeypatch")
        self.where: dict[str, Any] = {}
        self.reply = ""

    def play(self, line: str) -> None:
        obey(line, **{name: getattr(self, name) for name in dir(self) if name[0] != "_"})

    def running(self) -> Any:
        """Give a server that is well; it is to stay so."""
        return self._on(self._request.getfixturevalue("server"))

    def run(self, controller: Any) -> Any:
        """Run a server that may come to a bad end, and be rid of it for certain."""
        controller.start()
        self._ending.callback(be_rid_of, controller, controller.pid)
        return self._on(controller)

    def _on(self, controller: Any) -> Any:
        place = ("host", "port") if controller.unix_socket is None else ("unix_socket",)
        self.where = {name: getattr(controller, name) for name in (*place, "pid")}
        assert all(self.where.values())
        return controller

    def on_a_path(self) -> Any:
        """Give a server on a UNIX socket."""
        folder = self._ending.enter_context(short_folder())
        return self.run(QueueController(unix_socket=f"{folder}/smtp"))

    def shared(self, **options: Any) -> Any:
        """Give a lease of a server; its ``owner`` is the controller of that."""
        owner = self.run(SharedController(**options))
        return self.another(owner, "test_it, gw0")

    def another(self, owner: Any, name: str = "") -> Any:
        lease: Any = connect(owner.address, owner.key, name=name)
        lease.owner = owner
        self._ending.callback(lease.close)
        return lease

    def knock(self, said: bytes | None = b"", key: str = "key") -> None:
        """Ask for a lease where something else is, or somebody with another key."""
        with short_folder() as folder, socket.socket(socket.AF_UNIX) as sock:
            path = f"{folder}/leases"
            sock.bind(path)
            sock.listen()
            with ThreadPoolExecutor() as pool:
                answering = pool.submit(answer, sock, said)
                try:
                    connect(path, key, timeout=SOON)
                except LeaseError as error:
                    raise LeaseError(str(error).replace(path, "PLACE")) from None
                finally:
                    answering.result()

    def own(self, kind: type[QueueServer] = QueueServer, **options: Any) -> Any:
        return self.run(Own(kind, **options))

    def with_queue(self, kind: type[QueueServer], target: Any, **options: Any) -> Any:
        return self.run(Controller(kind("localhost", 0, target), **options))

    def with_slow_queue(self, kind: type[QueueServer]) -> Any:
        self.hurry(PUT_TIMEOUT)
        may_go_on = threading.Event()
        target = SimpleNamespace(put=lambda _: may_go_on.wait(10), may_go_on=may_go_on)
        server = self.with_queue(kind, target, start_method="fork")
        self._ending.callback(may_go_on.set)
        return server

    def with_raising_log(self, server: Any) -> Any:
        def handle(record: object) -> None:
            raise RuntimeError("no records today")

        self._monkeypatch.setattr(logging.getLogger("app"), "handle", handle)
        return server

    def on_command_line(self) -> None:
        """Write as for the reader of the command line's errors."""
        self._ending.enter_context(spelled(SPELLING))

    def in_shared_run(self) -> None:
        """Write as for the reader of what pytest says of a server that it has started."""
        self._ending.enter_context(spelled(SHARED_RUN))

    def hurry(self, name: str) -> None:
        """Shorten a time limit of the package, in whichever modules have it."""
        found = pkgutil.walk_packages(lazr_smtptest.__path__, "lazr_smtptest.")
        # Some are imported by the first start only.
        modules = [importlib.import_module(module.name) for module in found]
        homes = [module for module in modules if hasattr(module, name)]
        assert homes
        for module in homes:
            self._monkeypatch.setattr(module, name, SOON)

    def log_in(self, server: Any, mechanism: str) -> Any:
        return self.say(server, f"AUTH {mechanism} AGtpbQBzM2NyZXQ=")

    def say(self, server: Any, *lines: str) -> Any:
        """Send lines, and keep the reply to the last."""
        with connected(server) as client:
            client.ehlo()
            for line in lines:
                client.send(f"{line}\r\n")
                code, text = client.getreply()
        self.reply = f"{code} {text.decode()}\n"
        return server

    def deliver(self, server: Any, subject: str) -> Any:
        return self.say(server, *ENVELOPE, f"Subject: {subject}\r\n\r\nHello.\r\n.")

    def killed_by(self, server: Any, subject: str) -> Any:
        """Send a message that the server does not outlive."""
        with pytest.raises(smtplib.SMTPServerDisconnected):
            self.deliver(server, subject)
        until(lambda: not server.is_running)
        return server

    def busy(self, *lines: str) -> Any:
        """Give a server that is busy with the last of some lines; it has a fault and a gate."""
        self.hurry(ANSWER_TIMEOUT)
        server = self.own(Obedient, stop_timeout=SOON)
        server.its_fault = server.fault("RCPT", "450 No", when="*@none.example")
        server.its_gate = server.gate("RSET")
        self._monkeypatch.setattr(server, RESET_TIMEOUT, SOON)
        client = socket.create_connection((server.host, server.port))
        self._ending.enter_context(client)
        client.sendall("\r\n".join(["EHLO client.example", *lines, ""]).encode())
        server.wait(5)
        return server

    def paused(self) -> Any:
        """Give a server that a signal has stopped, half way through sending a message."""
        self.hurry(TRANSIT_TIMEOUT)
        server = send_large(self.own(reset_timeout=SOON, stop_timeout=2 * SOON), 1)
        # It will not show its stack.
        self._monkeypatch.setattr(show_stacks_of(server), "__defaults__", (SOON / 4,))
        os.kill(server.pid, signal.SIGSTOP)
        until(lambda: state(server.pid) == "T")
        return server

    def unreaped(self) -> Any:
        """Give a server whose exit code the system does not keep."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self._ending.callback(signal.signal, signal.SIGCHLD, before)
        return self.own()

    def forget_localhost(self) -> None:
        """Be on a machine that does not know localhost, such as a bare chroot."""
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self._monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=unknown))

    def limited(self, name: str, soft: int) -> None:
        """Be where a limit of the system is soon reached."""
        kind = getattr(resource, name)
        before = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, before[1]))
        self._ending.callback(resource.setrlimit, kind, before)

    def lose_fork_server(self, *, keep_name: bool) -> None:
        """Be where nobody answers for multiprocessing's fork server; it goes on elsewhere."""
        forkserver.ensure_running()
        lost = Path(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]
        kept = lost.rename(f"{lost}-kept")
        self._ending.callback(kept.rename, lost)
        if keep_name:
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.bind(str(lost))

    def have_no_folder(self) -> None:
        """Be where no temporary file can be made, and no certificate was."""
        self._monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
        self._monkeypatch.setattr(tls, "_authority", tls._Authority)

    def run_test(
        self, fixtures: str, line: str = "pass", above: str = "", ini: str = ""
    ) -> NoReturn:
        """Raise what a test of the plugin does; pytest must report that, and no more."""
        pytester = self._request.getfixturevalue("pytester")
        pytester.makeini(f"[pytest]\nsmtptest_strict = true\nsmtptest_check = error\n{ini}\n")
        test = f"{above}\ndef test_it({fixtures}): {line}\n"
        pytester.makepyfile(f"import pytest\nfrom helpers import send_to\n{test}")
        self._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        done = pytester.inline_run("-p", "smtptest")
        calls = [made.call.excinfo for made in done.getcalls("pytest_runtest_makereport")]
        (error,) = [excinfo.value for excinfo in calls if excinfo]
        reports = done.getreports("pytest_runtest_logreport")
        (report,) = [report.longreprtext for report in reports if report.failed]
        report = re.split("\n-+ SMTP messages -+\n", report)[0]
        # In a traceback, an E marks the error; without one, there is the text alone.
        shown = "\n".join(re.findall(r"^E +(.*)", report, re.MULTILINE)) or report
        assert shown in (str(error), f"{type(error).__name__}: {error}")
        assert not re.search(
            r"lazr_smtptest/(?!compat)\S+\.py:\d", report
        )  # compat is to be short
        if isinstance(error, pytest.fail.Exception):
            error.msg = re.sub(r"port \d+", "port PORT", str(error))
        raise error

    def configure(self, line: str, *options: str) -> Any:
        """Have pytest read its settings and options."""
        pytester = self._request.getfixturevalue("pytester")
        pytester.makeini(f"[pytest]\n{line}\n")
        return pytester.parseconfigure("-p", "no:asyncio", *options)

    def share(self, where: str, options: str, *more: str) -> None:
        """Have pytest begin a run that shares a server, with options of conftest.py."""
        pytester = self._request.getfixturevalue("pytester")
        pytester.makeconftest(
            f"def pytest_smtptest_shared_options(config):\n    return {options}\n"
        )
        config = self.configure(f"smtptest_shared = {where}", *more)
        config.pluginmanager.get_plugin("smtptest").pytest_sessionstart(
            SimpleNamespace(config=config)
        )

    def begin_report(self, file: str) -> None:
        """Have pytest begin to write pages where somebody has a file already."""
        config = self.configure("", "--smtptest-report=pages")
        os.mkdir("pages")
        with open(os.path.join("pages", file), "x"):
            pass
        plugin = config.pluginmanager.get_plugin("smtptest-report")
        plugin.pytest_sessionstart(SimpleNamespace(config=config))


def be_rid_of(controller: Any, pid: int) -> None:
    if controller.pid == pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(SMTPTestError):
        controller.stop()


# What is done.  What is done to a server gives that again.


def stopped(server: Any) -> Any:
    server.stop()
    return server


def stopped_under(lease: Any) -> Any:
    """Stop the server of a lease."""
    lease.owner.stop()
    return lease


def killed(server: Any, number: int = signal.SIGKILL) -> Any:
    if number == NAMELESS and not hasattr(signal, "SIGRTMIN"):
        pytest.skip("no real-time signals here")
    os.kill(server.pid, number)
    until(lambda: not server.is_running)
    return server


def attached(*names: str | None) -> Any:
    """Return a message with attachments."""
    letter = EmailMessage()
    letter.set_content("Hello.")
    for name in names:
        letter.add_attachment(b"", maintype="image", subtype="png", filename=name)
    return parse(messages.ENVELOPE, letter.as_bytes())


def close_pipes() -> None:
    """Close all pipes that this process reads from."""
    for fd in range(3, 100):
        with contextlib.suppress(OSError):
            is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
            if is_pipe and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                os.close(fd)


def send_large(server: Any, count: int) -> Any:
    """Send what is too large for the pipe, so that it stays in the server process."""
    with connected(server) as client:
        for _ in range(count):
            send(client, "pass", ("y" * 70 + "\r\n") * 60_000)
    return server


def answer(listening: socket.socket, said: bytes | None) -> None:
    """Say something to the one who connects, and no more until that goes; or hang up."""
    with listening.accept()[0] as sock:
        if said is not None:
            sock.sendall(said)
            while sock.recv(4096):
                pass


def unread(lease: Any) -> Any:
    """Send a lease what it has no room for."""
    large = "y" * 70 + "\r\n"
    with connected(lease) as client, pytest.raises(smtplib.SMTPDataError, match="452"):
        for _ in range(100):
            client.sendmail("", [lease.address("kim")], f"Subject: large\r\n\r\n{large * 1000}")
    return lease


async def on_the_loop(call: Callable[..., object], *args: object) -> None:
    call(*args)


def stop_meanwhile(server: Any, owner: Any = None) -> None:
    """Stop a server while another thread waits for it."""

    with ThreadPoolExecutor() as pool:
        call = pool.submit(server.gate("RCPT").wait_parked, timeout=10)
        until(lambda: awaited(server))
        (owner or server).stop()
        call.result()


def in_a_child(call: Callable[..., object], *args: object) -> NoReturn:
    """Raise what a call raises in a forked child; its id is CHILD in the text."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            call(*args)
        except BaseException as error:
            writer.send(error)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert reader.poll(5)
    raised = reader.recv()
    named = [re.sub(rf"process {pid}\b", "process CHILD", str(arg)) for arg in raised.args]
    raised.args = tuple(named)
    raise raised


def ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def listen_without_privilege() -> None:
    least = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if sys.platform == "darwin" or (least.exists() and int(least.read_text()) <= 1):
        pytest.skip("every port is free to all here")
    if os.getuid() == 0:
        os.setuid(65534)
    QueueController("127.0.0.1", 1).start()


def listen_where_only_root_may() -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    QueueController(unix_socket="/smtp").start()


def make_without_scramp() -> None:
    sys.modules["scramp"] = None  # type: ignore[assignment]
    Server(auth={}, auth_mechanisms=["SCRAM-SHA-256"])


def start_without(module: str, option: str, value: object) -> None:
    """Start a server in a process that has imported nothing yet, and cannot import a module."""
    for name in [name for name in sys.modules if name.startswith("lazr_smtptest")]:
        del sys.modules[name]
    sys.modules[module] = None  # type: ignore[assignment]
    importlib.import_module("lazr_smtptest").QueueController(**{option: value}).start()
