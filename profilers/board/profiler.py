"""Files timed on a machine that a transport reaches; the kinds `local`, `ssh` and `adb` differ in which."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ehdnas.core.device import Device
from ehdnas.core.errors import DataError, DeviceError, DeviceSetupError, EhdnasError, UsageError
from ehdnas.core.files import sha256, write_bytes
from ehdnas.core.measurement import Measurement
from ehdnas.core.remote import Transport
from ehdnas.profilers.base import Check, FileProfiler
from ehdnas.profilers.board.agent_timer import AgentTimer
from ehdnas.profilers.board.benchmark_model import BenchmarkModel
from ehdnas.profilers.board.checks import board_checks
from ehdnas.profilers.board.collect import collect
from ehdnas.profilers.board.options import board_options
from ehdnas.profilers.board.runtime import RUNTIMES, runtime_of
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.board.timer import Timer
from ehdnas.profilers.board.trtexec import Trtexec
from ehdnas.profilers.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_SMOKE = Protocol("smoke", warmup_runs=1, warmup_s=0, runs=1, min_s=0, max_s=5, processes=1)
# The name of the one operator that a file compiled for the Edge TPU has in place of those it runs.
_COMPILED = b"edgetpu-custom-op"
_ON_CPU = "not compiled for the Edge TPU: it ran on the CPU"
_REACH_S = 30.0
_OUTPUTS_S = 3600.0


class BoardProfiler(FileProfiler):
    """Runs `.tflite` and `.onnx` files on a machine, on `device.threads` threads, and times them there.

    It connects once, at the first use, and keeps the connection until `close`; one that was lost is made
    anew at the next use. `device.runtime` says what runs the files; see `ehdnas.profilers.board.options`
    for the rest.

    Raises:
        UsageError: the device's runtime or options cannot be right.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.options = board_options(device)
        self.runtime = runtime_of(device)
        self._there: Transport | None = None
        self._timer: Timer | None = None

    @abstractmethod
    def open(self) -> Transport:
        """Return a new transport to the machine; nothing is reached before its first use."""

    def python(self) -> Sequence[str]:
        """Return the program and flags that run the agent; none when they must be looked for there."""
        return ()

    def measure(self, path: Path, protocol: Protocol) -> Measurement:
        """Return what the file did, each process of the protocol a fresh one.

        Raises:
            UsageError: the file is of a kind that the device does not run.
            DataError: there is no such file, or it cannot be read.
            DeviceError: the device cannot be reached, or has no interpreter for it.
            MeasurementError: the interpreter refused the file, crashed on it or did not end in time.
        """
        return self._again_if_lost(lambda: self._measure(path, protocol))

    def _measure(self, path: Path, protocol: Protocol) -> Measurement:
        digest = self._digest(path)
        with self._timing() as (there, timer):
            model = there.put(path, f"model{path.suffix}")
            timer.prepare(model, digest, path.name)
            taken = collect(self.device, digest, protocol, lambda: timer.time(model, path.name, protocol))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"board": self.device.name, "kind": self.device.kind, "measured_at": now}
        flags = [*taken.flags, *([_ON_CPU] if self._stays_on_cpu(path) else [])]
        return taken.model_copy(update={"passport": {**taken.passport, **facts}, "flags": flags})

    def _again_if_lost(self, do: Callable[[], Measurement]) -> Measurement:
        """Try once more where a connection made earlier turns out to have fallen while nobody used it."""
        held = self._timer is not None
        try:
            return do()
        except DeviceError as error:  # a connection that is lost does not always say so
            if not held or isinstance(error, DeviceSetupError):
                raise
            return do()

    def _stays_on_cpu(self, path: Path) -> bool:
        return self.runtime.name == "edgetpu" and _COMPILED not in path.read_bytes()

    def outputs(self, path: Path, images: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return what the file gives for images [n, ...] on the device, run one at a time.

        Raises:
            UsageError: the device's tool gives no outputs, or the images do not suit the file.
            DataError, DeviceError, MeasurementError: as `measure` does.
        """
        import numpy as np

        digest = self._digest(path)
        if not len(images):
            raise UsageError(f"{path.name}: no images to run it on; give at least one")
        with self._timing() as (there, timer), tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            if not isinstance(timer, AgentTimer):
                raise UsageError(
                    f"device '{self.device.name}' gives times only; its outputs need Python there"
                )
            given, got = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
            np.save(given, images, allow_pickle=False)
            model = there.put(path, f"model{path.suffix}")
            timer.prepare(model, digest, path.name)
            timer.outputs(model, there.put(given, given.name), got.name, path.name, _OUTPUTS_S)
            there.get(got.name, got)
            try:
                # A view first: a head that promises more than there is must not be believed.
                return np.array(np.lib.format.open_memmap(got, mode="r"))
            except Exception as error:  # a damaged head raises anything at all
                raise DeviceError(
                    f"{path.name}: the outputs that came back are damaged: {error}; try again"
                ) from error

    @property
    def gives_outputs(self) -> bool:
        """Whether `outputs` can be had: the vendors' own timers give times alone."""
        return self.runtime.name != "tensorrt" and not self.options.tool

    def check(self) -> list[Check]:
        """Return the checks on the way there, the interpreter, the machine, and a smoke test."""
        try:
            with self._connected() as there:
                there.run(["true"], _REACH_S)
        except EhdnasError as error:
            return self.unreached(error)
        found = self.reached()
        try:
            with self._timing() as (_, timer):
                found += board_checks(timer.probe(), self.device, self.options)
        except EhdnasError as error:
            return [*found, failed("runtime", error)]
        if any(not (check.passed or check.advice) for check in found):
            return found
        return [*found, self._smoke_test()]

    def reached(self) -> list[Check]:
        """Return what is known once the device has answered."""
        return [Check("reachable", True, self.where)]

    def unreached(self, error: EhdnasError) -> list[Check]:
        """Return the checks on the way there, one of which failed by `error`."""
        return [failed("reachable", error)]

    def connect(self) -> None:
        """Connect, and find what times files there; see `FileProfiler.connect`."""
        with self._timing():
            pass

    def close(self) -> None:
        """Hang up; our folder there goes with the connection."""
        there, self._there, self._timer = self._there, None, None
        if there is not None:
            there.close()

    @property
    def where(self) -> str:
        """Where the device is, for people to read."""
        return self.device.host or "this machine"

    @contextmanager
    def _connected(self) -> Iterator[Transport]:
        """Give the connection, made if there is none; one that gave trouble is let go of."""
        try:
            if self._there is None:
                self._there = self.open()
            yield self._there
        except DeviceError:
            self.close()
            raise

    @contextmanager
    def _timing(self) -> Iterator[tuple[Transport, Timer]]:
        """Give the connection and what times files there, found at the first use."""
        with self._connected() as there:
            if self._timer is None:
                self._timer = self._make_timer(there)
            yield there, self._timer

    def _make_timer(self, there: Transport) -> Timer:
        tool = self.options.tool
        if self.runtime.name == "tensorrt":
            return Trtexec(there, self.device, self._agent(there), tool)
        if tool and self.runtime.name in ("litert", "edgetpu"):
            return BenchmarkModel(there, self.device, self.options)
        return self._agent(there)

    def _agent(self, there: Transport) -> AgentTimer:
        return AgentTimer(there, self.device, self.options, self.runtime, self.python())

    def _digest(self, path: Path) -> str:
        suffixes = sorted({one.suffix for one in RUNTIMES.values()})
        if path.suffix not in suffixes:
            raise UsageError(f"{path}: {self.where} runs {' and '.join(suffixes)} files; export it to one")
        try:
            return sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; export the network first") from error

    def _smoke_test(self) -> Check:
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            path = Path(folder) / f"smoke{self.runtime.suffix}"
            try:
                write_bytes(path, smoke_model(self.runtime.suffix))
                latency_ms = self.measure(path, _SMOKE).metric("latency_ms")
            except EhdnasError as error:
                return failed("smoke test", error)
        return Check("smoke test", True, f"a tiny model ran in {latency_ms:.3f} ms")


def failed(name: str, error: EhdnasError) -> Check:
    """Return the check that an error makes fail; what the message says after its last semicolon mends it."""
    what, found, mend = str(error).rpartition("; ")
    return Check(name, False, what if found else mend, mend if found else "see `ehdnas --debug doctor`")
