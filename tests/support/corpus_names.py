"""Names of attachments: quoted or not, encoded, in pieces (RFC 2045, 2183, 2231)."""

from __future__ import annotations

from corpus import HEAD, Case, multi, part

from lazr_smtptest.message import Attachment

TEXT = part("text/plain; charset=utf-8", "Lunch")


def named(
    name: str, shown: str | None, *lines: str, kind: str = "application/pdf", **more
) -> Case:
    """A message with an attachment, and what its name is."""
    inline = any("inline" in line for line in lines)
    return Case(
        name,
        HEAD + multi(TEXT, part(kind, "x", *lines)),
        text="Lunch",
        attachments=(Attachment(shown, kind.partition(";")[0], b"x", inline=inline),),
        **more,
    )


def filename(name: str, value: str, shown: str | None, **more) -> Case:
    return named(name, shown, f"Content-Disposition: attachment; {value}", **more)


UNQUOTED = ("parameter-unquoted",)
MISPLACED = ("encoded-word-misplaced",)

CASES = [
    filename("name-in-quotes", 'filename="menu.pdf"', "menu.pdf"),
    filename("name-as-a-token", "filename=menu.pdf", "menu.pdf"),
    filename("name-in-capitals", "FILENAME=Menu.PDF", "Menu.PDF"),
    filename("name-with-blanks-around-equals", 'filename = "menu.pdf"', "menu.pdf"),
    filename("name-folded", '\n\tfilename="menu.pdf"', "menu.pdf"),
    filename(
        "name-with-blanks-without-quotes",
        "filename=the menu of today.pdf",
        "the menu of today.pdf",
        problems=UNQUOTED,
    ),
    filename("name-with-quotes-in-it", r'filename="the \"menu\".pdf"', 'the "menu".pdf'),
    filename("name-with-semicolon-in-quotes", 'filename="a;b.pdf"; size=1', "a;b.pdf"),
    filename("name-with-windows-path", r'filename="C:\lunch\menu.pdf"', r"C:\lunch\menu.pdf"),
    filename("name-with-comment-behind", 'filename="menu.pdf" (today)', "menu.pdf"),
    filename("name-with-parentheses-in-quotes", 'filename="menu (2).pdf"', "menu (2).pdf"),
    filename("name-without-closing-quote", 'filename="menu.pdf', "menu.pdf", problems=UNQUOTED),
    filename("name-empty", 'filename=""', None),
    filename("name-in-utf-8", 'filename="menü.pdf"', "menü.pdf", problems=("raw-8bit",)),
    filename("name-extended", "filename*=utf-8''men%C3%BC.pdf", "menü.pdf"),
    filename("name-extended-with-language", "filename*=utf-8'de'men%C3%BC.pdf", "menü.pdf"),
    filename("name-extended-in-latin-1", "filename*=iso-8859-1''men%FC%80.pdf", "menü€.pdf"),
    filename("name-extended-in-gb2312", "filename*=gb2312''%CE%E7%B2%CD.pdf", "午餐.pdf"),
    filename("name-extended-without-charset", "filename*=''men%C3%BC.pdf", "menü.pdf"),
    filename("name-extended-in-quotes", "filename*=\"utf-8''men%C3%BC.pdf\"", "menü.pdf"),
    filename("name-extended-in-unknown-charset", "filename*=lunch''men%C3%BC.pdf", "menü.pdf"),
    filename(
        "name-extended-beside-plain",
        "filename=\"menu.pdf\"; filename*=utf-8''men%C3%BC.pdf",
        "menü.pdf",
    ),
    filename(
        "name-extended-before-plain",
        "filename*=utf-8''men%C3%BC.pdf; filename=\"menu.pdf\"",
        "menü.pdf",
    ),
    filename(
        "name-in-pieces",
        'filename*0="the menu";\n filename*1=" of today.pdf"',
        "the menu of today.pdf",
    ),
    filename(
        "name-in-extended-pieces",
        "filename*0*=utf-8''men;\n filename*1*=%C3%BC%20;\n filename*2=\"of.pdf\"",
        "menü of.pdf",
    ),
    filename("name-in-pieces-out-of-order", 'filename*1="b.pdf"; filename*0="a"', "ab.pdf"),
    filename(
        "name-in-pieces-that-cut-a-character",
        "filename*0*=utf-8''men%C3; filename*1*=%BC.pdf",
        "menü.pdf",
    ),
    filename(
        "name-in-pieces-with-percent-in-plain-one",
        "filename*0*=utf-8''50; filename*1=\"%20.pdf\"",
        "50%20.pdf",
    ),
    filename(
        "name-in-more-than-ten-pieces",
        "; ".join(f"filename*{at}={chr(97 + at)}" for at in range(12)),
        "abcdefghijkl",
    ),
    filename("name-in-pieces-with-a-gap", 'filename*0="a"; filename*2="c"', "a"),
    filename(
        "name-in-pieces-without-the-first", 'filename*1="b"; filename="menu.pdf"', "menu.pdf"
    ),
    filename(
        "name-as-encoded-word",
        'filename="=?utf-8?q?men=C3=BC.pdf?="',
        "menü.pdf",
        problems=MISPLACED,
    ),
    filename(
        "name-as-encoded-word-without-quotes", "filename==?utf-8?b?bWVuw7wucGRm?=", "menü.pdf"
    ),
    filename(
        "name-as-two-encoded-words",
        'filename="=?utf-8?q?men=C3=BC?=\n =?utf-8?q?_of.pdf?="',
        "menü of.pdf",
        problems=MISPLACED,
    ),
    filename(
        "name-as-encoded-word-in-iso-2022-jp",
        'filename="=?iso-2022-jp?B?GyRCQ2s/KRsoQg==?=.pdf"',
        "昼食.pdf",
        problems=MISPLACED,
    ),
    filename("name-twice-the-first-counts", 'filename="a.pdf"; filename="b.pdf"', "a.pdf"),
    filename("name-beside-a-lone-star", 'filename*; filename="menu.pdf"', "menu.pdf"),
    filename(
        "name-beside-a-star-and-equals", 'filename*=; filename="menu.pdf"; size*', "menu.pdf"
    ),
    filename("name-extended-with-broken-percents", "filename*=utf-8''50%-%zz.pdf", "50%-%zz.pdf"),
    filename("semicolons-too-many", ';; filename="menu.pdf";;', "menu.pdf"),
    named("name-of-the-type-alone", "menu.pdf", kind='application/pdf; name="menu.pdf"'),
    named(
        "name-of-the-disposition-counts-more",
        "b.pdf",
        'Content-Disposition: attachment; filename="b.pdf"',
        kind='application/pdf; name="a.pdf"',
    ),
    named(
        "name-of-the-type-in-pieces",
        "menü.pdf",
        kind="application/pdf; name*0*=utf-8''men; name*1*=%C3%BC.pdf",
    ),
    named(
        "name-of-the-type-encoded",
        "menü.pdf",
        "Content-Disposition: attachment",
        kind='application/pdf; name="=?utf-8?q?men=C3=BC.pdf?="',
        problems=MISPLACED,
    ),
    named("disposition-without-a-name", None, "Content-Disposition: attachment"),
    named(
        "disposition-inline-with-a-name",
        "menu.pdf",
        "Content-Disposition: inline; filename=menu.pdf",
    ),
    named(
        "disposition-with-a-comment",
        "menu.pdf",
        "Content-Disposition: attachment (a file); filename=menu.pdf",
    ),
    Case(
        "content-id-with-blanks-and-comment",
        HEAD + multi(TEXT, part("image/png", "x", "Content-ID: (this) <a@example.com> ")),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b"x", "a@example.com"),),
    ),
    Case(
        "content-id-without-brackets",
        HEAD + multi(TEXT, part("image/png", "x", "Content-ID: a@example.com")),
        text="Lunch",
        attachments=(Attachment(None, "image/png", b"x", "a@example.com"),),
    ),
]
