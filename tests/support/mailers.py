"""Exim, Postfix, NeoMutt and Go's net/smtp: how tests send one message with each.

Each lives in a folder of its own, reads no settings of the system's, and is gone when the
message is, but for Postfix, which is stopped with its `Mailers`.  All check the server's
certificate against its ``ca_file``.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from postfix import PostfixSender, bounce, sending_postfix
from programs import (
    DOMAIN,
    RECIPIENTS,
    SENDER,
    Failed,
    Login,
    Programs,
    host_of,
    installed,
    missing,
    mode_of,
    unix,
)

from lazr_smtptest import Message, QueueController

#: Without retry rules, what cannot be delivered at once is returned.
EXIM = """
exim_path = {program}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
keep_environment =
primary_hostname = {domain}
received_header_text =
deliver_drop_privilege

begin routers
bounced:
  driver = manualroute
  senders = :
  transport = bounced
  route_list = * localhost byname
  self = send
smarthost:
  driver = manualroute
  transport = smarthost
  route_list = * localhost byname
  self = send

begin transports
bounced:
  driver = smtp
  port = {box}
  allow_localhost
smarthost:
  driver = smtp
  port = {port}
  allow_localhost
"""
EXIM_TLS = """  tls_verify_certificates = {folder}/trusted.pem
  tls_verify_hosts = *
  hosts_require_tls = *
"""
EXIM_LOGIN = (
    "  hosts_require_auth = *\n\nbegin authenticators\nlogin:\n  public_name = {mechanism}\n"
)
EXIM_MECHANISMS = {
    "PLAIN": "  driver = plaintext\n  client_send = ^{user}^{secret}\n",
    "LOGIN": "  driver = plaintext\n  client_send = : {user} : {secret}\n",
    "CRAM-MD5": "  driver = cram_md5\n  client_name = {user}\n  client_secret = {password}\n",
    "EXTERNAL": "  driver = external\n  client_send = {user}\n",
}

NEOMUTT = """
set smtp_url="{scheme}://{user}{host}:{port}" smtp_pass="{password}"
set ssl_starttls={starttls} ssl_force_tls={starttls}
set hostname={domain} from={sender} use_envelope_from=yes realname=Kim
set folder="{folder}" tmpdir="{folder}" copy=no charset=utf-8
my_hdr Message-ID: <1@example.com>
"""

#: NeoMutt cannot send a header as it is, and writes this one.
_NEOMUTT_HEADER = re.compile(
    rb"\ADate: .*\r\n"
    rb"From: Kim <kim@example\.com>\r\n"
    rb"To: lee@example\.com\r\n"
    rb"Subject: sent\r\n"
    rb"Message-ID: <1@example\.com>\r\n"
    rb"MIME-Version: 1\.0\r\n"
    rb"Content-Type: text/plain; charset=(us-ascii|utf-8)\r\n"
    rb"Content-Disposition: inline\r\n"
    rb"(Content-Transfer-Encoding: 8bit\r\n)?\r\n"
)

#: A client of net/smtp.  go might have to compile its library first; gccgo never does.
GO_SOURCE = Path(__file__).with_name("net_smtp.go")


class Mailers(Programs):
    """Sends by mail programs; each raises `Failed` with what its user is told.

    :param home: An empty directory.
    :param stack: Ends what is started here.
    """

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(home)
        self._stack = stack

    @functools.cached_property
    def box(self) -> QueueController:
        """Where mail goes that is returned to its sender."""
        return self._stack.enter_context(QueueController())

    def exim(
        self, server: QueueController, content: bytes, login: Login | None = None, shown: str = ""
    ) -> None:
        program = installed("exim4")
        self.box.reset()
        with _exim_folder() as folder:
            place = {"program": program, "folder": folder, "box": self.box.port}
            settings = _exim_settings(server, login, place, shown)
            (folder / "settings").write_text(settings)
            if mode_of(server) != "clear":
                shutil.copy(server.ca_file, folder / "trusted.pem")
            if shown:
                shutil.copy(shown, folder / "shown.pem")
                shutil.chown(folder / "shown.pem", "Debian-exim")
            options = ["-C", f"{folder}/settings", "-odi", "-oi", "-f", SENDER]
            self.run("exim4", *options, *RECIPIENTS, given=unix(content))
            log = (folder / "log" / "mainlog").read_text()
        if " ** " in log:
            raise Failed(log + bounce(self.box))

    @functools.cached_property
    def _postfix(self) -> PostfixSender:
        return self._stack.enter_context(sending_postfix(self.box))

    def postfix(
        self, server: QueueController, content: bytes, login: Login | None = None, shown: str = ""
    ) -> None:
        self._postfix.send(server, content, login, shown)

    def neomutt(
        self, server: QueueController, content: bytes, login: Login | None = None, shown: str = ""
    ) -> None:
        mode = mode_of(server)
        settings = NEOMUTT.format(
            scheme="smtps" if mode == "implicit" else "smtp",
            user=f"{login.user}@" if login else "",
            host=server.host,
            port=server.port,
            password=login.password if login else "",
            starttls="yes" if mode == "starttls" else "no",
            domain=DOMAIN,
            sender=SENDER,
            folder=self.home,
        )
        if mode != "clear":
            settings += f'set ssl_ca_certificates_file="{server.ca_file}"\n'
        if shown:
            settings += f'set ssl_client_cert="{shown}"\n'
        # It has no names for these, but prefers them.
        if login and login.mechanism not in ("CRAM-MD5", "SCRAM-SHA-256"):
            settings += f"set smtp_authenticators={login.mechanism}\n"
        options = ["-n", "-F", self.file(settings.encode(), "neomuttrc"), "-s", "sent"]
        to, bcc = RECIPIENTS
        body = unix(content.partition(b"\r\n\r\n")[2])
        self.run("neomutt", *options, "-b", bcc, "--", to, given=body)

    @functools.cached_property
    def _go_program(self) -> str:
        target = str(self.home / "net_smtp")
        self.run("gccgo", "-static-libgo", "-o", target, str(GO_SOURCE))
        return target

    def go(self, server: QueueController, content: bytes, login: Login | None = None) -> None:
        mode = mode_of(server)
        job = {
            "host": host_of(server),
            "port": "" if server.unix_socket else str(server.port),
            "path": server.unix_socket or "",
            "mode": mode,
            "trusted": "" if mode == "clear" else Path(server.ca_file).read_text(),
            "domain": DOMAIN,
            "sender": SENDER,
            "recipients": RECIPIENTS,
            "content": base64.b64encode(content).decode(),
            **(login._asdict() if login else {}),
        }
        self.run(self._go_program, given=json.dumps(job).encode())


def as_ordered(message: Message, content: bytes) -> bytes:
    """Return a message with the header it was to have in place of NeoMutt's, if it has that."""
    head, blank, _ = content.partition(b"\r\n\r\n")
    return _NEOMUTT_HEADER.sub(lambda _: head + blank, message.raw)


def _exim_settings(
    server: QueueController, login: Login | None, place: Mapping[str, object], shown: str
) -> str:
    mode = mode_of(server)
    parts = [EXIM, EXIM_TLS if mode != "clear" else ""]
    parts += ["  tls_certificate = {folder}/shown.pem\n" if shown else ""]
    parts += ["  protocol = smtps\n" if mode == "implicit" else ""]
    parts += ["  protocol = lmtp\n" if server.server.lmtp else ""]
    values = {**place, "domain": DOMAIN, "port": server.port}
    if login:
        parts += [EXIM_LOGIN, EXIM_MECHANISMS[login.mechanism]]
        # In a list, a colon is written twice.
        values |= {**login._asdict(), "secret": login.password.replace(":", "::")}
    return "".join(parts).format(**values)


@contextlib.contextmanager
def _exim_folder() -> Iterator[Path]:
    """Make a folder that Exim's own user can get to, who cannot get into pytest's."""
    if os.geteuid() != 0:
        missing("Exim has to be started as root")
    folder = Path(tempfile.mkdtemp(prefix="exim-"))
    try:
        os.chmod(folder, 0o755)
        for name in "spool", "log":
            (folder / name).mkdir()
            shutil.chown(folder / name, "Debian-exim", "Debian-exim")
        yield folder
    finally:
        shutil.rmtree(folder)
