"""This machine, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from ehdnas.core.errors import DataError, DeviceError
from ehdnas.core.files import atomic_path
from ehdnas.core.remote.base import (
    KILL_AFTER_S,
    Completed,
    Transport,
    check_arguments,
    check_name,
    check_source,
    too_slow,
)
from ehdnas.core.remote.capture import Capture

# Once a program and its group are gone its pipes close at once, unless something left the group.
_DRAIN_S = 2.0


class LocalTransport(Transport):
    """Runs on this machine; what the tests and a compiler installed here use."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def put(self, source: Path, name: str) -> str:
        """Copy `source` into our folder; see `Transport.put`."""
        check_name(name)
        check_source(source)
        target = self._open() / name
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

    def run(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        """Run a program in a session of its own; see `Transport.run`."""
        check_arguments(arguments)
        folder = self._open()
        try:
            process = subprocess.Popen(
                list(arguments),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            return _not_started(arguments[0], folder, error)
        out, err = (Capture(cast(BinaryIO, pipe).read) for pipe in (process.stdout, process.stderr))
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise too_slow(arguments, "this machine", timeout_s) from error
        finally:
            _end(process)
            stdout, stderr = out.bytes(_DRAIN_S), err.bytes(_DRAIN_S)
            _close_pipes(process, out, err)
        return Completed(code if code >= 0 else 128 - code, stdout, stderr, out.truncated or err.truncated)

    def get(self, name: str, target: Path) -> None:
        """Copy a file of our folder to `target`; see `Transport.get`."""
        check_name(name)
        path = self._open() / name
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

    def close(self) -> None:
        """Remove our folder."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _open(self) -> Path:
        if self._folder is None:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="ehdnas.")).resolve()
            except OSError as error:
                raise DeviceError(
                    f"no temporary folder: {error.strerror}; point TMPDIR at a writable one"
                ) from error
        return self._folder


def _not_started(program: str, folder: Path, error: OSError) -> Completed:
    """What a shell would say of a program it cannot start."""
    if not folder.is_dir():
        raise DeviceError(f"our folder {folder} is gone; start over") from error
    code = 127 if isinstance(error, FileNotFoundError) else 126
    return Completed(code, b"", f"{program}: {error.strerror}\n".encode())


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, and then whatever is left of its group."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # start_new_session made the process the leader of its group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _close_pipes(process: subprocess.Popen[bytes], *captures: Capture) -> None:
    for pipe, capture in zip((process.stdout, process.stderr), captures, strict=True):
        if pipe is not None and not capture.is_alive():  # closing under a reader is undefined
            pipe.close()
