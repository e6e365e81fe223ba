"""Messages with something wrong, each beside one that just has not; and how to read problems."""

from __future__ import annotations

from typing import NamedTuple

from messages import TOO_DEEP, make

HEADER = {
    "From": "Kim <kim@example.com>",
    "To": "lee@example.com",
    "Subject": "Lunch",
    "Date": "Thu, 29 Feb 2024 23:59:59 +0000",
    "Message-ID": "<1@example.com>",
}
MIME = "MIME-Version: 1.0"


def mail(*lines: str | bytes, body: str | bytes = "At noon.\r\n", without: str = "") -> bytes:
    """Make a message that is right but for what is given.

    :param lines: Header lines; they take the place of lines of the same name.
    :param body: What follows the blank line.
    :param without: The field to leave out.
    """
    given = [line if isinstance(line, bytes) else line.encode() for line in lines]
    names = {line.partition(b":")[0].strip().lower() for line in given}
    usual = [f"{name}: {value}".encode() for name, value in HEADER.items() if name != without]
    kept = [line for line in usual if line.partition(b":")[0].lower() not in names]
    body = body if isinstance(body, bytes) else body.encode()
    return b"".join(line + b"\r\n" for line in [*kept, *given]) + b"\r\n" + body


def one(content_type: str, body: str | bytes, *lines: str) -> bytes:
    """Make a message of one part."""
    return mail(MIME, f"Content-Type: {content_type}", *lines, body=body)


def many(*parts: str | bytes, kind: str = "mixed", end: str = "--x--\r\n") -> bytes:
    """Make a message of parts; each is its header, a blank line and its content."""
    octets = [part if isinstance(part, bytes) else part.encode() for part in parts]
    body = b"".join(b"--x\r\n" + part + b"\r\n" for part in octets) + end.encode()
    return mail(MIME, f"Content-Type: multipart/{kind}; boundary=x", body=body)


def problems(raw: bytes, body: str = "7BIT", smtp_utf8: bool = False) -> list[tuple[str, str]]:
    """Return the codes and places of what is wrong with a message."""
    message = make(raw, mail_options=(f"BODY={body}",), smtp_utf8=smtp_utf8)
    return [(problem.code, problem.where) for problem in message.problems]


def codes(raw: bytes, body: str = "7BIT", smtp_utf8: bool = False) -> list[str]:
    return [code for code, _ in problems(raw, body, smtp_utf8)]


class Case(NamedTuple):
    """A message with one thing wrong, where that is, and a message beside it."""

    code: str
    where: str
    wrong: bytes
    right: bytes
    body: str = "7BIT"
    smtp_utf8: bool = False


PLAIN = "Content-Type: text/plain\r\n\r\nAt noon."
PICTURE = "Content-Type: image/png\r\nContent-ID: <{}>\r\n\r\nx"
#: A line of a word is of 75 characters at most.
WORD_75 = f"=?utf-8?q?{'x' * 63}?="


def html(text: str) -> str:
    return f"Content-Type: text/html\r\n\r\n{text}"


def encoded(encoding: str, content: str | bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    return one(kind, content, f"Content-Transfer-Encoding: {encoding}")


CONTENT = [
    Case("8bit-undeclared", "line 10", encoded("8bit", "grün"), encoded("8bit", "gr=C3=BCn")),
    Case("bare-cr", "line 8", mail(body="a\r\nb\rc\r\n"), mail(body="a\r\nb\r\nc\r\n")),
    Case("bare-lf", "line 7", mail(body="a\nb\nc\r\n"), mail(body="a\r\nb\r\nc\r\n")),
    Case("nul", "line 7", mail(body="a\0b\r\n"), mail(body="a\x01b\r\n")),
    Case(
        "line-too-long",
        "line 8",
        mail(body="\r\n" + "x" * 999 + "\r\n"),
        mail(body="\r\n" + "x" * 998 + "\r\n"),
    ),
    Case(
        "line-too-long",
        "header X-Long",
        mail(f"X-Long: {'x' * 991}"),
        mail(f"X-Long: {'x' * 990}\r\n {'x' * 997}"),
    ),
]
HEADERS = [
    Case("from-missing", "", mail(without="From"), mail("From: a@b.example")),
    Case("date-missing", "", mail(without="Date"), mail("date: 29 Feb 24 23:59 GMT")),
    Case("message-id-missing", "", mail(without="Message-ID"), mail("message-id: <a@b>")),
    Case(
        "field-repeated",
        "header To",
        mail("To: a@b.example", "to: c@d.example"),
        mail("To: a@b.example, c@d.example", "Received: x", "Received: x"),
    ),
    Case(
        "date-invalid",
        "header Date",
        mail("Date: 2024-02-29T23:59:59Z"),
        mail("Date: 29 Feb 2024 23:59:59 Z"),
    ),
    Case(
        "from-invalid",
        "header From",
        mail("From: Lee, Kim <kim@example.com>"),
        mail('From: "Lee, Kim" <kim@example.com>'),
    ),
    Case(
        "address-invalid",
        "header Cc",
        mail("Cc: Lee, Kim <kim@example.com>"),
        mail('Cc: "Lee, Kim" <kim@example.com>'),
    ),
    Case(
        "sender-missing",
        "header From",
        mail("From: a@b.example, c@d.example"),
        mail("From: a@b.example, c@d.example", "Sender: a@b.example"),
    ),
    Case("bcc-leaked", "header Bcc", mail("Bcc: a@b.example"), mail("Bcc: ")),
    Case(
        "raw-8bit", "header Subject", mail("Subject: grün"), mail("Subject: =?utf-8?q?gr=C3=BCn?=")
    ),
    Case(
        "raw-8bit",
        "header Subject",
        mail(b"Subject: gr\xfcn"),
        mail("Subject: grün"),
        smtp_utf8=True,
    ),
    Case(
        "encoded-word-misplaced",
        "header To",
        mail("To: <=?utf-8?q?j=C3=B6rg?=@example.com>"),
        mail("To: =?utf-8?q?j=C3=B6rg?= <j@example.com>"),
    ),
    Case(
        "encoded-word-misplaced",
        "header From",
        mail('From: "=?utf-8?q?j=C3=B6rg?=" <j@example.com>'),
        mail("From: j@example.com (=?utf-8?q?j=C3=B6rg?=)"),
    ),
    Case(
        "encoded-word-misplaced",
        "header Content-Type",
        one('image/png; name="=?utf-8?q?j=C3=B6rg?="', "x"),
        one("image/png; name*=utf-8''j%C3%B6rg", "x"),
    ),
    Case(
        "encoded-word-misplaced",
        "header References",
        mail("References: =?utf-8?q?=3Ca=40b=3E?="),
        mail("References: <a@b>\r\n <c=?@d>"),
    ),
    Case(
        "encoded-word-broken",
        "header Subject",
        mail("Subject: =?utf-8?q?gr=C3?= =?utf-8?q?=BCn?="),
        mail("Subject: =?utf-8?q?gr=C3=BC?= =?utf-8?q?n?="),
    ),
    Case(
        "encoded-word-too-long",
        "header Subject",
        mail(f"Subject: =?utf-8?q?x{WORD_75[10:]}"),
        mail(f"Subject: {WORD_75}"),
    ),
    Case("header-malformed", "line 6", mail("X-A b: c"), mail("X-A: b")),
    Case("header-malformed", "line 6", mail("X-A : b"), mail("X-A:b")),
]
PARTS = [
    Case(
        "mime-version-missing",
        "",
        mail("Content-Type: multipart/mixed; boundary=x", body=f"--x\r\n{PLAIN}\r\n--x--\r\n"),
        mail("Content-Type: text/plain"),
    ),
    Case(
        "boundary-missing",
        "",
        one("multipart/mixed", f"--x\r\n{PLAIN}\r\n--x--"),
        one("multipart/mixed; boundary=x", f"--x\r\n{PLAIN}\r\n--x--"),
    ),
    Case(
        "boundary-missing",
        "",
        one("multipart/mixed; boundary=x", f"--y\r\n{PLAIN}\r\n--y--"),
        one("multipart/mixed; boundary=y", f"--y\r\n{PLAIN}\r\n--y--"),
    ),
    Case("part-not-closed", "", many(PLAIN, end="--x"), many(PLAIN, end="--x-- ")),
    Case(
        "charset-unknown",
        "",
        one("text/plain; charset=utf-88", "x"),
        one("text/plain; charset=iso-8859-8-i", "x"),
    ),
    Case(
        "charset-wrong",
        "part 1 (text/plain)",
        many(
            b"Content-Type: text/plain; charset=utf-8\r\n"
            + b"Content-Transfer-Encoding: 8bit\r\n\r\n\xfc"
        ),
        many(
            b"Content-Type: text/plain; charset=latin1\r\n"
            + b"Content-Transfer-Encoding: 8bit\r\n\r\n\xfc"
        ),
        body="8BITMIME",
    ),
    Case(
        "8bit-in-7bit",
        "",
        one("text/plain; charset=utf-8", "grün"),
        encoded("8bit", "grün"),
        body="8BITMIME",
    ),
    Case("transfer-encoding-invalid", "", encoded("utf-8", "x"), encoded("X-uuencode", "x")),
    Case(
        "transfer-encoding-invalid",
        "",
        encoded("base64", "YWJj."),
        encoded("base64", "YW\r\nI=\r\n"),
    ),
    Case(
        "transfer-encoding-invalid",
        "",
        encoded("quoted-printable", "a=b"),
        encoded("quoted-printable", "a=3D=\r\nb="),
    ),
    Case(
        "parameter-unquoted",
        "part 1 (image/png), header Content-Disposition",
        many("Content-Type: image/png\r\nContent-Disposition: inline; filename=a b.png\r\n\r\nx"),
        many(
            'Content-Type: image/png\r\nContent-Disposition: inline; filename="a b.png"\r\n\r\nx'
        ),
    ),
    Case(
        "parameter-malformed",
        "part 1 (text/plain), header Content-Type",
        many("Content-Type: text/plain; name*\r\n\r\nx"),
        many("Content-Type: text/plain; (x) name*=us-ascii''x;\r\n\r\nx"),
    ),
    Case(
        "parameter-malformed",
        "part 1 (text/plain), header Content-Type",
        many("Content-Type: text/plain; Charset=utf-8; charset=utf-8\r\n\r\nx"),
        many("Content-Type: text/plain; charset=utf-8; name*0=a; name*1=b\r\n\r\nx"),
    ),
    Case(
        "encoded-word-misplaced",
        "part 1 (image/png), header Content-Disposition",
        many("Content-Type: image/png\r\nContent-Disposition: =?utf-8?q?inline?=\r\n\r\nx"),
        many("Content-Type: image/png\r\nContent-Disposition: inline\r\n\r\nx"),
    ),
    Case(
        "message-part-encoded",
        "part 1 (message/rfc822)",
        many("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nWDog\r\n"),
        many("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nX: \r\n"),
    ),
    Case(
        "alternative-order",
        "",
        many(html("x"), PLAIN, kind="alternative"),
        many(PLAIN, html("x"), kind="alternative"),
    ),
    Case("html-only", "", one("text/html", "x"), many(PLAIN, html("x"))),
    Case(
        "cid-missing",
        "part 2 (text/html)",
        many(PLAIN, html('<img src="cid:a">'), PICTURE.format("b"), kind="related"),
        many(PLAIN, html('<img src="cid:a">'), PICTURE.format("a"), kind="related"),
    ),
    Case(
        "html-not-closed",
        "part 2 (text/html)",
        many(PLAIN, html("<p>a<!-- b <p>c")),
        many(PLAIN, html("<p>a<!-- b --><p>c")),
    ),
    Case(
        "parser-failed",
        "",
        mail("Content-Type: message/rfc822", body=TOO_DEEP),
        mail("Content-Type: message/rfc822", body=TOO_DEEP[:90]),
    ),
]
CASES = [*CONTENT, *HEADERS, *PARTS]
