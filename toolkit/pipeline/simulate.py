"""The answer of `ehdnas simulate`: one network, whoever made it, on an accelerator that is only described."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.files import write_json, write_text
from ehdnas.core.graph import layer_table, read_onnx_table
from ehdnas.core.layers import LayerTable
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.costed import costed
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.predict import read_genotype
from ehdnas.pipeline.user_module import is_module_reference, load_module
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.profilers.e2e_perf.simulation import Simulation
from ehdnas.report.accelerator import layers_csv, roofline, timeline
from ehdnas.search.spaces.base import NetworkShape, Space
from ehdnas.settings import Settings


@dataclass(frozen=True)
class Simulated:
    """A simulation, and what was simulated where; `published_fps` is by a published table."""

    model: str
    network: str
    device: str
    explored: bool
    simulation: Simulation
    published_fps: float | None = None

    @property
    def throughput_fps(self) -> float:
        """Images a second: as published, where the network is in a published table."""
        return self.published_fps or self.simulation.throughput_fps

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        found = self.simulation.as_json()
        if self.published_fps is not None:
            found |= {
                "throughput_fps": self.published_fps,
                "latency_ms": 1e3 / self.published_fps,
                "throughput_fps_by_formulas": self.simulation.throughput_fps,
                "by": "the published slot table; layers by the formulas",
            }
        return {
            "model": self.model,
            "network": self.network,
            "device": self.device,
            "basis": "simulated",
            "explored": self.explored,
            **found,
        }


@dataclass(frozen=True)
class ModelInputs:
    """What a model's layers depend on besides itself.

    `space` and `shape` say what a genotype is of and how large; `image` is what a module is fed, (C, H, W).
    """

    space: Space
    shape: NetworkShape
    image: tuple[int, int, int]


def model_inputs(context: Context, image: str) -> ModelInputs:
    """Return what the settings, and --input, say of models.

    Raises:
        UsageError: no such space, or `image` is not CxHxW.
    """
    return ModelInputs(context.space, network_shape(context.space, context.settings), parse_image(image))


def simulate(model: str, device_name: str, inputs: ModelInputs, explore: bool) -> Simulated:
    """Simulate a network.

    Args:
        model: a genotype in any form, an .onnx file, or MODULE:FUNCTION that returns an nn.Module.
        explore: on the best accelerator found for it, on the device's board.

    Raises:
        UsageError: the device is not a simulated one, or has nothing to explore; or not a genotype.
        DataError: the file is no ONNX model, or the module cannot be had.
        MeasurementError: an operator is not modelled, or the network does not fit; the message says which.
    """
    device = find_device(device_name)
    profiler = find_profiler(device)
    if not isinstance(profiler, TableProfiler):
        raise UsageError(
            f"device '{device.name}' is real; use `ehdnas measure FILE --device {device.name}` on a file"
        )
    simulation = profiler.explain(layer_table_of(model, inputs), explore)
    published = None
    if not explore and _is_genotype(model):
        space = inputs.space
        found = profiler.published(space.name, str(inputs.shape), space.parse(read_genotype(model)).choices)
        published = found.metric("throughput_fps") if found else None
    size = inputs.shape if _is_genotype(model) else inputs.image
    network = model if model.endswith(".onnx") else f"{model}, {size}"
    return Simulated(model, network, device.name, explore, simulation, published)


def layer_table_of(model: str, inputs: ModelInputs) -> LayerTable:
    """Return the layer table of a model as `simulate` takes it. Raises as that does."""
    if model.endswith(".onnx"):
        return read_onnx_table(Path(model))
    if not _is_genotype(model):
        return layer_table(load_module(model), inputs.image)
    inputs.space.check_shape(inputs.shape)
    return costed(inputs.space, inputs.shape).table(inputs.space.parse(read_genotype(model)))


def _is_genotype(model: str) -> bool:
    if model.endswith(".py"):
        raise UsageError(f"'{model}' names no function: give {model}:FUNCTION, which returns the nn.Module")
    return not model.endswith(".onnx") and not is_module_reference(model)


def network_shape(space: Space, settings: Settings) -> NetworkShape:
    """Return the size of a genotype's network: as set, else the space's or EH-DNAS's on CIFAR-10."""
    size = settings.image_size or 32
    channels, cells = space.sizes.get("cifar10", (16, 8))
    return NetworkShape(settings.channels or channels, settings.cells or cells, (3, size, size), 10)


def parse_image(text: str) -> tuple[int, int, int]:
    """Return (C, H, W) of "CxHxW".

    Raises:
        UsageError: it is something else.
    """
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})[x×](\d{1,5})", text)
    if match is None or "0" in match.groups():
        raise UsageError(f"--input '{text}': write CxHxW, such as 3x224x224, each from 1 to 99999")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def write_simulation(found: Simulated, parent: Path) -> Path:
    """Write the simulation as JSON and CSV, its roofline and its timeline; return the folder they are in."""
    name = re.sub(r"[^\w.-]+", "_", Path(found.model).name)[:60]
    folder = parent / f"{name}--{found.device}{'--explored' if found.explored else ''}"
    write_json(folder / "simulation.json", found.as_json())
    write_text(folder / "layers.csv", layers_csv(found.simulation))
    write_text(folder / "roofline.svg", roofline(found.simulation, found.device))
    write_text(folder / "timeline.svg", timeline(found.simulation, found.device))
    return folder
