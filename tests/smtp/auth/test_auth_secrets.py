"""Secrets stay secret, whatever becomes of a login."""

from __future__ import annotations

import hmac
import logging

import pytest
from auth_client import LOGINS, MECHANISMS, AuthClient, b64, plain, xoauth2
from helpers import serving

from lazr_smtptest import QueueController, QueueServer

SECRETS = {"kim": "hunter2-PaSsWoRd"}


def traces(secret: str, user_name: str = "kim") -> list[str]:
    """Give the ways in which a secret can be written."""
    bare = secret.rstrip("=")
    encoded = [b64(secret), plain(user_name, secret), xoauth2(user_name, secret)]
    # The last group of four depends on what follows.
    return [bare, *(text.decode()[: len(text) // 4 * 4 - 4] for text in encoded)]


CONVERSATIONS = {
    "PLAIN": [b"AUTH PLAIN", plain("kim", SECRETS["kim"])],
    "PLAIN, initial": [b"AUTH PLAIN " + plain("kim", SECRETS["kim"])],
    "plain, initial": [b"auth  plain  " + plain("kim", SECRETS["kim"])],
    "PLAIN, refused": [b"AUTH PLAIN " + plain("lee", SECRETS["kim"])],
    "PLAIN, too many NULs": [b"AUTH PLAIN " + b64("\0kim\0x\0hunter2-PaSsWoRd")],
    "PLAIN, too many words": [b"AUTH PLAIN x " + plain("kim", SECRETS["kim"])],
    "LOGIN": [b"AUTH LOGIN", b64("kim"), b64(SECRETS["kim"])],
    "LOGIN, refused": [b"AUTH LOGIN", b64("lee"), b64(SECRETS["kim"])],
    "LOGIN, not encoded": [b"AUTH LOGIN", b64("kim"), SECRETS["kim"].encode()],
    "PLAIN, not encoded": [b"AUTH PLAIN", b"\0kim\0" + SECRETS["kim"].encode()],
    "PLAIN, initial, not encoded": [b"AUTH PLAIN " + SECRETS["kim"].encode()],
    "XOAUTH2": [b"AUTH XOAUTH2", xoauth2("kim", SECRETS["kim"])],
    "XOAUTH2, initial": [b"AUTH XOAUTH2 " + xoauth2("kim", SECRETS["kim"])],
    "XOAUTH2, refused": [b"AUTH XOAUTH2 " + xoauth2("lee", SECRETS["kim"]), b""],
    "CRAM-MD5, initial": [b"AUTH CRAM-MD5 " + b64(SECRETS["kim"])],
    "unknown": [b"AUTH SESAME " + b64(SECRETS["kim"])],
    "a tab": [b"AUTH\tPLAIN " + plain("kim", SECRETS["kim"])],
    "a space in front": [b" AUTH PLAIN " + plain("kim", SECRETS["kim"])],
}


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "pipelined"])
@pytest.mark.parametrize("lines", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_secrets_stay_secret(caplog, lines, pipelined):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "mail.log")
    with QueueController(auth=SECRETS) as controller:
        with AuthClient(controller) as client:
            around = [b"NOOP", *lines, b"NOOP again", b"QUIT"]
            if pipelined:
                client.send(b"".join(line + b"\r\n" for line in around))
                while client.reply().code != 221:
                    continue
            else:
                replies = [client.command(line) for line in around]
                assert replies[-1].code == 221
        shown = "\n".join(
            [
                str(controller.sessions()),
                *(str(line) for line in controller.sessions()[-1].dialogue),
                repr(controller),
                repr(controller.server),
                caplog.text,
                *(f"{vars(record)}" for record in caplog.records),
            ]
        )
    shown += caplog.text
    assert "NOOP again" in caplog.text  # or there is no log to look at
    assert "NOOP again" in shown
    assert [trace for trace in traces(SECRETS["kim"]) if trace in shown] == []
    assert [trace for trace in traces(SECRETS["kim"], "lee") if trace in shown] == []


def test_cram_md5_answers_are_left_out(server, client):
    challenge = client.ask(b"AUTH CRAM-MD5")
    digest = hmac.new(LOGINS["kim"].encode(), challenge, "md5").hexdigest()
    answer = b64(f"kim {digest}")
    assert client.command(answer).code == 235
    dialogue = server.sessions()[-1].dialogue
    text = "\n".join(line.text for line in dialogue)
    assert answer.decode() not in text
    assert digest not in text
    assert "AUTH CRAM-MD5" in text
    assert [line.text for line in dialogue if line.speaker == "S"][-1].startswith("235 ")


def test_the_envelope_and_the_messages_have_no_secret():
    with QueueController(auth=SECRETS) as controller:
        with AuthClient(controller) as client:
            assert client.log_in("PLAIN", "kim", SECRETS["kim"]).code == 235
            client.deliver(b"Subject: hello\r\n")
        message = controller.queue.get_nowait()
    assert SECRETS["kim"] not in repr(message.envelope) + message.as_string()


class Nosy(QueueServer):
    """Looks for a secret in what hooks are given."""

    async def handle_NOOP(self, server, session, envelope, arg):
        return "250 " + repr((session.auth_data, session.login_data, vars(session)))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_hooks_see_who_it_is(mechanism):
    with serving(Nosy, auth=SECRETS) as controller, AuthClient(controller) as client:
        assert client.log_in(mechanism, "kim", SECRETS["kim"]).code == 235
        reply = client.command(b"NOOP")
        assert "b'kim'" in reply.text
        assert SECRETS["kim"] not in reply.text
