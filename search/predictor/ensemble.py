"""The project's predictor: Gaussian processes on what is known of networks, weighed by held-out error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.base import Identity, Predictor, folds_of
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import alone, effective, whole
from ehdnas.search.predictor.levels import Levels
from ehdnas.search.predictor.process import Fit, Process, View
from ehdnas.search.predictor.warp import WARPS

_VIEWS = (View(effective), View(whole), View(alone, grouped=False, smooth=True))
_SCALE_ON = 150  # samples that the scale is chosen on
_BETTER = 0.85  # a scale other than the value's own has to be this much better
_SIMPLEX = [(a / 10, b / 10, (10 - a - b) / 10) for a in range(11) for b in range(11 - a)]
_EVEN = 20  # so many samples' worth of belief that both views are good


class EnsemblePredictor(Predictor):
    """Processes that see what work cannot be left out, all there is, and the former with little to learn."""

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts)
        self.members = nn.ModuleList(Process() for _ in _VIEWS)
        self.register_buffer("shares", torch.full((len(_VIEWS), 2), 0.5 / len(_VIEWS), dtype=torch.float64))
        self.shares: Tensor
        self.levels = Levels()
        self.scale = WARPS[0]

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""
        logs = [
            member(view.features(gates.double(), self.facts).values)
            for member, view in zip(self.members, _VIEWS, strict=True)
        ]
        out: Tensor = self.levels(self._mixed(torch.stack(logs, 1))).to(gates.dtype)
        return out

    def _mixed(self, logs: Tensor) -> Tensor:
        """Return the mean [n] of the members' logs [n, members, 2] by their shares."""
        return (logs * self.shares).sum((1, 2))

    @torch.no_grad()
    def held_out(self, gates: Tensor, values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return rows [m] and the logs [m] told without them; choose scale, shares and levels by them."""
        fits_by = {kind: self._fits(gates, values, kind, seed) for kind in WARPS}
        self.scale = _scale_for(fits_by, len(values), seed)
        fits = fits_by[self.scale]
        rows, logs = [], []
        for fold, kept in folds_of(len(values), seed):
            said = [fit.on(kept)(fit.inputs[fold]) for fit in fits]
            rows.append(fold)
            logs.append(torch.stack(said, 1))
        order, every = torch.cat(rows), torch.cat(logs)
        truth = values[order].double().log()
        self.shares = _shares(every, truth)
        self.levels.learn(self._mixed(every), truth)
        return order, self.levels(self._mixed(every))

    @torch.no_grad()
    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit each process to all samples."""
        for at, fit in enumerate(self._fits(gates, values, self.scale, seed)):
            self.members[at] = fit.on(torch.arange(len(values)))

    def _fits(self, gates: Tensor, values: Tensor, kind: str, seed: int) -> list[Fit]:
        features = [view.features(gates.double(), self.facts) for view in _VIEWS]
        return [Fit(view, one, values, kind, seed) for view, one in zip(_VIEWS, features, strict=True)]

    def extra(self) -> dict[str, Any]:
        """Return the scale, which the processes' buffers hold too, for people to read."""
        return {"scale": self.scale}

    def shapes(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Make processes of the sizes that a file's tensors say."""
        width = [view.features(self._one_gate(), self.facts).values.shape[1] for view in _VIEWS]
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


def _scale_for(fits: dict[str, list[Fit]], count: int, seed: int) -> str:
    """Return the scale on which left-out samples are predicted best, the value's own unless it is worse."""
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_SCALE_ON]
    errors = {
        kind: min(float(fit.left_out_errors(rows).abs().mean()) for fit in own if fit.view.grouped)
        for kind, own in fits.items()
    }
    best = min(errors, key=lambda kind: errors[kind])
    return best if errors[best] < _BETTER * errors[WARPS[0]] else WARPS[0]


def _shares(logs: Tensor, truth: Tensor) -> Tensor:
    """Return the shares [k, 2] in which held-out logs [n, k, 2] are nearest to the truth [n].

    They are drawn to even ones as far as there are few samples. Near is judged by the mean error and by how
    many are off by more than a tenth, which is what users are told.
    """
    grid = [_grid(shares, robust) for shares in _SIMPLEX for robust in (0.5, 1.0)]

    def cost(shares: Tensor) -> float:
        error = ((logs * shares).sum((1, 2)) - truth).abs()
        return float(error.mean() + 0.1 * (error > 0.1).double().mean())

    best = min(grid, key=cost)
    return (len(truth) * best + _EVEN * torch.full_like(best, 1 / best.numel())) / (len(truth) + _EVEN)


def _grid(shares: tuple[float, ...], robust: float) -> Tensor:
    return torch.outer(
        torch.tensor(shares, dtype=torch.float64), torch.tensor([1 - robust, robust], dtype=torch.float64)
    )
