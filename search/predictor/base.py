"""What every predictor offers: a differentiable value in the metric's unit, with a calibrated interval."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ehdnas.core.errors import DataError, UsageError
from ehdnas.search.checkpoint import (
    load_checkpoint,
    module_tensors,
    restore_module,
    save_checkpoint,
    tensors_of_module,
)
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.quality import Quality, quality_of

MIN_SAMPLES = 10
FORMAT = 4
_FOLDS = 5
_ROUNDING = 1e-5  # of a log, in float32
_FOLDS_UNTIL = 2000  # beyond it one fifth held out is plenty, and five fits would be slow


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


def folds_of(count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of each fold and those of all others, fixed by the seed, for every predictor."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    folds = list(order.tensor_split(_FOLDS))
    for at, fold in enumerate(folds if count < _FOLDS_UNTIL else folds[:1]):
        yield fold, torch.cat(folds[:at] + folds[at + 1 :])


class Predictor(nn.Module, ABC):
    """A differentiable model of one metric of one device; values are positive and modelled by their log."""

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.identity = identity
        self.facts = facts
        self.quality: Quality | None = None
        self.register_buffer("residuals", torch.zeros(0, dtype=torch.float64))
        self.residuals: Tensor

    @abstractmethod
    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""

    @abstractmethod
    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit to one-hot architectures [n, slots, choices] and their values [n], which are all fittable."""

    def fit(self, gates: Tensor, values: Tensor, seed: int) -> Quality:
        """Fit to one-hot architectures [n, slots, choices] and their values [n]; return the held-out quality.

        Interval and quality come from samples that were left out.

        Raises:
            UsageError: fewer than MIN_SAMPLES samples, values that cannot be fitted or are all the same, or
                gates of another space.
        """
        self.require_fittable(gates, values)
        rows, guessed = self.held_out(gates, values, seed)
        seen = values[rows].double()
        self.residuals = (guessed - seen.log()).abs().sort().values
        self.quality = quality_of(guessed.exp().numpy(), seen.numpy())
        self.learn(gates, values, seed)
        return self.quality

    def held_out(self, gates: Tensor, values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return rows [m] and the logs [m] predicted for them by fits that had not seen them."""
        rows, guessed = [], []
        for fold, kept in folds_of(len(values), seed):
            other = type(self)(self.identity, self.facts)
            other.learn(gates[kept], values[kept], seed)
            with torch.no_grad():
                guessed.append(other.log_value(gates[fold]).double())
            rows.append(fold)
        return torch.cat(rows), torch.cat(guessed)

    def evaluate(self, gates: Tensor, values: Tensor, confidence: float = 0.9) -> Quality:
        """Return the quality on networks [n, slots, choices] with values [n] that were not fitted."""
        self.require_sound(gates, values)
        with torch.no_grad():
            predicted = self(gates).double()
            lower, upper = (end.double() for end in self.interval(gates, confidence))
        inside = (lower <= values) & (values <= upper)
        return quality_of(predicted.numpy(), values.double().numpy(), float(inside.double().mean()))

    def forward(self, gates: Tensor) -> Tensor:
        """Return the metric in its unit, [n], for gates [n, slots, choices]; gradients flow to the gates."""
        return self.log_value(gates).exp()

    def margin(self, confidence: float) -> float:
        """Return by how much the log may be off at this confidence, from residuals on unseen samples.

        The ⌈(n+1)·confidence⌉-th smallest absolute residual, as in split conformal prediction (Vovk et
        al. 2005); infinite where there are too few to promise anything. Below `_FOLDS_UNTIL` samples the
        residuals are pooled over folds, of predictors fitted to a fifth less: what they hold is measured,
        not proven. Never less than numbers are rounded by, since metrics of few values are told exactly.
        """
        rank = math.ceil((len(self.residuals) + 1) * confidence - 1e-9)
        if rank > len(self.residuals):
            return float("inf")
        return max(float(self.residuals[max(rank, 1) - 1]), _ROUNDING)

    def interval(self, gates: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
        """Return the lower and upper ends [n] of the interval that holds the metric at `confidence`."""
        centre, margin = self.log_value(gates), self.margin(confidence)
        return (centre - margin).exp(), (centre + margin).exp()

    def require_fittable(self, gates: Tensor, values: Tensor) -> None:
        """Raise UsageError unless there are enough samples of this space, finite, positive, not all alike."""
        if len(values) < MIN_SAMPLES:
            raise UsageError(f"{len(values)} samples: a predictor needs at least {MIN_SAMPLES}; profile more")
        self.require_sound(gates, values)
        if bool((values == values[0]).all()):
            raise UsageError(
                f"all {len(values)} values are the same ({float(values[0]):g}): there is nothing to predict"
            )

    def require_sound(self, gates: Tensor, values: Tensor) -> None:
        """Raise UsageError unless gates are of this space and values finite, positive and as many."""
        expected = (self.identity.slots, self.identity.choices)
        if gates.ndim != 3 or tuple(gates.shape[1:]) != expected:
            raise UsageError(
                f"architectures of {tuple(gates.shape[1:])} slots and choices; this predictor is for "
                f"{expected}, space '{self.identity.space}'"
            )
        if gates.shape[0] != values.shape[0]:
            raise UsageError(f"{gates.shape[0]} architectures but {values.shape[0]} values")
        bad = [row for row, value in enumerate(values.tolist()) if not (math.isfinite(value) and value > 0)]
        if bad:
            more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
            raise UsageError(
                f"samples {bad[:10]}{more} are not positive numbers; measure them again or leave them out"
            )

    def save(self, path: Path) -> None:
        """Write the predictor to a safetensors file, with what it is for."""
        quality = None if self.quality is None else asdict(self.quality)
        meta = {
            "format": FORMAT,
            "identity": asdict(self.identity),
            "facts": self.facts.digest,
            "quality": quality,
            "extra": self.extra(),
        }
        save_checkpoint(path, module_tensors(self), meta)

    def extra(self) -> dict[str, Any]:
        """Return JSON-able facts, beyond the tensors, that `restore` needs."""
        return {}

    def shapes(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Give buffers whose size depends on the samples the sizes of a file's tensors, by their names.

        Raises:
            KeyError, TypeError, ValueError: they are no sizes such a predictor can have.
        """
        residuals = tensors["residuals"]
        if residuals.ndim != 1 or residuals.dtype != torch.float64 or not bool(residuals.isfinite().all()):
            raise ValueError("its residuals are not a list of numbers")
        self.residuals = torch.zeros_like(residuals)

    def _require_numbers(self, tensors: dict[str, Tensor]) -> None:
        """Raise ValueError where a file's tensors, by name, are others, of other kinds or not finite."""
        if tensors.keys() != self.state_dict().keys():
            raise ValueError("its parts are not those of such a predictor")
        for name, own in self.state_dict().items():
            if tensors[name].shape != own.shape or tensors[name].dtype != own.dtype:
                raise ValueError(f"its {name} is of another size or kind")
            if not bool(tensors[name].isfinite().all()):
                raise ValueError(f"its {name} is not finite")

    def restore(self, path: Path) -> None:
        """Load what `save` wrote.

        Raises:
            DataError: the file is damaged, of another format, or fitted with other facts.
            UsageError: it is a predictor of another space, shape, device or metric.
        """
        try:
            tensors, told = load_checkpoint(path)
        except DataError as error:  # which advises on checkpoints of a training; a predictor is fitted again
            raise DataError(f"{path} is not a whole checkpoint of ehdnas") from error
        meta: Any = told  # whatever JSON is in the file
        found = meta.get("format") if isinstance(meta, dict) else None
        if found != FORMAT:
            raise DataError(f"{path} is of format {found if type(found) is int else 'unknown'}, not {FORMAT}")
        self._require_same(path, meta.get("identity"))
        if meta.get("facts") != self.facts.digest:
            raise DataError(f"{path} was fitted with other costs of the operations")
        own = tensors_of_module(tensors)
        try:
            self.quality = None if meta["quality"] is None else Quality.told(meta["quality"])
            self.shapes(own, meta["extra"])
            self._require_numbers(own)
        except (KeyError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else "a part is missing or of another kind"
            raise DataError(f"{path} is damaged: {reason}") from error
        restore_module(self, tensors, path)

    def _require_same(self, path: Path, theirs: Any) -> None:
        """Raise UsageError, naming what differs first, where a file's predictor is for something else."""
        told = theirs if isinstance(theirs, dict) else {}
        for name, own in asdict(self.identity).items():
            if told.get(name) != own:
                raise UsageError(f"{path} is of another {name} than '{own}'")
