"""Expected improvements in closed form, against averages over many draws and areas counted cell by cell."""

import math

import pytest
import torch

from ehdnas.core.budget import Budget
from ehdnas.search.queried.acquisition import Front, costs_of, improvement
from ehdnas.search.queried.belief import Posterior
from ehdnas.search.queried.ledger import Seen
from ehdnas.search.spaces.base import Architecture

DRAWS = 200_000
LATENCIES = (Budget("latency_ms", 4.0), Budget("latency_ms", 10.0))
CENTRE, SCALE = 6.0, 3.0  # of 1 / error, as a search standardises it


def seen(*pairs):
    return [Seen(Architecture((row,)), accuracy, value) for row, (value, accuracy) in enumerate(pairs)]


KNOWN = seen((3.0, 0.6), (5.0, 0.8), (6.0, 0.7), (8.0, 0.9), (12.0, 0.95), (2.0, 0.4))


def posterior_of(means, spreads):
    return Posterior(
        torch.tensor(means, dtype=torch.float64),
        torch.tensor(spreads, dtype=torch.float64).square().diag(),
        0.01,
    )


def merits(accuracies):
    return (1 / (1 - accuracies) - CENTRE) / SCALE


def area(networks, worst, most):
    """The area between the front and the worst accuracy, counted in 10,000 slices of the costs."""
    middles = (torch.arange(10_000).double() + 0.5) * most / 10_000
    best = torch.full_like(middles, worst)
    for cost, accuracy in networks:
        best = torch.where(middles >= cost, best.clamp_min(accuracy), best)
    return float((best - worst).sum() * most / 10_000)


def test_the_expected_improvement_is_the_mean_of_what_draws_exceed_the_bar_by():
    posterior = posterior_of([0.2, -1.0], [0.5, 2.0])
    drawn = posterior.mean + posterior.spread * torch.randn(
        DRAWS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    bars = torch.tensor([-0.5, 0.6], dtype=torch.float64)
    drawn_gain = (drawn[:, :, None] - bars).clamp_min(0)
    error = drawn_gain.std(0) / math.sqrt(DRAWS)
    assert ((improvement(posterior, bars) - drawn_gain.mean(0)).abs() < 4 * error).all()


def test_the_front_keeps_what_nothing_faster_is_as_good_as_up_to_the_loosest_budget():
    front = Front.of([*KNOWN, *seen((8.0, 0.85), (3.0, 0.6))], LATENCIES)
    assert front.costs.tolist() == [2.0, 3.0, 5.0, 8.0]
    assert front.accuracies.tolist() == [0.4, 0.6, 0.8, 0.9]
    assert [one.value for one in front.steps] == front.costs.tolist()
    assert (front.most, front.worst) == (10.0, 0.4)


@pytest.mark.parametrize("cost", [1.0, 2.5, 5.0, 7.0, 9.0])
def test_the_expected_rise_of_the_hypervolume_is_the_mean_over_draws(cost):
    front = Front.of(KNOWN, LATENCIES)
    posterior = posterior_of([-0.5, 1.0, 2.0, 0.5], [0.6, 0.5, 1.0, 0.1])
    noise = torch.randn(DRAWS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    raw = (posterior.mean + posterior.spread * noise) * SCALE + CENTRE
    drawn = torch.where(raw > 1, 1 - 1 / raw, 0.0)
    ends = [*front.costs.tolist()[1:], front.most]
    rises = (front.costs[0] - cost).clamp_min(0) * (drawn - front.worst).clamp_min(0)
    for start, end, height in zip(front.costs.tolist(), ends, front.accuracies.tolist(), strict=True):
        rises = rises + max(end - max(start, cost), 0) * (drawn - height).clamp_min(0)
    told = front.improvement(posterior, torch.full((4,), cost).double(), merits)
    error = rises.std(0) / math.sqrt(DRAWS)
    # Chords between levels are below the curve by less than a thousandth.
    assert ((told - rises.mean(0)).abs() <= 4 * error + 0.001 * rises.mean(0) + 1e-12).all()


@pytest.mark.parametrize(
    ("cost", "accuracy"), [(1.0, 0.5), (2.5, 0.85), (4.0, 0.7), (6.0, 0.75), (9.0, 0.99)]
)
def test_what_is_certain_raises_the_hypervolume_by_the_area_that_it_adds(cost, accuracy):
    front = Front.of(KNOWN, LATENCIES)
    certain = posterior_of([float(merits(torch.tensor(accuracy, dtype=torch.float64)))], [1e-6])
    known = [(one.value, one.accuracy) for one in KNOWN]
    before, after = area(known, 0.4, 10.0), area([*known, (cost, accuracy)], 0.4, 10.0)
    told = float(front.improvement(certain, torch.tensor([cost], dtype=torch.float64), merits))
    assert told == pytest.approx(after - before, rel=5e-3, abs=2e-3)


def test_what_is_beyond_the_loosest_budget_or_surely_worse_promises_nothing():
    front = Front.of(KNOWN, LATENCIES)
    told = front.improvement(
        posterior_of([3.0, -1.6], [0.5, 1e-6]), torch.tensor([10.5, 9.0], dtype=torch.float64), merits
    )
    assert float(told.abs().max()) < 1e-9


def test_a_front_of_throughputs_is_that_of_latencies_turned_round():
    budgets = (Budget("throughput_fps", 20.0), Budget("throughput_fps", 5.0))
    turned = [Seen(one.architecture, one.accuracy, 15 - one.value) for one in KNOWN]
    posterior = posterior_of([0.5, 1.0], [0.5, 0.5])
    costs = torch.tensor([2.5, 7.0], dtype=torch.float64)
    told = Front.of(turned, budgets).improvement(posterior, costs_of(15 - costs, budgets[0]), merits)
    assert torch.allclose(told, Front.of(KNOWN, LATENCIES).improvement(posterior, costs, merits))


@pytest.mark.parametrize("networks", [seen((3.0, 1.0), (5.0, 1.0)), seen((30.0, 0.5))])
def test_perfect_networks_and_none_within_the_budgets_are_no_trouble(networks):
    told = Front.of(networks, LATENCIES).improvement(
        posterior_of([0.0, 1.0], [1.0, 0.5]), torch.tensor([1.0, 4.0], dtype=torch.float64), merits_of_all
    )
    assert told.isfinite().all()
    assert (told >= 0).all()


def merits_of_all(accuracies):
    return (1 / (1 - accuracies).clamp_min(1e-4) - CENTRE) / SCALE
