"""The links that `Message` finds: in its texts and its HTML, and not in attachments."""

from __future__ import annotations

import pytest
from messages import make, multipart


def links(html: str = "", text: str = "") -> list[str]:
    return make(
        multipart(
            f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}",
            f"Content-Type: text/html; charset=utf-8\r\n\r\n{html}",
            kind="alternative",
        )
    ).links()


def test_links_in_order_and_once_each():
    html = (
        '<p><a href="https://example.com/2">b</a> <a href="https://example.com/1">a</a>'
        "<a href='https://example.com/2'>again</a></p>"
    )
    text = (
        "https://example.com/3 https://example.com/1 https://example.com/3 https://example.com/0"
    )
    assert links(html, text) == [f"https://example.com/{n}" for n in (2, 1, 3, 0)]
    assert links(html) == ["https://example.com/2", "https://example.com/1"]
    assert links(text=text) == [f"https://example.com/{n}" for n in (3, 1, 0)]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="/a?b=1&amp;c=2">x</a>', ["/a?b=1&c=2"]),
        ('<a href="/a&#63;b">x</a>', ["/a?b"]),
        ("<A HREF=/unquoted>x</A>", ["/unquoted"]),
        ('<a class="b" href="/a" id=c>x</a>', ["/a"]),
        ('<a href="/a"><img src="/b.png"></a>', ["/a"]),
        ('<map><area href="/area"></map>', ["/area"]),
        ('<a href=" \r\n /a ">x</a>', ["/a"]),
        ('<a href="/a"/>', ["/a"]),
        ('<a href="mailto:kim@example.com">x</a>', ["mailto:kim@example.com"]),
        ('<a href="#top">x</a>', ["#top"]),
        ('<a href="https://bücher.example/ü">x</a>', ["https://bücher.example/ü"]),
        ('<a href="">x</a><a href>x</a><a name="b">x</a>', []),
        ('<a href=" ">x</a>', []),
        ('<link href="/a.css"><img src="/b.png"><base href="/c">', []),
        ('<!-- <a href="/a">x</a> --><script>"<a href=/b>"</script>', []),
        ('<!-- never ends <b><a href="/a">x</a>', ["/a"]),
        ("https://example.com/in-the-text", []),
        ('<p <a href="/a">x', None),
        ('<a href="/a">x</a><![', ["/a"]),
        ('<a href="/a">x</a><![(<a href="/b">', None),
        ('<a href="/a">x</a><![if mso]><a href="/b">y</a><![endif]>', ["/a", "/b"]),
        ('<a href="/a">x</a><!DOCTYPE [<!x', None),
        ('<a href="/a">x</a><![foo <a href="/b">', None),
        ('<a href="/a">x</a><![>', None),
        ('<a href="/a">x</a><?php <a href="/b">', None),
        ('<a href="/a">x</a></', ["/a"]),
        ('<!--[if mso]><table><!-- x --><![endif]--><a href="/a">x</a>', ["/a"]),
        ('<!--[if !mso]><!--><a href="/a">x</a><!--<![endif]-->', ["/a"]),
        ('<!--[if mso]><a href="/no">x</a><![endif]--><a href="/a">x</a>', ["/a"]),
        ('<!--><a href="/a">x</a><!---><a href="/b">', ["/a", "/b"]),
        ('<!-- x --!><a href="/a">x</a>', ["/a"]),
        ('<!- x -><a href="/a">x</a><?xml x><a href="/b">', ["/a", "/b"]),
        ('<a href="/?a=1&copy=2&times=3&not=4&amp=5">x</a>', ["/?a=1&copy=2&times=3&not=4&amp=5"]),
        ('<a href="/?a=1&timestamp=2&copyright=3">', ["/?a=1&timestamp=2&copyright=3"]),
        ('<a href="/?a&copy;&amp;&#x41;&#66;&notit;&eacute">', ["/?a©&AB&notit;é"]),
        ('<a href="/a" href="/b">x</a>', ["/a"]),
        ('<a href="/a\r\n b">x</a>', ["/a b"]),
        ("<a title='1>0' href='/a'>x</a>", ["/a"]),
        ('<p title="no end><a href="/a">x</a><p>"<a href="/b">', ["/b"]),
        ('<img alt="5" wide"><a href="/a">x</a>', ["/a"]),
        ('<p title="no end><a href=/a>x</a>', ["/a"]),
        ("<style>a { <a href=/no> }</style><a href=/a>", ["/a"]),
        ("<style>a { never ends <a href=/a>", ["/a"]),
        ("<title><a href=/no></title><noscript><a href=/a></noscript>", ["/a"]),
        ("1 < 2 <3 <a href=/a>", ["/a"]),
        ('<a href="/a>one</a> <a href="/b">two</a> <a href="/c">3</a>', ["/a", "/b", "/c"]),
        ("<a href=\"/a>one</a> <a href='/b?c>d'>two</a>", ["/a", "/b?c>d"]),
        ("<svg><title/><style/></svg><a href=/a>", ["/a"]),
        ("<svg><a xlink:href=/no href=/a>", ["/a"]),
    ],
)  # fmt: skip
def test_links_in_html(html, expected):
    found = links(html)
    assert found == expected or expected is None
    assert all(type(link) is str for link in found)


def test_a_link_before_broken_html_is_found():
    assert links('<a href="/a">x</a><![>')[:1] == ["/a"]
    assert links('<a href="/a">x</a><![foo <a href="/b">')[:1] == ["/a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://example.com.", ["https://example.com"]),
        ("See https://example.com/a, and http://example.org/b!", ["https://example.com/a", "http://example.org/b"]),
        ("https://example.com/a?", ["https://example.com/a"]),
        ("https://example.com/a?b=c&d=e;f#g", ["https://example.com/a?b=c&d=e;f#g"]),
        ("https://example.com/a?!...", ["https://example.com/a"]),
        ("https://example.com/a_ next", ["https://example.com/a_"]),
        ("https://example.com/a-", ["https://example.com/a-"]),
        ("https://example.com/a*.", ["https://example.com/a*"]),
        ("https://example.com/?t=YQ==", ["https://example.com/?t=YQ=="]),
        ("next=https://example.com/?t=YQ==", ["https://example.com/?t=YQ=="]),
        ("=https://example.com/=", ["https://example.com/"]),
        ("**https://example.com/a_*** and", ["https://example.com/a_*"]),
        ("*(https://example.com/a)*", ["https://example.com/a"]),
        ("-- https://example.com/a-", ["https://example.com/a-"]),
        ("`https://example.com/a`", ["https://example.com/a"]),
        ("**Menu: https://example.com/a**", ["https://example.com/a"]),
        ("(_See https://example.com/a_b_._)", ["https://example.com/a_b_"]),
        ("**Menu:** https://example.com/a_", ["https://example.com/a_"]),
        ("*A* _b_ https://example.com/a_ https://example.com/b*", ["https://example.com/a_", "https://example.com/b*"]),
        ("*A https://example.com/a* https://example.com/b*", ["https://example.com/a", "https://example.com/b*"]),
        ("* A https://example.com/a* a_b", ["https://example.com/a*"]),
        ("https://example.com/_a https://example.com/b_", ["https://example.com/_a", "https://example.com/b_"]),
        ("Menu\r\n----\r\nhttps://example.com/a-\r\n", ["https://example.com/a-"]),
        ("____\nhttps://example.com/a_", ["https://example.com/a_"]),
        ("请打开https://example.com/a。谢谢", ["https://example.com/a"]),
        ("https://example.com/aをご覧ください", ["https://example.com/a"]),
        ("https://example.com/a에서", ["https://example.com/a"]),
        ("（https://example.com/a）", ["https://example.com/a"]),
        ("“https://example.com/a” «https://example.com/b»", ["https://example.com/a", "https://example.com/b"]),
        ("https://example.com/a؟ https://example.com/b…", ["https://example.com/a", "https://example.com/b"]),
        ("https://例え.jp/a", ["https://例え.jp/a"]),
        ("https://www.例え.jp/a", ["https://www.例え.jp/a"]),
        ("[https://example.com/a](https://example.com/b) now", ["https://example.com/a", "https://example.com/b"]),
        ("==========https://example.com/==========", ["https://example.com/"]),
        ("https://例え.jpを", ["https://例え.jp"]),
        ("https://example.com/\u200bx", ["https://example.com/"]),
        ("<https://example.com/a>", ["https://example.com/a"]),
        ('"https://example.com/a"', ["https://example.com/a"]),
        ("'https://example.com/a'", ["https://example.com/a"]),
        ("(https://example.com/a)", ["https://example.com/a"]),
        ("(see https://example.com/a.)", ["https://example.com/a"]),
        ("(https://example.com/a_(b))", ["https://example.com/a_(b)"]),
        ("https://example.com/a_(b)", ["https://example.com/a_(b)"]),
        ("[x](https://example.com/a)", ["https://example.com/a"]),
        ("[https://example.com/?a[]=1]", ["https://example.com/?a[]=1"]),
        ("{https://example.com/a}", ["https://example.com/a"]),
        ("**https://example.com/a**", ["https://example.com/a"]),
        ("*https://example.com/a*:", ["https://example.com/a"]),
        ("_https://example.com/a_", ["https://example.com/a"]),
        ("https://example.com/a/", ["https://example.com/a/"]),
        ("https://example.com/a\r\nnext", ["https://example.com/a"]),
        ("HTTPS://EXAMPLE.com/A", ["HTTPS://EXAMPLE.com/A"]),
        ("url:https://example.com:8025/a", ["https://example.com:8025/a"]),
        ("https://bücher.example/ü", ["https://bücher.example/ü"]),
        ("https://[2001:db8::1]/a", ["https://[2001:db8::1]/a"]),
        ("https://[2001:db8::1]", ["https://[2001:db8::1]"]),
        ("http://localhost:8000/reset?token=a-b_c~d%20=", ["http://localhost:8000/reset?token=a-b_c~d%20="]),
        ("ftp://example.com mailto:a@example.com www.example.com xhttp://example.com", []),
        ("https:// http:/a https//b", []),
    ],
)  # fmt: skip
def test_links_in_text(text, expected):
    assert links(text=text) == expected


def test_a_link_has_any_length():
    url = f"https://example.com/?token={'x' * 100_000}"
    assert links(text=f"{url} ") == [url]
    assert links(html=f"<a href='{url}'>") == [url]


def test_links_in_attachments_are_none_of_the_messages():
    message = make(
        multipart(
            "\r\nhttps://example.com/a",
            "Content-Type: text/html; name=b.html\r\nContent-Disposition: attachment\r\n\r\n"
            "<a href=/b>",
            "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nhttps://c.example",
        )
    )
    assert message.links() == ["https://example.com/a"]
