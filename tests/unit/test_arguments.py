"""What controllers, servers and queues may be given, and what not."""

from __future__ import annotations

import functools
import math

import pytest

from lazr_smtptest import Controller, MessageQueue, QueueController, QueueServer, Server


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_port_out_of_range(port):
    with pytest.raises(ValueError, match=f"port must be from 0 to 65535, not {port}"):
        QueueController("localhost", port)


@pytest.mark.parametrize("port", ["25", 2.5, None, True])
def test_port_of_a_wrong_type(port):
    with pytest.raises(TypeError, match="port must be an int"):
        QueueController("localhost", port)


def test_unknown_option():
    with pytest.raises(TypeError, match="colour"):
        QueueController(colour="blue")


def test_unknown_start_method():
    with pytest.raises(ValueError, match="start_method must be one of .*fork"):
        QueueController(start_method="teleport")


@pytest.mark.parametrize("name", ["start_timeout", "stop_timeout", "reset_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**400])
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
    with pytest.raises(
        TypeError,
        match=r"Server\(\) has no option 'idnt'; it has host, port, .*: did you mean ident\?",
    ):
        QueueServer("localhost", 0, MessageQueue(), idnt="a")


@pytest.mark.parametrize("timeout", [math.inf, math.nan, -1])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(ValueError, match="timeout must be"):
        MessageQueue().get(timeout=timeout)


def test_an_empty_hostname_would_have_it_looked_up():
    with pytest.raises(ValueError, match="hostname"):
        QueueController(hostname="")
