"""A batch that does not fit into memory, answered with one that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ehdnas.core.errors import EhdnasError
from ehdnas.search.compute import Compute

T = TypeVar("T")


def within_memory(
    step: Callable[[], T], attempt: Callable[[int], None], batch: int, compute: Compute, stage: str
) -> T:
    """Return what a step returns.

    Args:
        attempt: does with a batch of this many images what takes a step's memory, and keeps nothing.
        batch: images that the step takes.
        stage: what the step is one of, for the message.

    Raises:
        EhdnasError: the device's memory is too small; the message names a batch that fits.
    """
    try:
        return step()
    except torch.OutOfMemoryError:
        pass  # what the step still held is free only once the exception is gone
    fits = batch_that_fits(attempt, batch, compute)
    mend = f"--batch-size {fits} fits" if fits else "not even one image fits: choose fewer channels or cells"
    raise EhdnasError(f"{stage}: a batch of {batch} does not fit into the memory of {compute.device}; {mend}")


def batch_that_fits(attempt: Callable[[int], None], batch: int, compute: Compute) -> int | None:
    """Return the largest power of two below `batch` that `attempt` has memory for; None if there is none."""
    size = 1 << (batch - 1).bit_length()
    while (size := size // 2) >= 1:
        if compute.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            continue
        return size
    return None
