"""A program whose threads are greenlets, and its servers: `greenlets.py LIBRARY WHEN METHOD`.

It is patched ``before`` the package is imported, or ``after``.  Prints what came of each step.
"""

# ruff: noqa: E402 - what is imported when is what this is about

import json
import os
import signal
import smtplib
import sys
import threading
import time
import warnings

LIBRARY, WHEN, METHOD = sys.argv[1:4] if len(sys.argv) > 3 else ("", "", "")


def use(library):
    """Patch the standard library; return functions to start a greenlet, and to wait for it."""
    if library == "gevent":
        from gevent import monkey

        monkey.patch_all()
        import gevent

        return gevent.spawn, gevent.Greenlet.get
    warnings.simplefilter("ignore")  # that it is deprecated
    import eventlet

    eventlet.monkey_patch()
    return eventlet.spawn, eventlet.greenthread.GreenThread.wait


if WHEN == "before":
    spawn, finish = use(LIBRARY)
from lazr_smtptest import (
    Controller,
    MessageQueue,
    QueueController,
    QueueServer,
    SharedController,
    connect,
)

if WHEN == "after":
    spawn, finish = use(LIBRARY)

import asyncio
import queue

LOCK = threading.Lock()


class Tagging(QueueServer):
    """Its handler uses threads, and what the library has replaced; so does its hook."""

    def handle_message(self, message):
        with LOCK:
            time.sleep(0.001)
            thread = threading.Thread(target=message.add_header, args=("X-Thread", "1"))
            thread.start()
            thread.join()
        super().handle_message(message)

    async def handle_RCPT(self, server, session, envelope, address, options):
        sys.modules[LIBRARY].sleep(0.01)  # in its hub: whose greenlets run there?
        envelope.rcpt_tos.append(address)
        loop = type(asyncio.get_running_loop()).__module__
        return f"250 {loop}"


def send(server, subject="one"):
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.sendmail("kim@example.com", "lee@example.com", f"Subject: {subject}\n\n")


def many_messages():
    inbox = MessageQueue()
    with Controller(Tagging("localhost", 0, inbox), start_method=METHOD) as controller:
        for number in range(5):
            send(controller, number)
        found = [inbox.get(timeout=5) for _ in range(5)]
        controller.reset()
        return [message["Subject"] for message in found], found[0]["X-Thread"]


def event_loop():
    server = Tagging("localhost", 0, MessageQueue())
    with Controller(server, start_method=METHOD, uvloop=None) as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=5) as client:
            client.ehlo()
            client.mail("kim@example.com")
            return client.rcpt("lee@example.com")[1].decode()


def waiting_lets_greenlets_run():
    with QueueController(start_method=METHOD) as controller:
        spawn(send, controller, "while wait() waits")
        found = [controller.wait(timeout=5)["Subject"]]
        with controller.gate("DATA") as gate:
            spawn(send, controller, "while wait_parked() waits")
            gate.wait_parked(timeout=5)
        return [*found, controller.wait(timeout=5)["Subject"]]


def foreign_queue():
    found = queue.Queue()
    with Controller(QueueServer("localhost", 0, found), start_method=METHOD) as controller:
        for number in range(3):
            send(controller, number)
            assert found.get_nowait()["Subject"] == str(number)
    return "all there at once"


def leases():
    """By both ways, each with a greenlet that waits."""
    found = []
    with SharedController(start_method=METHOD, lease_host="127.0.0.1") as shared:
        for address in shared.addresses:
            with connect(address, shared.key) as lease:
                waiting = spawn(lease.wait, 10)
                with smtplib.SMTP(lease.host, lease.port) as client:
                    client.sendmail("", [lease.address("kim")], "Subject: one\r\n\r\n")
                found.append(finish(waiting)["subject"])
    return found


def blocked_signals():
    """Stop servers at once, so that each waits for its end while the others do."""
    controllers = [QueueController(start_method=METHOD) for _ in range(4)]
    for controller in controllers:
        controller.start()
    for stopping in [spawn(controller.stop) for controller in controllers]:
        finish(stopping)
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def write_pids(path):
    """Write who runs this, 25 times."""
    for _ in range(25):
        time.sleep(0.02)
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")


def main():
    pids = os.environ["PIDS"]
    greenlet = spawn(write_pids, pids)
    results = {}
    for step in (
        *(many_messages, event_loop, waiting_lets_greenlets_run, foreign_queue, leases),
        blocked_signals,
    ):
        try:
            results[step.__name__] = step()
        except Exception as error:
            results[step.__name__] = repr(error)
    results["in_a_greenlet"] = finish(spawn(many_messages))
    finish(greenlet)
    with open(pids) as file:
        written = file.read().split()
    results["steps_of_a_greenlet"] = len(written), len(set(written))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
