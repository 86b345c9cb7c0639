"""What every predictor must do, whichever method it is and whatever space its networks are of."""

import pytest
import torch
from predictor_cases import (
    CHAIN,
    OF_COST,
    SAMPLES,
    case,
    each_method,
    each_pair,
    fitted,
    make,
    seeded,
)

from ehdnas.core.errors import UsageError

pytestmark = pytest.mark.usefixtures("brief")


@each_pair
def test_predictions_are_positive_numbers_for_any_network(method, where):
    predictor = fitted(method, where)
    values = predictor(case(where).drawn(300, seed=1))
    assert values.shape == (300,) and values.isfinite().all() and (values > 0).all()
    _, seen = case(where).samples(SAMPLES)
    assert (values > seen.min() / 3).all() and (values < seen.max() * 3).all(), "in the unit of the samples"
    quality = predictor.quality
    assert quality.samples == SAMPLES == len(quality.predicted) and quality.mape < 0.5


@each_pair
def test_the_better_methods_rank_networks_that_they_have_not_seen(method, where):
    found = fitted(method, where).evaluate(*case(where).samples(300, seed=1))
    assert 0 <= found.within10 <= 1 and found.coverage90 > 0.8
    if method in ("ehdnas", "linear"):
        assert found.spearman > (0.7 if method == "ehdnas" else 0.4)
        assert found.within10 > found.constant_within10


@each_pair
@pytest.mark.parametrize("form", ["one-hot", "soft"])
def test_gradients_reach_the_gates(method, where, form):
    gates = case(where).drawn(5, seed=2)
    if form == "soft":
        gates = torch.randn(gates.shape, generator=seeded(2)).softmax(2)
    gates.requires_grad_()
    values = fitted(method, where)(gates)
    assert values.isfinite().all() and (values > 0).all()
    values.sum().backward()
    assert gates.grad.isfinite().all()
    assert (gates.grad.abs().sum((1, 2)) > 0).all() != (method == "constant")


@each_pair
def test_gradients_go_through_a_relaxed_sample_to_its_logits(method, where):
    logits = torch.zeros(fitted(method, where).identity.slots, fitted(method, where).identity.choices)
    logits.requires_grad_()
    gates = torch.stack([case(where).relaxed(logits, seed) for seed in range(3)])
    fitted(method, where)(gates).sum().backward()
    assert logits.grad.isfinite().all()
    assert bool(logits.grad.abs().sum() > 0) != (method == "constant")


@each_pair
def test_one_network_and_many_are_predicted_alike(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(20, seed=1)
    singly = torch.cat([predictor(gates[at : at + 1]) for at in range(20)])
    assert torch.allclose(singly, predictor(gates), rtol=1e-5)
    assert predictor(gates[:0]).shape == (0,)


@each_pair
def test_float32_stays_float32(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(3)
    assert gates.dtype == torch.float32
    for values in (predictor(gates), predictor.log_value(gates), *predictor.interval(gates, 0.9)):
        assert values.dtype == torch.float32


@each_pair
def test_the_seed_alone_decides_the_fit(method, where):
    torch.manual_seed(99)
    again = make(method, where)
    quality = again.fit(*case(where).samples(SAMPLES), seed=3)
    gates = case(where).drawn(20, seed=1)
    assert torch.equal(again(gates), fitted(method, where)(gates))
    assert quality == again.quality == fitted(method, where).quality
    assert torch.equal(again.residuals, fitted(method, where).residuals)


@each_pair
def test_intervals_hold_the_value_and_widen_with_confidence(method, where):
    predictor, gates = fitted(method, where), case(where).drawn(20, seed=1)
    values, before = predictor(gates), None
    for confidence in (0.0, 0.5, 0.9):
        lower, upper = predictor.interval(gates, confidence) if confidence else (values, values)
        assert (lower > 0).all() and (lower <= values).all() and (values <= upper).all()
        assert before is None or ((lower <= before[0]).all() and (upper >= before[1]).all())
        before = lower, upper
    assert upper.isfinite().all()
    assert predictor.margin(0.999) == float("inf")


@each_method
def test_too_few_samples_are_refused(method):
    gates, values = case("nasbench201").samples(9)
    with pytest.raises(UsageError, match=r"^9 samples: a predictor needs at least 10"):
        make(method, "nasbench201").fit(gates, values, 0)


@each_method
@pytest.mark.parametrize("bad", [float("nan"), 0.0, -1.0, float("inf"), -float("inf")])
def test_values_that_are_no_positive_numbers_are_named(method, bad):
    gates, values = case("nasbench201").samples(20)
    values[[3, 7]] = bad
    with pytest.raises(UsageError, match=r"^samples \[3, 7\] are not positive numbers"):
        make(method, "nasbench201").fit(gates, values, 0)


@each_method
def test_networks_of_another_space_are_refused(method):
    _, values = case("nasbench201").samples(20)
    for gates in (case("darts").drawn(20), case("nasbench201").drawn(20)[:, :, :4], torch.zeros(20, 30)):
        with pytest.raises(UsageError, match="space 'nasbench201'"):
            make(method, "nasbench201").fit(gates, values, 0)


@each_method
def test_as_many_values_as_networks_are_asked_for(method):
    gates, values = case("nasbench201").samples(20)
    with pytest.raises(UsageError, match="19 architectures but 20 values"):
        make(method, "nasbench201").fit(gates[:19], values, 0)
    with pytest.raises(UsageError, match="20 architectures but 19 values"):
        fitted(method, "nasbench201").evaluate(gates, values[:19])


@each_method
def test_values_that_are_all_the_same_are_nothing_to_learn_from(method):
    gates, values = case("nasbench201").samples(20)
    with pytest.raises(UsageError, match=r"^all 20 values are the same \(7\.5\)"):
        make(method, "nasbench201").fit(gates, torch.full_like(values, 7.5), 0)
    predictor = make(method, "nasbench201")
    predictor.fit(gates, torch.full_like(values, 7.5).index_fill_(0, torch.tensor([4]), 7.6), 0)
    found = predictor(gates)
    assert found.isfinite().all() and (found > 5).all() and (found < 10).all()


@each_method
def test_one_network_measured_over_and_over_is_predicted_as_it_was(method, tmp_path):
    gates, values = case("nasbench201").drawn(1).expand(20, -1, -1), torch.linspace(9, 11, 20).double()
    predictor = make(method, "nasbench201")
    predictor.fit(gates, values, 0)
    assert predictor(gates[:1]).item() == pytest.approx(10, rel=0.1)
    others = case("nasbench201").drawn(50, seed=1)
    assert predictor(others).isfinite().all()
    predictor.save(tmp_path / "p.safetensors")
    again = make(method, "nasbench201")
    again.restore(tmp_path / "p.safetensors")
    assert torch.equal(again(others), predictor(others))


@pytest.mark.parametrize("method", OF_COST)
def test_what_needs_costs_says_so_where_there_are_none(method):
    with pytest.raises(UsageError, match=f"predictor '{method}'"):
        make(method, CHAIN).fit(*case(CHAIN).samples(20), 0)


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match=r"no predictor 'embeding'.*did you mean 'embedding'"):
        make("embeding", CHAIN)
