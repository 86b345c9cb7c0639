"""The `local` device kind: this machine, through the agent in fresh processes."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ehdnas.core.device import Device
from ehdnas.core.errors import DataError, EhdnasError, MeasurementError, UsageError
from ehdnas.core.files import sha256, write_bytes
from ehdnas.core.measurement import Measurement
from ehdnas.core.text import nearest
from ehdnas.profilers import agent
from ehdnas.profilers.base import Check, FileProfiler
from ehdnas.profilers.board.checks import machine_checks
from ehdnas.profilers.board.collect import collect
from ehdnas.profilers.board.reply import Output, read_answer, read_reply
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.protocol import Protocol

# Runtime -> the suffix of its files, and the package that provides it.
_RUNTIMES = {"litert": (".tflite", "ai-edge-litert"), "onnxruntime": (".onnx", "onnxruntime")}
_SMOKE = Protocol("smoke", warmup_runs=1, warmup_s=0, runs=1, min_s=0, max_s=5, processes=1)
# Starting an interpreter and loading a model, on top of what the protocol allows for running it.
_SLACK_S = 120.0


class LocalProfiler(FileProfiler):
    """Runs `.tflite` files in LiteRT and `.onnx` files in ONNX Runtime, on `device.threads` threads.

    `device.runtime`, `litert` (the default) or `onnxruntime`, says which of the two `check` looks at.

    Raises:
        UsageError: the device names another runtime.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        runtime = device.runtime or "litert"
        if runtime not in _RUNTIMES:
            known = nearest(runtime, _RUNTIMES)
            raise UsageError(f"device '{device.name}': unknown runtime '{runtime}'{known}")
        self._suffix, self._package = _RUNTIMES[runtime]

    def measure(self, path: Path, protocol: Protocol) -> Measurement:
        """Return what the file did, each process of the protocol a fresh one.

        Raises:
            UsageError: the file is neither `.tflite` nor `.onnx`.
            DataError: there is no such file, or it cannot be read.
            DeviceError: no interpreter for it is installed.
            MeasurementError: the interpreter refused the file, crashed on it or did not end in time.
        """
        suffixes = [suffix for suffix, _ in _RUNTIMES.values()]
        if path.suffix not in suffixes:
            raise UsageError(f"{path}: this machine runs {' and '.join(suffixes)} files; export it to one")
        try:
            digest = sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; export the network first") from error
        arguments = [str(path.resolve()), "--threads", str(self.device.threads), *agent_flags(protocol)]
        limit_s = protocol.warmup_s + 2 * protocol.max_s + _SLACK_S
        return collect(
            self.device, digest, protocol, lambda: read_reply(_run(arguments, limit_s, path.name), path.name)
        )

    def check(self) -> list[Check]:
        """Return the checks on the interpreter, memory, disk, governor, load, and a smoke test."""
        mend = f"pip install {self._package}"
        try:
            answer = read_answer(_run([self._suffix, "--probe"], _SLACK_S, "probe"), self.device.name)
        except EhdnasError as error:
            return [Check("interpreter", False, str(error), mend)]
        interpreter = Check("interpreter", True, str(answer.get("interpreter")))
        return [interpreter, *machine_checks(answer), self._smoke_test(mend)]

    def _smoke_test(self, mend: str) -> Check:
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            path = Path(folder) / f"smoke{self._suffix}"
            try:
                write_bytes(path, smoke_model(self._suffix))
                latency_ms = self.measure(path, _SMOKE).metric("latency_ms")
            except EhdnasError as error:
                return Check("smoke test", False, str(error), f"{mend} --force-reinstall")
        return Check("smoke test", True, f"a tiny model ran in {latency_ms:.3f} ms")


def agent_flags(protocol: Protocol) -> list[str]:
    """Return a protocol as flags of the agent's command line."""
    flags = {
        "--warmup-runs": protocol.warmup_runs,
        "--warmup-s": protocol.warmup_s,
        "--runs": protocol.runs,
        "--min-s": protocol.min_s,
        "--max-s": protocol.max_s,
    }
    return [word for flag, value in flags.items() for word in (flag, str(value))]


def _run(arguments: list[str], limit_s: float, subject: str) -> Output:
    """Run the agent in a process group of its own; it ends with this process, however that ends."""
    command = [sys.executable, _isolation(), agent.__file__, *arguments, "--watch-stdin"]
    watched, held = os.pipe()
    try:
        process = subprocess.Popen(
            command, stdin=watched, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        stdout, stderr = _communicate(process, limit_s, subject)
    finally:
        os.close(watched)
        os.close(held)
    return Output(stdout.decode(errors="replace"), stderr.decode(errors="replace"), process.returncode)


def _communicate(process: subprocess.Popen[bytes], limit_s: float, subject: str) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=limit_s)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise MeasurementError(
            f"{subject}: not done after {limit_s:.0f} s and stopped; it is too slow to measure here"
        ) from error


def _isolation() -> str:
    # -I keeps the user's PYTHON* variables and packages away from the measurement, so it must be left out
    # where the interpreters themselves come from there; -P still keeps the agent's own folder off the path.
    user_site = site.ENABLE_USER_SITE and Path(site.getusersitepackages()).is_dir()
    return "-P" if os.environ.get("PYTHONPATH") or user_site else "-I"
