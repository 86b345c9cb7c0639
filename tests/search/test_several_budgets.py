"""Several constraints, each with its multiplier, and several distributions that share one supernet."""

import math

import numpy as np
import pytest
import torch

from ehdnas.core.budget import Budget
from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.search.distribution import Distribution
from ehdnas.search.objective import Constraint, Constraints, DualAscent
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.selection import candidates
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE, SHAPE = NasBench201Space(), NetworkShape(2, 3, (3, 8, 8), 4)
RECIPE = recipe_for("cifar10").model_copy(update={"search_epochs": 4, "batch_size": 8})


class Priced:
    """A value of 1 and, for every slot, what its choice costs; off by a factor of 2 at most."""

    def __init__(self, *prices):
        self.prices = torch.tensor(prices)

    def log_value(self, gates):
        return (1 + (gates * self.prices).sum(dim=(1, 2))).log()

    def margin(self, confidence):
        return math.log(2)


A = Constraint(Priced(0.0, 1, 2, 3, 4), Budget("latency_ms", 20.0), 0.9, "a.latency_ms")
B = Constraint(Priced(0.0, 4, 3, 2, 1), Budget("throughput_fps", 5.0), 0.9, "b.throughput_fps")
BOTH = Constraints((A, B))


class StoppedError(Exception):
    pass


def stop_after(steps):
    """A progress that ends the search as a kill would, so many steps having been saved."""

    def progress(done, total, text):
        if done > steps:
            raise StoppedError

    return progress


def ignore(done, total, text):
    pass


def images(seed=0):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 24).astype(np.int64))


def searcher(path, *constraints):
    augmentation = Augmentation.for_size(8, True, (0.5,) * 3, (0.25,) * 3)
    halves = images(), images(seed=1)
    task = SearchTask(SPACE, SHAPE, *halves, augmentation, RECIPE, constraints, 7, 0.0, {"a": 1})
    return Searcher(task, path)


def some_gates(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.stack([SPACE.relax(SPACE.initial_logits(), generator) for _ in range(count)])


def test_the_constraint_that_binds_is_the_worst_of_each_network():
    gates = some_gates()
    each = BOTH.violations(gates)
    assert torch.allclose(each[:, 0], A.violation(gates).double())
    assert torch.allclose(each[:, 1], (math.log(5) - B.predictor.log_value(gates) + math.log(2)).double())
    assert torch.equal(BOTH.violation(gates), each.amax(1))


def test_each_multiplier_follows_its_own_constraint():
    dual = DualAscent(2, rate=0.1, stiffness=4.0)
    for _ in range(3):
        dual.update(torch.tensor([[0.5, -1.0], [0.3, -1.0]]))
    assert dual.multipliers == pytest.approx([3 * 0.1 * 0.4, 0.0])
    seen = torch.tensor([[0.2, 0.1], [0.4, 0.3]], requires_grad=True)
    pulls = [0.12 + 4 * 0.3, 0.0 + 4 * 0.2]
    loss = dual.loss(seen)
    assert loss.item() == pytest.approx(sum(pull**2 for pull in pulls) / 8)
    (slopes,) = torch.autograd.grad(loss, [seen])  # half of each pull goes to each of the two networks
    assert slopes.tolist() == pytest.approx(torch.tensor([pulls, pulls]).div(2).numpy())


def test_budgets_that_are_to_be_spent_pull_back_what_undercuts_all_of_them():
    dual = DualAscent(2, rate=0.1, stiffness=4.0, spend=True)
    seen = torch.tensor([[-0.6, -0.2], [-0.8, -0.4]], requires_grad=True)
    (slopes,) = torch.autograd.grad(dual.loss(seen), [seen])
    pull = 4 * (0.3 - math.log(1.05))  # the second one binds, and is undercut by 0.3
    assert slopes.tolist() == pytest.approx(torch.tensor([[0, -pull / 2]] * 2).numpy())
    dual.update(seen)
    assert dual.multipliers == pytest.approx([0, 0, 0.1 * (0.3 - math.log(1.05))])
    close = torch.full((1, 2), -0.02)
    assert DualAscent(2, spend=True).loss(close) == 0


def test_what_is_recorded_names_each_of_several_constraints_and_no_single_one():
    gates = some_gates()
    _, figures = Distribution(SPACE, BOTH).hardware(gates)
    each = BOTH.violations(gates).mean(0)
    assert figures["violation.a.latency_ms"] == pytest.approx(float(each[0]))
    assert figures["violation.b.throughput_fps"] == pytest.approx(float(each[1]))
    assert figures["violation"] == pytest.approx(float(BOTH.violation(gates).mean()))
    _, alone = Distribution(SPACE, Constraints((A,))).hardware(gates)
    assert alone.keys() == {"violation", "multiplier"}


def test_a_stopped_search_under_two_budgets_ends_as_if_never_stopped(tmp_path):
    tighter = Constraint(B.predictor, Budget("throughput_fps", 12.0), 0.9, B.name)
    both = Constraints((A, tighter))  # more than the networks that a search begins with can give
    whole = searcher(tmp_path / "whole", both)
    expected = whole.run(ignore)
    assert max(record.get("multiplier", 0.0) for record in expected.history) > 0
    with pytest.raises(StoppedError):
        searcher(tmp_path / "cut", both).run(stop_after(8))
    resumed = searcher(tmp_path / "cut", both)
    assert resumed.resume() == 8
    _, meta = load_checkpoint(tmp_path / "cut")
    kept = [meta["carried"][f"multiplier.0.{at}"] for at in range(2)]
    assert resumed.distributions[0].dual.multipliers == kept != [0.0, 0.0]
    result = resumed.run(ignore)
    assert torch.equal(result.logits, expected.logits)
    assert result.history == expected.history


def test_distributions_take_turns_and_only_the_one_whose_turn_it_is_moves(tmp_path):
    found = searcher(tmp_path / "c", *[Constraints((A,))] * 3)
    moved = []

    def progress(done, total, text):
        now = [one.logits.detach().clone() for one in found.distributions]
        moved.append([not torch.equal(*pair) for pair in zip(now, before, strict=True)])
        before[:] = now

    before = [one.logits.detach().clone() for one in found.distributions]
    result = found.run(progress)
    warm_up = 3  # steps of the first epoch
    assert moved[:warm_up] == [[False] * 3] * warm_up
    for at, one in enumerate(moved[warm_up:], warm_up):
        assert one == [at % 3 == number for number in range(3)]
    assert len(result.distributions) == 3


def test_a_stopped_search_of_several_distributions_ends_in_the_same_ones(tmp_path):
    tight = Constraint(A.predictor, Budget("latency_ms", 4.0), 0.9)
    constraints = [Constraints((A,)), Constraints((tight,))]
    expected = searcher(tmp_path / "whole", *constraints).run(ignore)
    with pytest.raises(StoppedError):
        searcher(tmp_path / "cut", *constraints).run(stop_after(7))
    resumed = searcher(tmp_path / "cut", *constraints)
    assert resumed.resume() == 7
    result = resumed.run(ignore)
    assert all(map(torch.equal, result.distributions, expected.distributions))
    assert not torch.equal(*result.distributions)


def expected(constraint):
    return lambda networks: constraint.violation(SPACE.encode_all(networks))


def test_candidates_under_two_budgets_meet_both_and_are_near_the_binding_one():
    constraint = Constraints((A, Constraint(B.predictor, Budget("latency_ms", 30.0), 0.9)))
    ranked = candidates(SPACE, SPACE.initial_logits(), expected(constraint), seed=0)
    fitting = [one for one in ranked if one.violation <= 0]
    each = constraint.violations(SPACE.encode_all([one.architecture for one in fitting]))
    assert len(fitting) > 10 and bool((each <= 0).all())
    assert fitting[0].violation >= -math.log(1.05)


def test_a_measured_candidate_is_ranked_by_its_measurement():
    plain = candidates(SPACE, SPACE.initial_logits(), expected(A), seed=0)
    best, *_, worst = plain
    assert best.violation <= 0 < worst.violation
    known = {best.architecture: 5.0, worst.architecture: -0.01}
    ranked = candidates(SPACE, SPACE.initial_logits(), expected(A), 0, known)
    by_network = {one.architecture: one for one in ranked}
    assert by_network[best.architecture].violation == 5.0
    assert ranked[-1].architecture == best.architecture
    assert by_network[worst.architecture].distance == 0
