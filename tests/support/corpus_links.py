"""Links in HTML and in plain text: nothing of a URL is cut off, and nothing added."""

from __future__ import annotations

from corpus import HEAD, Case, multi, part

LONG = f"https://example.com/t?d={'x' * 5000}"


def plain(name: str, text: str, *links: str) -> Case:
    return Case(name, HEAD + part("text/plain; charset=utf-8", text), text=text, links=links)


def html(name: str, markup: str, *links: str) -> Case:
    return Case(name, HEAD + part("text/html; charset=utf-8", markup), html=markup, links=links)


PLAIN = [
    plain("url-and-full-stop", "See https://example.com/a.", "https://example.com/a"),
    plain(
        "url-and-marks",
        "https://example.com/a, https://example.com/b?!",
        "https://example.com/a",
        "https://example.com/b",
    ),
    plain(
        "url-with-trailing-underscore", "https://example.com/t/a_ b", "https://example.com/t/a_"
    ),
    plain("url-with-trailing-asterisk", "https://example.com/t/a*", "https://example.com/t/a*"),
    plain("url-with-trailing-hyphen", "https://example.com/t/a-\n", "https://example.com/t/a-"),
    plain(
        "url-with-trailing-equals", "https://example.com/?t=YQ==", "https://example.com/?t=YQ=="
    ),
    plain(
        "url-with-trailing-equals-and-stop",
        "https://example.com/?t=YQ==.",
        "https://example.com/?t=YQ==",
    ),
    plain("url-with-trailing-slash", "https://example.com/a/", "https://example.com/a/"),
    plain("url-with-trailing-hash", "https://example.com/a#", "https://example.com/a#"),
    plain("url-in-bold", "*https://example.com/a*", "https://example.com/a"),
    plain(
        "url-in-italics-with-underscore", "_https://example.com/a_b_", "https://example.com/a_b"
    ),
    plain("url-in-angle-brackets", "<https://example.com/a_>", "https://example.com/a_"),
    plain("url-in-parentheses", "(https://example.com/a)", "https://example.com/a"),
    plain(
        "url-with-parentheses-of-its-own",
        "(https://example.com/a_(b))",
        "https://example.com/a_(b)",
    ),
    plain(
        "url-in-quotes",
        "\"https://example.com/a\" 'https://example.com/b'",
        "https://example.com/a",
        "https://example.com/b",
    ),
    plain("url-in-brackets-of-markdown", "[menu](https://example.com/a)", "https://example.com/a"),
    plain("url-as-value", "next=https://example.com/a=", "https://example.com/a="),
    plain("url-of-any-length", LONG, LONG),
    plain("url-in-capitals", "HTTPS://EXAMPLE.COM/A", "HTTPS://EXAMPLE.COM/A"),
    plain(
        "url-with-port-and-user",
        "http://kim:x@example.com:8080/a",
        "http://kim:x@example.com:8080/a",
    ),
    plain("url-of-ipv6", "http://[2001:db8::7]:80/a", "http://[2001:db8::7]:80/a"),
    plain(
        "url-with-apostrophe-and-commas",
        "https://example.com/kim's,a,b;c",
        "https://example.com/kim's,a,b;c",
    ),
    plain(
        "url-with-entities-of-html",
        "https://example.com/?a=1&copy=2&amp;b",
        "https://example.com/?a=1&copy=2&amp;b",
    ),
    plain(
        "url-with-tilde-and-percent",
        "https://example.com/~kim/%C3%BC%",
        "https://example.com/~kim/%C3%BC%",
    ),
    plain(
        "url-in-japanese-text",
        "詳細はhttps://example.com/昼をご覧ください。",
        "https://example.com/",
    ),
    plain("url-before-japanese-full-stop", "https://example.com/a。次", "https://example.com/a"),
    plain("url-in-japanese-brackets", "「https://example.com/a」", "https://example.com/a"),
    plain(
        "url-before-chinese-text",
        "请访问https://example.com/a?b=1查看",
        "https://example.com/a?b=1",
    ),
    plain("url-before-korean-text", "https://example.com/a를 보세요", "https://example.com/a"),
    plain("url-before-arabic-comma", "https://example.com/a، و", "https://example.com/a"),
    plain("url-before-devanagari-danda", "https://example.com/a। ", "https://example.com/a"),
    plain(
        "url-in-typographic-quotes",
        "“https://example.com/a” «https://example.com/b»",
        "https://example.com/a",
        "https://example.com/b",
    ),
    plain(
        "url-before-dash-and-ellipsis",
        "https://example.com/a—or https://example.com/b…",
        "https://example.com/a",
        "https://example.com/b",
    ),
    plain("url-with-umlaut", "https://example.com/menü/größe", "https://example.com/menü/größe"),
    plain("url-in-cyrillic", "https://пример.example/обед", "https://пример.example/обед"),
    plain(
        "url-twice-is-one", "https://example.com/a https://example.com/a", "https://example.com/a"
    ),
    plain("no-url-without-a-host", "https:// http://. xhttps://example.com/a"),
    plain(
        "url-behind-no-break-space",
        "see\u00a0https://example.com/a\u00a0now",
        "https://example.com/a",
    ),
    Case(
        "soft-break-in-a-url",
        HEAD
        + part(
            "text/plain; charset=utf-8",
            "https://example.com/?token=3Dabc=\ndef=3D=3D\n",
            "Content-Transfer-Encoding: quoted-printable",
        ),
        text="https://example.com/?token=abcdef==\n",
        links=("https://example.com/?token=abcdef==",),
    ),
]
HTML = [
    html(
        "links-with-all-quotes",
        "<a href=\"/a\">a</a><A HREF='/b'>b</A><a href=/c>c</a>",
        "/a",
        "/b",
        "/c",
    ),
    html(
        "links-of-all-kinds",
        '<a href="mailto:kim@example.com">k</a><a href="tel:+49">t</a><a href="#top">x</a>',
        "mailto:kim@example.com",
        "tel:+49",
        "#top",
    ),
    html(
        "link-of-a-map", '<map><area href="https://example.com/a"></map>', "https://example.com/a"
    ),
    html(
        "pictures-and-style-sheets-are-no-links",
        '<link href="a.css"><img src="b.png"><base href="https://example.com/">',
    ),
    html(
        "link-with-ampersands",
        '<a href="https://example.com/?a=1&amp;b=2&c=3">',
        "https://example.com/?a=1&b=2&c=3",
    ),
    html(
        "link-with-names-of-entities",
        '<a href="/?a=1&copy=2&times=3&timesb=4&reg&lang=en">',
        "/?a=1&copy=2&times=3&timesb=4®&lang=en",
    ),
    html("link-with-whole-entities", '<a href="/&copy;&#x41;&#66;&eacute;">', "/©ABé"),
    html(
        "link-with-line-ends-and-blanks",
        '<a href=" https://example.com/\n a\tb ">',
        "https://example.com/ ab",
    ),
    html("link-without-value", "<a href>a</a><a href=''>b</a><a>c</a><a href=/d>d</a>", "/d"),
    html("link-with-href-twice", "<a href=/a href=/b>", "/a"),
    html("link-behind-other-attributes", '<a class="x>y" data-a=\'"\' href="/a">', "/a"),
    html("link-in-a-comment-is-none", "<!-- <a href=/a> --><a href=/b>", "/b"),
    html(
        "link-in-a-script-or-style-is-none",
        "<script>'<a href=/a>'</script><style><a href=/b></style><a href=/c>",
        "/c",
    ),
    html("bare-end-of-a-condition", "<a href=/a>a</a><![endif]--><a href=/b>b</a>", "/a", "/b"),
    html("comment-that-is-not-closed", "<a href=/a>a</a><!-- oops <a href=/b>b</a>", "/a", "/b"),
    html(
        "comment-with-an-odd-end", "<!-- a --!><a href=/a>a</a><!--> <a href=/b>b</a>", "/a", "/b"
    ),
    html("tag-with-a-quote-that-is-not-closed", '<a href="/a>a</a><a href=/b>b</a>', "/a", "/b"),
    html("tag-that-is-not-closed", "<a href=/a>a</a><p <a href=/b>b</a>", "/a"),
    html("less-than-signs", "1 < 2 <3 <a href=/a>a</a> a<b", "/a"),
    html("processing-instruction", '<?xml version="1.0"?><o:p></o:p><a href=/a>', "/a"),
    html("style-that-is-not-closed", "<style>p { x }<a href=/a>", "/a"),
    html("text-of-html-is-no-link", "<p>https://example.com/a</p>"),
    html(
        "button-of-nested-tables",
        '<table><tr><td><a\n href="https://example.com/b"\n target="_blank"><b>Go</b></a></table>',
        "https://example.com/b",
    ),
    html("link-of-any-length", f'<a href="{LONG}">', LONG),
    html(
        "link-with-japanese-text",
        '<a href="https://example.com/昼食">昼食</a>',
        "https://example.com/昼食",
    ),
    Case(
        "marketing-mail",
        HEAD
        + multi(
            part("text/plain; charset=utf-8", "Shop now: https://click.example.com/?qs=a1_\n"),
            part(
                "text/html; charset=utf-8",
                '<a href=3D"https://click.example.com/?qs=3Da1_&amp;utm_source=3Dn=\newsletter">'
                '<img src=3D"https://example.com/b.png"></a>'
                '<a href=3D"https://example.com/u/=5F">Unsubscribe</a>',
                "Content-Transfer-Encoding: quoted-printable",
            ),
            kind="alternative",
        ),
        text="Shop now: https://click.example.com/?qs=a1_\n",
        html='<a href="https://click.example.com/?qs=a1_&amp;utm_source=newsletter">'
        '<img src="https://example.com/b.png"></a>'
        '<a href="https://example.com/u/_">Unsubscribe</a>',
        links=(
            "https://click.example.com/?qs=a1_&utm_source=newsletter",
            "https://example.com/u/_",
            "https://click.example.com/?qs=a1_",
        ),
    ),
]
CASES = [*PLAIN, *HTML]
