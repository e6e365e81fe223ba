"""Messages as Gmail, Thunderbird and list servers make them, and unusual trees of parts."""

from __future__ import annotations

from corpus import HEAD, PDF, Case, attached, b64, binary, multi, part
from corpus_programs import BOTH, HTML, MARKUP, MENU, MENU_FILE, PLAIN, TEXT

from lazr_smtptest.message import Attachment

#: The octets of a message that others attach.
INNER = (
    b"From: max@example.com\r\nSubject: The menu\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nSoup: https://example.com/soup\r\n"
)
INNER_LINES = INNER.decode().replace("\r\n", "\n")

CASES = [
    Case(
        "gmail-forward",
        HEAD
        + multi(
            part(
                'text/plain; charset="UTF-8"',
                "FYI\n\n---------- Forwarded message ---------\nFrom: Max <max@example.com>\n",
            ),
            part(
                'text/html; charset="UTF-8"',
                '<div dir=3D"ltr">FYI<div class=3D"gmail_quote"><a href=3D"mailto:max@exampl=\n'
                'e.com">max@example.com</a></div></div>',
                "Content-Transfer-Encoding: quoted-printable",
            ),
            kind="alternative",
            boundary="000000000000a1b2c3061284f5d6",
        ),
        text="FYI\n\n---------- Forwarded message ---------\nFrom: Max <max@example.com>\n",
        html='<div dir="ltr">FYI<div class="gmail_quote"><a href="mailto:max@example.com">'
        "max@example.com</a></div></div>",
        links=("mailto:max@example.com",),
    ),
    Case(
        "gmail-attachment-id",
        HEAD
        + multi(
            BOTH,
            binary(
                'application/pdf; name="menu.pdf"',
                PDF,
                attached("menu.pdf"),
                "X-Attachment-Id: f_lt7",
                "Content-ID: <f_lt7>",
            ),
        ),
        text=TEXT,
        html=MARKUP,
        attachments=(Attachment("menu.pdf", "application/pdf", PDF, "f_lt7"),),
    ),
    Case(
        "thunderbird-flowed",
        HEAD
        + part(
            "text/plain; charset=UTF-8; format=flowed",
            "Shall we meet at noon, \nor later?\n\n"
            "> Meet at the usual \n> place.\nYes.\n-- \nKim\n",
        ),
        text="Shall we meet at noon, or later?\n\n> Meet at the usual place.\nYes.\n-- \nKim\n",
    ),
    Case(
        "flowed-stuffed-lines",
        HEAD
        + part("text/plain; format=flowed", " From here \nto there\n > no quote\n  indented\n"),
        text="From here to there\n> no quote\n indented\n",
    ),
    Case(
        "flowed-with-delsp",
        HEAD
        + part(
            "text/plain; charset=utf-8; format=flowed; delsp=yes",
            "日本 \n語 \n です\n\nhttps://example.com/very/ \nlong\n",
        ),
        text="日本語です\n\nhttps://example.com/very/long\n",
        links=("https://example.com/very/long",),
    ),
    Case(
        "flowed-quotes-of-other-depth-are-not-joined",
        HEAD + part("text/plain; format=Flowed", ">> One \n> Two \n> Three\nFour\n"),
        text=">> One \n> Two Three\nFour\n",
    ),
    Case(
        "fixed-lines-stay",
        HEAD + part("text/plain; format=fixed", "Shall we \nmeet?\n"),
        text="Shall we \nmeet?\n",
    ),
    Case(
        "flowed-in-quoted-printable",
        HEAD
        + part(
            "text/plain; charset=utf-8; format=flowed",
            "Sch=C3=B6n=20\nhier.\n",
            "Content-Transfer-Encoding: quoted-printable",
        ),
        text="Schön hier.\n",
    ),
    Case(
        "forward-as-attachment",
        HEAD
        + multi(PLAIN, part('message/rfc822; name="menu.eml"', INNER_LINES, attached("menu.eml"))),
        text=TEXT,
        attachments=(Attachment("menu.eml", "message/rfc822", INNER),),
    ),
    Case(
        "forward-inline-without-name",
        HEAD + multi(PLAIN, part("message/rfc822", INNER_LINES)),
        text=TEXT,
        attachments=(Attachment(None, "message/rfc822", INNER),),
    ),
    Case(
        "forward-in-base64",  # which RFC 2046 (5.2.1) does not allow
        HEAD + multi(PLAIN, binary("message/rfc822", INNER, attached("menu.eml"))),
        text=TEXT,
        attachments=(Attachment("menu.eml", "message/rfc822", INNER),),
        problems=("message-part-encoded",),
    ),
    Case(
        "forward-of-a-multipart",
        HEAD
        + multi(
            PLAIN, part("message/rfc822", "Subject: Both\nMIME-Version: 1.0\n" + BOTH.rstrip("\n"))
        ),
        text=TEXT,
        attachments=(
            Attachment(
                None,
                "message/rfc822",
                b"Subject: Both\r\nMIME-Version: 1.0\r\n"
                + BOTH.rstrip().replace("\n", "\r\n").encode(),
            ),
        ),
    ),
    Case(
        "mailman-footer",
        HEAD
        + multi(
            PLAIN,
            part(
                'text/plain; charset="us-ascii"',
                "_______________________________________________\n"
                "Lunch mailing list\nhttps://example.com/mailman/listinfo/lunch\n",
                "MIME-Version: 1.0",
                "Content-Transfer-Encoding: 7bit",
                "Content-Disposition: inline",
            ),
        ),
        text="Lunch at noon?\n_______________________________________________\n"
        "Lunch mailing list\nhttps://example.com/mailman/listinfo/lunch\n",
        links=("https://example.com/mailman/listinfo/lunch",),
    ),
    Case(
        "mailman-footer-beside-both",
        HEAD + multi(BOTH, part("text/plain", "Unsubscribe: https://example.com/u\n")),
        text="Lunch at noon?\nUnsubscribe: https://example.com/u\n",
        html=MARKUP,
        links=("https://example.com/u",),
    ),
    Case(
        "mailman-digest",
        HEAD
        + multi(
            part("text/plain", "Today's topics:"),
            multi(
                "\nFrom: kim@example.com\n\nOne",
                "\nFrom: lee@example.com\n\nTwo",
                kind="digest",
                boundary="dig",
            ),
            part("text/plain", "End of digest"),
        ),
        text="Today's topics:\nEnd of digest",
        attachments=(
            Attachment(None, "message/rfc822", b"From: kim@example.com\r\n\r\nOne"),
            Attachment(None, "message/rfc822", b"From: lee@example.com\r\n\r\nTwo"),
        ),
    ),
    Case(
        "signature-as-text-file",
        HEAD
        + multi(PLAIN, part('text/plain; name="signature.txt"', "Kim", attached("signature.txt"))),
        text=TEXT,
        attachments=(Attachment("signature.txt", "text/plain", b"Kim"),),
    ),
    Case(
        "inline-file-of-text-beside-a-text",
        HEAD
        + multi(
            PLAIN,
            part(
                'text/x-patch; name="a.diff"',
                "-a\n+b",
                'Content-Disposition: inline; filename="a.diff"',
            ),
            part(
                "text/plain; name=log.txt", "x", 'Content-Disposition: inline; filename="log.txt"'
            ),
        ),
        text=TEXT,
        attachments=(
            Attachment("a.diff", "text/x-patch", b"-a\r\n+b", inline=True),
            Attachment("log.txt", "text/plain", b"x", inline=True),
        ),
    ),
    Case(
        "all-texts-have-names",
        HEAD
        + multi(
            part(
                'text/plain; charset=utf-8; name="body.txt"',
                "Lunch?",
                "Content-Disposition: inline",
            ),
            part(
                'text/html; charset=utf-8; name="body.html"',
                "<p>Lunch?",
                "Content-Disposition: inline",
            ),
            kind="alternative",
        ),
        text="Lunch?",
        html="<p>Lunch?",
    ),
    Case(
        "amp-beside-html",
        HEAD
        + multi(
            PLAIN,
            part("text/x-amp-html; charset=utf-8", "<!doctype html><html amp4email>"),
            HTML,
            kind="alternative",
        ),
        text=TEXT,
        html=MARKUP,
        attachments=(
            Attachment(None, "text/x-amp-html", b"<!doctype html><html amp4email>", None, "utf-8"),
        ),
    ),
    Case(
        "alternative-of-alternatives",
        HEAD
        + multi(
            PLAIN,
            multi(
                part("text/plain", "The inner text"),
                part("text/html", "<p>The inner HTML"),
                kind="alternative",
                boundary="inner",
            ),
            kind="alternative",
        ),
        text="The inner text",
        html="<p>The inner HTML",
    ),
    Case(
        "two-alternatives-one-behind-the-other",
        HEAD
        + multi(
            BOTH,
            multi(
                part("text/plain", "PS: a spoon"),
                part("text/html", "<p>PS: a spoon"),
                kind="alternative",
                boundary="alt2",
            ),
        ),
        text="Lunch at noon?\nPS: a spoon",
        html="<p>Lunch at noon?</p>\n<p>PS: a spoon",
    ),
    Case(
        "file-within-an-alternative",
        HEAD + multi(PLAIN, HTML, MENU, kind="alternative"),
        text=TEXT,
        html=MARKUP,
        attachments=(MENU_FILE,),
    ),
    Case(
        "named-html-beside-unnamed-text-is-shown",
        HEAD + multi(PLAIN, part('text/html; name="page.html"', "<p>Lunch")),
        text=TEXT,
        html="<p>Lunch",
    ),
    Case(
        "text-of-a-related-that-nothing-refers-to",
        HEAD + multi(HTML, part("text/plain", "Bring a spoon."), kind="related"),
        text="Bring a spoon.",
        html=MARKUP,
    ),
    Case(
        "parts-behind-the-closing-line-are-not-shown",  # RFC 2046, 5.1.1
        HEAD + multi(PLAIN) + "--b1\n" + HTML + "\n--b1--\n",
        text=TEXT,
    ),
    Case(
        "mixed-within-mixed",
        HEAD
        + multi(
            multi(multi(PLAIN, boundary="b3"), MENU, boundary="b2"),
            part("text/plain", "PS: a spoon"),
        ),
        text="Lunch at noon?\nPS: a spoon",
        attachments=(MENU_FILE,),
    ),
    Case(
        "boundary-that-begins-with-another",
        HEAD + multi(multi(PLAIN, HTML, kind="alternative", boundary="b1.1"), MENU, boundary="b1"),
        text=TEXT,
        html=MARKUP,
        attachments=(MENU_FILE,),
    ),
    Case(
        "text-that-looks-like-a-delimiter",
        HEAD + multi(part("text/plain", "--b2\n--b1x\n-- b1\n--\n---b1")),
        text="--b2\n--b1x\n-- b1\n--\n---b1",
    ),
    Case(
        "uuencode-in-the-text-stays",
        HEAD + part("text/plain", "Here:\nbegin 644 a.txt\n#86)C\n`\nend\n"),
        text="Here:\nbegin 644 a.txt\n#86)C\n`\nend\n",
    ),
    Case(
        "uuencoded-part",
        HEAD
        + multi(
            PLAIN,
            part(
                "application/octet-stream",
                "begin 644 a.txt\n#86)C\n`\nend",
                "Content-Transfer-Encoding: x-uuencode",
                attached("a.txt"),
            ),
        ),
        text=TEXT,
        attachments=(Attachment("a.txt", "application/octet-stream", b"abc"),),
    ),
    Case(
        "uppercase-everywhere",
        (HEAD + multi(PLAIN, MENU))
        .replace("Content-Type", "CONTENT-TYPE")
        .replace("multipart/mixed; boundary", "MULTIPART/MIXED; BOUNDARY")
        .replace("attachment; filename", "ATTACHMENT; FILENAME")
        .replace(": base64", ": BASE64"),
        text=TEXT,
        attachments=(MENU_FILE,),
    ),
    Case(
        "json-without-a-name",
        HEAD
        + multi(PLAIN, part("application/json", b64("{}"), "Content-Transfer-Encoding: base64")),
        text=TEXT,
        attachments=(Attachment(None, "application/json", b"{}"),),
    ),
]
