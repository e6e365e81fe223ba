"""Binding."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest
from helpers import send_to, subjects

from lazr_smtptest import QueueController, _launch
from lazr_smtptest._launch import listen, resolve

has_ipv6 = True
try:
    with socket.create_server(("::1", 0), family=socket.AF_INET6):
        pass
except OSError:
    has_ipv6 = False


@contextlib.contextmanager
def listening(host: str, port: int = 0):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(sock) for sock in listen(resolve(host, port), port)[0]]


def test_a_name_is_bound_on_each_of_its_addresses_on_one_port(monkeypatch):
    """With the resolver's answer of a machine where the name has two."""
    answer = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    if has_ipv6:
        answer.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    with listening("test.example") as sockets:
        names = [sock.getsockname()[:2] for sock in sockets]
        assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2", "::1"][: len(names)]
        assert len(names) == (3 if has_ipv6 else 2)
        assert len({port for _, port in names}) == 1


def test_an_address_that_is_not_here_is_passed_over(monkeypatch):
    answer = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    with listening("test.example") as sockets:
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1"]


def test_a_resolver_of_a_test(monkeypatch):
    """It names its parameters as httpretty's does, and answers with the name."""

    def fake_getaddrinfo(host, port, family=None, socktype=None, proto=None, flags=None):
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
            for family in (socket.AF_INET, socket.AF_INET6)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo)
    with QueueController("127.0.0.1") as controller:
        send_to(controller, "one")
        assert subjects(controller) == ["one"]


def test_another_port_is_found_when_the_second_address_has_it_taken(monkeypatch):
    """Takes the port that the first address got, on the second, once."""
    answer = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)
    taken: list[socket.socket] = []
    bind = _launch._bind

    def bind_after_somebody_else(family, address, port):
        if address[0] == "127.0.0.2" and not taken:
            taken.append(bind(family, address, port))
        return bind(family, address, port)

    monkeypatch.setattr(_launch, "_bind", bind_after_somebody_else)
    try:
        with listening("test.example") as sockets:
            ports = {sock.getsockname()[1] for sock in sockets}
            assert len(sockets) == 2
            assert len(ports) == 1
            assert ports != {taken[0].getsockname()[1]}
    finally:
        taken[0].close()


def test_empty_host_is_all_interfaces():
    with listening("") as sockets:
        port = sockets[0].getsockname()[1]
        for host in ["127.0.0.1", "127.0.0.2", *(["::1"] if has_ipv6 else [])]:
            socket.create_connection((host, port), timeout=5).close()


ALL = ["", "0.0.0.0", "0", "0x0", *(["::", "0:0:0:0:0:0:0:0"] if has_ipv6 else [])]


@pytest.mark.parametrize("host", ALL)
def test_clients_are_told_an_address_of_this_machine(host):
    with QueueController(host) as controller:
        assert controller.host in ("localhost", "127.0.0.1", "::1")
        send_to(controller, "hello")
        assert subjects(controller) == ["hello"]
        assert f" on {controller.host} port " in repr(controller)


WITHOUT_LOCALHOST = """
import socket
import smtplib
from lazr_smtptest import QueueController, _launch

try:
    socket.getaddrinfo("localhost", 25)
except OSError:
    with QueueController("", tls="starttls") as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
            client.starttls(context=controller.client_context())
            client.sendmail("kim@example.com", "lee@example.com", "Subject: Hello\\n")
        print(controller.host, controller.queue.get_nowait()["Subject"])
else:
    print("There is a localhost")
"""


def test_all_interfaces_of_a_machine_without_localhost(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1 somewhere\n")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody have an /etc/hosts of their own: run it as root")
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-euc"),
            'mount --bind "$1" /etc/hosts; exec "$2" -c "$3"',
            *("-", str(hosts), sys.executable, WITHOUT_LOCALHOST),
        ],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("127.0.0.1 Hello\n", "")


@pytest.mark.skipif(not has_ipv6, reason="this machine has no IPv6")
def test_ipv6_address():
    with listening("::1") as sockets:
        assert sockets[0].family == socket.AF_INET6
        socket.create_connection(sockets[0].getsockname()[:2], timeout=5).close()


def test_port_can_be_used_again_while_old_connections_linger():
    with listening("127.0.0.1") as (sock,):
        port = sock.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = sock.accept()
        served.close()  # the side that closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    with listening("127.0.0.1", port):
        pass
