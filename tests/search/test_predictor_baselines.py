"""The baselines fit what they can express, hand gradients on, stay positive and say what they lack."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ehdnas.core.errors import UsageError
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import MACS, OP_LATENCY, Costs, SpaceFacts
from ehdnas.search.predictor.methods import METHODS, make_predictor
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
WHO = Identity("linear", "nasbench201", 6, 5, "c16x15", "somewhere", "threads 1", "latency_ms")
CHOSEN = torch.tensor([0.0, 0.1, 1.0, 4.0, 0.5]).double().expand(6, 5)
COSTS = Costs((MACS, OP_LATENCY), torch.stack([1e6 * CHOSEN, CHOSEN], 2), torch.tensor([5e6, 2.0]).double())
FACTS = SpaceFacts(SPACE.graphs, COSTS)
NAMES = ("constant", "flops", "op-sum", "linear")
MOVING = NAMES[1:]


def make(name, facts=FACTS):
    return make_predictor(replace(WHO, method=name), facts)


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return SPACE.encode_all([SPACE.sample(rng) for _ in range(count)])


def target(name, gates):
    """Return values that the method can express exactly."""
    if name == "linear":
        return 3 + (gates.double() * CHOSEN).sum((1, 2))
    return 1 + 2 * FACTS.total(gates.double(), OP_LATENCY)


@pytest.mark.parametrize("name", MOVING)
def test_what_it_can_express_it_finds(name):
    predictor, gates, unseen = make(name), drawn(60), drawn(200, seed=1)
    quality = predictor.fit(gates, target(name, gates), seed=0)
    assert quality.within10 == 1
    assert torch.allclose(predictor(unseen).double(), target(name, unseen), rtol=1e-3)
    assert predictor.evaluate(unseen, target(name, unseen)).spearman > 0.99


def test_constant_is_the_median_and_ranks_nothing():
    predictor, gates = make("constant"), drawn(11)
    values = torch.arange(1.0, 12.0).double()
    predictor.fit(gates, values, seed=0)
    assert predictor(drawn(3)).tolist() == pytest.approx([6, 6, 6])
    assert predictor.evaluate(gates, values).spearman == 0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_to_the_gates(name):
    predictor, gates = make(name), drawn(60)
    predictor.fit(gates, target(name, gates), seed=0)
    soft = torch.full((1, 6, 5), 0.2, requires_grad=True)
    predictor(soft).sum().backward()
    slope = soft.grad[0]
    assert slope.isfinite().all()
    if name == "constant":
        assert (slope == 0).all()
    else:
        assert (slope[:, 3] > slope[:, 2]).all()  # the 3x3 convolution costs more than the 1x1


@pytest.mark.parametrize("name", NAMES)
def test_the_file_reads_back(name, tmp_path):
    predictor, gates = make(name), drawn(60)
    predictor.fit(gates, target(name, gates), seed=0)
    predictor.save(tmp_path / "p.safetensors")
    again = make(name)
    again.restore(tmp_path / "p.safetensors")
    assert torch.equal(again(gates), predictor(gates))
    assert again.margin(0.9) == predictor.margin(0.9)


@pytest.mark.parametrize("name", MOVING)
def test_no_prediction_is_zero_or_less_however_far_out(name):
    predictor, gates = make(name), drawn(60)
    values = (target(name, gates) - target(name, gates).min() + 0.01).double()
    predictor.fit(gates, values, seed=0)
    far = (drawn(20, seed=2) * -1000).requires_grad_()
    logs = predictor.log_value(far)
    assert logs.isfinite().all()
    assert (predictor(far) >= 0.1 * values.min() * (1 - 1e-6)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_the_unit_of_the_values_changes_nothing(name, scale):
    gates, unseen = drawn(60), drawn(20, seed=1)
    noise = 1 + 0.05 * torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = target(name, gates) * noise
    plain, scaled = make(name), make(name)
    plain.fit(gates, values, seed=0)
    scaled.fit(gates, values * scale, seed=0)
    assert torch.allclose(scaled(unseen).double() / scale, plain(unseen).double(), rtol=1e-4)


def test_linear_does_not_follow_noise():
    gates, unseen = drawn(30), drawn(300, seed=1)
    noise = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    predictor = make("linear")
    predictor.fit(gates, 10 + noise, seed=0)
    assert float(predictor(unseen).std()) < 0.5 * float(noise.std())


def test_one_cost_for_every_sample_still_gives_a_fit():
    gates = drawn(1).expand(20, 6, 5)
    predictor = make("flops")
    predictor.fit(gates, torch.linspace(9, 11, 20).double(), seed=0)
    assert predictor(gates[:1]).item() == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize(
    ("name", "says"), [("flops", "MACs of this space.*facts_of"), ("op-sum", "profile --ops")]
)
@pytest.mark.parametrize("costs", [None, Costs(("weights",), CHOSEN[:, :, None], torch.zeros(1))])
def test_a_cost_that_is_not_known_is_asked_for(name, says, costs):
    gates = drawn(20)
    with pytest.raises(UsageError, match=rf"'{name}'.*{says}"):
        make(name, SpaceFacts(SPACE.graphs, costs)).learn(gates, target(name, gates), 0)


def test_every_baseline_has_its_name():
    assert set(NAMES) <= set(METHODS)
