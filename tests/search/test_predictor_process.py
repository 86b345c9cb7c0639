"""The parts of the project's predictor: process, scale, levels."""

from dataclasses import replace

import pytest
import torch
from additive_costs import FACTS, additive, drawn, noise

from ehdnas.search.predictor import process, regression
from ehdnas.search.predictor.features import alone, effective, whole
from ehdnas.search.predictor.kernel import Kernel
from ehdnas.search.predictor.levels import Levels
from ehdnas.search.predictor.process import Fit, View
from ehdnas.search.predictor.warp import WARPS, Warp

VIEWS = {"whole": View(whole), "alone": View(alone, grouped=False, smooth=True)}


def of_live_edges(gates):
    return additive(gates * effective(gates, FACTS).values[:, :30].reshape(-1, 6, 5))


def fit_of(view, gates, values, kind="value"):
    return Fit(view, view.features(gates.double(), FACTS), values, kind, seed=0)


def told(view, fitted, gates):
    """The values by normal and by robust noise, [n, 2]."""
    return fitted(view.features(gates.double(), FACTS).values).exp()


@pytest.mark.parametrize(
    ("view", "target"),
    [(View(whole), additive), (View(effective), of_live_edges), (View(whole), of_live_edges)],
)
def test_what_adds_up_is_found_from_samples_without_noise(view, target):
    gates, unseen = drawn(150), drawn(300, seed=1)
    fitted = fit_of(view, gates, target(gates)).on(torch.arange(150))
    error = (told(view, fitted, unseen) / target(unseen)[:, None] - 1).abs()
    assert error.mean() < 0.001 and error.quantile(0.98) < 0.01 and error.max() < 0.05


@pytest.mark.parametrize("kind", WARPS)
def test_what_adds_up_on_a_scale_is_found_on_that_scale(kind):
    def target(gates):
        cost = additive(gates)
        return {"value": cost, "log": (cost / 5).exp(), "reciprocal": 1 / cost}[kind]

    gates, unseen, view = drawn(150), drawn(300, seed=1), View(whole)
    fitted = fit_of(view, gates, target(gates), kind).on(torch.arange(150))
    error = (told(view, fitted, unseen) / target(unseen)[:, None] - 1).abs()
    assert error.mean() < 0.002 and error.quantile(0.98) < 0.02


def test_outliers_pull_less_on_the_robust_solution():
    gates, unseen, view = drawn(120), drawn(300, seed=1), View(effective)
    values = of_live_edges(gates) * (1 + noise(120, 0.01))
    values[::20] *= torch.tensor([3, 1 / 3]).repeat(3)  # 5 % of them
    fitted = fit_of(view, gates, values).on(torch.arange(120))
    normal, robust = (told(view, fitted, unseen) / of_live_edges(unseen)[:, None] - 1).abs().mean(0)
    assert robust < 0.06 and robust < 0.75 * normal


def test_the_weight_of_outliers_settles_at_next_to_nothing():
    gates = drawn(120)
    values = of_live_edges(gates) * (1 + noise(120, 0.01))
    values[::20] *= 3
    problem, _ = fit_of(View(effective), gates, values)._regression(torch.arange(120), None)
    kernel, weights = problem.searched(), [torch.ones(120).double()]
    for _ in range(8):
        solution = problem.solution(kernel, weights[-1])
        weights.append(regression.student_weights(solution, kernel.noise.exp(), weights[-1]))
    assert (weights[-1] - weights[-2]).abs().max() < regression._SETTLED
    assert weights[-1][::20].max() < 0.3 and weights[-1].median() > 0.8


def test_a_process_is_fitted_to_the_rows_it_is_given():
    gates, view = drawn(60), View(whole)
    values = additive(gates)
    nonsense = torch.cat([values[:40], 100 * values[40:]])
    rows = torch.arange(40)
    one, other = (fit_of(view, gates, each).on(rows) for each in (values, nonsense))
    assert torch.equal(told(view, one, gates), told(view, other, gates))


@pytest.mark.parametrize("name", VIEWS)
def test_errors_when_left_out_are_those_of_a_solution_without_the_sample(name):
    """Equations 5.10 to 5.12 of Rasmussen and Williams against solving again, for some kernel and weights."""
    gates, view = drawn(25), VIEWS[name]
    fit = fit_of(view, gates, additive(gates) * (1 + noise(25, 0.1)))
    problem, _ = fit._regression(torch.arange(25), None)
    kernel = problem.searched()
    weights = torch.rand(25, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    solved = problem.solution(kernel, weights)
    for row in range(0, 25, 4):
        kept = torch.arange(25) != row
        without = replace(problem, inputs=problem.inputs[kept], targets=problem.targets[kept])
        again = without.solution(kernel, weights[kept])
        across = problem._kernel(kernel, problem.inputs[[row]], without.inputs)[0]
        error = problem.targets[row] - kernel.constant - across @ again.alpha
        assert error.item() == pytest.approx(solved.error[row].item(), rel=1e-6, abs=1e-9)
        itself = problem._covariance(kernel, weights)[row, row]
        known = torch.linalg.solve(without._covariance(kernel, weights[kept]), across)
        assert (itself - across @ known).item() == pytest.approx(solved.variance[row].item(), rel=1e-6)


def test_errors_when_left_out_foretell_those_on_other_networks():
    gates, unseen, view = drawn(80), drawn(300, seed=1), View(whole)
    fit = fit_of(view, gates, additive(gates) * (1 + noise(80, 0.05)))
    rows = torch.arange(80)
    left_out = fit.left_out_errors(rows).abs().mean()
    truth = additive(unseen) * (1 + noise(300, 0.05, seed=1))
    true = (told(view, fit.on(rows), unseen)[:, 1] / truth).log().abs().mean()
    assert left_out.item() == pytest.approx(true.item(), rel=0.35)


def test_the_loss_has_the_gradient_of_the_marginal_likelihood():
    gates = drawn(20)
    problem, _ = fit_of(View(effective), gates, additive(gates))._regression(torch.arange(20), None)
    weights = torch.ones_like(problem.targets)

    def slopes(loss_of):
        kernel = Kernel(*(one.clone().requires_grad_() for one in problem._first().all))
        loss_of(kernel).backward()
        return [one.grad for one in kernel.all]

    def likelihood(kernel):
        normal = torch.distributions.MultivariateNormal(
            kernel.constant.expand(20), problem._covariance(kernel, weights)
        )
        return -normal.log_prob(problem.targets)

    pairs = zip(slopes(lambda kernel: problem._loss(kernel, weights)), slopes(likelihood), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-6, atol=1e-9) for one, other in pairs)


def test_what_is_left_over_shrinks_where_it_is_known():
    gates, view = drawn(40), View(whole)
    fit = fit_of(view, gates, additive(gates) * (1 + noise(40, 0.02)))
    covariance, spread = fit.left_over(torch.arange(30), torch.arange(40))
    variance = covariance.diagonal()
    assert spread > 0 and (variance > -1e-6).all()
    assert torch.allclose(covariance, covariance.T, atol=1e-9)
    assert variance[:30].mean() < variance[30:].mean()


def test_a_fitted_process_says_what_is_left_over_without_another_search():
    gates, view = drawn(40), View(whole)
    fit = fit_of(view, gates, additive(gates) * (1 + noise(40, 0.02)))
    covariance, spread = fit.left_over(torch.arange(30), torch.arange(30, 40))
    fitted = fit.on(torch.arange(30))
    again, same = process.left_over(fitted, view.features(gates.double(), FACTS), 30)
    assert torch.allclose(again, covariance, rtol=1e-9, atol=1e-9)
    assert same == pytest.approx(float(spread))
    with pytest.raises(ValueError, match="fit it"):
        process.left_over(process.Process(), view.features(gates.double(), FACTS), 30)


def test_more_rows_than_a_process_holds_are_thinned(monkeypatch):
    monkeypatch.setattr(process, "_MOST", 50)
    monkeypatch.setattr(process, "_SEARCHED_ON", 30)
    gates, unseen, view = drawn(200), drawn(200, seed=1), View(whole)
    fit = fit_of(view, gates, additive(gates))
    fitted = fit.on(torch.arange(200))
    assert len(fitted.support) == 50
    assert (told(view, fitted, unseen) / additive(unseen)[:, None] - 1).abs().mean() < 0.03
    assert fit.on(torch.arange(100)).kept.equal(fitted.kept), "the kernel is searched once"


@pytest.mark.parametrize("kind", WARPS)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
def test_a_scale_goes_there_and_back(kind, unit):
    values = unit * torch.logspace(-1, 2, 30, dtype=torch.float64)
    warp = Warp(kind)
    targets = warp.fit(values)
    assert targets.mean().item() == pytest.approx(0, abs=1e-9)
    assert targets.std().item() == pytest.approx(1)
    assert torch.allclose(warp.log(targets).exp(), values, rtol=1e-9)


@pytest.mark.parametrize("kind", WARPS)
def test_a_scale_rises_or_falls_and_keeps_a_gradient_however_far_out(kind):
    warp = Warp(kind)
    warp.fit(torch.linspace(1, 9, 30, dtype=torch.float64))
    targets = torch.linspace(-50, 50, 2001, dtype=torch.float64).requires_grad_()
    logs = warp.log(targets)
    logs.sum().backward()
    steps = logs.detach().diff() * (-1 if kind == "reciprocal" else 1)
    assert logs.isfinite().all() and (steps > 0).all()
    assert targets.grad.isfinite().all() and (targets.grad != 0).all()
    assert kind == "log" or (targets * warp.scale + warp.centre < warp.floor).any(), "some are below it"


@pytest.mark.parametrize("kind", WARPS)
def test_values_that_are_all_alike_still_have_a_scale(kind):
    warp = Warp(kind)
    targets = warp.fit(torch.full((20,), 5.0, dtype=torch.float64))
    assert targets.abs().max() < 1 and torch.allclose(warp.log(targets).exp(), torch.tensor(5.0).double())


SEEN = torch.tensor([10.0, 20.0, 30.0]).log().double().repeat_interleave(torch.tensor([60, 30, 30]))


def learnt(guessed, seen):
    levels = Levels()
    levels.learn(guessed, seen, seen)
    return levels


def test_a_metric_of_few_values_is_predicted_as_one_of_them():
    levels = learnt(SEEN + noise(120, 0.05), SEEN)
    logs = torch.tensor([10.6, 19.0, 27.5, 15.0]).log().double().requires_grad_()
    out = levels(logs)
    assert out.detach().exp()[:3].tolist() == pytest.approx([10, 20, 30])
    assert min(abs(out[3].detach().exp().item() - one) for one in (10, 20, 30)) < 1e-6
    (out * torch.arange(1.0, 5.0)).sum().backward()
    assert logs.grad.tolist() == pytest.approx([1, 2, 3, 4]), "as if nothing had been done"


def test_values_beyond_all_that_were_seen_stay_as_they_are():
    levels = learnt(SEEN + noise(120, 0.05), SEEN)
    far = torch.tensor([1.0, 7.0, 45.0, 1e6]).log().double()
    assert torch.equal(levels(far), far)


def test_a_metric_that_takes_any_value_has_no_levels():
    seen = torch.linspace(0, 1, 120, dtype=torch.float64)
    guessed = seen + noise(120, 0.05)
    levels = learnt(guessed, seen)
    assert len(levels.logs) == 0 and levels(guessed) is guessed


def test_levels_that_would_help_nothing_are_not_taken():
    assert len(learnt(SEEN[torch.randperm(120)] * 0 + SEEN.mean(), SEEN).logs) == 0
    assert len(learnt(SEEN.clone(), SEEN).logs) == 0, "they are met already"


def test_a_level_that_was_seen_elsewhere_is_a_level_too():
    levels = Levels()
    levels.learn(SEEN + noise(120, 0.05), SEEN, torch.cat([SEEN, torch.full((30,), 40.0).log().double()]))
    assert levels(torch.tensor([38.5]).log().double()).exp().item() == pytest.approx(40)
