"""The kernel of the predictor's Gaussian processes (Rasmussen and Williams, MIT Press, 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 1e-6
"""Added to the noise's variance, so that covariances can be factored."""


@dataclass(frozen=True)
class Kernel:
    """A linear kernel and a stationary one, by groups of features [g]; all but `constant` are logs.

    Attributes:
        linear: the weight of a group in the linear kernel, [g].
        scales: its inverse length scale in the stationary one, [g].
        amplitude: the variance of the stationary kernel, a scalar.
        noise: the variance of the noise, a scalar.
        constant: the mean, a scalar.
    """

    linear: Tensor
    scales: Tensor
    amplitude: Tensor
    noise: Tensor
    constant: Tensor

    @property
    def all(self) -> list[Tensor]:
        """All of them, the logs of the weights first."""
        return [self.linear, self.scales, self.amplitude, self.noise, self.constant]


def stationary(one: Tensor, other: Tensor, smooth: bool) -> Tensor:
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


def conditioned(own: Tensor, across: Tensor, noisy: Tensor) -> Tensor:
    """Return the covariance [m, m] that is left of `own` when n samples are known (equation 2.24).

    Args:
        across: of the two [m, n].
        noisy: of the samples, their noise included [n, n].
    """
    factor = torch.linalg.solve_triangular(torch.linalg.cholesky(noisy), across.T, upper=False)
    left: Tensor = own - factor.T @ factor
    return left
