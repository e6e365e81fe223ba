"""Broken messages: what can be read is read, and what is wrong has a name."""

from __future__ import annotations

from corpus import HEAD, PDF, PNG, Case, attached, b64, binary, multi, octets, part

from lazr_smtptest.message import Attachment

TEXT = part("text/plain; charset=utf-8", "Lunch")
HTML = part("text/html; charset=utf-8", "<p>Lunch")
FILE = binary("application/pdf", PDF, attached("menu.pdf"))
MENU = (Attachment("menu.pdf", "application/pdf", PDF),)
PLAIN = "Subject: Lunch\n"

BOUNDARIES = [
    Case(
        "multipart-that-is-not-closed",
        HEAD + multi(TEXT, FILE, end=""),
        text="Lunch",
        attachments=MENU,
        problems=("part-not-closed",),
    ),
    Case(
        "inner-multipart-that-is-not-closed",
        HEAD + multi(multi(TEXT, HTML, kind="alternative", boundary="alt", end=""), FILE),
        text="Lunch",
        html="<p>Lunch\n",
        attachments=MENU,
        problems=("part-not-closed",),
    ),
    Case(
        "mail-that-ends-within-base64",
        HEAD
        + multi(
            TEXT, part("image/png", b64(PNG)[:16], "Content-Transfer-Encoding: base64"), end=""
        ),
        text="Lunch",
        attachments=(Attachment(None, "image/png", PNG[:12]),),
        problems=("part-not-closed",),
    ),
    Case(
        "multipart-without-a-boundary",
        HEAD + "Content-Type: multipart/mixed\n\n--b1\n" + TEXT + "\n--b1--\n",
        attachments=(
            Attachment(
                None,
                "multipart/mixed",
                ("--b1\n" + TEXT + "\n--b1--\n").replace("\n", "\r\n").encode(),
            ),
        ),
        problems=("boundary-missing",),
    ),
    Case(
        "boundary-twice",
        HEAD + multi(TEXT, FILE).replace('"b1"', '"b1"; boundary="b2"', 1),
        text="Lunch",
        attachments=MENU,
    ),
    Case(
        "boundary-beside-a-broken-extended-one",
        HEAD
        + multi(TEXT, FILE).replace('boundary="b1"', 'boundary*; boundary="b1"; boundary*', 1),
        text="Lunch",
        attachments=MENU,
    ),
    Case(
        "boundary-extended",
        HEAD + multi(TEXT, FILE).replace('boundary="b1"', "boundary*=us-ascii''b1", 1),
        text="Lunch",
        attachments=MENU,
    ),
    Case(
        "boundary-with-blanks-without-quotes",
        HEAD + multi(TEXT, FILE, boundary="b 1").replace('"b 1"', "b 1", 1),
        text="Lunch",
        attachments=MENU,
        problems=("parameter-unquoted",),
    ),
    Case(
        "boundary-that-two-multiparts-have",
        HEAD + multi(multi(TEXT, HTML, kind="alternative"), FILE),
        text="Lunch",
        html="<p>Lunch",
        attachments=MENU,
    ),
    Case(
        "delimiter-with-blanks-behind",
        HEAD + multi(TEXT, FILE).replace("--b1\n", "--b1 \t\n"),
        text="Lunch",
        attachments=MENU,
    ),
    Case(
        "delimiter-without-blank-line-behind-the-header",
        HEAD + 'Content-Type: multipart/mixed; boundary="b1"\n--b1\n' + TEXT + "\n--b1--\n",
        text="Lunch",
    ),
    Case(
        "part-that-is-a-header-alone",
        HEAD + multi("Content-Type: image/png", TEXT),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b""),),
    ),
    Case(
        "delimiters-with-nothing-between",
        HEAD
        + 'Content-Type: multipart/mixed; boundary="b1"\n\n--b1\n--b1\n'
        + TEXT
        + "\n--b1--\n",
        text="Lunch",
    ),
    Case(
        "bare-line-feeds",
        (HEAD + multi(TEXT, FILE)).encode(),
        text="Lunch",
        attachments=MENU,
        problems=("bare-lf",),
    ),
]
HEADERS = [
    Case(
        "mailbox-line-first",
        "From kim@example.com Thu Feb 29 23:59:59 2024\n" + HEAD + TEXT,
        text="Lunch",
        header={"From": "Kim <kim@example.com>", "Subject": "Lunch"},
    ),
    Case(
        "junk-line-in-the-header",
        PLAIN + "  \n" + "To: lee@example.com\n\nAt noon.\n",
        text="At noon.\n",
        header={"To": "lee@example.com"},
    ),
    Case(
        "header-without-a-blank-line-behind",
        PLAIN + "At noon, by the lake.\nKim\n",
        text="At noon, by the lake.\nKim\n",
        header={"Subject": "Lunch"},
        problems=("header-malformed",),
    ),
    Case(
        "first-line-is-a-continuation",
        " odd\nSubject: Lunch\n\nAt noon.\n",
        text="At noon.\n",
        header={"Subject": "Lunch"},
        problems=("header-malformed",),
    ),
    Case(
        "no-header-at-all",
        "\nAt noon.\n",
        text="At noon.\n",
        header={"Subject": ""},
        problems=("from-missing",),
    ),
    Case(
        "date-that-nobody-can-read",
        PLAIN + "Date: yesterday at noon\n\nx\n",
        text="x\n",
        header={"Date": "yesterday at noon"},
        problems=("date-invalid",),
    ),
    Case(
        "nul-in-the-header",
        "Subject: Lu\0nch\nTo: lee@example.com\n\nx\n",
        text="x\n",
        header={"Subject": "Lu\0nch", "To": "lee@example.com"},
        problems=("nul",),
    ),
    Case(
        "nul-in-a-parameter",
        HEAD + multi(TEXT, binary("application/pdf", PDF, attached("me\0nu.pdf"))),
        text="Lunch",
        attachments=(Attachment("me\0nu.pdf", "application/pdf", PDF),),
        problems=("nul",),
    ),
    Case(
        "nul-in-the-charset",
        HEAD + part('text/plain; charset="utf\0-8"', "Grün"),
        text="Grün",
        problems=("nul",),
    ),
    Case(
        "nul-in-the-text",
        HEAD + part("text/plain; charset=utf-8", "Lu\0nch"),
        text="Lu\0nch",
        problems=("nul",),
    ),
    Case(
        "type-without-a-subtype-is-text",  # RFC 2045, 5.2
        HEAD + part("text", "Lunch"),
        text="Lunch",
    ),
    Case(
        "type-with-a-semicolon-missing",
        HEAD + part("text/html charset=utf-8", "<p>Lunch"),
        html="<p>Lunch",
    ),
    Case(
        "type-with-a-comma-for-a-semicolon",
        HEAD + part("text/html, charset=utf-8", "<p>Lunch"),
        html="<p>Lunch",
    ),
    Case(
        "type-twice-the-first-counts",
        HEAD + "Content-Type: text/html\n" + TEXT,
        html="Lunch",
        problems=("field-repeated",),
    ),
    Case(
        "type-with-a-comment",
        HEAD + part("text/html (the best); charset=utf-8 (of course)", "<p>Grün"),
        html="<p>Grün",
    ),
    Case(
        "parameter-with-star-alone",
        HEAD + part("text/plain; charset*; name*", "Lunch"),
        text="Lunch",
    ),
    Case(
        "disposition-that-is-empty",
        HEAD + multi(TEXT, part("image/png", "x", "Content-Disposition:")),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b"x"),),
    ),
    Case(
        "disposition-that-is-one-encoded-word",
        HEAD
        + multi(
            TEXT,
            part(
                "image/png",
                "x",
                "Content-Disposition: =?utf-8?q?attachment=3B_filename=3D=22a=2Epng=22?=",
            ),
        ),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b"x"),),
    ),
    Case(
        "content-id-that-is-empty",
        HEAD + multi(TEXT, part("image/png", "x", "Content-ID: <>")),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b"x"),),
    ),
    Case(
        "octets-that-are-no-header-in-a-part",
        HEAD + multi(octets(b"\xfd\xfe\n\nx"), TEXT),
        text="ýþ\n\nx\nLunch",
    ),
    Case(
        "mime-version-missing",
        PLAIN + multi(TEXT, FILE),
        text="Lunch",
        attachments=MENU,
        problems=("mime-version-missing",),
    ),
    Case(
        "8-bit-octets-declared-as-7-bit",
        HEAD + part("text/plain; charset=utf-8", "Grün", "Content-Transfer-Encoding: 7bit"),
        text="Grün",
        problems=("8bit-in-7bit", "8bit-undeclared"),
    ),
    Case(
        "base64-that-is-plain-text",
        HEAD + part("text/plain", "????", "Content-Transfer-Encoding: base64"),
        text="",
        problems=("transfer-encoding-invalid",),
    ),
    Case(
        "field-over-and-over",
        HEAD + "X-Lunch: 1\n" * 200 + TEXT,
        text="Lunch",
        header={"X-Lunch": "1", "Subject": "Lunch"},
    ),
    Case("nothing", b""),
    Case("line-ends-alone", b"\r\n\r\n", text="\n"),
]
CASES = [*BOUNDARIES, *HEADERS]
