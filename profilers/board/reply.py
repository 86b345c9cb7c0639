"""What the agent answered: found in a process's output, checked, and refusals turned into errors."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import DeviceError, MeasurementError, UsageError
from ehdnas.profilers.agent import MARKER

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_REFUSALS = {"interpreter": DeviceError, "model": MeasurementError, "input": UsageError}


@dataclass(frozen=True)
class Output:
    """What a finished agent process left; `status` is negative when a signal ended it."""

    stdout: str
    stderr: str
    status: int


class Reply(BaseModel):
    """One process's timing of one model; times in milliseconds, memory in MB."""

    model_config = ConfigDict(frozen=True)

    interpreter: str
    threads: int
    load_ms: Milliseconds
    first_ms: Milliseconds
    samples_ms: list[Milliseconds] = Field(min_length=1)
    peak_memory_mb: float
    before: dict[str, Any]
    after: dict[str, Any]
    machine: dict[str, Any]


def read_reply(output: Output, subject: str) -> Reply:
    """Return the timing in an agent's output; `subject` says in messages which file ran where.

    Raises:
        DeviceError: there is no interpreter on the device.
        MeasurementError: the model was refused, or the process did not survive it.
        UsageError: the input that was given does not suit the model.
    """
    try:
        return Reply.model_validate(read_answer(output, subject))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise MeasurementError(f"{subject}: the agent's answer is damaged at '{where}'; try again") from error


def read_answer(output: Output, subject: str) -> dict[str, Any]:
    """Return the JSON object in an agent's output. Raises as `read_reply` does."""
    lines = [line for line in output.stdout.splitlines() if line.startswith(MARKER + " ")]
    if not lines:
        raise MeasurementError(f"{subject}: {_end(output)}")
    try:
        answer = json.loads(lines[-1][len(MARKER) :])
    except (ValueError, RecursionError) as error:
        raise MeasurementError(f"{subject}: the agent's answer was cut short; try again") from error
    if not isinstance(answer, dict):
        raise MeasurementError(f"{subject}: the agent's answer is not an object; try again")
    if answer.get("ok") is not True:
        refusal = _REFUSALS.get(str(answer.get("kind")), MeasurementError)
        raise refusal(f"{subject}: {str(answer.get('reason'))[:500]}")
    return answer


def _end(output: Output) -> str:
    tail = output.stderr.strip().splitlines()[-1:]
    said = f" ({tail[0][:200]})" if tail else ""
    if output.status >= 0:
        return f"the agent ended with exit code {output.status} and no answer{said}"
    try:
        name = signal.Signals(-output.status).name
    except ValueError:
        name = f"signal {-output.status}"
    if name == "SIGKILL":
        return f"the process was ended by SIGKILL, most likely for lack of memory; free some{said}"
    return f"the process was ended by {name} while it loaded or ran the model; export it again{said}"
