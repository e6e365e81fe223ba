"""Real clients: what each of them sends arrives, octet for octet.

Clients convert what they are given, each in its own way.  So a test names what
its client has to put on the wire, and compares the message with that.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.policy import SMTP

import aiosmtplib
import pytest
from helpers import only_message
from mailers import Mailers, as_ordered
from programs import DOMAIN, HEAD, RECIPIENTS, SENDER, TIMEOUT, Programs, unix
from raw_client import stuff

from lazr_smtptest import QueueController

CONTENTS = {
    "plain": HEAD + b"plain\r\n\r\nHello.\r\n\r\nThis is the end.\r\n",
    "dots": HEAD + b"dots\r\n\r\n.\r\n..\r\n.x\r\n...\r\nx.\r\n\r\n.\r\n.\r\n",
    "8-bit": HEAD
    + "Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nżółw € 🐢\r\n".encode(),
    "headers only": HEAD + b"headers only\r\n\r\n",
    "long": HEAD + b"long\r\n\r\n" + b"".join(b"%d." % i * 150 + b"\r\n" for i in range(2000)),
}


# Each client sends each content.


def with_swaks(server: QueueController, programs: Programs, content: bytes) -> None:
    # swaks' own conversions lose dots at the end.  Without them it sends the
    # file as it is, and CRLF, so the rest of the end of data has to be there.
    programs.swaks(server, "--no-data-fixup", "--data", "@" + programs.file(stuff(content) + b"."))


def with_msmtp(server: QueueController, programs: Programs, content: bytes) -> None:
    # It wants the lines of a file, and sends CRLF.
    programs.msmtp(server, "--", *RECIPIENTS, given=unix(content))


def with_curl(server: QueueController, programs: Programs, content: bytes) -> None:
    # It sends the file as it is.
    programs.curl(server, "--upload-file", programs.file(content))


def with_curl_crlf(server: QueueController, programs: Programs, content: bytes) -> None:
    # It makes CRLF of LF.
    programs.curl(server, "--crlf", "--upload-file", programs.file(unix(content)))


def with_smtplib(server: QueueController, programs: Programs, content: bytes) -> None:
    with smtplib.SMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        assert client.sendmail(SENDER, RECIPIENTS, content) == {}


def with_aiosmtplib(server: QueueController, programs: Programs, content: bytes) -> None:
    async def send() -> None:
        async with aiosmtplib.SMTP(
            hostname=server.host, port=server.port, local_hostname=DOMAIN, timeout=TIMEOUT
        ) as client:
            refused, _ = await client.sendmail(SENDER, RECIPIENTS, content)
            assert refused == {}

    asyncio.run(send())


def with_exim(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.exim(server, content)


def with_postfix(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.postfix(server, content)


def with_neomutt(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.neomutt(server, content)


def with_go(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.go(server, content)


CLIENTS = [
    with_swaks,
    with_msmtp,
    with_curl,
    with_curl_crlf,
    with_smtplib,
    with_aiosmtplib,
    with_exim,
    with_postfix,
    with_neomutt,
    with_go,
]


@pytest.mark.parametrize(
    ("client", "content"),
    [
        pytest.param(client, content, id=f"{client.__name__}-{name}")
        for client in CLIENTS
        for name, content in CONTENTS.items()
        # NeoMutt sends no message without a body.
        if (client, name) != (with_neomutt, "headers only")
    ],
)
def test_content_and_envelope_arrive(
    server: QueueController,
    mailers: Mailers,
    client: Callable[[QueueController, Programs, bytes], None],
    content: bytes,
) -> None:
    before = datetime.now(timezone.utc)
    client(server, mailers, content)
    message = only_message(server)
    assert as_ordered(message, content) == content
    envelope = message.envelope
    assert envelope.mail_from == SENDER
    assert b"bcc@example.com" not in message.raw
    assert envelope.helo == DOMAIN
    assert envelope.smtp_utf8 is (client is with_go)  # it says so wherever that is offered
    if client is with_postfix:  # which sorts the recipients, and names each twice
        assert envelope.rcpt_tos == tuple(sorted(RECIPIENTS))
        assert envelope.rcpt_options == tuple(f"ORCPT=rfc822;{to}" for to in envelope.rcpt_tos)
    else:
        assert envelope.rcpt_tos == RECIPIENTS
        assert envelope.rcpt_options == ()
    assert envelope.tls is None
    assert envelope.auth_user is None
    assert envelope.peer[0] in {"127.0.0.1", "::1"}
    assert envelope.received_at.utcoffset() == timedelta(0)
    assert before <= envelope.received_at <= datetime.now(timezone.utc)


# What is special to each.


def test_swaks_converts_line_ends(server: QueueController, programs: Programs) -> None:
    # It ends the data with CRLF, dot, so the file's last line end is one more.
    content = unix(CONTENTS["plain"]).rstrip(b"\n")
    programs.swaks(server, "--data", "@" + programs.file(content))
    assert only_message(server).raw == CONTENTS["plain"]


def test_swaks_pipelines(server: QueueController, programs: Programs) -> None:
    content = CONTENTS["dots"]
    programs.swaks(
        server,
        "--pipeline",
        "--no-data-fixup",
        "--data",
        "@" + programs.file(stuff(content) + b"."),
    )
    message = only_message(server)
    assert message.raw == content
    assert message.envelope.rcpt_tos == RECIPIENTS


def test_swaks_own_message(server: QueueController, programs: Programs) -> None:
    programs.swaks(server, "--body", "żółw", "--header", "X-Test: one")
    message = only_message(server)
    assert message["X-Test"] == "one"
    assert message["From"] == SENDER
    assert "żółw\r\n".encode() in message.raw


def test_swaks_null_reverse_path(server: QueueController, programs: Programs) -> None:
    programs.swaks(server, "--from=<>", "--data", "@" + programs.file(b"Subject: bounce\n\nx"))
    message = only_message(server)
    assert message.envelope.mail_from == ""
    assert message.raw == b"Subject: bounce\r\n\r\nx\r\n"


def test_msmtp_takes_recipients_out_of_bcc(server: QueueController, programs: Programs) -> None:
    headers = b"From: kim@example.com\nTo: lee@example.com\nBcc: bcc@example.com\nDate: x\n"
    programs.msmtp(
        server, "--set-msgid-header=off", "-t", given=headers + b"Subject: bcc\n\nHello.\n"
    )
    message = only_message(server)
    assert message.envelope.rcpt_tos == RECIPIENTS
    assert message.raw == (
        b"From: kim@example.com\r\nTo: lee@example.com\r\nDate: x\r\n"
        b"Subject: bcc\r\n\r\nHello.\r\n"
    )


def test_msmtp_ends_the_last_line(server: QueueController, programs: Programs) -> None:
    programs.msmtp(server, "--", *RECIPIENTS, given=HEAD.replace(b"\r", b"") + b"x\n\n.")
    assert only_message(server).raw == HEAD + b"x\r\n\r\n.\r\n"


def test_curl_declares_the_size(server: QueueController, programs: Programs) -> None:
    content = CONTENTS["plain"]
    with_curl(server, programs, content)
    assert only_message(server).envelope.mail_options == (f"SIZE={len(content)}",)


def test_curl_sends_bare_line_feeds(server: QueueController, programs: Programs) -> None:
    # Without --crlf it leaves them alone; they end no line, so CRLF is added.
    content = b"Subject: unix\n\nHello.\n.\nx\n"
    with_curl(server, programs, content)
    assert only_message(server).raw == content + b"\r\n"


MESSAGE_ID = re.compile(rb"^Message-Id: (<.*>)\r$", re.MULTILINE)


@pytest.mark.parametrize("size", [1, 80, 2_000, 100_000])
@pytest.mark.parametrize("disconnect", [[], ["-d"]], ids=["a connection each", "few connections"])
def test_smtp_source(
    server: QueueController, programs: Programs, disconnect: list[str], size: int
) -> None:
    # Lines of 80 octets with their CRLF, numbered in their first; then what is
    # left, without a line end, which it adds.
    filling = bytearray(b"X" * size)
    for end in range(80, size, 80):
        filling[end - 80] = b"0123456789"[end // 80 % 10]
        filling[end - 2 : end] = b"\r\n"
    programs.run(
        "smtp-source",
        *disconnect,
        f"-l{size}",
        "-m24",
        "-s6",
        f"-M{DOMAIN}",
        f"-f{SENDER}",
        "-tlee@example.com",
        f"inet:{server.host}:{server.port}",
    )
    messages = list(server)
    assert len(messages) == 24
    bodies = {message.raw.partition(b"\r\n\r\n")[2] for message in messages}
    assert bodies == {bytes(filling) + b"\r\n"}
    identities = {MESSAGE_ID.findall(message.raw)[0] for message in messages}
    assert len(identities) == 24
    peers = {message.envelope.peer for message in messages}
    assert len(peers) == (6 if disconnect else 24)
    assert [message.envelope.mail_from for message in messages] == [SENDER] * 24
    assert [message.envelope.rcpt_tos for message in messages] == [("lee@example.com",)] * 24
    assert [message.envelope.helo for message in messages] == [DOMAIN] * 24
    numbers = [message.envelope.sequence for message in messages]
    assert numbers == list(range(numbers[0], numbers[0] + 24))


def test_smtp_source_with_many_recipients(server: QueueController, programs: Programs) -> None:
    programs.run(
        "smtp-source",
        "-r50",
        f"-f{SENDER}",
        "-tlee@example.com",
        f"inet:{server.host}:{server.port}",
    )
    recipients = only_message(server).envelope.rcpt_tos
    assert sorted(recipients) == sorted(
        ["lee@example.com", *(f"{number}lee@example.com" for number in range(2, 51))]
    )


def written(**headers: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    for name, value in headers.items():
        message[name] = value
    return message


def test_smtplib_send_message_hides_bcc(server: QueueController) -> None:
    message = written(From=SENDER, To="lee@example.com", Bcc="bcc@example.com", Subject="bcc")
    message.set_content(".\n..\nHello.\n")
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        assert client.send_message(message) == {}
    received = only_message(server)
    assert received.envelope.mail_from == SENDER
    assert received.envelope.rcpt_tos == RECIPIENTS
    assert received.raw == (
        b"From: kim@example.com\r\n"
        b"To: lee@example.com\r\n"
        b"Subject: bcc\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"MIME-Version: 1.0\r\n"
        b"\r\n"
        b".\r\n..\r\nHello.\r\n"
    )


def test_smtplib_sends_internationalized_addresses(server: QueueController) -> None:
    message = written(From="kïm@exämple.com", To="łee@example.com", Subject="żółw")
    message.set_content("🐢\n", cte="8bit")
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        assert client.send_message(message) == {}
    received = only_message(server)
    assert received.envelope.mail_from == "kïm@exämple.com"
    assert received.envelope.rcpt_tos == ("łee@example.com",)
    assert received.envelope.smtp_utf8 is True
    assert set(received.envelope.mail_options) >= {"SMTPUTF8", "BODY=8BITMIME"}
    assert (
        received.raw
        == (
            "From: kïm@exämple.com\r\n"
            "To: łee@example.com\r\n"
            "Subject: żółw\r\n"
            'Content-Type: text/plain; charset="utf-8"\r\n'
            "Content-Transfer-Encoding: 8bit\r\n"
            "MIME-Version: 1.0\r\n"
            "\r\n"
            "🐢\r\n"
        ).encode()
    )
    assert received["subject"] == "żółw"
    assert received["to"] == "łee@example.com"


def test_smtplib_sends_many_in_one_session(server: QueueController) -> None:
    contents = [b"Subject: %d\r\n\r\n%s\r\n" % (i, b"." * i) for i in range(50)]
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        for content in contents:
            client.sendmail(SENDER, RECIPIENTS, content)
            assert server.queue.get_nowait().raw == content


def test_smtplib_null_reverse_path(server: QueueController) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT) as client:
        client.sendmail("", RECIPIENTS, b"Subject: bounce\r\n")
    assert only_message(server).envelope.mail_from == ""


def test_aiosmtplib_send_hides_bcc(server: QueueController) -> None:
    message = written(From=SENDER, To="lee@example.com", Bcc="bcc@example.com", Subject="bcc")
    message.set_content(".\nHello.\n")
    refused, _ = asyncio.run(
        aiosmtplib.send(message, hostname=server.host, port=server.port, timeout=TIMEOUT)
    )
    assert refused == {}
    received = only_message(server)
    assert received.envelope.mail_from == SENDER
    assert received.envelope.rcpt_tos == RECIPIENTS
    assert received.raw == (
        b"From: kim@example.com\r\n"
        b"To: lee@example.com\r\n"
        b"Subject: bcc\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"MIME-Version: 1.0\r\n"
        b"\r\n"
        b".\r\nHello.\r\n"
    )


def test_aiosmtplib_sends_at_the_same_time(server: QueueController) -> None:
    contents = [b"Subject: %d\r\n\r\n" % i + b"x\r\n" * 100 * i for i in range(30)]

    async def send_all() -> None:
        await asyncio.gather(
            *(
                aiosmtplib.send(
                    content,
                    sender=SENDER,
                    recipients=list(RECIPIENTS),
                    hostname=server.host,
                    port=server.port,
                    timeout=TIMEOUT,
                )
                for content in contents
            )
        )

    asyncio.run(send_all())
    messages = list(server)
    assert sorted(message.raw for message in messages) == sorted(contents)
    assert {message.envelope.rcpt_tos for message in messages} == {RECIPIENTS}
