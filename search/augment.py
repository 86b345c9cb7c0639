"""Augmentation of whole batches as tensors: crop, flip and cutout, drawn for each image on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def to_batch(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return `(images / 255 - mean) / std`: uint8 [n, h, w, c] to float32 [n, c, h, w], channels_last."""
    return _normalised(images, mean, std).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of DARTS (Liu et al., arXiv 1806.09055): padded crop, mirror, normalise, cutout.

    `pad` is the pixels of zeros around an image before the crop, `cutout` the side of the square that is
    zeroed after normalisation (DeVries and Taylor, arXiv 1708.04552); 0 leaves either out. Draws come from
    the generator that is passed and from nowhere else.
    """

    pad: int
    flip: bool
    cutout: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def for_size(cls, size: int, flip: bool, mean: tuple[float, ...], std: tuple[float, ...]) -> Augmentation:
        """Return the usual augmentation for square images of `size` pixels: pad 4 and cutout 16 at 32.

        Flip must be off where a mirrored image means something else, as with digits.
        """
        return cls(size // 8, flip, size // 2, mean, std)

    def __call__(
        self, images: Tensor, generator: torch.Generator, rows: Tensor | None = None, batch: int = 0
    ) -> Tensor:
        """Return uint8 [n, h, w, c] augmented and normalised, as float32 [n, c, h, w], channels_last.

        Args:
            rows: where in a batch of `batch` images these stand, [n] int64; None where they are all of it. An
                image comes out the same with the rest of its batch as without.
        """
        draws = _Draws(generator, len(images) if rows is None else batch, rows)
        if self.pad:
            images = _crop(images, self.pad, draws)
        if self.flip:
            mirrored = draws.below(2, images).bool()
            images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
        normalised = _normalised(images, self.mean, self.std)
        if self.cutout:
            _cut_out(normalised, self.cutout, draws)
        return normalised.permute(0, 3, 1, 2)

    def evaluate(self, images: Tensor) -> Tensor:
        """Return uint8 [n, h, w, c] normalised only, as float32 [n, c, h, w], channels_last."""
        return to_batch(images, self.mean, self.std)


def _normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    deviation = torch.tensor(std, dtype=torch.float64)
    scale = _beside(images, (1 / (255 * deviation)).float())
    shift = _beside(images, (torch.tensor(mean, dtype=torch.float64) / deviation).float())
    return images.float().mul_(scale).sub_(shift)


@dataclass(frozen=True)
class _Draws:
    """Numbers for the images of a batch, drawn for all `count` of them and given out for those in `rows`."""

    generator: torch.Generator
    count: int
    rows: Tensor | None

    def below(self, high: int, images: Tensor) -> Tensor:
        """Return integers from 0 to `high` - 1, one an image, on the device of the images."""
        every = torch.randint(high, (self.count,), generator=self.generator, device=self.generator.device)
        return _beside(images, every if self.rows is None else every[self.rows])


def _beside(images: Tensor, small: Tensor) -> Tensor:
    # Not blocking: a GPU is sent the next batch's numbers while it is still at the last one.
    return small.to(images.device, non_blocking=True)


def _crop(images: Tensor, pad: int, draws: _Draws) -> Tensor:
    count, height, width, _ = images.shape
    padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
    # Every possible crop as a view [n, top, left, h, w, c]; indexing copies one for each image.
    crops = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
    top = draws.below(2 * pad + 1, images)
    left = draws.below(2 * pad + 1, images)
    return crops[torch.arange(count, device=images.device), top, left]


def _cut_out(batch: Tensor, side: int, draws: _Draws) -> None:
    """Zero a square of `side` pixels in each image of float32 [n, h, w, c], in place; it may overhang."""
    _, height, width, _ = batch.shape
    rows = _covered(draws.below(height, batch), height, side)
    columns = _covered(draws.below(width, batch), width, side)
    batch.masked_fill_((rows[:, :, None] & columns[:, None, :])[..., None], 0.0)


def _covered(centre: Tensor, length: int, side: int) -> Tensor:
    offset = torch.arange(length, device=centre.device)[None, :] - centre[:, None]
    return (offset >= -(side // 2)) & (offset < side - side // 2)
