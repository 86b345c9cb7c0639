"""When measuring stops: at what was asked, when time is up, and when more no longer helps."""

from itertools import count

import pytest

from ehdnas.core.measurement import Measurement
from ehdnas.pipeline import measuring
from ehdnas.pipeline.measuring import Limit, helps_no_more
from ehdnas.pipeline.targets import Targets


@pytest.mark.parametrize(
    ("errors", "enough"),
    [
        ([0.2], False),
        ([0.2, 0.2], False),
        ([float("inf"), 0.2, 0.2], False),
        ([0.2, 0.2, 0.2], True),
        ([0.2, 0.195, 0.19], True),
        ([0.2, 0.15, 0.149], False),
        ([0.2, 0.22, 0.1], False),
        ([0.3, 0.2, 0.2, 0.2], True),
    ],
)
def test_two_rounds_that_bring_nothing_are_enough(errors, enough):
    assert helps_no_more(errors) is enough


class Space:
    name = "numbers"

    @staticmethod
    def text(one):
        return str(one)


class Bench:
    """A context, its reporter and its meter in one; what is measured is only counted."""

    def __init__(self, monkeypatch, known=()):
        self.space, self.reporter, self.instrument = Space, self, None
        self.said, self.taken = [], list(known)
        monkeypatch.setattr(measuring, "measure_on_boards", self._measure)

    def _measure(self, context, meter, keys, make, until, on_done):
        for key in keys:
            if not until():
                self.taken.append(key)
                on_done()

    def key(self, one):
        return one

    def measured(self):
        return [(one, Measurement(device="d", basis="measured", metrics={})) for one in self.taken]

    def say(self, text):
        self.said.append(text)

    warn = say

    def progress(self, done, total, text):
        assert done <= total


def test_measuring_stops_when_the_error_no_longer_falls(monkeypatch):
    bench, errors = Bench(monkeypatch), iter([0.3, 0.2, 0.2, 0.2])
    measuring.measure(bench, bench, Targets(bench, count()), Limit(300), lambda: next(errors))
    assert len(bench.taken) == 101  # asked at 30, 45, 68 and 101
    assert any("101 networks are enough" in text and "20.0%" in text for text in bench.said)


def test_all_are_measured_when_nobody_asks_and_what_is_known_counts(monkeypatch):
    bench = Bench(monkeypatch, known=range(5))
    measuring.measure(bench, bench, Targets(bench, count()), Limit(40), None)
    assert bench.taken == list(range(40)) and bench.said == []


def test_nothing_is_asked_of_fewer_networks_than_a_predictor_takes(monkeypatch):
    bench = Bench(monkeypatch)
    bench.measured = list  # every one of them failed
    measuring.measure(bench, bench, Targets(bench, count()), Limit(60), lambda: pytest.fail("asked"))
    assert len(bench.taken) == 60


def test_measuring_stops_when_the_time_is_up(monkeypatch):
    bench = Bench(monkeypatch)
    measuring.measure(bench, bench, Targets(bench, count()), Limit(40, minutes=0), lambda: 0.1)
    assert bench.taken == [] and bench.said == ["profile: time is up after 0 of 40 networks"]


def test_a_space_that_has_no_more_ends_it(monkeypatch):
    bench = Bench(monkeypatch)
    measuring.measure(bench, bench, Targets(bench, iter(range(35))), Limit(40), None)
    assert bench.taken == list(range(35))
    assert bench.said == ["profile: 'numbers' has no more networks than these 35"]


def test_later_rounds_are_chosen_and_nothing_is_taken_twice(monkeypatch):
    bench, asked = Bench(monkeypatch), []

    def last(candidates, number):
        asked.append((candidates[0], len(candidates), number))
        return candidates[::-1][:number]

    measuring.measure(bench, bench, Targets(bench, count(), last), Limit(50), None)
    assert asked == [(30, 600, 15), (30, 600, 5)]
    assert bench.taken == [*range(30), *range(629, 614, -1), *range(644, 639, -1)]


def test_measuring_goes_on_where_it_was_whoever_chose_what_is_stored(monkeypatch):
    """Killed within the first round, or in a chosen one; and with others' networks, the reference last."""
    for known, drawn in ((range(12), range(12, 30)), (range(33), ()), (range(1000, 1033), [0])):
        bench = Bench(monkeypatch, known)
        targets = Targets(bench, count(), lambda candidates, number: candidates[-number:] if number else [])
        measuring.measure(bench, bench, targets, Limit(45), None)
        assert len(bench.taken) == len(set(bench.taken)) == 45
        taken = bench.taken[len(known) :]
        assert taken[: len(drawn)] == list(drawn) and min(taken[len(drawn) :]) > 500


def test_what_failed_is_not_asked_for_again_in_the_same_command(monkeypatch):
    bench, asked = Bench(monkeypatch), []
    targets = Targets(bench, count(), lambda candidates, number: candidates[:number])
    for number in (30, 15):
        asked += targets.next(number)
    assert bench.taken == [] and asked == list(range(45))
