"""Finds the image files below a folder that somebody else filled, and counts what it passes over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ehdnas.core.errors import DataError
from ehdnas.core.images.decode import SUFFIXES

ClassFiles = dict[str, list[Path]]


class Scan:
    """A walk below `root` that never leaves it: links to folders, or to files elsewhere, are passed over."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give the folder that holds one folder a class")
        self.root = root.resolve()
        self._skipped: Counter[str] = Counter()

    def classes(self, folder: Path, least: int) -> ClassFiles:
        """Return the image files of each class folder in `folder`, classes and files in order of name.

        Raises:
            DataError: there are fewer than two classes, or fewer than `least` images in one.
        """
        found = {
            entry.name: list(self._images(Path(entry.path)))
            for entry in self._entries(folder)
            if entry.is_dir(follow_symlinks=False)
        }
        if len(found) < 2:
            raise DataError(
                f"{folder} has {len(found)} class folders; put the images of each class in its own, 2 or more"
            )
        for name, files in found.items():
            if len(files) < least:
                raise DataError(
                    f"{folder / name} has {len(files)} images; put {least} or more there, or remove it"
                )
        return found

    def notes(self) -> list[str]:
        """Return one line on what was passed over, or nothing."""
        if not self._skipped:
            return []
        return ["skipped: " + ", ".join(f"{count:,} {what}" for what, count in sorted(self._skipped.items()))]

    def _images(self, folder: Path) -> Iterator[Path]:
        for entry in self._entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self._images(Path(entry.path))
            elif Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
                yield Path(entry.path)
            else:
                self._skipped["not images"] += 1

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Yield what lies in a folder, in order of name, counting hidden entries and links that lead away."""
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot read {folder}: {error.strerror}; check its permissions") from error
        for entry in ordered:
            if entry.name.startswith("."):
                self._skipped["hidden"] += 1
            elif entry.is_symlink() and (entry.is_dir() or not self._inside(Path(entry.path))):
                self._skipped["links to folders or to files elsewhere"] += 1
            else:
                yield entry

    def _inside(self, link: Path) -> bool:
        return link.resolve().is_relative_to(self.root)
