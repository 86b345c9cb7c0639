"""A device by a formula: what every choice of NAS-Bench-201 costs in every slot, added up."""

import numpy as np
import torch

from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
FACTS = SpaceFacts(SPACE.graphs)
COST = torch.tensor([0.0, 0.1, 1.0, 4.0, 0.5], dtype=torch.float64) * torch.linspace(0.5, 1.5, 6)[:, None]


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return SPACE.encode_all([SPACE.sample(rng) for _ in range(count)])


def additive(gates):
    return 3 + (gates * COST).sum((1, 2))


def noise(count, share, seed=0):
    return share * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
