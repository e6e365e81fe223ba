"""Ctrl-C while the command `lazr-smtptest` imports what it needs.

Amid an import it would be a traceback.  So from here on it ends the process by itself,
until the command takes it.  In a process that runs the command, this happens when the
package is imported, before it imports anything else.
"""

import sys
from _signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal  # no enums


def end_by_ctrl_c() -> None:
    """Let Ctrl-C end the process without a word, unless it is ignored or taken."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)


def _is_the_command() -> bool:
    """Return whether Python is about to run the command: by its script, or by ``-m``."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # until Python has found the module, which is the last of its own arguments
        return sys.orig_argv[-len(sys.argv)] in ("lazr_smtptest", "-mlazr_smtptest")
    return name.rpartition("/")[2] == "lazr-smtptest"


if _is_the_command():
    end_by_ctrl_c()
