"""Whatever octets a message has, all of it can be read."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from messages import body, make
from properties import tries

from lazr_smtptest.message import Attachment, Message

some = tries(150)

words = st.sampled_from(
    [
        *(b"Content-Type: ", b"Content-Transfer-Encoding: ", b"Content-Disposition: "),
        *(b"To: ", b"Subject: ", b"Message-ID: ", b"Date: ", b"From: "),
        *(b"multipart/mixed", b"message/rfc822", b"message/delivery-status"),
        *(b"text/plain", b"text/html", b"image/png", b"attachment", b"inline"),
        *(b"; boundary=x", b"; charset=", b"; filename", b"; name", b"*", b"*0*", b"*1", b"="),
        *(b"utf-8''", b"%", b"%e4", b'"', b"x", b"(", b")", b"<", b">", b"@", b",", b";", b":"),
        *(b"[", b"]", b"\\", b".", b"base64", b"quoted-printable", b"x-uuencode"),
        *(b"=?utf-8?b?", b"=?x?q?", b"?=", b"\r\n--x\r\n", b"\r\n--x--\r\n"),
        *(b"\r\n", b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n", b"\r", b"\xff", b"\xc3\xbc", b"\0"),
        *(b"utf-16", b"unicode_escape", b"idna", b"undefined", b"\\ud800", b"\\d"),
        *(b"begin 666 x\r\n", b"end"),
    ]
)  # fmt: skip

heads = st.sampled_from(
    [
        b"",
        b"To: ",
        b"Content-Type: text/plain; charset",
        b"Content-Disposition: ",
        b"Content-Transfer-Encoding: ",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: ",
    ]
)

mail = st.builds(lambda head, rest: head + b"".join(rest), heads, st.lists(words, max_size=25))


def read_everything(message: Message) -> None:
    texts: list[Any] = [message.text, message.html, *message.links()]
    for name in {*message.keys(), "Subject", "To", "Missing"}:
        texts += [*message.headers(name), message.header(name)]
    texts += [text for pair in message.header_items() for text in pair]
    attachments = message.attachments
    assert {type(text) for text in texts} <= {str}
    assert {type(part) for part in attachments} <= {Attachment}
    assert {type(part.data) for part in attachments} <= {bytes}
    assert {type(part.type) for part in attachments} <= {str}
    assert {type(part.name) for part in attachments} <= {str, type(None)}
    assert attachments == message.attachments, "reading changes nothing"
    assert message.text == texts[0]


@some
@given(st.binary(max_size=300) | mail)
@example(b'Content-Type: text/plain; charset="\0"\r\n\r\n\xff')
@example(b'Content-Type: text/plain; charset*="\r\n\r\n\xff')
@example(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: \0/\r\n\r\n\xff")
def test_no_mail_is_too_broken_to_be_read(raw):
    read_everything(make(raw))


html_words = st.sampled_from(
    [
        *("<", "</", ">", "/>", "<a href=", "'", '"', "/x", "<!", "<![", "<![if ", "<!--", "--"),
        *("-->", "<!DOCTYPE ", "[", "]", "]]>", "<?", "?>", "&", "&#", "&#x110000;", "&amp", ";"),
        *(" ", "\n", "\0", "(", "<script>", "</script>", "<title>", "<style", "<![CDATA[", "x"),
    ]
)


@some
@given(st.lists(html_words, max_size=20).map("".join) | st.text(max_size=100))
@example("<![")
@example("<![>")
@example("<![(")
@example("<![foo x")
@example("<!DOCTYPE [<!x")
def test_no_html_is_too_broken_for_links(html):
    found = body(html, "text/html; charset=utf-8").links()
    assert all(type(link) is str and link for link in found)
    assert len(found) == len(set(found))


@some
@given(st.text(alphabet="htps:/.,;!?()[]{}'\"<>*_ax \n", max_size=60))
@example("http://" + ")" * 50)
@example("https://....")
def test_no_text_is_too_odd_for_links(text):
    found = body(text, "text/plain; charset=utf-8").links()
    assert all(link in text for link in found)


@some
@given(st.text(max_size=200).map(lambda text: text.replace("\r", "")))
def test_any_text_can_be_read(text):
    encoded = base64.encodebytes(text.encode())
    message = body(encoded, "text/plain; charset=utf-8", "Content-Transfer-Encoding: base64")
    assert message.text == text
