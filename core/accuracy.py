"""How far chance moves an accuracy that was taken on so many images."""

from __future__ import annotations

import math


def standard_error(accuracy: float, images: int) -> float:
    """Return the standard error, a share of 1, of an accuracy that was taken on some images.

    √(p (1 − p) / n): whether an image is told right is a Bernoulli trial, and their number is binomial.
    """
    return math.sqrt(accuracy * (1 - accuracy) / images)


def difference_error(accuracy: float, images: int) -> float:
    """Return the standard error, a share of 1, of the difference between two networks' accuracies.

    √(2 p (1 − p) / n), for networks of about the same accuracy p, each judged on n images (Dietterich, Neural
    Computation 10(7), 1998, section 3.2). On the same images it is less, since networks err on the same ones.
    """
    return math.sqrt(2) * standard_error(accuracy, images)
