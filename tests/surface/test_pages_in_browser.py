"""Pages in a real browser: nothing is loaded or run, they fit, and anybody can use them.

A listener on loopback sees what the browser asks for.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from browser import LIMIT, Browser, Listener, listening, running_browser
from helpers import until
from messages import ENVELOPE

from lazr_smtptest._pages.arrivals import ArrivalPages
from lazr_smtptest._pages.page import Entry, MailOfServer, index, page_of_test
from lazr_smtptest.message import Message, parse
from lazr_smtptest.sessions import Line, Session

pytestmark = [pytest.mark.timeout(180)]

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

#: Ways to ask for something without being asked to, each for a path of its own; URL stands
#: for the listener.  Those that need a script or a form are last.
LOADS = """
<img src=URL/img><img srcset="URL/srcset 1x"><picture><source srcset=URL/source><img></picture>
<link rel=stylesheet href=URL/stylesheet><link rel=preload as=image href=URL/preload>
<LINK/rel=prefetch href=URL/prefetch><link rel=modulepreload href=URL/modulepreload>
<style>@import url(URL/import); b { background: url(URL/background) }
@font-face { font-family: f; src: url(URL/font) } b { font-family: f }
i { content: url(URL/content) } u { cursor: url(URL/cursor), auto }</style><b>b</b><i>i</i><u>u</u>
<p style="background: image-set(url(URL/image-set) 1x)">p</p>
<table background=URL/table><tr><td background=URL/td>t</table><input type=image src=URL/input>
<video src=URL/video poster=URL/poster autoplay></video><audio src=URL/audio autoplay></audio>
<iframe src=URL/iframe></iframe><iframe srcdoc="<img src=URL/srcdoc>"></iframe>
<object data=URL/object></object><embed src=URL/embed>
<svg><image href=URL/svg width=9 height=9 /><style>@import url(URL/svg-import);</style></svg>
<base href=URL/base/><img src=relative>
"""
SCRIPTS = """
<script>new Image().src = 'URL/script'; document.title = 'run'</script>
<script src=URL/script-src></script><img src=data: onerror="new Image().src = 'URL/onerror'">
<svg onload="new Image().src = 'URL/onload'"></svg>
<input autofocus onfocus="new Image().src = 'URL/onfocus'">
<details open ontoggle="new Image().src = 'URL/ontoggle'"></details>
<iframe srcdoc="<script>parent.document.title = 'run'; new Image().src = 'URL/inner'</script>"></iframe>
<iframe src="javascript:new Image().src = 'URL/javascript'"></iframe>
"""  # noqa: E501
PATHS = {
    *("/img", "/srcset", "/source", "/stylesheet", "/preload", "/prefetch", "/modulepreload"),
    *("/import", "/background", "/font", "/image-set", "/table", "/td", "/input", "/video"),
    *("/poster", "/audio", "/iframe", "/srcdoc", "/object", "/embed", "/svg", "/svg-import"),
    *("/script", "/script-src", "/onerror", "/onload", "/ontoggle", "/inner", "/base/relative"),
}
LEAVING = {
    "refresh": '<meta http-equiv=refresh content="0; url=URL/refresh">',
    "submit": "<form action=URL/submit></form><script>document.forms[0].submit()</script>",
    "location": "<script>location = 'URL/location'</script>",
    "top": "<script>top.location = 'URL/top'</script>",
}
CLICKS = {
    "self": "<a href=URL/self style='STYLE'>x</a>",
    "top": "<a href=URL/top target=_top style='STYLE'>x</a>",
    "blank": "<a href=URL/blank target=_blank style='STYLE'>x</a>",
    "ping": "<a href=#x ping=URL/ping style='STYLE'>x</a>",
    "download": "<a href=URL/download download style='STYLE'>x</a>",
    "form": "<form action=URL/form><button style='STYLE'>x</button></form>",
    "post": "<form action=URL/post method=post><button style='STYLE'>x</button></form>",
    "script": "<a href=\"javascript:void fetch('URL/script')\" style='STYLE'>x</a>",
    "handler": "<b onclick=\"fetch('URL/handler')\" style='STYLE'>x</b>",
}
COVER = "position: fixed; inset: 0; display: block; width: 100%; height: 100%"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


def html_message(html: str, **more: object) -> Message:
    head = b"Subject: Hello\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    return parse(ENVELOPE._replace(**more), head + html.encode())


def page_with(*messages: Message, sessions: tuple[Session, ...] = ()) -> str:
    server = MailOfServer(
        "localhost port 25", (), messages[:100], len(messages), [], 0, list(sessions)
    )
    return page_of_test("test_it.py::test_it", [("Failed in", "call")], "E  no", [server])


def opened(browser: Browser, folder: Path, page: str, moment: str = "load") -> Path:
    path = folder / "page.html"
    path.write_text(page, "utf-8")
    browser.show(1280)
    browser.open(path.as_uri(), moment)
    return path


def asked_for(browser: Browser, listener: Listener) -> list[list[str]]:
    """Return the connections until now.  What the browser had in mind before is done then."""
    with listening() as other:
        browser.open(f"{other.url}/end")
        assert "/end" in other.paths
    return listener.connections


class TestNothingIsLoaded:
    """Each test of something that does not happen has another, in which it does."""

    def test_the_listener_hears_what_mail_asks_for_elsewhere(self, browser, listener, tmp_path):
        opened(browser, tmp_path, (LOADS + SCRIPTS).replace("URL", listener.url), "networkIdle")
        assert asked_for(browser, listener)
        assert listener.paths >= PATHS

    def test_so_it_does_with_connections(self, browser, listener, tmp_path):
        opened(browser, tmp_path, f"<link rel=preconnect href={listener.url}>", "networkIdle")
        assert asked_for(browser, listener)
        assert not listener.paths

    def test_mail_loads_and_runs_nothing(self, browser, listener, tmp_path):
        html = f"<p id=shown>shown</p>{LOADS}{SCRIPTS}<link rel=preconnect href=URL>"
        html += "<p id=end>end</p>"
        page = page_with(html_message(html.replace("URL", listener.url)))
        opened(browser, tmp_path, page, "networkIdle")
        frame = browser.frame()
        assert browser.run("document.getElementById('end').innerText", frame) == "end"
        assert browser.run("document.title", frame) == ""
        assert browser.run("document.title").startswith("test_it.py")
        assert not asked_for(browser, listener)

    @pytest.mark.parametrize("way", LEAVING)
    def test_mail_leaves_for_elsewhere_if_it_can(self, browser, listener, tmp_path, way):
        path = tmp_path / "page.html"
        path.write_text(LEAVING[way].replace("URL", listener.url))
        browser.call("Page.navigate", url=path.as_uri())
        until(lambda: f"/{way}" in listener.paths, LIMIT)

    @pytest.mark.parametrize("way", LEAVING)
    def test_mail_stays_where_it_is(self, browser, listener, tmp_path, way):
        html = LEAVING[way].replace("URL", listener.url) + "<p>here"
        opened(browser, tmp_path, page_with(html_message(html)), "networkIdle")
        frame = browser.frame()
        assert browser.run("document.body.innerText", frame) == "here"
        assert browser.run("location.protocol") == "file:"
        assert not asked_for(browser, listener)

    @pytest.mark.parametrize("way", CLICKS)
    def test_a_click_asks_for_something_elsewhere(self, browser, listener, tmp_path, way):
        html = CLICKS[way].replace("URL", listener.url).replace("STYLE", COVER)
        opened(browser, tmp_path, html, "networkIdle")
        browser.click(200, 200)
        until(lambda: f"/{way}" in listener.paths, LIMIT)
        for page in browser.other_pages():
            browser.call("Target.closeTarget", targetId=page)

    @pytest.mark.parametrize("way", CLICKS)
    def test_a_click_in_mail_asks_for_nothing(self, browser, listener, tmp_path, way):
        html = CLICKS[way].replace("URL", listener.url).replace("STYLE", COVER)
        opened(browser, tmp_path, page_with(html_message(html)), "networkIdle")
        browser.frame()
        box = "document.querySelector('iframe').getBoundingClientRect()"
        x, y = browser.run(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
        browser.click(x, y)
        assert browser.run("document.activeElement.tagName") == "IFRAME"
        assert browser.run("location.protocol") == "file:"
        assert browser.other_pages() == []
        asked_for(browser, listener)
        # Chromium connects to where a link leads as soon as a mouse button is down.
        assert not any(map(any, listener.connections))


NARROW, WIDE = 390, 1280
LONG = "unbreakable" * 300
ODD = ("</iframe></details>", "../..", "a\0b", "\u202eltr", LONG)
SESSION = Session(
    *(("127.0.0.1", 50_000), datetime(2024, 2, 29, tzinfo=timezone.utc), LONG, "TLSv1.3", "AES"),
    *("kim", 1, (7,), (Line(0.1, "S", "220 hello"), Line(12.5, "C", f"EHLO {LONG}")), "QUIT"),
)


def rich_message() -> Message:
    """Make a message with all that a page can show."""
    data = base64.b64encode(PIXEL)
    raw = (
        b"From: Kim <kim@example.com>\r\nTo: lee@example.com\r\nSubject: Your receipt\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n"
        b"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n"
        b"--a\r\nContent-Type: text/plain\r\n\r\nPaid: http://shop.example/1\r\n"
        b"--a\r\nContent-Type: multipart/related; boundary=r\r\n\r\n--r\r\n"
        b"Content-Type: text/html\r\n\r\n<h1>Paid</h1><img src=cid:tree><a href=#x>order</a>\r\n"
        b"--r\r\nContent-Type: image/gif\r\nContent-ID: <tree>\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + data + b"\r\n--r--\r\n--a--\r\n"
        b"--m\r\nContent-Type: image/gif\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=tree.gif\r\n\r\n" + data + b"\r\n"
        b"--m\r\nContent-Disposition: attachment; filename=large.bin\r\n\r\n"
        + b"x" * 900 * 3_500
        + b"\r\n--m--\r\n"
    )
    return parse(ENVELOPE, raw)


def pages() -> dict[str, str]:
    odd = [
        parse(ENVELOPE._replace(helo=text, mail_from=text, rcpt_tos=(text,) * 3),
              f"Subject: {text}\r\nFrom: {text}\r\n\r\n{text}\r\n".encode())
        for text in ODD
    ]  # fmt: skip
    entries = [Entry("gw0", "page.html", text, LONG, LONG) for text in ODD]
    return {
        "rich": page_with(rich_message(), sessions=(SESSION,)),
        "odd": page_with(*odd, html_message(f"<p>{LONG}"), sessions=(SESSION,)),
        "index": index("Mail", ["2 failures"], entries),
    }


PAGES = pages()
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true })"

#: Find each text whose colour has too little contrast with what is behind it (WCAG 2.2, 1.4.3).
CONTRAST = """(() => {
  const parts = color => color.match(/[0-9.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = parts(color).map(one => one / 255)
      .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (walker.nextNode()) {
    if (!walker.currentNode.data.trim()) continue;
    const element = walker.currentNode.parentElement;
    const [one, two] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    count += 1;
    if (ratio < 4.5) found.push([element.outerHTML.slice(0, 80), ratio]);
  }
  return [count, found];
})()"""


@pytest.mark.parametrize("name", PAGES)
class TestLooks:
    @pytest.mark.parametrize("width", [NARROW, WIDE])
    def test_it_fits(self, browser, tmp_path, name, width):
        path = opened(browser, tmp_path, PAGES[name])
        browser.show(width)
        browser.open(path.as_uri(), "load")
        browser.run(OPEN_ALL)
        assert browser.run("innerWidth") == width
        assert browser.run("document.documentElement.scrollWidth") <= width
        wider = (
            "[...document.querySelectorAll('main *')]"
            f".filter(one => one.getBoundingClientRect().right > {width})"
            ".map(one => one.outerHTML.slice(0, 80))"
        )
        assert browser.run(wider) == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_colours(self, browser, tmp_path, name, scheme):
        opened(browser, tmp_path, PAGES[name])
        browser.show(WIDE, scheme)
        browser.run(OPEN_ALL)
        background = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 23, 26)") == (scheme == "dark")
        count, too_little = browser.run(CONTRAST)
        assert count > 10
        assert too_little == []


class TestForAnybody:
    def tree(self, browser: Browser) -> list[tuple[str, str, dict[str, object]]]:
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (
                node["role"]["value"],
                node.get("name", {}).get("value", ""),
                {one["name"]: one["value"].get("value") for one in node.get("properties", ())},
            )
            for node in nodes
            if not node.get("ignored")
        ]

    @pytest.mark.parametrize("name", PAGES)
    def test_screen_readers(self, browser, tmp_path, name):
        opened(browser, tmp_path, PAGES[name])
        browser.run(OPEN_ALL)
        tree = self.tree(browser)
        roles = [role for role, _, _ in tree]
        assert roles.count("main") == roles.count("banner") == 1
        levels = [facts["level"] for role, _, facts in tree if role == "heading"]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
        needs_name = {"link", "navigation", "Iframe", "article", "region", "DisclosureTriangle"}
        assert not [role for role, label, _ in tree if role in needs_name and not label.strip()]
        if name == "rich":
            assert {"navigation", "Iframe", "article", "DisclosureTriangle", "table"} <= set(roles)
            assert "columnheader" in roles
            images = [label for role, label, _ in tree if role in ("image", "img")]
            assert images == ["attachment-1", "tree.gif"]

    def test_the_keyboard(self, browser, tmp_path):
        opened(browser, tmp_path, PAGES["rich"])
        focused = "document.activeElement"
        browser.press("Tab", 9)
        assert browser.run(f"{focused}.innerText") == "Skip to the content"
        assert browser.run(f"getComputedStyle({focused}).outlineWidth") == "3px"
        assert browser.run(f"{focused}.getBoundingClientRect().left") >= 0
        browser.press("Enter", 13)
        assert browser.run("location.hash") == "#main"
        reached = []
        while "Source" not in reached:
            browser.press("Tab", 9)
            # Into a frame of another process it takes a moment.
            until(lambda: browser.run(f"{focused}.tagName") != "BODY", LIMIT)
            reached.append(browser.run(f"{focused}.title || {focused}.innerText"))
            assert len(reached) < 50
        assert reached[0] == "Failure"  # behind what was skipped
        for name in ("HTML of: Your receipt", "HTML", "Text", "Save large.bin", "Links (2)"):
            assert name in reached
        assert not browser.run(f"{focused}.parentElement.open")
        browser.press("Enter", 13)
        assert browser.run(f"{focused}.parentElement.open")


class TestMail:
    def test_pictures_are_shown(self, browser, tmp_path):
        opened(browser, tmp_path, PAGES["rich"])
        frame = browser.frame()
        assert browser.run("document.querySelector('h1').innerText", frame) == "Paid"
        assert browser.run("document.querySelector('img').naturalWidth", frame) == 1
        assert browser.run("[...document.images].map(one => one.naturalWidth)") == [1, 1]
        assert browser.run("document.scripts.length") == 0

    def test_attachments_are_saved(self, browser, tmp_path):
        opened(browser, tmp_path, PAGES["rich"])
        browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(tmp_path),
            eventsEnabled=True,
        )
        names = ["tree.gif", "large.bin", "Your receipt.eml"]
        for name in names:
            browser.run(OPEN_ALL)
            browser.run(f"document.querySelector('[download=\"{name}\"]').click()")
            browser.wait_for(
                lambda event: (
                    event.get("method") == "Browser.downloadProgress"
                    and event["params"]["state"] == "completed"
                )
            )
        assert [(tmp_path / name).read_bytes() for name in names] == [
            PIXEL,
            b"x" * 900 * 3_500,
            rich_message().raw,
        ]

    @pytest.mark.parametrize(
        "html",
        [
            "<p>shown</iframe></details></article></main></body></html><h1>more</h1>",
            "<p>shown" + "<div>" * 10_000,
            "<p>shown<!-- not closed",
            "<p>shown<script>'not closed",
            "<p>shown<iframe srcdoc='<p>not closed",
            "<p>shown\0\x1b\x85\ufffe\U0010ffff<p title=\"&quot;'>\u202e",
            "<p>shown" + "hello " * 500_000,
        ],
        ids=range(7),
    )
    def test_broken_mail_breaks_no_page(self, browser, tmp_path, html):
        opened(browser, tmp_path, page_with(html_message(html), sessions=(SESSION,)))
        frame = browser.frame()
        assert browser.run("document.body.textContent", frame).startswith("shown")
        assert browser.run("document.querySelectorAll('h1, iframe').length") == 2
        last = "[...document.querySelectorAll('main > section')].pop().lastElementChild"
        assert browser.run(f"{last}.querySelector('h4').innerText").startswith("127.0.0.1 port")

    def test_many_messages(self, browser, tmp_path):
        messages = [html_message(f"<p>number {n}", sequence=n) for n in range(10_000)]
        opened(browser, tmp_path, page_with(*messages))
        assert browser.run("document.querySelectorAll('article').length") == 100
        assert "9,900 more messages are left out" in browser.run("document.body.innerText")


def test_from_the_index_to_a_message_and_back(browser, tmp_path):
    arrivals = ArrivalPages(str(tmp_path))
    for number in (1, 2):
        arrivals.add_message(number, html_message(f"<p>{number}", sequence=number))
    arrivals.add_session(1, SESSION._replace(messages=(1, 2)))
    arrivals.close()

    def follow(text: str) -> None:
        browser.events.clear()
        links = "[...document.querySelectorAll('a')]"
        browser.run(f"{links}.find(one => one.innerText == {text!r}).click()")
        browser.wait_for(lambda event: event.get("method") == "Page.loadEventFired")

    browser.open((tmp_path / "index.html").as_uri(), "load")
    follow("Sessions")
    follow("2")
    assert "Message 2" in browser.run("document.body.innerText")
    follow("All pages")
    follow("Hello")
    assert "Message 2" in browser.run("document.body.innerText")  # the newest is on top
