"""A message on its way to a test: pickled until somebody looks.  Test process."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Parcel", "Unreadable"]


class Parcel:
    """One item that the server process sent.

    Most messages are thrown away by a reset, or are looked at once.  So the
    octets are kept as they came, and what is made of them is made once: who
    looks again gets the same object.

    :param octets: The pickle of a `Received`, or of what a handler passed on.
    """

    __slots__ = ("_item", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets: bytes | None = octets

    def open(self) -> Any:
        """Make what a test gets of what the server process sent.

        Two threads that do so at once may get two objects, equal in all else.

        :return: A message, as a rule.
        :raises Exception: Whatever unpickling raises.
        """
        octets = self._octets
        if octets is not None:
            # Not at the head: it takes the whole email package, and importing
            # this module is not to cost what reading a message does.
            import pickle

            from lazr_smtptest.message import Received, parse

            value = pickle.loads(octets)
            self._item = parse(*value) if type(value) is Received else value
            self._octets = None
        return self._item

    def peek(self) -> Any:
        """Look at the item, whatever state it is in.

        :return: The item, or `Unreadable`.
        """
        try:
            return self.open()
        except Exception as error:  # whatever unpickling raises
            return Unreadable(f"{type(error).__name__}: {error}")


class Unreadable(NamedTuple):
    """Stands for an item that cannot be unpickled.

    :ivar reason: Why not.
    """

    reason: str
