"""A Gaussian process over the features of architectures (Rasmussen and Williams, MIT Press, 2006)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import Features
from ehdnas.search.predictor.kernel import JITTER, Kernel, conditioned, stationary
from ehdnas.search.predictor.regression import Regression
from ehdnas.search.predictor.warp import WARPS, Warp

_MOST = 1500  # samples that a process holds; its cost grows by their cube
_SEARCHED_ON = 400  # samples that the kernel is searched on; more bring little, and cost their cube
_LEAST_SPREAD = 0.05  # what hardly ever happens is not blown up to the size of the rest
_SOLUTIONS = 2


class Process(nn.Module):
    """A fitted process: features [n, d] to two logs of the value [n, 2].

    The kernel is a linear one, by which every choice adds its cost, and a stationary one for what depends on
    choices together; each group of features has a weight of its own in either. There are two solutions: for
    normal noise, which outliers pull on, and for noise of Student's t, on which they hardly do. The kernel is
    kept (`linear`, `scales`, `amplitude`: see `Kernel`), its weights by the groups' `names`: a process for
    another device starts from it.
    """

    def __init__(self, features: int = 0, samples: int = 0, groups: int = 0, smooth: bool = False) -> None:
        super().__init__()
        sizes = {
            "mean": (features,),
            "slope": (features, _SOLUTIONS),
            "inverse_lengths": (features,),
            "constant": (),
        }
        sizes |= {"support": (samples, features), "alpha": (samples, _SOLUTIONS)}
        sizes |= {"linear": (groups,), "scales": (groups,), "amplitude": ()}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("kept", torch.zeros(features, dtype=torch.int64))
        self.register_buffer("names", torch.zeros(groups, dtype=torch.int64))
        self.register_buffer("smooth", torch.tensor(smooth))
        self.mean: Tensor
        self.slope: Tensor
        self.inverse_lengths: Tensor
        self.constant: Tensor
        self.support: Tensor
        self.alpha: Tensor
        self.kept: Tensor
        self.linear: Tensor
        self.scales: Tensor
        self.amplitude: Tensor
        self.names: Tensor
        self.smooth: Tensor
        self.noise: float | None = None
        """The variance of the targets' noise, where it was just fitted: files do not hold it."""
        self.warp = Warp()

    @staticmethod
    def shaped_like(tensors: dict[str, Tensor], width: int) -> Process:
        """Return a process whose buffers have the sizes of a file's tensors.

        Args:
            width: how many features there are to choose from.

        Raises:
            KeyError, ValueError: they are no process on such features.
        """
        if tensors["support"].ndim != 2:
            raise ValueError("its support is no table")
        samples, features = tensors["support"].shape
        # A file's [0, 10**12] takes no bytes: sizes are believed where there are as many numbers.
        if tensors["mean"].shape != (features,) or tensors["alpha"].shape != (samples, _SOLUTIONS):
            raise ValueError("its support is not of the size of the rest")
        process, kept = Process(features, samples, tensors["names"].numel()), tensors["kept"]
        for name, buffer in process.named_buffers():
            if tensors[name].shape != buffer.shape or tensors[name].dtype != buffer.dtype:
                raise ValueError(f"its {name} is not of the size of the rest")
        if features and not (int(kept.min()) >= 0 and int(kept.max()) < width):
            raise ValueError("it reads features that there are not")
        if not 0 <= int(tensors["warp.kind"]) < len(WARPS):
            raise ValueError("its scale is unknown")
        if WARPS[int(tensors["warp.kind"])] != "log" and not float(tensors["warp.floor"]) > 0:
            raise ValueError("its floor is not above 0")
        return process

    def forward(self, values: Tensor) -> Tensor:
        """Return the logs of the metric [n, 2], by normal and by robust noise, for the features [n, d]."""
        own = values[:, self.kept].double() - self.mean
        together = stationary(own * self.inverse_lengths, self.support, bool(self.smooth)) @ self.alpha
        logs: Tensor = self.warp.log(own @ self.slope + together + self.constant)
        return logs

    @property
    def kernel(self) -> Kernel:
        """The kernel to start from; its noise was another device's."""
        unknown = torch.zeros((), dtype=torch.float64)
        return Kernel(self.linear, self.scales, self.amplitude, unknown, self.constant)


def prior_covariance(process: Process, features: Features) -> Tensor:
    """Return the covariance [n, n] that a process's kernel gives features [n, d], nothing being measured."""
    inputs = features.values[:, process.kept].double() - process.mean
    group = torch.searchsorted(process.names, features.groups[process.kept])
    straight = inputs * process.linear.exp()[group]
    scaled = inputs * process.scales.exp()[group]
    together = process.amplitude.exp() * stationary(scaled, scaled, bool(process.smooth))
    covariance: Tensor = straight @ straight.T + together
    return covariance


@torch.no_grad()
def left_over(process: Process, features: Features, known: int) -> tuple[Tensor, float]:
    """Return what `Fit.left_over` does, by the kernel that a process was just fitted with.

    Known are the first of the networks, those it was fitted to; the covariance is that of the others.
    Raises ValueError for a process from a file, whose noise is not known.
    """
    if process.noise is None:
        raise ValueError("a process from a file does not know its noise; fit it")
    every = prior_covariance(process, features)
    noisy = every[:known, :known] + (process.noise + JITTER) * torch.eye(known, dtype=torch.float64)
    return conditioned(every[known:, known:], every[known:, :known], noisy), process.noise


@dataclass(frozen=True)
class View:
    """Features of architectures as one process sees them.

    With `grouped` each group of features has its own weights; without, all have the same, in units of
    their spread, which leaves little to be learnt from few samples. `smooth` says which stationary
    kernel is taken.
    """

    features: Callable[[Tensor, SpaceFacts], Features]
    grouped: bool = True
    smooth: bool = False


class Fit:
    """Processes fitted to subsets of the same samples: values [n] above 0 by features [n, d]."""

    def __init__(
        self,
        view: View,
        features: Features,
        values: Tensor,
        kind: str,
        seed: int,
        prior: Process | None = None,
    ) -> None:
        self.view, self.values, self.kind, self.seed, self.prior = view, values, kind, seed, prior
        self.inputs, self.groups, self.single = features.values.double(), features.groups, features.single
        self._shared: tuple[Tensor, Kernel] | None = None

    def on(self, rows: Tensor) -> Process:
        """Return the process fitted to some rows, or to as many of them as a process can hold.

        Where there are more rows than the kernel is searched on, it is searched once: what so many say of
        a few dozen weights hardly depends on which of them are left out.
        """
        rows = self._some(rows, _MOST)
        regression, process = self._regression(rows, None)
        if len(rows) <= _SEARCHED_ON:
            kernel = regression.searched()
        else:
            kept, kernel = self._shared or self._search(rows)
            regression, process = self._regression(rows, kept)
        return _filled(process, regression, kernel)

    def left_out_errors(self, rows: Tensor) -> Tensor:
        """Return by how much the log of each sample [n] would be off, were it left out by the same kernel."""
        regression, process = self._regression(rows, None)
        kernel = self._regression(self._some(rows, _SEARCHED_ON), process.kept)[0].searched()
        error = regression.solve(kernel).error
        logs = process.warp.log(regression.targets - error)
        return logs - self.values[rows].double().log()

    @torch.no_grad()
    def left_over(self, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the covariance [m, m] of others [m] that is left when rows are known, and the noise."""
        rows = self._some(rows, _MOST)
        regression, process = self._regression(rows, None)
        kernel = self._regression(self._some(rows, _SEARCHED_ON), process.kept)[0].searched()
        inputs = (self.inputs[others][:, process.kept] - process.mean) / regression.unit
        return regression.left_over(kernel, inputs), kernel.noise.exp()

    def _search(self, rows: Tensor) -> tuple[Tensor, Kernel]:
        regression, process = self._regression(self._some(rows, _SEARCHED_ON), None)
        self._shared = process.kept, regression.searched()
        return self._shared

    def _some(self, rows: Tensor, most: int) -> Tensor:
        if len(rows) <= most:
            return rows
        generator = torch.Generator().manual_seed(self.seed)
        return rows[torch.randperm(len(rows), generator=generator)[:most]]

    def _regression(self, rows: Tensor, kept: Tensor | None) -> tuple[Regression, Process]:
        inputs, process = self.inputs[rows], Process(smooth=self.view.smooth)
        process.kept = _informative(inputs) if kept is None else kept
        inputs = inputs[:, process.kept]
        process.mean, process.warp = inputs.mean(0), Warp(self.kind)
        targets = process.warp.fit(self.values[rows])
        inputs = inputs - process.mean
        if self.view.grouped:
            groups, unit = _numbered(self.groups[process.kept]), torch.ones_like(process.mean)
            single = self.single[process.kept]
        else:
            groups, unit = torch.zeros_like(process.kept), torch.ones_like(process.mean)
            if len(unit):  # torch warns of the spread of nothing
                unit = inputs.std(0).clamp_min(_LEAST_SPREAD)
            single = torch.zeros_like(groups, dtype=torch.bool)
        prior = None if self.prior is None else (self.prior.names, self.prior.kernel)
        names = torch.unique(self.groups[process.kept] if self.view.grouped else groups)
        regression = Regression(inputs / unit, groups, single, targets, unit, names, self.view.smooth, prior)
        return regression, process


def _filled(process: Process, regression: Regression, kernel: Kernel) -> Process:
    """Give a process what it needs to predict, and return it."""
    inputs, groups, unit = regression.inputs, regression.groups, regression.unit
    normal = regression.solution(kernel, torch.ones_like(regression.targets))
    alpha = torch.stack([normal.alpha, regression.solve(kernel).alpha], 1)
    linear = kernel.linear.exp()[groups, None].square()
    process.constant = kernel.constant
    process.slope = linear * (inputs.T @ alpha) / unit[:, None]
    process.inverse_lengths = kernel.scales.exp()[groups] / unit
    process.support = inputs * kernel.scales.exp()[groups]
    process.alpha = alpha * kernel.amplitude.exp()
    process.names, process.linear, process.scales = regression.names, kernel.linear, kernel.scales
    process.amplitude, process.noise = kernel.amplitude, float(kernel.noise.exp())
    return process


def _informative(values: Tensor) -> Tensor:
    """Return the columns of [n, d] that vary and are not a copy of one before."""
    columns = torch.unique(values, dim=1, return_inverse=True)[1].tolist()
    firsts = {column: at for at, column in reversed(list(enumerate(columns)))}
    varies = (values != values[:1]).any(0)
    return torch.tensor([at for at in sorted(firsts.values()) if varies[at]], dtype=torch.int64)


def _numbered(groups: Tensor) -> Tensor:
    """Return groups as consecutive numbers from 0."""
    numbers: Tensor = torch.unique(groups, return_inverse=True)[1]
    return numbers
