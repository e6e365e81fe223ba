"""The bad day is as dull as the good one.  `soak.py` has the long version."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers import START_METHODS, connected, gone, send, send_to, state, subjects, until
from trials import (
    BUSY_THREADS,
    MisbehavingController,
    blocked_reader_learns_of_death,
    crowd_then_stop,
    killed_test_process,
    killed_under_load,
    much_unread_then_stop,
    send_and_hang,
)

from lazr_smtptest import (
    Controller,
    HandlerError,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
    ServerDied,
    ServerStuck,
)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(20)


# The server process dies.


@pytest.mark.timeout(60)
def test_killed_under_load(start_method, rng):
    for _ in range(8):
        killed_under_load(start_method, rng)


def test_killed_with_more_accepted_than_fits_into_the_pipe(rng):
    lost = [killed_under_load("fork", rng, size=400_000)["lost"] for _ in range(5)]
    assert any(lost), "the load was to be more than the pipe holds"


def test_a_blocked_reader_learns_of_death(start_method, rng):
    delays = [blocked_reader_learns_of_death(start_method, rng)["milliseconds"] for _ in range(3)]
    assert min(delays) < 100


def test_death_while_a_grandchild_holds_the_pipe():
    class Forking(QueueController):
        pass

    controller = QueueController()
    with controller:
        send_to(controller, "kept")
        # A process that the handler forked, and that outlives it, would hold
        # every descriptor that the handler's process has; so do we, here.
        holder = os.open(f"/proc/{controller.pid}/fd/{_records_fd(controller)}", os.O_WRONLY)
        try:
            os.kill(controller.pid, signal.SIGKILL)
            assert controller.queue.get(timeout=5)["subject"] == "kept"
            with pytest.raises(ServerDied):
                controller.queue.get(timeout=5)
        finally:
            os.close(holder)


def _records_fd(controller) -> int:
    """Find the writing end of the pipe that our records' end reads."""
    ours = os.stat(controller._link._ends.records.fileno()).st_ino
    folder = f"/proc/{controller.pid}/fd"
    for fd in os.listdir(folder):
        if os.readlink(f"{folder}/{fd}") == f"pipe:[{ours}]":
            return int(fd)
    raise AssertionError("the server process has no such pipe")


@pytest.mark.parametrize(
    ("how", "exitcode"), [("os._exit", 9), ("exit", 7), ("crash", -signal.SIGSEGV)]
)
def test_a_handler_ends_the_process(start_method, how, exitcode):
    controller = MisbehavingController(start_method=start_method)
    with controller:
        send_to(controller, *["ok"] * 50)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send_to(controller, how)
        with pytest.raises(ServerDied) as caught:
            for _ in range(51):
                assert controller.queue.get(timeout=10)["subject"] == "ok"
        assert (caught.value.exitcode, caught.value.lost) == (exitcode, 0)
        assert not controller.is_running
        if how == "crash":
            assert "handle_message" in caught.value.stack
            assert "Segmentation fault" in str(caught.value)
    controller.start()
    send_to(controller, "ok")
    assert subjects(controller) == ["ok"]
    controller.stop()


def test_an_orderly_end_loses_nothing_that_did_not_fit_into_the_pipe():
    with MisbehavingController() as controller:
        with connected(controller) as client:
            for _ in range(40):
                send(client, "ok", ("x" * 70 + "\r\n") * 1500)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                send(client, "exit")
        with pytest.raises(ServerDied) as caught:
            for _ in range(41):
                assert controller.queue.get(timeout=10)["subject"] == "ok"
        assert (caught.value.exitcode, caught.value.lost) == (7, 0)


@pytest.mark.parametrize("call", ["reset", "qsize", "iterate", "get"])
def test_every_call_says_that_the_server_died(call):
    calls = {
        "reset": lambda c: c.reset(),
        "qsize": lambda c: c.queue.get(timeout=5) and c.queue.qsize(),
        "iterate": list,
        "get": lambda c: c.queue.get(timeout=5),
    }
    controller = QueueController()
    with controller:
        pid, port = controller.pid, controller.port
        os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
        with pytest.raises(ServerDied) as caught:
            calls[call](controller)
    error = caught.value
    assert (error.host, error.port, error.pid, error.exitcode, error.lost) == (
        "localhost", port, pid, -9, 0,
    )  # fmt: skip
    assert "SIGKILL" in str(error)
    assert "call start() for a new one" in str(error)


def test_start_after_death_needs_no_stop():
    controller = QueueController()
    controller.start()
    os.kill(controller.pid, signal.SIGKILL)
    until(lambda: not controller.is_running)
    controller.start()
    send_to(controller, "new")
    assert subjects(controller) == ["new"]
    controller.stop()


class Dying(Server):
    def handle_message(self, message):
        os._exit(3)


def test_a_death_that_no_call_has_told_is_told_by_stop():
    with pytest.raises(ServerDied, match="exit code 3"):
        with Controller(Dying()) as controller:
            with pytest.raises(smtplib.SMTPServerDisconnected):
                send_to(controller, "hi")
    controller.stop()


def test_a_death_before_stop_is_told_by_the_queue_after_it():
    controller = QueueController()
    controller.start()
    send_to(controller, "kept")
    os.kill(controller.pid, signal.SIGKILL)
    until(lambda: not controller.is_running)
    controller.stop()
    assert controller.queue.get_nowait()["subject"] == "kept"
    with pytest.raises(ServerDied, match="SIGKILL"):
        controller.queue.get_nowait()


# The server process is stuck.


@pytest.mark.parametrize("how", ["sleep", "loop"])
def test_a_handler_that_does_not_return(how):
    with MisbehavingController(reset_timeout=0.5) as controller:
        stuck = send_and_hang(controller, how)
        try:
            # Other sessions go on, as far as that needs no handler.
            with connected(controller) as client:
                assert client.noop()[0] == 250
                assert client.mail("a@example.com")[0] == 503
            started = time.monotonic()
            with pytest.raises(ServerStuck, match="reset.*within 0.5 seconds") as caught:
                controller.reset()
            assert time.monotonic() - started < 2.5
            assert "handle_message" in caught.value.stack
            assert 'helpers.py"' in caught.value.stack
            started = time.monotonic()
            controller.stop()
            assert time.monotonic() - started < 5
        finally:
            stuck.close()


def test_a_handler_that_keeps_the_interpreter_lock(caplog):
    with MisbehavingController(reset_timeout=0.5, stop_timeout=2) as controller:
        stuck = send_and_hang(controller, "hold the interpreter lock")
        try:
            pid = controller.pid
            with pytest.raises(ServerStuck) as caught:
                controller.reset()
            assert "handle_message" in caught.value.stack
            assert pid == caught.value.pid
            started = time.monotonic()
            controller.stop()
            assert time.monotonic() - started < 2 + 1
            assert gone(pid)
        finally:
            stuck.close()
    (record,) = [r for r in caplog.records if r.name == "lazr_smtptest"]
    assert "did not stop when asked" in record.getMessage()
    assert "handle_message" in record.getMessage()


def test_a_stopped_process_cannot_stop_the_test():
    """SIGSTOP, half way through a record."""
    controller = QueueController(reset_timeout=0.3, stop_timeout=2, data_size_limit=None)
    with controller:
        with connected(controller) as client:
            send(client, "large", "x" * 70 + ("\r\n" + "y" * 70) * 100_000)
        os.kill(controller.pid, signal.SIGSTOP)
        until(lambda: state(controller.pid) == "T")
        with pytest.raises(ServerStuck, match="does not show its stack"):
            controller.reset()
        started = time.monotonic()
        controller.stop()
        assert time.monotonic() - started < 3
    with pytest.raises(ServerDied) as caught:
        controller.queue.get_nowait()
    assert caught.value.lost == 1
    assert "was ended by SIGKILL" in str(caught.value)


def test_a_session_that_waits_for_a_handler_does_not_stop_another():
    """The one handler thread is busy; a plain queue server has none to wait for."""
    with QueueController() as controller:
        silent = [socket.create_connection((controller.host, controller.port)) for _ in range(50)]
        send_to(controller, "past them")
        assert subjects(controller) == ["past them"]
        for sock in silent:
            sock.close()


# The test process goes.


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with other children"])
@pytest.mark.parametrize("count", [1, 5])
def test_the_test_process_is_killed(start_method, count, others):
    assert killed_test_process(start_method, count, others)["milliseconds"] < 500


def test_the_test_process_is_killed_while_the_server_is_stuck_in_c(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys, time
            from trials import MisbehavingController, send_and_hang
            controller = MisbehavingController()
            controller.start()
            sock = send_and_hang(controller, "hold the interpreter lock")
            print(controller.pid, flush=True)
            time.sleep(60)
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        pid = int(process.stdout.readline())
        process.kill()
        until(lambda: gone(pid), 1.0)


def test_ctrl_c_is_for_the_test_process_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import signal, sys, time
            from lazr_smtptest import QueueController
            from helpers import send_to
            if __name__ == "__main__":
                # A shell that runs the tests in the background has it ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                controller = QueueController(start_method=sys.argv[1])
                controller.start()
                try:
                    print(controller.pid, flush=True)
                    time.sleep(60)
                except KeyboardInterrupt:
                    send_to(controller, "still usable")
                    print(controller.queue.get_nowait()["subject"], flush=True)
        """)
    )
    for method in START_METHODS:
        with subprocess.Popen(
            [sys.executable, str(script), method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            pid = int(process.stdout.readline())
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "still usable\n", "")
        until(lambda pid=pid: gone(pid), 1.0)


# Much of everything.


def test_much_unread_then_stop():
    assert much_unread_then_stop(100)["milliseconds"] < 5000


def test_a_crowd_of_connections_then_stop(rng):
    assert crowd_then_stop(1000, rng)["milliseconds"] < 2000


@pytest.mark.timeout(60)
def test_forks_beneath_busy_threads(tmp_path):
    """In a process of its own: what it does to its threads' locks is its own affair."""
    done = subprocess.run(
        [sys.executable, "-W", "error", BUSY_THREADS, "60"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "60 starts\n"


def test_started_inside_a_running_event_loop():
    async def use() -> list[str]:
        with QueueController() as controller:
            await asyncio.to_thread(send_to, controller, "one")
            return subjects(controller)

    assert asyncio.run(use()) == ["one"]


@pytest.mark.timeout(60)  # it fills a gigabyte
def test_memory_beside_a_large_test_process():
    script = textwrap.dedent("""
        import os
        from helpers import send_to
        from lazr_smtptest import QueueController
        ballast = [[bytes(400)] for _ in range(2_000_000)]
        with open("/proc/self/status") as status:
            own = next(int(l.split()[1]) for l in status if l.startswith("VmRSS"))
        with QueueController() as controller:
            send_to(controller, *range(200))
            with open(f"/proc/{controller.pid}/smaps_rollup") as rollup:
                private = sum(int(l.split()[1]) for l in rollup if l.startswith("Private_"))
        print(own // 1024, private // 1024)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    own, private = map(int, done.stdout.split())
    assert own > 900
    assert private < 40


# Garbage and limits.


@pytest.fixture(scope="module")
def shared():
    with QueueController(recipient_limit=3, data_size_limit=100_000) as controller:
        yield controller


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _talk(controller, data: bytes) -> bytes:
    """Send everything, then read until the server hangs up."""
    received = b""
    with socket.create_connection((controller.host, controller.port), timeout=15) as sock:
        sender = threading.Thread(target=_send_quietly, args=(sock, data))
        sender.start()
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                received = (received + piece)[-100_000:]
        sender.join(15)
    return received


def _send_quietly(sock, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


GARBAGE = {
    "random octets": random.Random(1).randbytes(300_000),
    "half a line": b"MAIL FR",
    "a long line": b"x" * 10_000_000 + b"\r\nQUIT\r\n",
    "a long line without end": b"x" * 10_000_000,
    "many commands": b"EHLO a\r\n" + b"NOOP\r\n" * 100_000 + b"QUIT\r\n",
    "many transactions": b"EHLO a\r\n" + b"MAIL FROM:<a@b>\r\nRSET\r\n" * 5_000 + b"QUIT\r\n",
    "pipelined nonsense": b"DATA\r\nRCPT TO:<>\r\nMAIL\r\nAUTH\r\nSTARTTLS\r\n\x00\xff\r\nEHLO\r\n"
    * 50,
    "bad address octets": b"EHLO a\r\nVRFY \xff\xfe\r\nMAIL FROM:<\xff@\xfe>\r\nQUIT\r\n",
    "endless DATA": b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n" + b"x" * 20_000_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_at_worst_the_session(shared, garbage):
    shared.reset()
    with connected(shared) as client:
        client.ehlo()
    before = _resident(shared.pid)
    reply = _talk(shared, garbage)
    assert reply.startswith(b"220 ") or len(reply) == 100_000
    assert _resident(shared.pid) - before < 8_000, "kilobytes"
    send_to(shared, "alive")
    assert subjects(shared) == ["alive"]


def test_too_many_recipients(shared):
    shared.reset()
    with connected(shared) as client:
        client.ehlo()
        client.mail("a@example.com")
        codes = [client.rcpt(f"{n}@example.com")[0] for n in range(5)]
        assert codes == [250, 250, 250, 452, 452]
        assert client.data(b"Subject: to three\r\n\r\n")[0] == 250
        (message,) = shared
        assert message.envelope.rcpt_tos == tuple(f"{n}@example.com" for n in range(3))
        send(client, "goes on")


def test_a_full_disk_is_452_and_a_handler_error():
    class Filing(Server):
        def handle_message(self, message):
            with open("/dev/full", "wb", buffering=0) as disk:
                disk.write(message.raw)

    with Controller(Filing()) as controller:
        with connected(controller) as client:
            client.ehlo()
            client.mail("a@example.com")
            client.rcpt("b@example.com")
            code, text = client.data(b"Subject: hi\r\n\r\n")
            assert (code, text[:5]) == (452, b"4.3.1")
        with pytest.raises(HandlerError, match="No space left") as caught:
            controller.reset()
        assert os.strerror(errno.ENOSPC) in caught.value.traceback


# Log records come home.


def test_log_records_reach_the_test_process(caplog, start_method):
    caplog.set_level(logging.INFO)
    with MisbehavingController(start_method=start_method) as controller:
        pid = controller.pid
        send_to(controller, "ok")
        assert len(list(controller)) == 1
        heard = [r for r in caplog.records if r.name == "mail.log" and r.process == pid]
        assert any("sender: kim@example.com" in r.getMessage() for r in heard)


class Logging(Server):
    def handle_message(self, message):
        log = logging.getLogger("app")
        log.warning("got %s", message["subject"], extra={"lock": threading.Lock()})
        try:
            raise ValueError("inside")
        except ValueError:
            log.exception("it happened")


def test_log_records_of_a_handler(caplog, start_method):
    with Controller(Logging(), start_method=start_method) as controller:
        send_to(controller, "hello")
        assert not caplog.records, "there is no thread"
        controller.reset()
        warning, error = [r for r in caplog.records if r.name == "app"]
        assert warning.getMessage() == "got hello"
        assert warning.process == controller.pid
        assert "ValueError: inside" in caplog.text
        assert error.levelname == "ERROR"


def test_a_log_handler_that_raises_costs_no_message():
    class Strict(logging.Handler):
        def emit(self, record):
            raise AssertionError("no warnings allowed")

    class Warns(QueueServer):
        def handle_message(self, message):
            logging.getLogger("app").warning("hm")
            super().handle_message(message)

    inbox = MessageQueue()
    with Controller(Warns("localhost", 0, inbox)) as controller:
        send_to(controller, "kept")
        strict = Strict()
        logging.getLogger("app").addHandler(strict)
        try:
            with pytest.raises(AssertionError, match="no warnings allowed"):
                inbox.get_nowait()
        finally:
            logging.getLogger("app").removeHandler(strict)
        assert inbox.get_nowait()["subject"] == "kept"


def test_what_a_handler_prints_is_seen(capfd):
    class Printing(Server):
        def handle_message(self, message):
            print("printed:", message["subject"])
            print("and again", file=sys.stderr)

    print("not twice", end="")  # in the buffer when the process forks
    with Controller(Printing()) as controller:
        send_to(controller, "hello")
    out, err = capfd.readouterr()
    assert out == "not twiceprinted: hello\n"
    assert err == "and again\n"
