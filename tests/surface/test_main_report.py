"""The command line's --report: a page for each message, and an index that is true meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import finish, run_command, running, send_message
from helpers import send_to, until
from html_pages import Page

from lazr_smtptest import QueueController
from lazr_smtptest._pages import arrivals
from lazr_smtptest._pages.arrivals import ArrivalPages


def index(folder: Path) -> Page:
    return Page((folder / "index.html").read_text("utf-8"))


def test_a_page_for_each_message_and_one_for_sessions(tmp_path):
    with running("--report", str(tmp_path), "--count", "2") as (process, port):
        assert "0 messages so far" in index(tmp_path).text
        send_message(port, "one <1>", "two")
        status, _, err = finish(process)
    assert (status, err) == (0, "")
    found = index(tmp_path)
    assert found.links[1:] == ["mail-sessions.html", "mail-00002.html", "mail-00001.html"]
    for text in (
        *("2 messages so far.", "one <1>", "from <kim@example.com> to <lee@example.com>"),
        *("Problems: from-missing, date-missing, message-id-missing", "in 1 session"),
    ):
        assert text in found.text, text
    page = Page((tmp_path / "mail-00001.html").read_text("utf-8"))
    assert "one <1>" in page.text
    assert "Hello." in page.text
    sessions = Page((tmp_path / "mail-sessions.html").read_text("utf-8"))
    assert "mail from:<kim@example.com>" in sessions.text.lower()
    assert sessions.links[-2:] == ["mail-00001.html", "mail-00002.html"]


def test_the_index_has_each_message_as_soon_as_it_is_printed(tmp_path):
    with running("--report", str(tmp_path), "--quiet") as (process, port):
        for number in range(1, 4):
            send_message(port, f"number {number}")
            until(lambda: f"{number} message" in index(tmp_path).text)  # noqa: B023 at once
            assert index(tmp_path).links[1] == f"mail-0000{number}.html"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert index(tmp_path).links[1:] == [f"mail-0000{number}.html" for number in (3, 2, 1)]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_it_is_said_where_the_pages_are(tmp_path, stream):
    options = [] if stream == "stdout" else ["--json"]  # nothing but JSON there
    _, out, err = run_command(
        *("--port", "0", "--report", str(tmp_path), "--timeout", "0.1"), *options
    )
    said, other = (out, err) if stream == "stdout" else (err, out)
    assert said.splitlines()[1] == f"pages are in {tmp_path}/index.html"
    assert "pages" not in other


def test_the_second_run_replaces_what_the_first_wrote_and_nothing_else(tmp_path):
    (tmp_path / "mail-7.html").write_text("mine")
    for number in (3, 1):
        with running("--report", str(tmp_path), "--count", str(number)) as (process, port):
            send_message(port, *map(str, range(number)))
            assert finish(process)[0] == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.html", "mail-00001.html", "mail-sessions.html", "mail-7.html"}
    assert (tmp_path / "mail-7.html").read_text() == "mine"


@pytest.mark.parametrize(("name", "said"), [("file", "[Errno "), ("foreign", "name another")])
def test_a_folder_that_cannot_be(tmp_path, name, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "index.html").write_text("mine")
    status, out, err = run_command("--port", "0", "--report", str(tmp_path / name))
    assert (status, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    assert (tmp_path / "foreign" / "index.html").read_text() == "mine"


def test_the_last_pages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "ENTRIES", 30)
    pages = ArrivalPages(str(tmp_path))
    with QueueController() as controller:
        send_to(controller, *range(20))
        messages = [controller.queue.get() for _ in range(20)]
    for number in range(1, 51):
        pages.add_message(number, messages[number % 20])
    names = {path.name for path in tmp_path.glob("mail-*")}
    assert len(names) == 30
    assert "mail-00020.html" not in names
    assert {"mail-00021.html", "mail-00050.html"} <= names
    assert "The last 30 are kept here." in index(tmp_path).text


def test_nothing_of_pages_is_imported_unless_asked_for():
    script = (
        "import sys, lazr_smtptest.__main__, lazr_smtptest._fixtures;"
        "assert not [name for name in sys.modules if '_pages' in name]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
