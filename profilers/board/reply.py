"""What the agent answered: found in a process's output, checked, and refusals turned into errors."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import DeviceError, DeviceSetupError, MeasurementError, UsageError
from ehdnas.profilers.agent import MARKER

# From a nanosecond to a million seconds, or a thousand terabytes: beyond that a figure is damage.
_LEAST, _MOST = 1e-6, 1e9
_MOST_DIGITS = 18
Milliseconds = Annotated[float, Field(ge=_LEAST, le=_MOST, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_REFUSALS = {
    "interpreter": DeviceSetupError,
    "delegate": DeviceSetupError,
    "disk": DeviceError,
    "model": MeasurementError,
    "input": UsageError,
}


def _storable(state: dict[str, Any]) -> dict[str, Any]:
    # Text that is half a character would fail once it is stored.
    if len(json.dumps(state, ensure_ascii=False).encode()) > 100_000:
        raise ValueError("too long")
    return state


State = Annotated[dict[str, Any], AfterValidator(_storable)]


@dataclass(frozen=True)
class Output:
    """What a finished agent process left; `status` is negative when a signal ended it."""

    stdout: str
    stderr: str
    status: int


class Window(BaseModel):
    """What happened up to `t_s` seconds into a long timing, since the window before."""

    model_config = ConfigDict(frozen=True)

    t_s: Amount
    median_ms: Milliseconds
    runs: int = Field(ge=1, le=10**9)
    temperature_c: float | None = Field(default=None, ge=-300, le=1000, allow_inf_nan=False)
    freq_mhz: Amount | None = None


class Reply(BaseModel):
    """One process's timing of one model; times in milliseconds, memory in MB.

    What the machine, the tool or an older agent does not tell is None, or an empty list. `runs` may be more
    than the `samples_ms` kept. `other_cpu` is the share of the machine's cores that other programs used
    while it was timed. `gpu_ms` are the accelerator's own times, without copying there and back.
    """

    model_config = ConfigDict(frozen=True)

    interpreter: str = Field(max_length=200)
    threads: int = Field(ge=0, le=10**4)
    load_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    samples_ms: list[Milliseconds] = Field(min_length=1, max_length=200_000)
    peak_memory_mb: Amount | None = None
    before: State
    after: State
    machine: State
    start_ms: Amount | None = None
    import_ms: Amount | None = None
    warmup_ms: Amount | None = None
    timing_ms: Amount | None = None
    runs: int | None = Field(default=None, ge=1, le=10**12)
    base_memory_mb: Amount | None = None
    other_cpu: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    power_w: Amount | None = Field(default=None, gt=0)
    energy_mj: Amount | None = Field(default=None, gt=0)
    power_samples: int | None = Field(default=None, ge=1, le=10**9)
    windows: list[Window] = Field(default_factory=list, max_length=10_000)
    gpu_ms: list[Milliseconds] = Field(default_factory=list, max_length=200_000)


def read_reply(output: Output, subject: str) -> Reply:
    """Return the timing in an agent's output; `subject` says in messages which file ran where.

    Raises:
        DeviceSetupError: there is no interpreter on the device, or its delegate cannot be loaded.
        DeviceError: its disk did not take the outputs.
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
        text = lines[-1][len(MARKER) :]
        answer = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MeasurementError(f"{subject}: the agent's answer was cut short; try again") from error
    if not isinstance(answer, dict):
        raise MeasurementError(f"{subject}: the agent's answer is not an object; try again")
    if answer.get("ok") is not True:
        refusal = _REFUSALS.get(str(answer.get("kind")), MeasurementError)
        raise refusal(f"{subject}: {one_line(answer.get('reason'), 500)}")
    return answer


def _number(word: str) -> float:
    if not math.isfinite(float(word)):
        raise ValueError(f"{word} is no number")
    return float(word)


def _integer(word: str) -> int:
    if len(word) > _MOST_DIGITS:
        raise ValueError("a number of too many digits")
    return int(word)


def one_line(said: object, longest: int) -> str:
    """Return what another machine said as one line that can be printed anywhere."""
    text = str(said)[:longest]
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _end(output: Output) -> str:
    tail = output.stderr.strip().splitlines()[-1:]
    said = f" ({one_line(tail[0], 200)})" if tail else ""
    if output.status >= 0:
        return f"the agent ended with exit code {output.status} and no answer{said}"
    try:
        name = signal.Signals(-output.status).name
    except ValueError:
        name = f"signal {-output.status}"
    if name == "SIGKILL":
        return f"the process was ended by SIGKILL, most likely for lack of memory; free some{said}"
    return f"the process was ended by {name} while it loaded or ran the model; export it again{said}"
