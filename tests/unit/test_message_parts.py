"""What `Message` tells of its texts and attachments, of good mail and bad; and saving it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from messages import ATTACHED, LONE_STAR, TOO_DEEP, body, make, multipart

from lazr_smtptest.message import Attachment, ParserFailed

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
