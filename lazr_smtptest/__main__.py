"""The command `lazr-smtptest`: its first step.

Ctrl-C may come at any time.  Amid an import it would be a traceback, so until there is
somebody to take it, it ends the process by itself.  Therefore nothing is imported here.
"""

import signal
import sys


def main() -> int:
    """Run the command with the arguments of the process.

    :return: The exit status: see `lazr_smtptest._cli.command.main`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lazr_smtptest._cli.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
