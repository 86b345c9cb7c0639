"""What every predictor offers: a differentiable value in the metric's unit, with a calibrated interval."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ehdnas.core.errors import DataError, UsageError
from ehdnas.search.checkpoint import load_checkpoint, module_tensors, restore_module, save_checkpoint

MIN_SAMPLES = 10
FORMAT = 1


@dataclass(frozen=True)
class Identity:
    """What a predictor predicts, and for which networks; two predictors are interchangeable if equal.

    `conditions` is what, besides the network, the device's figures depend on: protocol, threads, options.
    """

    method: str
    space: str
    slots: int
    choices: int
    shape: str
    device: str
    conditions: str
    metric: str


@dataclass(frozen=True)
class Quality:
    """How good a predictor is on architectures it was not fitted on.

    `within10` is the share within ±10 %, `constant_within10` the same for a constant guess (the
    median), which any predictor has to be compared with. `predicted` and `measured` are those
    architectures' values, in the metric's unit.
    """

    samples: int
    spearman: float
    within10: float
    mape: float
    constant_within10: float
    predicted: list[float]
    measured: list[float]


class Predictor(nn.Module, ABC):
    """A differentiable model of one metric of one device; values are positive and modelled by their log."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self.identity = identity
        self.quality: Quality | None = None
        self.register_buffer("residuals", torch.zeros(0, dtype=torch.float64))
        self.residuals: Tensor

    @abstractmethod
    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""

    @abstractmethod
    def fit(self, gates: Tensor, values: Tensor, seed: int) -> Quality:
        """Fit to one-hot architectures [n, slots, choices] and their values [n]; return the held-out quality.

        Raises:
            UsageError: fewer than MIN_SAMPLES samples, or values that cannot be fitted.
        """

    def forward(self, gates: Tensor) -> Tensor:
        """Return the metric in its unit, [n], for gates [n, slots, choices]; gradients flow to the gates."""
        return self.log_value(gates).exp()

    def margin(self, confidence: float) -> float:
        """Return by how much the log may be off at this confidence, from residuals on unseen samples.

        The quantile of split conformal prediction (Vovk et al. 2005): the ⌈(n+1)·confidence⌉-th smallest
        absolute residual; infinite where there are too few to promise anything.
        """
        rank = math.ceil((len(self.residuals) + 1) * confidence)
        return float("inf") if rank > len(self.residuals) else float(self.residuals[rank - 1])

    def interval(self, gates: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
        """Return the lower and upper ends [n] of the interval that holds the metric at `confidence`."""
        centre, margin = self.log_value(gates), self.margin(confidence)
        return (centre - margin).exp(), (centre + margin).exp()

    def save(self, path: Path) -> None:
        """Write the predictor to a safetensors file, with what it is for."""
        quality = None if self.quality is None else asdict(self.quality)
        meta = {
            "format": FORMAT,
            "identity": asdict(self.identity),
            "quality": quality,
            "extra": self.extra(),
        }
        save_checkpoint(path, module_tensors(self), meta)

    def extra(self) -> dict[str, Any]:
        """Return JSON-able facts, beyond the tensors, that `restore` needs."""
        return {}

    def restore(self, path: Path) -> None:
        """Load what `save` wrote.

        Raises:
            DataError: the file is damaged, or of another format.
            UsageError: it is a predictor of another space, shape, device or metric.
        """
        tensors, meta = load_checkpoint(path)
        if meta.get("format") != FORMAT:
            raise DataError(
                f"{path} is of format {meta.get('format')}, not {FORMAT}; profile the device again"
            )
        theirs = meta.get("identity", {})
        if theirs != asdict(self.identity):
            raise UsageError(
                f"{path} is a predictor for {json.dumps(theirs)}; profile the device for this one"
            )
        self.residuals = tensors.get("model.residuals", self.residuals)
        restore_module(self, tensors, path)
        self.quality = None if meta["quality"] is None else Quality(**meta["quality"])


def require_fittable(gates: Tensor, values: Tensor) -> None:
    """Raise UsageError unless there are enough samples, all finite and positive."""
    if len(values) < MIN_SAMPLES:
        raise UsageError(f"{len(values)} samples: a predictor needs at least {MIN_SAMPLES}; profile more")
    bad = [row for row, value in enumerate(values.tolist()) if not (math.isfinite(value) and value > 0)]
    if bad:
        raise UsageError(f"samples {bad[:10]} are not positive numbers; measure them again or leave them out")
    if gates.shape[0] != values.shape[0]:
        raise UsageError(f"{gates.shape[0]} architectures but {values.shape[0]} values")
