"""Header fields: encoded words, folding, 8-bit octets, and lists of addresses."""

from __future__ import annotations

from corpus import Case, attached, octets, part, word

from lazr_smtptest.message import Attachment


def subject(name: str, value: str, shown: str, *problems: str) -> Case:
    return Case(
        name,
        f"Subject: {value}\nTo: lee@example.com\n\n",
        header={"Subject": shown, "To": "lee@example.com"},
        problems=problems,
    )


def to(
    name: str,
    value: str,
    shown: str,
    meets: tuple[str, ...] = ("kim@example.com",),
    misses: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
) -> Case:
    return Case(
        name,
        f"To: {value}\nSubject: Lunch\n\n",
        header={"To": shown, "Subject": "Lunch"},
        meets=tuple(("to", one) for one in meets),
        misses=tuple(("to", one) for one in (*misses, "max@example.org")),
        problems=problems,
    )


SUBJECTS = [
    subject("subject-in-q", "=?utf-8?q?Gr=C3=BC=C3=9Fe_an_Lee?=", "Grüße an Lee"),
    subject("subject-in-b", "=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
    subject("subject-with-language", "=?utf-8*de?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
    subject("subject-with-words-around", "Re: =?utf-8?q?Gr=C3=BC=C3=9Fe?= (2)", "Re: Grüße (2)"),
    subject(
        "blanks-between-words-are-none", "=?utf-8?q?Gr=C3=BC?=\n =?utf-8?q?=C3=9Fe?=", "Grüße"
    ),
    subject("words-of-two-charsets", "=?iso-8859-1?q?=FC?= =?koi8-r?q?=C6?=", "üф"),
    subject("words-beside-each-other", "=?utf-8?q?Gr=C3=BC?==?utf-8?q?=C3=9Fe?=", "Grüße"),
    subject(
        "character-cut-in-two", "=?utf-8?b?R3LD?= =?utf-8?b?vG4=?=", "Grün", "encoded-word-broken"
    ),
    subject(
        "iso-2022-jp-words",
        "=?ISO-2022-JP?B?GyRCQ2s/KRsoQg==?=\n =?ISO-2022-JP?B?GyRCJEckORsoQg==?=",
        "昼食です",
    ),
    subject("gb2312-word-is-gbk", "=?gb2312?B?6Ua7+Q==?=", "镕基"),
    subject("ks-c-word-is-cp949", "=?ks_c_5601-1987?B?jGO55rCi?=", "똠방각"),
    subject("latin-1-word-is-windows-1252", "=?iso-8859-1?q?=93Soup=94_5_=80?=", "“Soup” 5 €"),
    subject("word-of-big5", word("午餐", "big5"), "午餐"),
    subject("word-of-koi8-r", word("Привет", "koi8-r", "q"), "Привет"),
    subject("word-of-windows-1255", word("שלום", "windows-1255"), "שלום"),
    subject("word-without-padding", "=?utf-8?b?R3LDvMOfZQ?=", "Grüße"),
    subject("word-with-blanks", "=?utf-8?q?Gr=C3=BC=C3=9Fe an Lee?=", "Grüße an Lee"),
    subject("word-in-quotes", '"=?utf-8?q?Gr=C3=BCn?="', '"Grün"'),
    subject("word-in-a-word", "Lunch=?utf-8?q?Gr=C3=BCn?=today", "LunchGrüntoday"),
    subject("word-that-is-not-closed", "=?utf-8?q?Gr=C3=BCn", "=?utf-8?q?Gr=C3=BCn"),
    subject("word-of-unknown-encoding", "=?utf-8?x?Lunch?=", "=?utf-8?x?Lunch?="),
    subject("word-of-unknown-charset", "=?lunch-8?q?Gr=C3=BCn?=", "Grün"),
    subject(
        "word-with-a-line-end",
        "=?utf-8?q?One=0D=0ABcc:_max=40example.com?=",
        "One Bcc: max@example.com",
    ),
    subject("word-with-a-line-separator", "=?utf-8?q?One=E2=80=A8Two?=", "One Two"),
    subject("word-decoded-once", "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=", "=?utf-8?q?x?="),
    subject("folded-with-a-blank", "Lunch\n at noon", "Lunch at noon"),
    subject("folded-with-a-tab", "Lunch\n\tat noon", "Lunch at noon"),
    subject("empty-subject", "", ""),
    subject("8bit-utf-8", "Grüße", "Grüße", "raw-8bit"),
    subject("8bit-octets-that-are-not-utf-8", octets(b"Gr\xfcn"), "Grün", "raw-8bit"),
    subject("question-marks-and-equals", "2 =? 3 ?= 5", "2 =? 3 ?= 5"),
    subject("an-emoji", "=?UTF-8?B?8J+NnA==?= Lunch", "🍜 Lunch"),
    subject("underscore-in-b-is-none", "=?utf-8?q?a=5Fb_c?=", "a_b c"),
    Case(
        "header-names-have-no-case",
        "SUBJECT: Lunch\nfrom: kim@example.com\n\n",
        header={"Subject": "Lunch", "FROM": "kim@example.com"},
    ),
    Case(
        "of-two-the-first-counts",
        "Subject: One\nSubject: Two\n\n",
        header={"Subject": "One"},
        problems=("field-repeated",),
    ),
    Case(
        "long-list-of-references",
        "References: <1@example.com>\n\t<2@example.com>\n <3@example.com>\n\n",
        header={"References": "<1@example.com> <2@example.com> <3@example.com>"},
    ),
    Case(
        "list-headers",
        "List-Id: =?utf-8?q?Gr=C3=BCne?= <lunch.example.com>\n"
        "List-Unsubscribe: <mailto:u@example.com?subject=7>,\n <https://example.com/u?t=7>\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n\n",
        header={
            "List-Id": "Grüne <lunch.example.com>",
            "List-Unsubscribe": "<mailto:u@example.com?subject=7>, <https://example.com/u?t=7>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
    ),
]
ADDRESSES = [
    to("address-alone", "kim@example.com", "kim@example.com"),
    to("address-in-brackets", "<kim@example.com>", "kim@example.com"),
    to("name-and-address", "Kim Lee <kim@example.com>", "Kim Lee <kim@example.com>"),
    to("name-in-needless-quotes", '"Kim Lee" <kim@example.com>', "Kim Lee <kim@example.com>"),
    to("name-with-comma", '"Lee, Kim" <kim@example.com>', '"Lee, Kim" <kim@example.com>'),
    to(
        "name-encoded", "=?utf-8?q?Kim_Gr=C3=BCn?= <kim@example.com>", "Kim Grün <kim@example.com>"
    ),
    to(
        "name-encoded-with-comma-and-address",  # nothing decoded is syntax (RFC 2047, 6.2)
        "=?utf-8?q?max=40example=2Eorg=2C_Kim?= <kim@example.com>",
        '"max@example.org, Kim" <kim@example.com>',
    ),
    to(
        "name-encoded-in-quotes",
        '"=?utf-8?q?Kim_Gr=C3=BCn?=" <kim@example.com>',
        "Kim Grün <kim@example.com>",
        problems=("encoded-word-misplaced",),
    ),
    to(
        "several-addresses",
        "Kim <kim@example.com>,\n lee@example.com",
        "Kim <kim@example.com>, lee@example.com",
        ("kim@example.com", "lee@example.com"),
    ),
    to("comment-behind-an-address", "kim@example.com (Kim Lee)", "kim@example.com (Kim Lee)"),
    to(
        "comment-with-an-address",
        "kim@example.com (not max@example.org)",
        "kim@example.com (not max@example.org)",
    ),
    to(
        "comment-within-brackets",  # RFC 5322, 3.4.1
        "Kim <kim(a, b)@(c)example.com (d)>",
        "Kim <kim(a, b)@(c)example.com (d)>",
        misses=("kim(a,b)@(c)example.com(d)", "b)@(c)example.com(d)"),
    ),
    to(
        "url-of-an-address-in-capitals",
        "Kim <MAILTO:kim@example.com>",
        "Kim <MAILTO:kim@example.com>",
    ),
    to(
        "comment-within-a-comment",
        "kim@example.com (a (b) <max@example.org>, c), (d) lee@example.com",
        "kim@example.com (a (b) <max@example.org>, c), (d) lee@example.com",
        ("kim@example.com", "lee@example.com"),
    ),
    to(
        "route-before-an-address",  # obsolete (RFC 5322, 4.4)
        "Kim <@max.example,@lee.example:kim@example.com>",
        "Kim <@max.example,@lee.example:kim@example.com>",
    ),
    to(
        "group",
        "Friends: kim@example.com, Lee <lee@example.com>;",
        "Friends: kim@example.com, Lee <lee@example.com>;",
        ("kim@example.com", "lee@example.com"),
    ),
    to("group-of-none", "undisclosed-recipients:;", "undisclosed-recipients:;", ()),
    to("brackets-in-the-name", "[Sales] Kim <kim@example.com>", "[Sales] Kim <kim@example.com>"),
    to(
        "at-sign-in-the-name",
        "kim@work <kim@example.com>",
        "kim@work <kim@example.com>",
        misses=("kim@work",),
        problems=("address-invalid",),
    ),
    to(
        "address-as-name",
        "kim@example.org <kim@example.com>",
        "kim@example.org <kim@example.com>",
        misses=("kim@example.org",),
    ),
    to(
        "semicolons-between-addresses",
        "kim@example.com; lee@example.com",
        "kim@example.com; lee@example.com",
        ("kim@example.com", "lee@example.com"),
        problems=("address-invalid",),
    ),
    to(
        "comma-in-a-name-without-quotes",
        "Lee, Kim <kim@example.com>",
        "Lee, Kim <kim@example.com>",
        problems=("address-invalid",),
    ),
    to(
        "comma-missing-between-addresses",
        "Kim <kim@example.com> Lee <lee@example.com>",
        "Kim <kim@example.com> Lee <lee@example.com>",
        ("kim@example.com", "lee@example.com"),
        problems=("address-invalid",),
    ),
    to(
        "comma-as-an-encoded-word",  # as Python's library folds some lists
        "=?utf-8?q?J=C3=B6rg?= <kim@example.com>\n =?utf-8?q?=2C?= Lee <lee@example.com>",
        'Jörg <kim@example.com> ", Lee" <lee@example.com>',
        ("kim@example.com", "lee@example.com"),
    ),
    to("comma-too-many", ", kim@example.com,,", ", kim@example.com,,"),
    to("address-literal", "kim@[192.0.2.7]", "kim@[192.0.2.7]", ("kim@[192.0.2.7]",)),
    to(
        "address-literal-of-ipv6",
        "Kim <kim@[IPv6:2001:db8::7]>, lee@[IPv6:2001:db8::8]",
        "Kim <kim@[IPv6:2001:db8::7]>, lee@[IPv6:2001:db8::8]",
        ("kim@[IPv6:2001:db8::7]", "lee@[IPv6:2001:db8::8]"),
    ),
    to(
        "quoted-local-part",
        '"kim lee"@example.com',
        '"kim lee"@example.com',
        ('"kim lee"@example.com',),
        ("kimlee@example.com",),
    ),
    to("local-part-quoted-for-nothing", '"kim"@example.com', '"kim"@example.com'),
    to(
        "dots-where-none-should-be",
        "kim..l.@example.com",
        "kim..l.@example.com",
        ("kim..l.@example.com",),
    ),
    to("domain-in-capitals", "kim@EXAMPLE.com", "kim@EXAMPLE.com"),
    to("local-part-in-capitals", "KIM@example.com", "KIM@example.com", (), ("kim@example.com",)),
    to(
        "domain-in-its-script",
        "kim@xn--grn-ioa.example",
        "kim@xn--grn-ioa.example",
        ("kim@grün.example", "kim@xn--grn-ioa.example"),
        ("kim@grun.example",),
    ),
    to(
        "address-in-an-encoded-word-is-none",  # RFC 2047, 5
        "=?utf-8?q?kim=40example=2Ecom?=",
        "kim@example.com",
        (),
        ("kim@example.com",),
        ("address-invalid",),
    ),
    to(
        "bracket-that-is-not-closed",
        "kim@example.com, Lee <lee@example.com",
        "kim@example.com, Lee <lee@example.com",
    ),
    to(
        "quote-that-is-not-closed-comes-last",
        'kim@example.com, "Lee <lee@example.com>',
        'kim@example.com, "Lee <lee@example.com>',
        problems=("address-invalid",),
    ),
    to(
        "address-folded-in-the-middle-of-a-list",
        "kim@example.com\n ,lee@example.com",
        "kim@example.com ,lee@example.com",
        ("kim@example.com", "lee@example.com"),
    ),
    Case(
        "several-fields-of-addresses",
        "To: kim@example.com\nTo: lee@example.com\nCc: Max <max@example.com>\n"
        "Reply-To: =?utf-8?q?L=C3=BCnch?= <lunch@example.com>\nSender: kim@example.com\n\n",
        header={
            "To": "kim@example.com",
            "Cc": "Max <max@example.com>",
            "Reply-To": "Lünch <lunch@example.com>",
            "Sender": "kim@example.com",
        },
        problems=("field-repeated",),
        meets=(
            ("to", "kim@example.com"),
            ("to", "lee@example.com"),
            ("cc", "max@example.com"),
            ("reply_to", "lunch@example.com"),
        ),
        misses=(("to", "max@example.com"), ("cc", "kim@example.com")),
    ),
    *(
        Case(
            f"8bit-octets-{name}",
            f"To: {octets(to)} <kim@example.com>\nSubject: {octets(subject)}\n"
            + part(f"text/plain;\n charset={charset}", octets(subject)),
            text=shown,
            header={"Subject": shown, "To": f"{who} <kim@example.com>"},
            meets=(("subject", shown), ("to", "kim@example.com")),
            problems=("raw-8bit",),
        )
        for name, charset, to, subject, shown, who in [
            ("in-the-charset-of-the-text", "koi8-r", b"\xeb\xc9\xcd", b"\xef\xc2", "Об", "Ким"),
            ("in-gb2312", "gb2312", b"\xbd\xf0", b"\xe9\x46\xbb\xf9", "镕基", "金"),
        ]
    ),
    Case(
        "8bit-octets-in-the-charset-of-a-text-that-lacks-a-semicolon",
        "Subject: "
        + octets(b"\xef\xc2\n")
        + part("text/plain; charset=koi8-r format=flowed", "x"),
        text="x",
        header={"Subject": "Об"},
    ),
    Case(
        "8bit-octets-of-a-file-name-in-the-charset-of-the-file",
        part("text/csv; charset=koi8-r", "x", attached(octets(b"\xef\xc2.csv"))),
        attachments=(Attachment("Об.csv", "text/csv", b"x", None, "koi8-r", False),),
        header={"Content-Disposition": 'attachment; filename="Об.csv"'},
    ),
    Case(
        "8bit-octets-in-utf-8-whatever-the-text-is-in",
        f"To: Jörg <kim@example.com>\n{part('text/plain; charset=iso-8859-1', 'x')}",
        text="x",
        header={"To": "Jörg <kim@example.com>"},
    ),
    *(
        Case(
            f"8bit-octets-where-the-text-has-no-ascii-{charset}",
            "Subject: " + octets(b"Gr\xfcn") + "\n" + part(f"text/plain; charset={charset}", ""),
            header={"Subject": "Grün"},
        )
        for charset in ("unicode", "ucs-2", "u16", "utf-32", "unicode-1-1-utf-7", "cp037")
    ),
    Case(
        "8bit-octets-that-are-not-in-utf-8-as-the-text-is",
        "Subject: " + octets(b"Gr\xfcn\n") + part("text/plain; charset=utf-8", "x"),
        text="x",
        header={"Subject": "Grün"},
    ),
    Case(
        "8bit-name-and-address",
        "To: Jörg <jörg@grün.example>\n\n",
        header={"To": "Jörg <jörg@grün.example>"},
        meets=(("to", "jörg@grün.example"), ("to", "jörg@xn--grn-ioa.example")),
        misses=(("to", "jorg@grün.example"),),
        problems=("raw-8bit",),
    ),
]
CASES = [*SUBJECTS, *ADDRESSES]
