"""Servers on UNIX sockets: how they start, stop and die, and what becomes of the file."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import EVENT_LOOPS, Unpicklable, gone, loop_name, send, subjects, until
from paths import SUPPORT
from scripts import run_python
from unix_sockets import BusyController, UnixSMTP, busy, children_of, send_to_path, short_folder
from waiting import kill

from lazr_smtptest import (
    Controller,
    MessageNotReceived,
    NotRunning,
    QueueController,
    ServerDied,
    ServerStuck,
    StartError,
)
from lazr_smtptest import server as server_module

SCRIPT = str(SUPPORT / "unix_sockets.py")


@pytest.fixture
def path() -> Iterator[str]:
    with short_folder() as folder:
        yield f"{folder}/smtp"


@pytest.fixture
def running(path: str) -> Iterator[QueueController]:
    with QueueController(unix_socket=path) as controller:
        yield controller


def bound(path: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    return sock


def identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_ino, found.st_mtime_ns


# A life.


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_a_life(path, start_method, uvloop):
    controller = QueueController(unix_socket=path, start_method=start_method, uvloop=uvloop)
    for name in "first", "second":
        with controller:
            assert controller.unix_socket == path
            send_to_path(path, name, name)
            assert subjects(controller) == [name, name]
            (session,) = controller.sessions()
            assert session.peer == ("",)
            assert session.ended == "QUIT"
            remover = children_of(controller.pid)
            assert len(remover) == 1
        assert not os.path.exists(path)
        assert gone(*remover)


def test_what_a_controller_says_of_itself(path):
    controller = QueueController(unix_socket=Path(path))
    assert repr(controller) == f"<QueueController on {path}, not running>"
    with controller:
        assert repr(controller) == f"<QueueController on {path}, pid {controller.pid}>"
        for name in "host", "port":
            with pytest.raises(
                ValueError, match=f"has no {name}: connect to the controller's unix"
            ):
                getattr(controller, name)
    assert controller.unix_socket == path
    with QueueController() as other:
        assert other.unix_socket is None


def test_errors_say_where(running, path):
    with pytest.raises(MessageNotReceived, match=f" came to {path} within ") as missing:
        running.wait(0.01)
    assert (missing.value.unix_socket, missing.value.host) == (path, None)
    running.stop()
    with pytest.raises(NotRunning, match=f"none runs on {path}: call start") as stopped:
        running.reset()
    assert (stopped.value.unix_socket, stopped.value.port) == (path, None)


def test_a_relative_path_is_that_of_the_folder_where_it_was_given(path, monkeypatch, start_method):
    monkeypatch.chdir(os.path.dirname(path))
    controller = QueueController(unix_socket="smtp", start_method=start_method)
    monkeypatch.chdir("/")
    with controller:
        send_to_path(path, "one")
    assert subjects(controller) == ["one"]


def test_the_longest_path(path):
    folder = os.path.dirname(path)
    longest = folder + "/" + "x" * (server_module._LONGEST_PATH - len(folder) - 1)
    with QueueController(unix_socket=longest):
        send_to_path(longest, "one")
    with pytest.raises(ValueError, match="unix_socket must have at most 10"):
        QueueController(unix_socket=longest + "x")


def test_a_path_that_is_no_text(path):
    odd = os.fsdecode(os.fsencode(path) + b"\xff\n")
    with QueueController(unix_socket=odd) as controller:
        send_to_path(odd, "one")
        assert "'" + ascii(odd)[1:-1] + "'" in repr(controller)
    assert not os.path.exists(odd)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids=oct)
def test_who_may_connect_is_up_to_the_umask(path, umask):
    before = os.umask(umask)
    try:
        with QueueController(unix_socket=path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


def test_files_in_memory_are_none_of_it(path):
    pytest.importorskip("pyfakefs", reason="needs pyfakefs: pip install pyfakefs")
    from pyfakefs.fake_filesystem_unittest import Patcher

    with Patcher():
        controller = QueueController(unix_socket=path)
        controller.start()
        assert not os.path.exists(path)
    assert os.path.exists(path)
    with Patcher():
        controller.stop()
    assert not os.path.exists(path)


GREENLETS = """
    {patch}
    import os
    from lazr_smtptest import QueueController
    from unix_sockets import send_to_path

    with QueueController(unix_socket={path!r}) as controller:
        send_to_path({path!r}, "one")
        print(controller.wait()["subject"])
    print(os.path.exists({path!r}))
"""


@pytest.mark.parametrize(
    ("library", "patch"),
    [
        ("gevent", "import gevent.monkey; gevent.monkey.patch_all()"),
        ("eventlet", "import warnings; warnings.simplefilter('ignore'); "
         "import eventlet; eventlet.monkey_patch()"),
    ],
)  # fmt: skip
def test_greenlets(path, library, patch):
    if importlib.util.find_spec(library) is None:  # and not imported, which others would notice
        pytest.skip(f"needs {library}: pip install {library}")
    done = run_python(GREENLETS.format(patch=patch, path=path))
    assert (done.stdout, done.stderr) == ("one\nFalse\n", "")


# What is at the path already.


def test_a_socket_that_nobody_listens_on_is_replaced(path):
    bound(path).close()
    with QueueController(unix_socket=path) as controller:
        send_to_path(path, "one")
        assert subjects(controller) == ["one"]


def test_that_of_a_server_that_was_killed_is_replaced(path):
    first = QueueController(unix_socket=path)
    first.start()
    (remover,) = children_of(first.pid)
    os.kill(remover, signal.SIGKILL)
    until(lambda: gone(remover))
    kill(first)
    assert os.path.exists(path)
    with QueueController(unix_socket=path) as second:
        # It finds its own file gone, and another in its place.
        with pytest.raises(ServerDied):
            first.queue.get_nowait()
        first.stop()
        send_to_path(path, "one")
        assert subjects(second) == ["one"]


@pytest.mark.parametrize("kind", ["ours", "a server", "a server that is busy", "a log"])
def test_a_socket_that_somebody_listens_on_is_left_alone(path, kind):
    with contextlib.ExitStack() as stack:
        if kind == "ours":
            stack.enter_context(QueueController(unix_socket=path))
        else:
            sock_kind = socket.SOCK_DGRAM if kind == "a log" else socket.SOCK_STREAM
            other = stack.enter_context(bound(path, sock_kind))
            if kind != "a log":
                other.listen(0 if kind == "a server that is busy" else 5)
            if kind == "a server that is busy":
                with pytest.raises(BlockingIOError):
                    for _ in range(10):
                        client = stack.enter_context(socket.socket(socket.AF_UNIX))
                        client.setblocking(False)
                        client.connect(path)
        before = identity(path)
        with pytest.raises(OSError, match=f"cannot listen on {path}: .*somebody listens") as error:
            QueueController(unix_socket=path).start()
        assert error.value.errno == errno.EADDRINUSE
        assert identity(path) == before
    assert kind != "ours" or not os.path.exists(path)


@pytest.mark.parametrize("kind", ["a file", "a folder", "a link", "a link to nowhere", "a pipe"])
def test_what_is_no_socket_is_left_alone(path, kind):
    if kind == "a file":
        Path(path).write_text("precious")
    elif kind == "a folder":
        os.mkdir(path)
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        os.symlink("elsewhere", path)
        if kind == "a link":
            bound(f"{os.path.dirname(path)}/elsewhere").close()
    before = identity(path)
    with pytest.raises(FileExistsError, match="is no socket, and is left alone"):
        QueueController(unix_socket=path).start()
    assert identity(path) == before


def test_a_folder_that_is_not_there(path):
    with pytest.raises(FileNotFoundError, match=f"listen on {path}/smtp: .*make the folder first"):
        QueueController(unix_socket=f"{path}/smtp").start()


def test_a_server_that_does_not_start_leaves_no_file(path):
    class Own(Unpicklable):
        def __init__(self) -> None:
            super().__init__()
            self.unix_socket = path

    with pytest.raises(StartError, match=f"the server for {path} cannot start"):
        Controller(Own(), start_method="spawn").start()
    assert not os.path.exists(path)
    with pytest.raises(StartError):
        QueueController(unix_socket=path, start_method="spawn", start_timeout=0.001).start()
    assert not os.path.exists(path)


# What becomes of the file.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_killed_by_others(running, path, number):
    os.kill(running.pid, number)
    until(lambda: not os.path.exists(path))
    until(lambda: not running.is_running)
    with pytest.raises(ServerDied, match=f" on {path} was killed by"):
        running.queue.get_nowait()
    running.stop()


def test_killed_by_us(path):
    controller = BusyController(unix_socket=path, stop_timeout=0.4)
    controller.start()
    with UnixSMTP(path) as client:
        send_and_go(client, "import time; time.sleep(60)")
        until(lambda: os.path.exists(busy(path)))
        controller.stop()
    assert not os.path.exists(path)


def send_and_go(client: smtplib.SMTP, subject: str) -> None:
    """Send a message, and do not wait for the reply."""
    for command in "EHLO a", "MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA":
        client.docmd(command)
    client.send(f"Subject: {subject}\r\n\r\n.\r\n")


BUSY = {
    "idle": "",
    "busy": "while True: pass",
    "deaf": "import ctypes; ctypes.PyDLL(None).sleep(3600)",
}


@pytest.mark.parametrize("how", ["exit", *BUSY])
def test_the_test_process_ends(path, start_method, how):
    """It is killed, whatever the server process does at that moment; or forgets to stop it."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, path, start_method, how], stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(process.stdout.readline())
        if how != "exit":
            assert os.path.exists(path)
            client = busy_client(path, BUSY[how])
            process.kill()
        until(lambda: gone(pid))
        until(lambda: not os.path.exists(path))
        if how != "exit":
            client.close()
    finally:
        process.kill()
        process.stdout.close()
        process.wait(10)


def busy_client(path: str, subject: str) -> smtplib.SMTP:
    client = UnixSMTP(path)
    if subject:
        send_and_go(client, subject)
        until(lambda: os.path.exists(busy(path)))
    return client


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_others_have_put_in_its_place_stays(path, end):
    controller = QueueController(unix_socket=path)
    controller.start()
    pid, (remover,) = controller.pid, children_of(controller.pid)
    os.unlink(path)
    with QueueController(unix_socket=path) as second:
        if end == "kill":
            os.kill(pid, signal.SIGKILL)
            until(lambda: gone(remover) and not controller.is_running)
            with pytest.raises(ServerDied):
                controller.queue.get_nowait()
        controller.stop()
        send_to_path(path, "one")
        assert subjects(second) == ["one"]
    assert not os.path.exists(path)


def test_a_file_that_somebody_removed_is_no_matter(running, path):
    os.unlink(path)
    running.stop()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_of_the_test_process_leave_it_alone(running, path):
    pid = os.fork()
    if pid == 0:
        try:
            running.stop()
            running.__exit__(None, None, None)
            del running._link
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    send_to_path(path, "one")
    assert subjects(running) == ["one"]


def test_a_server_whose_remover_is_gone_stops_in_order(running, path):
    (remover,) = children_of(running.pid)
    os.kill(remover, signal.SIGKILL)
    until(lambda: gone(remover))
    running.stop()
    assert running.sessions() == []
    assert not os.path.exists(path)


def test_the_remover_has_nothing_of_anybody(running):
    (remover,) = children_of(running.pid)
    assert len(os.listdir(f"/proc/{remover}/fd")) == 2
    assert os.getsid(remover) == remover


#: To be imported by the server process, too.
THREADED = """
import threading
from lazr_smtptest import QueueController

threading.Thread(target=threading.Event().wait, daemon=True).start()
if __name__ == "__main__":
    with QueueController(unix_socket={path!r}, start_method={start_method!r}):
        pass
"""


def test_threads_of_a_program_are_nothing_to_warn_of(path, start_method, tmp_path):
    script = tmp_path / "threaded.py"
    script.write_text(THREADED.format(path=path, start_method=start_method))
    done = subprocess.run(
        [sys.executable, "-W", "default::DeprecationWarning:lazr_smtptest._child.remover", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_children_of_a_handler_do_not_keep_the_server(path):
    with BusyController(unix_socket=path) as controller:
        send_to_path(path, "import os, time; os.fork() or (time.sleep(60), os._exit(0))")
        until(lambda: os.path.exists(busy(path)))
        (child,) = [one for one in children_of(controller.pid) if os.getsid(one) != one]
        began = time.monotonic()
        controller.stop()
        assert time.monotonic() - began < controller._stop_timeout / 2
        assert not os.path.exists(path)
    os.kill(child, signal.SIGKILL)


# Restarts.


def test_a_restart_is_at_the_same_path(running, path):
    running.restart(ident="other")
    with UnixSMTP(path) as client:
        assert client.noop()[0] == 250
    send_to_path(path, "one")
    assert subjects(running) == ["one"]


def test_a_restart_moves_it(path):
    with QueueController("127.0.0.1") as controller:
        port = controller.port
        controller.restart(unix_socket=path)
        assert controller.unix_socket == path
        send_to_path(path, "one")
        controller.restart(unix_socket=f"{path}2", ident="other")
        assert not os.path.exists(path)
        send_to_path(f"{path}2", "two")
        controller.restart(unix_socket=None)
        assert not os.path.exists(f"{path}2")
        assert (controller.host, controller.port) == ("127.0.0.1", port)
        with smtplib.SMTP(controller.host, controller.port) as client:
            send(client, "three")
        assert subjects(controller) == ["one", "two", "three"]
        assert controller.server_options == {"unix_socket": None, "ident": "other"}


def test_a_restart_that_cannot_be_changes_nothing(running, path):
    pid = running.pid
    with pytest.raises(ValueError, match="unix_socket must"):
        running.restart(unix_socket="")
    assert running.pid == pid
    with pytest.raises(FileNotFoundError):
        running.restart(unix_socket=f"{path}/none/smtp")
    assert running.unix_socket == path
    send_to_path(path, "one")
    assert subjects(running) == ["one"]


# The rest is as it is on a port.


@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_faults_gates_and_connections(path, uvloop):
    with QueueController(unix_socket=path, max_connections=2, uvloop=uvloop) as controller:
        with UnixSMTP(path) as first, UnixSMTP(path):
            with pytest.raises(smtplib.SMTPConnectError, match="421"):
                UnixSMTP(path)
            assert controller.connections == 3
            assert controller.hang_up("421 4.4.2 Enough") == 2
            assert first.getreply() == (421, b"4.4.2 Enough")
            first.close()
        controller.reset()
        fault = controller.fault("CONNECT", "554 No", when=f"{path}-bad*")
        with UnixSMTP(path, bound=f"{path}-good"):
            pass
        with pytest.raises(smtplib.SMTPConnectError, match="554"):
            UnixSMTP(path, bound=f"{path}-bad")
        assert fault.fired == 1
        # Sessions know where a client has bound its end; few do.
        assert sorted(session.peer for session in controller.sessions()) == [
            (f"{path}-bad",),
            (f"{path}-good",),
        ]
        controller.reset()
        anybody = controller.fault("CONNECT", "421 4.3.2 Later", when="*", times=1)
        with pytest.raises(smtplib.SMTPConnectError, match="421"):
            UnixSMTP(path)
        assert anybody.fired == 1
        send_to_path(path, "one")
        message = controller.wait()
        assert message.envelope.peer == ("",)
        assert message["X-Peer"] == ""


def test_a_server_that_is_stuck_says_where(path):
    with BusyController(unix_socket=path, reset_timeout=0.2) as controller:
        with UnixSMTP(path) as client:
            send_and_go(client, "import time; time.sleep(60)")
            until(lambda: os.path.exists(busy(path)))
            with pytest.raises(ServerStuck, match=f"on {path} did not answer reset") as stuck:
                controller.reset()
            assert stuck.value.unix_socket == path
            controller._give_up()


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("uvloop", EVENT_LOOPS, ids=loop_name)
def test_tls(path, uvloop, mode):
    pytest.importorskip("trustme", reason="needs trustme: pip install trustme")
    with QueueController(unix_socket=path, tls=mode, uvloop=uvloop) as controller:
        context = controller.client_context()
        if mode == "starttls":
            client = UnixSMTP(path)
            client.starttls(context=context)
        else:
            client = TLSAtOnce(path, context)
        with client:
            send(client, "one")
        message = controller.wait()
        assert message.envelope.tls == "TLSv1.3"
        assert message.envelope.peer == ("",)


class TLSAtOnce(UnixSMTP):
    def __init__(self, path, context) -> None:
        self._context = context
        super().__init__(path)

    def _get_socket(self, host, port, timeout):
        sock = super()._get_socket(host, port, timeout)
        return self._context.wrap_socket(sock, server_hostname=host)


def test_two_controllers_with_one_path_at_once(path):
    controllers = [QueueController(unix_socket=path) for _ in range(2)]
    controllers[0].start()
    with pytest.raises(OSError, match="somebody listens there"):
        controllers[1].start()
    controllers[0].stop()
    with controllers[1]:
        send_to_path(path, "one")
        assert subjects(controllers[1]) == ["one"]


def test_a_proxy_in_between(path):
    with QueueController(unix_socket=path, proxy_protocol=True) as controller:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 25\r\n")
            assert client.recv(1000).startswith(b"220 ")
        (session,) = controller.sessions()
        assert session.peer == ("192.0.2.7", 50_000)
