"""The project's predictor: Gaussian processes on what is known of networks, weighed by held-out error."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.base import Identity, Predictor, folds_of
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import Features, effective, whole
from ehdnas.search.predictor.levels import Levels
from ehdnas.search.predictor.process import Process, fit_process
from ehdnas.search.predictor.warp import WARPS

_VIEWS: tuple[Callable[[Tensor, SpaceFacts], Features], ...] = (effective, whole)
_SCALE_ON = 150  # samples that the scale is chosen on
_BETTER = 0.95  # a scale other than the value's own has to be this much better
_EVEN = 20  # so many samples' worth of belief that both views are as good


class EnsemblePredictor(Predictor):
    """A process that sees what work cannot be left out, and one that sees everything, on the same scale."""

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts)
        self.members = nn.ModuleList(Process() for _ in _VIEWS)
        self.register_buffer("shares", torch.full((len(_VIEWS),), 1 / len(_VIEWS), dtype=torch.float64))
        self.shares: Tensor
        self.levels = Levels()
        self.scale = WARPS[0]

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""
        logs = [
            member(view(gates.double(), self.facts).values)
            for member, view in zip(self.members, _VIEWS, strict=True)
        ]
        out: Tensor = self.levels(torch.stack(logs, 1) @ self.shares).to(gates.dtype)
        return out

    def held_out(self, gates: Tensor, values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return rows [m] and the logs [m] told without them; choose scale, shares and levels by them."""
        views = [view(gates.double(), self.facts) for view in _VIEWS]
        self.scale = _scale_for(views[0], values, seed)
        rows, logs = [], []
        for fold, kept in folds_of(len(values), seed):
            with torch.no_grad():
                said = [
                    fit_process(_of(view, kept), values[kept], self.scale, seed)[0](view.values[fold])
                    for view in views
                ]
            rows.append(fold)
            logs.append(torch.stack(said, 1))
        order, every = torch.cat(rows), torch.cat(logs)
        truth = values[order].double().log()
        self.shares = _shares(every, truth)
        self.levels.learn(every @ self.shares, truth)
        return order, self.levels(every @ self.shares)

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit both processes to all samples."""
        for at, view in enumerate(_VIEWS):
            features = view(gates.double(), self.facts)
            self.members[at] = fit_process(features, values, self.scale, seed)[0]

    def extra(self) -> dict[str, Any]:
        """Return the scale, which the processes' buffers hold too, for people to read."""
        return {"scale": self.scale}

    def shapes(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Make processes of the sizes that a file's tensors say."""
        width = [view(self._one_gate(), self.facts).values.shape[1] for view in _VIEWS]
        for at in range(len(_VIEWS)):
            own = f"model.members.{at}."
            self.members[at] = Process.shaped_like(
                {name.removeprefix(own): one for name, one in tensors.items() if name.startswith(own)},
                width[at],
            )
        self.levels.shape_like(tensors["model.levels.logs"], tensors["model.levels.often"])
        self.scale = str(extra["scale"])

    def _one_gate(self) -> Tensor:
        return torch.zeros(1, self.identity.slots, self.identity.choices, dtype=torch.float64)


def _of(features: Features, rows: Tensor) -> Features:
    return Features(features.values[rows], features.groups)


def _scale_for(features: Features, values: Tensor, seed: int) -> str:
    """Return the scale on which left-out samples are predicted best, the value's own unless it is worse."""
    rows = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:_SCALE_ON]
    truth = values[rows].double().log()
    errors = {
        kind: float((fit_process(_of(features, rows), values[rows], kind, seed)[1] - truth).abs().mean())
        for kind in WARPS
    }
    best = min(errors, key=lambda kind: errors[kind])
    return best if errors[best] < _BETTER * errors[WARPS[0]] else WARPS[0]


def _shares(logs: Tensor, truth: Tensor) -> Tensor:
    """Return the shares [k] of least mean error of the members' logs [n, k], drawn towards even ones."""
    steps = torch.linspace(0, 1, 11, dtype=torch.float64).tolist()
    grid = [
        torch.tensor(shares, dtype=torch.float64)
        for shares in product(steps, repeat=logs.shape[1])
        if abs(sum(shares) - 1) < 1e-9
    ]
    best = min(grid, key=lambda shares: float((logs @ shares - truth).abs().mean()))
    even = torch.full_like(best, 1 / len(best))
    return (len(truth) * best + _EVEN * even) / (len(truth) + _EVEN)
