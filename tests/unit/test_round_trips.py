"""What the standard library was given to write comes back when a test reads it."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.charset import QP, Charset
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.mime.application import MIMEApplication
from email.mime.image import MIMEImage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP, SMTPUTF8, default
from email.utils import formataddr
from encodings.aliases import aliases
from typing import Any

import pytest
from corpus import PNG
from helpers import cpu_seconds
from hypothesis import assume, given
from hypothesis import strategies as st
from messages import make
from properties import tries

from lazr_smtptest._parent.matching import Criteria
from lazr_smtptest.message import Attachment, Message

POLICIES = [
    default,
    SMTP,
    SMTPUTF8,
    default.clone(cte_type="7bit"),
    SMTP.clone(max_line_length=40),
]
policies = st.sampled_from(POLICIES)
# A surrogate is no character, a control character none of a mail's text, and a byte order
# mark none of a text's beginning.
characters = st.characters(
    exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\ufeff"
)
#: What the library takes for a text ends with a line end.
texts = st.text(characters | st.just("\n"), max_size=150).map(lambda text: f"{text}\n")
#: What is a header's: one line, with one blank between words.
headers = st.text(characters, min_size=1, max_size=120).map(lambda text: " ".join(text.split()))
names = st.text(characters, min_size=1, max_size=40).map(lambda text: " ".join(text.split()))
data = st.binary(max_size=200)
locals_ = st.from_regex(r"[a-z0-9]{1,12}([.+_-][a-z0-9]{1,8})?", fullmatch=True)
addresses = locals_.map(lambda local: f"{local}@example.com")


def meets(message: Message, **wanted: Any) -> bool:
    return not Criteria(**wanted).unmet(message)


def named(name: str, address: str) -> re.Pattern[str]:
    """Match a name and an address, with any blanks in it.

    Where the library folds a list it loses a blank between two encoded words, and makes
    one of a comma.
    """
    wanted = "".join(f"{name}<{address}>".split()) if name else address
    return re.compile(r"\s*".join(map(re.escape, wanted)))


def sent(message: Any, policy: Any = None) -> Message:
    """Return what is read of a message that the standard library wrote, as SMTP sends it."""
    raw = message.as_bytes(policy=policy) if policy else message.as_bytes()
    return make(re.sub(rb"\r?\n", b"\r\n", raw))


# EmailMessage.


@tries(20)
@given(
    texts,
    policies,
    st.sampled_from(["plain", "html"]),
    st.sampled_from([None, "base64", "quoted-printable", "8bit"]),
)
def test_one_text(text, policy, subtype, encoding):
    assume(encoding != "8bit" or all(len(line.encode()) < 900 for line in text.split("\n")))
    message = EmailMessage(policy=policy)
    message.set_content(text, subtype=subtype, cte=encoding)
    read = sent(message)
    assert (read.text, read.html) == ((text, "") if subtype == "plain" else ("", text))
    assert read.attachments == []
    assert not text.strip() or subtype == "html" or meets(read, text=text)


@tries(20)
@given(texts, texts, data, data, names, policies)
def test_a_tree_of_parts(text, html, picture, file, name, policy):
    assume(name)
    message = EmailMessage(policy=policy)
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    message.get_payload()[1].add_related(picture, "image", "png", cid="<a@example.com>")
    message.add_attachment(file, "application", "pdf", filename=name)
    message.add_attachment("Notes\n", filename="notes.txt")
    read = sent(message)
    # The line end before a delimiter is the delimiter's, and the library's text has its own.
    assert (read.text, read.html) == (text, html)
    assert read.attachments == [
        Attachment(None, "image/png", picture, "a@example.com", None, True),
        Attachment(name, "application/pdf", file),
        Attachment("notes.txt", "text/plain", b"Notes\r\n", None, "utf-8"),
    ]
    assert read.attachment(name).data == file
    assert read.attachment("cid:a@example.com").data == picture


@tries(60)
@given(headers, policies)
def test_any_subject(subject, policy):
    message = EmailMessage(policy=policy)
    message["Subject"] = subject
    message["To"] = "lee@example.com"
    message.set_content("Lunch\n")
    read = sent(message)
    # Folding loses a blank between two encoded words at times: what is left is read.
    shown = read.header("Subject")
    assert shown == subject or shown == str(read["Subject"])
    assert shown.split() == subject.split() or "".join(shown.split()) == "".join(subject.split())
    assert not subject or meets(read, subject=shown)
    assert (read.header("To"), read.text) == ("lee@example.com", "Lunch\n")


@tries(15)
@given(st.lists(st.tuples(names, addresses), min_size=1, max_size=3), policies)
def test_any_names_of_people(people, policy):
    message = EmailMessage(policy=policy)
    message["To"] = [Address(name, addr_spec=address) for name, address in people]
    message["Cc"] = [Address(addr_spec=people[0][1])]
    message["Reply-To"] = Address(people[-1][0], addr_spec=people[-1][1])
    read = sent(message)
    # Folding puts an address into an encoded word at times, where nobody looks for it.
    assume(all(address in read.raw_header("To") for _, address in people))
    for name, address in people:
        assert meets(read, to=address), read.raw_header("To")
        assert meets(read, to=named(name, address)), read.raw_header("To")
    assert not meets(read, to="max@example.org")
    assert meets(read, cc=people[0][1])
    assert meets(read, reply_to=people[-1][1])


@tries(40)
@given(names, policies)
def test_any_file_name(name, policy):
    assume(name)
    message = EmailMessage(policy=policy)
    message.set_content("Lunch\n")
    message.add_attachment(b"x", "application", "pdf", filename=name)
    assert sent(message).attachments == [Attachment(name, "application/pdf", b"x")]


@tries(20)
@given(headers, texts, policies)
def test_an_attached_message(subject, text, policy):
    inner = EmailMessage(policy=policy)
    inner["Subject"] = subject
    inner.set_content(text)
    message = EmailMessage(policy=policy)
    message.set_content("Look\n")
    message.add_attachment(inner)
    read = sent(message)
    (attached,) = read.attachments
    assert (read.text, attached.type) == ("Look\n", "message/rfc822")
    again = make(attached.data)
    assert (again.header("Subject"), again.text) == (subject, text)


@pytest.mark.parametrize("count", [0, 1, 2, 76, 77, 1000])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_content_of_all_octets(encoding, count):
    content = bytes(range(256)) * (count // 256 + 1)
    message = EmailMessage()
    message.set_content(content[:count], "application", "octet-stream", cte=encoding)
    (one,) = sent(message).attachments
    assert one.data == content[:count]


# The classes of old.

#: Each charset, and characters that it has.
CHARSETS = {
    "us-ascii": "abc xyz ?=_",
    "iso-8859-1": "Grüße ñ ½",
    "iso-8859-15": "5 €  Œuf",
    "windows-1252": "“Soup” – 5 €",
    "koi8-r": "Привет, обед",
    "windows-1251": "Їжа «обед» №",
    "iso-8859-8": "שלום",
    "shift_jis": "昼食です",
    "iso-2022-jp": "昼食です abc",
    "euc-jp": "昼食です",
    "gb2312": "午餐吃什么",
    "gbk": "镕基 午餐",
    "gb18030": "镕 ¥ 🍜",
    "big5": "午餐吃什麼",
    "euc-kr": "점심 식사",
    "utf-8": "Grüße 昼食 🍜",
}
in_a_charset = st.sampled_from(sorted(CHARSETS)).flatmap(
    lambda charset: st.tuples(st.just(charset), st.text(CHARSETS[charset] + "\n", max_size=60))
)


@tries(40)
@given(in_a_charset, st.sampled_from(["plain", "html"]))
def test_mime_text(given_text, subtype):
    charset, text = given_text
    read = sent(MIMEText(text, subtype, charset))
    assert (read.text, read.html) == ((text, "") if subtype == "plain" else ("", text))


@tries(20)
@given(in_a_charset)
def test_mime_text_in_quoted_printable(given_text):
    charset, text = given_text
    quoted = Charset(charset)
    assume(quoted.output_charset == charset)  # Japanese is sent as ISO-2022-JP, in 7 bits
    quoted.body_encoding = QP
    message = MIMEText("", "plain", "us-ascii")
    del message["Content-Transfer-Encoding"]
    message.set_payload(text.encode(charset))
    message.set_charset(quoted)
    assert sent(message).text == text


@tries(40)
@given(in_a_charset)
def test_header_in_a_charset(given_text):
    charset, text = given_text
    text = " ".join(text.split())
    message = MIMEText("Lunch\n")
    message["Subject"] = Header(text, charset, header_name="Subject")
    read = sent(message)
    assert read.header("Subject") == text
    assert not text or meets(read, subject=text)


@tries(20)
@given(names, addresses)
def test_formataddr(name, address):
    message = MIMEText("Lunch\n")
    message["To"] = formataddr((name, address))
    read = sent(message)
    assert meets(read, to=address)
    assert meets(read, to=re.compile(re.escape(f"{name} <{address}>" if name else address)))


@tries(20)
@given(in_a_charset, texts, data, names)
def test_mime_multipart(given_text, html, file, name):
    assume(name)
    charset, text = given_text
    both = MIMEMultipart("alternative")
    both.attach(MIMEText(text, "plain", charset))
    both.attach(MIMEText(html, "html", "utf-8"))
    related = MIMEMultipart("related")
    related.attach(both)
    picture = MIMEImage(PNG, "png")
    picture.add_header("Content-ID", "<a@example.com>")
    related.attach(picture)
    message = MIMEMultipart("mixed")
    message.attach(related)
    attached = MIMEApplication(file, "pdf")
    attached.add_header("Content-Disposition", "attachment", filename=("utf-8", "", name))
    message.attach(attached)
    inner = MIMEText("inner\n")
    message.attach(MIMEMessage(inner))
    read = sent(message)
    assert (read.text, read.html) == (text, html)
    assert read.attachments == [
        Attachment(None, "image/png", PNG, "a@example.com", None, True),
        Attachment(name, "application/pdf", file),
        Attachment(None, "message/rfc822", inner.as_bytes().replace(b"\n", b"\r\n")),
    ]


def test_every_codec_that_python_has_can_be_named():
    for charset in {*aliases, *aliases.values(), *(name.replace("_", "-") for name in aliases)}:
        for octets in (b"Lunch", b"\xff\xfe\xfd", b"\x1b$B\xff", b"~{\xff", b"+//", b"\\ud800"):
            head = f"Content-Type: text/plain; charset={charset}\r\nSubject: =?{charset}?q?a=FF?="
            read = make(head.encode() + b"\r\n\r\n" + octets)
            assert isinstance(read.text, str), charset
            assert isinstance(read.header("Subject"), str), charset


# One thing broken.

RIGHT = {
    "From": b"Kim <kim@example.com>",
    "To": b"lee@example.com, Max <max@example.com>",
    "Subject": b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=",
    "MIME-Version": b"1.0",
}
PARTS = [
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nLunch at noon?",
    b"Content-Type: text/html; charset=utf-8\r\n\r\n<a href=https://example.com/a>Lunch</a>",
    b"Content-Type: image/png; name=a.png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==",
    b"Content-Type: application/pdf\r\n"
    b'Content-Disposition: attachment; filename="b.pdf"\r\n\r\n%PDF',
]
JUNK = [
    *(b"name*", b"name*=", b"name*0", b"name**", b"=", b";", b"name=\0", b'x="', b"*", b"(", b")"),
    *(b"name*1*=%", b"name*=x'y", b"name*=utf-8''%zz", b"charset*=nonsense''utf-8", b"\xff\xfe"),
    b"a b c",
]
FIELDS = [
    *(b"Date: no date", b"Date: ", b"Message-ID: <<>", b"X-Junk: \xff\0", b"Reply-To: <"),
    *(b'Cc: "', b"References: =?x?b?", b"Received:", b"X-Word: =?utf-8?b?!!!?=", b"Bcc: (((("),
    *(b"Content-ID: >", b"Content-Description: =?utf-8?q?=?=", b"Content-Language: \0"),
    *(b"X-Long: " + b"x" * 3000, b"List-Unsubscribe: <", b"Mime-Version: (", b"Sender: @"),
    b"DKIM-Signature: ;;=",
]


def written(fields: list[bytes], parts: list[bytes]) -> bytes:
    head = b"".join(field + b"\r\n" for field in fields)
    head += b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
    return head + b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"


def right_fields() -> list[bytes]:
    return [name.encode() + b": " + value for name, value in RIGHT.items()]


def assert_header(read: Message) -> None:
    assert read.header("From") == "Kim <kim@example.com>"
    assert read.header("To") == "lee@example.com, Max <max@example.com>"
    assert read.header("Subject") == "Grüße"
    assert meets(read, to="lee@example.com", subject="Grüße")
    assert meets(read, to="max@example.com")


def shown(read: Message) -> list[Any]:
    files = [(one.name, one.type, one.data) for one in read.attachments]
    return [read.text, read.html, read.links(), *files]


@tries(40)
@given(st.sampled_from(FIELDS), st.integers(0, len(RIGHT)))
def test_a_broken_field_spoils_nothing_else(field, at):
    fields = right_fields()
    fields.insert(at, field)
    read = make(written(fields, PARTS))
    assert_header(read)
    assert shown(read) == [
        "Lunch at noon?",
        "<a href=https://example.com/a>Lunch</a>",
        ["https://example.com/a"],
        ("a.png", "image/png", b"\x89PNG"),
        ("b.pdf", "application/pdf", b"%PDF"),
    ]


@tries(60)
@given(st.sampled_from(JUNK), st.integers(0, 3), st.booleans())
def test_a_broken_parameter_of_a_part_spoils_no_other_part(junk, at, before):
    parts = list(PARTS)
    kind, _, rest = parts[at].partition(b"\r\n")
    kind = kind.replace(b";", b"; " + junk + b";", 1) if before else kind + b"; " + junk
    parts[at] = kind + b"\r\n" + rest
    read = make(written(right_fields(), parts))
    assert_header(read)
    found = shown(read)
    assert len(found) == 5, "each part is still what it was"
    expected = [
        "Lunch at noon?",
        "<a href=https://example.com/a>Lunch</a>",
        ["https://example.com/a"],
        ("a.png", "image/png", b"\x89PNG"),
        ("b.pdf", "application/pdf", b"%PDF"),
    ]
    # The name of the broken one may be lost, or be another.
    assert [one[1:] if isinstance(one, tuple) else one for one in found] == [
        one[1:] if isinstance(one, tuple) else one for one in expected
    ]
    assert all(found[one] == expected[one] for one in (3, 4) if one != at + 1)


@tries(40)
@given(
    st.binary(max_size=60).filter(lambda octets: b"--x" not in octets),
    st.sampled_from([b"base64", b"quoted-printable", b"8bit", b"x-uuencode", b"x"]),
    st.integers(0, 4),
)
def test_a_broken_part_spoils_no_other(octets, encoding, at):
    head = b"Content-Type: application/x-broken; name=broken\r\nContent-Transfer-Encoding: "
    parts = [*PARTS[:at], head + encoding + b"\r\n\r\n" + octets, *PARTS[at:]]
    read = make(written(right_fields(), parts))
    assert_header(read)
    others = [one for one in read.attachments if one.name != "broken"]
    assert [one.data for one in others] == [b"\x89PNG", b"%PDF"]
    assert (read.text, read.links()) == ("Lunch at noon?", ["https://example.com/a"])
    assert len(read.attachments) == 3


@pytest.mark.parametrize("end", ["", "--", "--y--", "--xx--", "--x", "--x\r\n"])
@pytest.mark.parametrize("count", range(5))
def test_a_multipart_that_is_not_closed_has_all_its_parts(count, end):
    whole = written(right_fields(), PARTS[:count]).removesuffix(b"--x--\r\n") + end.encode()
    read = make(whole)
    assert_header(read)
    # The last one has what stands in place of the closing line, too.
    assert read.text.startswith("Lunch at noon?") == (count >= 1)
    assert read.html.startswith("<a href=https://example.com/a>Lunch</a>") == (count >= 2)
    found = [(one.name, one.data[:4]) for one in read.attachments if one.name]
    assert found == [("a.png", b"\x89PNG"), ("b.pdf", b"%PDF")][: max(count - 2, 0)]


# Size.


def in_parts(part: bytes, count: int) -> bytes:
    return written([], [part] * count)


def nested(count: int) -> bytes:
    opened = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (at, at)
        for at in range(count)
    )
    return opened + PARTS[0]


def repeated(head: bytes, word: bytes, tail: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: head + word * (size // len(word)) + tail


LUNCH = b"\r\nContent-Type: text/plain\r\n\r\nLunch\r\n"
HTML = b"Content-Type: text/html; charset=utf-8\r\n\r\n"
PARTED = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
#: Messages of about so many octets.
MANY: dict[str, Callable[[int], bytes]] = {
    "recipients": repeated(b"To: max@example.org", b",\r\n Kim <kim@example.com>", LUNCH),
    "parts": lambda size: in_parts(PARTS[0], size // 100),
    "pictures": lambda size: in_parts(PARTS[2], size // 100),
    "empty-parts": lambda size: in_parts(b"", size // 100),
    "levels": lambda size: nested(size // 200),
    "alternatives": lambda size: nested(size // 200).replace(b"mixed", b"alternative"),
    "messages": repeated(b"", b"Content-Type: message/rfc822\r\n\r\n"),
    "lines-like-delimiters": repeated(
        b"Content-Type: multipart/x; boundary=x\r\n\r\n", b"--y\r\n"
    ),
    "fields": repeated(b"", b"X-A: b\r\n", LUNCH),
    **{
        f"{field}-of-{word}": repeated(f"{field}: x".encode(), word.encode(), LUNCH)
        for field, words in {
            "To": ["(", '"', "<", "[", ",", ":", "@", "=?utf-8?q?", "<a@b> "],
            "Subject": ["=?", "=?utf-8?q?", "=?utf-8?q?a?= ", "=?a?b", "\r\n "],
            "Content-Disposition": ["(", '"', ";", "; n=", "; n*0=x", "; n*1*=%", "\\"],
            "Content-ID": ["(", "<"],
        }.items()
        for word in words
    },
    **{
        f"html-of-{word}": repeated(HTML, word.encode())
        for word in (
            *("<", "<!", "<!--", "<a ", "<a href='", '<a x="">', "<script>", "<title", "&", "</"),
            *("<a href=/a>", "<a b=c d", "--!>", "<?", "<a =", "<a\t/", "<meta charset="),
        )
    },
    **{
        f"text-of-{word}": repeated(b"\r\nhttps://example.com/", word.encode())
        for word in ("x", ")", "(", "*", ".", "https://a ", "https://", "(https://a", "。", "http")
    },
}


def seconds(raw: bytes) -> float:
    return cpu_seconds(lambda: read_all(make(raw)))


def read_all(read: Message) -> None:
    assert isinstance(read.text + read.html + "".join(read.links()), str)
    assert all(one.type for one in read.attachments)
    assert all(isinstance(value, str) for _, value in read.header_items())
    meets(read, to="max@example.org", subject="none")


@pytest.mark.parametrize("kind", MANY, ids=ascii)
def test_none_takes_more_than_linear_time(kind):
    large = seconds(MANY[kind](80_000))
    # On a busy machine a ratio says more than a clock; quadratic time would be 16 times.
    assert large < 0.3 or large < 10 * max(seconds(MANY[kind](20_000)) for _ in range(2))
