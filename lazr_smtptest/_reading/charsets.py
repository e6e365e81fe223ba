"""Charsets of mail: what their names mean to its readers, and what is certainly not in one.

A name means what the WHATWG's Encoding Standard says, as in browsers and mail programs:
senders write gb2312 and mean GBK.  Other names mean what Python says.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

from lazr_smtptest._util import lazy_pattern

#: Names that Python knows, and that are no charsets of mail.
_NO_CHARSETS = frozenset(
    "base64 bz2 charmap hex idna mbcs oem palmos punycode quopri raw-unicode-escape rot-13"
    " undefined unicode-escape utf-8-sig uu zlib".split()
)
#: Charsets that others know: registered, in use, or private (RFC 2046, 4.1.2).
_ELSEWHERE = lazy_pattern(
    r"x-.+|cs.+|(?:iso-ir|iso-10646|iso-2022-cn|iso-8859-[689])-?.*|(?:windows|ibm|dos)-?\d.*"
    r"|gb_?2312.*|ks_?c_?5601.*|cn-big5|iso8859\d+|visual|logical|viscii.*|tscii|koi8?.*|euc-tw"
    r"|armscii-8|scsu|bocu-1|cesu-8|ucs-[24]|unicode|mac|iso[-_].+:\d{4}|unknown-8bit|cp\d+"
    r"|(?:jis|nats|inis|extended_unix|amiga|dec|asmo|ventura|adobe|iso-2022-jp|big5)[-_].+|inis|brf"
)

#: The superset that is meant, by Python's name of the charset that is named.
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "utf-16": "utf-16-le",
}
#: Names of the Encoding Standard, and of iconv and PHP, that Python does not know, all of them
#: or some.
_NAMES = {
    "cp1250": "x-cp1250",
    "cp1251": "x-cp1251",
    "cp1252": "x-cp1252",
    "cp1253": "x-cp1253",
    "cp1254": "x-cp1254",
    "cp1255": "x-cp1255",
    "cp1256": "x-cp1256",
    "cp1257": "x-cp1257",
    "cp1258": "x-cp1258",
    "cp874": "windows-874 dos-874",
    "cp932": "x-sjis windows-31j sjis-win",
    "cp949": "windows-949 csksc56011987 ks_c_5601-1989 ksc_5601 cseuckr iso-ir-149",
    "big5hkscs": "cn-big5 x-x-big5",
    "euc_jp": "x-euc-jp cseucpkdfmtjapanese cp51932 eucjp-win eucjp-ms euc-jp-ms",
    "gb18030": "x-gbk csgb2312 gb_2312 gb_2312-80",
    "iso2022_jp": "iso-2022-jp-ms cp50220 cp50221 cp50222",
    "iso8859-6": "iso-8859-6-e iso-8859-6-i csiso88596e csiso88596i",
    "iso8859-7": "sun_eu_greek",
    "iso8859-8": "iso-8859-8-e iso-8859-8-i csiso88598e csiso88598i logical visual",
    "iso8859-15": "csisolatin9",
    "koi8-r": "koi koi8",
    "koi8-u": "koi8-ru",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "mac-roman": "mac csmacintosh x-mac-roman",
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "utf-16-be": "unicodefffe",
    "utf-16-le": "unicode csunicode iso-10646-ucs-2 ucs-2 unicodefeff",
}
_CODECS = {label: codec for codec, labels in _NAMES.items() for label in labels.split()}

#: What the standard reads otherwise than Python's codecs, which are older.
_LATER = {
    "gb18030": str.maketrans(
        "\ue5e5\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795"
        "\ue796\ue7c7\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
        "\u3000\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18"
        "\ufe19\u1e3f\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb",
    ),
    "koi8-u": str.maketrans("\u255d\u256c", "\u045e\u040e"),
}

#: A mark at the beginning of a text outweighs what its header says.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: How windows-936 and the like are written, and Python wants cp936.
_CODE_PAGE = lazy_pattern(r"(?:cp-|ibm-|windows-)(?=\d+\Z)")
#: What ISO-2022-JP switches to, up to the end of the line (RFC 1468), and its text.
_JIS = lazy_pattern(rb"\x1b(\$[@B]|\$\(D|\([BJI])([^\x1b\r\n]*)|([^\x1b]+|\x1b)")
#: What EUC-JP has: half-width katakana, JIS X 0212, JIS X 0208, and other octets.
_EUC = lazy_pattern(
    rb"\x8e([\xa1-\xdf])|(\x8f[\xa1-\xfe]{2})|((?:[\xa1-\xfe]{2})+)|([^\x8e\x8f\xa1-\xfe]+|.)",
    re.DOTALL,
)


def codec_of(charset: str) -> str | None:
    """Return Python's name of a charset; "" if only others know it; None if there is none."""
    if not charset.isascii():  # Python 3.15 warns of such a name
        return None
    label = _CODE_PAGE.sub("cp", charset.lower()[:80])
    with suppress(LookupError, ValueError):
        name = codecs.lookup(_CODECS.get(label, label)).name
        return None if name in _NO_CHARSETS else name
    return "" if _ELSEWHERE.fullmatch(charset.lower()) else None


def may_be_in(octets: bytes, codec: str) -> bool:
    # Only what is certain: many another charset is declared where a superset is meant.
    if codec != "utf-8":
        return octets.isascii() or not codec.startswith(("ascii", "iso2022", "hz", "utf-7"))
    with suppress(UnicodeDecodeError):
        return bool(octets.decode("utf-8") or True)
    return False


def decoded(octets: bytes, charset: str = "") -> str:
    """Return a text as its reader sees it.

    Without a charset that anybody knows it is UTF-8 if it can be, else windows-1252.
    """
    for mark, codec in _MARKS:
        if octets.startswith(mark):
            return octets[len(mark) :].decode(codec, "replace")
    codec = _meant(charset)
    if not codec:
        codec = "utf-8" if may_be_in(octets, "utf-8") else "cp1252"
    if codec.startswith("iso2022_jp"):
        return _from_iso2022_jp(octets, codec)
    if codec == "euc_jp":
        return _from_euc_jp(octets)
    if codec == "big5hkscs":
        with suppress(UnicodeDecodeError):
            return octets.decode(codec)
        codec = "cp950"  # which has characters that it lacks, and programs write all the same
    text = octets.decode(codec, _ERRORS.get(codec[:5], "replace"))
    return text.translate(_LATER[codec]) if codec in _LATER else text


def is_readable(charset: str) -> bool:
    """Whether a text in a charset can be decoded."""
    return bool(_meant(charset))


def is_unicode(charset: str) -> bool:
    return _meant(charset).startswith("utf")


def extends_ascii(charset: str) -> bool:
    """Whether a text in a charset can be decoded, and has for ASCII the octets of ASCII."""
    codec = _meant(charset)
    return bool(codec) and b"Az".decode(codec, "replace") == "Az"


def _meant(charset: str) -> str:
    label = re.sub(r"^iso8859(?=\d)", "iso8859-", charset.strip(" \t\r\n\"'").lower())
    known = _CODECS.get(label) or codec_of(label) or ""
    return _MEANT.get(known, known)


def _from_iso2022_jp(octets: bytes, codec: str) -> str:
    with suppress(UnicodeDecodeError):
        return octets.decode(codec)
    # Programs write all characters of windows-31j so: Shift_JIS has them in the same order.
    return "".join(_jis_set(*found.groups(b"")) for found in _JIS.finditer(octets))


def _from_euc_jp(octets: bytes) -> str:
    with suppress(UnicodeDecodeError):
        return octets.decode("euc_jp")
    return "".join(_euc_set(*found.groups(b"")) for found in _EUC.finditer(octets))


def _euc_set(katakana: bytes, supplement: bytes, pairs: bytes, other: bytes) -> str:
    if pairs:
        return _jis_set(b"$B", bytes(octet & 0x7F for octet in pairs), b"")
    if supplement:
        return supplement.decode("euc_jp", "replace")
    return katakana.decode("cp932") + other.decode("ascii", "replace")


def _jis_set(kind: bytes, text: bytes, other: bytes) -> str:
    if kind == b"$(D":  # JIS X 0212
        return (b"\x1b$(D" + text + b"\x1b(B").decode("iso2022_jp_ext", "replace")
    if kind == b"(I":  # half-width katakana
        text = bytes(octet | 0x80 for octet in text)
    elif kind[:1] == b"$":
        pairs = zip(text[::2], text[1::2], strict=False)
        text = b"".join(_shifted(row, cell) for row, cell in pairs)
    return (text or other).decode("cp932", "replace")


def _shifted(row: int, cell: int) -> bytes:
    if not (0x21 <= row <= 0x7E and 0x21 <= cell <= 0x7E):
        return bytes((row & 0x7F, cell & 0x7F))
    lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
    trail = cell + (0x7E if row % 2 == 0 else 0x1F + (cell >= 0x60))
    return bytes((lead, trail))


def _control_character(error: UnicodeError) -> tuple[str, int]:
    """Decode what windows-125x have not, as the standard does."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


def _euro(error: UnicodeError) -> tuple[str, int]:
    """Decode what GBK has and GB 18030 has elsewhere, as the standard does."""
    assert isinstance(error, UnicodeDecodeError)
    return "€" if error.object[error.start] == 0x80 else "\ufffd", error.end


#: Error handlers by the first letters of the codec.
_ERRORS = {"cp125": "lazr_smtptest.control_character", "gb180": "lazr_smtptest.euro"}
codecs.register_error(_ERRORS["cp125"], _control_character)
codecs.register_error(_ERRORS["gb180"], _euro)
