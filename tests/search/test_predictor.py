"""The paper's predictor on a target it can learn, its interval, its file, and what it refuses."""

import numpy as np
import pytest
import torch

from ehdnas.core.budget import Budget
from ehdnas.core.errors import DataError, UsageError
from ehdnas.search.objective import Constraint, DualAscent
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.embedding import EmbeddingPredictor
from ehdnas.search.selection import candidates, fastest
from ehdnas.search.spaces.darts.space import DartsSpace

SPACE = DartsSpace()
WHO = Identity("embedding", "darts", 28, 8, "c8x5-1x8x8-10-cifar", "somewhere", "threads 1", "latency_ms")
COST = torch.tensor([0.0, 1, 1, 0.1, 6, 9, 3, 5])


def labelled(count, seed=0):
    rng = np.random.default_rng(seed)
    architectures = [SPACE.sample(rng) for _ in range(count)]
    gates = SPACE.encode_all(architectures)
    return gates, (20 + (gates @ COST).sum(1)).double()


@pytest.fixture(scope="module")
def fitted():
    predictor = EmbeddingPredictor(WHO)
    predictor.fit(*labelled(400), seed=0)
    return predictor


def test_it_learns_an_additive_target_and_says_how_well(fitted):
    assert fitted.quality.samples == 400
    assert fitted.quality.spearman > 0.9
    assert fitted.quality.within10 > fitted.quality.constant_within10 + 0.2


def test_the_interval_covers_unseen_architectures(fitted):
    gates, values = labelled(1000, seed=1)
    lower, upper = fitted.interval(gates, 0.9)
    covered = ((lower <= values) & (values <= upper)).float().mean()
    assert 0.85 <= covered <= 0.97


def test_gradients_point_to_cheaper_operations(fitted):
    gates = SPACE.encode(SPACE.reference)[None].requires_grad_()
    fitted(gates).sum().backward()
    slope = gates.grad[0]
    used = [slot for slot, choice in enumerate(SPACE.reference.choices) if choice == 4]
    assert (slope[used, 5] > slope[used, 3]).float().mean() > 0.9


def test_too_few_samples_promise_nothing():
    predictor = EmbeddingPredictor(WHO)
    predictor.residuals = torch.arange(8, dtype=torch.float64)
    assert predictor.margin(0.9) == float("inf")
    assert predictor.margin(0.5) == 4


def test_the_file_reads_back_and_belongs_to_one_device(fitted, tmp_path):
    path = tmp_path / "p.safetensors"
    fitted.save(path)
    again = EmbeddingPredictor(WHO)
    again.restore(path)
    gates, _ = labelled(20)
    assert torch.equal(again(gates), fitted(gates))
    assert again.margin(0.9) == fitted.margin(0.9)
    assert again.quality == fitted.quality
    other = EmbeddingPredictor(Identity(**{**vars(WHO), "device": "elsewhere"}))
    with pytest.raises(UsageError, match="is of another device than 'elsewhere'"):
        other.restore(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a whole checkpoint"):
        again.restore(path)


@pytest.mark.slow
def test_fitting_is_fixed_by_the_seed(fitted):
    again = EmbeddingPredictor(WHO)
    again.fit(*labelled(400), seed=0)
    gates, _ = labelled(20)
    assert torch.equal(again(gates), fitted(gates))


@pytest.mark.parametrize("bad", [float("nan"), 0.0, -1.0, float("inf")])
def test_what_cannot_be_fitted_is_refused(bad):
    gates, values = labelled(20)
    values[7] = bad
    with pytest.raises(UsageError, match=r"samples \[7\]"):
        EmbeddingPredictor(WHO).fit(gates, values, 0)
    with pytest.raises(UsageError, match="needs at least 10"):
        EmbeddingPredictor(WHO).fit(gates[:5], values[:5], 0)


def test_the_fastest_network_is_truly_faster_than_any_sampled(fitted):
    def score(networks):
        with torch.no_grad():
            return fitted.log_value(SPACE.encode_all(networks))

    found = fastest(SPACE, score, [SPACE.reference])
    _, sampled = labelled(2000, seed=2)
    assert 20 + COST[list(found.choices)].sum() < sampled.min()


def test_candidates_that_fit_come_first(fitted):
    constraint = Constraint(fitted, Budget("latency_ms", 60.0), 0.9)
    expected = lambda networks: constraint.violation(SPACE.encode_all(networks))  # noqa: E731
    ranked = candidates(SPACE, SPACE.initial_logits(), expected, seed=0)
    violations = [one.violation for one in ranked]
    fitting = [v for v in violations if v <= 0]
    assert fitting
    assert violations[: len(fitting)] == fitting
    assert len({one.architecture for one in ranked}) == len(ranked)


def test_the_multiplier_rises_while_the_budget_is_broken_and_falls_after():
    dual = DualAscent()
    for _ in range(5):
        dual.update(torch.tensor([[0.5]]))
    (high,) = dual.multipliers
    assert high > 0
    assert dual.loss(torch.tensor([[0.5]])) > dual.loss(torch.tensor([[0.1]])) > 0
    for _ in range(100):
        dual.update(torch.tensor([[-0.5]]))
    assert dual.multipliers == [0]
