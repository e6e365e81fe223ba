"""No false alarms: what the standard library writes in the documented ways has no errors."""

from __future__ import annotations

import email.policy
import email.utils
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import make
from problems import mail, problems
from properties import tries

some = tries(60)
policies = st.sampled_from([email.policy.SMTP, email.policy.SMTP.clone(cte_type="7bit")])

# What an author may write; control characters and lone surrogates are refused by EmailMessage.
texts = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=200)
#: Some versions fold several names that are not ASCII wrongly; see `test_names_that_python_folds`.
names = st.text(st.sampled_from("abcäö日ß .'-_"), max_size=9).map(str.strip)
addresses = st.builds(
    Address,
    names,
    st.sampled_from(["kim", "kim.lee", "kim+tag", "o'neil"]),
    st.sampled_from(["example.com", "sub.example.org", "a-b.example"]),
)
ascii_names = st.text(st.sampled_from("abc "), max_size=30).map(str.strip)
recipients = st.one_of(
    addresses.map(lambda address: [address]),
    st.lists(st.builds(Address, ascii_names, st.just("lee"), st.just("b.example")), max_size=30),
).filter(bool)


def errors(message: EmailMessage, body: str = "8BITMIME", smtp_utf8: bool = False) -> list[str]:
    policy = message.policy.clone(utf8=smtp_utf8)
    received = make(
        message.as_bytes(policy=policy), mail_options=(f"BODY={body}",), smtp_utf8=smtp_utf8
    )
    return [f"{p.code}: {p.where}: {p.text}" for p in received.problems if p.level == "error"]


def start(policy: email.policy.EmailPolicy, sender: Address, to: list[Address]) -> EmailMessage:
    message = EmailMessage(policy)
    message["From"] = sender
    message["To"] = to
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid()
    return message


@some
@given(policies, addresses, recipients, texts, texts, st.booleans())
def test_a_text(policy, sender, to, subject, text, smtp_utf8):
    message = start(policy, sender, to)
    message["Subject"] = subject
    message.set_content(text)
    assert errors(message, smtp_utf8=smtp_utf8) == []


@some
@given(policies, addresses, recipients, texts, names, st.binary(max_size=300))
def test_all_there_is(policy, sender, to, text, name, octets):
    message = start(policy, sender, to)
    message["Cc"] = to
    message["Reply-To"] = sender
    message.set_content(text)
    message.add_alternative(f"<p>{text}</p><img src='cid:a@b'>", subtype="html")
    message.get_payload()[1].add_related(octets, "image", "png", cid="<a@b>", filename=name)
    message.add_attachment(octets, "application", "pdf", filename=name)
    message.add_attachment(text, filename=name)
    message.add_attachment(text, "csv", "utf-8", filename=f"{name}.csv")
    assert errors(message) == []
    assert errors(message, smtp_utf8=True) == []


def simple(
    text: str = "At noon.\n", policy: email.policy.EmailPolicy = email.policy.SMTP
) -> EmailMessage:
    kim, lee = Address("Kim", "kim", "example.com"), Address("Lee", "lee", "example.com")
    message = start(policy, kim, [lee])
    message["Subject"] = "Lunch"
    message.set_content(text)
    return message


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
def test_each_transfer_encoding(encoding):
    message = simple()
    text = "grün = blau\n" if encoding != "7bit" else "a = b\n"
    message.set_content(text * 50, charset="utf-8", cte=encoding)
    assert errors(message) == []


@pytest.mark.parametrize("charset", ["latin-1", "iso-8859-15", "cp1252", "utf-8", "iso-2022-jp"])
def test_each_charset(charset):
    message = simple()
    message.set_content("日本語" if charset == "iso-2022-jp" else "grün", charset=charset)
    assert errors(message) == []


def test_messages_in_messages():
    inner = simple("grün\n")
    message = simple()
    message.add_attachment(inner)
    message.add_attachment(simple(), cte="7bit")
    assert errors(message) == []


def test_long_headers():
    message = simple()
    for name, value in (
        ("Subject", "A long subject about lunch at noon, " * 60),
        ("Comments", "x" * 900),
        ("Keywords", "grün, " * 300),
        ("References", " ".join(f"<{n}@example.com>" for n in range(60))),
        ("List-Unsubscribe", "<https://example.com/?" + "x=y&" * 30 + ">"),
    ):
        del message[name]
        message[name] = value
    assert errors(message) == []


def test_groups():
    message = simple()
    kim, lee = Address("Kim", "kim", "example.com"), Address("Lee", "lee", "example.com")
    message["Cc"] = [Group("friends", [kim, lee]), kim, Group("nobody", [])]
    assert errors(message) == []


def test_many_recipients():
    message = simple()
    del message["To"]
    message["To"] = [Address(f"Lee, {n} Ü", f"lee{n}", "example.com") for n in range(300)]
    assert errors(message) == []


def test_the_older_classes():
    message = MIMEMultipart()
    message["From"] = email.utils.formataddr(("Kïm", "kim@example.com"))
    message["To"] = "lee@example.com, max@example.com"
    message["Subject"] = "Grüße"
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid()
    message.attach(MIMEText("grün", "plain", "utf-8"))
    message.attach(MIMEText("plain"))
    attached = MIMEApplication(bytes(range(256)))
    attached.add_header("Content-Disposition", "attachment", filename="a b.pdf")
    message.attach(attached)
    named = MIMEApplication(b"x")
    named.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "grün.pdf"))
    message.attach(named)
    message.attach(MIMEMessage(MIMEText("inner")))
    assert make(message.as_bytes(policy=message.policy.clone(linesep="\r\n"))).problems == ()


def test_the_old_way_to_have_it_wrong():
    """A header that is set twice is there twice, and a Bcc field is sent."""
    message = MIMEText("x")
    for name, value in (("From", "a@b.example"), ("To", "c@d.example"), ("To", "e@f.example")):
        message[name] = value
    message["Bcc"] = "g@h.example"
    raw = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    found = [problem.code for problem in make(raw).problems if problem.level == "error"]
    assert found == ["field-repeated", "bcc-leaked"]


def test_names_that_python_folds():
    """Some versions encode the comma behind a long name, so that there is none (RFC 5322, 3.4)."""
    word = "=?utf-8?b?YsO8IMO8Y+aXpeaXpWLDvGHDvGPDvMO25pys5pelw7zmnKxj?="
    raw = mail(f"To:\r\n {word} <kim@example.com> =?utf-8?q?=2C?=\r\n {word} <lee@example.com>")
    assert problems(raw) == [("address-invalid", "header To")]
    raw = mail("To: =?utf-8?b?w5/DpC5hw7zDtsO =?utf-8?b?OD89IMO8?= <kim@example.com>")
    assert problems(raw) == [("encoded-word-broken", "header To")]
