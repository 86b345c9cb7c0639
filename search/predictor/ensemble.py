"""The project's predictor: Gaussian processes on what is known of networks, weighed by held-out error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.base import Identity, Predictor, folds_of
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import Features, alone, effective, whole
from ehdnas.search.predictor.levels import Levels
from ehdnas.search.predictor.network import Network, fit_network
from ehdnas.search.predictor.process import Fit, Process, View
from ehdnas.search.predictor.warp import WARPS

_VIEWS = (View(effective), View(whole), View(alone, grouped=False, smooth=True))
_MANY_VIEWS = (*_VIEWS, View(whole, grouped=False, smooth=True))
_MANY_FROM = 500  # samples, from where on there can be more members; fewer samples lead the shares astray
_EVERYTHING = 1  # the view of all there is
_LEAST_SHARE = 0.01  # of a member that is heard
_SCALE_ON = 150  # samples that the scale is chosen on
_BETTER = 0.85  # a scale other than the value's own has to be this much better
_HEARD = 1.03  # another device's word has to lower the error by so much
_EVEN = 10  # so many samples' worth of belief that all members are good
_PARTS = 5  # of the held-out logs; where there are five folds, the folds
_NEAR = 0.1  # an error that users can live with
_EDGE = 0.01  # how sharply errors around that count as more; a step would follow single samples
_FINE = 5  # members among which shares are told apart by tenths; among more, by fifths
_NETWORK_FROM = 2000  # samples, from where on a perceptron is fitted beside the processes


class EnsemblePredictor(Predictor):
    """Processes that see what work cannot be left out, all there is, and the former with little to learn.

    From some hundred samples on one joins them that sees all there is with little to learn, and each is
    there on the metric's log too; from a few thousand on a perceptron joins. With a `source`, a predictor
    of another device, the search for each kernel starts from its kernel; what it says of a network is one
    more feature where that helps, as it does between alike devices and not between others.
    """

    def __init__(
        self,
        identity: Identity,
        facts: SpaceFacts = SpaceFacts(),  # noqa: B008 - frozen
        source: EnsemblePredictor | None = None,
    ) -> None:
        super().__init__(identity, facts)
        self.source = source
        self.members = nn.ModuleList(Process() for _ in _VIEWS)
        self.register_buffer("shares", torch.full((len(_VIEWS), 2), 0.5 / len(_VIEWS), dtype=torch.float64))
        self.shares: Tensor
        self.levels = Levels()
        self.parts = _parts(WARPS[:1], len(_VIEWS))
        self.echoes = False
        self._tried: list[Fit] = []  # of the processes, while they are fitted

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""
        seen = [features.values for features in self.seen(gates)]
        views = [view for _, view in self.parts]
        # The perceptron, where there is one, comes last.
        views += [_EVERYTHING] * (len(self.members) - len(views))
        heard = (self.shares > 0).any(1)
        trios = zip(self.members, views, heard.tolist(), strict=True)
        logs = [member(seen[view]) for member, view, is_heard in trios if is_heard]
        out: Tensor = self.levels(_mixed(torch.stack(logs, 1), self.shares[heard])).to(gates.dtype)
        return out

    def seen(self, gates: Tensor) -> list[Features]:
        """Return what each view shows of gates [n, slots, choices]; few samples do without the last."""
        views = [view.features(gates.double(), self.facts) for view in _MANY_VIEWS]
        if self.source is None or not self.echoes:
            return views
        told = self.source.log_value(gates.double())
        return [view.beside(torch.stack([told, told.exp()], 1)) for view in views]

    @torch.no_grad()
    def held_out(self, gates: Tensor, values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return rows [m] and the logs [m] told without them; choose echoes, parts, shares and levels.

        What is returned is mixed by shares and levels that had not seen it either. The choice of scales and
        echoes did, and from a few hundred samples on the kernel's search.
        """
        trials = []
        for echoes in (False,) if self.source is None else (False, True):
            self.echoes = echoes
            rows, every = self._trial(gates, values, seed)
            truth = values[rows].double().log()
            shares = _shares(every, truth)
            error = float((_mixed(every, shares) - truth).abs().mean())
            found = (echoes, self.parts, self._tried, shares, rows, every)
            trials.append((error * (_HEARD if echoes else 1), found))
        _, found = min(trials, key=lambda trial: trial[0])
        self.echoes, self.parts, self._tried, self.shares, rows, every = found
        kept = self._drop_unheard()
        truth, self.levels = values[rows].double().log(), Levels()
        self.levels.learn(_mixed(every[:, kept], self.shares), truth, values.double().log())
        return rows, _crossed(every, truth)

    def _trial(self, gates: Tensor, values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return rows [m] and the members' logs [m, members, 2] told without them; choose the parts."""
        seen = self.seen(gates)
        fits_by = {kind: self._fits(seen, values, kind, seed) for kind in WARPS}
        scales = _scales_for(fits_by, len(values), seed)
        self.parts = _parts(scales, len(fits_by[scales[0]]))
        fits = self._tried = [fits_by[scale][view] for scale, view in self.parts]
        rows, logs = [], []
        for fold, kept in folds_of(len(values), seed):
            members = _members(fits, kept, len(values))
            told = [member(fit.inputs[fold]) for member, fit in members]
            rows.append(fold)
            logs.append(torch.stack(told, 1))
        return torch.cat(rows), torch.cat(logs)

    @torch.no_grad()
    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit each member to all samples, many of them with the kernel that was held out for the shares."""
        if not self._tried:  # nothing was held out
            scale = self.parts[0][0]
            self._tried = self._fits(self.seen(gates), values, scale, seed)
            self.parts = _parts([scale], len(self._tried))
        members = _members(self._tried, torch.arange(len(values)), len(values))
        self._tried = []
        self.members = nn.ModuleList(member for member, _ in members)
        if len(self.shares) != len(members):  # nothing speaks for any of them
            self.shares = torch.full((len(members), 2), 0.5 / len(members), dtype=torch.float64)

    def extra(self) -> dict[str, Any]:
        """Return the scale and the view of each process, and the source."""
        own = {"parts": [list(part) for part in self.parts]}
        if self.source is None:
            return own
        source = {"identity": asdict(self.source.identity), "extra": self.source.extra()}
        return {**own, "source": source, "echoes": self.echoes}

    def shapes(self, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Make source and members of the sizes that a file's tensors say."""
        if "source" in extra:
            who, own = Identity(**extra["source"]["identity"]), self.identity
            if (who.space, who.slots, who.choices) != (own.space, own.slots, own.choices):
                raise ValueError("its source is of another space")
            if "source" in extra["source"]["extra"]:
                raise ValueError("its source has a source")
            self.source = EnsemblePredictor(who, self.facts)
            self.echoes = bool(extra["echoes"])
            self.source.shapes(_under(tensors, "source."), extra["source"]["extra"])
        super().shapes(tensors, extra)
        one = torch.zeros(1, self.identity.slots, self.identity.choices, dtype=torch.float64)
        widths = [features.values.shape[1] for features in self.seen(one)]
        try:
            self.parts = [(str(scale), int(view)) for scale, view in extra["parts"]]
        except ValueError as error:
            raise ValueError("its processes are no list of scales and views") from error
        if not self.parts or not all(0 <= view < len(widths) for _, view in self.parts):
            raise ValueError("it has no processes, or some without a view")
        members: list[nn.Module] = [
            Process.shaped_like(_under(tensors, f"members.{at}."), widths[view])
            for at, (_, view) in enumerate(self.parts)
        ]
        if _under(tensors, f"members.{len(members)}."):
            members.append(Network(widths[_EVERYTHING]))
        self.members = nn.ModuleList(members)
        told = tensors["shares"]
        if told.dtype != torch.float64 or not bool((told > 0).any()):
            raise ValueError("it heeds none of its members")
        self.shares = torch.ones(len(members), 2, dtype=torch.float64)
        self.levels.shape_like(tensors["levels.logs"], tensors["levels.often"])

    def _fits(self, seen: list[Features], values: Tensor, kind: str, seed: int) -> list[Fit]:
        views = _MANY_VIEWS if len(values) >= _MANY_FROM else _VIEWS
        priors = {} if self.source is None else self.source.by_view
        return [
            Fit(view, one, values, kind, seed, priors.get(at))
            for at, (view, one) in enumerate(zip(views, seen, strict=False))
        ]

    def _drop_unheard(self) -> list[int]:
        """Leave out members with hardly a share, and return which ones stay.

        Those of the first scale stay, unheard: another device may start from their kernels.
        """
        self.shares = self.shares * (self.shares.sum(1, keepdim=True) >= _LEAST_SHARE)
        self.shares = self.shares / self.shares.sum()
        heard = (self.shares > 0).any(1).tolist()
        first = self.parts[0][0]
        processes = [at for at, (scale, _) in enumerate(self.parts) if heard[at] or scale == first]
        kept = processes + list(range(len(self.parts), len(heard)))
        self.parts, self.shares = [self.parts[at] for at in processes], self.shares[kept]
        self._tried = [self._tried[at] for at in processes]
        return kept

    @property
    def processes(self) -> list[Process]:
        """The fitted processes, one for each of the parts."""
        return [member for member in self.members if isinstance(member, Process)]

    @property
    def by_view(self) -> dict[int, Process]:
        """A fitted process for each view, that on the first scale."""
        pairs = zip(self.processes, self.parts, strict=True)
        return {view: process for process, (scale, view) in pairs if scale == self.parts[0][0]}


def _parts(scales: Sequence[str], views: int) -> list[tuple[str, int]]:
    """Return the scale and the view of each process there is to be."""
    return [(scale, view) for scale in scales for view in range(views)]


def _mixed(logs: Tensor, shares: Tensor) -> Tensor:
    """Return the mean [n] of the members' logs [n, members, 2] by their shares."""
    return (logs * shares).sum((1, 2))


def _crossed(logs: Tensor, truth: Tensor) -> Tensor:
    """Return held-out logs [n, k, 2] mixed, each fifth by shares and levels found on the others, [n]."""
    told = torch.empty_like(truth)
    parts = torch.arange(len(truth)).tensor_split(_PARTS)
    for at, part in enumerate(parts):
        others = torch.cat(parts[:at] + parts[at + 1 :])
        shares, levels = _shares(logs[others], truth[others]), Levels()
        levels.learn(_mixed(logs[others], shares), truth[others], truth[others])
        told[part] = levels(_mixed(logs[part], shares))
    return told


def _members(fits: list[Fit], rows: Tensor, count: int) -> list[tuple[nn.Module, Fit]]:
    """Return the members fitted to some of `count` samples, each with the fit whose inputs it reads.

    Args:
        fits: one a process, the first ones of the views in order.
    """
    members: list[tuple[nn.Module, Fit]] = [(fit.on(rows), fit) for fit in fits]
    if count >= _NETWORK_FROM:
        everything = fits[_EVERYTHING]
        network = fit_network(everything.inputs[rows], everything.values[rows], everything.seed)
        members.append((network, everything))
    return members


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _scales_for(fits: dict[str, list[Fit]], count: int, seed: int) -> tuple[str, ...]:
    """Return the scale on which left-out samples are predicted best, the value's own unless it is worse.

    Where there are samples enough for the shares to choose, the log is the second one.
    """
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_SCALE_ON]
    errors = {
        kind: min(float(fit.left_out_errors(rows).abs().mean()) for fit in own if fit.view.grouped)
        for kind, own in fits.items()
    }
    best = min(errors, key=lambda kind: errors[kind])
    first = best if errors[best] < _BETTER * errors[WARPS[0]] else WARPS[0]
    return (first, "log") if count >= _MANY_FROM and first != "log" else (first,)


def _shares(logs: Tensor, truth: Tensor) -> Tensor:
    """Return the shares [k, 2] in which held-out logs [n, k, 2] are nearest to the truth [n].

    They are drawn to even ones as far as there are few samples. Near is judged by the mean error and by how
    many are off by more than a tenth, which is what users are told; with many samples by the order too.
    """
    grid = _grid(logs.shape[1])
    told = logs.flatten(1) @ grid.flatten(1).T
    loss = _loss(told - truth[:, None])
    if len(truth) >= _MANY_FROM:
        loss = loss + 1 - _rank_correlation(told, truth)
    return _shrunk(grid[loss.argmin()], len(truth))


def _rank_correlation(told: Tensor, truth: Tensor) -> Tensor:
    """Return Spearman's rank correlation [m] of columns [n, m] with the truth [n]."""
    ranks, true = (one.argsort(0).argsort(0).double() for one in (told, truth))
    ranks, true = ranks - ranks.mean(), true - true.mean()
    correlation: Tensor = true @ ranks / true.square().sum()
    return correlation


def _loss(error: Tensor) -> Tensor:
    """Return the mean size [m] of errors of logs [n, m], and how many are off by more than a tenth."""
    lower, upper = math.log1p(-_NEAR), math.log1p(_NEAR)
    beyond = ((error - upper) / _EDGE).sigmoid() + ((lower - error) / _EDGE).sigmoid()
    return (error.abs() + beyond).mean(0)


def _shrunk(shares: Tensor, count: int) -> Tensor:
    """Return shares [k, 2] drawn towards even ones, the less the more samples they were found on."""
    return (count * shares + _EVEN / shares.numel()) / (count + _EVEN)


def _simplex(parts: int, steps: int) -> list[tuple[float, ...]]:
    """Return the ways to share one among some parts in equal steps."""
    bars = combinations(range(steps + parts - 1), parts - 1)
    ends = ((-1, *each, steps + parts - 1) for each in bars)
    return [tuple((after - before - 1) / steps for before, after in pairwise(each)) for each in ends]


def _grid(parts: int) -> Tensor:
    """Return shares [m, parts, 2] to choose from: of the parts, and of normal and robust noise in all."""
    noises = [torch.tensor([1 - robust, robust], dtype=torch.float64) for robust in (0.0, 0.5, 1.0)]
    simplex = torch.tensor(_simplex(parts, 10 if parts <= _FINE else 5), dtype=torch.float64)
    return torch.stack([torch.outer(shares, noise) for shares in simplex for noise in noises])
