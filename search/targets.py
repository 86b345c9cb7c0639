"""What a network is trained towards: labels, smoothed (Szegedy et al., CVPR 2016), images mixed in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Targets:
    """Labels [n] int64; where images are mixed, those of what was mixed in, and the share of the former."""

    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0

    def loss(self, logits: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits [n, classes], a scalar.

        Args:
            smoothing: how much of each target is spread evenly over all classes.
        """
        loss = F.cross_entropy(logits, self.labels, label_smoothing=smoothing)
        if self.others is None:
            return loss
        mixed_in = F.cross_entropy(logits, self.others, label_smoothing=smoothing)
        return self.share * loss + (1 - self.share) * mixed_in

    def of(self, rows: slice) -> Targets:
        """Return the targets of some of the images."""
        others = None if self.others is None else self.others[rows]
        return Targets(self.labels[rows], others, self.share)

    def accuracy(self, logits: Tensor) -> Tensor:
        """Return the share of images, a scalar tensor, whose highest logit is the label they have most of."""
        labels = self.labels if self.others is None or self.share >= 0.5 else self.others
        return (logits.argmax(1) == labels).float().mean()


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al., ICLR 2018, equation 1): which images are mixed, and how much each keeps of itself.

    Image `rows[i]` is mixed with image `partners[i]`, both [n] int64 on the CPU, of which the former makes up
    `share`; without partners all stay as they are.
    """

    rows: Tensor
    partners: Tensor | None = None
    share: float = 1.0

    @classmethod
    def draw(cls, count: int, alpha: float, seed: int) -> Mixing:
        """Return how a batch of `count` images is mixed, fixed by the seed; alpha 0 mixes nothing.

        There is one share ~ Beta(alpha, alpha) a batch, as in the authors' code.
        """
        if alpha == 0:
            return cls(torch.arange(count))
        rng = np.random.default_rng(seed)
        share = float(rng.beta(alpha, alpha))
        return cls(torch.arange(count), torch.from_numpy(rng.permutation(count)), share)

    def among(self, own: slice) -> tuple[Tensor, Mixing]:
        """Return the images of the batch that some of its rows are made of, and how they are among those."""
        rows = self.rows[own]
        if self.partners is None:
            return rows, Mixing(torch.arange(len(rows)))
        wanted = torch.cat([rows, self.partners[own]])
        needed, places = torch.unique(wanted, return_inverse=True)
        return needed, Mixing(places[: len(rows)], places[len(rows) :], self.share)

    def apply(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        """Return images [m, c, h, w] with labels [m], both on one device, mixed: [n, c, h, w], [n]."""
        if self.partners is None:
            return images, Targets(labels)
        rows, partners = (one.to(labels.device, non_blocking=True) for one in (self.rows, self.partners))
        mixed = images[rows].lerp(images[partners], 1 - self.share)
        return mixed, Targets(labels[rows], labels[partners], self.share)
