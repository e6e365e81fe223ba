"""A server that has a queue of multiprocessing among the globals of its code."""

import multiprocessing

from lazr_smtptest import Server

results = multiprocessing.get_context("fork").Queue()


class WithGlobal(Server):
    def handle_message(self, message):
        report(message["subject"])


def report(subject):
    results.put(subject)
