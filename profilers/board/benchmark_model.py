"""TensorFlow Lite's own timer, `benchmark_model`, for a machine without Python: an Android phone, mostly."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceSetupError, MeasurementError, UsageError
from ehdnas.core.remote import CommandTimeoutError, Completed, Transport
from ehdnas.profilers.board.options import BoardOptions
from ehdnas.profilers.board.reply import Reply
from ehdnas.profilers.board.shell_state import shell_state
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

_NUMBER = r"(\d{1,12}(?:\.\d+)?(?:e[+-]?\d{1,2})?)"
# Microseconds. Newer versions give the median, older ones the average alone.
_COUNT = re.compile(rf"count=(\d{{1,9}}) .*\bavg={_NUMBER}(?:.*\bmedian={_NUMBER})?")
_SUMMARY = re.compile(rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}")
_MEMORY = re.compile(rf"[Oo]verall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_MARKS = ("ERROR", "Failed")  # of lines that say an error


class BenchmarkModel(Timer):
    """Runs `options.tool`, a path on the device; over adb a program of this machine too, copied there.

    It does not give single runs, so each process counts as one sample: the median of its runs where the
    tool gives one, else their average, and the interpreter's name says which.
    """

    def __init__(self, there: Transport, device: Device, options: BoardOptions) -> None:
        self._there, self._device, self._options = there, device, options
        here = os.path.expanduser(options.tool)
        ours = device.kind == "adb" and os.path.isfile(here)
        self._tool = there.put(Path(here), "benchmark_model") if ours else path_there(there, options.tool)

    def time(self, model: str, subject: str, protocol: Protocol) -> Reply:
        """Return what one process of the tool gives; see `Timer.time`."""
        if not model.endswith(".tflite"):
            raise UsageError(
                f"{subject}: benchmark_model runs .tflite files; run `ehdnas export --target tflite`"
            )
        machine, before = shell_state(self._there)
        done = self._run([*self._flags(protocol), f"--graph={model}"], limit_s(protocol), subject)
        counts, summary = _last(_COUNT, done), _last(_SUMMARY, done)
        if done.code != 0 or counts is None or summary is None:
            raise MeasurementError(f"{subject}: benchmark_model gave no timing: {reason_of(done, _MARKS)}")
        average, median = float(counts[2]), counts[3]
        memory = _last(_MEMORY, done)
        figures = {
            "interpreter": f"benchmark_model ({'median' if median else 'average'} of {counts[1]} runs)",
            "threads": self._device.threads,
            "load_ms": float(summary[1]) / 1000 or None,
            "first_ms": float(summary[2]) / 1000 or None,
            "samples_ms": [(float(median) if median else average) / 1000],
            "peak_memory_mb": None if memory is None else float(memory[1]),
            "before": before,
            "after": shell_state(self._there)[1],
            "machine": machine,
        }
        return checked_reply(subject, "benchmark_model", figures)

    def probe(self) -> dict[str, Any]:
        """Return what the machine's own files say; see `Timer.probe`."""
        machine, state = shell_state(self._there)
        found = self._there.run([self._tool, "--help"], 60).code not in NO_SUCH_PROGRAM
        return {
            "machine": machine,
            "before": state,
            "interpreter": "benchmark_model",
            "tool": self._tool if found else "",
        }

    def _flags(self, protocol: Protocol) -> list[str]:
        return [
            f"--num_threads={self._device.threads}",
            f"--warmup_runs={protocol.warmup_runs}",
            f"--warmup_min_secs={protocol.warmup_s}",
            f"--num_runs={protocol.runs}",
            f"--min_secs={protocol.min_s}",
            f"--max_secs={protocol.max_s}",
            "--report_peak_memory_footprint=true",
            *self._delegate_flags(),
        ]

    def _delegate_flags(self) -> list[str]:
        if not self._options.delegate:
            return []
        given = ";".join(f"{key}:{value}" for key, value in self._options.delegate_options.items())
        options = [f"--external_delegate_options={given}"] if given else []
        return [f"--external_delegate_path={self._options.delegate}", *options]

    def _run(self, flags: list[str], timeout_s: float, subject: str) -> Completed:
        # Pinned by the bits of a mask, as both Android's and util-linux's taskset take it.
        mask = sum(1 << cpu for cpu in self._options.cpus)
        pinned = ["taskset", f"{mask:x}"] if mask else []
        try:
            done = self._there.run([*pinned, self._tool, *flags], timeout_s)
        except CommandTimeoutError as error:
            raise MeasurementError(
                f"{subject}: benchmark_model was not done after {timeout_s:.0f} s and was stopped"
            ) from error
        if done.code in NO_SUCH_PROGRAM:
            name = self._device.name
            raise DeviceSetupError(
                f"device '{name}' has no {self._tool}; copy TensorFlow Lite's benchmark_model there with adb "
                f"push, or say where it is: ehdnas devices set {name} options.tool=PATH"
            )
        return done


def _last(pattern: re.Pattern[str], done: Completed) -> re.Match[str] | None:
    """The last line that matches: the first count is the warm-up's. Lines go to either stream."""
    output = output_of(done)
    found = None
    for line in (output.stdout + "\n" + output.stderr).splitlines():
        found = pattern.search(line[:1000]) or found
    return found
