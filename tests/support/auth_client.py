"""A client that logs in octet by octet, and whom it logs in as."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode

from helpers import connected
from raw_client import RawClient, Reply

from lazr_smtptest import Controller

LOGINS = {
    "kim": "s3cret-of-kim",
    "lee": "s3cret=of lee, with \\ and : in it",
    "żółw": "hasło-🐢",
    "empty": "",
}
MECHANISMS = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"]


def b64(text: str | bytes) -> bytes:
    return b64encode(text.encode() if isinstance(text, str) else text)


def plain(user: str, password: str, identity: str = "") -> bytes:
    return b64(f"{identity}\0{user}\0{password}")


def xoauth2(user: str, token: str) -> bytes:
    return b64(f"user={user}\1auth=Bearer {token}\1\1")


def oauthbearer(user: str, token: str) -> bytes:
    name = user.replace("=", "=3D").replace(",", "=2C")
    header = f"n,a={name}," if user else "n,,"
    return b64(f"{header}\1host=mail.example\1port=25\1auth=Bearer {token}\1\1")


class AuthClient(RawClient):
    """Logs in, octet by octet."""

    def ask(self, line: bytes) -> bytes:
        """Say something that is to be answered by a challenge; give that."""
        reply = self.command(line)
        assert reply.code == 334, reply
        return b64decode(reply.text, validate=True)

    def log_in(self, mechanism: str, user: str, password: str) -> Reply:
        """Log in, without an initial response; give the reply to it all."""
        name = mechanism.upper()
        challenge = self.ask(b"AUTH " + mechanism.encode())
        if name == "PLAIN":
            assert challenge == b""
            return self.command(plain(user, password))
        if name == "LOGIN":
            self.ask(b64(user))
            return self.command(b64(password))
        if name == "CRAM-MD5":
            digest = hmac.new(password.encode(), challenge, "md5").hexdigest()
            return self.command(b64(f"{user} {digest}"))
        assert challenge == b""
        if name == "OAUTHBEARER":
            reply = self.command(oauthbearer(user, password))
            return self.command(b"AQ==") if reply.code == 334 else reply
        assert name == "XOAUTH2"
        reply = self.command(xoauth2(user, password))
        return self.command(b"") if reply.code == 334 else reply


def user(controller: Controller) -> str | None:
    """Give who the last client logged in as."""
    return controller.sessions()[-1].auth_user


def advertised(controller: Controller) -> set[str] | None:
    """Give the mechanisms that EHLO's reply tells of."""
    with connected(controller) as client:
        client.ehlo()
        return set(client.esmtp_features["auth"].split()) if client.has_extn("auth") else None
