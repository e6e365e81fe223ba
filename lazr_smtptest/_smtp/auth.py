"""Logging in: the mechanisms, and who may.  Server process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, LoginPassword, _AuthMechAttr

from lazr_smtptest._smtp.client_cert import identity_of, subject_of
from lazr_smtptest._smtp.protocol import Refused, VerbatimReply
from lazr_smtptest._util import lazy_pattern, time_of_day
from lazr_smtptest._wire.rules import encode_reply
from lazr_smtptest.server import ScramKeys, Server

#: It failed, and the client has its reply; or is to have one.
_ANSWERED = AuthResult(success=False, handled=True)
_REFUSED = AuthResult(success=False, handled=False)

#: What a token would have to be good for; it says so in an error.
_SCOPE = "https://mail.example/"

_NAME = r"(?:[^=,\0]|=2C|=3D)+"
_BASE64 = r"[A-Za-z0-9+/]+={0,2}"

#: RFC 7628, 3.1: no channel binding, and perhaps a name (RFC 5801, 4).
_GS2_HEADER = lazy_pattern(f"[ny],(?:a=({_NAME}))?,")

#: RFC 5802, 7: header, what follows it, name and nonce; and the message without its proof,
#: the header again, nonce and proof.
_SCRAM_FIRST = lazy_pattern(f"([ny],(?:a={_NAME})?,)(n=({_NAME}),r=([!-+.-~-]+)(?:,[^m].*)?)")
_SCRAM_LAST = lazy_pattern(f"(c=({_BASE64}),r=([^,]+)(?:,.*)?),p=({_BASE64})")

_SCHEMES = {("bearer", " "), ("", "")}

_Method = Callable[[SMTP, list[str]], Awaitable[AuthResult]]


class AuthMechanisms:
    """The mechanisms of a server, and whom it lets in.

    If something fails without a reply of its own, aiosmtpd sends 535.  Where the server
    knows nobody, there are PLAIN and LOGIN, which nobody gets past, beside its hooks.

    :param run: Runs a function on a thread, where it may block.
    :param report: Sends the test process an error; returns the reply for the client.
    """

    def __init__(
        self,
        server: Server,
        run: Callable[..., Awaitable[AuthResult]],
        report: Callable[[str, BaseException], str],
    ) -> None:
        self._auth = server._auth
        self._scram_keys = server._scram_keys
        self._run = run
        self._report = report
        self._where = f"{type(server).__name__}.auth"
        own: dict[str, _Method] = {"LOGIN": self._login, "PLAIN": self._plain}
        if self._auth is not None:
            own["OAUTHBEARER"], own["XOAUTH2"] = self._oauthbearer, self._xoauth2
            if not callable(self._auth):  # which would need the password
                own["CRAM-MD5"] = self._cram_md5
        if self._scram_keys is not None:
            own["SCRAM-SHA-256"] = self._scram
        if "EXTERNAL" in (server._mechanisms or ()):
            own["EXTERNAL"] = self._external
        self._methods = {name: _AuthMechAttr(own[name], is_builtin=True) for name in sorted(own)}
        #: Those for a client that has shown no certificate (RFC 4422, appendix A.1).
        self._usual = {name: self._methods[name] for name in self._methods if name != "EXTERNAL"}
        self._names = server._mechanisms

    def offered(
        self, hooks: dict[str, _AuthMechAttr], *, has_cert: bool = False
    ) -> dict[str, _AuthMechAttr]:
        """Return what a client is offered, for aiosmtpd's ``_auth_methods``.

        :param hooks: The server's own.  They come before ours, and one that is no method
            takes ours away.
        :param has_cert: Whether the client has shown a certificate.
        """
        methods = {**(self._methods if has_cert else self._usual), **hooks}
        return {
            name: methods[name]
            for name in self._names or sorted(methods)
            if name in methods and callable(methods[name].method)
        }

    # Who may.

    def check_login(
        self, _smtp: SMTP, _session: Any, _envelope: Any, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        """Check a login for a hook that calls a method of aiosmtpd's own."""
        try:
            user, password = data.login.decode("utf-8"), data.password.decode("utf-8")
        except UnicodeDecodeError:
            return _REFUSED
        return self._decide(mechanism, user, password) if user else _REFUSED

    async def _check(self, mechanism: str, user: str, secret: str) -> AuthResult:
        if callable(self._auth):
            return await self._run(self._decide, mechanism, user, secret)
        return self._decide(mechanism, user, secret)

    def _decide(self, mechanism: str, user: str, secret: str) -> AuthResult:
        auth: Any = self._auth
        if auth is True:
            return _accepted(user)
        if auth is None or isinstance(auth, Mapping):
            return _accepted(user) if (auth or {}).get(user) == secret else _REFUSED
        # Dealt with here and not where this is awaited: the client may hang up.
        try:
            return _verdict(auth(mechanism, user, secret), user)
        except BaseException as error:
            return AuthResult(
                success=False, handled=False, message=self._report(self._where, error)
            )

    # The mechanisms.

    async def _plain(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """Name and password in one (RFC 4616).  Whom one would act for is passed over."""
        response = await _response(smtp, args)
        if response is MISSING:
            return _ANSWERED
        try:
            _, user, password = response.split(b"\0")
        except ValueError:
            await smtp.push(f"501 5.5.2 PLAIN needs NUL name NUL password, {_instead(response)}")
            return _ANSWERED
        return await self._check_octets("PLAIN", user, password)

    async def _login(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """Name and password, one after the other.

        What it asks is a convention: many clients compare it to the letter.
        """
        user = await _response(smtp, args, "Username:")
        if user is MISSING:
            return _ANSWERED
        password = await smtp.challenge_auth("Password:")
        if password is MISSING:
            return _ANSWERED
        return await self._check_octets("LOGIN", user, password)

    async def _check_octets(self, mechanism: str, user: bytes, password: bytes) -> AuthResult:
        try:
            name, secret = user.decode("utf-8"), password.decode("utf-8")
        except UnicodeDecodeError:
            return _REFUSED
        return await self._check(mechanism, name, secret) if name else _REFUSED

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
        if self._auth is True:
            return _accepted(user) if user else _REFUSED
        assert isinstance(self._auth, Mapping)
        password = self._auth.get(user)
        if password is None:
            return _REFUSED
        wanted = hmac.new(password.encode("utf-8"), challenge, "md5").hexdigest()
        return _accepted(user) if digest.lower() == wanted else _REFUSED

    async def _scram(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """Proofs on both sides (RFC 5802, RFC 7677), and no channel binding."""
        response = await _response(smtp, args)
        if response is MISSING:
            return _ANSWERED
        try:
            exchange = _ScramExchange(response, self._keys_of)
            response = await smtp.challenge_auth(exchange.challenge)
            if response is MISSING:
                return _ANSWERED
            proof = exchange.answer(response)
        except ValueError as error:
            what = error if isinstance(error, Refused) else "a message is malformed"
            await smtp.push(f"501 5.5.2 SCRAM-SHA-256: {what}")
            return _ANSWERED
        if proof is None:
            return _REFUSED
        # SMTP has no room for it beside the 235 (RFC 4954, 4).
        if await smtp.challenge_auth(proof) is MISSING:
            return _ANSWERED
        return _accepted(exchange.user)

    def _keys_of(self, user: str) -> ScramKeys:
        assert self._scram_keys is not None
        try:
            return self._scram_keys[user]
        except KeyError:  # go on, so that nobody finds out who is known
            salt, stored, server = (secrets.token_bytes(32) for _ in range(3))
            return salt, stored, server, 4096

    async def _xoauth2(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """An OAuth 2.0 token, in the way that Google and Microsoft have it.

        A client whose token is wrong gets the reason in a challenge, and answers
        with an empty line before it gets its 535.
        """
        response = await _response(smtp, args)
        if response is MISSING:
            return _ANSWERED
        user, token = _parse_xoauth2(response)
        why = {"status": "401", "schemes": "bearer", "scope": _SCOPE}
        result = await self._check("XOAUTH2", user, token) if user and token is not None else None
        return await _explained(smtp, result, why)

    async def _oauthbearer(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """An OAuth 2.0 token, in the way of RFC 7628.

        A client whose token is wrong gets the reason in a challenge, and answers with a
        control-A before it gets its 535 (3.2.3).
        """
        response = await _response(smtp, args)
        if response is MISSING:
            return _ANSWERED
        try:
            user, token = _parse_oauthbearer(response)
        except ValueError:
            return await _explained(smtp, None, {"status": "invalid_request"})
        result = None
        if token is not None:
            result = await self._check("OAUTHBEARER", user or self._owner(token), token)
        return await _explained(smtp, result, {"status": "invalid_token", "scope": _SCOPE})

    async def _external(self, smtp: SMTP, args: list[str]) -> AuthResult:
        """Whoever the client's certificate is for (RFC 4422, appendix A).

        The client may send whom it would be.  The subject stands in the place of a password.
        """
        response = await _response(smtp, args)
        if response is MISSING:
            return _ANSWERED
        try:
            wanted = response.decode("utf-8")
            if "\0" in wanted:
                raise ValueError
        except ValueError:
            await smtp.push("501 5.5.2 EXTERNAL takes a name in UTF-8, without NUL (RFC 4422)")
            return _ANSWERED
        session: Any = smtp.session
        certificate = session.ssl["peercert"]
        subject = subject_of(certificate)
        user = wanted or self._owner(subject) or identity_of(certificate)
        return await self._check("EXTERNAL", user, subject) if user else _REFUSED

    def _owner(self, secret: str) -> str:
        """Return who has a secret that says whose it is, where that is known."""
        known = self._auth if secret and isinstance(self._auth, Mapping) else {}
        return next((name for name, their in known.items() if their == secret), "")


class _ScramExchange:
    """The server's side of SCRAM-SHA-256 (RFC 5802, 3).

    scramp, which makes the keys, does not let a client send whom it would act for, and
    Cyrus SASL's sends that.  It is passed over here.

    :param first: The client's first message; a ValueError says that it is wrong.
    """

    def __init__(self, first: bytes, keys_of: Callable[[str], ScramKeys]) -> None:
        found = _SCRAM_FIRST.fullmatch(first.decode("utf-8"))
        if found is None:
            raise Refused("the first message is not as RFC 5802, 7 has it, without binding")
        self._header, self._bare, name, nonce = found.groups()
        self.user = _unescaped(name)
        salt, self._stored_key, self._server_key, count = keys_of(self.user)
        self._nonce = nonce + secrets.token_urlsafe(18)
        self.challenge = f"r={self._nonce},s={base64.b64encode(salt).decode()},i={count}"

    def answer(self, last: bytes) -> bytes | None:
        """Return the server's proof; None if that of the client is wrong."""
        found = _SCRAM_LAST.fullmatch(last.decode("utf-8"))
        if found is None:
            raise Refused("the last message is not as RFC 5802, 7 has it")
        unproven, header, nonce, proof = found.groups()
        if (base64.b64decode(header), nonce) != (self._header.encode(), self._nonce):
            raise Refused("the last message has another header or nonce than the first")
        said = f"{self._bare},{self.challenge},{unproven}".encode()
        signature = hmac.digest(self._stored_key, said, "sha256")
        key = bytes(a ^ b for a, b in zip(signature, base64.b64decode(proof), strict=False))
        if hashlib.sha256(key).digest() != self._stored_key:
            return None
        return b"v=" + base64.b64encode(hmac.digest(self._server_key, said, "sha256"))


def _unescaped(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _verdict(returned: object, user: str) -> AuthResult:
    """Return the verdict, given what a test's own function has returned."""
    if isinstance(returned, bool):
        return _accepted(user) if returned else _REFUSED
    must = "auth must return True, False or a refusal, such as '535 5.7.8 Locked'"
    if not isinstance(returned, str):
        raise TypeError(f"{must}, not a {type(returned).__name__}")
    try:
        reply = encode_reply(returned).decode("utf-8")
    except ValueError as error:
        raise ValueError(f"{must}: {error}") from None
    if reply[0] not in "45":
        raise ValueError(f"{must}, not {returned!r}")
    return AuthResult(success=False, handled=False, message=VerbatimReply(reply))


async def _response(smtp: SMTP, args: list[str], challenge: str = "") -> Any:
    """Return the initial response, decoded, or ask for it; ``MISSING``, and the client knows."""
    if len(args) == 1:
        return await smtp.challenge_auth(challenge)
    if args[1] == "=":  # RFC 4954, 4: it is empty
        return b""
    try:
        return base64.b64decode(args[1].encode(), validate=True)
    except ValueError:
        await smtp.push("501 5.5.2 Can't decode base64")
        return MISSING


async def _explained(smtp: SMTP, result: AuthResult | None, why: dict[str, str]) -> AuthResult:
    """Send a challenge that says why a token was refused; return the result for after it."""
    if result is not None and result.success:
        return result
    if await smtp.challenge_auth(json.dumps(why)) is MISSING:
        return _ANSWERED
    return result or _REFUSED


def _instead(response: bytes) -> str:
    """Say what PLAIN's response has in the place of two NULs; nothing of it is shown."""
    nuls = response.count(b"\0")
    if not nuls and b" " in response.strip():
        return "and this has spaces in place of the NULs (RFC 4616)"
    return f"and this has {nuls} NUL{'s' * (nuls != 1)} in place of two (RFC 4616)"


def _parse_xoauth2(response: bytes) -> tuple[str, str | None]:
    """Split ``user=NAME ^A auth=Bearer TOKEN ^A ^A``."""
    try:
        fields = dict(
            field.split("=", 1) for field in response.decode("utf-8").split("\x01") if field
        )
    except ValueError:
        return "", None
    scheme, _, token = fields.get("auth", "").partition(" ")
    return fields.get("user", ""), token if scheme.lower() == "bearer" else None


def _parse_oauthbearer(response: bytes) -> tuple[str | None, str | None]:
    """Split ``n,a=NAME, ^A host=HOST ^A port=PORT ^A auth=Bearer TOKEN ^A ^A``.

    A client that has no token yet sends ``auth=`` to learn where to get one (RFC 7628, 4.3).
    """
    header, *pairs, end, very_end = response.decode("utf-8").split("\x01")
    gs2 = _GS2_HEADER.fullmatch(header)
    fields = dict(pair.split("=", 1) for pair in pairs)
    scheme, space, token = fields.get("auth", "-").partition(" ")
    if gs2 is None or end or very_end or (scheme.lower(), space) not in _SCHEMES:
        raise Refused("the response is not as RFC 7628, 3.1 has it")
    return gs2[1] and _unescaped(gs2[1]), token if space else None


def _accepted(user: str) -> AuthResult:
    data = LoginPassword(user.encode("utf-8"), b"")
    return AuthResult(success=True, handled=True, auth_data=data)
