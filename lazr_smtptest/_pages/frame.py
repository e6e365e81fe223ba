"""HTML mail in a frame that runs nothing and loads nothing.

Three things prevent it, each enough for nearly all mail: the frame has an empty
``sandbox`` (HTML Standard, 4.8.5: no scripts, forms, refreshes, windows, downloads); the
page around it has a Content-Security-Policy, which the frame inherits (HTML Standard, 7.1.7)
and which rules where the frame may go, too; and the frame's document has its own.  None of them
is about connecting early: ``<link>`` can ask for that, and browsers do it for a frame before
they learn that it may not go there.  So neither element is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lazr_smtptest._pages.escape import TOO_LARGE, Markup, Room, data_url, document, left_out
from lazr_smtptest._reading.structure import comparable_id
from lazr_smtptest.message import Attachment

#: For the page, and for each frame in it (Content Security Policy Level 3).
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)

#: The head of each page, and of the document in a frame.
HEAD = Markup(
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    '<meta http-equiv="x-dns-prefetch-control" content="off">\n'
    '<meta name="referrer" content="no-referrer">\n'
)

#: Characters of HTML.
_HTML = 1_000_000

_PICTURES = frozenset(
    f"image/{name}" for name in "avif bmp gif jpeg png svg+xml vnd.microsoft.icon webp".split()
)

_CONNECTING = re.compile(r"<(?=(?:link|i?frame)[\s/>])", re.IGNORECASE | re.ASCII)

#: A picture by its Content-ID (RFC 2392), in an attribute or a style.  Blanks are bounded,
#: or many of them would take quadratic time.
_CID = re.compile(
    r"((?:=|\burl\()[ \t\r\n]{0,9}(?:[\"']|&quot;|&#39;)?[ \t\r\n]{0,9})"
    r"cid:([^\s\"'<>()&]{1,998})",
    re.IGNORECASE,
)


def frame(html: str, label: str, attachments: Iterable[Attachment], room: Room) -> Markup:
    """Return the frame that shows a document, and what of it is left out."""
    if not room.kept.take(min(len(html), _HTML)):
        return TOO_LARGE
    pictures = _Pictures(attachments, room)
    shown = _CID.sub(pictures.replace, _CONNECTING.sub("<no-", html[:_HTML]))
    notes = [left_out(len(html) - _HTML, "characters")] if len(html) > _HTML else []
    notes += [left_out(pictures.left_out, "uses of large pictures")] if pictures.left_out else []
    return Markup(
        f'<div class="frame"><iframe title="{label}" sandbox="" loading="lazy" tabindex="0" '
        f'srcdoc="{document(HEAD + shown)}"></iframe></div>\n' + "".join(notes)
    )


class _Pictures:
    """Puts pictures of a message where its HTML names them."""

    def __init__(self, attachments: Iterable[Attachment], room: Room) -> None:
        self._room = room
        self._found: dict[str, Attachment] = {}
        for one in attachments:
            if one.content_id and one.type in _PICTURES:
                self._found.setdefault(comparable_id(one.content_id), one)
        #: How many uses of pictures the page has no room for.
        self.left_out = 0

    def replace(self, found: re.Match[str]) -> str:
        picture = self._found.get(comparable_id(found[2]))
        if picture is None:
            return found[0]
        if not self._room.kept.take(len(picture.data)):
            self.left_out += 1
            return found[0]
        return found[1] + data_url(picture.type, picture.data)
