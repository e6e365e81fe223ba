"""Starting, stopping, and everything that can be got wrong about them."""

from __future__ import annotations

import errno
import functools
import gc
import multiprocessing
import os
import queue
import resource
import socket
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest
from helpers import (
    START_METHODS,
    Failing,
    FailingReset,
    Hooked,
    Refusing,
    Rewriting,
    Unpicklable,
    awaited,
    connected,
    gone,
    refused,
    send,
    send_to,
    subjects,
    until,
)

from lazr_smtptest import (
    AlreadyRunning,
    Controller,
    HandlerError,
    MessageQueue,
    NotRunning,
    QueueController,
    QueueServer,
    Server,
    StartError,
    StartTimeout,
)


@pytest.fixture(params=START_METHODS)
def start_method(request) -> str:
    return request.param


# The life of a controller.


def test_life(start_method):
    controller = QueueController(start_method=start_method)
    assert not controller.is_running
    assert (controller.host, controller.port, controller.pid) == ("localhost", 0, None)
    controller.start()
    assert controller.is_running
    assert controller.port > 0
    pid = controller.pid
    assert pid not in (None, os.getpid())
    send_to(controller, "one", "two")
    controller.stop()
    assert not controller.is_running
    assert controller.pid is None
    assert gone(pid)
    assert refused(controller.port)
    assert subjects(controller) == ["one", "two"], "what was accepted stays readable"
    controller.stop()
    controller.start()
    send_to(controller, "three")
    assert subjects(controller) == ["three"]
    controller.stop()


def test_context_manager_gives_the_controller():
    with QueueController() as controller:
        assert isinstance(controller, QueueController)
        assert controller.is_running
    assert not controller.is_running


def test_repr_says_where_and_whether():
    controller = QueueController()
    assert repr(controller) == "<QueueController on localhost port 0, not running>"
    with controller:
        port, pid = controller.port, controller.pid
        assert repr(controller) == f"<QueueController on localhost port {port}, pid {pid}>"


def test_messages_of_two_runs_come_in_order():
    controller = QueueController()
    for subject in ("first run", "second run"):
        with controller:
            send_to(controller, subject)
    assert controller.queue.qsize() == 2
    assert subjects(controller) == ["first run", "second run"]


def test_reset_forgets_earlier_runs_too():
    controller = QueueController()
    with controller:
        send_to(controller, "first run")
    with controller:
        send_to(controller, "second run")
        controller.reset()
        assert controller.queue.qsize() == 0
        send_to(controller, "third")
        assert subjects(controller) == ["third"]


def test_clients_may_connect_at_once_and_wait_in_the_backlog():
    with QueueController() as controller:
        held = [socket.create_connection((controller.host, controller.port)) for _ in range(300)]
        for sock in held:
            sock.settimeout(10)
            assert sock.recv(4) == b"220 "
            sock.close()


def test_two_controllers_at_once():
    with QueueController() as one, QueueController() as two:
        assert one.port != two.port
        send_to(one, "one")
        send_to(two, "two")
        assert subjects(two) == ["two"]
        assert subjects(one) == ["one"]


def test_started_in_a_thread():
    controllers: list[QueueController] = []

    def start() -> None:
        controller = QueueController()
        controller.start()
        controllers.append(controller)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)
    (controller,) = controllers
    send_to(controller, "from a thread that has ended")
    assert len(list(controller)) == 1
    controller.stop()


def test_stop_wakes_a_reader():
    controller = QueueController()
    controller.start()
    outcomes: queue.Queue = queue.Queue()

    def read() -> None:
        try:
            outcomes.put(controller.queue.get(timeout=15))
        except queue.Empty as error:
            outcomes.put(error)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: awaited(controller))
    controller.stop()
    reader.join(2)
    assert isinstance(outcomes.get_nowait(), queue.Empty)


def test_several_readers_share_the_messages():
    with QueueController() as controller:
        taken: list[str] = []

        def read() -> None:
            while True:
                message = controller.queue.get(timeout=10)
                if message["subject"] == "end":
                    return
                taken.append(message["subject"])

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        numbers = [str(number) for number in range(200)]
        send_to(controller, *numbers, *["end"] * len(readers))
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
        assert sorted(taken) == sorted(numbers)


def test_make_server_is_kept_for_subclasses():
    class Custom(QueueController):
        def _make_server(self, host, port):
            self.server = Rewriting(host, port, self.queue, **self.server_options)

    with Custom("localhost", 0, hostname="mx.example") as controller:
        send_to(controller, "once", "none", "twice")
        messages = list(controller)
        assert subjects(messages) == ["once", "twice", "twice"]
        assert {m["X-Seen-By"] for m in messages} == {str(controller.pid)}
        assert messages[0].envelope.rcpt_tos == ("lee@example.com",)
        assert messages[0].raw == b"Subject: once\r\n\r\nHello.\r\n"


def test_a_message_queue_of_ones_own():
    inbox = MessageQueue()
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        send_to(controller, "mine")
        assert inbox.get_nowait()["subject"] == "mine"


def test_aliases_are_the_same_classes():
    import lazr.smtptest.controller
    import lazr.smtptest.server
    import lazr_smtptest

    assert lazr.smtptest.controller.Controller is lazr_smtptest.Controller
    assert lazr.smtptest.controller.QueueController is lazr_smtptest.QueueController
    assert lazr.smtptest.server.Server is lazr_smtptest.Server
    assert lazr.smtptest.server.QueueServer is lazr_smtptest.QueueServer
    assert lazr.smtptest.__version__ == lazr_smtptest.__version__


# Nothing in the test process but the controller.


def test_no_thread_in_the_test_process(start_method):
    before = threading.active_count()
    with QueueController(start_method=start_method) as controller:
        assert threading.active_count() == before
        send_to(controller, "hi")
        assert len(list(controller)) == 1
        controller.reset()
        assert threading.active_count() == before
    assert threading.active_count() == before


def test_forking_beneath_threads_warns_of_nothing():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with QueueController(start_method="fork") as controller:
                send_to(controller, "hi")
                assert len(list(controller)) == 1
    finally:
        done.set()
        thread.join()


def _footprint() -> dict[str, object]:
    gc.collect()
    # Semaphores and shared memory of ours; other tests that run now have theirs.
    with open("/proc/self/maps") as maps:
        mappings = sum("pym-" in line or "/sem." in line for line in maps)
    own = f"pym-{os.getpid()}-"
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(multiprocessing.active_children()),
        "threads": threading.active_count(),
        "shared memory": [name for name in os.listdir("/dev/shm") if name.startswith(own)],
        "mappings": mappings,
    }


@pytest.mark.timeout(60)
def test_a_hundred_starts_and_stops_leak_nothing(start_method):
    controller = QueueController(start_method=start_method)
    foreign: queue.Queue = queue.Queue()
    other = Controller(QueueServer("localhost", 0, foreign), start_method=start_method)
    for each in (controller, other):  # what is made once, such as the fork server
        with each:
            send_to(each, "warm up")
    list(controller)
    before = _footprint()
    rounds = 100 if start_method == "fork" else 30
    for number in range(rounds):
        with controller:
            if number % 10 == 0:
                send_to(controller, number)
                assert subjects(controller) == [str(number)]
        if number % 10 == 0:
            with other:
                send_to(other, number)
    assert _footprint() == before


# Bad input.


def test_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        controller = QueueController("127.0.0.1", port)
        with pytest.raises(OSError, match=f"127.0.0.1.*{port}.*in use") as caught:
            controller.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert not controller.is_running
    controller.start()
    controller.stop()


def test_two_servers_never_share_a_port():
    with QueueController() as one:
        with pytest.raises(OSError, match=str(one.port)):
            QueueController("localhost", one.port).start()


def test_host_of_another_machine():
    with pytest.raises(OSError, match=r"192\.0\.2\.1.*port 0.*this machine") as caught:
        QueueController("192.0.2.1").start()
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_host_that_does_not_resolve():
    with pytest.raises(socket.gaierror, match=r"no-such-host\.invalid"):
        QueueController("no-such-host.invalid").start()


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_port_out_of_range(port):
    with pytest.raises(ValueError, match=f"port must be from 0 to 65535, not {port}"):
        QueueController("localhost", port)


@pytest.mark.parametrize("port", ["25", 2.5, None, True])
def test_port_of_a_wrong_type(port):
    with pytest.raises(TypeError, match="port must be an int"):
        QueueController("localhost", port)


def test_second_start_is_an_error():
    with QueueController() as controller:
        with pytest.raises(AlreadyRunning, match=str(controller.port)) as caught:
            controller.start()
        assert caught.value.pid == controller.pid
        send_to(controller, "still there")
        assert len(list(controller)) == 1


def test_reset_needs_a_running_server():
    controller = QueueController()
    with pytest.raises(NotRunning, match="start"):
        controller.reset()
    with controller:
        pass
    with pytest.raises(NotRunning, match="start"):
        controller.reset()


def test_unknown_option():
    with pytest.raises(TypeError, match="colour"):
        QueueController(colour="blue")


def test_unknown_start_method():
    with pytest.raises(ValueError, match="start_method must be one of .*fork"):
        QueueController(start_method="teleport")


@pytest.mark.parametrize("name", ["start_timeout", "stop_timeout", "reset_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_timeouts_are_positive(name, value):
    with pytest.raises(ValueError, match=name):
        QueueController(**{name: value})


def test_a_controller_wants_a_server():
    with pytest.raises(TypeError, match="Server"):
        Controller("localhost")


def test_a_queue_wants_put():
    with pytest.raises(TypeError, match="put"):
        Controller(QueueServer("localhost", 0, object()))


class Labelled(Server):
    def __init__(self, *args, label, **options):
        super().__init__(*args, **options)
        self.label = label


class LabelledQueueServer(QueueServer, Labelled):
    pass


def test_options_of_a_class_in_between_are_its_own_affair():
    server = LabelledQueueServer("localhost", 0, MessageQueue(), label="a", ident="b")
    assert (server.label, server.ident) == ("a", "b")


def test_options_of_a_constructor_that_was_wrapped(monkeypatch):
    original = Server.__init__

    @functools.wraps(original)
    def wrapped(*args, **options):
        original(*args, **options)

    monkeypatch.setattr(Server, "__init__", wrapped)
    assert QueueServer("localhost", 0, MessageQueue(), ident="a").ident == "a"
    with pytest.raises(TypeError, match="a server has no option 'idnt'; it has tls, auth, "):
        QueueServer("localhost", 0, MessageQueue(), idnt="a")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_unpicklable_server_is_named(method):
    controller = Controller(Unpicklable(), start_method=method)
    with pytest.raises(StartError, match=r"lock \(lock\).*Unpicklable.*start_method='fork'"):
        controller.start()
    assert not controller.is_running


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_local_class_is_named(method):
    class Local(Server):
        pass

    with pytest.raises(StartError, match=r"Local cannot be pickled.*top level"):
        Controller(Local(), start_method=method).start()


def test_unpicklable_server_is_fine_with_fork():
    with Controller(Unpicklable(), start_method="fork") as controller:
        send_to(controller, "hi")


def test_start_timeout_leaves_nothing_behind():
    before = _footprint()
    controller = QueueController(start_method="spawn", start_timeout=0.001)
    with pytest.raises(StartTimeout, match="report that it serves within 0.001 seconds") as caught:
        controller.start()
    assert isinstance(caught.value, TimeoutError)
    assert gone(caught.value.pid)
    assert not controller.is_running
    assert refused(caught.value.port)
    del caught, controller
    assert _footprint()["processes"] == before["processes"]


def test_a_child_of_the_test_process_is_told_whose_the_controller_is():
    with QueueController() as controller:
        send_to(controller, "for the parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert not controller.is_running
                controller.queue.get_nowait()
            except NotRunning as error:
                status = 0 if "belongs to process" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert subjects(controller) == ["for the parent"]


# Code plugged into the server that fails.


def test_a_handler_that_raises(start_method):
    with Controller(Failing(), start_method=start_method) as controller:
        with connected(controller) as client:
            send(client, "good")
            code, text = refused_reply(client, "bad one")
            assert code == 451
            assert text == b"4.3.0 Error: (ValueError) I do not like bad one"
            send(client, "good again")
        with pytest.raises(
            HandlerError, match=r"Failing.handle_message raised ValueError"
        ) as caught:
            controller.reset()
        assert "in handle_message" in caught.value.traceback
        assert "I do not like bad one" in caught.value.traceback
        assert caught.value.pid == controller.pid
        controller.reset()


def refused_reply(client, subject: str) -> tuple[int, bytes]:
    client.ehlo_or_helo_if_needed()
    client.mail("kim@example.com")
    client.rcpt("lee@example.com")
    return client.data(f"Subject: {subject}\r\n\r\n".encode())


def test_the_failure_comes_with_the_very_next_call():
    class Fails(QueueServer):
        def handle_message(self, message):
            if message["subject"] == "bad":
                raise ValueError("no")
            super().handle_message(message)

    class FailsController(QueueController):
        def _make_server(self, host, port):
            self.server = Fails(host, port, self.queue)

    calls = [
        lambda c: c.queue.get_nowait(),
        lambda c: c.queue.qsize(),
        lambda c: c.queue.get(timeout=5),
        lambda c: list(c),
        lambda c: c.reset(),
        lambda c: c.stop(),
    ]
    with FailsController() as controller, connected(controller) as client:
        for call in calls:
            send(client, "good")
            assert refused_reply(client, "bad")[0] == 451
            with pytest.raises(HandlerError, match="ValueError: no"):
                call(controller)
    assert "good" in subjects(controller)


def test_leaving_the_with_block_raises_what_nobody_has_seen():
    with pytest.raises(HandlerError, match="bad one"):
        with Controller(Failing()) as controller, connected(controller) as client:
            refused_reply(client, "bad one")
    assert not controller.is_running


def test_leaving_the_with_block_does_not_cover_up_an_error():
    with pytest.raises(ZeroDivisionError):
        with Controller(Failing()) as controller, connected(controller) as client:
            refused_reply(client, "bad one")
            raise ZeroDivisionError


def test_a_reset_that_raises():
    with Controller(FailingReset()) as controller:
        with pytest.raises(HandlerError, match=r"FailingReset.reset raised LookupError"):
            controller.reset()
        assert controller.is_running


def test_a_queue_whose_put_raises(start_method):
    server = QueueServer("localhost", 0, Refusing())
    with Controller(server, start_method=start_method) as controller:
        with connected(controller) as client:
            code, text = refused_reply(client, "hi")
            assert code == 451
            assert b"(RuntimeError) this queue is closed for the season" in text
        with pytest.raises(HandlerError, match=r"Refusing.put raised RuntimeError") as caught:
            controller.reset()
        assert "in put" in caught.value.traceback


def test_a_queue_that_is_full():
    inbox: queue.Queue = queue.Queue(maxsize=1)
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        with connected(controller) as client:
            send(client, "fits")
            code, text = refused_reply(client, "does not")
            assert (code, text) == (452, b"4.3.1 Error: (Full)")
        with pytest.raises(HandlerError, match="Full"):
            controller.reset()
        assert inbox.empty(), "the reset was made nevertheless"


def test_reset_empties_a_standard_queue():
    inbox: queue.Queue = queue.Queue()
    with Controller(QueueServer("localhost", 0, inbox)) as controller:
        send_to(controller, "one", "two")
        assert inbox.qsize() == 2
        controller.reset()
        assert inbox.empty()
        send_to(controller, "three")
        assert inbox.get_nowait()["subject"] == "three"


def test_anything_with_put_is_a_queue():
    class Pile:
        def __init__(self):
            self.put = self.messages.append

        messages: list = []

    pile = Pile()
    with Controller(QueueServer("localhost", 0, pile)) as controller:
        send_to(controller, "one")
        assert subjects(pile.messages) == ["one"]
        controller.reset()


def test_something_unpicklable_passed_on_is_the_handlers_fault():
    class Bad(QueueServer):
        def handle_message(self, message):
            message.lock = threading.Lock()
            super().handle_message(message)

    with pytest.raises(HandlerError, match=r"Bad.handle_message raised TypeError.*pickle"):
        with Controller(Bad("localhost", 0, MessageQueue())) as controller:
            with connected(controller) as client:
                assert refused_reply(client, "hi")[0] == 451


def test_hooks_of_aiosmtpd_work():
    class HookedController(QueueController):
        def _make_server(self, host, port):
            self.server = Hooked(host, port, self.queue)

    with HookedController() as controller:
        with connected(controller) as client:
            client.ehlo()
            client.mail("kim@example.com")
            assert client.rcpt("nobody@example.com") == (550, b"5.1.1 No such user")
            code, text = client.rcpt("broken@example.com")
            assert (code, text) == (451, b"4.3.0 Error: (KeyError) 'broken'")
            assert client.rcpt("lee@example.com")[0] == 250
            assert client.data(b"Subject: hooked\r\n\r\n")[0] == 250
        with pytest.raises(HandlerError, match=r"Hooked.handle_RCPT raised KeyError"):
            controller.queue.get_nowait()
        assert controller.queue.get_nowait().envelope.rcpt_tos == ("lee@example.com",)


def test_rset_only_ends_the_transaction():
    with QueueController() as controller, connected(controller) as client:
        send(client, "kept")
        client.rset()
        assert subjects(controller) == ["kept"]


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "theirs"])
def test_rset_resets_as_in_2_x_if_asked_to(foreign):
    inbox = queue.Queue() if foreign else MessageQueue()
    server = QueueServer("localhost", 0, inbox, reset_on_rset=True)
    with Controller(server) as controller, connected(controller) as client:
        send(client, "gone")
        client.rset()
        assert inbox.empty()
        send(client, "kept")
        assert inbox.get_nowait()["subject"] == "kept"


# The interpreter's end.


@pytest.mark.parametrize("ending", ["", "controller.stop()", "del controller", "os._exit(0)"])
def test_exit_without_stop_is_clean(ending, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, sys
            from lazr_smtptest import QueueController
            if __name__ == "__main__":
                controller = QueueController()
                controller.start()
                print(controller.pid, controller.port, flush=True)
                {ending}
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pid, port = map(int, done.stdout.split())
    until(lambda: gone(pid), 2.0)
    assert refused(port)


def test_resource_limits_are_reported_as_they_are():
    """Out of descriptors: the OSError says so, and nothing is left open."""
    before = _footprint()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    controller = QueueController()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    try:
        with pytest.raises(OSError) as caught:
            controller.start()
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    del caught
    assert _footprint() == before
    with controller:
        send_to(controller, "fine now")


def test_rset_with_more_than_one_read_in_the_pipe():
    """What is to be forgotten is not handed out, however much lies before the mark."""
    with QueueController(reset_on_rset=True) as controller, connected(controller) as client:
        send(client, "small")
        send(client, "large", ("x" * 70 + "\r\n") * 7000)
        assert controller.queue.qsize() == 2
        client.rset()
        assert controller.queue.qsize() == 0
        send(client, "small")
        send(client, "large", ("x" * 70 + "\r\n") * 7000)
        client.rset()
        with pytest.raises(queue.Empty):
            controller.queue.get_nowait()


def test_each_failure_is_told_by_qsize_too():
    class Fails(QueueServer):
        def handle_message(self, message):
            raise ValueError(message["subject"])

    inbox = MessageQueue()
    with Controller(Fails("localhost", 0, inbox)) as controller, connected(controller) as client:
        for subject in ("one", "two"):
            assert refused_reply(client, subject)[0] == 451
        for subject in ("one", "two"):
            with pytest.raises(HandlerError, match=f"ValueError: {subject}"):
                inbox.qsize()
        assert inbox.qsize() == 0
