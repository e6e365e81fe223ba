"""Charsets of all names, and transfer encodings (RFC 2045; Encoding Standard, WHATWG)."""

from __future__ import annotations

from corpus import HEAD, PNG, Case, attached, b64, multi, octets, part, qp, word

from lazr_smtptest.message import Attachment

QP, BASE64 = "Content-Transfer-Encoding: quoted-printable", "Content-Transfer-Encoding: base64"


def text(name: str, charset: str, data: bytes, shown: str, *problems: str) -> Case:
    """A plain text, in 8-bit octets."""
    eight = "Content-Transfer-Encoding: 8bit"
    raw = HEAD + part(f"text/plain; charset={charset}", octets(data), eight)
    return Case(name, raw, text=shown, problems=problems)


LEGACY = [
    text("latin-1", "iso-8859-1", b"Gr\xfc\xdfe", "Grüße"),
    text("latin-1-is-windows-1252", "iso-8859-1", b"\x93Soup\x94 \x96 5 \x80", "“Soup” – 5 €"),
    text("ascii-is-windows-1252", "us-ascii", b"Caf\xe9 \x85", "Café …", "charset-wrong"),
    text("windows-1252-quoted-name", '"Windows-1252"', b"Caf\xe9", "Café"),
    text("latin-9-has-the-euro", "ISO-8859-15", b"5 \xa4", "5 €"),
    text("latin-5-is-windows-1254", "iso-8859-9", b"5 \x80 \xfd", "5 € ı"),
    text("latin-2-polish", "iso-8859-2", b"\xbf\xf3\xb3w", "żółw"),
    text("windows-1250-czech", "windows-1250", b"P\xf8\xedli\x9a", "Příliš"),
    text("windows-1251-russian", "windows-1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
    text("koi8-r-russian", "KOI8-R", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
    text("koi8-u-ukrainian", "koi8-u", b"\xa7\xd6\xc1", "їжа"),
    text("iso-8859-5-russian", "iso-8859-5", b"\xbf\xe0\xd8\xd2\xd5\xe2", "Привет"),
    text("iso-8859-7-greek", "iso-8859-7", b"\xc3\xe5\xe9\xdc", "Γειά"),
    text("iso-8859-8-i-hebrew", "iso-8859-8-i", b"\xf9\xec\xe5\xed", "שלום"),
    text("windows-1255-hebrew", "windows-1255", b"\xf9\xec\xe5\xed", "שלום"),
    text("windows-1256-arabic", "windows-1256", b"\xe3\xd1\xcd\xc8\xc7", "مرحبا"),
    text("windows-874-thai", "windows-874", b"\xca\xc7\xd1\xca\xb4\xd5 \x80", "สวัสดี €"),
    text("tis-620-is-windows-874", "tis-620", b"\xca\xc7\xd1\xca\xb4\xd5 \x80", "สวัสดี €"),
    text("windows-1258-vietnamese", "windows-1258", b"\xd0\xe2\xec", "Đâ\u0301"),
    text("macintosh", "macintosh", b"Caf\x8e", "Café"),
    text("shift-jis", "Shift_JIS", "昼食".encode("shift_jis"), "昼食"),
    text("shift-jis-is-cp932", "shift_jis", b"\x87\x40 \xfb\xfc", "① 髙"),
    text("euc-jp", "euc-jp", b"\xc3\xeb\xbf\xa9", "昼食"),
    text("euc-jp-of-windows", "EUC-JP", b"\xfc\xe2\xb6\xb6 \xad\xea\x8e\xb1", "髙橋 ㈱ｱ"),
    text("euc-jp-with-a-stray-octet", "euc-jp", b"\xfc\xe2\x8f\xb0\xa1 \xb6", "髙丂 \ufffd"),
    text("euc-jp-by-its-windows-name", "CP51932", b"\xad\xa1", "①"),
    text("iso-2022-jp-by-its-php-name", "ISO-2022-JP-MS", b"\x1b$B-!\x1b(B", "①"),
    text("gbk-with-later-characters", "gbk", b"\xa8\xbc\xa3\xa0\xfe\x59", "ḿ\u3000\u9fb4"),
    text("koi8-u-is-koi8-ru", "koi8-u", b"\xae\xbe", "ўЎ"),
    text("gbk-as-a-code-page", "windows-936", b"\xe9\x46\x80", "镕€"),
    text("code-page-with-a-hyphen", "cp-850", b"Gr\x81\xe1e", "Grüße"),
    text("iso-2022-jp", "iso-2022-jp", b"\x1b$BCk?)\x1b(B!", "昼食!"),
    text("iso-2022-jp-of-windows", "ISO-2022-JP", b"\x1b$B-!\x1b(B1", "①1"),
    text("gb2312", "gb2312", b"\xce\xe7\xb2\xcd", "午餐"),
    text("gb2312-is-gbk", "GB2312", b"\xe9\x46\xbb\xf9", "镕基"),
    text("gb18030", "gb18030", b"\x81\x30\x84\x36", "¥"),
    text("big5", "big5", b"\xa4\xc8\xc0\x5c", "午餐"),
    text("euc-kr", "euc-kr", b"\xc1\xa1\xbd\xc9", "점심"),
    text("ks-c-5601-is-cp949", "ks_c_5601-1987", b"\x8cc\xb9\xe6\xb0\xa2", "똠방각"),
]
UNICODE = [
    text("utf-8", "utf-8", "Grüße 昼食 🍜".encode(), "Grüße 昼食 🍜"),
    text("utf8-without-hyphen", "UTF8", "Grüße".encode(), "Grüße"),
    text("utf-8-mb4", "utf8mb4", "🍜".encode(), "🍜"),
    text("utf-8-mark", "utf-8", b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "Grüße"),
    text("mark-outweighs-charset", "iso-8859-1", b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "Grüße"),
    Case(
        "utf-16-with-mark",
        HEAD + part("text/plain; charset=utf-16", b64("Grüße\r\n", "utf-16"), BASE64),
        text="Grüße\n",
    ),
    Case(
        "utf-16-big-endian",
        HEAD + part("text/plain; charset=utf-16be", b64("Grüße", "utf-16-be"), BASE64),
        text="Grüße",
    ),
    Case(
        "utf-16-without-mark-is-little-endian",
        HEAD + part("text/plain; charset=utf-16", b64("Grüße", "utf-16-le"), BASE64),
        text="Grüße",
    ),
    Case(
        "utf-7",
        HEAD + part("text/plain; charset=utf-7", "Gr+APwA3w-e", "Content-Transfer-Encoding: 7bit"),
        text="Grüße",
    ),
    text("no-charset-that-is-utf-8", '""', "Grüße".encode(), "Grüße"),
    text("unknown-charset-that-is-utf-8", "x-lunch", "Grüße".encode(), "Grüße"),
    text("no-such-charset", "lunch-8", b"Gr\xfc\xdfe", "Grüße", "charset-unknown"),
    text("codec-that-is-no-charset", "rot13", b"Lunch", "Lunch", "charset-unknown"),
    text("utf-8-that-is-latin-1", "utf-8", b"Gr\xfcn", "Gr\ufffdn", "charset-wrong"),
    Case(
        "no-content-type-and-utf-8",
        "Subject: Lunch\n\nGrüße\n",
        text="Grüße\n",
        header={"Subject": "Lunch"},
    ),
    Case(
        "no-content-type-and-latin-1",
        "Subject: Lunch\n\n" + octets(b"Gr\xfc\xdfe\n"),
        text="Grüße\n",
    ),
]
META = [
    Case(
        "meta-charset-without-one-in-the-header",
        HEAD
        + part("text/html", octets(b"<meta charset=windows-1251><p>\xcf\xf0\xe8\xe2\xe5\xf2")),
        html="<meta charset=windows-1251><p>Привет",
    ),
    Case(
        "meta-http-equiv",
        HEAD
        + part(
            "text/html",
            "<META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=3Dkoi8-r'>=F0=D2=C9",
            QP,
        ),
        html="<META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=koi8-r'>При",
    ),
    Case(
        "header-outweighs-meta-charset",
        HEAD + part("text/html; charset=utf-8", "<meta charset='iso-8859-1'>Grüße"),
        html="<meta charset='iso-8859-1'>Grüße",
    ),
    *(
        Case(f"html-{name}", HEAD + part(kind, octets(data)), html=data.decode("windows-1251"))
        for name, kind, data in [
            (
                "xml-declaration",
                "text/html",
                '<?xml version="1.0" encoding="windows-1251"?><p>Привет'.encode("cp1251"),
            ),
            (
                "xml-declaration-counts-less-than-meta",
                "text/html",
                '<?xml encoding="koi8-r"?><meta charset=windows-1251>Привет'.encode("cp1251"),
            ),
            (
                "meta-charset-behind-one-that-nobody-knows",
                "text/html",
                "<meta charset=lunch><meta charset=windows-1251>Привет".encode("cp1251"),
            ),
            (
                "meta-content-that-is-no-content-type",
                "text/html",
                "<meta name=a content='charset=koi8-r'><meta charset=cp1251>П".encode("cp1251"),
            ),
            (
                "meta-charset-where-nobody-knows-the-headers",
                "text/html; charset=x-lunch",
                "<meta charset=windows-1251>Привет".encode("cp1251"),
            ),
        ]
    ),
    Case(
        "meta-charset-in-a-comment-is-none",
        HEAD + part("text/html", "<!-- <meta charset='koi8-r'> -->Grüße"),
        html="<!-- <meta charset='koi8-r'> -->Grüße",
    ),
    Case(
        "meta-charset-says-utf-16-and-is-not",  # HTML Standard, 13.2.3.2
        HEAD + part("text/html", "<meta charset=utf-16>Grüße"),
        html="<meta charset=utf-16>Grüße",
    ),
    *(
        Case(
            f"meta-charset-says-{charset}-and-is-not",
            HEAD + part("text/html", f"<meta charset={charset}>Grüße"),
            html=f"<meta charset={charset}>Grüße",
        )
        for charset in ("unicode", "csUnicode", "unicodeFFFE", "utf-32", "cp037")
    ),
]
TRANSFER = [
    Case(
        "quoted-printable-soft-breaks",
        HEAD + part("text/plain; charset=utf-8", "Gr=C3=BC=\n=C3=9Fe=20=\n!\n=\n", QP),
        text="Grüße !\n",
    ),
    Case(
        "quoted-printable-in-lower-case",
        HEAD + part("text/plain; charset=utf-8", "Gr=c3=bcn", QP),
        text="Grün",
    ),
    Case(
        "quoted-printable-blanks-at-the-end-of-lines",  # RFC 2045, 6.7, rule 3
        HEAD + part("text/plain; charset=utf-8", "One  \nTwo = \nThree\t\n", QP),
        text="One\nTwo Three\n",
    ),
    Case(
        "quoted-printable-with-a-stray-equals-sign",
        HEAD + part("text/plain; charset=utf-8", "a = b, 5 =G", QP),
        text="a = b, 5 =G",
        problems=("transfer-encoding-invalid",),
    ),
    Case(
        "quoted-printable-with-stray-equals-signs-in-a-row",
        HEAD + part("text/plain; charset=utf-8", "https://example.com/?t=YQ== a===3Db", QP),
        text="https://example.com/?t=YQ== a===b",
        links=("https://example.com/?t=YQ==",),
        problems=("transfer-encoding-invalid",),
    ),
    Case(
        "quoted-printable-encoded-line-ends",
        HEAD + part("text/plain; charset=utf-8", "One=0D=0ATwo", QP),
        text="One\nTwo",
    ),
    Case(
        "base64-text",
        HEAD + part("text/plain; charset=koi8-r", b64("Привет, Ли\r\n", "koi8-r"), BASE64),
        text="Привет, Ли\n",
    ),
    Case(
        "base64-of-pieces-with-padding-each",
        HEAD + part("text/plain", f"{b64('One ')}{b64('Two, ')}\n{b64('Three')}\n", BASE64),
        text="One Two, Three",
    ),
    Case(
        "base64-without-padding",
        HEAD + part("text/plain", b64("Lunch").rstrip("="), BASE64),
        text="Lunch",
        problems=("transfer-encoding-invalid",),
    ),
    Case(
        "base64-with-blanks-and-marks",
        HEAD + part("text/plain", " TH Vu\n\t!Y2g=", BASE64),
        text="Lunch",
    ),
    *(
        Case(
            f"transfer-encoding-with-{name}",
            HEAD
            + part(
                "text/plain; charset=utf-8", b64("Grüße"), f"Content-Transfer-Encoding: {value}"
            ),
            text="Grüße",
        )
        for name, value in {
            "blanks-behind": "base64 \t ",
            "a-parameter": "base64; x=1",
            "a-semicolon": "base64;",
            "a-comment": "base64 (of course)",
            "a-comment-before": "(this is) Base64",
            "a-folded-line": "\n base64",
        }.items()
    ),
    Case(
        "unknown-transfer-encoding",
        HEAD + part("text/plain", "Lunch", "Content-Transfer-Encoding: x-lunch"),
        text="Lunch",
    ),
    Case(
        "8bit-as-transfer-encoding-of-7-bits",
        HEAD + part("text/plain", "Lunch", "Content-Transfer-Encoding: utf-8"),
        text="Lunch",
        problems=("transfer-encoding-invalid",),
    ),
    Case(
        "transfer-encoding-of-a-multipart-means-nothing",  # RFC 2045, 6.4
        HEAD
        + "Content-Transfer-Encoding: base64\n"
        + multi(
            part("text/plain", "Lunch"), part("image/png", b64(PNG), BASE64, attached("a.png"))
        ),
        text="Lunch",
        attachments=(Attachment("a.png", "image/png", PNG),),
    ),
    Case(
        "parts-of-different-charsets",
        HEAD
        + multi(
            part("text/plain; charset=koi8-r", qp("Привет", "koi8-r"), QP),
            part("text/html; charset=windows-1251", qp("Привет", "windows-1251"), QP),
            part("text/csv; charset=gb2312", qp("午餐", "gb2312"), QP, attached("a.csv")),
            kind="alternative",
        ),
        text="Привет",
        html="Привет",
        attachments=(Attachment("a.csv", "text/csv", b"\xce\xe7\xb2\xcd", None, "gb2312"),),
    ),
    Case(
        "subject-and-text-in-iso-2022-jp",
        f"Subject: {word('昼食', 'iso-2022-jp')}\n"
        + part("text/plain; charset=iso-2022-jp", octets("昼食です".encode("iso-2022-jp"))),
        text="昼食です",
        header={"Subject": "昼食"},
    ),
]
CASES = [*LEGACY, *UNICODE, *META, *TRANSFER]
