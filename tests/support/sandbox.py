"""What a sandbox takes away: system calls, by a filter in the kernel, and folders, by mounts."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from typing import Any

from programs import missing

#: The numbers of system calls; those since 2019 have the same everywhere.
NUMBERS = {
    "pidfd_open": 434,
    "memfd_create": {"x86_64": 319, "aarch64": 279}.get(platform.machine()),
}

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def refuse(name: str, code: int) -> None:
    """Have a system call fail, in this process and its children, for ever; see seccomp(2)."""
    instructions = (_Instruction * 4)(
        (_LOAD, 0, 0, 0),  # the number of the call
        (_JUMP_IF_EQUAL, 0, 1, NUMBERS[name]),
        (_RETURN, 0, 0, _FAIL | code),
        (_RETURN, 0, 0, _ALLOW),
    )
    program = _Program(len(instructions), instructions)
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program))


def _prctl(*arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "prctl")


def run_in_mounts(mount: str, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command; what the line of shell before it mounts, nobody else sees."""
    unshare = shutil.which("unshare") or missing("the program unshare is not installed")
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return subprocess.run(
        [unshare, "--mount", *user, "sh", "-ec", f'{mount}\nexec "$@"', "sh", *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )
