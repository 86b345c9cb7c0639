"""How long a pass takes here, for saying beforehand how long a stage will."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from ehdnas.core.text import duration
from ehdnas.search.compute import Compute
from ehdnas.search.memory import telling_memory

_TRIES = 3


def pass_seconds(network: nn.Module, images: Tensor, compute: Compute) -> float | None:
    """Return the seconds of a pass forward and back, the quickest of a few; the network stays as it was.

    None where it does not fit into memory: the stage itself then says what does.

    Args:
        network: where it computes already.
        images: float [n, c, h, w], on the CPU.
    """
    before = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        with torch.random.fork_rng(), telling_memory():
            return min(_pass(network, images, compute) for _ in range(_TRIES))
    except torch.OutOfMemoryError:
        return None
    finally:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(before)


def about(seconds: float | None) -> str:
    """Return how long that is for the user, with what comes before it."""
    return "" if seconds is None else f"; about {duration(seconds)}"


def _pass(network: nn.Module, images: Tensor, compute: Compute) -> float:
    start = time.perf_counter()
    with compute.autocast():
        out = network(compute.batch(images))
    (out[0] if isinstance(out, tuple) else out).sum().backward()
    compute.synchronise()
    return time.perf_counter() - start
