"""A Gaussian process over the features of architectures (Rasmussen and Williams, MIT Press, 2006)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.features import Features
from ehdnas.search.predictor.warp import WARPS, Warp

_MOST = 1500  # samples that a process holds; its cost grows by their cube
_SEARCHED_ON = 400  # samples that the kernel is searched on; more bring little, and cost their cube
_ROUNDS = (40, 20, 15)
_REWEIGHTED = 6  # rounds at most until the trust in each sample is settled,
_SETTLED = 0.02  # as it is when none changes by more
_RATE = 0.1
_FREEDOM = 4.0  # degrees of freedom of the noise: measurements have outliers
_LOOSE = 1.0  # the standard deviation of the prior on the log of each weight
_LOOSE_LEARNT = 0.5  # the same where another device's kernel is started from
_SINGLE = 0.25  # the weight of what is told edge by edge, in that of a count
_JITTER = 1e-6
_LEAST_SPREAD = 0.05  # what hardly ever happens is not blown up to the size of the rest
_SOLUTIONS = 2


class Process(nn.Module):
    """A fitted process: features [n, d] to two logs of the value [n, 2].

    The kernel is a linear one, by which every choice adds its cost, and a stationary one for what depends on
    choices together; each group of features has a weight of its own in either. There are two solutions: for
    normal noise, which outliers pull on, and for noise of Student's t, on which they hardly do. The kernel is
    kept, its weights by the groups' `names`: a process for another device starts from it.
    """

    def __init__(self, features: int = 0, samples: int = 0, groups: int = 0, smooth: bool = False) -> None:
        super().__init__()
        sizes = {"mean": (features,), "slope": (features, _SOLUTIONS), "reach": (features,), "level": ()}
        sizes |= {"support": (samples, features), "pull": (samples, _SOLUTIONS)}
        sizes |= {"linear": (groups,), "near": (groups,), "together": ()}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("kept", torch.zeros(features, dtype=torch.int64))
        self.register_buffer("names", torch.zeros(groups, dtype=torch.int64))
        self.register_buffer("smooth", torch.tensor(smooth))
        self.mean: Tensor
        self.slope: Tensor
        self.reach: Tensor
        self.level: Tensor
        self.support: Tensor
        self.pull: Tensor
        self.kept: Tensor
        self.linear: Tensor
        self.near: Tensor
        self.together: Tensor
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
        samples, features = tensors["support"].shape
        # A file's [0, 10**12] takes no bytes: sizes are believed where there are as many numbers.
        if tensors["mean"].shape != (features,) or tensors["pull"].shape != (samples, _SOLUTIONS):
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
        together = _stationary(own * self.reach, self.support, bool(self.smooth)) @ self.pull
        logs: Tensor = self.warp.log(own @ self.slope + together + self.level)
        return logs


def prior_covariance(process: Process, features: Features) -> Tensor:
    """Return the covariance [n, n] that a process's kernel gives features [n, d], nothing being measured."""
    inputs = features.values[:, process.kept].double() - process.mean
    group = torch.searchsorted(process.names, features.groups[process.kept])
    straight = inputs * process.linear.exp()[group]
    near = inputs * process.near.exp()[group]
    together = process.together.exp() * _stationary(near, near, bool(process.smooth))
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
    noisy = every[:known, :known] + (process.noise + _JITTER) * torch.eye(known, dtype=torch.float64)
    return _conditioned(every[known:, known:], every[known:, :known], noisy), process.noise


def _conditioned(own: Tensor, across: Tensor, noisy: Tensor) -> Tensor:
    """Return the covariance [m, m] that is left of `own` when n samples are known (equation 2.24).

    Args:
        across: of the two [m, n].
        noisy: of the samples, their noise included [n, n].
    """
    factor = torch.linalg.solve_triangular(torch.linalg.cholesky(noisy), across.T, upper=False)
    left: Tensor = own - factor.T @ factor
    return left


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
        self._shared: tuple[Tensor, _Kernel] | None = None

    def on(self, rows: Tensor) -> Process:
        """Return the process fitted to some rows, or to as many of them as a process can hold.

        Where there are more rows than the kernel is searched on, it is searched once: what so many say of
        a few dozen weights hardly depends on which of them are left out.
        """
        rows = self._some(rows, _MOST)
        problem, process = self._problem(rows, None)
        if len(rows) <= _SEARCHED_ON:
            kernel = problem.searched()
        else:
            kept, kernel = self._shared or self._search(rows)
            problem, process = self._problem(rows, kept)
        return problem.fill(process, kernel)

    def left_out_errors(self, rows: Tensor) -> Tensor:
        """Return by how much the log of each sample [n] would be off, were it left out by the same kernel."""
        problem, process = self._problem(rows, None)
        kernel = self._problem(self._some(rows, _SEARCHED_ON), process.kept)[0].searched()
        error = problem.solve(kernel).error
        logs = process.warp.log(problem.targets - error)
        return logs - self.values[rows].double().log()

    @torch.no_grad()
    def left_over(self, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the covariance [m, m] of others [m] that is left when rows are known, and the noise."""
        rows = self._some(rows, _MOST)
        problem, process = self._problem(rows, None)
        kernel = self._problem(self._some(rows, _SEARCHED_ON), process.kept)[0].searched()
        inputs = (self.inputs[others][:, process.kept] - process.mean) / problem.unit
        return problem.left_over(kernel, inputs), kernel.noise.exp()

    def _search(self, rows: Tensor) -> tuple[Tensor, _Kernel]:
        problem, process = self._problem(self._some(rows, _SEARCHED_ON), None)
        self._shared = process.kept, problem.searched()
        return self._shared

    def _some(self, rows: Tensor, most: int) -> Tensor:
        if len(rows) <= most:
            return rows
        generator = torch.Generator().manual_seed(self.seed)
        return rows[torch.randperm(len(rows), generator=generator)[:most]]

    def _problem(self, rows: Tensor, kept: Tensor | None) -> tuple[_Problem, Process]:
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
        names = torch.unique(self.groups[process.kept] if self.view.grouped else groups)
        problem = _Problem(inputs / unit, groups, single, targets, unit, names, self.view.smooth, self.prior)
        return problem, process


@dataclass(frozen=True)
class _Kernel:
    """The logs of the weights by group [g], of the Matérn kernel's and the noise's variance; the level."""

    linear: Tensor
    reach: Tensor
    together: Tensor
    noise: Tensor
    level: Tensor

    @property
    def all(self) -> list[Tensor]:
        return [self.linear, self.reach, self.together, self.noise, self.level]


@dataclass(frozen=True)
class _Solution:
    """The weights of the samples, by how much each is missed when left out, and the variance of that."""

    pull: Tensor
    error: Tensor
    variance: Tensor


@dataclass(frozen=True)
class _Problem:
    """Inputs [n, d], centred and divided by `unit` [d], the group of each [d], standardised targets [n]."""

    inputs: Tensor
    groups: Tensor
    single: Tensor
    targets: Tensor
    unit: Tensor
    names: Tensor
    smooth: bool
    prior: Process | None

    @torch.enable_grad()
    def searched(self) -> _Kernel:
        """Return the kernel of the highest posterior for the trust in each sample, the two found in turn."""
        first = self._first()
        kernel = _Kernel(*(one.clone().requires_grad_() for one in first.all))
        optimizer = torch.optim.Adam(kernel.all, lr=_RATE)
        trust = torch.ones_like(self.targets)
        for steps in _ROUNDS:
            for _ in range(steps):
                loss = self._loss(kernel, trust) + self._surprise(kernel, first)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            trust = _trust(self._solution(kernel, trust), kernel.noise.detach().exp(), trust)
        return _Kernel(*(one.detach() for one in kernel.all))

    def solve(self, kernel: _Kernel) -> _Solution:
        """Return the solution for noise of Student's t."""
        trust = torch.ones_like(self.targets)
        for _ in range(_REWEIGHTED):
            solution, before = self._solution(kernel, trust), trust
            trust = _trust(solution, kernel.noise.exp(), before)
            if float((trust - before).abs().max()) < _SETTLED:
                break
        return self._solution(kernel, trust)

    def fill(self, process: Process, kernel: _Kernel) -> Process:
        """Give a process what it needs to predict, and return it."""
        normal = self._solution(kernel, torch.ones_like(self.targets))
        pull = torch.stack([normal.pull, self.solve(kernel).pull], 1)
        linear = kernel.linear.exp()[self.groups, None].square()
        process.level = kernel.level
        process.slope = linear * (self.inputs.T @ pull) / self.unit[:, None]
        process.reach = kernel.reach.exp()[self.groups] / self.unit
        process.support = self.inputs * kernel.reach.exp()[self.groups]
        process.pull = pull * kernel.together.exp()
        process.names, process.linear, process.near = self.names, kernel.linear, kernel.reach
        process.together, process.noise = kernel.together, float(kernel.noise.exp())
        return process

    def left_over(self, kernel: _Kernel, inputs: Tensor) -> Tensor:
        """Return the covariance [m, m] of inputs [m, d] that is left when the samples are known."""
        noisy = self._covariance(kernel, torch.ones_like(self.targets))
        across = self._kernel(kernel, inputs, self.inputs)
        return _conditioned(self._kernel(kernel, inputs, inputs), across, noisy)

    def _first(self) -> _Kernel:
        """Return a kernel to start from: groups explain as much each, single edges less; little is noise."""
        count = int(self.groups.max()) + 1 if len(self.groups) else 0
        variance = torch.zeros(count, dtype=torch.float64)
        variance.index_add_(0, self.groups, self.inputs.square().mean(0))
        each = -0.5 * (variance.clamp_min(1e-9) * max(count, 1)).log()
        each[self.groups[self.single]] += math.log(_SINGLE)
        together, noise, level = torch.tensor([math.log(0.1), math.log(0.05), 0.0], dtype=torch.float64)
        linear, reach = each + 0.5 * math.log(0.5), each
        if self.prior is None:
            return _Kernel(linear, reach, together, noise, level)
        mine, theirs = (self.names[:, None] == self.prior.names).nonzero().unbind(1)
        linear[mine], reach[mine] = self.prior.linear[theirs], self.prior.near[theirs]
        return _Kernel(linear, reach, self.prior.together, noise, level)

    def _surprise(self, kernel: _Kernel, first: _Kernel) -> Tensor:
        """Return the negative log prior: weights are log-normal around those started from."""
        pairs = zip(kernel.all[:3], first.all[:3], strict=True)
        far = torch.stack([(one - other).square().sum() for one, other in pairs]).sum()
        return far / (2 * (_LOOSE if self.prior is None else _LOOSE_LEARNT) ** 2)

    def _covariance(self, kernel: _Kernel, trust: Tensor) -> Tensor:
        noise = kernel.noise.exp() / trust + _JITTER
        return self._kernel(kernel, self.inputs, self.inputs) + torch.diag(noise)

    def _kernel(self, kernel: _Kernel, one: Tensor, other: Tensor) -> Tensor:
        linear, reach = kernel.linear.exp()[self.groups], kernel.reach.exp()[self.groups]
        together: Tensor = kernel.together.exp() * _stationary(one * reach, other * reach, self.smooth)
        kernel_of: Tensor = (one * linear) @ (other * linear).T + together
        return kernel_of

    def _loss(self, kernel: _Kernel, trust: Tensor) -> Tensor:
        """Return what has the gradient of the negative log marginal likelihood (equation 5.9).

        Written out, it takes one inverse; going back through a Cholesky factor takes three times as long.
        """
        covariance = self._covariance(kernel, trust)
        with torch.no_grad():
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
            pull = inverse @ (self.targets - kernel.level)
            slope = (inverse - torch.outer(pull, pull)) / 2
        return (covariance * slope).sum() - pull.sum() * kernel.level

    @torch.no_grad()
    def _solution(self, kernel: _Kernel, trust: Tensor) -> _Solution:
        """Return the solution at some trust in the samples; errors by equation 5.12."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._covariance(kernel, trust)))
        pull = inverse @ (self.targets - kernel.level)
        variance = inverse.diagonal().reciprocal()
        return _Solution(pull, pull * variance, variance)


def _trust(solution: _Solution, noise: Tensor, trust: Tensor) -> Tensor:
    """Return how far each sample [n] is trusted, by its error when left out: the weight of Student's t.

    The weight (freedom + 1) / (freedom + error² / variance) of Lange, Little, Taylor (JASA 1989); the
    variance is that of a sample that is trusted in full, or an outlier's would excuse it.
    """
    variance = solution.variance - noise / trust + noise
    return (_FREEDOM + 1) / (_FREEDOM + solution.error.square() / variance)


def _stationary(one: Tensor, other: Tensor, smooth: bool) -> Tensor:
    """Return a kernel [n, m] of scaled inputs [n, d] and [m, d].

    The squared exponential where it is smooth (equation 4.9), else Matérn's of order 3/2 (equation 4.17).
    """
    norms: Tensor = one.square().sum(1)[:, None] + other.square().sum(1)
    squared: Tensor = (norms - 2 * one @ other.T).clamp_min(0)
    if smooth:
        return torch.exp(-squared / 2)
    distance = math.sqrt(3) * squared.add(1e-12).sqrt()
    kernel: Tensor = (1 + distance) * (-distance).exp()
    return kernel


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
