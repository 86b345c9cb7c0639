"""The project's predictor as a whole: its members, the perceptron, another device's predictor."""

import math

import pytest
import torch
from additive_costs import FACTS, additive, drawn, noise

from ehdnas.search.predictor import ensemble, network, regression
from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.features import whole
from ehdnas.search.predictor.network import fit_network
from ehdnas.search.predictor.process import View

WHO = Identity("ehdnas", "nasbench201", 6, 5, "c16x15", "here", "threads 1", "latency_ms")


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(regression, "_ROUNDS", (10, 5, 5))


def predictor_of(gates, values, source=None):
    predictor = EnsemblePredictor(WHO, FACTS, source)
    predictor.fit(gates, values, seed=0)
    return predictor


def read_back(predictor, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    again = EnsemblePredictor(WHO, FACTS)
    again.restore(tmp_path / "p.safetensors")
    return again


def same(one, other, gates):
    return torch.equal(one(gates), other(gates)) and one.margin(0.9) == other.margin(0.9)


def test_a_pipeline_s_throughput_is_told_as_one_of_its_steps(brief, tmp_path):
    gates, unseen = drawn(120), drawn(200, seed=1)

    def steps(given):
        return 100 / torch.ceil(additive(given) / 6)

    predictor = predictor_of(gates, steps(gates))
    assert len(predictor.levels.logs) >= 3
    seen = torch.unique(steps(gates))
    # To within float32.
    nearest = (predictor(unseen).double()[:, None] / seen - 1).abs().min(1).values
    assert (nearest < 1e-5).double().mean() > 0.9
    assert same(read_back(predictor, tmp_path), predictor, unseen)
    soft = unseen.clone().requires_grad_()
    predictor(soft).sum().backward()
    assert (soft.grad.abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize("count", [79, 80])
def test_a_perceptron_joins_where_there_are_many_samples(count, brief, monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "_NETWORK_FROM", 80)
    monkeypatch.setattr(network, "_STEPS", 60)
    gates, unseen = drawn(count), drawn(50, seed=1)
    predictor = predictor_of(gates, additive(gates) * (1 + noise(count, 0.02)))
    members = 4 if count >= 80 else 3
    assert len(predictor.members) == members and predictor.shares.shape == (members, 2)
    assert predictor.shares.sum().item() == pytest.approx(1) and (predictor.shares >= 0).all()
    again = read_back(predictor, tmp_path)
    assert len(again.members) == members and same(again, predictor, unseen)


@pytest.mark.parametrize("count", [79, 80])
def test_what_was_only_taught_can_be_asked(count, brief, monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "_MANY_FROM", 80)
    gates, unseen = drawn(count), drawn(50, seed=1)
    predictor = EnsemblePredictor(WHO, FACTS)
    predictor.learn(gates, additive(gates), 0)
    assert len(predictor.members) == (4 if count >= 80 else 3)
    assert (predictor(unseen) / additive(unseen) - 1).abs().mean() < 0.1
    assert same(read_back(predictor, tmp_path), predictor, unseen)


def test_with_many_samples_each_view_is_there_on_the_log_too_where_it_is_heard(brief, monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "_MANY_FROM", 80)
    monkeypatch.setattr(ensemble, "_BETTER", 0)  # the first scale is the value's own
    gates, unseen = drawn(120), drawn(50, seed=1)
    predictor = predictor_of(gates, (additive(gates) / 5).exp())
    heard = (predictor.shares.sum(1) > 0).tolist()
    assert predictor.parts[:4] == [("value", view) for view in range(4)] and not all(heard)
    assert {scale for scale, _ in predictor.parts[4:]} == {"log"} and all(heard[4:])
    assert same(read_back(predictor, tmp_path), predictor, unseen)
    before = predictor(unseen)
    for member in [one for one, told in zip(predictor.members, heard, strict=True) if not told]:
        member.constant += 1
    assert torch.equal(predictor(unseen), before)


def test_a_metric_told_exactly_has_an_interval_that_holds_it(brief):
    gates, unseen = drawn(120), drawn(200, seed=1)

    def steps(given):
        return 100 / torch.ceil(additive(given) / 12)

    predictor = predictor_of(gates, steps(gates))
    for kind in (torch.float32, torch.float64):
        found = predictor.evaluate(unseen.to(kind), steps(unseen))
        assert found.coverage90 > 0.85, kind


def test_from_thousands_of_samples_on_there_are_enough_for_a_perceptron():
    assert 1000 < ensemble._NETWORK_FROM <= 2000


def test_the_perceptron_learns_and_its_seed_decides(monkeypatch):
    monkeypatch.setattr(network, "_STEPS", 300)
    monkeypatch.setattr(network, "_WIDTH", 64)
    gates, unseen = drawn(400), drawn(200, seed=1)
    features, others = (View(whole).features(one.double(), FACTS).values for one in (gates, unseen))
    fitted = fit_network(features, additive(gates), seed=0)
    with torch.no_grad():
        logs = fitted(others)
    assert logs.shape == (200, 2) and logs.dtype == torch.float64
    assert (logs[:, 0].exp() / additive(unseen) - 1).abs().mean() < 0.05
    torch.manual_seed(5)
    with torch.no_grad():
        assert torch.equal(fit_network(features, additive(gates), seed=0)(others), logs)
        assert not torch.equal(fit_network(features, additive(gates), seed=1)(others), logs)


def elsewhere(gates):
    """Another device: it is slower by a law that a dozen samples cannot tell of edges."""
    return 2 * additive(gates) ** 1.3


def test_a_source_helps_even_where_one_network_alone_was_measured(brief, tmp_path):
    many, one = drawn(60, seed=2), drawn(1).expand(20, -1, -1)
    alike = torch.linspace(9, 11, 20).double()
    for known, source in ((one, predictor_of(many, additive(many))), (many, predictor_of(one, alike))):
        values = alike if known is one else additive(many)
        helped = predictor_of(known, values, source)
        assert helped(many).isfinite().all()
        assert same(read_back(helped, tmp_path), helped, many)


def test_another_device_s_predictor_helps_where_there_are_few_samples(brief, tmp_path):
    many, few, unseen = drawn(150, seed=2), drawn(12, seed=3), drawn(300, seed=1)
    source = predictor_of(many, additive(many))
    helped, lone = predictor_of(few, elsewhere(few), source), predictor_of(few, elsewhere(few))
    truth = elsewhere(unseen)
    assert helped.evaluate(unseen, truth).mape < 0.7 * lone.evaluate(unseen, truth).mape
    again = read_back(helped, tmp_path)
    assert same(again, helped, unseen) and same(again.source, source, unseen)
    gates = unseen[:5].clone().requires_grad_()
    again(gates).sum().backward()
    assert gates.grad.isfinite().all() and (gates.grad.abs().sum((1, 2)) > 0).all()
    before = again(unseen)
    for member in again.source.members:
        member.constant += math.log(2)
    assert (again(unseen) / before - 1).abs().mean() > 0.01, "it asks the source"
