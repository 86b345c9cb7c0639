"""A step's batch in equal parts, computed one after another or by several processes, with one outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.search.loop import step_seed
from ehdnas.search.processes import ALONE, Processes


class MicroBatches:
    """The parts of each batch that a network is trained on, and which of them are this process's own.

    Each part has batch norm statistics and random numbers of its own, so that it does not matter which
    process computes it. After a step the running statistics are the mean of what each part alone would have
    made of those before the step: a running statistic is linear in a batch's, so that nothing else would be
    both independent of the order and equal to the usual one for one part.
    """

    def __init__(self, module: nn.Module, count: int, batch: int, processes: Processes = ALONE) -> None:
        """Cut batches of `batch` images for `module` into `count` parts.

        Raises:
            UsageError: the parts would not be equal, or not as many for each process.
        """
        _require_equal(count, batch, processes.count)
        self.count = count
        self.processes = processes
        self.share = 1 / count
        """Of a batch's mean, what is a part's."""
        self._own_count = count // processes.count
        self._buffers = [one for one in module.buffers() if one.numel()]
        self._statistics = [one for one in self._buffers if one.is_floating_point()]

    def own(self, batch: int) -> slice:
        """Return which rows of a batch of `batch` images this process computes.

        The half that an architecture is learnt on can be an image shorter than the other, and so its only
        batch: the few rows that make no equal parts are left out.
        """
        size = batch // self.count * self._own_count
        return slice(self.processes.rank * size, (self.processes.rank + 1) * size)

    def each(self, images: int, seed: int) -> Iterator[slice]:
        """Yield the rows of each part among this process's `images`, to be computed before the next.

        Args:
            seed: with the part's number it fixes the random numbers that torch draws meanwhile.
        """
        if self.count == 1:
            yield slice(0, images)
            return
        before = [one.clone() for one in self._buffers]
        sums = [torch.zeros_like(one) for one in self._statistics]
        size = images // self._own_count
        with torch.random.fork_rng(devices=[]):  # all processes draw the same after the parts, too
            for number in range(self._own_count):
                _copy(self._buffers, before)
                torch.manual_seed(step_seed(seed, "part", self.processes.rank * self._own_count + number))
                yield slice(number * size, (number + 1) * size)
                _add(sums, self._statistics, self.share)
        self.processes.sum(sums)
        _copy(self._statistics, sums)

    def sum(self, weights: Sequence[Tensor], figures: Tensor) -> None:
        """Add up the weights' gradients, and figures, over all processes, in place."""
        gradients = [one.grad for one in weights if one.grad is not None]
        self.processes.sum([*gradients, figures])


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)


@torch.no_grad()
def _add(sums: list[Tensor], terms: list[Tensor], factor: float) -> None:
    if sums:
        torch._foreach_add_(sums, terms, alpha=factor)


def _require_equal(count: int, batch: int, processes: int) -> None:
    if count % processes:
        raise UsageError(
            f"--micro-batches {count}: {processes} processes cannot compute as many each; choose a multiple "
            f"of {processes}"
        )
    if batch % count:
        below, above = batch // count * count, -(-batch // count) * count
        nearest = f"{below} or {above}" if below else above
        raise UsageError(
            f"a batch of {batch} images cannot be cut into {count} equal parts; choose --batch-size {nearest}"
        )
