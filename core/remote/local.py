"""This machine, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from ehdnas.core.errors import DataError, DeviceError
from ehdnas.core.files import atomic_path
from ehdnas.core.remote.base import check_name, check_source
from ehdnas.core.remote.process import ProcessTransport


class LocalTransport(ProcessTransport):
    """Runs on this machine; what the tests and a compiler installed here use."""

    def __init__(self) -> None:
        super().__init__("this machine")

    def put(self, source: Path, name: str) -> str:
        """Copy `source` into our folder; see `Transport.put`."""
        check_name(name)
        check_source(source)
        target = Path(self._open()) / name
        temporary = target.with_name(f".put-{os.urandom(8).hex()}")
        try:
            content = source.open("rb")
        except OSError as error:
            raise DataError(f"cannot read {source}: {error.strerror}; check its permissions") from error
        try:
            with content, temporary.open("xb") as copy:
                shutil.copyfileobj(content, copy)
                os.fchmod(copy.fileno(), os.fstat(content.fileno()).st_mode & 0o700 | 0o600)
            temporary.replace(target)
        except OSError as error:
            raise DeviceError(f"cannot write {target}: {error.strerror}; free some space there") from error
        finally:
            temporary.unlink(missing_ok=True)
        return str(target)

    def get(self, name: str, target: Path) -> None:
        """Copy a file of our folder to `target`; see `Transport.get`."""
        check_name(name)
        path = Path(self._open()) / name
        try:
            content = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError as error:
            raise DeviceError(
                f"cannot read {path}: {error.strerror}; see what the command printed"
            ) from error
        with content:
            if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                raise DeviceError(f"cannot read {path}: not a regular file; see what the command printed")
            with atomic_path(target) as temporary, temporary.open("wb") as copy:
                shutil.copyfileobj(content, copy)

    def _command(self, script: str) -> list[str]:
        # Our scripts need their tools even where the caller's PATH is a folder of a few programs.
        return ["/bin/sh", "-c", f"PATH=${{PATH:+$PATH:}}/usr/bin:/bin; export PATH; {script}"]
