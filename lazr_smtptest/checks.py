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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.message import EmailMessage
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from lazr_smtptest._reading.charsets import codec_of, may_be_in
from lazr_smtptest._reading.markup import not_closed
from lazr_smtptest._reading.parameters import (
    COMMENT,
    PARAMETER,
    QUOTED,
    parameters,
    without_asides,
    without_comments,
)
from lazr_smtptest._reading.structure import Field, Mail, Part, comparable_id
from lazr_smtptest._reading.texts import text_of
from lazr_smtptest._util import lazy_pattern, plain, quoted

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
    "message-id-missing": (
        "advice",
        "no Message-ID field; a submission server may add it",
        "RFC 6409 8.3",
    ),
    "field-repeated": ("error", "a field twice that is allowed only once", "RFC 5322 3.6"),
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
    "charset-unknown": ("error", "a charset that does not exist", "RFC 2046 4.1.2"),
    "charset-wrong": ("error", "bytes that the charset does not have", "RFC 2046 4.1.2"),
    "8bit-in-7bit": ("error", "8-bit octets where the encoding is 7bit", "RFC 2045 2.7"),
    "transfer-encoding-invalid": (
        "error",
        "an unknown encoding, or content not encoded so",
        "RFC 2045 6",
    ),
    "parameter-unquoted": ("error", "a parameter that needs quotes", "RFC 2045 5.1"),
    "parameter-malformed": ("error", "a parameter without a value, or twice", "RFC 2045 5.1"),
    "message-part-encoded": ("error", "an attached message in an encoding", "RFC 2046 5.2.1"),
    "alternative-order": ("advice", "plain text behind its HTML", "RFC 2046 5.1.4"),
    "html-only": ("advice", "HTML without a plain text beside it", "RFC 2046 5.1.4"),
    "cid-missing": ("error", "HTML that shows a missing part", "RFC 2392 2"),
    "html-not-closed": ("error", "HTML with something left open", "HTML Standard 13.2.5"),
    "parser-failed": ("error", "Python's parser cannot read all of it", "email.parser"),
    "parser-*": ("advice", "another defect that Python's parser finds", "email.errors"),
}

#: How many problems of one kind are reported.
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
        mail = Mail(raw, smtp_utf8)
        for check in _checks(mail, message, body.upper()):
            with suppress(Exception):
                found += islice(check, _MOST)
    return tuple(found)


def _problem(code: str, where: str, text: str, level: str = "") -> Problem:
    return Problem(code, level or CODES[code][0], text, where)


_SPECIAL = lazy_pattern(r"[\s()<>@,;:\\\"/\[\]?=]")


# Header fields.

#: The words of a list of addresses, each with a letter that stands for it in its shape.
_TOKEN = lazy_pattern(
    rf"(?P<q>{QUOTED})|(?P<e>=\?[^?\s<>@,\"]+\?[bq]\?[^?\s<>,\"]*\?=)|(?P<l>\[[^\[\]\\<>]*\])"
    rf"|(?P<s>(?:\s+|{COMMENT})+)|(?P<a>(?:\\.|[^\s()<>@,;:.\"\[\]\\])+)",
    re.IGNORECASE | re.DOTALL,
)
#: Dots may be anywhere, and a name may be of any words, since such addresses are read.
_ADDRESS = r"[aqe.]+@(?:[ae.]+|l)"
_MAILBOX = lazy_pattern(rf"(?:[^<>@:\"]*:)?(?:{_ADDRESS}|[^<>@:\"]*<{_ADDRESS}>)? ?")
_WORD = lazy_pattern(r"=\?([^?\s]+)\?([bq])\?([^?\s]*)\?=", re.IGNORECASE)
_WORD_BEGINS = lazy_pattern(r"=\?[\w.:+*-]+\?[bq]\?", re.IGNORECASE)
_WORD_TEXTS = {"b": r"[A-Za-z0-9+/]*={0,2}", "q": "(?:[^=]|=[0-9A-Fa-f]{2})*"}


def _shape(field: Field) -> str:
    """A list of addresses, with a letter for each word and comments left out."""
    shape = _TOKEN.sub(lambda word: str(word.lastgroup).replace("s", " "), field.text)
    for special in "@.<>,:;":
        shape = shape.replace(f" {special}", special).replace(f"{special} ", special)
    return re.sub("<@[^<>]*:", "<", shape.strip())  # an obsolete route (RFC 5322, 4.4)


def _repeated(field: Field) -> str:
    fields = field.part.fields[field.name.lower()]
    is_wrong = len(fields) > 1 and fields[0] is field and field.name.lower() in _ONCE
    return f"There are {len(fields)} of it; write one." if is_wrong else ""


def _long(field: Field) -> str:
    found = _LONG.search(field.part.mail.raw, field.start, field.end)
    return "A header line has over 998 octets; fold it." if found else ""


def _raw_8bit(field: Field) -> str:
    is_utf8 = field.part.mail.smtp_utf8
    if field.value.isascii() or (is_utf8 and may_be_in(field.value, "utf-8")):
        return ""
    wish = "make them UTF-8" if is_utf8 else "encode them (RFC 2047)"
    return f"{quoted(field.text)} has 8-bit octets; {wish}."


def _wrong_date(field: Field) -> str:
    with suppress(Exception):
        # Obsolete forms (RFC 5322, 4.3) are read by this, and leap seconds (3.3) are not.
        text = " ".join(without_comments(field.text)[:999].split())
        text = re.sub(" ?([,:]) ?", r"\1", re.sub(r"(:\d\d ?:) ?60\b", r"\g<1>59", text))
        email.utils.parsedate_to_datetime(text.replace(",", ", ", 1))
        return ""
    return f"{quoted(field.text)} is no date; write it as RFC 5322 does."


def _wrong_address(field: Field) -> str:
    text, shape = quoted(field.text), _shape(field)
    if "(" in shape or ")" in shape:  # a comment that is not understood
        return ""
    if shape.count(":") > shape.count(";"):
        return f"{text} has a colon, which begins a group; quote the name."
    if shape.count(":") < shape.rstrip(";").count(";"):
        return f"{text} has a semicolon, which ends a group; write a comma."
    found = re.split("[,;]", shape)
    wrong = next((one for one in dict.fromkeys(found) if not _MAILBOX.fullmatch(one)), "")
    return wrong and f"Address {found.index(wrong) + 1} of {text} is none; write Name <a@b>."


def _wrong_from(field: Field) -> str:
    is_empty = not _shape(field).strip(" ,")
    return "From is empty; write Name <a@b>." if is_empty else _wrong_address(field)


def _no_sender(field: Field) -> str:
    count = sum("@" in one for one in re.split("[,;]", _shape(field)))
    is_wrong = count > 1 and "sender" not in field.part.fields
    return f"From has {count} addresses; add a Sender field with one." if is_wrong else ""


def _leaked(field: Field) -> str:
    text = f"Recipients can read {quoted(field.text)}; leave the field out."
    return text if "@" in _shape(field) else ""


def _broken_word(field: Field) -> str:
    text = field.text
    for begin in _WORD_BEGINS.finditer(text):
        word = _WORD.match(text, begin.start())
        fault = _fault_of_word(*word.groups()) if word else "has no end, or a blank or ? in it"
        if fault:
            return f"{quoted(text[begin.start() : begin.start() + 80])} {fault}; encode anew."
    return ""


def _long_word(field: Field) -> str:
    found = (word[0] for word in _WORD.finditer(field.text) if len(word[0]) > 75)
    word = next(found, "")
    return word and f"{quoted(word)} has over 75 characters; make several words of it."


def _word_in_address(field: Field) -> str:
    if b"=?" not in field.value:
        return ""
    quotes = (word[0] for word in _TOKEN.finditer(field.text) if word.lastgroup == "q")
    at = (one.rpartition("@") for one in re.split("[,;:]", _shape(field)) if "@" in one)
    around = (re.split("[ <]", one[0])[-1] + re.split("[ >]", one[2])[0] for one in at)
    is_wrong = any(map(_WORD.search, quotes)) or any("e" in words for words in around)
    text = f"{quoted(field.text)} has an encoded word in quotes or an address; move it out."
    return text if is_wrong else ""


def _word_unread(field: Field) -> str:
    found = _WORD.search(field.text)
    return f"{quoted(field.text)} has an encoded word; write it as it is." if found else ""


def _word_in_parameter(field: Field) -> str:
    pairs = parameters(field.text) if b"=?" in field.value else ()
    name = next((name for name, value in pairs if _WORD.search(value)), "")
    return name and f"{quoted(name)} has an encoded word; encode it by RFC 2231 instead."


def _unquoted(field: Field) -> str:
    for name, value in parameters(field.text):
        is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
        if not (is_quoted or name.endswith("*")) and _SPECIAL.search(value):
            return f"{quoted(name)} has the value {quoted(value)}; put that in quotes."
    return ""


def _malformed_parameter(field: Field) -> str:
    left = PARAMETER.sub("", without_asides(field.text)).partition(";")[2].strip(" ;")
    if "*" in left or "=" in left:  # a mere name says nothing, and spoils nothing
        return f"{quoted(left)} is no parameter; write name=value."
    counts = Counter(name.lower() for name, _ in parameters(field.text))
    twice = next((name for name, count in counts.items() if count > 1), "")
    return twice and f"{quoted(twice)} is there twice; write it once."


def _word_as_value(field: Field) -> str:
    found = _WORD.search(without_comments(field.text).partition(";")[0])
    return f"{quoted(field.text)} has an encoded word; write it as it is." if found else ""


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

_NO_QP = lazy_pattern(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?(?:\n|\Z)).{0,9}|[\x80-\xff]")
_HTML_COMMENT = lazy_pattern(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CID = lazy_pattern(
    r"(?:<[^<>]*?\s(?:src|background|poster|data)\s*=|url\()\s*[\"']?cid:([^\"'\s>)]+)",
    re.IGNORECASE,
)


def _where(part: Part, field: str = "") -> str:
    header = [f"header {plain(field)}"] if field else []
    path = plain(part.path)
    return ", ".join([f"part {path} ({plain(part.type)})", *header] if path else header)


def _no_version(part: Part) -> str:
    is_mime = part.is_multipart or "content-transfer-encoding" in part.fields
    is_wrong = is_mime and not part.parent and "mime-version" not in part.fields
    return "MIME fields mean nothing without MIME-Version: 1.0; add it." if is_wrong else ""


def _no_boundary(part: Part) -> str:
    if not part.is_multipart or part.parts or part.is_closed:
        return ""
    line = quoted(f"--{part.parameters.get('boundary', '')}")
    return f"No line is {line}, so there are no parts; begin each with its boundary."


def _not_closed(part: Part) -> str:
    if part.is_closed or not part.parts:
        return ""
    line = quoted(f"--{part.parameters['boundary']}--")
    return f"The parts are cut off, or lack their last line; end them with {line}."


def _unknown_charset(part: Part) -> str:
    is_wrong = part.type[:5] == "text/" and part.charset and codec_of(part.charset) is None
    return f"Nobody knows {quoted(part.charset)}; name another charset." if is_wrong else ""


def _wrong_charset(part: Part) -> str:
    # Other texts may say theirs inside (RFC 6657, 3); unencoded, it is 8bit-in-7bit.
    is_plain = part.type == "text/plain" and part in part.mail.shown and not part.name
    is_ascii = is_plain and part.encoding in {"8bit", "binary", *_ENCODED}
    charset = part.charset or ("us-ascii" if is_ascii else "")
    if not charset or part.type[:5] != "text/" or _fault_of_encoding(part):
        return ""
    is_right = may_be_in(part.octets, codec_of(charset) or "")
    return "" if is_right else f"The text is not in {quoted(charset)}; declare what it is in."


def _eight_in_seven(part: Part) -> str:
    is_7bit = part.encoding in ("", "7bit") and part.type[:8] != "message/"
    is_wrong = is_7bit and not part.is_multipart and not part.content.isascii()
    return "Add Content-Transfer-Encoding: 8bit, or encode the octets." if is_wrong else ""


def _encoded_message(part: Part) -> str:
    is_wrong = part.type in _MESSAGES and part.encoding in _ENCODED
    return f"No {part.type} may be in {part.encoding}; use 7bit or 8bit." if is_wrong else ""


def _wrong_encoding(part: Part) -> str:
    encoding = part.declared_encoding
    if part.is_multipart and encoding in _ENCODED:
        return f"Only parts may be in {encoding}; use 7bit or 8bit for the whole."
    if encoding and encoding not in _ENCODINGS and not encoding.startswith("x-"):
        return f"There is no transfer encoding {quoted(encoding)}; use one of RFC 2045, 6.1."
    fault = "" if part.type in _MESSAGES else _fault_of_encoding(part)
    return fault and f"The content is not in {encoding}: {fault}; encode it."


def _fault_of_encoding(part: Part) -> str:
    if part.encoding == "base64":  # RFC 2045, 6.8
        octets = part.content.translate(None, b" \t\r\n")
        if not re.fullmatch(rb"[A-Za-z0-9+/]*={0,2}", octets):
            return "it has other characters, or = before its end"
        return "its end is missing" if len(octets) % 4 else ""
    found = _NO_QP.search(part.content) if part.encoding == "quoted-printable" else None
    return f"it has {quoted(found[0].decode('latin-1'))}" if found else ""


def _wrong_order(part: Part) -> str:
    inner = part.parts if part.type == "multipart/alternative" else []
    # What a multipart/related shows is its first part, as a rule (RFC 2387, 3.2).
    types = [one.parts[0].type if one.parts else one.type for one in inner]
    is_wrong = "text/html" in types and "text/plain" in types[types.index("text/html") :]
    return "Readers show the last one; put text/plain before text/html." if is_wrong else ""


def _html_alone(part: Part) -> str:
    shown = (
        set() if part.parent else {one.type for one in part.mail.parts if one in one.mail.shown}
    )
    is_wrong = "text/html" in shown and "text/plain" not in shown
    return "The text is in HTML alone; add a text/plain alternative." if is_wrong else ""


def _missing_cid(part: Part) -> str:
    if part.type != "text/html" or part not in part.mail.shown:
        return ""
    found = _CID.findall(_HTML_COMMENT.sub("", part.octets.decode("latin-1")))
    missing = [
        cid for cid in found if comparable_id(html.unescape(cid)) not in part.mail.content_ids
    ]
    return f"No part has the Content-ID <{plain(missing[0])}>; attach it." if missing else ""


def _html_not_closed(part: Part) -> str:
    found = (
        not_closed(text_of(part)) if part.type == "text/html" and part in part.mail.shown else ""
    )
    return found and f"In browsers {found} hides all that follows, for it has no end; close it."


# The whole.

_LONG = lazy_pattern(rb"^[^\n]{998}(?!\r?$)[^\n]*", re.MULTILINE)
_OCTETS = (
    ("bare-cr", lazy_pattern(rb"\r(?!\n)"), "CR without LF; end lines with CRLF"),
    ("bare-lf", lazy_pattern(rb"(?<!\r)\n"), "LF without CR; end lines with CRLF"),
    ("nul", lazy_pattern(rb"\0"), "NUL; encode what is not text in base64"),
    ("8bit-undeclared", lazy_pattern(rb"[\x80-\xff]"), "8-bit octets; give MAIL BODY=8BITMIME"),
)


def _line(raw: bytes, at: int) -> str:
    return f"line {raw.count(10, 0, at) + 1}"  # LF is 10


def _wrong_octets(mail: Mail, is_7bit: bool) -> Iterator[Problem]:
    for code, pattern, text in _OCTETS if is_7bit else _OCTETS[:-1]:
        # 8-bit octets in the header are raw-8bit.
        found = pattern.search(mail.raw, 0 if code[0] != "8" else mail.parts[0].body)
        if found:
            yield _problem(code, _line(mail.raw, found.start()), f"The content has {text}.")


def _long_lines(mail: Mail) -> Iterator[Problem]:
    starts = [*(part.start for part in mail.parts[1:]), len(mail.raw)]
    for part, start in zip(mail.parts, starts, strict=True) if _LONG.search(mail.raw) else ():
        for found in _LONG.finditer(mail.raw, part.body, start):
            text = "The line has over 998 octets; break it, or encode the part."
            yield _problem("line-too-long", _line(mail.raw, found.start()), text)


def _missing_fields(mail: Mail) -> Iterator[Problem]:
    for name in ("From", "Date", "Message-ID"):
        if name.lower() not in mail.parts[0].fields:
            text = f"There is no {name} field; add one."
            yield _problem(f"{name.lower()}-missing", "", text)


def _malformed_headers(mail: Mail) -> Iterator[Problem]:
    for part in mail.parts:
        if part.malformed:
            at, fault = part.malformed
            line = mail.raw[at : at + 200].partition(b"\n")[0].decode("utf-8", "replace")
            text = f"{quoted(line.strip())} {fault}; write a name, a colon and a value."
            yield _problem("header-malformed", _line(mail.raw, at), text)


def _defects(message: EmailMessage) -> Iterator[Problem]:
    waiting: list[Any] = [message]
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
    ("field-repeated", "*", _repeated),
    ("line-too-long", "*", _long),
    ("raw-8bit", "*", _raw_8bit),
    ("date-invalid", "date", _wrong_date),
    ("from-invalid", "from", _wrong_from),
    ("address-invalid", "sender reply-to to cc", _wrong_address),
    ("sender-missing", "from", _no_sender),
    ("bcc-leaked", "bcc", _leaked),
    ("encoded-word-misplaced", _LISTS, _word_in_address),
    ("encoded-word-misplaced", "message-id in-reply-to references", _word_unread),
    ("encoded-word-misplaced", _MIME, _word_in_parameter),
    ("encoded-word-broken", f"{_TEXTS} {_LISTS}", _broken_word),
    ("encoded-word-too-long", f"{_TEXTS} {_LISTS}", _long_word),
    ("parameter-unquoted", _MIME, _unquoted),
    ("parameter-malformed", _MIME, _malformed_parameter),
    ("encoded-word-misplaced", _MIME, _word_as_value),
)
_OF_PARTS = (
    ("mime-version-missing", _no_version),
    ("boundary-missing", _no_boundary),
    ("part-not-closed", _not_closed),
    ("transfer-encoding-invalid", _wrong_encoding),
    ("message-part-encoded", _encoded_message),
    ("8bit-in-7bit", _eight_in_seven),
    ("charset-unknown", _unknown_charset),
    ("charset-wrong", _wrong_charset),
    ("alternative-order", _wrong_order),
    ("html-only", _html_alone),
    ("cid-missing", _missing_cid),
    ("html-not-closed", _html_not_closed),
)


def _checks(mail: Mail, message: EmailMessage, body: str) -> Iterator[Iterator[Problem]]:
    if body != "BINARYMIME":  # which may have any octets (RFC 3030, 3)
        yield from (_wrong_octets(mail, body == "7BIT"), _long_lines(mail))
    yield from (_missing_fields(mail), _malformed_headers(mail), _defects(message))
    yield from (_in_fields(mail, *row) for row in _OF_FIELDS)
    yield from (_in_parts(mail, *row) for row in _OF_PARTS)


def _in_fields(
    mail: Mail, code: str, names: str, check: Callable[[Field], str]
) -> Iterator[Problem]:
    # RFC 2047 (5) forbids an encoded word in a parameter, yet nearly all readers decode it.
    level = "advice" if check is _word_in_parameter else ""
    for part in mail.parts if names in ("*", _MIME) else mail.parts[:1]:
        for name in part.fields if names == "*" else names.split():
            for field in part.fields.get(name, ()):
                text = _answer(check, field)
                if text:
                    yield _problem(code, _where(part, field.name), text, level)


def _in_parts(mail: Mail, code: str, check: Callable[[Part], str]) -> Iterator[Problem]:
    for part in mail.parts:
        text = _answer(check, part)
        if text:
            yield _problem(code, _where(part), text)


def _answer(check: Callable[[_T], str], of: _T) -> str:
    with suppress(Exception):  # mail is mail, whatever a check trips over
        return check(of)
    return ""
