"""What `Message` tells of its texts and attachments, of good mail and bad; and saving it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from messages import ATTACHED, LONE_STAR, TOO_DEEP, body, make, multipart

from lazr_smtptest import AttachmentNotFound
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
        ("us-ascii", b"gr\xc3\xbcn", "grÃ¼n"),
        ("us-ascii", b"\x93gr\xfcn\x94", "“grün”"),
        ("iso-8859-1", b"it\x92s \x81", "it’s \x81"),
        ("iso-8859-9", b"\x80 \xfd", "€ ı"),
        ("iso-8859-11", b"\x85\xa1", "…ก"),
        ("gb2312", "镕金".encode("gbk"), "镕金"),
        ("x-gbk", "镕".encode("gbk"), "镕"),
        ("ks_c_5601-1987", "똠방".encode("cp949"), "똠방"),
        ("euc-kr", "똠".encode("cp949"), "똠"),
        ("shift_jis", "①㈱".encode("cp932"), "①㈱"),
        ("x-sjis", "髙".encode("cp932"), "髙"),
        ("big5", "着".encode("big5hkscs"), "着"),
        ("iso-2022-jp", b"\x1b$B\x2d\x21\x1b(B.", "①."),
        ("iso-2022-jp", b"ab\x1b(I1\x1b(B \x1b$B$3\x2d\x21\x1b(Bc", "abｱ こ①c"),
        ("euc-jp", b"\xad\xa1\xad\xea", "①㈱"),
        ("big5", b"\xa3\xe1", "€"),
        ("gbk", b"\x80", "€"),
        ("iso-2022-jp", b"\x1b$B\x2d\x21\x1b$(D\x30\x21\x1b(B \x1b[0m.", "①丂 \x1b[0m."),
        ("rot13", b"abc", "abc"),
        ("iso-8859-8-i", b"\xf9\xec", "של"),
        ("koi8-ru", b"\xd0\xa4", "пє"),
        ("unicode-1-1-utf-8", b"gr\xc3\xbcn", "grün"),
        ("utf8", b"\xef\xbb\xbfgr\xc3\xbcn", "grün"),
        ("iso-8859-1", b"\xef\xbb\xbfgr\xc3\xbcn", "grün"),
        ("utf-8", b"gr\xfcn", "gr\ufffdn"),
        ("no-such-charset", b"gr\xc3\xbcn", "grün"),
        ("no-such-charset", b"gr\xfcn", "grün"),
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
    assert message.text == "für dich\nfooter"
    assert message.html == "<p>für dich</p>"
    assert message.attachments == [
        Attachment("a.png", "image/png", b"\x89PNG", content_id="a", inline=True),
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
            "Content-Type: text/html\r\nContent-Disposition: inline\r\n\r\n<html>",
            "Content-Type: text/calendar\r\nContent-Disposition: inline\r\n\r\nfour",
            "Content-Disposition: INLINE\r\n\r\nthe text",
        )
    )
    assert message.attachments == [
        Attachment(None, "text/plain", b"one"),
        Attachment("two.txt", "text/plain", b"two"),
        Attachment("3.html", "text/html", b"<3>", inline=True),
        Attachment(None, "text/calendar", b"four", inline=True),
    ]
    assert message.text == "the text"
    assert message.html == "<html>"


def test_a_message_that_is_an_attachment_itself():
    (attachment,) = make(PDF).attachments
    assert attachment == ("b.pdf", "application/pdf", b"%PDF-\0", None, None, False)
    assert (attachment.name, attachment.type, attachment.data) == attachment[:3]
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
    assert headers == Attachment(None, "text/rfc822-headers", b"Subject: it")


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
def test_what_a_test_makes_of_a_message_changes_nothing_of_what_was_sent(payload):
    message = make(multipart(PLAIN, PDF))
    message.set_payload(payload)
    assert (message.text, message.html, message.links()) == ("für dich", "", [])
    assert [found.name for found in message.attachments] == ["b.pdf"]


def test_one_broken_parameter_spoils_nothing_else():
    message = make(LONE_STAR)
    assert message.header("Subject") == message["Subject"] == "a lone star"
    assert message.text == "body\n"
    assert message.get_content_type() == "text/plain"
    assert message.defects == []


def test_parts_that_are_nested_too_deep():
    message = make(TOO_DEEP)
    assert [type(defect) for defect in message.defects][-1:] == [ParserFailed]
    assert [found.type for found in message.attachments] == ["message/rfc822"]
    assert len(list(message.walk())) == 101


# Which parts are text.


def test_text_behind_an_attachment_is_text_too():
    message = make(
        multipart(
            "Content-Type: text/plain\r\n\r\nBefore https://a.example/1\r\n",
            PNG,
            "Content-Type: text/plain\r\n\r\nAfter https://a.example/2",
        )
    )
    assert message.text == "Before https://a.example/1\nAfter https://a.example/2"
    assert message.links() == ["https://a.example/1", "https://a.example/2"]
    assert [found.name for found in message.attachments] == ["a.png"]


def test_of_alternatives_each_takes_its_own_kind():
    """And of two of a kind the last, which is the richest (RFC 2046, 5.1.4)."""
    html = multipart(HTML, PDF, HTML.replace("für", "nur für"), boundary="y")
    message = make(
        multipart("Content-Type: text/plain\r\n\r\nworse", PLAIN, html, kind="alternative")
    )
    assert message.text == "für dich"
    assert message.html == "<p>für dich</p>\n<p>nur für dich</p>"
    assert [found.name for found in message.attachments] == ["b.pdf"]


def test_a_text_with_a_name_is_a_file_only_beside_one_without():
    named = "Content-Type: text/plain; name=body.txt\r\n\r\n{}"
    alone = make(multipart(named.format("one"), named.format("two"), PDF))
    assert alone.text == "one\ntwo"
    assert [found.name for found in alone.attachments] == ["b.pdf"]
    beside = make(multipart("\r\nthe text", named.format("a file")))
    assert beside.text == "the text"
    assert [found.name for found in beside.attachments] == ["body.txt"]


def test_what_html_shows_by_its_id_is_no_text():
    frame = "Content-Type: text/html\r\nContent-ID: <frame@x>\r\n\r\n<p>frame"
    message = make(multipart(HTML, frame, kind="related"))
    assert message.html == "<p>für dich</p>"
    assert message.attachments == [
        Attachment(None, "text/html", b"<p>frame", content_id="frame@x", inline=True)
    ]


@pytest.mark.parametrize(
    ("html", "octets"),
    [
        ("<meta charset=iso-8859-1>", b"\xf8"),
        ("<META CharSet='iso-8859-1'>", b"\xf8"),
        ('<meta http-equiv=Content-Type content="text/html; charset=windows-1252">', b"\xf8"),
        ("<!-- <meta charset=koi8-r> --><meta charset=latin1>", b"\xf8"),
        ("<meta charset=utf-16>", "ø".encode()),
        ("<meta name=x content=y>", "ø".encode()),
        ("", b"\xf8"),
    ],
)
def test_html_may_say_its_charset_itself(html, octets):
    assert body(html.encode() + octets, "text/html").html == f"{html}ø"
    declared = body(html.encode() + "ø".encode(), "text/html; charset=utf-8")
    assert declared.html == f"{html}ø"


@pytest.mark.parametrize(
    ("text", "delsp", "shown"),
    [
        ("one \r\ntwo\r\n\r\nthree\r\n", "", "one two\n\nthree\n"),
        ("https://example.com/ \r\nlong\r\n", "yes", "https://example.com/long\n"),
        ("> one \r\n> two\r\n>> three \r\n> four", "", "> one two\n>> three \n> four"),
        ("> one\r\n>\r\n> two\r\n", "", "> one\n>\n> two\n"),
        ("one \r\ntwo \r\n", "", "one two \n"),
        ("  stuffed\r\n From here", "", " stuffed\nFrom here"),
        ("bye\r\n-- \r\nKim \r\nLee", "", "bye\n-- \nKim Lee"),
    ],
)
def test_paragraphs_of_flowed_text_are_one_line_each(text, delsp, shown):
    parameter = f"; delsp={delsp}" if delsp else ""
    assert body(text, f"text/plain; format=Flowed{parameter}").text == shown
    assert body(text, "text/plain").text == text.replace("\r\n", "\n")


# Transfer encodings.


@pytest.mark.parametrize(
    ("encoding", "encoded", "text"),
    [
        ("base64 ", "aGVsbG8=", "hello"),
        ("base64;", "aGVsbG8=", "hello"),
        ('base64; x="y"', "aGVsbG8=", "hello"),
        ("(really) Base64 (yes)", "aGVsbG8=", "hello"),
        ("base64", "aGVsbG8=\r\nd29ybGQ=\r\n", "helloworld"),
        ("base64", "aGVsbG8==d29ybGQ", "helloworld"),
        ("QUOTED-PRINTABLE (yes)", "a=3Db", "a=b"),
        ("quoted-printable", "a= \t\r\nb \r\nc", "ab\nc"),
        ("x-uuencode", "begin 644 a\r\n%:&5L;&\\ \r\n`\r\nend\r\n", "hello"),
        ("7bit", "begin 644 a\r\n%:&5L;&\\ \r\n`\r\nend", "begin 644 a\n%:&5L;&\\ \n`\nend"),
    ],
)
def test_transfer_encodings_as_they_are_written(encoding, encoded, text):
    assert body(encoded, "text/plain", f"Content-Transfer-Encoding: {encoding}").text == text


def test_an_attached_message_in_base64_is_decoded():
    part = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    message = make(multipart("\r\nouter", part + base64.encodebytes(INNER)))
    assert [found.data for found in message.attachments] == [INNER]


def test_a_name_in_latin_1():
    message = make(b"Content-Disposition: attachment; filename=r\xe9.pdf\r\n\r\nx")
    assert [found.name for found in message.attachments] == ["ré.pdf"]


def test_the_text_is_the_alternative_that_is_text():
    """Not the tail of another one, as Apple Mail adds it."""
    tail = multipart(HTML, PDF, "Content-Type: text/plain\r\n\r\ntail", boundary="y")
    message = make(multipart(PLAIN, tail, kind="alternative"))
    assert (message.text, message.html) == ("für dich", "<p>für dich</p>")


@pytest.mark.parametrize("end", [" charset=utf-8", ",", '"', "\r\n\ttype=y"])
def test_a_boundary_without_the_semicolon_behind_it(end):
    raw = multipart(PLAIN, PDF, boundary="BOUND").decode()
    raw = raw.replace('boundary="BOUND"', f"boundary=BOUND{end}", 1)
    assert make(raw).text == "für dich"


@pytest.mark.parametrize("encoding", ['"base64"', "base64,", "base64 x"])
def test_other_marks_about_a_transfer_encoding(encoding):
    assert body("aGVsbG8=", "text/plain", f"Content-Transfer-Encoding: {encoding}").text == "hello"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart / mixed; boundary=x",
        "(c) multipart/mixed; boundary=x",
        "multipart/mixed, text/plain; boundary=x",
        "multipart/mixed/y; boundary=x",
        "message / rfc822",
        "message/rfc822/x",
        'application/pdf; name="' + "a" * 80 + '"; x*',
    ],
)
def test_a_message_with_an_odd_type_can_be_written(content_type):
    message = make(f"Content-Type: {content_type}\r\n\r\n--x\r\n\r\nHello\r\n--x--\r\n")
    assert b"Hello" in bytes(message)
    assert "Hello" in str(message)


# Attachments by name.


def test_an_attachment_by_its_name_or_its_id():
    picture = PNG.replace("Content-ID: <a>", "Content-ID: <pic@example.com>")
    message = make(multipart(HTML, picture, PDF, kind="related"))
    png, pdf = message.attachments
    assert png.content_id == "pic@example.com"
    assert message.attachment("b.pdf") == pdf
    identified = (
        "pic@example.com",
        "<pic@example.com>",
        "cid:pic@example.com",
        "CID:pic%40example.com",
    )
    for name in ("a.png", *identified):
        assert message.attachment(name) == png
    for name, meant in {
        "A.PNG": r": did you mean a\.png\?",
        "pic": r": did you mean pic@example\.com\?",
        "": "",
    }.items():
        with pytest.raises(AttachmentNotFound, match=rf"there is 'a\.png', 'b\.pdf'{meant}$"):
            message.attachment(name)


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
        ("Content-Disposition: attachment; filename*=nope''gr%FC.txt", "grü.txt"),
        ("Content-Disposition: attachment; filename=my report 1.pdf; x=y", "my report 1.pdf"),
        ('Content-Disposition: attachment; filename="no end.pdf', "no end.pdf"),
        (r'Content-Disposition: attachment; filename="C:\new\x.txt"', r"C:\new\x.txt"),
        ("Content-Disposition: attachment; filename==?utf-8?q?gr=C3=BC_1.txt?=", "grü 1.txt"),
        (
            "Content-Disposition: attachment;\r\n"
            ' filename="=?utf-8?q?gr=C3?=\r\n =?utf-8?q?=BC.txt?="',
            "grü.txt",
        ),
        (
            "Content-Disposition: attachment; filename=old.txt; filename*=utf-8''gr%C3%BC.txt",
            "grü.txt",
        ),
        ("Content-Disposition: =?utf-8?q?attachment=3B_filename=3Da.txt?=", None),
        ("Content-Disposition: attachment; filename=report (1).pdf", "report (1).pdf"),
        ("Content-Disposition: attachment; filename=a (b) c.pdf (x); size=1", "a (b) c.pdf"),
        ("X: no disposition", None),
    ],
)
def test_the_name_of_a_file(line, name):
    (attachment,) = body("x", "application/octet-stream", line).attachments
    assert attachment[:3] == (name, "application/octet-stream", b"x")


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
