"""Forks servers beneath threads that hold all sorts of locks, so many times."""

import importlib
import logging
import os
import socket
import ssl
import sys
import threading

from lazr_smtptest import QueueController

stopping = threading.Event()


def logs():
    log = logging.getLogger("busy")
    log.addHandler(logging.StreamHandler(open(os.devnull, "w")))
    log.propagate = False
    while not stopping.is_set():
        log.error("busy")


def prints():
    while not stopping.is_set():
        print("", end="", flush=True)
        sys.stderr.flush()


def imports():
    while not stopping.is_set():
        for name in ("wave", "colorsys", "this_is_not_there", "tabnanny"):
            sys.modules.pop(name, None)
            try:
                importlib.import_module(name)
            except ImportError:
                continue


def allocates():
    while not stopping.is_set():
        _ = [bytearray(n) for n in range(0, 300_000, 10_000)]


def resolves():
    while not stopping.is_set():
        socket.getaddrinfo("localhost", 25)


def makes_contexts():
    while not stopping.is_set():
        ssl.create_default_context()


def main():
    rounds = int(sys.argv[1])
    # So that each fork has a mixture of its own, and is not kept waiting for long.
    sys.setswitchinterval(0.001)
    work = (logs, prints, imports, allocates, resolves, makes_contexts)
    threads = [threading.Thread(target=target, daemon=True) for target in work]
    for thread in threads:
        thread.start()
    controller = QueueController(start_method="fork", start_timeout=15)
    for _ in range(rounds):
        with controller:
            pass
    stopping.set()
    for thread in threads:
        thread.join(10)
    print(f"{rounds} starts")


if __name__ == "__main__":
    main()
