"""Searches by queries: what they may ask, what they answer, and that ours does better than chance."""

import math

import numpy as np
import pytest
import torch

from ehdnas.core.budget import Budget
from ehdnas.core.errors import UsageError
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.baselines import LinearPredictor
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.queried import guided
from ehdnas.search.queried.belief import Belief, Posterior
from ehdnas.search.queried.ledger import Ledger, Seen
from ehdnas.search.queried.methods import METHODS
from ehdnas.search.queried.task import TRIES, NothingLeftError, QueriedTask, answers, best, spend
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
COST = torch.tensor([0.0, 0.2, 2, 5, 1])
WORTH = torch.tensor([0.0, 0.3, 0.7, 1.0, 0.2])
BUDGETS = tuple(Budget("latency_ms", bound) for bound in (8.0, 14.0, 20.0))


def latency(architecture):
    return float(2 + COST[list(architecture.choices)].sum())


class Formula:
    """Accuracies that rise with every operation, and that count how often they are asked for."""

    def __init__(self):
        self.asked = []

    def query(self, architecture):
        self.asked.append(architecture)
        return 0.9 - 0.5 * math.exp(-float(WORTH[list(architecture.choices)].sum()))


@pytest.fixture(scope="module")
def predictor():
    rng = np.random.default_rng(0)
    networks = [SPACE.sample(rng) for _ in range(60)]
    who = Identity("linear", SPACE.name, SPACE.slots, SPACE.choices, "", "somewhere", "", "latency_ms")
    fitted = LinearPredictor(who, SpaceFacts(SPACE.graphs))
    fitted.fit(SPACE.encode_all(networks), torch.tensor([latency(one) for one in networks]).double(), 0)
    return fitted


def task_of(predictor, budgets=BUDGETS, seed=0):
    return QueriedTask(SPACE, budgets, predictor, seed, start=12)


def ledger_of(queries=27, source=None):
    return Ledger(source or Formula(), latency, queries, TRIES * queries)


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(SPACE.sample(rng) for _ in range(2 * count)))[:count]


def test_a_ledger_refuses_more_than_it_allows_and_tells_what_it_knows_for_nothing():
    source, networks = Formula(), some(4)
    ledger = Ledger(source, latency, queries=2, measurements=1, known={networks[3]: 7.0})
    assert ledger.measure(networks[3]) == 7.0
    assert ledger.measure(networks[0]) == latency(networks[0])
    first = ledger.query(networks[0])
    assert ledger.query(networks[0]) == first
    ledger.query(networks[1])
    assert (ledger.queries_left, ledger.measurements_left) == (0, 0)
    with pytest.raises(UsageError, match="all 2 accuracy queries are used"):
        ledger.query(networks[2])
    with pytest.raises(UsageError, match="all 1 measurements are used"):
        ledger.measure(networks[2])
    assert source.asked == networks[:2]
    assert ledger.seen == [Seen(networks[0], first, latency(networks[0]))]


@pytest.mark.parametrize("name", METHODS)
def test_all_queries_are_spent_on_different_networks_and_all_are_timed(predictor, name):
    source = Formula()
    ledger = ledger_of(source=source)
    METHODS[name](task_of(predictor), ledger)
    assert len(set(source.asked)) == len(source.asked) == 27
    assert len(ledger.seen) == 27


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides(predictor, name):
    def asked(seed, queries):
        source = Formula()
        METHODS[name](task_of(predictor, seed=seed), ledger_of(queries, source=source))
        return source.asked

    first = asked(3, 20)
    assert asked(3, 20) == first
    assert asked(4, 12) != first[:12]


@pytest.mark.parametrize("name", METHODS)
def test_a_budget_below_the_fastest_network_is_answered_with_the_nearest(predictor, name):
    task = task_of(predictor, (Budget("latency_ms", 0.5), *BUDGETS[1:]))
    ledger = ledger_of()
    METHODS[name](task, ledger)
    hopeless, *others = answers(task, ledger)
    assert not hopeless.meets
    assert hopeless.network.value == min(one.value for one in ledger.seen)
    assert all(answer.meets for answer in others)


def test_every_answer_is_the_best_that_meets_its_budget(predictor):
    task, ledger = task_of(predictor), ledger_of()
    METHODS["random"](task, ledger)
    for answer in answers(task, ledger):
        fitting = [one.accuracy for one in ledger.seen if answer.budget.meets(one.value)]
        assert answer.meets
        assert answer.network.accuracy == max(fitting)


def test_ours_is_better_than_random_and_near_the_best_there_is(predictor):
    def accuracies(name):
        task, ledger = task_of(predictor), ledger_of(57)
        METHODS[name](task, ledger)
        return np.array([answer.network.accuracy for answer in answers(task, ledger)])

    formula, every = Formula(), some(3_000)
    true = [max(formula.query(one) for one in every if budget.meets(latency(one))) for budget in BUDGETS]
    ours, random = accuracies("guided"), accuracies("random")
    assert np.all(ours >= random)
    assert np.all(ours > np.array(true) - 0.005)


def under_the_front(seen, most):
    """The area under the best accuracies, from the lowest latency that there is to `most`."""
    steps = sorted((one.value, one.accuracy) for one in seen if one.value <= most)
    ends = [value for value, _ in steps[1:]] + [most]
    bests = np.maximum.accumulate([accuracy for _, accuracy in steps])
    return sum(best * (end - value) for (value, _), end, best in zip(steps, ends, bests, strict=True))


def test_the_front_of_ours_is_above_the_random_one_at_as_many_queries(predictor):
    def area(name, seed):
        task, ledger = task_of(predictor, seed=seed), ledger_of(39)
        METHODS[name](task, ledger)
        return under_the_front(ledger.seen, BUDGETS[-1].bound)

    assert all(area("guided", seed) > area("random", seed) for seed in range(2))


def test_networks_faster_than_the_tightest_budget_are_queried_for_the_front(predictor, monkeypatch):
    def area():
        ledger = ledger_of(57)
        METHODS["guided"](
            task_of(predictor, (Budget("latency_ms", 16.0), Budget("latency_ms", 20.0))), ledger
        )
        return under_the_front(ledger.seen, 12)

    for_both = area()
    monkeypatch.setattr(guided, "_FRONT_EVERY", 10**9)
    assert for_both > 1.02 * area()


def test_a_round_that_runs_out_of_networks_is_followed_by_another(predictor, monkeypatch):
    every = guided._candidates
    monkeypatch.setattr(guided, "_candidates", lambda *arguments: every(*arguments)[:4])
    ledger = ledger_of(22)
    METHODS["guided"](task_of(predictor), ledger)
    assert ledger.queries_left == 0


def test_one_budget_alone_has_every_query_to_itself():
    assert guided._aims(BUDGETS[:1]) == [BUDGETS[0]] * 5
    aims = guided._aims(BUDGETS)
    assert [aims.count(budget) for budget in BUDGETS] == [5] * 3
    assert [turn for turn, aim in enumerate(aims) if aim is None] == [4, 9, 14]


def test_a_small_space_is_queried_to_its_last_network_and_no_further(predictor):
    small = SPACE.without(frozenset({"none", "nor_conv_1x1", "avg_pool_3x3"}))
    task, source = QueriedTask(small, BUDGETS, predictor, seed=0, start=30), Formula()
    with pytest.raises(UsageError, match="no network left to query"):
        METHODS["guided"](task, ledger_of(2**6 + 1, source))
    assert len(set(source.asked)) == len(source.asked) == 2**6


@pytest.mark.parametrize("name", METHODS)
def test_of_a_table_no_other_network_is_queried_and_nothing_is_left_in_the_end(predictor, name):
    source, networks = Formula(), some(30)
    task = QueriedTask(SPACE, BUDGETS[1:2], predictor, 0, 12, among=frozenset(networks))
    with pytest.raises(NothingLeftError, match="no network left"):
        METHODS[name](task, ledger_of(31, source))
    assert sorted(one.choices for one in source.asked) == sorted(one.choices for one in networks)


def test_under_one_budget_random_search_queries_what_meets_it(predictor):
    ledger = ledger_of()
    METHODS["random"](task_of(predictor, BUDGETS[:1]), ledger)
    assert all(BUDGETS[0].meets(one.value) for one in ledger.seen)


def test_a_throughput_is_met_from_above():
    one, two, three = some(3)
    slow, fast, good = Seen(one, 0.9, 10.0), Seen(two, 0.5, 40.0), Seen(three, 0.7, 25.0)
    assert best([slow, fast, good], Budget("throughput_fps", 20.0)) == good
    assert best([slow, fast, good], Budget("throughput_fps", 100.0)) == fast


def test_what_breaks_the_budget_when_measured_is_not_queried(predictor):
    order = sorted(some(50), key=latency, reverse=True)
    proposals = [*order[:2], order[-1]]
    ledger = ledger_of()
    one = spend(task_of(predictor), ledger, Budget("latency_ms", latency(order[-1])), proposals)
    assert one.architecture == order[-1]
    assert list(ledger.accuracies) == [order[-1]]
    assert list(ledger.values) == proposals
    with pytest.raises(UsageError, match="no network left"):
        spend(task_of(predictor), ledger, BUDGETS[0], [])


@pytest.mark.parametrize(
    ("budgets", "start", "says"),
    [
        ((), 12, "at least one"),
        ((Budget("latency_ms", 1.0), Budget("energy_mj", 1.0)), 12, "one metric"),
        ((Budget("latency_ms", 0.7, relative=True),), 12, "absolute budgets"),
        (BUDGETS, 3, "3 random networks"),
    ],
)
def test_tasks_that_cannot_be_right_are_refused(predictor, budgets, start, says):
    with pytest.raises(UsageError, match=says):
        QueriedTask(SPACE, budgets, predictor, 0, start)


def test_nothing_queried_is_nothing_answered(predictor):
    with pytest.raises(UsageError, match="no network was queried"):
        answers(task_of(predictor), ledger_of())


def test_belief_is_surest_of_what_was_seen_and_ranks_the_rest(predictor):
    formula, networks = Formula(), some(90)
    seen = [Seen(one, formula.query(one), latency(one)) for one in networks[:40]]
    belief = Belief(task_of(predictor), seen)
    posterior = belief.posterior(networks)
    assert posterior.spread[:40].mean() < 0.7 * posterior.spread[40:].mean()
    told = belief.merits(torch.tensor([formula.query(one) for one in networks[40:]]))
    assert torch.corrcoef(torch.stack([posterior.mean[40:], told]))[0, 1] > 0.9
    gates = SPACE.encode_all(networks[:5]).requires_grad_()
    belief.log_error(gates).sum().backward()
    assert float(gates.grad.abs().sum()) > 0


def test_networks_that_are_all_as_good_are_no_trouble(predictor):
    class Same:
        def query(self, architecture):
            return 1.0

    ledger = ledger_of(queries=14, source=Same())
    METHODS["guided"](task_of(predictor), ledger)
    assert ledger.queries_left == 0


def test_a_network_about_to_be_queried_is_no_longer_in_doubt_nor_is_its_like():
    covariance = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    after = Posterior(torch.zeros(3).double(), covariance, 0.01).knowing(0)
    assert after.spread[0] < 0.11
    assert after.spread[1] < 0.5
    assert after.spread[2] == 1
