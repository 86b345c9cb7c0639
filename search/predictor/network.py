"""A perceptron over the features of architectures, for more samples than a Gaussian process can hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDTH = 256
_STEPS = 6000
_BATCH = 512
_RATE = 2e-3
_DECAY = 1e-2
_LEAST_SPREAD = 0.05  # what hardly ever happens is not blown up to the size of the rest


class Network(nn.Module):
    """Two hidden layers: features [n, d] to the log of the value, twice, [n, 2], as a process gives two."""

    def __init__(self, features: int) -> None:
        super().__init__()
        for name in ("mean", "spread"):
            self.register_buffer(name, torch.ones(features))
        for name in ("centre", "scale"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))
        self.mean: Tensor
        self.spread: Tensor
        self.centre: Tensor
        self.scale: Tensor
        self.layers = nn.Sequential(
            nn.Linear(features, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, 1)
        )

    def forward(self, values: Tensor) -> Tensor:
        """Return the logs of the metric [n, 2] for the features [n, d]."""
        out = self.layers((values.float() - self.mean) / self.spread).double()
        logs: Tensor = (out * self.scale + self.centre).expand(-1, 2)
        return logs


@torch.enable_grad()
def fit_network(features: Tensor, values: Tensor, seed: int) -> Network:
    """Fit a network to features [n, d] and values [n] above 0, by the mean absolute error of the log."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(features.shape[1])
    _initialise(network.layers, generator)
    inputs, logs = features.float(), values.double().log()
    network.mean, network.spread = inputs.mean(0), inputs.std(0).clamp_min(_LEAST_SPREAD)
    network.centre, network.scale = logs.mean(), logs.std().clamp_min(1e-9)
    targets = ((logs - network.centre) / network.scale).float()
    optimizer = torch.optim.AdamW(network.layers.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(targets), (_BATCH,), generator=generator)
        out = network.layers((inputs[rows] - network.mean) / network.spread).squeeze(1)
        optimizer.zero_grad()
        (out - targets[rows]).abs().mean().backward()
        optimizer.step()
        schedule.step()
    return network


def _initialise(layers: nn.Sequential, generator: torch.Generator) -> None:
    """Draw the weights from the generator, as `nn.Linear` draws them from the global one."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
