"""A debugger's user interface, as VS Code is one, as far as tests need it.

It speaks the Debug Adapter Protocol with debugpy.
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from helpers import until


class Debugger:
    """Attaches to a program that listens for it, and to each process that this starts.

    :param lines: Where to stop.
    """

    def __init__(self, port: int, path: str, lines: list[int]) -> None:
        self.hits: list[str] = []
        self._port = port
        self._path = path
        self._lines = lines
        self._sessions: list[_Session] = []
        self._attach({"connect": {"host": "127.0.0.1", "port": port}, "justMyCode": False})

    def _attach(self, arguments: dict[str, Any]) -> None:
        self._sessions.append(_Session(self, arguments))

    def connect(self) -> socket.socket:
        return until(lambda: _connect(self._port))

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def on_event(self, session: _Session, event: str, body: dict[str, Any]) -> None:
        """Do what a user interface does; each stop is noted, and not for long."""
        if event == "initialized":
            breakpoints = [{"line": line} for line in self._lines]
            session.send("setBreakpoints", source={"path": self._path}, breakpoints=breakpoints)
            session.send("configurationDone")
        elif event == "debugpyAttach":  # a child, which waits for somebody to attach to it
            self._attach(body)
        elif event == "stopped":
            self.hits.append(body["reason"])
            session.send("continue", threadId=body["threadId"])


def _connect(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=5)
    except ConnectionRefusedError:
        return None


class _Session:
    """The dialogue about one process."""

    def __init__(self, debugger: Debugger, arguments: dict[str, Any]) -> None:
        self._debugger = debugger
        self._arguments = arguments
        self._sent = 0
        self._socket = debugger.connect()
        self._socket.settimeout(None)
        self._stream = self._socket.makefile("rb")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self.send("initialize", adapterID="tests", linesStartAt1=True, pathFormat="path")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._stream.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> None:
        self._sent += 1
        request = {"seq": self._sent, "type": "request", "command": command}
        octets = json.dumps({**request, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(octets), octets))

    def _read(self) -> None:
        length = 0
        while line := self._stream.readline():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
            elif not line.strip():
                self._take(json.loads(self._stream.read(length)))

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self._debugger.on_event(self, message["event"], message.get("body", {}))
        elif message["type"] == "response" and message["command"] == "initialize":
            self.send("attach", **self._arguments)
