"""Pages of much or large mail: made in a short time, not large, and they say what they lack."""

from __future__ import annotations

import base64
import time

import pytest
from html_pages import Page, page_with, show
from messages import ENVELOPE

from lazr_smtptest._pages.page import Entry, index, page_of_message, page_of_test
from lazr_smtptest.message import parse

pytestmark = pytest.mark.timeout(180)

HTML = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


class TestBounds:
    #: Made when they are needed: each has some 30 MB.
    LARGE = {
        "text": lambda: b"Subject: x\r\n\r\n" + b"hello world\r\n" * 2_300_000,
        "nul": lambda: b"Subject: x\r\n\r\n" + b"\0" * 30_000_000,
        "html": lambda: HTML + b"<p>hello <a href='http://shop.example/'>world</a>\r\n" * 600_000,
        "header": lambda: b"".join(b"X-%d: a\r\n" % n for n in range(2_000_000)),
        "subject": lambda: b"Subject: " + b"x " * 15_000_000 + b"\r\n\r\n",
        "attachment": lambda: (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\nContent-Disposition: attachment; filename=large.bin\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + b"A" * 76 * 400_000 + b"\r\n--b--\r\n"
        ),
        "tags": lambda: HTML + b"<p>" * 10_000_000,
    }

    @pytest.mark.parametrize("kind", LARGE)
    def test_a_large_message(self, kind):
        large = self.LARGE[kind]()
        begin = time.monotonic()
        page = page_with(large)
        assert time.monotonic() - begin < 60
        assert len(page) < 20_000_000
        assert "left out]" in page

    def test_blanks_take_no_quadratic_time(self):
        begin = time.monotonic()
        show(HTML + b"<img src=" + b" " * 900_000 + b"cid:x" + b"=cid:" * 10_000)
        assert time.monotonic() - begin < 15

    def test_many_messages(self):
        page = show(*(b"Subject: number %d\r\n\r\nHello.\r\n" % n for n in range(10_000)))
        assert len(page.all("article")) == 100
        assert "[9,900 more messages are left out]" in page.text

    def test_many_large_messages(self):
        page = page_with(*[HTML + b"<p>hello" * 30_000] * 100)
        assert len(page) < 40_000_000
        assert page.count("too large") > 100

    def test_a_picture_that_is_used_too_often(self):
        picture = base64.b64encode(b"x" * 1_000_000)
        raw = (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\n"
            b"Content-Type: text/html\r\n\r\n" + b"<img src=cid:p>" * 100 + b"\r\n--b\r\n"
            b"Content-Type: image/png\r\nContent-ID: <p>\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + picture + b"\r\n--b--\r\n"
        )
        page = page_with(raw)
        assert len(page) < 20_000_000
        assert "more uses of large pictures are left out]" in page

    def test_many_recipients_and_attachments(self):
        parts = b"".join(
            b"--b\r\nContent-Disposition: attachment; filename=f%d\r\n\r\nx\r\n" % n
            for n in range(300)
        )
        head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        envelope = ENVELOPE._replace(rcpt_tos=tuple(f"r{n}@example.com" for n in range(500)))
        text = Page(page_of_message(1, parse(envelope, head + parts + b"--b--\r\n"))).text
        assert "Attachments (300)" in text
        assert "[200 more of them are left out]" in text
        assert "[450 more recipients are left out]" in text

    def test_a_long_failure_and_a_long_index(self):
        assert "[50,000 more characters are left out]" in page_of_test("t", [], "x" * 100_000, [])
        entries = [Entry("gw0", f"mail-{n}.html", "test", "", "") for n in range(1_500)]
        page = Page(index("Mail", [], entries))
        assert len(page.links) == 1_001  # one skips to the content
        assert "[500 more pages, which are beside this one, are left out]" in page.text
