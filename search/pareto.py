"""Networks of which none is better than another in everything: a front, and a few spread over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """What a network costs, the lower the better, such as the log of its latency; and how accurate it is."""

    cost: float
    accuracy: float


def front_of(points: Sequence[Point]) -> list[int]:
    """Return the positions of the points that none dominates, by cost; of equal points the first.

    One dominates another that costs no more, is no less accurate, and is better in one of the two.
    """
    order = sorted(range(len(points)), key=lambda at: (points[at].cost, -points[at].accuracy, at))
    front: list[int] = []
    for at in order:
        if not front or points[at].accuracy > points[front[-1]].accuracy:
            front.append(at)
    return front


def spread(points: Sequence[Point], bounds: Sequence[float], count: int) -> list[int]:
    """Return the positions of `count` points of the front, by cost; all of the front where it has no more.

    Of each bound on the cost the most accurate point within it is taken; what is then left to take is, one
    after another, the point whose cost is farthest from all that were.
    """
    front = front_of(points)
    within = [[at for at in front if points[at].cost <= bound] for bound in bounds]
    taken = list(dict.fromkeys(own[-1] for own in within if own))[-count:]

    def distance(at: int) -> float:
        return min((abs(points[at].cost - points[one].cost) for one in taken), default=0.0)

    left = [at for at in front if at not in taken]
    while left and len(taken) < count:
        best = max(left, key=distance)
        taken.append(best)
        left.remove(best)
    return sorted(taken, key=lambda at: points[at].cost)
