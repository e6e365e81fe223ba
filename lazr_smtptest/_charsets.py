"""Charsets of mail: which there are, and what is certainly not in one.  Test process."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

#: Names that Python knows, and that are no charsets of mail.
_NO_CHARSETS = frozenset(
    "base64 bz2 charmap hex idna mbcs oem palmos punycode quopri raw-unicode-escape rot13"
    " undefined unicode-escape utf-8-sig uu zlib".split()
)
#: Charsets that others know: registered, in use, or private (RFC 2046, 4.1.2).
_ELSEWHERE = re.compile(
    r"x-.+|cs.+|(?:iso-ir|iso-10646|iso-2022-cn|iso-8859-[689])-?.*|(?:windows|ibm|dos)-?\d.*"
    r"|gb_?2312.*|ks_?c_?5601.*|cn-big5|iso8859\d+|visual|logical|viscii.*|tscii|koi8?.*|euc-tw"
    r"|armscii-8|scsu|bocu-1|cesu-8|ucs-[24]|unicode|mac|iso[-_].+:\d{4}|unknown-8bit|cp\d+"
    r"|(?:jis|nats|inis|extended_unix|amiga|dec|asmo|ventura|adobe|iso-2022-jp|big5)[-_].+|inis|brf"
)


def codec_of(charset: str) -> str | None:
    """Return Python's name of a charset; "" if only others know it; None if there is none."""
    with suppress(LookupError, ValueError):
        name = codecs.lookup(charset[:80]).name
        return None if name in _NO_CHARSETS else name
    return "" if _ELSEWHERE.fullmatch(charset.lower()) else None


def may_be_in(octets: bytes, codec: str) -> bool:
    # Only what is certain: many another charset is declared where a superset is meant.
    if codec != "utf-8":
        return octets.isascii() or not codec.startswith(("ascii", "iso2022", "hz", "utf-7"))
    with suppress(UnicodeDecodeError):
        return bool(octets.decode("utf-8") or True)
    return False
