"""What gpu_search.py works on: the images of PNG shards, and the simulated accelerator behind the budget.

Nothing of it needs the ehdnas package to be installed; on the path is enough.
"""

from __future__ import annotations

import argparse
import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ehdnas.profilers.devices
from ehdnas.core.device import read_device
from ehdnas.core.images.dataset import Split
from ehdnas.pipeline.costed import Costed
from ehdnas.profilers.e2e_perf.profiler import E2EPerfProfiler
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import facts_of
from ehdnas.search.predictor.methods import make_predictor
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.darts.space import DartsSpace

METRIC = "throughput_fps"
SPACE = DartsSpace()
_SIMULATED, _SEED = 300, 0


def read_split(paths: list[Path], limit: int | None) -> Split:
    """Return the images of shards of PNGs."""
    images, labels = [], []
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            png, offsets = shard["png"].tobytes(), shard["offsets"].tolist()
            labels += shard["labels"].tolist()[:limit]
        ends = list(pairwise(offsets))[:limit]
        images += [np.asarray(Image.open(io.BytesIO(png[a:b])).convert("RGB")) for a, b in ends]
    return Split(np.stack(images), np.array(labels, dtype=np.int64))


def load(args: argparse.Namespace) -> tuple[Split, Split]:
    """Return the training and the test images, from a cache beside the results after the first time."""
    cache = args.work / f"images-{args.limit or 'all'}.npz"
    if not cache.is_file():
        shards = [args.data / f"train-{number}.npz" for number in range(1, 6)]
        train, test = read_split(shards, args.limit), read_split([args.data / "test.npz"], args.limit)
        partial = cache.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, a=train.images, b=train.labels, c=test.images, d=test.labels)
        partial.replace(cache)
    with np.load(cache) as kept:
        return Split(kept["a"], kept["b"]), Split(kept["c"], kept["d"])


class Accelerator:
    """The simulated accelerator: the published slot table where it covers the shape, else the formulas."""

    def __init__(self, shape: NetworkShape) -> None:
        folder = Path(ehdnas.profilers.devices.__path__[0])
        self.profiler = E2EPerfProfiler(read_device(folder / "ehdnas-generic.toml"))
        self.shape = shape
        self.costed = Costed(SPACE, shape)

    def fps(self, network) -> float:
        published = self.profiler.published(SPACE.name, str(self.shape), network.choices)
        found = published or self.profiler.simulate(self.costed.table(network))
        return found.metric(METRIC)

    def violations(self, networks, factor: float) -> torch.Tensor:
        """Return log(bound / throughput) [n] for a bound of so many times the reference's throughput."""
        fps = torch.tensor([self.fps(one) for one in networks], dtype=torch.float64)
        return np.log(factor * self.fps(SPACE.reference)) - fps.log()

    def predictor(self, path: Path):
        """Return the predictor of its throughput, fitted to simulated networks, or read from `path`."""
        identity = Identity(
            "ehdnas", SPACE.name, SPACE.slots, SPACE.choices, str(self.shape), "ehdnas-generic", "", METRIC
        )
        predictor = make_predictor(identity, facts_of(SPACE, self.shape))
        if path.is_file():
            predictor.restore(path)
            return predictor
        rng = np.random.default_rng(_SEED)
        networks = [SPACE.sample(rng) for _ in range(_SIMULATED)]
        values = torch.tensor([self.fps(one) for one in networks], dtype=torch.float64)
        predictor.fit(SPACE.encode_all(networks), values, _SEED)
        predictor.save(path)
        return predictor
