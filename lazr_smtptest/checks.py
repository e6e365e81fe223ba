"""What is wrong with a message, by name.  Test process; found when a test asks.

The octets that the client sent are read anew, since the standard library's parser
mends what a receiver would not.  A check that is in doubt says nothing, and none
takes more than linear time.  The tables at the end list the checks.
"""

from __future__ import annotations

import binascii
import email.utils
import html
import re
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from lazr_smtptest._charsets import codec_of, may_be_in
from lazr_smtptest._util import plain, quoted

__all__ = ["CODES", "Problem"]

_T = TypeVar("_T")

#: Each code: its level, what it means, and where that is written.
CODES: dict[str, tuple[str, str, str]] = {
    "8bit-undeclared": ("error", "8-bit octets, and MAIL had no BODY=8BITMIME", "RFC 6152 3"),
    "bare-cr": ("error", "a CR without an LF", "RFC 5321 2.3.8"),
    "bare-lf": ("error", "a line that ends in LF alone", "RFC 5321 2.3.8"),
    "nul": ("error", "a NUL octet", "RFC 2045 2.8"),
    "line-too-long": ("error", "a line of over 998 octets", "RFC 5322 2.1.1"),
    "from-missing": ("error", "no From field", "RFC 5322 3.6"),
    "date-missing": ("advice", "no Date field; a submission server may add it", "RFC 6409 8.2"),
    "message-id-missing": ("advice", "no Message-ID field; it may, too", "RFC 6409 8.3"),
    "field-repeated": ("error", "a field twice that may be there once", "RFC 5322 3.6"),
    "date-invalid": ("error", "a Date that nobody can read", "RFC 5322 3.3"),
    "from-invalid": ("error", "a From field without a proper address", "RFC 5322 3.6.2"),
    "address-invalid": ("error", "a broken To, Cc, Reply-To or Sender", "RFC 5322 3.4"),
    "sender-missing": ("error", "several authors in From, and no Sender", "RFC 5322 3.6.2"),
    "bcc-leaked": ("error", "a Bcc field with addresses in it", "RFC 5322 3.6.3"),
    "raw-8bit": ("error", "8-bit octets in a header, without SMTPUTF8", "RFC 6532 3"),
    "encoded-word-misplaced": ("error", "an encoded word where it is not read", "RFC 2047 5"),
    "encoded-word-broken": ("error", "an encoded word that cannot be decoded", "RFC 2047 2"),
    "encoded-word-too-long": ("advice", "an encoded word of over 75 characters", "RFC 2047 2"),
    "header-malformed": ("error", "a header line that is no field", "RFC 5322 2.2"),
    "mime-version-missing": ("error", "parts or an encoding, without MIME-Version", "RFC 2045 4"),
    "boundary-missing": ("error", "a multipart without its boundary", "RFC 2046 5.1.1"),
    "part-not-closed": ("error", "a multipart without its closing line", "RFC 2046 5.1.1"),
    "charset-unknown": ("error", "a charset that there is not", "RFC 2046 4.1.2"),
    "charset-wrong": ("error", "octets that are not of the charset", "RFC 2046 4.1.2"),
    "8bit-in-7bit": ("error", "8-bit octets where the encoding is 7bit", "RFC 2045 2.7"),
    "transfer-encoding-invalid": ("error", "no such encoding, or not so encoded", "RFC 2045 6"),
    "parameter-unquoted": ("error", "a parameter that needs quotes", "RFC 2045 5.1"),
    "message-part-encoded": ("error", "an attached message in an encoding", "RFC 2046 5.2.1"),
    "alternative-order": ("advice", "plain text behind its HTML", "RFC 2046 5.1.4"),
    "html-only": ("advice", "HTML without a plain text beside it", "RFC 2046 5.1.4"),
    "cid-missing": ("error", "HTML that shows a part that is not there", "RFC 2392 2"),
    "parser-failed": ("error", "Python's parser raises an exception", "email.parser"),
    "parser-*": ("advice", "another defect that Python's parser finds", "email.errors"),
}

#: As many problems are reported of one kind; who has more has seen enough.
_MOST = 20

#: What RFC 5322 (3.6), RFC 2045 (3) and RFC 2183 (2) allow once.
_ONCE = frozenset(
    "date from sender reply-to to cc bcc message-id in-reply-to references subject mime-version"
    " content-type content-transfer-encoding content-id content-disposition".split()
)
_ENCODINGS = frozenset("7bit 8bit binary base64 quoted-printable".split())
_ENCODED = frozenset("base64 quoted-printable".split())
_MESSAGES = frozenset("message/rfc822 message/partial message/external-body".split())

#: Defects of the parser that are looked for here, in the octets.
_JUDGED = frozenset(
    "FirstHeaderLineIsContinuation MissingHeaderBodySeparator MisplacedEnvelopeHeader"
    " NoBoundaryInMultipart StartBoundaryNotFound CloseBoundaryNotFound UndecodableBytes"
    " MultipartInvariantViolation InvalidMultipartContentTransferEncoding InvalidHeader"
    " InvalidBase64Padding InvalidBase64Characters InvalidBase64Length".split()
)


class Problem(NamedTuple):
    """Something that is wrong with a message.

    :ivar code: Its name, such as ``"bare-lf"``; :doc:`checks` lists all.
    :ivar level: ``"error"`` for what receivers refuse or garble, ``"advice"`` for what
        costs delivery or readers.
    :ivar text: A sentence: what is wrong, and what to do about it.
    :ivar where: ``"header Subject"``, ``"part 1.2 (text/html)"``, ``"line 17"`` or the like;
        empty for the message as a whole.
    """

    code: str
    level: str
    text: str
    where: str


def message_problems(
    message: EmailMessage, raw: bytes, *, body: str, smtp_utf8: bool
) -> tuple[Problem, ...]:
    """Return what is wrong with a message, given MAIL's BODY= and SMTPUTF8.  Never raises."""
    found: list[Problem] = []
    with suppress(Exception):
        for check in _checks(_Mail(message, raw, body, smtp_utf8)):
            with suppress(Exception):
                found += islice(check, _MOST)
    return tuple(found)


def _problem(code: str, where: str, text: str, level: str = "") -> Problem:
    return Problem(code, level or CODES[code][0], text, where)


# Small things to read.

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
#: Comments nest (RFC 5322, 3.2.2), but hardly ever deeper.
_COMMENT = r"\([^()\\]*(?:\\.[^()\\]*)*(?:\)|\\?\Z)"
for _ in range(2):
    _COMMENT = rf"\([^()\\]*(?:(?:\\.|{_COMMENT})[^()\\]*)*(?:\)|\\?\Z)"
# A quote that is not closed goes to the end, so that nothing is looked at twice.
_COMMENTS = re.compile(rf"({_QUOTED[:-1]}(?:\"|\\?\Z)|\\.)|{_COMMENT}", re.DOTALL)
_PARAMETER = re.compile(rf";\s*([^\s=;\"]+)\s*=\s*({_QUOTED}|[^;]*)", re.DOTALL)
_SPECIAL = re.compile(r"[\s()<>@,;:\\\"/\[\]?=]")


def _without_comments(text: str) -> str:
    return _COMMENTS.sub(lambda found: found[1] or " ", text) if "(" in text else text


def _parameters(text: str) -> list[tuple[str, str]]:
    """Return the parameters of Content-Type and the like, with their quotes (RFC 2045, 5.1)."""
    return [(name, value.strip()) for name, value in _PARAMETER.findall(_without_comments(text))]


def _values(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return parameters by name, without quotes, and in one piece (RFC 2231)."""
    with suppress(Exception):  # what nobody can read has no value
        pieces: list[Any] = [("", ""), *pairs]
        if any("*" in name for name, _ in pairs):
            pieces = email.utils.decode_params(pieces)
        text = email.utils.collapse_rfc2231_value
        return {name.lower(): email.utils.unquote(text(value)) for name, value in pieces[:0:-1]}
    return {}


def _cid(text: str) -> str:
    return urllib.parse.unquote(text).strip("<> ").lower()  # RFC 2392, 2


# Header fields.

#: The words of a list of addresses, each with a letter that stands for it in its shape.
_TOKEN = re.compile(
    rf"(?P<q>{_QUOTED})|(?P<e>=\?[^?\s<>@,\"]+\?[bq]\?[^?\s<>,\"]*\?=)|(?P<l>\[[^\[\]\\<>]*\])"
    rf"|(?P<s>(?:\s+|{_COMMENT})+)|(?P<a>(?:\\.|[^\s()<>@,;:.\"\[\]\\])+)",
    re.IGNORECASE | re.DOTALL,
)
#: Dots may be anywhere, and a name may be of any words, since such addresses are read.
_ADDRESS = r"[aqe.]+@(?:[ae.]+|l)"
_MAILBOX = re.compile(rf"(?:[^<>@:\"]*:)?(?:{_ADDRESS}|[^<>@:\"]*<{_ADDRESS}>)? ?")
_WORD = re.compile(r"=\?([^?\s]+)\?([bq])\?([^?\s]*)\?=", re.IGNORECASE)
_WORD_BEGINS = re.compile(r"=\?[\w.:+*-]+\?[bq]\?", re.IGNORECASE)
_WORD_TEXTS = {"b": r"[A-Za-z0-9+/]*={0,2}", "q": "(?:[^=]|=[0-9A-Fa-f]{2})*"}


class _Field(NamedTuple):
    """A header field; the methods that return texts say what is wrong with it."""

    part: _Part
    name: str
    value: bytes
    start: int
    end: int

    @property
    def text(self) -> str:
        value = self.value.replace(b"\r", b"").replace(b"\n", b"")
        return value.decode("utf-8", "surrogateescape").strip()

    @property
    def shape(self) -> str:
        """A list of addresses, with a letter for each word and comments left out."""
        shape = _TOKEN.sub(lambda word: str(word.lastgroup).replace("s", " "), self.text)
        for special in "@.<>,:;":
            shape = shape.replace(f" {special}", special).replace(f"{special} ", special)
        return re.sub("<@[^<>]*:", "<", shape.strip())  # an obsolete route (RFC 5322, 4.4)

    def repeated(self) -> str:
        fields = self.part.fields[self.name.lower()]
        is_wrong = len(fields) > 1 and fields[0] is self and self.name.lower() in _ONCE
        return f"There are {len(fields)} of it; write one." if is_wrong else ""

    def long(self) -> str:
        found = _LONG.search(self.part.mail.raw, self.start, self.end)
        return "A header line has over 998 octets; fold it." if found else ""

    def raw_8bit(self) -> str:
        is_utf8 = self.part.mail.smtp_utf8
        if self.value.isascii() or (is_utf8 and may_be_in(self.value, "utf-8")):
            return ""
        wish = "make them UTF-8" if is_utf8 else "encode them (RFC 2047)"
        return f"{quoted(self.text)} has 8-bit octets; {wish}."

    def wrong_date(self) -> str:
        with suppress(Exception):
            # Obsolete forms (RFC 5322, 4.3) are read by this, and leap seconds (3.3) are not.
            text = " ".join(_without_comments(self.text)[:999].split())
            text = re.sub(" ?([,:]) ?", r"\1", re.sub(r"(:\d\d ?:) ?60\b", r"\g<1>59", text))
            email.utils.parsedate_to_datetime(text.replace(",", ", ", 1))
            return ""
        return f"{quoted(self.text)} is no date; write it as RFC 5322 does."

    def wrong_address(self) -> str:
        text, shape = quoted(self.text), self.shape
        if "(" in shape or ")" in shape:  # a comment that is not understood
            return ""
        if shape.count(":") > shape.count(";"):
            return f"{text} has a colon, which begins a group; quote the name."
        if shape.count(":") < shape.rstrip(";").count(";"):
            return f"{text} has a semicolon, which ends a group; write a comma."
        found = re.split("[,;]", shape)
        wrong = next((one for one in dict.fromkeys(found) if not _MAILBOX.fullmatch(one)), "")
        return wrong and f"Address {found.index(wrong) + 1} of {text} is none; write Name <a@b>."

    def wrong_from(self) -> str:
        is_empty = not self.shape.strip(" ,")
        return "From is empty; write Name <a@b>." if is_empty else self.wrong_address()

    def no_sender(self) -> str:
        count = sum("@" in one for one in re.split("[,;]", self.shape))
        is_wrong = count > 1 and "sender" not in self.part.fields
        return f"From has {count} addresses; add a Sender field with one." if is_wrong else ""

    def leaked(self) -> str:
        text = f"Recipients can read {quoted(self.text)}; leave the field out."
        return text if "@" in self.shape else ""

    def broken_word(self) -> str:
        text = self.text
        for begin in _WORD_BEGINS.finditer(text):
            word = _WORD.match(text, begin.start())
            fault = _fault_of_word(*word.groups()) if word else "has no end, or a blank or ? in it"
            if fault:
                return f"{quoted(text[begin.start() : begin.start() + 80])} {fault}; encode anew."
        return ""

    def long_word(self) -> str:
        found = (word[0] for word in _WORD.finditer(self.text) if len(word[0]) > 75)
        word = next(found, "")
        return word and f"{quoted(word)} has over 75 characters; make several words of it."

    def word_in_address(self) -> str:
        if b"=?" not in self.value:
            return ""
        quotes = (word[0] for word in _TOKEN.finditer(self.text) if word.lastgroup == "q")
        at = (one.rpartition("@") for one in re.split("[,;:]", self.shape) if "@" in one)
        around = (re.split("[ <]", one[0])[-1] + re.split("[ >]", one[2])[0] for one in at)
        is_wrong = any(map(_WORD.search, quotes)) or any("e" in words for words in around)
        text = f"{quoted(self.text)} has an encoded word in quotes or an address; move it out."
        return text if is_wrong else ""

    def word_unread(self) -> str:
        found = _WORD.search(self.text)
        return f"{quoted(self.text)} has an encoded word; write it as it is." if found else ""

    def word_in_parameter(self) -> str:
        pairs = _parameters(self.text) if b"=?" in self.value else ()
        name = next((name for name, value in pairs if _WORD.search(value)), "")
        return name and f"{quoted(name)} has an encoded word; encode it by RFC 2231 instead."

    def unquoted(self) -> str:
        for name, value in _parameters(self.text):
            is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
            if not (is_quoted or name.endswith("*")) and _SPECIAL.search(value):
                return f"{quoted(name)} has the value {quoted(value)}; put that in quotes."
        return ""


def _fault_of_word(charset: str, encoding: str, text: str) -> str:
    codec = codec_of(charset.partition("*")[0])  # a language may follow (RFC 2231, 5)
    if codec is None or charset.lower() == "unknown-8bit":
        return "has a charset that nobody knows"
    is_cut = encoding in "bB" and len(text.rstrip("=")) % 4 == 1
    if is_cut or not re.fullmatch(_WORD_TEXTS[encoding.lower()], text):
        return "is not encoded as it says"
    if encoding in "bB":
        octets = binascii.a2b_base64(text + "==")  # a lack of padding does no harm
    else:
        octets = binascii.a2b_qp(text.encode("utf-8", "surrogateescape"), header=True)
    # Each word is of whole characters (RFC 2047, 5).
    return (
        "" if may_be_in(octets, codec) else f"is cut within a character, or not {plain(charset)}"
    )


# The parts.

#: A field with its folded lines (RFC 5322, 2.2), and a blank before the colon (obsolete, 4.5).
_FIELD = re.compile(rb"([!-9;-~]+)([ \t]*):([^\n]*(?:\n[ \t][^\n]*)*)\n?")
#: What may be passed over: a continuation of nothing, and the first line of a mailbox file.
_STRAY = re.compile(rb"(?:[ \t]|\A>?From )[^\n]*\n?")
_BLANK = re.compile(rb"\r?(?:\n|\Z)")
_TYPE = re.compile(r"\s*([^\s/;]+/[^\s;]+)")
_NO_QP = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?(?:\n|\Z)).{0,9}|[\x80-\xff]")
_HTML_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CID = re.compile(
    r"(?:<[^<>]*?\s(?:src|background|poster|data)\s*=|url\()\s*[\"']?cid:([^\"'\s>)]+)",
    re.IGNORECASE,
)


class _Part:
    """The message, or a part of it, which may be a message that is attached."""

    def __init__(self, mail: _Mail, start: int, parent: _Part | None) -> None:
        self.mail, self.start, self.parent = mail, start, parent
        self.parts: list[_Part] = []
        self.number = len(parent.parts) + 1 if parent else 0
        self.fields: dict[str, list[_Field]] = {}
        #: Where the first line is that is no field, and what to say of it.
        self.malformed: tuple[int, str] | None = None
        self.body = self._read_header(start)
        self.end = -1
        self.is_closed = False
        content_type = self.text("content-type")
        found = _TYPE.match(_without_comments(content_type))
        # RFC 2045, 5.2; RFC 2046, 5.1.5.
        other = "message/rfc822" if parent and parent.type == "multipart/digest" else "text/plain"
        self.type: str = found[1].lower() if found else other
        self.is_multipart = self.type.startswith("multipart/")
        self.parameters = _values(_parameters(content_type))
        self.charset = self.parameters.get("charset", "").strip()
        self.encoding = _without_comments(self.text("content-transfer-encoding")).strip().lower()
        boundary = self.parameters.get("boundary", "") if self.is_multipart else ""
        self.boundary = boundary.encode("utf-8", "surrogateescape").rstrip()
        is_file = re.search("(?i)^attachment|filename", self.text("content-disposition"))
        #: Whether it is a text of the message's own.
        self.is_shown = not (is_file or "name" in self.parameters)

    def _read_header(self, at: int) -> int:
        raw = self.mail.raw
        while not (_BLANK.match(raw, at) or (raw[at] in b"-" and self.mail.is_delimiter(at))):
            found = _FIELD.match(raw, at)
            if found:
                field = _Field(self, found[1].decode("ascii"), found[3], at, found.end())
                self.fields.setdefault(field.name.lower(), []).append(field)
            if not found or found[2]:
                fault = "has a blank before its colon" if found else "is no header field"
                self.malformed = self.malformed or (at, fault)
            found = found or _STRAY.match(raw, at)
            if not found:  # the body begins without a blank line
                return at
            at = found.end()
        blank = _BLANK.match(raw, at)
        return blank.end() if blank else at

    def text(self, name: str) -> str:
        return self.fields[name][0].text if name in self.fields else ""

    @property
    def content(self) -> bytes:
        # The line end before a delimiter belongs to that (RFC 2046, 5.1.1).
        return self.mail.raw[self.body : self.end].removesuffix(b"\n").removesuffix(b"\r")

    @property
    def octets(self) -> bytes:
        # What cannot be decoded is as it is.
        with suppress(binascii.Error):
            if self.encoding == "base64":
                return binascii.a2b_base64(self.content)
            if self.encoding == "quoted-printable":
                return binascii.a2b_qp(self.content)
        return self.content

    def where(self, field: str = "") -> str:
        header = [f"header {plain(field)}"] if field else []
        numbers, part = [], self
        while part.parent:
            numbers.append(str(part.number))
            part = part.parent
        path = plain(".".join(reversed(numbers)))
        return ", ".join([f"part {path} ({plain(self.type)})", *header] if path else header)

    def no_version(self) -> str:
        is_mime = self.is_multipart or "content-transfer-encoding" in self.fields
        is_wrong = is_mime and not self.parent and "mime-version" not in self.fields
        return "MIME fields mean nothing without MIME-Version: 1.0; add it." if is_wrong else ""

    def no_boundary(self) -> str:
        if not self.is_multipart or self.parts or self.is_closed:
            return ""
        line = quoted(f"--{self.parameters.get('boundary', '')}")
        return f"No line is {line}, so there are no parts; begin each with its boundary."

    def not_closed(self) -> str:
        if self.is_closed or not self.parts:
            return ""
        line = quoted(f"--{self.parameters['boundary']}--")
        return f"The parts are cut off, or lack their last line; end them with {line}."

    def unknown_charset(self) -> str:
        is_wrong = self.type[:5] == "text/" and self.charset and codec_of(self.charset) is None
        return f"Nobody knows {quoted(self.charset)}; name another charset." if is_wrong else ""

    def wrong_charset(self) -> str:
        # Other texts may say theirs inside (RFC 6657, 3); unencoded, it is 8bit-in-7bit.
        is_plain = self.type == "text/plain" and self.is_shown
        is_ascii = is_plain and self.encoding in {"8bit", "binary", *_ENCODED}
        charset = self.charset or ("us-ascii" if is_ascii else "")
        if not charset or self.type[:5] != "text/" or self.fault_of_encoding():
            return ""
        is_right = may_be_in(self.octets, codec_of(charset) or "")
        return "" if is_right else f"The text is not in {quoted(charset)}; declare what it is in."

    def eight_in_seven(self) -> str:
        is_7bit = self.encoding in ("", "7bit") and self.type[:8] != "message/"
        is_wrong = is_7bit and not self.is_multipart and not self.content.isascii()
        return "Add Content-Transfer-Encoding: 8bit, or encode the octets." if is_wrong else ""

    def encoded_message(self) -> str:
        is_wrong = self.type in _MESSAGES and self.encoding in _ENCODED
        return f"No {self.type} may be in {self.encoding}; use 7bit or 8bit." if is_wrong else ""

    def wrong_encoding(self) -> str:
        encoding = self.encoding
        if self.is_multipart and encoding in _ENCODED:
            return f"Only parts may be in {encoding}; use 7bit or 8bit for the whole."
        if encoding and encoding not in _ENCODINGS and not encoding.startswith("x-"):
            return f"There is no transfer encoding {quoted(encoding)}; use one of RFC 2045, 6.1."
        fault = "" if self.type in _MESSAGES else self.fault_of_encoding()
        return fault and f"The content is not in {encoding}: {fault}; encode it."

    def fault_of_encoding(self) -> str:
        if self.encoding == "base64":  # RFC 2045, 6.8
            octets = self.content.translate(None, b" \t\r\n")
            if not re.fullmatch(rb"[A-Za-z0-9+/]*={0,2}", octets):
                return "it has other characters, or = before its end"
            return "its end is missing" if len(octets) % 4 else ""
        found = _NO_QP.search(self.content) if self.encoding == "quoted-printable" else None
        return f"it has {quoted(found[0].decode('latin-1'))}" if found else ""

    def wrong_order(self) -> str:
        inner = self.parts if self.type == "multipart/alternative" else []
        # What a multipart/related shows is its first part, as a rule (RFC 2387, 3.2).
        types = [one.parts[0].type if one.parts else one.type for one in inner]
        is_wrong = "text/html" in types and "text/plain" in types[types.index("text/html") :]
        return "Readers show the last one; put text/plain before text/html." if is_wrong else ""

    def html_alone(self) -> str:
        shown = set() if self.parent else {one.type for one in self.mail.parts if one.is_shown}
        is_wrong = "text/html" in shown and "text/plain" not in shown
        return "The text is in HTML alone; add a text/plain alternative." if is_wrong else ""

    def missing_cid(self) -> str:
        if self.type != "text/html" or not self.is_shown:
            return ""
        found = _CID.findall(_HTML_COMMENT.sub("", self.octets.decode("latin-1")))
        missing = [cid for cid in found if _cid(html.unescape(cid)) not in self.mail.content_ids]
        return f"No part has the Content-ID <{plain(missing[0])}>; attach it." if missing else ""


# The whole.

_DASHES = re.compile(rb"^--([^\n]*)", re.MULTILINE)
_LONG = re.compile(rb"^[^\n]{998}(?!\r?$)[^\n]*", re.MULTILINE)
_OCTETS = (
    ("bare-cr", re.compile(rb"\r(?!\n)"), "CR without LF; end lines with CRLF"),
    ("bare-lf", re.compile(rb"(?<!\r)\n"), "LF without CR; end lines with CRLF"),
    ("nul", re.compile(rb"\0"), "NUL; encode what is not text in base64"),
    ("8bit-undeclared", re.compile(rb"[\x80-\xff]"), "8-bit octets; give MAIL BODY=8BITMIME"),
)


class _Mail:
    """A message, read into its parts in one pass, however deep they are."""

    def __init__(self, message: EmailMessage, raw: bytes, body: str, smtp_utf8: bool) -> None:
        self.message, self.raw, self.smtp_utf8 = message, raw, smtp_utf8
        self.is_7bit = body.upper() == "7BIT"
        #: All parts in order, the message itself first.
        self.parts: list[_Part] = []
        #: The multiparts around the place that is read, and their depths by boundary.
        self._open: list[_Part] = []
        self._depths: dict[bytes, list[int]] = {}
        self._begin(0, None)
        for found in _DASHES.finditer(raw) if self._open else ():
            if found.start() >= self.parts[-1].body:
                self._read_dashes(found[1].rstrip(), found.start(), found.end())
        self._leave(0, len(raw))
        ids = (_cid(_without_comments(part.text("content-id"))) for part in self.parts)
        self.content_ids = {cid for cid in ids if cid}

    def is_delimiter(self, at: int) -> bool:
        line = _DASHES.match(self.raw, at)
        text = line[1].rstrip() if line else b""
        return bool(self._depths.get(text) or self._depths.get(text.removesuffix(b"--")))

    def _read_dashes(self, text: bytes, at: int, end: int) -> None:
        if self._depths.get(text):
            depth = self._depths[text][-1]
            self._leave(depth + 1, at)
            self._begin(end + 1, self._open[depth])
        elif text.endswith(b"--") and self._depths.get(text[:-2]):
            depth = self._depths[text[:-2]][-1]
            self._open[depth].is_closed = True
            self._leave(depth, at)

    def _begin(self, start: int, parent: _Part | None) -> None:
        part = _Part(self, start, parent)
        self.parts.append(part)
        if parent:
            parent.parts.append(part)
        if part.boundary:
            self._depths.setdefault(part.boundary, []).append(len(self._open))
            self._open.append(part)

    def _leave(self, depth: int, at: int) -> None:
        """End the part that is read, and all multiparts from a depth on."""
        if self.parts[-1].end < 0:
            self.parts[-1].end = at
        while len(self._open) > depth:
            self._depths[self._open.pop().boundary].pop()

    def _line(self, at: int) -> str:
        return f"line {self.raw.count(10, 0, at) + 1}"  # LF is 10

    def wrong_octets(self) -> Iterator[Problem]:
        for code, pattern, text in _OCTETS if self.is_7bit else _OCTETS[:-1]:
            # 8-bit octets in the header are raw-8bit.
            found = pattern.search(self.raw, 0 if code[0] != "8" else self.parts[0].body)
            if found:
                yield _problem(code, self._line(found.start()), f"The content has {text}.")

    def long_lines(self) -> Iterator[Problem]:
        starts = [*(part.start for part in self.parts[1:]), len(self.raw)]
        for part, start in zip(self.parts, starts, strict=True) if _LONG.search(self.raw) else ():
            for found in _LONG.finditer(self.raw, part.body, start):
                text = "The line has over 998 octets; break it, or encode the part."
                yield _problem("line-too-long", self._line(found.start()), text)

    def missing_fields(self) -> Iterator[Problem]:
        for name in ("From", "Date", "Message-ID"):
            if name.lower() not in self.parts[0].fields:
                text = f"There is no {name} field; add one."
                yield _problem(f"{name.lower()}-missing", "", text)

    def malformed_headers(self) -> Iterator[Problem]:
        for part in self.parts:
            if part.malformed:
                at, fault = part.malformed
                line = self.raw[at : at + 200].partition(b"\n")[0].decode("utf-8", "replace")
                text = f"{quoted(line.strip())} {fault}; write a name, a colon and a value."
                yield _problem("header-malformed", self._line(at), text)

    def defects(self) -> Iterator[Problem]:
        waiting: list[Any] = [self.message]
        while waiting:
            part = waiting.pop()
            for defect in part.defects:
                name = type(defect).__name__.removesuffix("Defect").removeprefix("Parser")
                if name not in _JUDGED:
                    code = f"parser-{re.sub('(?<!^)(?=[A-Z])', '-', name).lower()}"
                    text = f"Python's email parser finds {quoted(f'{name}: {defect}')}; mend it."
                    yield _problem(code, "", text, CODES.get(code, CODES["parser-*"])[0])
            waiting += part.get_payload() if part.is_multipart() else ()


# The checks, in the order in which problems are reported.

_LISTS = "from sender reply-to to cc bcc"
_TEXTS = "subject comments keywords"
_MIME = "content-type content-disposition"
#: All fields, or some of the message's; of each part, only those that begin in Content-.
_OF_FIELDS = (
    ("field-repeated", "*", _Field.repeated),
    ("line-too-long", "*", _Field.long),
    ("raw-8bit", "*", _Field.raw_8bit),
    ("date-invalid", "date", _Field.wrong_date),
    ("from-invalid", "from", _Field.wrong_from),
    ("address-invalid", "sender reply-to to cc", _Field.wrong_address),
    ("sender-missing", "from", _Field.no_sender),
    ("bcc-leaked", "bcc", _Field.leaked),
    ("encoded-word-misplaced", _LISTS, _Field.word_in_address),
    ("encoded-word-misplaced", "message-id in-reply-to references", _Field.word_unread),
    ("encoded-word-misplaced", _MIME, _Field.word_in_parameter),
    ("encoded-word-broken", f"{_TEXTS} {_LISTS}", _Field.broken_word),
    ("encoded-word-too-long", f"{_TEXTS} {_LISTS}", _Field.long_word),
    ("parameter-unquoted", _MIME, _Field.unquoted),
)
_OF_PARTS = (
    ("mime-version-missing", _Part.no_version),
    ("boundary-missing", _Part.no_boundary),
    ("part-not-closed", _Part.not_closed),
    ("transfer-encoding-invalid", _Part.wrong_encoding),
    ("message-part-encoded", _Part.encoded_message),
    ("8bit-in-7bit", _Part.eight_in_seven),
    ("charset-unknown", _Part.unknown_charset),
    ("charset-wrong", _Part.wrong_charset),
    ("alternative-order", _Part.wrong_order),
    ("html-only", _Part.html_alone),
    ("cid-missing", _Part.missing_cid),
)


def _checks(mail: _Mail) -> Iterator[Iterator[Problem]]:
    yield from (mail.wrong_octets(), mail.long_lines(), mail.missing_fields())
    yield from (mail.malformed_headers(), mail.defects())
    yield from (_in_fields(mail, *row) for row in _OF_FIELDS)
    yield from (_in_parts(mail, *row) for row in _OF_PARTS)


def _in_fields(
    mail: _Mail, code: str, names: str, check: Callable[[_Field], str]
) -> Iterator[Problem]:
    # RFC 2047 (5) forbids an encoded word in a parameter, yet nearly all readers decode it.
    level = "advice" if check is _Field.word_in_parameter else ""
    for part in mail.parts if names in ("*", _MIME) else mail.parts[:1]:
        for name in part.fields if names == "*" else names.split():
            for field in part.fields.get(name, ()):
                text = _answer(check, field)
                if text:
                    yield _problem(code, part.where(field.name), text, level)


def _in_parts(mail: _Mail, code: str, check: Callable[[_Part], str]) -> Iterator[Problem]:
    for part in mail.parts:
        text = _answer(check, part)
        if text:
            yield _problem(code, part.where(), text)


def _answer(check: Callable[[_T], str], of: _T) -> str:
    with suppress(Exception):  # mail is mail, whatever a check trips over
        return check(of)
    return ""
