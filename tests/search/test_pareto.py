"""Fronts: exactly the points that none dominates, and a few of them spread over the range."""

from hypothesis import given
from hypothesis import strategies as st

from ehdnas.search.pareto import Point, front_of, spread

# Few different values, so that ties are common.
POINTS = st.lists(st.builds(Point, st.integers(-6, 0).map(float), st.integers(0, 6).map(float)), max_size=30)


def dominates(one, other):
    return one != other and one.cost <= other.cost and one.accuracy >= other.accuracy


@given(POINTS)
def test_the_front_is_what_none_dominates(points):
    front = [points[at] for at in front_of(points)]
    expected = {one for one in points if not any(dominates(other, one) for other in points)}
    assert len(front) == len(set(front))
    assert set(front) == expected
    assert front == sorted(front)


@given(POINTS, st.integers(1, 8))
def test_what_is_spread_is_of_the_front_and_as_many_as_there_are(points, count):
    bounds = [-6 + 6 * (step + 1) / count for step in range(count)]
    taken = spread(points, bounds, count)
    front = front_of(points)
    assert set(taken) <= set(front)
    assert len(taken) == len(set(taken)) == min(count, len(front))
    if points:
        assert taken[-1] == front[-1]  # the most accurate of all


def test_each_bound_gets_its_best_and_gaps_are_filled():
    points = [Point(float(cost), 10.0 + cost) for cost in range(-10, 1)]
    assert [points[at].cost for at in spread(points, [-8.0, 0.0], 2)] == [-8, 0]
    assert [points[at].cost for at in spread(points, [0.0], 3)] == [-10, -5, 0]
