"""Post-training quantisation to int8: one scheme, worked out once, for every int8 target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ehdnas.core.errors import DataError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.graph import Array, Graph, batches, execute
from ehdnas.exporters.quantise.calibrate import METHODS, choose_ranges, observe
from ehdnas.exporters.quantise.finetune import fine_tune
from ehdnas.exporters.quantise.scheme import Range, Ranges
from ehdnas.exporters.quantise.simulate import correct_bias, noise_of

__all__ = ["Quantised", "Range", "Ranges", "quantise", "require_calibration"]

_CALIBRATED_ON = 512
_JUDGED = 4
_CORRECTED_ON = 64  # images at once: both networks' activations are held for all of them
_FEWEST = 2


@dataclass(frozen=True)
class Quantised:
    """A graph to be written as int8: its weights still real numbers, its activations' ranges chosen.

    `report` is JSON-able: the method for ranges, what was kept, and the noise of all that was tried (as
    the parity check has it, on calibration images that chose no range).
    """

    graph: Graph
    ranges: Ranges
    report: dict[str, Any]


def quantise(graph: Graph, images: Sequence[Array], options: ExportOptions) -> Quantised:
    """Return `graph`, lowered for int8, with ranges chosen on images [n, C, H, W], one array an input.

    Every fourth image is kept apart to judge on, and what errs least on those is kept: of the methods for
    ranges, of the network as it is and with its biases corrected, or fine-tuned (on all images but those).

    Raises:
        DataError: the images do not fit the network, are too few, or say nothing.
        ExportError: the network makes values that are no numbers, or fine-tuning diverged.
    """
    require_calibration(graph, images)
    few = [one[:_CALIBRATED_ON] for one in images]
    judged = [one[::_JUDGED] for one in few]
    fitted = [np.delete(one, np.s_[::_JUDGED], axis=0) for one in few]
    with torch.no_grad():
        expected = [execute(graph, batch) for batch in batches(judged)]
    noise: dict[str, float] = {}
    found: dict[str, tuple[Graph, Ranges]] = {}

    def judge(name: str, network: Graph, ranges: Ranges) -> None:
        found[name] = network, ranges
        noise[name] = noise_of(network, ranges, judged, expected)

    seen = observe(graph, fitted)
    for method in METHODS if options.calibration == "auto" else (options.calibration,):
        judge(method, graph, choose_ranges(graph, seen, method))
    best = min(noise, key=lambda name: noise[name])
    ranges = found[best][1]
    if options.bias_correction:
        judge("bias corrected", correct_bias(graph, ranges, [one[:_CORRECTED_ON] for one in fitted]), ranges)
    if options.finetune_steps:
        start = found[min(noise, key=lambda name: noise[name])][0]
        others = [np.delete(one, np.s_[:_CALIBRATED_ON:_JUDGED], axis=0) for one in images]
        tuned = fine_tune(graph, start, ranges, others, options.finetune_steps, options.seed)
        judge("fine-tuned", tuned, ranges)
    kept = min(noise, key=lambda name: noise[name])
    report = {"calibration": best, "kept": kept, "images": len(few[0]), "noise": noise}
    return Quantised(*found[kept], {**report, "finetune_steps": options.finetune_steps})


def require_calibration(graph: Graph, images: Sequence[Array]) -> None:
    """Return if the images can calibrate the network.

    Raises:
        DataError: wrong in number or shape, not finite, or all alike.
    """
    if len(images) != len(graph.inputs):
        raise DataError(f"calibration images for {len(images)} inputs; the network has {len(graph.inputs)}")
    for value, batch in zip(graph.inputs, images, strict=True):
        wanted = value.shape[1:]
        if batch.ndim != 4 or tuple(batch.shape[1:]) != wanted:
            takes = f"(n, {', '.join(map(str, wanted))})"
            raise DataError(f"calibration images of shape {tuple(batch.shape)}; the network takes {takes}")
        if len(batch) < _FEWEST:
            raise DataError(
                f"{len(batch)} calibration images are too few; give at least {_FEWEST}, better 100"
            )
        if not np.isfinite(batch).all():
            raise DataError(
                "the calibration images hold values that are no numbers; check how they are normalised"
            )
        if (batch == batch[:1]).all():
            raise DataError(
                "the calibration images are all alike, which says nothing of real ones; give real images"
            )
