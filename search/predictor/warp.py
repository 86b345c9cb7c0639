"""The scale on which a metric is modelled: as it is, its log or its reciprocal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WARPS = ("value", "log", "reciprocal")
"""Costs add up in a latency, multiply in some figures, and add up in the reciprocal of a throughput."""


class Warp(nn.Module):
    """Standardised targets from values, and the log of the value from a target; smooth, and always finite."""

    def __init__(self, kind: str = "value") -> None:
        super().__init__()
        self.register_buffer("kind", torch.tensor(WARPS.index(kind)))
        for name in ("centre", "scale", "floor"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))
        self.kind: Tensor
        self.centre: Tensor
        self.scale: Tensor
        self.floor: Tensor

    def fit(self, values: Tensor) -> Tensor:
        """Learn centre and scale from values [n] above 0, and return their targets [n]."""
        raw = self._raw(values.double())
        self.centre, self.scale = raw.mean(), raw.std().clamp_min(1e-12 * raw.abs().max())
        self.floor = raw.min() / 2
        return (raw - self.centre) / self.scale

    def log(self, targets: Tensor) -> Tensor:
        """Return the log of the value [n] for targets [n].

        Far below all that was seen the logarithm goes on as its tangent, so that it keeps a gradient.
        """
        raw = targets * self.scale + self.centre
        kind = WARPS[int(self.kind)]
        if kind == "log":
            return raw
        over = raw.clamp_min(self.floor).log() + (raw - self.floor).clamp_max(0) / self.floor
        return over if kind == "value" else -over

    def _raw(self, values: Tensor) -> Tensor:
        kind = WARPS[int(self.kind)]
        return values if kind == "value" else values.log() if kind == "log" else values.reciprocal()
