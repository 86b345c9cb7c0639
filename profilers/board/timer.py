"""What times one file in one process on a machine: the agent, or a tool that is there already."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import ValidationError

from ehdnas.core.errors import MeasurementError
from ehdnas.core.remote import Completed, Transport
from ehdnas.profilers.board.reply import Output, Reply, one_line
from ehdnas.profilers.protocol import Protocol

# Starting an interpreter and loading a model, on top of what the protocol allows for running it.
SLACK_S = 120.0
NO_SUCH_PROGRAM = (126, 127)
"""Exit codes of a shell that found no program, or none that it may run."""


class Timer(ABC):
    """Times files that are in our folder on a machine. One lives as long as its connection."""

    def prepare(self, model: str, digest: str, subject: str) -> None:
        """Make ready to time the file at `model`, whose SHA-256 is `digest`. Raises as `time` does."""
        return

    @abstractmethod
    def time(self, model: str, subject: str, protocol: Protocol) -> Reply:
        """Return what one fresh process gives for the file at `model`; `subject` names it in messages.

        The file is the one that was last prepared.

        Raises:
            DeviceError: the machine is gone, or lacks what is needed.
            MeasurementError: the file was refused, or the process did not survive it or end in time.
        """

    @abstractmethod
    def probe(self) -> dict[str, Any]:
        """Return what the machine says of itself, in the agent's words (`ehdnas.profilers.agent`).

        Raises:
            DeviceError: the machine is gone, or lacks what is needed.
            MeasurementError: its answer cannot be read.
        """


def limit_s(protocol: Protocol) -> float:
    """Return how long one process may take, in seconds."""
    return protocol.warmup_s + 2 * protocol.max_s + SLACK_S


def output_of(done: Completed) -> Output:
    """Return what a finished process left, its signal as a negative status."""
    status = 128 - done.code if 128 < done.code < 128 + 65 else done.code
    return Output(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), status)


def reason_of(done: Completed, marks: tuple[str, ...]) -> str:
    """Return why a tool failed, for a message: the first line with one of its marks, else its last line."""
    output = output_of(done)
    lines = [line.strip() for line in (output.stderr + "\n" + output.stdout).splitlines() if line.strip()]
    marked = [line for line in lines if any(mark in line for mark in marks)]
    return one_line((marked or lines[-1:] or [f"exit code {done.code}, and no word"])[0], 300)


def checked_reply(subject: str, tool: str, figures: dict[str, Any]) -> Reply:
    """Return what a tool gave, checked.

    Raises:
        MeasurementError: a figure cannot be right.
    """
    try:
        return Reply.model_validate(figures)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise MeasurementError(f"{subject}: {tool} gave no usable '{where}'; try again") from error


def path_there(there: Transport, path: str) -> str:
    """Return `path` with the home folder over there for its `~/`.

    Raises:
        DeviceError: the machine is gone.
    """
    if not path.startswith("~/"):
        return path
    home = there.run(["sh", "-c", 'printf %s "$HOME"'], 30).stdout.decode(errors="replace")
    return home.rstrip("/") + path[1:]
