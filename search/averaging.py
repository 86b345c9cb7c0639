"""An exponential moving average of a network's weights (Polyak and Juditsky, SIAM J. Control Optim. 1992)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The running average of a network's weights and of the statistics of its batch norms.

    After update t, from 0, the average is d·average + (1 − d)·weights, d = min(decay, (1 + t) / (10 + t)), so
    that a short training is not held back by where it started.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        # Views of what the optimizer and the batch norms change in place.
        self._own = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self.tensors = {f"average.{name}": value.clone() for name, value in self._own.items()}
        """Name -> average, on the network's device; written in place by `update`."""

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Take in the weights as they are now; `count` updates came before."""
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._own.values()), 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Return the averages under the names they have in the network's state."""
        return {name.removeprefix("average."): value for name, value in self.tensors.items()}
