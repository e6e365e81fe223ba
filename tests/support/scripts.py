"""Programs that tests run in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

#: Options for a Python that runs pytest with all plugins: warnings are errors.  On Python 3.15,
#: smtpdfix brings one about as it imports aiosmtpd, which is nobody's business here.
STRICT = ("-W", "error", "-W", "ignore:'typing.ByteString':DeprecationWarning")


def run_python(
    script: str, *, redirect: str = "", **environment: str
) -> subprocess.CompletedProcess:
    """Run a script, to which each warning is an error; it can import what tests can.

    :param redirect: What a shell is to do to its streams.
    :param environment: What is to be set, beside what is set here.
    """
    command = f'exec "{sys.executable}" -W error -c "$SCRIPT" {redirect}'
    return subprocess.run(
        ["sh", "-c", command],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SCRIPT": textwrap.dedent(script),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )
