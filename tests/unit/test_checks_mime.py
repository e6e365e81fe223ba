"""Problems of parts: real kinds of mail have none, and what cannot be read has."""

from __future__ import annotations

import base64

import pytest
from problems import MIME, PICTURE, PLAIN, codes, encoded, html, mail, many, one, problems

UTF8 = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrün"


def disposition(value: str) -> bytes:
    return many(f"Content-Type: image/png\r\nContent-Disposition: {value}\r\n\r\nx")


# Kinds of mail that are right.


SIGNED = many(
    "Content-Type: text/plain; charset=us-ascii\r\n\r\n- -- \r\nKim",
    'Content-Type: application/pgp-signature; name="signature.asc"\r\n\r\n'
    "-----BEGIN PGP SIGNATURE-----\r\n\r\niQ==\r\n-----END PGP SIGNATURE-----",
    kind='signed; micalg=pgp-sha256; protocol="application/pgp-signature"',
)
ENCRYPTED = many(
    "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1",
    "Content-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n",
    kind='encrypted; protocol="application/pgp-encrypted"',
)
S_MIME = one(
    'application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"',
    base64.encodebytes(bytes(200)).replace(b"\n", b"\r\n"),
    "Content-Transfer-Encoding: base64",
    "Content-Disposition: attachment; filename=smime.p7m",
)
#: What was sent is cut off in a report, and is not this sender's.
REPORT = many(
    "Content-Description: Notification\r\nContent-Type: text/plain\r\n\r\nSorry.",
    "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\nAction: failed",
    "Content-Type: message/rfc822\r\n\r\nFrom nobody\r\nSubject: gr=?\r\n"
    "Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n<img src=cid:a>",
    kind="report; report-type=delivery-status",
)
HEADERS_ONLY = many(
    PLAIN,
    "Content-Type: message/disposition-notification\r\n\r\nDisposition: x",
    "Content-Type: text/rfc822-headers\r\n\r\nSubject: x",
    kind="report; report-type=disposition-notification",
)
INVITATION = many(
    PLAIN,
    html("x"),
    'Content-Type: text/calendar; charset="UTF-8"; method=REQUEST\r\n'
    "Content-Transfer-Encoding: 8bit\r\n\r\nBEGIN:VCALENDAR\r\nSUMMARY:grün\r\nEND:VCALENDAR",
    kind="alternative",
)
DIGEST = many("\r\nSubject: one\r\n\r\ngrün", "\r\nSubject: two\r\n\r\nx", kind="digest")
NESTED = mail(
    MIME,
    'Content-Type: multipart/mixed; boundary="x"',
    body="This is MIME.\r\n--y\r\n\r\n--x\r\n"
    'Content-Type: multipart/alternative; boundary="x-y"\r\n\r\npreamble: grün\r\n'
    "--x-y\r\n\r\nplain\r\n--x-y\r\n"
    'Content-Type: multipart/related; boundary="=_x y?"; type="text/html"\r\n\r\n'
    '--=_x y?\r\nContent-Type: text/html\r\n\r\n<img src="cid:a%40b&amp;c">\r\n'
    "--=_x y?\r\nContent-Type: image/png\r\nContent-ID: <A@b&c>\r\n\r\nx\r\n--=_x y?--\r\n"
    "epilogue\r\n--x-y--\r\n--x-y\r\nno part\r\n--x \t\r\n\r\n\r\n--x\r\n--x\r\n\r\n"
    "--x--\r\nepilogue\r\n--x\r\nno part\r\n",
)
FLOWED = one("text/plain; charset=utf-8; format=flowed; delsp=yes", "a \r\n b\r\n-- \r\nKim\r\n")
JAPANESE = one("text/plain; charset=iso-2022-jp", b"\x1b$BF|K\\8l\x1b(B\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        SIGNED,
        ENCRYPTED,
        S_MIME,
        REPORT,
        HEADERS_ONLY,
        INVITATION,
        DIGEST,
        NESTED,
        FLOWED,
        JAPANESE,
        many(PLAIN, ""),
        many(""),
        many(PLAIN, end="--x--"),
        mail(MIME, "Content-Type: multipart/mixed; boundary=x", body="--x--\r\n"),
        one("text/plain", ""),
        encoded("base64", ""),
        encoded("quoted-printable", ""),
        mail(MIME, "Content-Type:", "Content-Transfer-Encoding:"),
        mail(MIME, "Content-Type: text", "Content-Disposition: inline"),
        mail("Mime-Version: 1.0 (Mail 1.0)", "CONTENT-TYPE: Text/Plain ; CharSet = us-ascii"),
        one("text/plain; charset=us-ascii (Plain text)", "x"),
    ],
)
def test_kinds_of_mail_that_are_right(raw):
    assert codes(raw, "8BITMIME") == []


def test_a_boundary_in_pieces():
    raw = one("multipart/mixed; boundary*0=a; boundary*1*=%20b", "--a b\r\n\r\nx\r\n--a b--\r\n")
    assert codes(raw) == []


# Multiparts.


def test_boundaries_that_are_not_there():
    assert codes(one("multipart/mixed; boundary=", "--\r\n")) == ["boundary-missing"]
    assert codes(one("multipart/mixed; boundary=x", "")) == ["boundary-missing"]
    assert codes(one("multipart/mixed; boundary=x", "-x\r\n--X\r\n--xx")) == ["boundary-missing"]
    inner = "Content-Type: multipart/mixed\r\n\r\n--y--"
    assert problems(many(PLAIN, inner)) == [("boundary-missing", "part 2 (multipart/mixed)")]


def test_parts_that_are_not_closed():
    inner = f"Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n{PLAIN}\r\n"
    assert problems(many(PLAIN, inner)) == [("part-not-closed", "part 2 (multipart/mixed)")]
    assert problems(many(inner + "--y--", inner, end="")) == [
        ("part-not-closed", ""),
        ("part-not-closed", "part 2 (multipart/mixed)"),
    ]


def test_numbers_of_parts():
    wrong = "Content-Type: text/plain; charset=nope\r\n\r\nx"
    inner = (
        f"Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n\r\n--y\r\n{wrong}\r\n--y--"
    )
    assert [where for _, where in problems(many(PLAIN, inner, wrong))] == [
        "part 2.2 (text/plain)",
        "part 3 (text/plain)",
    ]


def test_fields_of_parts():
    twice = "Content-Type: text/plain\r\ncontent-type: text/plain\r\n\r\nx"
    assert problems(many(twice)) == [
        ("field-repeated", "part 1 (text/plain), header Content-Type")
    ]
    assert problems(many("Content-Type: text/plain\r\noops\r\n\r\nx")) == [
        ("header-malformed", "line 11")
    ]
    assert problems(many("Content-Description: ü\r\n\r\nx"), "8BITMIME") == [
        ("raw-8bit", "part 1 (text/plain), header Content-Description")
    ]
    assert codes(many("Date: x\r\nFrom: x\r\nSubject: =?nope?q?a?=\r\n\r\nx")) == []


def test_type_of_a_part_is_quoted_if_it_is_strange():
    assert problems(
        many("Content-Type: text/\x1b\xfc; charset=nope\r\n\r\nx"), "8BITMIME", smtp_utf8=True
    ) == [("charset-unknown", "part 1 ('text/\\x1b\xfc')")]


def test_mime_version():
    assert codes(mail("Content-Transfer-Encoding: 7bit")) == ["mime-version-missing"]
    assert codes(mail("Content-Type: text/html; charset=utf-8", body="x")) == ["html-only"]
    assert codes(many("Content-Transfer-Encoding: 7bit\r\n\r\nx")) == []


# Charsets.


@pytest.mark.parametrize(
    "charset",
    "utf-8 UTF-8 utf8 US-ASCII ascii ISO-8859-1 iso8859-1 latin1 windows-1252 cp1252 koi8-r gb2312"
    " GBK big5 shift_jis iso-2022-jp euc-kr ks_c_5601-1987 windows-874 iso-8859-8-i macintosh"
    " x-unknown unknown-8bit utf-7 utf-16 iso-2022-cn viscii tis-620 ansi_x3.4-1968"
    " cp50220 jis_x0201 dec-mcs big5-eten iso-2022-jp-ms".split(),
)
@pytest.mark.parametrize("quotes", ["", '"'])
def test_charsets_that_somebody_knows(charset, quotes):
    assert codes(one(f"text/plain; charset={quotes}{charset}{quotes}", "x")) == []


@pytest.mark.parametrize("charset", "utf-88 utf8mb4 utf-8-sig none hex idna text 8bit".split())
def test_charsets_that_nobody_knows(charset):
    assert codes(one(f"text/plain; charset={charset}", "x")) == ["charset-unknown"]
    assert codes(one(f"application/xml; charset={charset}", "x")) == []


@pytest.mark.parametrize(
    ("charset", "octets"),
    [
        ("utf-8", b"gr\xc3\xbcn \xf0\x9f\x98\x80\xef\xbb\xbf"),
        ("iso-8859-1", b"gr\xfcn \x80"),
        ("gb2312", b"\x80\x95\xff"),
        ("windows-1252", b"\x81"),
        ("x-mine", b"\xff"),
    ],
)
def test_octets_that_may_be_of_a_charset(charset, octets):
    assert codes(encoded("8bit", octets, f"text/plain; charset={charset}"), "8BITMIME") == []


@pytest.mark.parametrize(
    ("charset", "octets"),
    [
        ("utf-8", b"gr\xfcn"),
        ("utf8", b"cut off \xc3"),
        ("UTF-8", b"\xed\xa0\x80"),
        ("us-ascii", b"gr\xc3\xbcn"),
        ("iso-2022-jp", b"\x93\xfa\x96{"),
    ],
)
def test_octets_that_are_not(charset, octets):
    content = base64.b64encode(octets)
    for kind in ("plain", "html", "csv; name=a.csv"):
        raw = many(
            PLAIN,
            b"Content-Transfer-Encoding: base64\r\n"
            + f"Content-Type: text/{kind}; charset={charset}\r\n\r\n".encode()
            + content,
        )
        assert codes(raw) == ["charset-wrong"]


def test_text_without_a_charset_is_ascii():
    octets = "Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BCn"
    assert codes(many(octets)) == ["charset-wrong"]
    assert codes(many(f"Content-Disposition: attachment\r\n{octets}")) == []
    assert codes(many(f"Content-Type: text/plain; name=a.txt\r\n{octets}")) == []
    assert codes(many(f"Content-Type: text/x-other\r\n{octets}")) == []
    assert codes(mail(body="grün"), "8BITMIME") == ["8bit-in-7bit"]


# Transfer encodings.


@pytest.mark.parametrize("encoding", ["7BIT", "8bit", "Binary", "base64 (of course)", "X-mine"])
def test_encodings_that_there_are(encoding):
    assert codes(encoded(encoding, "YWJj")) == []


@pytest.mark.parametrize(
    "encoding", ["7-bit", "8bits", "utf-8", "none", "base64;", "quoted printable"]
)
def test_encodings_that_there_are_not(encoding):
    assert codes(encoded(encoding, "YWJj")) == ["transfer-encoding-invalid"]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("base64", "YW\r\n Jj\t\r\n\r\n"),
        ("base64", "YWI=\r\n"),
        ("quoted-printable", "=3D=3d_ =\r\n=\t\r\nx="),
        ("quoted-printable", "a=20\r\n=\r\n"),
    ],
)
def test_content_that_can_be_decoded(encoding, content):
    assert codes(encoded(encoding, content)) == []
    part = f"Content-Transfer-Encoding: {encoding}\r\n\r\n{content}"
    assert codes(many(part)) == []


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("base64", "YWJ"),
        ("base64", "YQ==YQ=="),
        ("base64", "YWJj-"),
        ("base64", "YWJj\r\n-- \r\nA footer"),
        ("quoted-printable", '<a href="x">'),
        ("quoted-printable", "=C"),
        ("quoted-printable", "grün"),
        ("quoted-printable", "a= b"),
    ],
)
def test_content_that_cannot(encoding, content):
    assert codes(encoded(encoding, content), "8BITMIME") == ["transfer-encoding-invalid"]


@pytest.mark.parametrize("kind", ["mixed", "alternative"])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_multiparts_are_not_encoded(kind, encoding):
    raw = many(PLAIN, kind=f"{kind}\r\nContent-Transfer-Encoding: {encoding}\r\nX: y")
    raw = raw.replace(b"; boundary=x", b"").replace(
        f"/{kind}\r".encode(), f"/{kind}; boundary=x\r".encode()
    )
    assert codes(raw) == ["transfer-encoding-invalid"]
    assert codes(raw.replace(encoding.encode(), b"8bit")) == []


def test_attached_messages():
    head = "Content-Transfer-Encoding: {}\r\nContent-Type: message/{}\r\n\r\nSubject: x\r\n\r\n{}"
    for kind in ("rfc822", "partial", "external-body"):
        raw = many(head.format("quoted-printable", kind, "x"))
        assert codes(raw) == ["message-part-encoded"]
    assert codes(many(head.format("8bit", "rfc822", "grün")), "8BITMIME") == []
    assert (
        codes(many(head.format("base64", "global", "").replace("Subject: x\r\n\r\n", "eA==")))
        == []
    )


def test_eight_bits():
    octets = "Content-Type: application/octet-stream\r\n\r\nü"
    assert codes(many(octets), "8BITMIME") == ["8bit-in-7bit"]
    assert codes(many(octets)) == ["8bit-undeclared", "8bit-in-7bit"]
    assert codes(many(UTF8)) == ["8bit-undeclared"]
    assert codes(many(UTF8), "8BITMIME") == []


# Parameters.


@pytest.mark.parametrize(
    "value",
    [
        'attachment; filename="a b; c=d.pdf"',
        'attachment; filename="a\\"b c\\\\"; size=3',
        "attachment;filename=a-b_c.pdf;",
        "attachment; filename*=UTF-8''gr%C3%BCn%20(1).pdf",
        "attachment; filename*0*=UTF-8''gr%C3%BCn;\r\n filename*1*=%20b; filename*2=c.pdf",
        "attachment; filename=",
        "attachment; filename = 'a'",
        'attachment; modification-date="Thu, 29 Feb 2024 23:59:59 +0000"',
        "inline",
    ],
)
def test_parameters_that_are_right(value):
    assert codes(disposition(value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "attachment; filename=a b.pdf",
        "attachment; filename=a/b.pdf",
        "attachment; filename=a(1).pdf",
        "attachment; filename=a@b; size=3",
        'attachment; filename="a b',
    ],
)
def test_parameters_that_need_quotes(value):
    assert codes(disposition(value)) == ["parameter-unquoted"]


def test_words_in_parameters_are_advice():
    raw = disposition('attachment; filename="=?utf-8?q?gr=C3=BCn?="')
    assert codes(raw) == ["encoded-word-misplaced"]
    raw = disposition("attachment; filename==?utf-8?q?gr=C3=BCn?=")
    assert codes(raw) == ["encoded-word-misplaced", "parameter-unquoted"]


# HTML.


def test_order_of_alternatives():
    related = (
        "Content-Type: multipart/related; boundary=y\r\n\r\n--y\r\n"
        f"{html('x')}\r\n--y\r\n{PICTURE.format('a')}\r\n--y--"
    )
    assert codes(many(related, PLAIN, kind="alternative")) == ["alternative-order"]
    assert codes(many(PLAIN, related, kind="alternative")) == []
    assert codes(many(html("x"), PLAIN, kind="mixed")) == []
    assert (
        codes(many(PLAIN, "Content-Type: text/x-amp-html\r\n\r\nx", html("x"), kind="alternative"))
        == []
    )


def test_html_alone():
    assert codes(many(html("x"), PICTURE.format("a"))) == ["html-only"]
    named = "Content-Type: text/plain; name=a.txt\r\n\r\nx"
    assert codes(many(html("x"), named)) == []
    assert codes(many(html("x"), named.replace("plain", "csv"))) == ["html-only"]
    page = "Content-Disposition: attachment; filename=a.html\r\n" + html("<img src=cid:a>")
    assert codes(many(page)) == []


@pytest.mark.parametrize(
    "text",
    [
        "<img src='cid:a@b'>",
        "<IMG SRC=CID:A@B>",
        '<img src="cid:a%40b">',
        "<body background = 'cid:a@b'>",
        "<p style='background: url(cid:a@b)'>",
        "<a href='mid:other@b'>acid:base (cid:12) cid:x</a>",
        "<!-- <img src='cid:other'> -->",
        "<!--[if gte mso 9]><v:image src='cid:other'/><![endif]-->",
        "<img src='https://example.com/?x=cid'>",
        "<a href='https://example.com/?ref=cid:7'>",
        "<code>src=cid:logo</code>",
    ],
)
def test_pictures_that_are_there(text):
    assert codes(many(PLAIN, html(text), PICTURE.format("a@b"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "<img src='cid:b@a'>",
        "<IMG\r\nSRC=cid:c>",
        "<p style='x: url( \"cid:c\")'>",
        "<img src=cid:a@b><img src=cid:c>",
        "<img src='cid:%20'>",
    ],
)
def test_pictures_that_are_not(text):
    raw = many(PLAIN, html(text), PICTURE.format("a@b"))
    assert problems(raw) == [("cid-missing", "part 2 (text/html)")]


def test_a_content_id_with_a_comment():
    picture = PICTURE.format("a@b").replace("<a@b>", "<a@b> (second)")
    assert picture != PICTURE.format("a@b")
    assert codes(many(PLAIN, html("<img src='cid:a@b'>"), picture)) == []


def test_pictures_in_encoded_html():
    head = "Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html\r\n\r\n"
    assert codes(many(PLAIN, f"{head}<img src=3D'cid:a=\r\n@b'>", PICTURE.format("a@b"))) == []
    assert codes(many(PLAIN, f"{head}<img src=3D'cid:a=\r\n@c'>", PICTURE.format("a@b"))) == [
        "cid-missing"
    ]


def test_binary_content_may_have_any_octets():
    raw = one("image/png", b"x" * 2000 + b"\n\0\r\xff", "Content-Transfer-Encoding: binary")
    wrong = ["bare-cr", "bare-lf", "nul", "line-too-long"]
    assert codes(raw, "8BITMIME") == wrong
    assert codes(raw) == [*wrong[:3], "8bit-undeclared", *wrong[3:]]
    assert codes(raw, "BINARYMIME") == []
    assert codes(mail(without="From"), "binarymime") == ["from-missing"]
