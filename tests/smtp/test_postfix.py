"""Strange commands, beside a real Postfix: the same codes, or a line in the manual why not."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from paths import DOCS
from postfix import running_postfix

from lazr_smtptest import QueueController

EHLO, MAIL, RCPT = "EHLO c.example", "MAIL FROM:<s@b.example>", "RCPT TO:<r@b.example>"

PATHS = """
    <>|<a@b.example>|<a@b.example|a@b.example>|<<a@b.example>>|<a@b.example>>|< a@b.example>
    <a@b.example >|<a@b.example>x|a@b.example|  <a@b.example>|<Kim Lee kim@b.example>
    Kim <a@b.example>|<a b@c.example>|<kim(at)b.example>|(kim)<a@b.example>|<(kim)a@b.example>
    <a@b.example(home)>|<'kim@b.example'>|<kim@b.example?x>|<a@[]>|<a@[999.1.1.1]>
    <a@[127.0.0.1]>|<a@[127.0.0.1>|<a@127.0.0.1]>|<a@[IPv6:::1]>|<a@[ipv6:::1]>|<a@[IPv6:xyz]>
    <a@[::1]>|<a@[tag:content]>|<a@[b.example]>|<a@1.2.3.4>|<a@b.123>|<a@123.example>
    <a@-b.example>|<a@b-.example>|<a@b.-c.example>|<a@.b.example>|<a@b..example>|<a@b.example.>
    <a@b.example..>|<a@b_c.example>|<a@_b.example>|<a@b$c.example>|<a@b/c.example>|<a@b c>
    <a@b+c.example>|<a@b!c.example>|<a@b%c.example>|<a@b:c.example>|<a.@b.example>|<.a@b.example>
    <a..b@b.example>|<a:b@c.example>|<a;b@c.example>|<a,b@c.example>|<a[b@c.example>
    <a]b@c.example>|<a\\b@c.example>|<a%b@c.example>|<a!b@c.example>|<a/b@c.example>
    <a&b@c.example>|<a'b@c.example>|<a`b@c.example>|<a{b}@c.example>|<a|b@c.example>
    <=?utf-8?q?j=C3=B6rg?=@b.example>|<a>|<postmaster>|<@b.example>|<a@>|<@>|<a@b@c.example>
    <"a b"@b.example>|<"a@b"@c.example>|<"a\"b"@b.example>|<"a@b.example>|<"a"b@b.example>
    <"a".b@b.example>|<""@b.example>|<" "@b.example>|<@x.example:a@b.example>
    <@x.example,@y.example:a@b.example>|<@x.example:>|<@:a@b.example>|<a@b.example>,<c@d.example>
    a@b.example, c@d.example|<a@b.example,c@d.example>|<a@b.example;c@d.example>
    <a@b.example> x|<a@b.example> FOO=bar|<a@xn--bcher-kva.example>|<A.B-C+d@B.EXAMPLE>
    <mailto:a@b.example>|<a@b.example:25>|<a@b.example\r>|=|<=>|""|<"">|.|<.>|<a@localhost>
"""
#: Some cannot be written above.
MORE = [
    f"<a@{'x' * 63}.example>",
    f"<a@{'x' * 64}.example>",
    f"<a@{'.'.join(['x' * 60] * 5)}>",
    f"<{'l' * 64}@b.example>",
    f"<{'l' * 100}@b.example>",
    "<a\tb@c.example>",
    "<a\x01b@c.example>",
    "<a\x7fb@c.example>",
    '<"a\tb"@c.example>',
    '<"a\x0bb"@c.example>',
    "<ö@b.example>",
    "<a@ö.example>",
    "",
    " ",
]
ALL_PATHS = [path.strip() for path in re.split(r"(?<!a)\|(?!b)|\n", PATHS) if path.strip()] + MORE

#: Each a dialogue, whose last command counts.
COMMANDS: list[tuple[str, ...]] = [
    *((verb,) for verb in ("QUIT x", "NOOP", "RSET", "VRFY x", "HELP", "FOO", "", " ", "DATA")),
    *((EHLO, line) for line in (
        "QUIT x", "NOOP foo", "RSET x", "DATA x", "DATA", "HELP", "FOO", "XFOO", "NOOP ", "noop",
        " NOOP", "VRFY", "VRFY kim", "VRFY <kim@b.example>", "VRFY a b", "EXPN list", "ETRN x",
        "STARTTLS", "STARTTLS x", "AUTH", "AUTH PLAIN AGEAYg==", "SEND FROM:<a@b.example>", "TURN",
        "MAIL", "MAIL FROM", "MAIL FROM:", "MAIL TO:<a@b.example>", "MAIL FROM <a@b.example>",
        "MAIL FROM :<a@b.example>", "mail from: <a@b.example>", "MAIL  FROM:<a@b.example>",
        "RCPT", "RCPT TO:<a@b.example>", "HELO", "EHLO", "HELO a b", "EHLO [1.2.3.4]", "NOOP \0",
        "N\0OP", "MAIL FROM:<a\0b@c.example>", "NOOP ö", f"NOOP {'x' * 600}",
        "MAIL FROM:<a@b.example> SIZE=10", "MAIL FROM:<a@b.example> SIZE=abc",
        "MAIL FROM:<a@b.example> SIZE", "MAIL FROM:<a@b.example> SIZE=",
        "MAIL FROM:<a@b.example> SIZE=99999999999", "MAIL FROM:<a@b.example> SIZE=1 SIZE=2",
        "MAIL FROM:<a@b.example> BODY=8BITMIME", "MAIL FROM:<a@b.example> BODY=7bit",
        "MAIL FROM:<a@b.example> BODY=FOO", "MAIL FROM:<a@b.example> BODY",
        "MAIL FROM:<a@b.example> SMTPUTF8", "MAIL FROM:<a@b.example> SMTPUTF8=1",
        "MAIL FROM:<ö@b.example> SMTPUTF8", "MAIL FROM:<a@b.example> FOO",
        "MAIL FROM:<a@b.example> FOO=BAR", "MAIL FROM:<a@b.example> RET=FULL",
        "MAIL FROM:<a@b.example> RET=FOO", "MAIL FROM:<a@b.example> ENVID=x+2By",
        "MAIL FROM:<a@b.example> ENVID=", "MAIL FROM:<> SIZE=5", "MAIL FROM:<a@b.example>\tSIZE=5",
    )),
    *((EHLO, MAIL, line) for line in (
        MAIL, "DATA", "RCPT", "RCPT TO", "RCPT TO:", "RCPT FROM:<a@b.example>",
        "RCPT TO:<a@b.example> SIZE=1", "RCPT TO:<a@b.example> NOTIFY=NEVER",
        "RCPT TO:<a@b.example> NOTIFY=SUCCESS,FAILURE", "RCPT TO:<a@b.example> NOTIFY=FOO",
        "RCPT TO:<a@b.example> NOTIFY=NEVER,SUCCESS", "RCPT TO:<a@b.example> NOTIFY=",
        "RCPT TO:<a@b.example> ORCPT=rfc822;a@b.example", "RCPT TO:<a@b.example> ORCPT=x",
        "RCPT TO:<a@b.example>\tNOTIFY=NEVER", "EHLO d.example", "RSET",
    )),
    *((EHLO, line) for line in (
        "BDAT", "BDAT x", "BDAT -6", "BDAT 6 LAST\r\nNOOP",
        "MAIL FROM:<a@b.example> BODY=BINARYMIME",
    )),
    (EHLO, MAIL, "BDAT 6 LAST\r\nNOOP"),
    *((EHLO, MAIL, RCPT, line) for line in (
        "BDAT", "BDAT 6x", "BDAT +6", "BDAT 6 FOO\r\nNOOP", "BDAT 6 LAST x\r\nNOOP", "BDAT 0",
        "BDAT 0 LAST", "BDAT 6\r\nNOOP", "bdat  6  last\r\nNOOP", f"BDAT {'0' * 25}6\r\nNOOP",
        "BDAT 7 LAST\r\nNOOP\n",
    )),
    *((EHLO, MAIL, RCPT, "BDAT 6\r\nNOOP", line) for line in (
        "BDAT 0 LAST", "BDAT 6\r\nQUIT", "NOOP", "RSET", MAIL, RCPT, "DATA", "VRFY kim", "QUIT",
    )),
    (EHLO, MAIL, RCPT, "BDAT 6\r\nNOOP", "RSET", "BDAT 6 LAST\r\nNOOP"),
    (EHLO, MAIL, RCPT, "BDAT 6\r\nNOOP", EHLO, "BDAT 6 LAST\r\nNOOP"),
    (EHLO, MAIL, RCPT, "BDAT 0", "BDAT 6 LAST\r\nNOOP"),
    (EHLO, MAIL, RCPT, "BDAT 6 LAST\r\nNOOP", "BDAT 6\r\nNOOP"),
    (EHLO, MAIL, RCPT, "BDAT 6 LAST\r\nNOOP", MAIL),
    ("HELO x", MAIL, RCPT, "BDAT 6 LAST\r\nNOOP"),
    (EHLO, MAIL, RCPT, "DATA x"),
    (EHLO, MAIL, RCPT, "RSET", "DATA"),
    (EHLO, MAIL, "EHLO d.example", RCPT),
    ("HELO x", "MAIL FROM:<a@b.example> SIZE=10"),
    ("HELO x", "MAIL FROM:<a@b.example>"),
    ("HELO x", MAIL, RCPT, "DATA"),
]  # fmt: skip

DIALOGUES = [
    *COMMANDS,
    *((EHLO, f"MAIL FROM:{path}") for path in ALL_PATHS),
    *((EHLO, MAIL, f"RCPT TO:{path}") for path in ALL_PATHS),
]


#: A line of the table: the command, the code here, and that of Postfix.
ROW = r"\* - ``(.*)``\n     - (\d\d\d)\n     - (\d\d\d)\n"


def last_code(port: int, dialogue: tuple[str, ...]) -> str:
    """Have a dialogue, and give the code of the last reply."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        replies = sock.makefile("rb")

        def reply() -> bytes:
            while (line := replies.readline())[3:4] == b"-":
                continue
            return line

        reply()
        for command in dialogue:
            sock.sendall(command.encode() + b"\r\n")
            code = reply()[:3].decode()
        return code


def shown(command: str) -> str:
    """Give a command as the page shows it."""
    text = command if command.isprintable() else ascii(command)[1:-1]
    return text if len(text) < 60 else f"{text[:40]}..."


@pytest.fixture(scope="module")
def postfix() -> Iterator[int]:
    with running_postfix() as port:
        yield port


def test_there_are_enough_dialogues():
    assert len({dialogue[-1] for dialogue in DIALOGUES}) >= 200


@pytest.mark.timeout(120)
def test_the_codes_are_those_of_postfix(postfix):
    page = (DOCS / "strictness.rst").read_text("utf-8")
    listed = set(re.findall(ROW, page))
    differing = set()
    options = {"offer": ("CHUNKING",), "data_size_limit": 10_240_000}
    with QueueController("127.0.0.1", **options) as controller:
        for dialogue in DIALOGUES:
            ours, theirs = (last_code(port, dialogue) for port in (controller.port, postfix))
            if ours != theirs:
                differing.add((shown(dialogue[-1]), ours, theirs))
    assert differing == listed
