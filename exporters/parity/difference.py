"""How far two sets of outputs are apart, and whether that is too far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Tolerance

Array = NDArray[np.float32]

_FINITE = float(np.finfo(np.float32).max)
_WORST = 1e18
# Outputs up to here are bounded absolutely; beyond, float32 itself is too coarse for that.
_ABSOLUTE_UP_TO = 10.0
# So many images may change class for the worse before a share of them is judged: few images prove little.
_IMAGES_ALLOWED = 2


@dataclass(frozen=True)
class Difference:
    """`noise` is the root mean square error over that of the expected outputs, each image's mean taken off.

    What is added to all classes alike says nothing; what tells classes apart is what an error has to be
    small against. (Against what tells *images* apart would be stricter, and means nothing for weights that
    are not trained: those answer every image alike.)
    """

    largest: float
    mean: float
    largest_output: float
    noise: float
    agreement: float | None


def difference(actual: Array, expected: Array) -> Difference:
    """Return how `actual` differs from `expected`, both (n, classes) or (n, C, H, W).

    A number that is not finite counts as differing by the largest float32.
    """
    wanted = np.nan_to_num(expected.astype(np.float64), nan=_FINITE, posinf=_FINITE, neginf=-_FINITE)
    with np.errstate(invalid="ignore"):  # infinity less infinity, which is no number
        apart = np.abs(actual - expected.astype(np.float64))
    apart = np.nan_to_num(apart, nan=_FINITE, posinf=_FINITE)
    # A single class has nothing to be told apart from; then it is its size that counts.
    centre = wanted.mean(1, keepdims=True) if wanted.shape[1] > 1 else 0.0
    spread = float(np.sqrt(np.mean((wanted - centre) ** 2)))
    error = float(np.sqrt(np.mean(np.minimum(apart, _WORST) ** 2)))
    vectors = expected.ndim == 2
    # Against outputs that are no numbers every error is small.
    compared = bool(np.isfinite(expected).all() and np.isfinite(actual).all())
    return Difference(
        largest=float(apart.max()),
        mean=float(min(apart.mean(), _FINITE)),
        largest_output=float(min(np.abs(wanted).max(), _FINITE)),
        noise=_WORST if not compared else min(error / max(spread, 1e-12), _WORST),
        agreement=float((actual.argmax(1) == expected.argmax(1)).mean()) if vectors else None,
    )


def breaches(found: Difference, tolerance: Tolerance) -> list[str]:
    """Return which bounds on the difference are broken, in words."""
    broken = []
    if tolerance.max_difference is not None:
        bound = tolerance.max_difference * max(1.0, found.largest_output / _ABSOLUTE_UP_TO)
        if not found.largest <= bound:
            broken.append(f"outputs differ by up to {found.largest:.3g}, more than the {bound:.3g} allowed")
    if tolerance.noise is not None and not found.noise <= tolerance.noise:
        broken.append(
            f"the error is {found.noise:.1%} of what tells classes apart, more than {tolerance.noise:.1%}"
        )
    return broken


def accuracy_breach(before: float, after: float, images: int, tolerance: Tolerance) -> list[str]:
    """Return, in words, that the accuracy fell by too much; nothing if it did not."""
    if tolerance.accuracy_drop is None:
        return []
    allowed = tolerance.accuracy_drop + _IMAGES_ALLOWED / images
    if before - after <= allowed:
        return []
    return [f"accuracy falls from {before:.2%} to {after:.2%}, more than {allowed:.2%}"]
