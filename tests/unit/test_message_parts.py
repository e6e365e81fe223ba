"""What `Message` tells of mail: headers, texts, attachments and links, of good mail and bad."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from messages import ATTACHED, LONE_STAR, TOO_DEEP, make

from lazr_smtptest.message import Attachment, Message, ParserFailed

some = settings(max_examples=150, deadline=None, derandomize=bool(os.environ.get("CI")))


def body(octets: bytes | str, content_type: str = "text/plain", *lines: str) -> Message:
    """Make a message of one part."""
    octets = octets.encode() if isinstance(octets, str) else octets
    head = "".join(f"{line}\r\n" for line in (f"Content-Type: {content_type}", *lines))
    return make(head.encode() + b"\r\n" + octets)


def multipart(*parts: bytes | str, kind: str = "mixed", boundary: str = "x") -> bytes:
    """Make a part of parts; each of those begins with its header."""
    between = f"\r\n--{boundary}\r\n".encode()
    octets = [part.encode() if isinstance(part, str) else part for part in parts]
    return (
        f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
        + b"".join(between + part for part in octets)
        + f"\r\n--{boundary}--\r\n".encode()
    )


PLAIN = "Content-Type: text/plain; charset=utf-8\r\n\r\nfür dich"
HTML = "Content-Type: text/html; charset=utf-8\r\n\r\n<p>für dich</p>"
PNG = (
    'Content-Type: image/png; name="a.png"\r\nContent-ID: <a>\r\n'
    "Content-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n"
)
PDF = (
    "Content-Type: APPLICATION/Pdf\r\n"
    'Content-Disposition: attachment; filename="b.pdf"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\nJVBERi0A\r\n"
)


# Headers.


def test_it_is_shown_in_one_line():
    message = make(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n folded\r\n\r\nHello.\r\n")
    assert repr(message) == (
        "<Message from <kim@example.com> to <lee@example.com>, <bcc@example.com>, "
        "subject 'Grüße folded'>"
    )
    assert repr([message]) == f"[{message!r}]"


def test_one_that_was_not_received_is_shown_somehow():
    assert "Message object at" in repr(Message())


def test_headers():
    message = make(
        b"Received: one\r\nX-Other: a\r\nreceived: two\r\n folded\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"
    )
    assert message.headers("Received") == ["one", "two folded"]
    assert message.headers("RECEIVED") == ["one", "two folded"]
    assert message.header("receiveD") == "one"
    assert message.header("subject") == "Grüße"
    assert message.headers("Missing") == []
    assert message.header("Missing") == ""
    assert message.header("Missing", "default") == "default"
    assert message.header("X-Other", "default") == "a"


def test_all_headers():
    message = make(
        b"Received: one\r\nX-Peer: forged\r\nreceived: two\r\n folded\r\n"
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Odd: =?nope?q?\xff?=\r\n\r\n"
    )
    assert message.header_items() == [
        ("Received", "one"),
        ("received", "two folded"),
        ("Subject", "Grüße"),
        ("X-Odd", message.header("X-Odd")),
    ]


def test_headers_are_texts():
    message = make(b"To: Ann <ann@example.com>\r\nDate: Thu, 29 Feb 2024 23:59:59 +0000\r\n\r\n")
    assert message.header("To") == "Ann <ann@example.com>"
    assert message.header("Date") == "Thu, 29 Feb 2024 23:59:59 +0000"


def test_the_headers_that_are_added_can_be_read_so_too():
    message = make(b"X-Peer: forged\r\n\r\n")
    assert message.headers("X-Peer") == ["127.0.0.1:50000"]
    assert message.header("x-mailfrom") == "kim@example.com"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Grüße".encode(), "Grüße"),
        (b"Gr\xfc\xdfe", "Gr\ufffd\ufffde"),
        (b"=?nope?q?x?=", "x"),
        (b"=?utf-8?b?////?=", "\ufffd\ufffd\ufffd"),
        (b"=?utf-8?q?x", "=?utf-8?q?x"),
        (b"", ""),
        (b"   ", ""),
        (b"x" * 5000, "x" * 5000),
    ],
    ids=ascii,
)
def test_a_header_with_a_bad_value(raw, text):
    message = make(b"Subject: " + raw + b"\r\n\r\n")
    assert message.header("Subject").strip() == text
    assert message.headers("Subject") == [message.header("Subject")]


#: Each of them raises an IndexError, an AttributeError, a TypeError or an
#: UnboundLocalError when one Python or another reads it.
BREAKING = [
    (b"To", b'"'),
    (b"From", b'kim@example.com, "'),
    (b"Sender", b"<"),
    (b"To", b":;\0"),
    (b"To", b"/@[-"),
    (b"To", b"utf-8@[\r\n "),
    (b"To", b".:"),
    (b"Sender", b"().\\"),
    (b"Message-ID", b"<"),
    (b"Message-ID", b"<'@"),
    (b"Content-Disposition", b";999999999999999999999999999999*"),
]


def breaks(message: Message, name: str) -> bool:
    try:
        message[name]
    except Exception:
        return True
    return False


@pytest.mark.parametrize(("name", "value"), BREAKING)
@pytest.mark.parametrize("more", [b"", "grün".encode()])
def test_headers_that_break_the_standard_librarys_parser(name, value, more):
    name_text = name.decode()
    message = make(b"X: 1\r\n" + name + b": " + more + value + b"\r\n\r\nbody\r\n")
    if breaks(message, name_text):
        expected = (more + value).decode().replace("\r\n", "")
    else:
        expected = str(message[name_text])
    assert message.headers(name_text) == [expected]
    assert message.header(name_text) == expected
    assert message.text == "body\n"
    assert message.attachments == []


def test_there_are_headers_that_break_it():
    """Without them, nothing would test what happens then."""
    assert [name for name, value in BREAKING if breaks(make(name + b": " + value), name.decode())]


# Texts.


def test_the_text():
    message = body("für dich\r\n\r\nzwei\r\n", "text/plain; charset=utf-8")
    assert message.text == "für dich\n\nzwei\n"
    assert message.html == ""
    assert message.attachments == []


def test_the_html():
    message = body("<p>für dich\r\n", "TEXT/HTML; charset=utf-8")
    assert message.html == "<p>für dich\n"
    assert message.text == ""
    assert message.attachments == []


@pytest.mark.parametrize("raw", [b"", b"Subject: x\r\n", b"Subject: x\r\n\r\n", b"\r\n"])
def test_no_text(raw):
    message = make(raw)
    assert (message.text, message.html, message.attachments, message.links()) == ("", "", [], [])


def test_without_a_type_it_is_text():
    assert make(b"Subject: x\r\n\r\nHello\r\n").text == "Hello\n"
    assert make("Subject: x\r\n\r\ngrün\r\n").text == "grün\n"


@pytest.mark.parametrize(
    ("charset", "octets", "text"),
    [
        ("utf-8", b"gr\xc3\xbcn", "grün"),
        ("iso-8859-1", b"gr\xfcn", "grün"),
        ("ISO-8859-15", b"\xa4", "€"),
        ("windows-1252", b"\x80", "€"),
        ("iso-2022-jp", b"\x1b$B$3\x1b(B", "こ"),
        ("us-ascii", b"gr\xc3\xbcn", "gr\ufffd\ufffdn"),
        ("utf-8", b"gr\xfcn", "gr\ufffdn"),
        ("no-such-charset", b"gr\xc3\xbcn", "grün"),
        ("no-such-charset", b"gr\xfcn", "gr\ufffdn"),
        ("hex", b"6162", "6162"),
        ("undefined", b"gr\xc3\xbcn", "grün"),
        ("\0", b"gr\xc3\xbcn", "grün"),
        ("", b"gr\xc3\xbcn", "grün"),
        ("grün", b"gr\xc3\xbcn", "grün"),
        ("x" * 3000, b"gr\xc3\xbcn", "grün"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("encoding", ["8bit", "base64", "quoted-printable"])
def test_charsets(charset, octets, text, encoding):
    if encoding == "base64":
        octets = base64.b64encode(octets)
    elif encoding == "quoted-printable":
        octets = b"".join(b"=%02X" % octet for octet in octets)
    message = body(
        octets, f'text/plain; charset="{charset}"', f"Content-Transfer-Encoding: {encoding}"
    )
    assert message.text == text


def test_a_charset_that_is_no_superset_of_ascii():
    encoded = base64.b64encode("grün\r\n".encode("utf-16"))
    message = body(encoded, "text/plain; charset=UTF-16", "Content-Transfer-Encoding: base64")
    assert message.text == "grün\n"


@pytest.mark.parametrize(
    "parameter",
    [
        "charset*=utf-8''utf-8",
        "charset*0=utf; charset*1=-8",
        "charset",
        "charset=",
        "charset==",
        ";;",
    ],
)
def test_odd_charset_parameters(parameter):
    message = body("grün", f"text/plain; {parameter}", "Content-Transfer-Encoding: 8bit")
    assert message.text == "grün"


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (b"SGVsbG8=\r\n", "Hello"),
        (b"SGVs\r\nbG8=\r\n", "Hello"),
        (b"SGVsbG8\r\n", "Hello"),
        (b"SG Vs bG 8=\r\n", "Hello"),
        (b"SGVsbG8=\r\nnot base64 at all !!!\r\n", None),
        (b"A\r\n", None),
        (b"!!!!\r\n", None),
        (b"\xff\xfe\r\n", None),
        (b"", ""),
    ],
)
def test_base64_and_what_claims_to_be(encoded, text):
    message = body(encoded, "text/plain", "Content-Transfer-Encoding: base64")
    assert message.text == text or text is None
    assert type(message.text) is str
    attached = body(encoded, "image/png", "Content-Transfer-Encoding: base64").attachments
    assert [type(part.data) for part in attached] == [bytes]
    assert attached[0].data == (text or "").encode() or text is None


@pytest.mark.parametrize("encoding", ["x-unknown", "", "7bit; x", "binary", "\0", "grün"])
def test_unknown_transfer_encodings_change_nothing(encoding):
    message = body("grün =3D SGVs\r\n", "text/plain", f"Content-Transfer-Encoding: {encoding}")
    assert message.text == "grün =3D SGVs\n"


def test_quoted_printable():
    message = body(
        "gr=C3=BCn=\r\n er=3D\r\n=ZZ", "text/plain", "Content-Transfer-Encoding: QUOTED-PRINTABLE"
    )
    assert message.text == "grün er=\n=ZZ"


# Parts.


def test_alternatives():
    message = make(multipart(PLAIN, HTML, kind="alternative"))
    assert message.text == "für dich"
    assert message.html == "<p>für dich</p>"
    assert message.attachments == []


def test_nested_parts():
    related = multipart(HTML, PNG, kind="related", boundary="z")
    alternative = multipart(PLAIN, related, kind="alternative", boundary="y")
    message = make(multipart(alternative, PDF, "Content-Type: text/plain\r\n\r\nfooter"))
    assert message.text == "für dich"
    assert message.html == "<p>für dich</p>"
    assert message.attachments == [
        Attachment("a.png", "image/png", b"\x89PNG"),
        Attachment("b.pdf", "application/pdf", b"%PDF-\0"),
    ]


def test_many_levels():
    raw = PLAIN.encode()
    for level in range(50):
        raw = multipart(raw, PDF, boundary=f"b{level}-")
    message = make(raw)
    assert message.text == "für dich"
    assert [part.name for part in message.attachments] == ["b.pdf"] * 50


def test_attached_texts_are_attachments():
    message = make(
        multipart(
            "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\none",
            "Content-Type: text/plain; name=two.txt\r\n\r\ntwo",
            "Content-Type: text/html\r\nContent-Disposition: inline; filename=3.html\r\n\r\n<3>",
            "Content-Type: text/calendar\r\nContent-Disposition: inline\r\n\r\nfour",
            "Content-Disposition: INLINE\r\n\r\nthe text",
        )
    )
    assert message.attachments == [
        Attachment(None, "text/plain", b"one"),
        Attachment("two.txt", "text/plain", b"two"),
        Attachment("3.html", "text/html", b"<3>"),
        Attachment(None, "text/calendar", b"four"),
    ]
    assert message.text == "the text"
    assert message.html == ""


def test_a_message_that_is_an_attachment_itself():
    (attachment,) = make(PDF).attachments
    assert attachment == ("b.pdf", "application/pdf", b"%PDF-\0")
    assert (attachment.name, attachment.type, attachment.data) == attachment
    assert make(PDF).text == ""


def test_a_text_with_an_empty_file_name_is_a_text():
    message = body("Hello", "text/plain", 'Content-Disposition: inline; filename=""')
    assert message.text == "Hello"
    assert message.attachments == []


def test_an_attachment_keeps_its_octets():
    octets = bytes(range(256)) * 10
    part = b"Content-Transfer-Encoding: base64\r\nContent-Type: image/png\r\n\r\n"
    (attachment,) = make(multipart(part + base64.encodebytes(octets))).attachments
    assert attachment.data == octets


INNER = (
    b"Subject: inner\r\n"
    b"To: ann@example.com\r\n"
    b"Content-Type: text/html\r\n"
    b"\r\n"
    b"<a href='https://example.com/inner'>inner</a>\r\n"
)


def test_an_attached_message_is_not_looked_into():
    message = make(multipart("\r\nouter", b"Content-Type: message/rfc822\r\n\r\n" + INNER))
    assert message.text == "outer"
    assert message.html == ""
    assert message.links() == []
    (attachment,) = message.attachments
    assert (attachment.name, attachment.type) == (None, "message/rfc822")
    assert b"<a href='https://example.com/inner'>" in attachment.data


@pytest.mark.parametrize(
    "inner",
    [
        INNER,
        INNER.replace(b"inner\r\n", b"a subject of many words " * 6 + b"\r\n", 1),
        INNER.replace(b"inner\r\n", "grün\r\n".encode(), 1),
        INNER.replace(b"ann@example.com", b'"'),
        multipart(PLAIN, PDF, boundary="inner"),
    ],
    ids=["short", "long header", "8-bit header", "broken header", "parts"],
)
def test_an_attached_message_keeps_its_octets(inner):
    message = make(multipart("\r\nouter", b"Content-Type: message/rfc822\r\n\r\n" + inner))
    (attachment,) = message.attachments
    assert attachment.data == inner


def test_a_bounce():
    status = (
        b"Reporting-MTA: dns; mx.example.com\r\n"
        b"\r\n"
        b"Final-Recipient: rfc822; lee@example.com\r\n"
        b"Action: failed\r\n"
        b"Status: 5.1.1\r\n"
    )
    message = make(
        multipart(
            "Content-Type: text/plain\r\n\r\nIt failed.",
            b"Content-Type: message/delivery-status\r\n\r\n" + status,
            b"Content-Type: text/rfc822-headers\r\n\r\nSubject: it",
            kind="report; report-type=delivery-status",
        )
    )
    assert message.text == "It failed."
    delivery, headers = message.attachments
    assert delivery.type == "message/delivery-status"
    assert b"Reporting-MTA: dns; mx.example.com" in delivery.data
    assert b"Final-Recipient: rfc822; lee@example.com" in delivery.data
    assert b"Status: 5.1.1" in delivery.data
    assert headers == (None, "text/rfc822-headers", b"Subject: it")


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n", b"no boundary\r\n"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\ny\r\n", b"y\r\n"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x--\r\n", b""),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\n", b""),
        ("Content-Type: multipart/mixed\r\n\r\ngrün".encode(), "grün".encode()),
    ],
)
def test_a_multipart_without_parts(raw, data):
    message = make(raw)
    assert (message.text, message.html, message.links()) == ("", "", [])
    assert message.attachments == [Attachment(None, "multipart/mixed", data)]


def test_a_multipart_with_empty_parts():
    message = make(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n--x\r\n--x--\r\n")
    assert (message.text, message.html, message.attachments) == ("", "", [])


def test_a_multipart_that_is_cut_off():
    raw = multipart(PLAIN, PDF)
    message = make(raw[: raw.index(b"JVBERi0A") + 4])
    assert message.text == "für dich"
    assert message.attachments == [Attachment("b.pdf", "application/pdf", b"%PD")]


@pytest.mark.parametrize("payload", ["a text", None, [], ["text", None]])
def test_a_multipart_with_another_payload(payload):
    """As a test that changes a message may leave it."""
    message = make(multipart(PLAIN, PDF))
    message.set_payload(payload)
    assert (message.text, message.html, message.links()) == ("", "", [])
    assert len(message.attachments) == (0 if isinstance(payload, list) else 1)


@pytest.mark.parametrize("raw", [LONE_STAR, TOO_DEEP], ids=["a lone star", "too deep"])
def test_mail_that_breaks_the_parser(raw):
    message = make(raw)
    if not any(isinstance(defect, ParserFailed) for defect in message.defects):
        pytest.skip("this Python parses it")
    assert message.text == raw.decode().replace("\r\n", "\n")
    assert (message.html, message.attachments, message.links()) == ("", [], [])
    assert message.header("Subject", "none") == "none"


# The names of files.


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Content-Disposition: attachment; filename=plain.txt", "plain.txt"),
        ('Content-Disposition: attachment; filename="with a space.txt"', "with a space.txt"),
        (r'Content-Disposition: attachment; filename="a \"b\".txt"', 'a "b".txt'),
        ("Content-Disposition: attachment; filename*=utf-8''gr%C3%BC%C3%9Fe.txt", "grüße.txt"),
        ("Content-Disposition: attachment; filename*=iso-8859-1'de'gr%FC.txt", "grü.txt"),
        (
            "Content-Disposition: attachment; filename*0*=utf-8''gr%C3%BC; filename*1=sse.txt",
            "grüsse.txt",
        ),
        ('Content-Disposition: attachment;\r\n filename*0="a";\r\n filename*1="b.txt"', "ab.txt"),
        ('Content-Disposition: attachment; filename="=?utf-8?q?gr=C3=BC.txt?="', "grü.txt"),
        ('Content-Disposition: attachment; filename="=?utf-8?b?Z3LDvC50eHQ=?="', "grü.txt"),
        ('Content-Disposition: attachment; filename="grü.txt"', "grü.txt"),
        ("Content-Disposition: inline; filename=inline.txt", "inline.txt"),
        ('Content-Disposition: attachment; filename="../../etc/passwd"', "../../etc/passwd"),
        ("Content-Disposition: attachment", None),
        ("Content-Disposition: attachment; filename", None),
        ('Content-Disposition: attachment; filename=""', None),
        ("Content-Disposition: attachment; filename*=nope''gr%FC.txt", "gr\ufffd.txt"),
        ("X: no disposition", None),
    ],
)
def test_the_name_of_a_file(line, name):
    (attachment,) = body("x", "application/octet-stream", line).attachments
    assert attachment == (name, "application/octet-stream", b"x")


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/png; name=a.png", "a.png"),
        ('image/png; name="=?utf-8?q?gr=C3=BC.png?="', "grü.png"),
        ("image/png; name*=utf-8''gr%C3%BC.png", "grü.png"),
    ],
)
def test_the_name_in_the_type(content_type, name):
    assert body("x", content_type).attachments == [Attachment(name, "image/png", b"x")]
    both = body("x", content_type, "Content-Disposition: attachment; filename=other.png")
    assert both.attachments == [Attachment("other.png", "image/png", b"x")]


# Links.


def links(html: str = "", text: str = "") -> list[str]:
    return make(
        multipart(
            f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}",
            f"Content-Type: text/html; charset=utf-8\r\n\r\n{html}",
            kind="alternative",
        )
    ).links()


def test_links_in_order_and_once_each():
    html = (
        '<p><a href="https://example.com/2">b</a> <a href="https://example.com/1">a</a>'
        "<a href='https://example.com/2'>again</a></p>"
    )
    text = (
        "https://example.com/3 https://example.com/1 https://example.com/3 https://example.com/0"
    )
    assert links(html, text) == [f"https://example.com/{n}" for n in (2, 1, 3, 0)]
    assert links(html) == ["https://example.com/2", "https://example.com/1"]
    assert links(text=text) == [f"https://example.com/{n}" for n in (3, 1, 0)]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="/a?b=1&amp;c=2">x</a>', ["/a?b=1&c=2"]),
        ('<a href="/a&#63;b">x</a>', ["/a?b"]),
        ("<A HREF=/unquoted>x</A>", ["/unquoted"]),
        ('<a class="b" href="/a" id=c>x</a>', ["/a"]),
        ('<a href="/a"><img src="/b.png"></a>', ["/a"]),
        ('<map><area href="/area"></map>', ["/area"]),
        ('<a href=" \r\n /a ">x</a>', ["/a"]),
        ('<a href="/a"/>', ["/a"]),
        ('<a href="mailto:kim@example.com">x</a>', ["mailto:kim@example.com"]),
        ('<a href="#top">x</a>', ["#top"]),
        ('<a href="https://bücher.example/ü">x</a>', ["https://bücher.example/ü"]),
        ('<a href="">x</a><a href>x</a><a name="b">x</a>', []),
        ('<a href=" ">x</a>', []),
        ('<link href="/a.css"><img src="/b.png"><base href="/c">', []),
        ('<!-- <a href="/a">x</a> --><script>"<a href=/b>"</script>', []),
        ('<!-- never ends <a href="/a">x</a>', None),
        ("https://example.com/in-the-text", []),
        ('<p <a href="/a">x', None),
        ('<a href="/a">x</a><![', ["/a"]),
        ('<a href="/a">x</a><![(<a href="/b">', None),
        ('<a href="/a">x</a><![if mso]><a href="/b">y</a><![endif]>', ["/a", "/b"]),
        ('<a href="/a">x</a><!DOCTYPE [<!x', None),
        ('<a href="/a">x</a><![foo <a href="/b">', None),
        ('<a href="/a">x</a><![>', None),
        ('<a href="/a">x</a><?php <a href="/b">', None),
        ('<a href="/a">x</a></', ["/a"]),
    ],
)  # fmt: skip
def test_links_in_html(html, expected):
    found = links(html)
    assert found == expected or expected is None
    assert all(type(link) is str for link in found)


def test_a_link_before_broken_html_is_found():
    assert links('<a href="/a">x</a><![>')[:1] == ["/a"]
    assert links('<a href="/a">x</a><![foo <a href="/b">')[:1] == ["/a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://example.com.", ["https://example.com"]),
        ("See https://example.com/a, and http://example.org/b!", ["https://example.com/a", "http://example.org/b"]),
        ("https://example.com/a?", ["https://example.com/a"]),
        ("https://example.com/a?b=c&d=e;f#g", ["https://example.com/a?b=c&d=e;f#g"]),
        ("https://example.com/a?!...", ["https://example.com/a"]),
        ("<https://example.com/a>", ["https://example.com/a"]),
        ('"https://example.com/a"', ["https://example.com/a"]),
        ("'https://example.com/a'", ["https://example.com/a"]),
        ("(https://example.com/a)", ["https://example.com/a"]),
        ("(see https://example.com/a.)", ["https://example.com/a"]),
        ("(https://example.com/a_(b))", ["https://example.com/a_(b)"]),
        ("https://example.com/a_(b)", ["https://example.com/a_(b)"]),
        ("[x](https://example.com/a)", ["https://example.com/a"]),
        ("[https://example.com/?a[]=1]", ["https://example.com/?a[]=1"]),
        ("{https://example.com/a}", ["https://example.com/a"]),
        ("**https://example.com/a**", ["https://example.com/a"]),
        ("*https://example.com/a*:", ["https://example.com/a"]),
        ("_https://example.com/a_", ["https://example.com/a"]),
        ("https://example.com/a/", ["https://example.com/a/"]),
        ("https://example.com/a\r\nnext", ["https://example.com/a"]),
        ("HTTPS://EXAMPLE.com/A", ["HTTPS://EXAMPLE.com/A"]),
        ("url:https://example.com:8025/a", ["https://example.com:8025/a"]),
        ("https://bücher.example/ü", ["https://bücher.example/ü"]),
        ("https://[2001:db8::1]/a", ["https://[2001:db8::1]/a"]),
        ("https://[2001:db8::1]", ["https://[2001:db8::1]"]),
        ("http://localhost:8000/reset?token=a-b_c~d%20=", ["http://localhost:8000/reset?token=a-b_c~d%20="]),
        ("ftp://example.com mailto:a@example.com www.example.com xhttp://example.com", []),
        ("https:// http:/a https//b", []),
    ],
)  # fmt: skip
def test_links_in_text(text, expected):
    assert links(text=text) == expected


def test_links_in_attachments_are_none_of_the_messages():
    message = make(
        multipart(
            "\r\nhttps://example.com/a",
            "Content-Type: text/html; name=b.html\r\n\r\n<a href=/b>",
            "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nhttps://c.example",
        )
    )
    assert message.links() == ["https://example.com/a"]


# Saving.


@pytest.mark.parametrize(
    "raw", [ATTACHED, LONE_STAR, b"", b"X-Peer: 1\n\xff\0\r", b"a\r\n\r\n.\r\n"]
)
@pytest.mark.parametrize("kind", [str, Path])
def test_save_writes_the_octets_as_they_were_sent(tmp_path, raw, kind):
    path = tmp_path / "message.eml"
    path.write_bytes(b"what was there before, and it was longer than that" * 100)
    assert make(raw).save(kind(path)) is None
    assert path.read_bytes() == raw


def test_save_raises_if_it_cannot(tmp_path):
    with pytest.raises(FileNotFoundError):
        make(b"").save(tmp_path / "missing" / "message.eml")


# Anything at all.

words = st.sampled_from(
    [
        *(b"Content-Type: ", b"Content-Transfer-Encoding: ", b"Content-Disposition: "),
        *(b"To: ", b"Subject: ", b"Message-ID: ", b"Date: ", b"From: "),
        *(b"multipart/mixed", b"message/rfc822", b"message/delivery-status"),
        *(b"text/plain", b"text/html", b"image/png", b"attachment", b"inline"),
        *(b"; boundary=x", b"; charset=", b"; filename", b"; name", b"*", b"*0*", b"*1", b"="),
        *(b"utf-8''", b"%", b"%e4", b'"', b"x", b"(", b")", b"<", b">", b"@", b",", b";", b":"),
        *(b"[", b"]", b"\\", b".", b"base64", b"quoted-printable", b"x-uuencode"),
        *(b"=?utf-8?b?", b"=?x?q?", b"?=", b"\r\n--x\r\n", b"\r\n--x--\r\n"),
        *(b"\r\n", b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n", b"\r", b"\xff", b"\xc3\xbc", b"\0"),
        *(b"utf-16", b"unicode_escape", b"idna", b"undefined", b"\\ud800", b"\\d"),
        *(b"begin 666 x\r\n", b"end"),
    ]
)  # fmt: skip
heads = st.sampled_from(
    [
        b"",
        b"To: ",
        b"Content-Type: text/plain; charset",
        b"Content-Disposition: ",
        b"Content-Transfer-Encoding: ",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: ",
    ]
)
mail = st.builds(lambda head, rest: head + b"".join(rest), heads, st.lists(words, max_size=25))


def read_everything(message: Message) -> None:
    texts: list[Any] = [message.text, message.html, *message.links()]
    for name in {*message.keys(), "Subject", "To", "Missing"}:
        texts += [*message.headers(name), message.header(name)]
    texts += [text for pair in message.header_items() for text in pair]
    attachments = message.attachments
    assert {type(text) for text in texts} <= {str}
    assert {type(part) for part in attachments} <= {Attachment}
    assert {type(part.data) for part in attachments} <= {bytes}
    assert {type(part.type) for part in attachments} <= {str}
    assert {type(part.name) for part in attachments} <= {str, type(None)}
    assert attachments == message.attachments, "reading changes nothing"
    assert message.text == texts[0]


@some
@given(st.binary(max_size=300) | mail)
@example(b'Content-Type: text/plain; charset="\0"\r\n\r\n\xff')
@example(b'Content-Type: text/plain; charset*="\r\n\r\n\xff')
@example(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: \0/\r\n\r\n\xff")
def test_no_mail_is_too_broken_to_be_read(raw):
    read_everything(make(raw))


html_words = st.sampled_from(
    [
        *("<", "</", ">", "/>", "<a href=", "'", '"', "/x", "<!", "<![", "<![if ", "<!--", "--"),
        *("-->", "<!DOCTYPE ", "[", "]", "]]>", "<?", "?>", "&", "&#", "&#x110000;", "&amp", ";"),
        *(" ", "\n", "\0", "(", "<script>", "</script>", "<title>", "<style", "<![CDATA[", "x"),
    ]
)


@some
@given(st.lists(html_words, max_size=20).map("".join) | st.text(max_size=100))
@example("<![")
@example("<![>")
@example("<![(")
@example("<![foo x")
@example("<!DOCTYPE [<!x")
def test_no_html_is_too_broken_for_links(html):
    found = body(html, "text/html; charset=utf-8").links()
    assert all(type(link) is str and link for link in found)
    assert len(found) == len(set(found))


@some
@given(st.text(alphabet="htps:/.,;!?()[]{}'\"<>*_ax \n", max_size=60))
@example("http://" + ")" * 50)
@example("https://....")
def test_no_text_is_too_odd_for_links(text):
    found = body(text, "text/plain; charset=utf-8").links()
    assert all(link in text for link in found)


@some
@given(st.text(max_size=200).map(lambda text: text.replace("\r", "")))
def test_any_text_can_be_read(text):
    encoded = base64.encodebytes(text.encode())
    message = body(encoded, "text/plain; charset=utf-8", "Content-Transfer-Encoding: base64")
    assert message.text == text
