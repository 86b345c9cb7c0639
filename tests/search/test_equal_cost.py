"""Random search and evolution on a supernet: what they may spend, and that they keep a budget."""

import numpy as np
import pytest
import torch

from ehdnas.core.budget import Budget
from ehdnas.search.equal_cost import METHODS, networks_to_score, scored_candidates
from ehdnas.search.objective import Constraint, Constraints
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.baselines import LinearPredictor
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.recipes import Recipe
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
COST = torch.tensor([0.0, 0.2, 2, 5, 1])


def latency(architecture):
    return float(2 + COST[list(architecture.choices)].sum())


def accuracy(architecture):
    return architecture.choices.count(3) / 6


@pytest.fixture(scope="module")
def predictor():
    rng = np.random.default_rng(0)
    networks = [SPACE.sample(rng) for _ in range(60)]
    who = Identity("linear", SPACE.name, SPACE.slots, SPACE.choices, "", "somewhere", "", "latency_ms")
    fitted = LinearPredictor(who, SpaceFacts(SPACE.graphs))
    fitted.fit(SPACE.encode_all(networks), torch.tensor([latency(one) for one in networks]).double(), 0)
    return fitted


def test_an_architecture_step_buys_two_passes_an_image():
    recipe = Recipe(search_epochs=10, batch_size=50)  # 3 epochs of 10 warm up; 20 steps an epoch
    assert networks_to_score(recipe, images=1000, judged_on=500, candidates=16) == 16 + 2 * 7 * 20 * 50 // 500
    assert networks_to_score(recipe.model_copy(update={"search_epochs": 1}), 30, 30, 16) == 16 + 2


@pytest.mark.parametrize("method", METHODS)
def test_a_tight_budget_is_kept_as_predicted_and_the_seed_decides(predictor, method):
    constraints = Constraints((Constraint(predictor, Budget("latency_ms", 4.5), 0.9),))
    found = scored_candidates(method, SPACE, constraints, 0, accuracy, 30)
    assert len({one.architecture for one, _ in found}) == 30
    assert sum(one.violation <= 0 for one, _ in found) >= 25
    assert all(told == accuracy(one.architecture) for one, told in found)
    assert scored_candidates(method, SPACE, constraints, 0, accuracy, 30) == found
    assert scored_candidates(method, SPACE, constraints, 1, accuracy, 30) != found


def test_evolution_gets_further_than_random_search(predictor):
    constraints = Constraints((Constraint(predictor, Budget("latency_ms", 24.0), 0.9),))
    best = {
        method: np.mean([
            max(told for one, told in scored_candidates(method, SPACE, constraints, seed, accuracy, 60)
                if one.violation <= 0)
            for seed in range(3)
        ])
        for method in METHODS
    }  # fmt: skip
    assert best["evolution"] >= best["random"]


def test_a_space_of_fewer_networks_is_scored_nearly_whole(predictor):
    small = SPACE.without(frozenset({"none", "avg_pool_3x3", "nor_conv_1x1"}))
    constraints = Constraints((Constraint(predictor, Budget("latency_ms", 1000.0), 0.9),))
    for method in METHODS:
        found = scored_candidates(method, small, constraints, 0, accuracy, 200)
        assert 2**6 - 8 <= len(found) <= 2**6
