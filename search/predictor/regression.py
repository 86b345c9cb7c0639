"""Gaussian process regression: the kernel found, and solved for normal noise and for Student's t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ehdnas.search.predictor.kernel import JITTER, Kernel, conditioned, stationary

_ROUNDS = (40, 20, 15)
_REWEIGHTED = 6  # rounds at most until the weights of the samples are settled,
_SETTLED = 0.02  # as they are when none changes by more
_RATE = 0.1
_FREEDOM = 4.0  # degrees of freedom of the noise: measurements have outliers
_LOOSE = 1.0  # the standard deviation of the prior on the log of each weight
_LOOSE_LEARNT = 0.5  # the same where another device's kernel is started from
_SINGLE = 0.25  # the weight of what is told edge by edge, in that of a count


@dataclass(frozen=True)
class Solution:
    """The dual coefficients [n], by how much each sample is missed when left out, and its variance."""

    alpha: Tensor
    error: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Regression:
    """Inputs [n, d], centred and divided by `unit` [d], the group of each [d], standardised targets [n].

    `names` [g] are the groups' own, by which those of a `prior` are found, another device's names and kernel.
    """

    inputs: Tensor
    groups: Tensor
    single: Tensor
    targets: Tensor
    unit: Tensor
    names: Tensor
    smooth: bool
    prior: tuple[Tensor, Kernel] | None

    @torch.enable_grad()
    def searched(self) -> Kernel:
        """Return the kernel of the highest posterior for the samples' weights, the two found in turn."""
        first = self._first()
        kernel = Kernel(*(one.clone().requires_grad_() for one in first.all))
        optimizer = torch.optim.Adam(kernel.all, lr=_RATE)
        weights = torch.ones_like(self.targets)
        for steps in _ROUNDS:
            for _ in range(steps):
                loss = self._loss(kernel, weights) + self._surprise(kernel, first)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            weights = student_weights(self.solution(kernel, weights), kernel.noise.detach().exp(), weights)
        return Kernel(*(one.detach() for one in kernel.all))

    def solve(self, kernel: Kernel) -> Solution:
        """Return the solution for noise of Student's t."""
        weights = torch.ones_like(self.targets)
        for _ in range(_REWEIGHTED):
            solution, before = self.solution(kernel, weights), weights
            weights = student_weights(solution, kernel.noise.exp(), before)
            if float((weights - before).abs().max()) < _SETTLED:
                break
        return self.solution(kernel, weights)

    def left_over(self, kernel: Kernel, inputs: Tensor) -> Tensor:
        """Return the covariance [m, m] of inputs [m, d] that is left when the samples are known."""
        noisy = self._covariance(kernel, torch.ones_like(self.targets))
        across = self._kernel(kernel, inputs, self.inputs)
        return conditioned(self._kernel(kernel, inputs, inputs), across, noisy)

    def _first(self) -> Kernel:
        """Return a kernel to start from: groups explain as much each, single edges less; little is noise."""
        count = int(self.groups.max()) + 1 if len(self.groups) else 0
        variance = torch.zeros(count, dtype=torch.float64)
        variance.index_add_(0, self.groups, self.inputs.square().mean(0))
        each = -0.5 * (variance.clamp_min(1e-9) * max(count, 1)).log()
        each[self.groups[self.single]] += math.log(_SINGLE)
        amplitude, noise, constant = torch.tensor([math.log(0.1), math.log(0.05), 0.0], dtype=torch.float64)
        linear, scales = each + 0.5 * math.log(0.5), each
        if self.prior is None:
            return Kernel(linear, scales, amplitude, noise, constant)
        names, prior = self.prior
        mine, theirs = (self.names[:, None] == names).nonzero().unbind(1)
        linear[mine], scales[mine] = prior.linear[theirs], prior.scales[theirs]
        return Kernel(linear, scales, prior.amplitude, noise, constant)

    def _surprise(self, kernel: Kernel, first: Kernel) -> Tensor:
        """Return the negative log prior: weights are log-normal around those started from."""
        pairs = zip(kernel.all[:3], first.all[:3], strict=True)
        far = torch.stack([(one - other).square().sum() for one, other in pairs]).sum()
        return far / (2 * (_LOOSE if self.prior is None else _LOOSE_LEARNT) ** 2)

    def _covariance(self, kernel: Kernel, weights: Tensor) -> Tensor:
        noise = kernel.noise.exp() / weights + JITTER
        return self._kernel(kernel, self.inputs, self.inputs) + torch.diag(noise)

    def _kernel(self, kernel: Kernel, one: Tensor, other: Tensor) -> Tensor:
        linear, scales = kernel.linear.exp()[self.groups], kernel.scales.exp()[self.groups]
        together: Tensor = kernel.amplitude.exp() * stationary(one * scales, other * scales, self.smooth)
        kernel_of: Tensor = (one * linear) @ (other * linear).T + together
        return kernel_of

    def _loss(self, kernel: Kernel, weights: Tensor) -> Tensor:
        """Return what has the gradient of the negative log marginal likelihood (equation 5.9).

        Written out, it takes one inverse; going back through a Cholesky factor takes three times as long.
        """
        covariance = self._covariance(kernel, weights)
        with torch.no_grad():
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
            alpha = inverse @ (self.targets - kernel.constant)
            slope = (inverse - torch.outer(alpha, alpha)) / 2
        return (covariance * slope).sum() - alpha.sum() * kernel.constant

    @torch.no_grad()
    def solution(self, kernel: Kernel, weights: Tensor) -> Solution:
        """Return the solution at some weights of the samples; errors by equation 5.12."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self._covariance(kernel, weights)))
        alpha = inverse @ (self.targets - kernel.constant)
        variance = inverse.diagonal().reciprocal()
        return Solution(alpha, alpha * variance, variance)


def student_weights(solution: Solution, noise: Tensor, weights: Tensor) -> Tensor:
    """Return the weight of each sample [n], by its error when left out: that of Student's t.

    The weight (freedom + 1) / (freedom + error² / variance) of Lange, Little, Taylor (JASA 1989); the
    variance is that of a sample of weight 1, or an outlier's would excuse it.
    """
    variance = solution.variance - noise / weights + noise
    return (_FREEDOM + 1) / (_FREEDOM + solution.error.square() / variance)
