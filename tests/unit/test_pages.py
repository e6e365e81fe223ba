"""Pages of mail, as text: what is on them, what never is, and how much."""

from __future__ import annotations

import base64
import re
from datetime import datetime, timezone

import pytest
from html_pages import Page, page_with, show
from hypothesis import given
from hypothesis import strategies as st
from messages import ENVELOPE
from properties import tries

from lazr_smtptest._pages.escape import file_name
from lazr_smtptest._pages.page import Entry, MailOfServer, index, page_of_message, page_of_test
from lazr_smtptest._parent.describe import Remark
from lazr_smtptest.message import Unreadable, parse
from lazr_smtptest.sessions import Line, Session

AT = datetime(2024, 2, 29, 23, 59, 59, tzinfo=timezone.utc)
HTML = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

RECEIPT = (
    b"From: =?utf-8?q?B=C3=A4ume?= <shop@example.com>\r\nTo: kim@example.com\r\n"
    b"Subject: Your receipt\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=m\r\n\r\n"
    b"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: text/plain\r\n\r\nPaid & done: http://shop.example/1\r\n"
    b"--a\r\nContent-Type: multipart/related; boundary=r\r\n\r\n"
    b'--r\r\nContent-Type: text/html\r\n\r\n<p>Paid</p><img src="cid:tree%40shop">'
    b"<b style=\"background:url('cid:tree@shop')\"><img src='cid:none'>cid:tree@shop</b>\r\n"
    b"--r\r\nContent-Type: image/gif\r\nContent-ID: <tree@shop>\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n"
    + base64.b64encode(PIXEL)
    + b"\r\n--r--\r\n--a--\r\n"
    b"--m\r\nContent-Type: application/pdf\r\n"
    b'Content-Disposition: attachment; filename="../it <1>.pdf"\r\n\r\n%PDF\r\n--m--\r\n'
)


def octets_of(url: str) -> bytes:
    return base64.b64decode(url.partition(";base64,")[2])


class TestMessage:
    def test_all_of_it_is_there(self):
        page = show(RECEIPT)
        for text in (
            *("Your receipt", "Bäume <shop@example.com>", "kim@example.com", "Paid & done: http:"),
            *("MAIL FROM <kim@example.com>", "RCPT TO <lee@example.com>, <bcc@example.com>"),
            *("Attachments (2)", "advice: date-missing", "error: cid-missing", "Links (1)"),
            *("2024-02-29 23:59:59 UTC", "client.example", "in the clear", "=?utf-8?q?B=C3=A4ume"),
        ):
            assert text in page.text, text

    def test_its_pictures_are_in_its_html(self):
        (frame,) = show(RECEIPT).frames
        url = f"data:image/gif;base64,{base64.b64encode(PIXEL).decode()}"
        assert f'<img src="{url}">' in frame
        assert f"url('{url}')" in frame
        assert "<img src='cid:none'>cid:tree@shop</b>" in frame

    def test_what_can_be_saved_is_what_was_sent(self):
        saved = show(RECEIPT).saved
        assert {name: octets_of(url) for name, url in saved.items()} == {
            "attachment-1": PIXEL,
            "it _1_.pdf": b"%PDF",
            "Your receipt.eml": RECEIPT,
        }
        assert all(url.startswith("data:application/octet-stream;") for url in saved.values())

    def test_a_message_without_text(self):
        assert "This message has no text." in show(b"Subject: x\r\n\r\n").text

    def test_what_a_handler_passed_on_and_what_cannot_be_read(self):
        server = MailOfServer("here", (), [{"<b>": 1}], 1, [Unreadable("Why: <i>")], 1, ())
        text = Page(page_of_test("t", [], "", [server])).text
        assert "{'<b>': 1}" in text
        assert "Why: <i>" in text

    def test_remarks_are_below_the_sessions(self):
        session = Session(
            ("192.0.2.1", 25), AT, None, None, None, None, 0, (), (Line(0, "C", "<b>"),), "QUIT"
        )
        remarks = [Remark("Mail of <i>", ["<one>", "<two>"]), Remark("Others", [], [session])]
        server = MailOfServer("here", (), [], 0, [], 0, (), remarks)
        html = page_of_test("t", [], "", [server])
        assert 'class="error"' not in html
        assert html.count("<li>&lt;") == 2
        assert html.count('<table class="dialogue">') == 1
        assert html.index("No client has connected.") < html.index('id="s1-r1"')
        assert html.index("&lt;one&gt;") < html.index('id="s1-r2"')
        links = re.findall(r'href="#(s1-r\d)"', html)
        assert links == re.findall(r'id="(s1-r\d)"', html) == ["s1-r1", "s1-r2"]

    def test_no_problems_if_they_are_not_wanted(self):
        assert "date-missing" in show(b"Subject: x\r\n\r\n").text
        assert "date-missing" not in show(b"Subject: x\r\n\r\n", with_problems=False).text


class TestHostile:
    @pytest.mark.parametrize(
        "text",
        [
            *(
                "<script>alert(1)</script>",
                "</iframe><script>",
                '"><img onerror=x>',
                "<!--",
                "]]>",
            ),
            *("</pre></details></article>", "&lt;b&gt;", "\\x00", "</title><style>*{}</style>"),
        ],
    )
    def test_markup_is_text_wherever_it_is(self, text):
        raw = text.encode()
        part = b"Content-Disposition: attachment; filename*=utf-8''" + raw.replace(b" ", b"%20")
        message = (
            b"From: " + raw + b"\r\nSubject: " + raw + b"\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + raw + b"\r\n--b\r\n"
            b"Content-Type: image/"
            + raw
            + b"\r\nContent-ID: <"
            + raw
            + b">\r\n"
            + part
            + b"\r\n\r\n"
            b"x\r\n--b\r\nContent-Type: text/html\r\n\r\n" + raw + b"\r\n--b--\r\n"
        )
        envelope = ENVELOPE._replace(helo=text, mail_from=text, rcpt_tos=(text,), auth_user=text)
        session = Session(
            (text, 1), AT, text, text, text, text, 1, (7,), (Line(0, "C", text),), text
        )
        server = MailOfServer(text, (text,), [parse(envelope, message)], 1, [], 0, [session])
        page = Page(page_of_test(text, [(text, text)], text, [server]))
        assert page.text.count(text) > 15
        assert len(page.frames) == 1
        Page(index(text, [text], [Entry(text, "mail-1.html", text, text, text)]))

    def test_what_would_mislead_is_seen(self):
        raw = "Subject: a\u202eb\u200bc\r\n\r\n\u2066d\0e\x1bf".encode() + b"\xff"
        page = show(raw)
        assert "a\\u202eb\\u200bc" in page.text
        assert "\\u2066d\\x00e\\x1bf" in page.text
        assert "\\xff" in page.text
        assert not re.search("[\0\x1b\u202e\u200b\u2066]", page_with(raw))

    @pytest.mark.parametrize(
        ("name", "kept"),
        [
            (None, "attachment-1"),
            ("", "attachment-1"),
            ("../..", "attachment-1"),
            ("../../etc/passwd", "etc_passwd"),
            ("C:\\CON", "C_CON"),
            ("a\0b\u202egpj.exe", "a_b_gpj.exe"),
            (".bashrc", "bashrc"),
            ("Bäume 木.pdf", "Bäume 木.pdf"),
            ("x" * 500 + ".pdf", "x" * 96 + ".pdf"),
            ("x." + "y" * 500, "x." + "y" * 98),
        ],
    )
    def test_names_of_files(self, name, kept):
        assert file_name(name, "attachment-1") == kept

    @tries(60)
    @given(st.binary(max_size=300), st.text(max_size=50))
    def test_any_message(self, raw, text):
        for head in (b"", HTML, b"Subject: "):
            page_of_message(1, parse(ENVELOPE, head + raw)).encode()
            page = show(head + raw)
            assert octets_of([*page.saved.values()][-1]) == head + raw
        envelope = ENVELOPE._replace(helo=text, mail_from=text, rcpt_tos=(text, text))
        Page(page_of_message(1, parse(envelope, raw)))


class TestSessions:
    SESSION = Session(
        peer=("127.0.0.1", 50_000),
        connected_at=AT,
        helo="client.example",
        tls="TLSv1.3",
        cipher="AES",
        auth_user="kim",
        failed_logins=2,
        messages=(1, 99),
        dialogue=(
            Line(0.1, "S", "220 hello"),
            Line(1.5, "C", "EHLO <x>"),
            Line(2, "*", "TLSv1.3"),
        ),
        ended="QUIT",
    )

    def test_line_by_line(self):
        message = parse(ENVELOPE._replace(sequence=1), b"Subject: x\r\n\r\n")
        server = MailOfServer("here", ("ServerDied: it",), [message], 1, [], 0, [self.SESSION])
        page = Page(page_of_test("t", [], "", [server]))
        for text in (
            *("ServerDied: it", "127.0.0.1 port 50000, which calls itself client.example"),
            *("0.100server220 hello", "1.500clientEHLO <x>", "2.000noteTLSv1.3", "TLSv1.3, AES"),
            *("Logged in askim", "Failed logins2", "EndedQUIT"),
        ):
            assert text in page.text, text
        assert page.links.count("#s1-m1") == 2  # from above, and from the session

    def test_none_and_not_known_and_many(self):
        def text(sessions):
            return Page(
                page_of_test("t", [], "", [MailOfServer("x", (), [], 0, [], 0, sessions)])
            ).text

        assert "No client has connected." in text([])
        assert "What clients did is not known." in text(None)
        assert "[50 more sessions are left out]" in text([self.SESSION] * 100)


def test_all_links_within_a_page_lead_somewhere():
    page = show(RECEIPT, b"Subject: another\r\n\r\n")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = [link for link in page.links if link.startswith("#")]
    assert len(inner) > 3
    assert {link[1:] for link in inner} <= set(ids)
    labelled = [one["aria-labelledby"] for one in page.all("article") + page.all("section")]
    assert labelled
    assert set(labelled) <= set(ids)
