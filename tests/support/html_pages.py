"""Pages of this package as tests read them: elements, text, links."""

from __future__ import annotations

from html.parser import HTMLParser

from messages import ENVELOPE

from lazr_smtptest._pages.page import MailOfServer, page_of_test
from lazr_smtptest.message import parse

#: Elements that pages are made of, and their attributes.
ELEMENTS = {
    *("a", "article", "bdi", "body", "caption", "code", "dd", "details", "div", "dl", "dt"),
    *("h1", "h2", "h3", "h4", "head", "header", "html", "iframe", "img", "li", "main", "meta"),
    *("nav", "p", "pre", "section", "span", "strong", "style", "summary", "table", "tbody", "td"),
    *("th", "thead", "title", "tr", "ul"),
}
ATTRIBUTES = {
    *("alt", "aria-label", "aria-labelledby", "charset", "class", "content", "dir", "download"),
    *("href", "http-equiv", "id", "lang", "loading", "name", "open", "sandbox", "scope", "src"),
    *("srcdoc", "tabindex", "title"),
}
WITHOUT_END = {"img", "meta"}


class Page(HTMLParser):
    """Reads a page, and is strict: each element is one of ours, and is closed where it must be."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert tag in ELEMENTS, tag
        assert {name for name, _ in attrs} <= ATTRIBUTES, attrs
        assert len(dict(attrs)) == len(attrs), attrs
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in WITHOUT_END:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def frames(self) -> list[str]:
        """The documents in frames."""
        assert all(frame["sandbox"] == "" for frame in self.all("iframe"))
        return [frame["srcdoc"] for frame in self.all("iframe")]

    @property
    def links(self) -> list[str]:
        return [link["href"] for link in self.all("a") if not link["href"].startswith("data:")]

    @property
    def saved(self) -> dict[str, str]:
        """What can be saved: data: URLs by name."""
        return {one["download"]: one["href"] for one in self.all("a") if "download" in one}


def page_with(*raws: bytes, **options) -> str:
    messages = [
        parse(ENVELOPE._replace(sequence=number), raw) for number, raw in enumerate(raws, 1)
    ]
    server = MailOfServer("localhost port 25", (), [], 0, messages[:100], len(messages), ())
    return page_of_test("test_it", [], "E   assert 0", [server], **options)


def show(*raws: bytes, **options) -> Page:
    return Page(page_with(*raws, **options))
