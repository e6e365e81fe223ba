"""No false alarms: correct mail that real programs send has no errors, and their sessions neither.

`RIGHT` lists the few errors that there are nevertheless, and the reason of each.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json
import smtplib
import sys
from collections.abc import Callable, Iterator
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, NamedTuple

import aiosmtplib
import django
import pytest
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.test import override_settings
from helpers import fresh, until
from postfix import running_postfix
from programs import DOMAIN, NODE_MODULES, RECIPIENTS, SENDER, TIMEOUT, Programs, needed

from lazr_smtptest import Message, QueueController
from lazr_smtptest.checks import CODES

pytestmark = pytest.mark.timeout(60)

TO = RECIPIENTS[0]
PHP_MAILER = "/usr/share/php/libphp-phpmailer/autoload.php"

BACKEND = "django.core.mail.backends.smtp.EmailBackend"

if not settings.configured:
    settings.configure()


class Mail(NamedTuple):
    """What a client is to send."""

    name: str
    subject: str
    text: str
    html: str = ""
    filename: str = ""
    content: bytes = b""
    to: str = TO


MAILS = {
    "plain": Mail("Kim", "Lunch", "At noon.\n.\nBring a spoon.\n"),
    "odd": Mail(
        'Kim "K." Lee (Jr.), b.example',
        'Re: [a@b.example] 100% = "fine"; <ok>?',
        "From here\n=3D =?utf-8?q?x?= 100%\n--x--\n-- \nhttps://b.example/?a=b&c=d\n",
    ),
    "foreign": Mail("Kïm Żółw", "Grüße, żółw & 日本語", "Grün = żółw.\n日本語 🐢\n"),
    "attached": Mail(
        "Kïm, Lee",
        "Das Grüne: " + "Grüße, " * 20 + "Kïm",
        "Grün.\n" + "Ä long line. " * 90 + "\n",
        f"<p>Grün.</p>\n<p>{'Ä long line. ' * 90}</p>\n",
        "grün 1.pdf",
        bytes(range(256)) * 5,
    ),
}


def written(mail: Mail, **policy: Any) -> EmailMessage:
    """Write a mail as the manual of the standard library does."""
    message = EmailMessage(policy=SMTP.clone(**policy))
    message["From"] = Address(mail.name, addr_spec=SENDER)
    message["To"] = mail.to
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid(domain=DOMAIN)
    message["Subject"] = mail.subject
    message.set_content(mail.text)
    if mail.html:
        message.add_alternative(mail.html, subtype="html")
        message.add_attachment(mail.content, "application", "pdf", filename=mail.filename)
    return message


def header_of(mail: Mail) -> list[str]:
    """Give the header lines to a program that sends them as they are."""
    return [
        f"From: {email.utils.formataddr((mail.name, SENDER))}",
        f"Subject: {Header(mail.subject, 'utf-8', 75, 'Subject').encode(linesep='')}",
    ]


def job(server: QueueController, mail: Mail) -> bytes:
    """Give a mail to a script."""
    data = {**mail._asdict(), "content": base64.b64encode(mail.content).decode()}
    data |= {"host": server.host, "port": server.port, "domain": DOMAIN}
    return json.dumps({**data, "sender": SENDER}).encode()


# Each client sends each mail.


def smtplib_send_message(server: QueueController, programs: Programs, mail: Mail) -> None:
    with smtplib.SMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        assert client.send_message(written(mail)) == {}


def smtplib_sendmail(server: QueueController, programs: Programs, mail: Mail) -> None:
    with smtplib.SMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        assert client.sendmail(SENDER, RECIPIENTS, written(mail).as_bytes()) == {}


def smtplib_declared(server: QueueController, programs: Programs, mail: Mail) -> None:
    with smtplib.SMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        content = written(mail).as_bytes()
        assert client.sendmail(SENDER, RECIPIENTS, content, ["BODY=8BITMIME"]) == {}


def smtplib_7bit(server: QueueController, programs: Programs, mail: Mail) -> None:
    with smtplib.SMTP(server.host, server.port, DOMAIN, timeout=TIMEOUT) as client:
        assert client.send_message(written(mail, cte_type="7bit")) == {}


def with_aiosmtplib(server: QueueController, programs: Programs, mail: Mail) -> None:
    host, port = server.host, server.port
    sending = aiosmtplib.send(written(mail), hostname=host, port=port, timeout=TIMEOUT)
    refused, _ = asyncio.run(sending)
    assert refused == {}


def with_django(server: QueueController, programs: Programs, mail: Mail) -> None:
    sender = str(Address(mail.name, addr_spec=SENDER))
    message = EmailMultiAlternatives(
        mail.subject, mail.text, sender, [mail.to], bcc=RECIPIENTS[1:]
    )
    if mail.html:
        message.attach_alternative(mail.html, "text/html")
        message.attach(mail.filename, mail.content, "application/pdf")
    changed: dict[str, Any] = {"EMAIL_HOST": server.host, "EMAIL_PORT": server.port}
    if django.VERSION >= (6, 1):
        options = {"host": server.host, "port": server.port}
        changed = {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": options}}}
    with override_settings(**changed):
        assert message.send() == 1


#: In a process of its own, since it changes how all of Python's mail is encoded.
FLASK = """
import base64, json, sys
from email.headerregistry import Address
from flask import Flask
from flask_mail import Mail, Message

job = json.load(sys.stdin)
app = Flask(__name__)
app.config.update(MAIL_SERVER=job["host"], MAIL_PORT=job["port"])
mail = Mail(app)
with app.app_context():
    message = Message(job["subject"], [job["to"]], job["text"], job["html"] or None)
    message.sender = str(Address(job["name"], addr_spec=job["sender"]))
    if job["html"]:
        message.attach(job["filename"], "application/pdf", base64.b64decode(job["content"]))
    mail.send(message)
"""


def flask_mail(server: QueueController, programs: Programs, mail: Mail) -> None:
    programs.run(sys.executable, "-c", FLASK, given=job(server, mail))


def swaks(server: QueueController, programs: Programs, mail: Mail) -> None:
    arguments = [word for line in header_of(mail) for word in ("--header", line)]
    if not mail.html:
        arguments += ["--add-header", "MIME-Version: 1.0"]
        arguments += ["--add-header", "Content-Type: text/plain; charset=utf-8"]
        if not mail.text.isascii():
            arguments += ["--add-header", "Content-Transfer-Encoding: 8bit"]
        arguments += ["--body", mail.text]
    else:
        for kind, text in ("plain", mail.text), ("html", mail.html):
            arguments += ["--attach-type", f"text/{kind}; charset=utf-8", "--attach-body", text]
        file = programs.file(mail.content, "attached.pdf")
        arguments += ["--attach-type", "application/pdf", "--attach-name", "a b.pdf"]
        arguments += ["--attach", f"@{file}"]
    programs.swaks(server, *arguments)


def msmtp(server: QueueController, programs: Programs, mail: Mail) -> None:
    # It wants the lines of a file.
    content = written(mail).as_bytes(policy=SMTP.clone(linesep="\n"))
    programs.msmtp(server, "--", *RECIPIENTS, given=content)


def curl(server: QueueController, programs: Programs, mail: Mail) -> None:
    programs.curl(server, "--upload-file", programs.file(written(mail).as_bytes()))


def curl_form(server: QueueController, programs: Programs, mail: Mail) -> None:
    header = [*header_of(mail), f"To: {mail.to}", f"Date: {email.utils.formatdate()}"]

    def text(kind: str, content: str) -> str:
        path = programs.file(content.replace("\n", "\r\n").encode(), kind)
        return f"=<{path};type=text/{kind}; charset=utf-8;encoder=quoted-printable"

    form = [text("plain", mail.text)]
    if mail.html:
        form = ["=(;type=multipart/alternative", *form, text("html", mail.html), "=)"]
        path = programs.file(mail.content, "content")
        form.append(f'=@{path};type=application/pdf;filename="a b.pdf";encoder=base64')
    arguments = [word for line in header for word in ("--header", line)]
    arguments += [word for part in form for word in ("--form", part)]
    programs.curl(server, *arguments)


MUTT = """
set smtp_url="smtp://{host}:{port}/" ssl_force_tls=no copy=no
set charset=utf-8 hostname={domain} use_envelope_from=yes
set from={sender} realname="{name}"
"""


def mutt(server: QueueController, programs: Programs, mail: Mail) -> None:
    place = {"host": server.host, "port": server.port, "domain": DOMAIN}
    settings = MUTT.format(**place, sender=SENDER, name=mail.name.replace('"', r"\""))
    arguments = ["-n", "-F", programs.file(settings.encode(), "muttrc"), "-s", mail.subject]
    if mail.html:
        arguments += ["-a", programs.file(mail.content, mail.filename)]
    programs.run("mutt", *arguments, "--", mail.to, given=mail.text.encode())


PHP = """
require $argv[1];
$job = json_decode(stream_get_contents(STDIN));
$mail = new PHPMailer\\PHPMailer\\PHPMailer(true);
$mail->isSMTP();
$mail->Host = $job->host;
$mail->Port = $job->port;
$mail->Hostname = $job->domain;
$mail->CharSet = 'UTF-8';
$mail->setFrom($job->sender, $job->name);
$mail->addAddress($job->to);
$mail->Subject = $job->subject;
$mail->Body = $job->text;
if ($job->html) {
    $mail->isHTML();
    $mail->Body = $job->html;
    $mail->AltBody = $job->text;
    $mail->addStringAttachment(base64_decode($job->content), $job->filename);
}
$mail->send();
"""


def phpmailer(server: QueueController, programs: Programs, mail: Mail) -> None:
    programs.run("php", "-r", PHP, "--", needed(PHP_MAILER), given=job(server, mail))


NODE = """
module.paths.push(process.argv[1]);
const job = JSON.parse(require("fs").readFileSync(0, "utf8"));
const {host, port, domain} = job;
const message = {
  from: {name: job.name, address: job.sender}, to: job.to, subject: job.subject, text: job.text
};
if (job.html) {
  message.html = job.html;
  message.attachments = [{filename: job.filename, content: job.content, encoding: "base64"}];
}
require("nodemailer").createTransport({host, port, name: domain}).sendMail(message);
"""


def nodemailer(server: QueueController, programs: Programs, mail: Mail) -> None:
    needed(f"{NODE_MODULES}/nodemailer")
    programs.run("node", "-e", NODE, "--", NODE_MODULES, given=job(server, mail))


CLIENTS: list[Callable[[QueueController, Programs, Mail], None]] = [
    smtplib_send_message,
    smtplib_sendmail,
    smtplib_declared,
    smtplib_7bit,
    with_aiosmtplib,
    with_django,
    flask_mail,
    swaks,
    msmtp,
    curl,
    curl_form,
    mutt,
    phpmailer,
    nodemailer,
]


class Right(NamedTuple):
    """An error that a client gets, and is right."""

    client: Callable[..., None]
    mails: str
    code: str
    rfc: str
    why: str


UNDECLARED = (
    "8bit-undeclared",
    "RFC 6152 3",
    "Eight-bit content needs BODY=8BITMIME in MAIL; a server may take the content as 7bit.",
)
RIGHT = [
    Right(smtplib_send_message, "foreign", *UNDECLARED),
    Right(smtplib_sendmail, "foreign", *UNDECLARED),
    Right(with_django, "foreign", *UNDECLARED),
    Right(flask_mail, "foreign attached", *UNDECLARED),
    Right(
        flask_mail,
        "attached",
        "line-too-long",
        "RFC 5322 2.1.1",
        "It sends the lines of a text as they are; most servers refuse such, or break them.",
    ),
    Right(swaks, "foreign", *UNDECLARED),
    Right(msmtp, "foreign", *UNDECLARED),
    Right(curl, "foreign", *UNDECLARED),
    Right(phpmailer, "foreign", *UNDECLARED),
]


@pytest.fixture(scope="module")
def running() -> Iterator[QueueController]:
    # Long lines are to arrive, so that they can be seen.
    with QueueController("127.0.0.1", line_length_limit=5000) as controller:
        yield controller


def errors(server: QueueController, message: Message) -> dict[str, list[str]]:
    """Give the errors of a message, and of all sessions once they have ended, by code."""
    until(lambda: all(session.ended != "open" for session in server.sessions()))
    problems = [*message.problems]
    for session in server.sessions():
        problems += session.problems
    found: dict[str, list[str]] = {}
    for problem in problems:
        if problem.level == "error":
            found.setdefault(problem.code, []).append(f"{problem.where}: {problem.text}")
    return found


def check_arrived(message: Message, mail: Mail) -> None:
    """Or a mail without errors would not be the one that was meant."""
    assert message.envelope.mail_from == SENDER
    assert mail.to in message.envelope.rcpt_tos
    assert message.header("Subject").strip() == mail.subject
    assert message["From"].addresses[0].display_name == mail.name
    # smtplib's send_message writes it so, as files of several mails need it.
    assert message.text.replace(">From ", "From ").split() == mail.text.split()
    assert message.html.split() == mail.html.split()
    contents = [one.data for one in message.attachments if one.type != "text/html"]
    assert contents == ([mail.content] if mail.content else [])


@pytest.mark.parametrize("name", MAILS)
@pytest.mark.parametrize("client", CLIENTS)
def test_correct_mail_has_no_errors(running, programs, client, name):
    server, mail = fresh(running), MAILS[name]
    client(server, programs, mail)
    message = server.wait(TIMEOUT)
    # mutt writes no HTML.
    check_arrived(message, mail._replace(html="") if client is mutt else mail)
    found = errors(server, message)
    right = {row.code for row in RIGHT if row.client is client and name in row.mails.split()}
    assert {*found} == right, found


@pytest.mark.parametrize("name", MAILS)
@pytest.mark.parametrize("client", [mutt, nodemailer])
def test_addresses_that_are_not_ascii(running, programs, client, name):
    """SMTPUTF8 declares 8-bit octets in the header, without BODY= (RFC 6531, 3.6)."""
    server, mail = fresh(running), MAILS[name]._replace(to="łee@example.com")
    client(server, programs, mail)
    message = server.wait(TIMEOUT)
    assert message.envelope.smtp_utf8
    assert f"To: {mail.to}\r\n".encode() in message.raw
    assert errors(server, message) == {}


def test_what_is_right_is_written():
    for row in RIGHT:
        level, _, rfc = CODES[row.code]
        assert (level, rfc) == ("error", row.rfc)
        assert set(row.mails.split()) <= {*MAILS}
        assert row.why


# Postfix relays, and writes mail itself.


@pytest.fixture(scope="module")
def postfix(running: QueueController) -> Iterator[int]:
    with running_postfix(relay_to=running.port) as port:
        yield port


def submit(port: int, mail: Mail) -> None:
    with smtplib.SMTP("127.0.0.1", port, DOMAIN, timeout=TIMEOUT) as client:
        content = written(mail).as_bytes()
        assert client.sendmail(SENDER, RECIPIENTS, content, ["BODY=8BITMIME"]) == {}


@pytest.mark.parametrize("name", MAILS)
def test_mail_that_postfix_relays(running, postfix, name):
    server, mail = fresh(running), MAILS[name]
    submit(postfix, mail)
    message = server.wait(TIMEOUT)
    check_arrived(message, mail)
    assert message.envelope.helo == "mx.example"
    assert errors(server, message) == {}


@pytest.mark.parametrize("name", MAILS)
def test_mail_that_postfix_returns(running, postfix, name):
    """What is refused comes back as a report (RFC 3464)."""
    server = fresh(running)
    server.fault("EOM", "554 5.7.1 No", when=TO)
    submit(postfix, MAILS[name])
    message = server.wait(TIMEOUT)
    assert message.get_content_type() == "multipart/report"
    assert message.envelope.mail_from == ""
    assert errors(server, message) == {}
