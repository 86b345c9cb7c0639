"""Cutting labelled images in two, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.2


def class_counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many of `labels` (int64 [n]) name each of `classes` classes, as int64 [classes]."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def stratified_split(
    labels: NDArray[np.int64], second: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two ascending index arrays that share nothing and together cover `labels` (int64 [n]).

    The second holds the fraction `second` of each class, rounded down but at least one image, chosen by
    `seed`; a class needs two images or more.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen[members[: max(1, int(len(members) * second))]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def balance(labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return one line on how evenly the training images are spread over the classes."""
    counts = class_counts(labels, len(classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[low] == counts[high]:
        return f"every class has {counts[low]:,} training images"
    return (
        f"training images a class: {counts[low]:,} ({classes[low]}) to {counts[high]:,} ({classes[high]}), "
        f"{counts.mean():,.0f} on average"
    )
