"""Metrics that only take a few values, as a pipeline's throughput does: predictions are one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FEW = 8  # a value is seen this often on average, or the metric is no such one
_BETTER = 0.95  # by how much predictions have to be better for being one of the values
_MOST = 1000


class Levels(nn.Module):
    """The logs of the values that were seen, and how often; none where the metric takes any value."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("logs", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("often", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        self.logs: Tensor
        self.often: Tensor
        self.spread: Tensor

    def forward(self, logs: Tensor) -> Tensor:
        """Return the median of the levels that logs [n] may mean; gradients are those of the logs.

        A level is as likely as it is common and near (Bayes' rule, normal errors). What lies beyond them
        by more than the errors' spread stays as it is: there may be values that nobody has seen.
        """
        if len(self.logs) == 0:
            return logs
        with torch.no_grad():
            distance = (logs[:, None] - self.logs) / self.spread
            belief = (self.often.log() - distance.square() / 2).softmax(1)
            median = (belief.cumsum(1) < 0.5).sum(1).clamp_max(len(self.logs) - 1)
            within = (logs > self.logs[0] - self.spread) & (logs < self.logs[-1] + self.spread)
            step = torch.where(within, self.logs[median] - logs, 0.0)
        return logs + step

    def learn(self, guessed: Tensor, seen: Tensor, every: Tensor) -> None:
        """Take the levels from all logs there are [m], if they make the logs guessed [n] for some better.

        Args:
            guessed: logs that were told without having seen `seen` [n], which are among `every` [m].
        """
        logs, often = torch.unique(every, return_counts=True)
        if len(logs) * _FEW > len(every) or len(logs) > _MOST:
            return
        error = (guessed - seen).abs()
        levels = Levels()
        levels.logs, levels.often = logs, often.double()
        levels.spread = (guessed - seen).std().clamp_min(1e-6)
        if float((levels(guessed) - seen).abs().mean()) < _BETTER * float(error.mean()):
            self.logs, self.often, self.spread = levels.logs, levels.often, levels.spread

    def shape_like(self, logs: Tensor, often: Tensor) -> None:
        """Take the sizes of a file's tensors.

        Raises:
            ValueError: they are no levels.
        """
        listed = logs.ndim == 1 and logs.shape == often.shape and len(logs) <= _MOST
        if not listed or {logs.dtype, often.dtype} != {torch.float64}:
            raise ValueError("its levels are no list of values")
        if bool((often <= 0).any()) or not bool((logs.diff() > 0).all()):
            raise ValueError("its levels do not rise, or were never seen")
        self.logs, self.often = torch.zeros_like(logs), torch.zeros_like(often)
