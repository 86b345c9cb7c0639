"""The paper's predictor: an embedding a slot, then a small perceptron (EH-DNAS, arXiv 2111.12299)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.facts import SpaceFacts

_STEPS, _EPOCHS = 600, 40  # whichever takes longer
_BATCH = 256


class EmbeddingPredictor(Predictor):
    """An embedding of 10 a slot, then 200, 100 and 1 units, in the sizes of the paper; ours fits the log.

    A slot's embedding is its row of gates times a table, so that one-hot and relaxed architectures
    both go in and gradients come out.
    """

    def __init__(self, identity: Identity, facts: SpaceFacts = SpaceFacts()) -> None:  # noqa: B008 - frozen
        super().__init__(identity, facts)
        self.table = nn.Parameter(torch.randn(identity.slots, identity.choices, 10) * 0.1)
        self.layers = nn.Sequential(
            nn.Linear(10 * identity.slots, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 1)
        )
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.centre: Tensor
        self.scale: Tensor

    def log_value(self, gates: Tensor) -> Tensor:
        """Return the logarithm of the metric, [n], for gates [n, slots, choices]."""
        embedded = torch.einsum("nsc,scd->nsd", gates.to(self.table), self.table).flatten(1)
        out: Tensor = self.layers(embedded).squeeze(1) * self.scale + self.centre
        return out

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        """Fit on all samples: AdamW on the mean squared error of the log, with a cosine schedule."""
        logs = values.double().log()
        generator = torch.Generator().manual_seed(seed)
        self._initialise(generator)
        self.centre, self.scale = logs.mean().float(), logs.std().clamp_min(1e-6).float()
        target = logs.float()
        steps = max(_STEPS, _EPOCHS * len(target) // _BATCH)
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(target), (min(_BATCH, len(target)),), generator=generator)
            error = (self.log_value(gates[rows]) - target[rows]) / self.scale
            optimizer.zero_grad()
            error.square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    def _initialise(self, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            bound = 0.1 if parameter is self.table else 1 / math.sqrt(parameter.shape[-1])
            with torch.no_grad():
                parameter.uniform_(-bound, bound, generator=generator)
