"""A machine behind a child process of ours that gives a shell there."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import BinaryIO, cast

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.base import (
    KILL_AFTER_S,
    Completed,
    ConnectionLostError,
    Transport,
    check_arguments,
    too_slow,
)
from ehdnas.core.remote.capture import Capture
from ehdnas.core.remote.shell import (
    after_mark,
    held_folder,
    hold_command,
    last_line,
    new_mark,
    run_command,
)

# Once a program and its group are gone its pipes close at once, unless something left the group.
_DRAIN_S = 2.0
_ANSWER_S = 30.0
_SETTLE_S = 0.5  # the shells of one machine do not fall at the same moment


class ProcessTransport(Transport):
    """Runs things through child processes whose standard input we hold open.

    When we are gone, killed even, they read its end, and over there the program ends and the folder vanishes.
    `where` is the machine in an error message.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._folder = ""
        self._holder: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self, script: str) -> list[str]:
        """Return what to start here for a shell there to run `script`, with our three streams as its own."""

    def _check(self) -> None:
        """Raise a DeviceError when the machine is not there; asked once, before its first use."""

    def run(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        """Run a program there; see `Transport.run`."""
        check_arguments(arguments)
        folder, mark = self._open(), new_mark()
        process = self._start(run_command(mark, folder, arguments, timeout_s), subprocess.PIPE)
        out, err = (Capture(cast(BinaryIO, pipe).read) for pipe in (process.stdout, process.stderr))
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise too_slow(arguments, self._where, timeout_s) from error
        finally:
            _end(process)
            stdout, stderr = out.bytes(_DRAIN_S), err.bytes(_DRAIN_S)
            _close_pipes(process, out, err)
        truncated = out.truncated or err.truncated
        own, own_err = after_mark(stdout, mark), after_mark(stderr, mark)
        # 255 is also what adb ends with when it loses the machine.
        strange = code < 0 or code == 255 or own is None or own_err is None
        if self._given_up(_SETTLE_S if strange else 0.0):
            raise ConnectionLostError(
                f"{self._where} was lost during {arguments[0]}: the shell that holds our folder has ended; "
                f"check its power and cable, then try again"
            )
        if own is None:
            said = last_line(stderr) or last_line(stdout) or "it said nothing"
            raise DeviceError(f"the shell of {self._where} did not run our command: {said}; start over")
        if own_err is None:
            raise DeviceError(
                f"the shell of {self._where} mixes its two output streams; adb needs Android 7 or later there"
            )
        if code < 0:  # the shell around the program, not the program
            raise DeviceError(
                f"the command on {self._where} was killed there; is it out of memory? (dmesg says)"
            )
        return Completed(code, own, own_err, truncated)

    def close(self) -> None:
        """Let go of our folder, and wait a moment for it to be removed."""
        holder, self._holder, self._folder = self._holder, None, ""
        if holder is not None:
            _end(holder)
            cast(BinaryIO, holder.stdout).close()

    def _open(self) -> str:
        if self._holder is None:
            self._check()
            mark = new_mark()
            holder = self._start(hold_command(mark), subprocess.STDOUT)
            try:
                self._folder = _hear_folder(holder, mark, self._where)
            except BaseException:
                _end(holder)
                cast(BinaryIO, holder.stdout).close()
                raise
            self._holder = holder
        return self._folder

    def _start(self, script: str, stderr: int) -> subprocess.Popen[bytes]:
        command = self._command(script)
        try:
            # A session of its own: an interrupt at the keyboard is for us, who then end it in good order.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"cannot start {command[0]} here: {error.strerror}; check its installation"
            ) from error

    def _given_up(self, settle_s: float = 0.0) -> bool:
        """Whether the shell that holds our folder has ended, now or within `settle_s` seconds."""
        if self._holder is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(settle_s)
        return self._holder.poll() is not None


def _hear_folder(holder: subprocess.Popen[bytes], mark: str, where: str) -> str:
    """The folder that `holder` has made, as it prints it."""
    pipe, output = cast(BinaryIO, holder.stdout), b""
    deadline = time.monotonic() + _ANSWER_S
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(pipe.fileno(), 2**14)
            output = (output + data)[-(2**17) :]
            if folder := held_folder(output, mark):
                return folder
            if not data:
                break
    raise DeviceError(
        f"cannot make a folder on {where}: {last_line(output) or 'its shell said nothing'}; "
        f"it needs sh, mktemp and a writable /tmp or TMPDIR"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what runs there: it is when its standard input closes. What does not take the hint is killed."""
    with contextlib.suppress(OSError):  # it may have ended with something unread
        cast(BinaryIO, process.stdin).close()
    for insist in (process.terminate, process.kill):
        try:
            process.wait(KILL_AFTER_S + 2)
        except subprocess.TimeoutExpired:
            insist()
    process.wait()


def _close_pipes(process: subprocess.Popen[bytes], *captures: Capture) -> None:
    for pipe, capture in zip((process.stdout, process.stderr), captures, strict=True):
        if pipe is not None and not capture.is_alive():  # closing under a reader is undefined
            pipe.close()
