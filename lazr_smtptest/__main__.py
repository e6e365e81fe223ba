"""The command `lazr-smtptest`: its first step."""

import sys

from lazr_smtptest._interrupt import end_by_ctrl_c


def main() -> int:
    """Run the command with the arguments of the process.

    :return: The exit status: see `lazr_smtptest._cli.command.main`.
    """
    end_by_ctrl_c()
    from lazr_smtptest._cli.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
