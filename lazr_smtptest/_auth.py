"""Logging in: the mechanisms that aiosmtpd lacks, and who may.  Server process."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import aiosmtpd.smtp
from aiosmtpd.smtp import AuthResult, LoginPassword

__all__ = ["Mechanisms"]

MISSING = aiosmtpd.smtp.MISSING


class Mechanisms:
    """The part of a session that checks names and passwords.

    PLAIN and LOGIN are aiosmtpd's; it asks `_check_login` about them.  What
    fails without an answer of its own is told 535 by aiosmtpd.
    """

    # These are the SMTP class's.
    hostname: str
    _logins: Mapping[str, str]
    challenge_auth: Any
    push: Any

    def _check_login(
        self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        try:
            user, password = data.login.decode("utf-8"), data.password.decode("utf-8")
        except UnicodeDecodeError:
            return _refused()
        return _accepted(user) if self._logins.get(user) == password else _refused()

    async def auth_CRAM__MD5(self, _server: Any, args: list[str]) -> AuthResult:
        """Challenge and response (RFC 2195).  It takes no initial response."""
        if len(args) > 1:
            await self.push("501 5.5.2 CRAM-MD5 takes no initial response")
            return _ANSWERED
        challenge = f"<{secrets.randbits(64)}.{time.time_ns()}@{self.hostname}>".encode()
        response = await self.challenge_auth(challenge)
        if response is MISSING:
            return _ANSWERED
        user, _, digest = response.decode("utf-8", "replace").rpartition(" ")
        password = self._logins.get(user)
        if password is None:
            return _refused()
        wanted = hmac.new(password.encode("utf-8"), challenge, "md5").hexdigest()
        return _accepted(user) if digest.lower() == wanted else _refused()

    async def auth_XOAUTH2(self, _server: Any, args: list[str]) -> AuthResult:
        """An OAuth 2.0 token, in the way that Google and Microsoft have it.

        A client whose token is wrong is told why in a challenge, and answers
        that by an empty line before it gets its 535.
        """
        if len(args) > 1:
            try:
                response = base64.b64decode(args[1].encode(), validate=True)
            except ValueError:
                await self.push("501 5.5.2 Can't decode base64")
                return _ANSWERED
        else:
            response = await self.challenge_auth("")
            if response is MISSING:
                return _ANSWERED
        user, token = _parse_xoauth2(response)
        if user is not None and token is not None and self._logins.get(user) == token:
            return _accepted(user)
        why = json.dumps({"status": "401", "schemes": "bearer", "scope": "https://mail.example/"})
        if await self.challenge_auth(why) is MISSING:
            return _ANSWERED
        return _refused()


def _parse_xoauth2(response: bytes) -> tuple[str | None, str | None]:
    """Split ``user=NAME ^A auth=Bearer TOKEN ^A ^A``."""
    try:
        fields = dict(
            field.split("=", 1) for field in response.decode("utf-8").split("\x01") if field
        )
    except ValueError:
        return None, None
    scheme, _, token = fields.get("auth", "").partition(" ")
    return fields.get("user"), token if scheme.lower() == "bearer" else None


def _accepted(user: str) -> AuthResult:
    data = LoginPassword(user.encode("utf-8"), b"")
    return AuthResult(success=True, handled=True, auth_data=data)


def _refused() -> AuthResult:
    return AuthResult(success=False, handled=False)


#: It failed, and the client has been told.
_ANSWERED = AuthResult(success=False, handled=True)
