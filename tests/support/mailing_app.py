"""An application that many tests use at once: it takes orders by HTTP, and sends mail.

A program of its own: ``python mailing_app.py MAIL_PORT``.  It says which port it listens on,
in its first line, and ends when its standard input does.  ``POST /`` takes a dict in JSON: a
``token``, and ``mails``, each with ``to``, ``words`` of the subject, and ``delay`` in seconds.
It answers at once, and its threads send late and out of order, each over a connection that it
keeps.  ``GET /TOKEN`` says what became of the mails of a token.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import smtplib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

THREADS = 16

#: Times that a mail is tried again, as mail programs do after a reply of 4xx.
_RETRIES = 20

#: Seconds between these, and the longest that a mail waits for no reason.
_PAUSE = 0.02

#: After so many mails a thread connects anew.
_MAILS = 50


class Application:
    """What it has to send, and what became of it."""

    def __init__(self, mail_port: int) -> None:
        self._mail_port = mail_port
        self._pool = ThreadPoolExecutor(THREADS)
        self._own = threading.local()
        self._lock = threading.Lock()
        self._became: dict[str, collections.Counter[str]] = {}

    def order(self, token: str, mails: list[dict[str, Any]]) -> None:
        with self._lock:
            self._became[token] = collections.Counter()
        random.shuffle(mails)
        for mail in mails:
            self._pool.submit(self._send, token, **mail)

    def what_became_of(self, token: str) -> dict[str, int]:
        with self._lock:
            return dict(self._became.get(token, {}))

    def _note(self, token: str, what: str) -> None:
        with self._lock:
            self._became[token][what] += 1

    def _send(self, token: str, to: list[str], words: str, delay: float) -> None:
        time.sleep(delay + random.random() * _PAUSE)
        text = (
            f"From: shop@example.com\r\nTo: {', '.join(to)}\r\nSubject: {token} {words}\r\n\r\n"
            f"{token}\r\n" + "Thank you for the order.\r\n" * random.randrange(40)
        )
        for _ in range(_RETRIES):
            try:
                self._connection().sendmail("shop@example.com", to, text)
                self._note(token, "sent")
                return
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError):
                self._note(token, "refused")
                time.sleep(_PAUSE)
            except (OSError, smtplib.SMTPException) as error:
                self._note(token, f"{type(error).__name__}: {error}")
                self._hang_up()
        self._note(token, "given up")

    def _connection(self) -> smtplib.SMTP:
        own = self._own
        own.mails = getattr(own, "mails", _MAILS) + 1
        if own.mails > _MAILS:
            self._hang_up()
            own.client = smtplib.SMTP("localhost", self._mail_port, "shop.example", timeout=30)
            own.mails = 1
        client: smtplib.SMTP = own.client
        return client

    def _hang_up(self) -> None:
        client = getattr(self._own, "client", None)
        self._own.mails = _MAILS
        if client is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()


def serve(mail_port: int) -> None:
    application = Application(mail_port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            application.order(**json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer({})

        def do_GET(self) -> None:
            self._answer(application.what_became_of(self.path.strip("/")))

        def _answer(self, content: dict[str, int]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Web(ThreadingHTTPServer):
        request_queue_size = 64
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # whoever asked is gone
                super().handle_error(request, client_address)

    web = Web(("127.0.0.1", 0), Handler)
    print(web.server_address[1], flush=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
