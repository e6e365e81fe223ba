"""A list among the globals of a module that the server's own module imports."""

received: list = []


def keep(message):
    received.append(message)
