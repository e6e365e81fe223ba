"""Limits of the system: which one an error comes from, in words.  Both processes.

What the system says of them, "Resource temporarily unavailable", helps nobody.
"""

from __future__ import annotations

import errno
import os
import resource

#: What a shell's ulimit calls them.
_ULIMITS = {"RLIMIT_NOFILE": "n", "RLIMIT_NPROC": "u", "RLIMIT_AS": "v", "RLIMIT_DATA": "d"}

MEMORY = ("RLIMIT_AS", "RLIMIT_DATA")

#: Which limits a system call met that failed, and what else has such a limit.
_BEHIND = {
    errno.EMFILE: (("RLIMIT_NOFILE",), ""),
    errno.ENFILE: ((), "the whole system's limit of open files, fs.file-max"),
    errno.EAGAIN: (("RLIMIT_NPROC", *MEMORY), "a control group's pids.max"),
    errno.ENOMEM: (MEMORY, "the memory of the machine, or of a control group"),
}

#: As many descriptors as starting a server takes, whatever the start method.
_DESCRIPTORS = 32

#: Octets that a session may take at first: Python asks the system for 1 MiB at once, and an
#: event loop reads 256 KiB.
_SESSION_MEMORY = 2 << 20


def limit_behind(error: BaseException) -> str:
    """Return which limits an error may come from, and what they are; empty if from none."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        code = errno.ENOMEM
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        code = errno.EAGAIN
    if code not in _BEHIND:
        return ""
    names, other = _BEHIND[code]
    limits = ", or ".join(filter(None, [*map(_described, names), other]))
    return f"a limit is reached: {limits}"


def limits_set(*names: str) -> str:
    """Return those limits that are set, of all or of some; empty if none is."""
    return ", ".join(filter(None, map(_described, names or _ULIMITS)))


def _described(name: str) -> str:
    soft, _ = resource.getrlimit(getattr(resource, name))
    return "" if soft == resource.RLIM_INFINITY else f"{name} (ulimit -{_ULIMITS[name]}) is {soft}"


def check_descriptors() -> list[int]:
    """Raise OSError if there are too few descriptors to start a server.

    multiprocessing would find out half way, and leave open what it has opened by then.
    Return those of 0, 1 and 2 that were free, open on the null device.
    """
    opened = [os.open(os.devnull, os.O_RDWR)]
    try:
        while len(opened) < _DESCRIPTORS:
            opened.append(os.dup(opened[0]))
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    for fd in opened:
        if fd > 2:
            os.close(fd)
    return [fd for fd in opened if fd <= 2]


def check_memory() -> None:
    """Raise MemoryError if there is too little for a session; none of it is used here."""
    bytes(_SESSION_MEMORY)
