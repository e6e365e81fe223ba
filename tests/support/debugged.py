"""A program to be debugged: `debugged.py START_METHOD`.  Breakpoints are put at the marks."""

import smtplib
import sys

import debugpy

from lazr_smtptest import Controller, MessageQueue, QueueServer


class Tagging(QueueServer):
    def handle_message(self, message):
        message["X-Tag"] = "1"  # stop in the handler
        super().handle_message(message)

    async def handle_RCPT(self, server, session, envelope, address, options):
        envelope.rcpt_tos.append(address)  # stop in the hook
        return "250 OK"


def main():
    print(debugpy.listen(("127.0.0.1", 0))[1], flush=True)
    debugpy.wait_for_client()
    inbox = MessageQueue()
    server = Tagging("localhost", 0, inbox)
    with Controller(server, start_method=sys.argv[1], start_timeout=30) as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=30) as client:
            client.sendmail("kim@example.com", "lee@example.com", "Subject: one\n\n")
        inbox.get(timeout=30)


if __name__ == "__main__":
    main()
