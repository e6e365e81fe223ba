"""Logging in: the mechanisms that aiosmtpd lacks, and who may.  Server process."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, LoginPassword, _AuthMechAttr

from lazr_smtptest._util import time_of_day

#: It failed, and the client has its reply; or is to have one.
_ANSWERED = AuthResult(success=False, handled=True)
_REFUSED = AuthResult(success=False, handled=False)


class AuthMechanisms:
    """The names and passwords of a server, and ways to check them.

    PLAIN and LOGIN are aiosmtpd's; it asks `check_login` about them.  If
    something fails without a reply of its own, aiosmtpd sends 535.  Without any
    logins, AUTH is left to the server's hooks.
    """

    def __init__(self, logins: Mapping[str, str] | None) -> None:
        self._logins = logins or {}
        #: CRAM-MD5 and XOAUTH2, for aiosmtpd's ``_auth_methods``.
        self.methods: dict[str, _AuthMechAttr] = {}
        if logins is not None:
            self.methods["CRAM-MD5"] = _AuthMechAttr(self._cram_md5, is_builtin=True)
            self.methods["XOAUTH2"] = _AuthMechAttr(self._xoauth2, is_builtin=True)

    def check_login(
        self, _smtp: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        try:
            user, password = data.login.decode("utf-8"), data.password.decode("utf-8")
        except UnicodeDecodeError:
            return _REFUSED
        return _accepted(user) if self._logins.get(user) == password else _REFUSED

    async def _cram_md5(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """Challenge and response (RFC 2195).  It takes no initial response."""
        if len(args) > 1:
            await smtp.push("501 5.5.2 CRAM-MD5 takes no initial response")
            return _ANSWERED
        challenge = f"<{secrets.randbits(64)}.{int(time_of_day())}@{smtp.hostname}>".encode()
        response = await smtp.challenge_auth(challenge)
        if response is MISSING:
            return _ANSWERED
        user, _, digest = response.decode("utf-8", "replace").rpartition(" ")
        password = self._logins.get(user)
        if password is None:
            return _REFUSED
        wanted = hmac.new(password.encode("utf-8"), challenge, "md5").hexdigest()
        return _accepted(user) if digest.lower() == wanted else _REFUSED

    async def _xoauth2(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """An OAuth 2.0 token, in the way that Google and Microsoft have it.

        A client whose token is wrong is told why in a challenge, and answers
        that by an empty line before it gets its 535.
        """
        if len(args) > 1:
            try:
                response = base64.b64decode(args[1].encode(), validate=True)
            except ValueError:
                await smtp.push("501 5.5.2 Can't decode base64")
                return _ANSWERED
        elif (answer := await smtp.challenge_auth("")) is MISSING:
            return _ANSWERED
        else:
            response = answer
        user, token = _parse_xoauth2(response)
        if user is not None and token is not None and self._logins.get(user) == token:
            return _accepted(user)
        why = json.dumps({"status": "401", "schemes": "bearer", "scope": "https://mail.example/"})
        if await smtp.challenge_auth(why) is MISSING:
            return _ANSWERED
        return _REFUSED


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
