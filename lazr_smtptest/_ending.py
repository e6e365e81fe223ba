"""How a server process ended, in words.  Test process."""

from __future__ import annotations

import signal

__all__ = ["after_end", "describe_end", "describe_lost"]

#: Signals that a process brings on itself.
_CRASHES = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})


def describe_end(exitcode: int | None, *, forced: bool = False) -> str:
    """Say how a process ended.

    :param exitcode: The exit code; negative for a signal.
    :param forced: Whether it was ended from here, since it did not stop.
    :return: The words, to stand behind its name.
    """
    if exitcode is None:
        return "ended with an unknown exit code"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    if forced:
        return f"did not stop when asked, and was ended by {_signal_name(-exitcode)}"
    if -exitcode in _CRASHES:
        return f"crashed with {_signal_name(-exitcode)}"
    return f"was killed by {_signal_name(-exitcode)}"


def after_end(exitcode: int | None, *, forced: bool = False) -> str:
    """Say what to do about it.

    :param exitcode: See `describe_end`.
    :param forced: See `describe_end`.
    :return: The words, a sentence.
    """
    if forced:
        return "The log shows what kept it; if it was only slow, give a longer stop_timeout"
    return f"{_look_for(exitcode)}, and call start() for a new one"


def _look_for(exitcode: int | None) -> str:
    if exitcode is None:
        return "Do not ignore SIGCHLD, so that there is an exit code"
    if exitcode >= 0:
        return "Look for what exits in its handlers"
    if -exitcode in _CRASHES:
        return "Look for the call into C code that did it"
    return "Look for what killed it (the system itself does so when memory runs out)"


def describe_lost(count: int) -> str:
    """Say how many messages were lost."""
    if count == 1:
        return "1 message that it had accepted is lost"
    if count:
        return f"{count} messages that it had accepted are lost"
    return "no message that it had accepted is lost"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
