"""Programs for test_anonymous_inodes.py: `anonymous.py KIND`.

Their descriptors are plain numbers, so that no server has been given them.
"""

import ctypes
import json
import os
import select
import smtplib
import sys
import threading

EPOLL = select.epoll()
EVENTS = os.eventfd(0, os.EFD_NONBLOCK)
EPOLL.register(EVENTS, select.EPOLLIN)
NUMBERS = EPOLL.fileno(), EVENTS
WOKEN = threading.Event()


def open_again():
    """Do as C code with threads of its own does in a child: all anew, with the same numbers."""
    for number in NUMBERS:
        os.close(number)
    epoll, events = select.epoll(), os.eventfd(0, os.EFD_NONBLOCK)
    KEPT.append(epoll)
    assert {epoll.fileno(), events} == set(NUMBERS), "the numbers should be used again"
    epoll.register(events, select.EPOLLIN)
    os.environ["EVENTS"] = str(events)
    threading.Thread(target=wait_for_events, args=(epoll,), daemon=True).start()


KEPT = []


def wait_for_events(epoll):
    while not epoll.poll(60):
        continue
    WOKEN.set()


def waking():
    """Say whether what an owner opens anew in the child goes on to work there."""
    os.register_at_fork(after_in_child=open_again)
    from lazr_smtptest import Controller, MessageQueue, QueueServer

    class Waking(QueueServer):
        def handle_message(self, message):
            os.eventfd_write(int(os.environ["EVENTS"]), 1)
            message["X-Woken"] = str(WOKEN.wait(10))
            super().handle_message(message)

    inbox = MessageQueue()
    with Controller(Waking("127.0.0.1", 0, inbox)) as controller:
        with smtplib.SMTP(controller.host, controller.port) as client:
            client.sendmail("kim@example.com", "lee@example.com", "Subject: one\n\n")
        return inbox.get(timeout=10)["X-Woken"]


def open_all():
    """Open one of each kind that this system lets us have; return them by name."""
    libc = ctypes.CDLL(None)
    found = {"eventpoll": NUMBERS[0], "eventfd": NUMBERS[1]}
    found["timerfd"] = libc.timerfd_create(1, 0)
    found["signalfd"] = libc.signalfd(-1, ctypes.create_string_buffer(128), 0)
    found["inotify"] = libc.inotify_init1(0)
    found["pidfd"] = os.pidfd_open(os.getpid())
    io_uring_setup, bpf = 425, {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
    found["io_uring"] = libc.syscall(io_uring_setup, 4, ctypes.create_string_buffer(120))
    array_of_one = (ctypes.c_uint32 * 18)(2, 4, 8, 1)
    found["bpf"] = libc.syscall(bpf, 0, array_of_one, ctypes.sizeof(array_of_one))
    return {name: number for name, number in found.items() if number >= 0}


def shared():
    """Say which kinds the server process shares with the test process."""
    from lazr_smtptest import Controller, MessageQueue, QueueServer

    kinds = open_all()
    KEPT.append(select.epoll())
    witness = KEPT[0]

    class Looking(QueueServer):
        def handle_message(self, message):
            message["X-Shared"] = " ".join(name for name in kinds if is_same(kinds[name]))
            super().handle_message(message)

    def is_same(number):
        # An epoll instance knows the objects that are registered with it.
        try:
            witness.register(number, 0)
        except FileExistsError:
            return True
        witness.unregister(number)
        return False

    for number in kinds.values():
        witness.register(number, 0)
    assert all(is_same(number) for number in kinds.values()), "in the process that opened them"
    inbox = MessageQueue()
    with Controller(Looking("127.0.0.1", 0, inbox)) as controller:
        with smtplib.SMTP(controller.host, controller.port) as client:
            client.sendmail("kim@example.com", "lee@example.com", "Subject: one\n\n")
        return inbox.get(timeout=10)["X-Shared"].split(), sorted(kinds)


if __name__ == "__main__":
    print(json.dumps({"waking": waking, "shared": shared}[sys.argv[1]]()))
