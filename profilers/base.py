"""What every profiler is, and how a device finds its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError
from ehdnas.core.layers import LayerTable
from ehdnas.core.measurement import Measurement
from ehdnas.core.plugins import load_plugin, plugin_names
from ehdnas.core.text import nearest
from ehdnas.profilers.protocol import Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ehdnas.profilers.e2e_perf.simulation import Simulation
    from ehdnas.profilers.e2e_perf.workload import Workload

_GROUP = "ehdnas.profilers"


@dataclass(frozen=True)
class Check:
    """One line of `ehdnas doctor`: what was looked at, what was found, and what mends a failure.

    With `advice`, a failure stands in nothing's way, but makes figures worse or less steady.
    """

    name: str
    passed: bool
    detail: str
    mend: str = ""
    advice: bool = False


class Profiler(ABC):
    """A way to reach one device. Making one checks the device's description, and connects to nothing."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @abstractmethod
    def check(self) -> list[Check]:
        """Return what stands in the way of measuring on the device, without raising for what it finds."""


class FileProfiler(Profiler):
    """A profiler that runs exported files and times them by a clock.

    A context manager: it connects at the first use, and leaving it hangs up.
    """

    @abstractmethod
    def measure(self, path: Path, protocol: Protocol) -> Measurement:
        """Return what the file at `path` did: basis "measured", metrics `latency_ms`, `throughput_fps`, ...

        Raises:
            UsageError: the file is of a kind the device does not run.
            DataError: there is no such file, or it cannot be read.
            DeviceError: the device cannot be reached, or lacks an interpreter.
            MeasurementError: the interpreter refused the file, or did not survive it.
        """

    def connect(self) -> None:
        """Reach the device now, rather than at the first use.

        Raises:
            DeviceError: it cannot be reached, or lacks what is needed.
        """
        return

    def close(self) -> None:
        """Hang up and leave nothing on the device; never raises. It can be used again."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TableProfiler(Profiler):
    """A profiler that computes figures from a layer table."""

    @abstractmethod
    def simulate(self, table: LayerTable) -> Measurement:
        """Return the network's figures: basis "simulated", metrics `latency_ms` and `throughput_fps`.

        Raises:
            MeasurementError: a layer or an operator is not modelled; the message names it.
        """

    @abstractmethod
    def explain(self, table: LayerTable, explore: bool = False) -> Simulation:
        """Return everything about one network; with `explore` on the best accelerator found for it."""

    @abstractmethod
    def label(self, workload: Workload) -> list[Measurement | None]:
        """Return what `simulate` gives for each of n networks at once, None for those that do not fit."""

    @abstractmethod
    def figures(self, workload: Workload) -> dict[str, NDArray[np.float64]]:
        """Return the metrics of `label` as arrays [n] by name, NaN for networks that do not fit."""

    @abstractmethod
    def codesigned(self) -> Device:
        """Return the device whose accelerator is designed anew for every network.

        Raises:
            UsageError: the accelerator is a fixed one.
        """

    def published(self, space: str, shape: str, choices: Sequence[int]) -> Measurement | None:
        """Return the figures published for this very network, which go before computed ones, or None."""
        return None


def find_profiler(device: Device) -> Profiler:
    """Return the profiler that reaches `device`, by the device's kind.

    Raises:
        DeviceError: the device has no host yet, or nothing installed reaches its kind.
        UsageError: the device's options cannot be right.
    """
    kinds = plugin_names(_GROUP)
    if device.kind not in kinds:
        known = nearest(device.kind, kinds)
        raise DeviceError(f"device '{device.name}': nothing installed reaches kind '{device.kind}'{known}")
    profiler: Profiler = load_plugin(_GROUP, device.kind)(device)
    if device.kind == "ssh" and not device.host:
        raise DeviceError(
            f"device '{device.name}' has no host; "
            f"set one with `ehdnas devices set {device.name} host=USER@ADDRESS`"
        )
    return profiler
