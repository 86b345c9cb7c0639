"""A batch that does not fit into memory, answered with one that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from ehdnas.core.errors import EhdnasError
from ehdnas.search.compute import Compute

T = TypeVar("T")

_OF_CPU = "DefaultCPUAllocator: can't allocate memory"


def within_memory(
    step: Callable[[], T], attempt: Callable[[int], None], batch: int, parts: int, compute: Compute,
    stage: str,
) -> T:  # fmt: skip
    """Return what a step returns.

    Args:
        attempt: does with a batch of this many images what takes a step's memory, and keeps nothing.
        batch: images that the step takes, in `parts` equal parts, one of which is in memory at a time.
        stage: what the step is one of, for the message.

    Raises:
        EhdnasError: the device's memory is too small; the message names a batch that fits.
    """
    try:
        with telling_memory():
            return step()
    except torch.OutOfMemoryError:
        pass  # what the step still held is free only once the exception is gone
    fits = batch_that_fits(attempt, batch // parts, compute)
    raise EhdnasError(
        f"{stage}: a batch of {batch}{f' in {parts} parts' if parts > 1 else ''} does not fit into the "
        f"memory of {compute.device}; {_mend(batch, parts, fits)}"
    )


@contextmanager
def telling_memory() -> Iterator[None]:
    """Raise torch.OutOfMemoryError where the CPU's memory is too small, too; torch has no error for that."""
    try:
        yield
    except RuntimeError as error:
        if _OF_CPU in str(error):
            raise torch.OutOfMemoryError(str(error)) from None
        raise


def _mend(batch: int, parts: int, fits: int | None) -> str:
    if not fits:
        return "not even one image fits: choose fewer channels or cells"
    equal = (count for count in range(parts, batch + 1, parts) if batch % count == 0)
    more = next(count for count in equal if batch // count <= fits)
    return f"--batch-size {fits * parts} fits, and so does --micro-batches {more}"


def batch_that_fits(attempt: Callable[[int], None], batch: int, compute: Compute) -> int | None:
    """Return the largest power of two below `batch` that `attempt` has memory for; None if there is none."""
    size = 1 << (batch - 1).bit_length()
    while (size := size // 2) >= 1:
        if compute.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            with telling_memory():
                attempt(size)
        except torch.OutOfMemoryError:
            continue
        return size
    return None
