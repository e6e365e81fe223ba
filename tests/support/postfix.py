"""A Postfix of a test's own, on loopback, in a folder of its own: to compare, relay or send."""

from __future__ import annotations

import contextlib
import os
import shutil
import smtplib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers import until
from programs import (
    DOMAIN,
    RECIPIENTS,
    SENDER,
    TIMEOUT,
    Failed,
    Login,
    installed,
    missing,
    mode_of,
    needs_sasl,
)

from lazr_smtptest import QueueController

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
smtp_host_lookup = native
smtp_connection_cache_on_demand = no
lmtp_host_lookup = native
lmtp_connection_cache_on_demand = no
"""

#: Mail goes nowhere, or on to a port.
DISCARDING = "default_transport = discard\nrelay_transport = discard\n"
RELAYING = """
default_transport = smtp
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = none
"""

#: Each message is tried once, by processes that read the settings anew.
TRYING_ONCE = """
max_use = 1
maximal_queue_lifetime = 0
default_destination_concurrency_failed_cohort_limit = 0
"""
#: Nothing is added to a message.  Bounces go to a port of their own.
SENDING = """
default_transport = bounced:[localhost]:{box}
header_checks = regexp:{folder}/etc/header_checks
smtp_helo_name = {domain}
content_filter = smtp:{place}
smtp_tls_security_level = {level}
smtp_tls_wrappermode = {wrapped}
smtp_tls_CAfile = {trusted}
smtp_tls_cert_file = {shown}
"""
LOGGING_IN = """
smtp_sasl_auth_enable = yes
smtp_sasl_auth_soft_bounce = no
smtp_sasl_security_options = noanonymous
smtp_sasl_mechanism_filter = {mechanism}
smtp_sasl_password_maps = static:{{{user}:{password}}}
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
lmtp unix - - n - - lmtp
bounced unix - - n - - smtp -o smtp_tls_security_level=none -o smtp_tls_wrappermode=no
    -o smtp_sasl_auth_enable=no
error unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def running_postfix(relay_to: int | None = None) -> Iterator[int]:
    """Run Postfix, and give its port.

    :param relay_to: The port on loopback that takes all its mail; without, it delivers nothing.
    """
    with _running(RELAYING.format(port=relay_to) if relay_to else DISCARDING) as (port, _):
        yield port


class PostfixSender(NamedTuple):
    """A Postfix that sends what it gets to one server after the other."""

    port: int
    folder: Path
    box: QueueController  # where bounces go

    def send(
        self, server: QueueController, content: bytes, login: Login | None, shown: str = ""
    ) -> None:
        """Send a message.

        :param shown: The file of a certificate to show.
        :raises Failed: It has come back; the message is the log, and what the sender is told.
        """
        mode = mode_of(server)
        sending, logging_in = SENDING, LOGGING_IN
        if server.server.lmtp:  # which has the same settings, by another name
            sending = sending.replace("smtp_helo", "lmtp_lhlo").replace("smtp", "lmtp")
            logging_in = logging_in.replace("smtp", "lmtp")
        path = server.unix_socket
        settings = TRYING_ONCE + sending.format(
            folder=self.folder,
            box=self.box.port,
            domain=DOMAIN,
            place=f"unix:{path}" if path else f"[localhost]:{server.port}",
            level="none" if mode == "clear" else "secure",
            wrapped="yes" if mode == "implicit" else "no",
            trusted="" if mode == "clear" else server.ca_file,
            shown=shown,
        )
        if login:
            needs_sasl()
            settings += logging_in.format(**login._asdict())
        _configure(self.folder, settings)
        self.box.reset()
        with smtplib.SMTP("127.0.0.1", self.port, DOMAIN, timeout=TIMEOUT) as client:
            client.ehlo()
            client.mail(SENDER)
            for recipient in RECIPIENTS:
                client.rcpt(recipient)
            _, reply = client.data(content)
        log = until(lambda: self._log_of(reply.decode().split()[-1]), TIMEOUT)
        if "status=bounced" in log or "status=expired" in log:
            raise Failed(log + bounce(self.box))

    def _log_of(self, name: str) -> str:
        """Return the log of a message that has left the queue, and nothing before."""
        lines = (self.folder / "log" / "mail").read_text().splitlines(keepends=True)
        about = [line for line in lines if f" {name}: " in line]
        return "".join(about) if about[-1:] and about[-1].endswith(": removed\n") else ""


def bounce(box: QueueController) -> str:
    """Take what was returned to the sender, which is one message; return its text."""
    message = box.queue.wait(TIMEOUT)
    assert message.envelope.mail_from == ""
    assert message.envelope.rcpt_tos == (SENDER,)
    assert box.queue.empty()
    return message.text


@contextlib.contextmanager
def sending_postfix(box: QueueController) -> Iterator[PostfixSender]:
    """Run a Postfix that sends.

    :param box: Where the mail goes that it returns to its senders.
    """
    with _running(TRYING_ONCE) as (port, folder):
        (folder / "etc" / "header_checks").write_text("/^Received:/ IGNORE\n")
        yield PostfixSender(port, folder, box)


@contextlib.contextmanager
def _running(settings: str) -> Iterator[tuple[int, Path]]:
    if os.geteuid() != 0:
        missing("Postfix has to be started as root")
    program = installed("postfix")
    # Its own user has to get there, which cannot get into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))
    os.chmod(folder, 0o755)
    try:
        for name in "etc", "queue", "data", "log":
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        _configure(folder, settings)
        yield from _serve(program, folder)
    finally:
        shutil.rmtree(folder)


def _configure(folder: Path, settings: str) -> None:
    new = folder / "etc" / "main.cf.new"
    new.write_text(MAIN.format(folder=folder, daemons=DAEMONS) + settings)
    # A file that is new is read over and over, for two seconds, lest it is half written.
    os.utime(new, (0, 0))
    new.replace(folder / "etc" / "main.cf")


def _serve(program: str, folder: Path) -> Iterator[tuple[int, Path]]:
    def control(verb: str) -> None:
        command = [program, "-c", str(folder / "etc"), verb]
        subprocess.run(command, capture_output=True, timeout=15, check=True)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (folder / "etc" / "master.cf").write_text(MASTER.format(port=port))
    control("start")
    try:
        until(lambda: greeting(port).startswith(b"220 mx.example ESMTP Postfix"))
        yield port, folder
    finally:
        control("stop")


def greeting(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            return sock.recv(1000)
    except ConnectionRefusedError:
        return b""
