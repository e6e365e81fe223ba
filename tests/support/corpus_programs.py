"""Messages as mail programs and list servers put them together."""

from __future__ import annotations

from corpus import HEAD, PDF, PNG, Case, attached, binary, multi, part

from lazr_smtptest.message import Attachment

PLAIN = part("text/plain; charset=utf-8", "Lunch at noon?", "Content-Transfer-Encoding: 8bit")
HTML = part("text/html; charset=utf-8", "<p>Lunch at noon?</p>")
BOTH = multi(PLAIN, HTML, kind="alternative", boundary="alt")
TEXT, MARKUP = "Lunch at noon?", "<p>Lunch at noon?</p>"

PICTURE = binary(
    'image/png; name="spoon.png"',
    PNG,
    "Content-ID: <spoon@example.com>",
    'Content-Disposition: inline; filename="spoon.png"',
)
SHOWN_PICTURE = Attachment("spoon.png", "image/png", PNG, "spoon@example.com", None, True)
WITH_PICTURE = part("text/html; charset=utf-8", '<p>Spoon: <img src="cid:spoon@example.com"></p>')
WITH_PICTURE_MARKUP = '<p>Spoon: <img src="cid:spoon@example.com"></p>'
MENU = binary('application/pdf; name="menu.pdf"', PDF, attached("menu.pdf"))
MENU_FILE = Attachment("menu.pdf", "application/pdf", PDF)

TEXTS = [
    Case(
        "no-mime", "Subject: Lunch\n\nAt noon.\n", text="At noon.\n", header={"Subject": "Lunch"}
    ),
    Case("plain", HEAD + PLAIN + "\n", text=TEXT + "\n"),
    Case("html-alone", HEAD + HTML + "\n", html=MARKUP + "\n", problems=("html-only",)),
    Case("alternative", HEAD + BOTH, text=TEXT, html=MARKUP),
    Case(
        "alternative-in-wrong-order",
        HEAD + multi(HTML, PLAIN, kind="alternative"),
        text=TEXT,
        html=MARKUP,
        problems=("alternative-order",),
    ),
    Case("multipart-of-one", HEAD + multi(PLAIN), text=TEXT),
    Case(
        "multipart-of-two-texts",
        HEAD + multi(PLAIN, part("text/plain", "Bring a spoon.")),
        text="Lunch at noon?\nBring a spoon.",
    ),
    Case(
        "unknown-subtype-of-multipart-is-mixed",  # RFC 2046, 5.1.3
        HEAD + multi(PLAIN, MENU, kind="x-lunch"),
        text=TEXT,
        attachments=(MENU_FILE,),
    ),
    Case(
        "preamble-and-epilogue-are-not-shown",  # RFC 2046, 5.1.1
        HEAD + multi(PLAIN).replace("\n\n--b1", "\n\nThis has parts.\n\n--b1", 1) + "The end.\n",
        text=TEXT,
    ),
    Case(
        "part-without-header-is-text",
        HEAD + multi("\nLunch at noon?", MENU),
        text=TEXT,
        attachments=(MENU_FILE,),
    ),
    Case("empty-text-beside-file", HEAD + multi("\n", MENU), attachments=(MENU_FILE,)),
]
APPLE = [
    Case(
        "apple-mail-picture-between-texts",
        HEAD
        + multi(
            part("text/plain; charset=us-ascii", "Look:\n"),
            binary(
                'image/png; name="spoon.png"; x-unix-mode=0644',
                PNG,
                'Content-Disposition: inline; filename="spoon.png"',
            ),
            part("text/plain; charset=us-ascii", "\nWell?"),
        ),
        text="Look:\n\nWell?",
        attachments=(Attachment("spoon.png", "image/png", PNG, inline=True),),
    ),
    Case(
        "apple-mail-html-file-html",
        HEAD
        + multi(
            PLAIN,
            multi(
                part("text/html; charset=utf-8", "<p>Menu:</p>"),
                MENU,
                part("text/html; charset=utf-8", "<p>Well?</p>"),
                boundary="mix",
            ),
            kind="alternative",
        ),
        text=TEXT,
        html="<p>Menu:</p>\n<p>Well?</p>",
        attachments=(MENU_FILE,),
    ),
    Case(
        "apple-mail-related-within-alternative",
        HEAD
        + multi(
            PLAIN,
            multi(WITH_PICTURE, PICTURE, kind='related; type="text/html"', boundary="rel"),
            kind="alternative",
        ),
        text=TEXT,
        html=WITH_PICTURE_MARKUP,
        attachments=(SHOWN_PICTURE,),
    ),
    Case(
        "related-around-alternative",
        HEAD
        + multi(
            multi(PLAIN, WITH_PICTURE, kind="alternative", boundary="alt"), PICTURE, kind="related"
        ),
        text=TEXT,
        html=WITH_PICTURE_MARKUP,
        attachments=(SHOWN_PICTURE,),
    ),
    Case(
        "related-picture-without-disposition-is-inline",
        HEAD
        + multi(
            WITH_PICTURE,
            binary("image/png", PNG, "Content-ID: <spoon@example.com>"),
            kind="related",
        ),
        html=WITH_PICTURE_MARKUP,
        attachments=(Attachment(None, "image/png", PNG, "spoon@example.com", None, True),),
    ),
    Case(
        "mixed-picture-without-disposition-is-not-inline",
        HEAD + multi(PLAIN, binary("image/png", PNG)),
        text=TEXT,
        attachments=(Attachment(None, "image/png", PNG),),
    ),
    Case(
        "related-picture-that-is-an-attachment",
        HEAD
        + multi(
            WITH_PICTURE,
            binary("image/png", PNG, "Content-ID: <spoon@example.com>", attached("spoon.png")),
            kind="related",
        ),
        html=WITH_PICTURE_MARKUP,
        attachments=(Attachment("spoon.png", "image/png", PNG, "spoon@example.com"),),
    ),
    Case(
        "related-whose-root-comes-last",  # RFC 2387, 3.2
        HEAD
        + multi(
            binary("image/png", PNG, "Content-ID: <spoon@example.com>"),
            part("text/html", "<p>Lunch</p>", "Content-ID: <root@example.com>"),
            kind='related; type="text/html"; start="<root@example.com>"',
        ),
        html="<p>Lunch</p>",
        attachments=(Attachment(None, "image/png", PNG, "spoon@example.com", None, True),),
    ),
    Case(
        "related-whose-root-is-not-there",
        HEAD + multi(WITH_PICTURE, PICTURE, kind='related; start="<root@example.com>"'),
        html=WITH_PICTURE_MARKUP,
        attachments=(SHOWN_PICTURE,),
    ),
    Case(
        "picture-that-is-not-there",
        HEAD + multi(WITH_PICTURE, kind="related"),
        html=WITH_PICTURE_MARKUP,
        problems=("cid-missing",),
    ),
    Case(
        "mixed-related-alternative",
        HEAD
        + multi(
            multi(
                multi(PLAIN, WITH_PICTURE, kind="alternative", boundary="alt"),
                PICTURE,
                kind="related",
                boundary="rel",
            ),
            MENU,
        ),
        text=TEXT,
        html=WITH_PICTURE_MARKUP,
        attachments=(SHOWN_PICTURE, MENU_FILE),
    ),
    Case(
        "related-style-sheet-with-location",
        HEAD
        + multi(
            HTML,
            part("text/css", "p { color: red }", "Content-Location: lunch.css"),
            part("text/html", "<p>A frame</p>", "Content-Location: frame.html"),
            kind="related",
        ),
        html=MARKUP,
        attachments=(
            Attachment(None, "text/css", b"p { color: red }", inline=True),
            Attachment(None, "text/html", b"<p>A frame</p>", inline=True),
        ),
    ),
    Case("picture-alone", HEAD + PICTURE, attachments=(SHOWN_PICTURE,)),
    Case("file-alone", HEAD + MENU, attachments=(MENU_FILE,)),
    Case(
        "text-that-is-an-attachment-alone",
        HEAD + part("text/plain", "a,b", attached("a.txt")),
        attachments=(Attachment("a.txt", "text/plain", b"a,b"),),
    ),
]
OUTLOOK = [
    Case(
        "outlook-winmail-dat",
        HEAD
        + multi(
            part('text/plain; charset="us-ascii"', "Lunch at noon?\n"),
            binary(
                'application/ms-tnef; name="winmail.dat"',
                b"\x78\x9f\x3e\x22",
                attached("winmail.dat"),
            ),
        ),
        text="Lunch at noon?\n",
        attachments=(Attachment("winmail.dat", "application/ms-tnef", b"\x78\x9f\x3e\x22"),),
    ),
    Case(
        "outlook-image001",
        HEAD
        + multi(
            multi(
                PLAIN,
                part(
                    'text/html; charset="utf-8"',
                    '<p class=3DMsoNormal><img src=3D"cid:image001.png@01DA6B5F.1B2C3D40">=\n</p>',
                    "Content-Transfer-Encoding: quoted-printable",
                ),
                kind="alternative",
                boundary="----=_NextPart_001_0001_01DA6B5F.1B2C3D40",
            ),
            binary(
                'image/png; name="image001.png"',
                PNG,
                "Content-ID: <image001.png@01DA6B5F.1B2C3D40>",
            ),
            kind="related",
            boundary="----=_NextPart_000_0000_01DA6B5F.1B2C3D40",
        ),
        text=TEXT,
        html='<p class=MsoNormal><img src="cid:image001.png@01DA6B5F.1B2C3D40"></p>',
        attachments=(
            Attachment(
                "image001.png", "image/png", PNG, "image001.png@01DA6B5F.1B2C3D40", None, True
            ),
        ),
    ),
    Case(
        "outlook-conditional-comments",
        HEAD
        + part(
            "text/html; charset=utf-8",
            '<!--[if mso]><a href="https://example.com/mso">old</a><![endif]-->'
            '<!--[if !mso]><!--><a href="https://example.com/new">new</a><!--<![endif]-->'
            '<![if !vml]><a href="https://example.com/image">i</a><![endif]>',
        ),
        html='<!--[if mso]><a href="https://example.com/mso">old</a><![endif]-->'
        '<!--[if !mso]><!--><a href="https://example.com/new">new</a><!--<![endif]-->'
        '<![if !vml]><a href="https://example.com/image">i</a><![endif]>',
        links=("https://example.com/new", "https://example.com/image"),
    ),
    Case(
        "exchange-attachment-with-size-and-dates",
        HEAD
        + multi(
            PLAIN,
            binary(
                'application/pdf; name="menu.pdf"',
                PDF,
                "Content-Description: menu.pdf",
                'Content-Disposition: attachment; filename="menu.pdf"; size=15;\n'
                '\tcreation-date="Thu, 29 Feb 2024 23:59:00 GMT";\n'
                '\tmodification-date="Thu, 29 Feb 2024 23:59:00 GMT"',
            ),
        ),
        text=TEXT,
        attachments=(MENU_FILE,),
    ),
]
CASES = [*TEXTS, *APPLE, *OUTLOOK]
