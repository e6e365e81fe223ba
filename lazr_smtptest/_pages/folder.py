"""The folder that pages are written to: what is ours there, and what is not."""

from __future__ import annotations

import os
import re

from lazr_smtptest._fakes import without_fakes
from lazr_smtptest._pages.page import BEGINNING, INDEX

#: Names of pages beside the index.
_OURS = re.compile(r"mail-.*\.html")

#: Characters of the part of a name that says what a page is about.
_NAME = 80


class Folder:
    """A folder with pages.

    :param path: Where it is.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def begin(self) -> None:
        """Make the folder, and remove the pages of the run before; nothing else is touched.

        :raises OSError: It cannot be made or changed, or it has an index that is not ours.
        """
        with without_fakes():
            os.makedirs(self.path, exist_ok=True)
            with os.scandir(self.path) as found:
                names = [one.name for one in found if one.is_file(follow_symlinks=False)]
            ours = [n for n in names if (n == INDEX or _OURS.fullmatch(n)) and self._is_ours(n)]
            if INDEX not in ours and os.path.lexists(os.path.join(self.path, INDEX)):
                raise OSError(
                    f"the folder for pages has an {INDEX} that lazr-smtptest has not written: "
                    "name another"
                )
            for name in ours:
                os.unlink(os.path.join(self.path, name))

    def _is_ours(self, name: str) -> bool:
        beginning = BEGINNING.encode()
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read(len(beginning)) == beginning

    def add(self, about: str, page: str) -> str:
        """Write one more page, and return the name of its file.

        :param about: What the name is made of; another page may have the same.
        :raises OSError: It cannot be written.
        """
        stem = "mail-" + re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", about)[-_NAME:].strip("-.")
        number = 1
        with without_fakes():
            while True:
                name = f"{stem}.html" if number == 1 else f"{stem}-{number}.html"
                try:
                    # "x" also follows no link that somebody has put there.
                    with open(os.path.join(self.path, name), "x", encoding="utf-8") as file:
                        file.write(page)
                except FileExistsError:
                    number += 1
                else:
                    return name

    def remove(self, name: str) -> None:
        """Remove a page that was added, if it is still there."""
        with without_fakes():
            if os.path.exists(os.path.join(self.path, name)):
                os.unlink(os.path.join(self.path, name))

    def write_index(self, page: str) -> None:
        """Write the index, in place of the one before; a reader sees one or the other.

        :raises OSError: It cannot be written.
        """
        new = os.path.join(self.path, f"mail-{INDEX}")
        with without_fakes():
            with open(new, "w", encoding="utf-8") as file:
                file.write(page)
            os.replace(new, os.path.join(self.path, INDEX))
