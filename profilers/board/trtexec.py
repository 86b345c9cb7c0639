"""TensorRT's own timer, `trtexec`, on a Jetson: the engine is built there, and timed in fresh processes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceSetupError, MeasurementError, UsageError
from ehdnas.core.remote import CommandTimeoutError, Completed, Transport
from ehdnas.profilers.board.agent_timer import AgentTimer
from ehdnas.profilers.board.reply import Milliseconds, Reply
from ehdnas.profilers.board.timer import (
    NO_SUCH_PROGRAM,
    Timer,
    checked_reply,
    limit_s,
    output_of,
    path_there,
    reason_of,
)
from ehdnas.profilers.protocol import Protocol

# Where JetPack puts it, off the PATH of a log-in.
_USUAL = "/usr/src/tensorrt/bin/trtexec"
_BUILD_S = 1800.0  # tactics are timed one by one, which takes a Nano minutes
_MARKS = ("[E]",)  # of lines that say an error
_ENGINE, _TIMES = "model.engine", "times.json"
_MOST_BYTES = 2**28
_MOST_KEPT = 100_000
# A line of its own says 8.5.2; the banner, which every version has, v8502.
_VERSIONS = (re.compile(r"TensorRT version: (\d[\d.]{0,20})"), re.compile(r"TensorRT v(\d{1,9})"))
_LOADED = re.compile(r"[Ee]ngine (?:loaded|deserialized) in (\d{1,6}(?:\.\d+)?) sec")


class _Query(BaseModel):
    """One run in trtexec's --exportTimes: latency is copy there, computing and copy back."""

    latencyMs: Milliseconds  # noqa: N815 - trtexec's name
    computeMs: Milliseconds  # noqa: N815


_QUERIES = TypeAdapter(list[_Query])


class Trtexec(Timer):
    """Builds an engine once for each file, then times it; GPU time is kept apart from the host's.

    The state of the board before and after comes from the agent, which needs no interpreter for that.
    """

    def __init__(self, there: Transport, device: Device, agent: AgentTimer, tool: str) -> None:
        self._there, self._device, self._agent = there, device, agent
        self._tool = path_there(there, tool or _USUAL)
        self._built = ""  # the SHA-256 of the file that the engine is of

    def prepare(self, model: str, digest: str, subject: str) -> None:
        """Build the engine, unless it is there already; see `Timer.prepare`."""
        if not model.endswith(".onnx"):
            raise UsageError(f"{subject}: TensorRT runs .onnx files; run `ehdnas export --target tensorrt`")
        if self._built != digest:
            self._built = ""
            self._build(model, subject)
            self._built = digest

    def time(self, model: str, subject: str, protocol: Protocol) -> Reply:
        """Return what one process of trtexec gives; see `Timer.time`."""
        self._there.run(["rm", "-f", _TIMES], 60)  # lest those of the process before are taken for its own
        before = self._agent.probe()
        done = self._run(_timing_flags(protocol), limit_s(protocol), subject)
        after = self._agent.probe()
        queries = self._queries(done, subject)
        kept = queries[:: 1 + len(queries) // _MOST_KEPT]
        figures = {
            "interpreter": f"tensorrt {_version(done)}".strip(),
            "threads": self._device.threads,
            "load_ms": _load_ms(done),
            "samples_ms": [query.latencyMs for query in kept],
            "gpu_ms": [query.computeMs for query in kept],
            "runs": len(queries),
            "before": before.get("before"),
            "after": after.get("before"),
            "machine": before.get("machine"),
        }
        return checked_reply(subject, "trtexec", figures)

    def probe(self) -> dict[str, Any]:
        """Return the agent's report, with trtexec as the interpreter; see `Timer.probe`."""
        return {**self._agent.probe(), "interpreter": "tensorrt", "tool": self._find_tool()}

    def _build(self, model: str, subject: str) -> None:
        flags = [f"--onnx={model}", f"--saveEngine={_ENGINE}", *_precision_flags(self._device.precision)]
        done = self._run(flags, _BUILD_S, subject)
        if done.code != 0:
            raise MeasurementError(f"{subject}: trtexec refused it: {reason_of(done, _MARKS)}")

    def _run(self, flags: list[str], timeout_s: float, subject: str) -> Completed:
        try:
            done = self._there.run([self._tool, *flags], timeout_s)
        except CommandTimeoutError as error:
            raise MeasurementError(
                f"{subject}: trtexec was not done after {timeout_s:.0f} s and was stopped"
            ) from error
        if done.code in NO_SUCH_PROGRAM:
            raise DeviceSetupError(self._no_tool())
        return done

    def _queries(self, done: Completed, subject: str) -> list[_Query]:
        if done.code != 0:
            raise MeasurementError(f"{subject}: trtexec could not run its engine: {reason_of(done, _MARKS)}")
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            times = Path(folder) / _TIMES
            self._there.get(_TIMES, times)
            try:
                with times.open("rb") as stream:
                    queries = _QUERIES.validate_json(stream.read(_MOST_BYTES))
            except ValidationError as error:
                raise MeasurementError(f"{subject}: trtexec's times cannot be read; try again") from error
        if not queries:
            raise MeasurementError(f"{subject}: trtexec timed nothing; try again")
        return queries

    def _find_tool(self) -> str:
        done = self._there.run([self._tool, "--help"], 60)
        return "" if done.code in NO_SUCH_PROGRAM else self._tool

    def _no_tool(self) -> str:
        return (
            f"device '{self._device.name}' has no {self._tool}; install it there (sudo apt install "
            f"libnvinfer-bin), or say where it is: ehdnas devices set {self._device.name} options.tool=PATH"
        )


def _precision_flags(precision: str) -> list[str]:
    """Half precision where the device asks for it; int8 comes with the file, as QDQ, and is asked for too."""
    return {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(precision, [])


def _timing_flags(protocol: Protocol) -> list[str]:
    return [
        f"--loadEngine={_ENGINE}",
        f"--warmUp={max(1, round(1000 * protocol.warmup_s))}",
        f"--iterations={protocol.runs}",
        f"--duration={max(1, round(protocol.min_s))}",
        f"--exportTimes={_TIMES}",
    ]


def _version(done: Completed) -> str:
    text = output_of(done).stdout
    return next((found[1] for pattern in _VERSIONS if (found := pattern.search(text))), "")


def _load_ms(done: Completed) -> float | None:
    found = _LOADED.search(output_of(done).stdout)
    return 1000 * float(found[1]) or None if found else None
