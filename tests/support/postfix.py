"""A Postfix of a test's own, to compare with or to relay: on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers import until
from programs import PATH, missing

#: Where Debian has the daemons.
DAEMONS = "/usr/lib/postfix/sbin"

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
myhostname = mx.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
{delivery}
smtputf8_enable = yes
strict_smtputf8 = yes
maillog_file = {folder}/log/mail
maillog_file_prefixes = {folder}/log
alias_maps =
alias_database =
local_recipient_maps =
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 100
"""

#: Mail goes nowhere, or on to a port.
DISCARDING = "default_transport = discard\nrelay_transport = discard"
RELAYING = """
default_transport = smtp
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = none
smtp_host_lookup = native
smtp_connection_cache_on_demand = no
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
smtp unix - - n - - smtp
error unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def running_postfix(relay_to: int | None = None) -> Iterator[int]:
    """Run Postfix, and give its port.

    :param relay_to: The port on loopback that takes all its mail; without, it delivers nothing.
    """
    if os.geteuid() != 0:
        missing("Postfix has to be started as root")
    program = shutil.which("postfix", path=PATH)
    if program is None:
        missing("the program postfix is not installed")
    # Its own user has to get there, which cannot get into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))
    os.chmod(folder, 0o755)
    try:
        delivery = RELAYING.format(port=relay_to) if relay_to else DISCARDING
        yield from _run(program, folder, delivery)
    finally:
        shutil.rmtree(folder)


def _run(program: str, folder: Path, delivery: str) -> Iterator[int]:
    for name in "etc", "queue", "data", "log":
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    settings = MAIN.format(folder=folder, daemons=DAEMONS, delivery=delivery)
    (folder / "etc" / "main.cf").write_text(settings)

    def control(verb: str) -> None:
        command = [program, "-c", str(folder / "etc"), verb]
        subprocess.run(command, capture_output=True, timeout=15, check=True)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (folder / "etc" / "master.cf").write_text(MASTER.format(port=port))
    control("start")
    try:
        until(lambda: greeting(port).startswith(b"220 mx.example ESMTP Postfix"))
        yield port
    finally:
        control("stop")


def greeting(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            return sock.recv(1000)
    except ConnectionRefusedError:
        return b""
