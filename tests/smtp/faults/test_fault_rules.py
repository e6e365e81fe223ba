"""Faults, one beside another: which one strikes, how often, and until when."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import threading
import time

import pytest
from helpers import STAGES, connected, send, send_to, subjects, until
from raw_client import CONTENT, MESSAGE, greeted

from lazr_smtptest import NotRunning, QueueController, QueueServer, ServerDied

# `times`, order, and the end of a fault.


def test_times_over_several_connections(server):
    fault = server.fault("RCPT", "451 4.7.1 Later", times=2)
    for number in range(4):
        with connected(server) as client:
            if number < 2:
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    send(client, number)
            else:
                send(client, number)
        assert fault.fired == min(number + 1, 2)
    assert subjects(server) == ["2", "3"]


def test_times_within_one_transaction(server):
    server.fault("RCPT", "550 5.1.1 No", times=2)
    with connected(server) as client:
        recipients = [f"{name}@example.com" for name in ("ann", "bob", "cat", "dan")]
        refused = client.sendmail("kim@example.com", recipients, b"Subject: some\r\n\r\n")
    assert refused == dict.fromkeys(recipients[:2], (550, b"5.1.1 No"))
    assert server.queue.get_nowait().envelope.rcpt_tos == tuple(recipients[2:])


def test_the_first_made_strikes_first_and_then_the_next(server):
    first = server.fault("NOOP", "450 4.0.0 first", times=2)
    second = server.fault("NOOP", "451 4.0.0 second", times=1)
    third = server.fault("NOOP", "452 4.0.0 third", when="no such name")
    fourth = server.fault("NOOP", "453 4.0.0 fourth", times=1)
    with greeted(server) as wire:
        assert wire.codes(*[b"NOOP"] * 6) == [450, 450, 451, 453, 250, 250]
    assert [f.fired for f in (first, second, third, fourth)] == [2, 1, 0, 1]


def test_one_that_is_not_for_this_lets_the_next_strike(server):
    server.fault("RCPT", "550 5.1.1 ann", when="ann@*")
    server.fault("RCPT", "551 5.1.1 all")
    with greeted(server) as wire:
        wire.say(MESSAGE[0])
        assert wire.codes(b"RCPT TO:<bob@x.y>", b"RCPT TO:<ann@x.y>") == [551, 550]


def test_rules_on_two_stages(server):
    mail = server.fault("MAIL", "451 4.0.0 Later", times=1)
    data = server.fault("DATA", "452 4.0.0 Full", times=1)
    with greeted(server) as wire:
        # What comes out of order is struck as well.
        assert wire.codes(*MESSAGE) == [451, 503, 452]
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]
    assert (mail.fired, data.fired) == (1, 1)


def test_fired_when_spent_removed_and_reset(server):
    spent = server.fault("NOOP", "450 4.0.0 No", times=1)
    removed = server.fault("RSET", "450 4.0.0 No")
    cleared = server.fault("HELO", "450 4.0.0 No")
    with greeted(server) as wire:
        assert wire.codes(b"NOOP", b"NOOP", b"RSET", b"HELO x") == [450, 250, 450, 450]
        removed.remove()
        removed.remove()  # again: nothing
        spent.remove()
        assert wire.codes(b"RSET") == [250]
        server.reset()
        assert wire.codes(b"HELO x") == [250]
    assert (spent.fired, removed.fired, cleared.fired) == (1, 1, 1)
    cleared.remove()
    assert cleared.fired == 1


def test_a_with_statement_removes_it(server):
    with greeted(server) as wire:
        with server.fault("NOOP", "450 4.0.0 No") as fault:
            assert wire.codes(b"NOOP") == [450]
        assert wire.codes(b"NOOP") == [250]
        assert fault.fired == 1
        with pytest.raises(LookupError):
            with server.fault("NOOP", "450 4.0.0 No"):
                raise LookupError
        assert wire.codes(b"NOOP") == [250]


def test_removing_one_leaves_the_others(server):
    with greeted(server) as wire:
        one = server.fault("NOOP", "450 4.0.0 one")
        server.fault("NOOP", "451 4.0.0 two")
        assert wire.codes(b"NOOP") == [450]
        one.remove()
        assert wire.codes(b"NOOP") == [451]


# The server's life.


def test_reset_clears(server):
    faults = [server.fault(stage, "451 4.7.1 Later") for stage in STAGES]
    server.reset()
    send_to(server, "hello")
    assert subjects(server) == ["hello"]
    assert [fault.fired for fault in faults] == [0] * len(STAGES)


def test_none_is_left_after_a_restart():
    controller = QueueController("127.0.0.1")
    with pytest.raises(NotRunning, match=r"fault\(\)"):
        controller.fault("MAIL", "451 4.7.1 Later")
    with controller:
        old = controller.fault("MAIL", "451 4.7.1 Later")
        with connected(controller) as client, pytest.raises(smtplib.SMTPSenderRefused):
            send(client, "hello")
    with pytest.raises(NotRunning, match=r"fault\(\)"):
        controller.fault("MAIL", "451 4.7.1 Later")
    for use in (old.remove, lambda: old.fired):
        with pytest.raises(NotRunning):
            use()
    with controller:
        new = controller.fault("NOOP", "451 4.7.1 Later")
        for use in (old.remove, lambda: old.fired):
            with pytest.raises(NotRunning):
                use()
        assert new.fired == 0
        send_to(controller, "hello")
        assert subjects(controller) == ["hello"]


def test_a_server_that_is_killed():
    with contextlib.suppress(ServerDied):
        with QueueController("127.0.0.1") as controller:
            fault = controller.fault("MAIL", "451 4.7.1 Later")
            os.kill(controller.pid, signal.SIGKILL)
            for use in (
                fault.remove,
                lambda: fault.fired,
                lambda: controller.fault("MAIL", "451 4.7.1 Later"),
            ):
                with pytest.raises(ServerDied) as caught:
                    use()
                assert caught.value.exitcode == -signal.SIGKILL


def test_stop_does_not_wait_for_a_delay():
    controller = QueueController("127.0.0.1")
    controller.start()
    with greeted(controller) as wire:
        fault = controller.fault("NOOP", delay=60)
        wire.sock.sendall(b"NOOP\r\n")
        until(lambda: fault.fired)
        began = time.monotonic()
        controller.stop()
        assert time.monotonic() - began < 2
        assert wire.reply() == b""


def test_many_threads_order_at_once(server):
    faults = []

    def order() -> None:
        faults.extend(server.fault("NOOP", "450 4.0.0 No", times=1) for _ in range(20))

    threads = [threading.Thread(target=order) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with greeted(server) as wire:
        assert wire.codes(*[b"NOOP"] * 101) == [450] * 100 + [250]
    assert [fault.fired for fault in faults] == [1] * 100


class Slow(QueueServer):
    """Takes messages on a thread, in a way of its own."""

    def handle_message(self, message) -> None:
        message["X-Slow"] = "yes"
        super().handle_message(message)


class SlowController(QueueController):
    def _make_server(self, host, port):
        self.server = Slow(host, port, self.queue)


@pytest.mark.parametrize(("drop", "count"), [("before", 0), ("instead", 1), ("after", 1)])
def test_with_a_handler_of_ones_own(drop, count):
    with SlowController("127.0.0.1") as controller:
        controller.fault("EOM", drop=drop, times=1)
        with greeted(controller) as wire:
            assert wire.codes(*MESSAGE) == [250, 250, 354]
            assert wire.codes(CONTENT)[0] == (250 if drop == "after" else 0)
        assert [m["X-Slow"] for m in controller] == ["yes"] * count
        send_to(controller, "next")
        assert subjects(controller) == ["next"]


# What is no order.


@pytest.mark.parametrize(
    ("error", "text", "order"),
    [
        (ValueError, "stage must be one of", ("", "450 No")),
        (ValueError, "did you mean RCPT", ("rctp", "450 No")),
        (ValueError, "QUIT, not 'TURN'$", ("TURN", "450 No")),
        (ValueError, "stage must be one of", ("MAIL ", "450 No")),
        (ValueError, "stage must be one of", (b"MAIL", "450 No")),
        (ValueError, "stage must be one of", (None, "450 No")),
        (ValueError, "reply code", ("MAIL", "")),
        (ValueError, "reply code", ("MAIL", "hello")),
        (ValueError, "reply code", ("MAIL", "99 x")),
        (ValueError, "reply code", ("MAIL", "199 x")),
        (ValueError, "reply code", ("MAIL", "600 x")),
        (ValueError, "reply code", ("MAIL", "560 x")),
        (ValueError, "reply code", ("MAIL", "25 OK")),
        (ValueError, "reply code", ("MAIL", "250OK")),
        (ValueError, "reply code", ("MAIL", "2500 OK")),
        (ValueError, "reply code", ("MAIL", " 250 OK")),
        (ValueError, "reply code", ("MAIL", "\n250 OK")),
        (ValueError, "reply code", ("MAIL", "٢٥٠ OK")),
        (ValueError, "printable text", ("MAIL", "250 a\rb")),
        (ValueError, "printable text", ("MAIL", "250 a\0b")),
        (ValueError, "printable text", ("MAIL", "250 a\x7fb")),
        (ValueError, "printable text", ("MAIL", "250 a\nb\x1b[0m")),
        (ValueError, "printable text", ("MAIL", "250 \udc80")),
        (ValueError, "one code in all its lines", ("MAIL", "550 No.\n250 Yes.")),
        (TypeError, "reply must be a str", ("MAIL", b"250 OK")),
        (TypeError, "reply must be a str", ("MAIL", 250)),
        (ValueError, "needs a reply", ("MAIL",)),
        (ValueError, "needs a reply", ("MAIL", None, {"times": 3, "when": "x"})),
        (TypeError, "when must be", ("MAIL", "450 No", {"when": b"x"})),
        (TypeError, "when must be", ("MAIL", "450 No", {"when": ["x"]})),
        *(
            (ValueError, "times must be", ("MAIL", "450 No", {"times": times}))
            for times in (0, -1, True, False, 1.5, "2")
        ),
        *(
            (ValueError, "delay must be", ("MAIL", "450 No", {"delay": delay}))
            for delay in (-1, -0.001, float("nan"), float("inf"), float("-inf"))
        ),
        (TypeError, "must be a number of seconds, not", ("MAIL", "450 No", {"delay": "1"})),
        (TypeError, "must be a number of seconds, not", ("MAIL", "450 No", {"delay": None})),
        (ValueError, "one or the other", ("MAIL", "450 No", {"drop": "before"})),
        (ValueError, "one or the other", ("MAIL", "450 No", {"drop": "instead"})),
        *(
            (ValueError, "drop must be", ("MAIL", "450 No", {"drop": drop}))
            for drop in ("", "later", None, "BEFORE")
        ),
        (ValueError, "in place of a reply", ("MAIL", "450 No", {"raw": b"450 No"})),
        *(
            (TypeError, "raw must be bytes, such as", ("MAIL", None, {"raw": raw}))
            for raw in ("450 No", bytearray(b"450"), 450, True)
        ),
        (ValueError, "drop='instead' means", ("MAIL", None, {"raw": b"", "drop": "instead"})),
        (ValueError, "trickle must be", ("MAIL", "450 No", {"trickle": -1})),
        (TypeError, "trickle must be a number", ("MAIL", "450 No", {"trickle": "1"})),
        *(
            (ValueError, "trickle needs something to say", ("DATA", None, {"trickle": 1, **more}))
            for more in (
                {"drop": "before"},
                {"drop": "instead"},
                {"drop": True},
                {"drop": "content"},
                {"after": 5},
                {"after": 5, "delay": 1},
            )
        ),
        *(
            (ValueError, "after must be a whole number", ("DATA", "450 No", {"after": after}))
            for after in (0, -1, 1.5, "5", True)
        ),
        (ValueError, "needs a reply", ("DATA", None, {"after": 5})),
        *(
            (ValueError, "after is for DATA, not for", (stage, "450 No", {"after": 5}))
            for stage in STAGES
            if stage != "DATA"
        ),
        (ValueError, "^drop='content' is for DATA", ("EOM", "450 No", {"drop": "content"})),
        *(
            (
                ValueError,
                "not with drop='(before|instead|after)'",
                ("DATA", None, {"after": 5, "drop": drop}),
            )
            for drop in ("before", "instead", "after")
        ),
    ],
)
def test_what_is_no_order(server, error, text, order):
    stage, *reply = order
    options = reply.pop() if isinstance(reply[-1:] and reply[-1], dict) else {}
    with pytest.raises(error, match=text):
        server.fault(stage, *reply, **options)
    # Nothing has come of it: mail is answered on the spot, as before.
    with greeted(server) as wire:
        assert wire.codes(*MESSAGE, CONTENT) == [250, 250, 354, 250]


def test_a_refused_order_leaves_the_others_in_force(server):
    server.fault("MAIL", "450 4.0.0 One", times=2)
    with pytest.raises(ValueError):
        server.fault("MAIL", "450OK")
    with pytest.raises(ValueError):
        server.fault("MAIL", "451 4.0.0 Two", times=0)
    with greeted(server) as wire:
        assert wire.codes(*[MESSAGE[0]] * 3) == [450, 450, 250]


@pytest.mark.parametrize("stage", ["rcpt", "Rcpt", "RCPT"])
def test_the_case_of_a_stage_is_of_no_importance(server, stage):
    fault = server.fault(stage, "550 5.1.1 No", times=1)
    with server.gate(stage) as gate, greeted(server) as wire:
        wire.say(MESSAGE[0])
        wire.sock.sendall(MESSAGE[1] + b"\r\n")
        assert gate.wait_parked() == 1
        gate.release()
        assert wire.reply()[:3] == b"550"
    assert fault.fired == 1


@pytest.mark.parametrize(
    ("text", "arguments", "options"),
    [
        ("'RCPT', '451 4.7.1 Later'", ("rcpt", "451 4.7.1 Later"), {}),
        (r"'RCPT', '451-a\r\n451 b', times=2", ("RCPT", "451 a\nb"), {"times": 2}),
        ("'EOM', drop='before'", ("EOM",), {"drop": True}),
        (r"'DATA', raw=b'2\n', drop='after'", ("DATA",), {"raw": b"2\n", "drop": "after"}),
        ("'NOOP', raw=b''", ("NOOP",), {"raw": b""}),
        ("'MAIL', when='*@x', delay=1.0", ("MAIL",), {"when": "*@X", "delay": 1}),
        ("'EHLO', trickle=0.5", ("EHLO",), {"trickle": 0.5}),
        ("'DATA', drop='content', after=9", ("DATA",), {"drop": True, "after": 9}),
    ],
)
def test_how_a_fault_is_shown(server, text, arguments, options):
    fault = server.fault(*arguments, **options)
    assert repr(fault) == f"<Fault {text}>"
    # It says what to order to have the same.
    same = eval(f"server.fault({text})", {"server": server})
    assert repr(same) == repr(fault)
