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

    def accuracy(self, logits: Tensor) -> Tensor:
        """Return the share of images, a scalar tensor, whose highest logit is the label they have most of."""
        labels = self.labels if self.others is None or self.share >= 0.5 else self.others
        return (logits.argmax(1) == labels).float().mean()


def mixed(images: Tensor, labels: Tensor, alpha: float, seed: int) -> tuple[Tensor, Targets]:
    """Return images [n, c, h, w] mixed by mixup (Zhang et al., ICLR 2018, equation 1), and their targets.

    Each image is λ of itself and 1 − λ of another of the batch, with one λ ~ Beta(alpha, alpha) a batch, as
    in the authors' code. `seed` fixes λ and the pairs, on any device; alpha 0 leaves all as it is.
    """
    if alpha == 0:
        return images, Targets(labels)
    rng = np.random.default_rng(seed)
    share = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(labels))).to(labels.device, non_blocking=True)
    return images.lerp(images[partners], 1 - share), Targets(labels, labels[partners], share)
