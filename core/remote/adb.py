"""An Android device over adb."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from ehdnas.core.errors import DataError, DeviceError, UsageError
from ehdnas.core.files import atomic_path, sha256
from ehdnas.core.remote.base import CommandTimeoutError, ConnectionLostError, check_name, check_source
from ehdnas.core.remote.process import ProcessTransport
from ehdnas.core.remote.shell import last_line

SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_ANSWER_S = 30.0
_COPY_S = 1800.0
# Checks, then renames: onto a link to a folder `mv` would move into the folder.
_PLACE = """
if s=$(sha256sum <"$1" 2>/dev/null) && test "${s%% *}" != "$3"; then echo "it arrived damaged" >&2; exit 1; fi
chmod "$4" "$1" || exit 1
if test -L "$2"; then rm -f "$2"; fi
if test -d "$2"; then echo "a folder has that name" >&2; exit 1; fi
mv -f "$1" "$2"
"""
_IS_FILE = 'test -f "$1" && test ! -L "$1"'
# What adb says of a device, and what to do; the first that fits.
_REMEDIES = {
    "unauthorized": "unlock its screen and allow USB debugging there, then try again",
    "no permissions": "install udev rules for it (apt-get install android-sdk-platform-tools-common)",
    "more than one": "give the serial number of one (adb devices lists them)",
    "offline": "unplug it and plug it in again, or run adb kill-server",
    "not found": "check the serial number (adb devices lists them), its cable and USB debugging",
    "no devices": "plug it in and turn on USB debugging there; adb devices must list it",
}


class AdbTransport(ProcessTransport):
    """Reaches the Android device of that serial number, or the only one when it is ''.

    adb must be on PATH here; Android 7 or later, whose shell keeps the output streams apart, there. `setsid`,
    `timeout` and `sha256sum` are used where they exist.

    Raises:
        UsageError: `serial` cannot be a serial number.
    """

    def __init__(self, serial: str = "") -> None:
        if serial and not SERIAL.fullmatch(serial):
            raise UsageError(f"{serial!r} is no serial number of a device; adb devices lists them")
        super().__init__(f"the Android device {serial}" if serial else "the Android device")
        self._serial = serial

    def put(self, source: Path, name: str) -> str:
        """Push `source` under a temporary name, compare, then rename; see `Transport.put`."""
        check_name(name)
        check_source(source)
        folder = self._open()
        path, temporary = f"{folder}/{name}", f"{folder}/.put-{secrets.token_hex(8)}"
        try:
            digest, mode = sha256(source), f"{source.stat().st_mode & 0o700 | 0o600:o}"
        except OSError as error:
            raise DataError(f"cannot read {source}: {error.strerror}; check its permissions") from error
        failed = f"cannot write {path} on {self._where}"
        try:
            self._copy("push", str(source.resolve()), temporary, failed, "free some space there")
            done = self.run(["sh", "-c", _PLACE, "sh", temporary, path, digest, mode], _COPY_S)
            if done.code != 0:
                said = last_line(done.stderr) or f"code {done.code}"
                raise DeviceError(f"{failed}: {said}; try again, and check the storage there")
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self.run(["rm", "-f", temporary], _ANSWER_S)
            raise
        return path

    def get(self, name: str, target: Path) -> None:
        """Pull a file of our folder; see `Transport.get`."""
        check_name(name)
        path = f"{self._open()}/{name}"
        failed = f"cannot read {path} on {self._where}"
        if self.run(["sh", "-c", _IS_FILE, "sh", path], _ANSWER_S).code != 0:
            raise DeviceError(f"{failed}: no such regular file; see what the command printed")
        with atomic_path(target) as temporary:
            self._copy("pull", path, str(temporary.resolve()), failed, "try again")

    def _command(self, script: str) -> list[str]:
        # adb hands its arguments on as one line, which is what `script` is.
        return [*self._adb(), "shell", script]

    def _check(self) -> None:
        done = _finished([*self._adb(), "get-state"], _ANSWER_S, self._where)
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode == 0 and done.stdout.strip() == b"device":
            return
        remedy = next((text for key, text in _REMEDIES.items() if key in said), "start Android on it")
        raise DeviceError(f"cannot use {self._where}: adb says {_reason(said)!r}; {remedy}")

    def _copy(self, verb: str, source: str, target: str, failed: str, remedy: str) -> None:
        done = _finished([*self._adb(), verb, source, target], _COPY_S, self._where)
        if done.returncode != 0:
            if self._given_up(1.0):
                raise ConnectionLostError(
                    f"{self._where} was lost during adb {verb}; check its power and cable, then try again"
                )
            said = _reason((done.stdout + done.stderr).decode(errors="replace"))
            raise DeviceError(f"{failed}: {said}; {remedy}")

    def _adb(self) -> list[str]:
        program = shutil.which("adb")
        if program is None:
            raise DeviceError(
                "adb is not on PATH here: install Android's platform-tools (apt-get install adb)"
            )
        return [program, "-s", self._serial] if self._serial else [program]


def _finished(command: list[str], limit_s: float, where: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandTimeoutError(
            f"adb did not reach {where} within {limit_s:g} s; check its cable, run adb kill-server, try again"
        ) from error
    except OSError as error:
        raise DeviceError(
            f"cannot start {command[0]} here: {error.strerror}; check its installation"
        ) from error


def _reason(said: str) -> str:
    """What matters of adb's words: its error, which hints may follow, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    chosen = errors[0].partition("error:")[2].strip() if errors else (lines or ["nothing"])[-1]
    return chosen[:200]
