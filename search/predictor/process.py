"""A Gaussian process over the features of architectures (Rasmussen and Williams, MIT Press, 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.features import Features
from ehdnas.search.predictor.warp import WARPS, Warp

_SEARCHED_ON = 400  # samples that the kernel is searched on; more bring little, and cost their cube
_ROUNDS = (40, 20, 15)
_RATE = 0.1
_FREEDOM = 4.0  # degrees of freedom of the noise: measurements have outliers
_LOOSE = 1.0  # the standard deviation of the prior on the log of each weight
_JITTER = 1e-6


class Process(nn.Module):
    """A fitted process: features [n, d] to the log of the value [n].

    The kernel is a linear one, by which every choice adds its cost, and a Matérn one of order 3/2 for what
    depends on choices together; each group of features has a weight of its own in either.
    """

    def __init__(self, features: int = 0, samples: int = 0) -> None:
        super().__init__()
        sizes = {"mean": (features,), "slope": (features,), "reach": (features,), "level": ()}
        sizes |= {"support": (samples, features), "pull": (samples,)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("kept", torch.zeros(features, dtype=torch.int64))
        self.mean: Tensor
        self.slope: Tensor
        self.reach: Tensor
        self.level: Tensor
        self.support: Tensor
        self.pull: Tensor
        self.kept: Tensor
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
        process, kept = Process(features, samples), tensors["kept"]
        for name, buffer in process.named_buffers():
            if tensors[name].shape != buffer.shape or tensors[name].dtype != buffer.dtype:
                raise ValueError(f"its {name} is not of the size of the rest")
        if features and not (int(kept.min()) >= 0 and int(kept.max()) < width):
            raise ValueError("it reads features that there are not")
        if not 0 <= int(tensors["warp.kind"]) < len(WARPS):
            raise ValueError("its scale is unknown")
        return process

    def forward(self, values: Tensor) -> Tensor:
        """Return the log of the metric [n] for the features [n, d] of architectures."""
        own = values[:, self.kept].double() - self.mean
        together = _matern(own * self.reach, self.support) @ self.pull
        log: Tensor = self.warp.log(own @ self.slope + together + self.level)
        return log


def fit_process(features: Features, values: Tensor, kind: str, seed: int) -> tuple[Process, Tensor]:
    """Fit a process to the features of samples and their values [n], positive and finite.

    Args:
        kind: the scale, one of `WARPS`.

    Returns:
        The process, and what it says [n] of the log of each sample when that one is left out.
    """
    kept = _informative(features.values)
    inputs = features.values[:, kept].double()
    process = Process()
    process.kept, process.mean, process.warp = kept, inputs.mean(0), Warp(kind)
    problem = _Problem(inputs - process.mean, _numbered(features.groups[kept]), process.warp.fit(values))
    rows = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:_SEARCHED_ON]
    kernel = problem.of(rows).searched()
    solution = problem.solved(kernel)
    process.level = kernel.level
    process.slope = kernel.linear.exp()[problem.groups].square() * (problem.inputs.T @ solution.pull)
    process.reach = kernel.reach.exp()[problem.groups]
    process.support = problem.inputs * process.reach
    process.pull = solution.pull * kernel.together.exp()
    return process, process.warp.log(problem.targets - solution.error)


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
    """The weights of the samples, by how much each is missed when left out, and how far that is trusted."""

    pull: Tensor
    error: Tensor
    variance: Tensor


@dataclass(frozen=True)
class _Problem:
    """Centred inputs [n, d], the group of each [d], standardised targets [n]."""

    inputs: Tensor
    groups: Tensor
    targets: Tensor

    def of(self, rows: Tensor) -> _Problem:
        return _Problem(self.inputs[rows], self.groups, self.targets[rows])

    @torch.enable_grad()
    def searched(self) -> _Kernel:
        """Return the kernel of the highest posterior, noise being Student's t (Jylänki et al., JMLR 2011)."""
        first = self._first()
        kernel = _Kernel(*(one.clone().requires_grad_() for one in first.all))
        optimizer = torch.optim.Adam(kernel.all, lr=_RATE)
        trust = torch.ones_like(self.targets)
        for steps in _ROUNDS:
            for _ in range(steps):
                loss = self._loss(kernel, trust) + _surprise(kernel, first)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                trust = _trust(self._solve(kernel, trust))
        return _Kernel(*(one.detach() for one in kernel.all))

    def solved(self, kernel: _Kernel) -> _Solution:
        """Return the solution for all samples, outliers trusted less."""
        with torch.no_grad():
            trust = torch.ones_like(self.targets)
            for _ in range(2):
                trust = _trust(self._solve(kernel, trust))
            return self._solve(kernel, trust)

    def _first(self) -> _Kernel:
        """Return a kernel to start from: each group explains as much, and the noise is small."""
        count = int(self.groups.max()) + 1 if len(self.groups) else 0
        variance = torch.zeros(count, dtype=torch.float64)
        variance.index_add_(0, self.groups, self.inputs.square().mean(0))
        each = -0.5 * (variance.clamp_min(1e-9) * max(count, 1)).log()
        together, noise, level = torch.tensor([math.log(0.1), math.log(0.05), 0.0], dtype=torch.float64)
        return _Kernel(each + 0.5 * math.log(0.5), each, together, noise, level)

    def _covariance(self, kernel: _Kernel, trust: Tensor) -> Tensor:
        straight = self.inputs * kernel.linear.exp()[self.groups]
        near = self.inputs * kernel.reach.exp()[self.groups]
        noise = kernel.noise.exp() / trust + _JITTER
        return straight @ straight.T + kernel.together.exp() * _matern(near, near) + torch.diag(noise)

    def _loss(self, kernel: _Kernel, trust: Tensor) -> Tensor:
        """Return the negative log marginal likelihood (equation 2.30), but for its constant."""
        factor = torch.linalg.cholesky(self._covariance(kernel, trust))
        error = (self.targets - kernel.level)[:, None]
        fit = (error * torch.cholesky_solve(error, factor)).sum() / 2
        loss: Tensor = fit + factor.diagonal().log().sum()
        return loss

    def _solve(self, kernel: _Kernel, trust: Tensor) -> _Solution:
        """Return the solution; the errors left out are in closed form (equations 5.10 to 5.12)."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._covariance(kernel, trust)))
        pull = inverse @ (self.targets - kernel.level)
        variance = inverse.diagonal().reciprocal()
        return _Solution(pull, pull * variance, variance)


def _trust(solution: _Solution) -> Tensor:
    """Return how far each sample is trusted, 1 on average: the E step for noise of Student's t."""
    surprise = solution.error.square() / solution.variance
    trust = (_FREEDOM + 1) / (_FREEDOM + surprise)
    return trust / trust.mean()


def _surprise(kernel: _Kernel, first: _Kernel) -> Tensor:
    """Return the negative log prior: weights are log-normal around those started from."""
    pairs = zip(kernel.all[:3], first.all[:3], strict=True)
    return torch.stack([(one - other).square().sum() for one, other in pairs]).sum() / (2 * _LOOSE**2)


def _matern(one: Tensor, other: Tensor) -> Tensor:
    """Return the Matérn kernel of order 3/2 (equation 4.17), [n, m], of scaled inputs [n, d] and [m, d]."""
    norms = one.square().sum(1)[:, None] + other.square().sum(1)
    distance = math.sqrt(3) * (norms - 2 * one @ other.T).clamp_min(0).add(1e-12).sqrt()
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
    return torch.unique(groups, return_inverse=True)[1]
