"""An OpenSSH server of the tests' own: its own keys and configuration, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from helpers import until
from programs import PATH, missing

_SERVER = """
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
AllowUsers *
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
"""

_CLIENT = """
Host {name}
    HostName {address}
    Port {port}
    IdentityFile {folder}/client_key
    IdentitiesOnly yes
    BatchMode yes
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking no
    LogLevel ERROR
"""

#: sshd wants this to be there when root runs it.  A system's own sshd makes it; it stays,
#: as a test beside this one may need it.
_PRIVILEGE_SEPARATION = Path("/run/sshd")


class Hosts:
    """Names that ssh knows, by a configuration file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config = folder / "ssh_config"
        for program in ("sshd", "ssh", "ssh-keygen"):
            if shutil.which(program, path=PATH) is None:
                missing(f"{program} is not installed: apt-get install openssh-server")
        for name in ("host_key", "client_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
                timeout=10,
            )

    def add(self, name: str, address: str, port: int) -> None:
        text = _CLIENT.format(name=name, address=address, port=port, folder=self._folder)
        with open(self.config, "a", encoding="utf-8") as file:
            file.write(text)

    @contextlib.contextmanager
    def serve(self, address: str, port: int, *inside: str) -> Iterator[None]:
        """Run sshd, by a command such as ``ip netns exec NAME`` if there is one."""
        config = self._folder / f"sshd_config_{address}"
        text = _SERVER.format(address=address, port=port, folder=self._folder)
        config.write_text(text, encoding="utf-8")
        sshd = shutil.which("sshd", path=PATH)
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(0o755, exist_ok=True)
        with open(self._folder / f"sshd_log_{address}", "w+", encoding="utf-8") as log:
            command = [*inside, str(sshd), "-D", "-e", "-f", str(config)]
            process = subprocess.Popen(command, stderr=log)
            try:
                until(lambda: process.poll() is not None or _listens(address, port))
                assert process.poll() is None, log.seek(0) or log.read()
                yield
            finally:
                process.terminate()
                process.wait(timeout=10)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True
