"""Debian's chromium without a window, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from programs import installed

#: Seconds that the browser may take for one thing.
LIMIT = 60

#: What it would do by itself, such as asking its maker for news, is switched off.
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--no-default-browser-check"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"),
)


class Browser:
    """One browser with one page."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        self._session = ""
        #: Sessions with the frames of the page.
        self._frames: list[str] = []
        #: Windows that are there from the start.
        self._first: list[str] = []
        self._target: str = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._first = self.other_pages()
        attached = self.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        # Frames that may not share the page's process are pages of their own here.
        self.call(
            "Target.setAutoAttach",
            session=self._session,
            autoAttach=True,
            waitForDebuggerOnStart=False,
            flatten=True,
        )

    def call(self, method: str, *, session: str = "", **params: Any) -> Any:
        """Have the browser do something; return what it answers."""
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": params}
        if not session and not method.startswith(("Target.", "Browser.")):
            session = self._session
        if session:
            request["sessionId"] = session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + LIMIT
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            assert ready, f"the browser has not answered within {LIMIT} seconds"
            octets = os.read(self._read, 1 << 20)
            assert octets, "the browser has ended"
            self._buffer += octets
        record, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(record)
        params = answer.get("params", {})
        if answer.get("method") == "Target.attachedToTarget" and self._session:
            if params["targetInfo"]["type"] == "iframe":
                self._frames.append(params["sessionId"])
        elif answer.get("method") == "Target.detachedFromTarget":
            self._frames = [one for one in self._frames if one != params["sessionId"]]
        return answer

    def wait_for(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for an event, be it there already or yet to come; forget those before it."""
        deadline = time.monotonic() + LIMIT
        while True:
            for at, event in enumerate(self.events):
                if is_it(event):
                    del self.events[: at + 1]
                    return event
            self.events = [self._receive(deadline)]

    def open(self, url: str, until: str = "networkIdle") -> None:
        """Open a page, and wait until nothing more is on its way, or until it is at ``"load"``."""
        self.events.clear()
        frame = self.call("Page.navigate", url=url)["frameId"]
        self.wait_for(
            lambda event: (
                event.get("method") == "Page.lifecycleEvent"
                and event["params"]["name"] == until
                and event["params"]["frameId"] == frame
            )
        )

    def other_pages(self) -> list[str]:
        """Return what else is open, in windows of its own."""
        known = [self._target, *self._first]
        targets = self.call("Target.getTargets")["targetInfos"]
        pages = [one["targetId"] for one in targets if one["type"] == "page"]
        return [page for page in pages if page not in known]

    def frame(self) -> str:
        """Scroll to the frame of the page, and wait until it is loaded; return its session."""
        self.run("document.querySelector('iframe').scrollIntoView({block: 'center'})")
        deadline = time.monotonic() + LIMIT
        while not self._frames:
            self.events.append(self._receive(deadline))
        (session,) = self._frames
        while self.run("document.readyState + location", session) != "completeabout:srcdoc":
            assert time.monotonic() < deadline, "the frame is not loaded"
        return session

    def run(self, script: str, session: str = "") -> Any:
        """Run a script in the page or a frame, whatever their own rules; return its value."""
        result = self.call(
            "Runtime.evaluate",
            session=session,
            expression=script,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def show(self, width: int, scheme: str = "light", height: int = 900) -> None:
        """Set the size of the window, and whether its owner likes it dark or light."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )


@contextlib.contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """Run chromium until the end of the test."""
    program = installed("chromium")
    with contextlib.ExitStack() as stack:

        def pipe() -> tuple[int, int]:
            ends = []
            for end in os.pipe():  # not 3 or 4, which the browser has others as
                ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
                os.close(end)
            return ends[0], ends[1]

        (its_read, write), (read, its_write) = pipe(), pipe()
        for end in (write, read):
            stack.callback(os.close, end)
        process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$0" "$@" 3<&{its_read} 4>&{its_write}'),
                *(program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(its_read, its_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(_end, process)
        for end in (its_read, its_write):
            os.close(end)
        yield Browser(read, write)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Its own children are of its session, and of no use without it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT)


class Listener:
    """Listens on loopback, and keeps what whoever connects says first."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.port: int = sock.getsockname()[1]
        #: For each connection, the first line that came, if one did.
        self.connections: list[list[str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> set[str]:
        """What was asked for."""
        return {
            line.split()[1].partition("?")[0] for said in self.connections for line in said if line
        }

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:  # it is closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        said: list[str] = []
        self.connections.append(said)
        with connection, contextlib.suppress(OSError):
            connection.settimeout(LIMIT)
            said.append(connection.recv(4096).decode("latin-1").partition("\r\n")[0])
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n"
                b"Content-Type: text/html\r\nConnection: close\r\n\r\nOK"
            )


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(sock)
        thread = threading.Thread(target=listener.serve, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(LIMIT)
