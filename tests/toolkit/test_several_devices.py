"""A search for several devices at once: budgets that all are met, refusals, resuming, what follows."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ehdnas.core.budget import Budget
from ehdnas.core.errors import BudgetError
from ehdnas.pipeline.constraints import DeviceBudget, device_budgets
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.feasible import closest, require_feasible
from ehdnas.pipeline.finalists import Finals, Judge
from ehdnas.pipeline.profile import Profile, open_meter
from ehdnas.pipeline.reporter import Silent
from ehdnas.search.checkpoint import load_checkpoint
from ehdnas.search.selection import closeness
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace, find_workspace

TINY = {
    "channels": 4,
    "cells": 3,
    "samples": 40,
    "search_epochs": 2,
    "train_epochs": 2,
    "batch_size": 64,
    "finalists": 2,
    "trial_epochs": 1,
}
TOML = "".join(f"{key} = {value}\n" for key, value in TINY.items())
DEVICES = ("ehdnas-generic", "zcu102-pipeline")
BOTH = ["--device", ",".join(DEVICES)]
BUDGET = "0.8x on ehdnas-generic, 0.7x on zcu102-pipeline"


@pytest.fixture(scope="module")
def profiled_both(tmp_path_factory):
    """The workspace of a project whose two devices are profiled: made once, then copied."""
    from ehdnas.cli import main

    folder = tmp_path_factory.mktemp("both")
    (folder / "ehdnas.toml").write_text(TOML)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert [main(["profile", "--device", device]) for device in DEVICES] == [0, 0]
    finally:
        os.chdir(before)
    return folder / ".ehdnas"


@pytest.fixture
def two(project, profiled_both):
    (project / "ehdnas.toml").write_text(TOML)
    shutil.copytree(profiled_both, project / ".ehdnas")
    return project


class Heard(Silent):
    """A reporter that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def context_of(project, reporter=None, **settings):
    given = {**TINY, "device": ",".join(DEVICES), **settings}
    return Context(Settings(**given), Workspace(project), reporter or Silent())


def test_the_network_found_meets_each_devices_budget_and_is_verified_on_both(two, ehdnas):
    result = ehdnas("search", *BOTH, "--budget", BUDGET, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [one["device"] for one in found["budgets"]] == list(DEVICES)
    for budget, figure in zip(found["budgets"], found["chosen"]["figures"], strict=True):
        assert figure["value"] <= budget["bound"]
    assert "violation.zcu102-pipeline.latency_ms" in found["history"][-1]
    assert "multiplier.ehdnas-generic.latency_ms" in found["history"][-1]
    assert ehdnas("train").code == 0
    assert ehdnas("export", "--target", "tflite").code == 0
    verified = ehdnas("verify", "--json")
    assert verified.code == 0, verified.err
    said = json.loads(verified.out)
    assert said["verdict"] == "PASS"
    assert [one["device"] for one in said["measurements"]] == list(DEVICES)
    assert [one["value"] for one in said["figures"]] == [one["value"] for one in found["chosen"]["figures"]]
    run = find_workspace().latest()
    written = run.read("verify")
    alone = json.loads(ehdnas("verify", "--device", DEVICES[1], "--json").out)
    assert [one["device"] for one in alone["figures"]] == [DEVICES[1]]
    assert run.read("verify") == written  # one device's figure is not the run's verdict
    other = ehdnas("verify", "--device", "ku115-generic")
    assert other.code == 2 and "has no budget for device 'ku115-generic'" in other.err
    page = Path(json.loads(ehdnas("report", "--json").out)["report"]).read_text()
    for budget in found["budgets"]:
        assert f"Budget on {budget['device']}" in page
        assert f"<h3>On {budget['device']}</h3>" in page


@pytest.mark.slow
def test_one_broken_budget_fails_the_verdict(two, ehdnas):
    assert ehdnas("run", *BOTH, "--budget", "2x", "--targets", "onnx", "--json").code == 0
    run = find_workspace().latest()
    search = run.read("search")
    search["budgets"][1]["bound"] = 1e-6
    run.write("search", search)
    result = ehdnas("verify")
    assert result.code == 3
    assert [line.split()[0] for line in result.out.splitlines()[:1]] == ["verdict"] and "FAIL" in result.out
    assert "not met: latency_ms" in result.out and "budget 1     " in result.out.replace("outputs", "")


@pytest.mark.slow
def test_a_search_for_two_devices_is_the_same_after_an_interruption(two, ehdnas, monkeypatch):
    with (two / "ehdnas.toml").open("a") as settings:
        settings.write("checkpoint_s = 0\n")
    whole = json.loads(ehdnas("search", *BOTH, "--budget", BUDGET, "--json").out)
    from ehdnas.search.searcher import Searcher

    step, done = Searcher.weight_step, []

    def interrupted(self, *batch):
        done.append(1)
        if len(done) == 18:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Searcher, "weight_step", interrupted)
    assert ehdnas("search", *BOTH, "--budget", BUDGET).code == 130
    monkeypatch.setattr(Searcher, "weight_step", step)
    _, meta = load_checkpoint(find_workspace().latest().checkpoint("search"))
    assert {"multiplier.0.0", "multiplier.0.1"} <= meta["carried"].keys()
    resumed = ehdnas("search", "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert "going on after step" in resumed.err
    found = json.loads(resumed.out)
    assert (found["genotype"], found["history"]) == (whole["genotype"], whole["history"])


@pytest.mark.parametrize(
    ("device", "budget", "says"),
    [
        (
            "ehdnas-generic,zcu102-pipeline",
            "1x on zcu102-pipelin, 1x on ehdnas",
            "is not searched for",
        ),
        (
            "ehdnas-generic,zcu102-pipeline",
            "1x on ku115-generic",
            "is not searched for",
        ),
        ("ehdnas-generic,zcu102-pipeline", "1x, 0.9x, 0.8x", "3 budgets for 2 devices"),
        ("ehdnas-generic", "1x, 0.9x", "two bounds on the latency of 'ehdnas-generic'"),
        ("ehdnas-generic,zcu102-pipeline", "1x on ehdnas-generic", "none is for device 'zcu102-pipeline'"),
        ("ehdnas-generic,nowhere", "1x", "nowhere"),
        ("ehdnas-generic,local", "1x --codesign", "is not a budget"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_done(project, ehdnas, device, budget, says):
    result = ehdnas("search", "--device", device, "--budget", budget)
    assert result.code == 2
    assert says in result.err.strip().splitlines()[-1]
    assert not (project / ".ehdnas").exists()


def test_unmapped_choices_need_an_edge_tpu_among_the_devices(two, ehdnas):
    result = ehdnas("search", *BOTH, "--exclude", "unmapped")
    assert result.code == 2
    assert "needs an Edge TPU device; device 'ehdnas-generic, zcu102-pipeline' is none" in result.err


class Contrary(DeviceBudget):
    """A budget on a device that is the faster the more another one has to do."""

    def value(self, measurement):
        return 1e-4 / measurement.metric(self.budget.metric)


def unprofiled(kind, context, bound):
    """Return a budget on a simulated device, which needs no predictor to be judged by."""
    budget = Budget("latency_ms", bound)
    return kind(context, budget, Profile(budget.metric, None, open_meter(context)))


def values_of(budgets, network):
    return [(one, one.value(one.meter.measure(network))) for one in budgets]


def test_budgets_that_no_network_meets_together_are_refused_with_the_nearest(project):
    first, other = (context_of(project, device=device) for device in DEVICES)
    loose = (unprofiled(DeviceBudget, first, 1.0), unprofiled(Contrary, other, 1.0))
    assert all(one.budget.meets(value) for one, value in values_of(*require_feasible(first, loose)))
    fastest = [closest(first, (one,), descend=True)[0] for one in loose]
    tight = tuple(
        replace(one, budget=Budget("latency_ms", 1.1 * values_of((one,), best)[0][1]))
        for one, best in zip(loose, fastest, strict=True)
    )
    for one in tight:
        assert require_feasible(first, (one,))
    with pytest.raises(BudgetError) as error:
        require_feasible(first, tight)
    text = str(error.value)
    assert "together, though each can be met; the nearest found misses latency <=" in text
    assert "\n" not in text and "% (latency <=" in text
    _, worst = closest(first, tight)
    extreme = [
        max(one.budget.violation(value) for one, value in values_of(tight, network)) for network in fastest
    ]
    assert 0 < worst < min(extreme)  # a compromise is nearer than what is best for one device alone
    misses = [float(part.split(" by ")[-1]) for part in text.split("%")[:-1]]
    assert max(misses) == pytest.approx(100 * math.expm1(worst), abs=0.06)


def test_a_budget_one_device_cannot_meet_names_that_device(two, ehdnas):
    result = ehdnas("search", *BOTH, "--budget", "2x on ehdnas-generic, latency <= 1 us on zcu102-pipeline")
    assert result.code == 3
    assert "latency <= 0.001 ms on zcu102-pipeline; the nearest found has" in result.err.splitlines()[-1]


def misled(budget, told):
    """Return a budget whose predictor was fitted to what `told` makes of the values."""
    from ehdnas.pipeline.predictors import samples, unfitted

    gates, values = samples(budget.meter, budget.budget.metric)
    predictor = unfitted(budget.context, budget.meter, budget.budget.metric)
    predictor.fit(gates, told(values), 0)
    return replace(budget, profiled=replace(budget.profiled, predictor=predictor))


def test_a_predictor_that_was_wrong_is_fitted_again_and_chooses_what_fits(two, monkeypatch):
    monkeypatch.setattr(DeviceBudget, "exact", False)  # as a board is, it is known by its predictor alone
    heard = Heard()
    context = context_of(two, heard, device="ehdnas-generic", budget="0.55x")
    (true,) = device_budgets(context)
    logits = context.space.initial_logits()
    judge = Judge(context, context.space.supernet(context.shape))
    finals = Finals(
        context, (misled(true, lambda values: 0.5 * values),), require_feasible(context, (true,))[1]
    )
    finals.hold(logits, judge)
    assert finals.best is not None and finals.best.meets
    first, later = finals.measured[:6], finals.measured[6:]
    assert not any(one.meets for one in first)
    assert all(one.figures[0]["predicted"] <= true.budget.bound for one in first)
    assert any(one.meets for one in later)
    assert -math.log(1.05) <= finals.best.violation <= 0
    networks = [one.architecture for one in finals.measured]
    assert len(set(networks)) == len(networks)
    said = [line for line in heard.lines if "fitting the predictor of ehdnas-generic" in line]
    assert said and all("\n" not in line for line in said)
    (now,) = finals.budgets
    rows = context.space.encode_all(networks[:6])
    values = [one.figures[0]["value"] for one in first]
    errors = [abs(float(now.profiled.predictor(row[None])) / value - 1) for row, value in zip(rows, values)]  # noqa: B905
    assert max(errors) < 0.2


def test_a_budget_is_not_called_too_tight_for_a_predictor_that_was_wrong(two, monkeypatch):
    heard = Heard()
    context = context_of(two, heard, device="ehdnas-generic", budget="0.55x")
    (true,) = device_budgets(context)
    known = min(true.value(measured) for _, measured in true.meter.measured())
    monkeypatch.setattr(DeviceBudget, "exact", False)  # as a board is, it is known by its predictor alone
    contrary = misled(true, lambda values: values.min() * values.max() / values)
    tight = replace(contrary, budget=Budget("latency_ms", 0.95 * known))
    (learnt,), found = require_feasible(context, (tight,))
    assert learnt.budget.meets(values_of((learnt,), found)[0][1])
    assert any("misses it by 5.3%; fitting the predictor again" in line for line in heard.lines)
    hopeless = replace(true, budget=Budget("latency_ms", 0.1 * known))
    before = len(true.meter.measured())
    with pytest.raises(BudgetError):
        require_feasible(context, (hopeless,))
    assert len(true.meter.measured()) <= before + 1, "farther than predictors are ever off: not tried again"


def test_after_one_meets_the_budget_only_more_accurate_ones_are_measured(two):
    context = context_of(two, device="ehdnas-generic", budget="0.9x")
    budgets = device_budgets(context)
    finals = Finals(context, *require_feasible(context, budgets))
    finals.hold(context.space.initial_logits(), Judge(context, context.space.supernet(context.shape)))
    best = next(at for at, one in enumerate(finals.measured) if one.meets)
    floor = finals.measured[best].accuracy
    assert all(one.accuracy > floor for one in finals.measured[best + 1 :])
    assert finals.best.accuracy == max(one.accuracy for one in finals.measured if one.meets)
    assert all(-math.log(1.05) <= one.violation <= 0 for one in finals.measured)  # simulated, so known before


@pytest.mark.parametrize(
    ("share", "spread", "close"),
    [(0.97, 0.0, True), (0.955, 0.03, True), (0.99, 0.02, False), (0.945, 0.03, False), (0.945, 0.0, False)],
)
def test_a_finalist_is_close_if_it_reads_so_and_will_meet_the_budget_again(project, share, spread, close):
    class Read(DeviceBudget):
        def figure(self, architecture):
            return {"value": share * self.budget.bound, "spread": spread, "meets": True}

    context = context_of(project, device="ehdnas-generic")
    network = context.space.reference
    finals = Finals(context, (unprofiled(Read, context, 2.0),), network)
    assert (closeness(finals.keep(network).violation) == 0) == close


@pytest.mark.slow
def test_a_search_that_proposes_nothing_that_fits_goes_on_and_then_falls_back(two, ehdnas, monkeypatch):
    """Every candidate is made to break the budget; only the fastest network known is left to keep."""
    from ehdnas.pipeline import finalists

    hold = finalists.Finals.keep

    def refused(self, candidate, accuracy=None):
        found = hold(self, candidate, accuracy)
        found.figures[0]["meets"] = accuracy is None
        return found

    monkeypatch.setattr(finalists.Finals, "keep", refused)
    monkeypatch.setattr(finalists, "_REFINEMENTS", 1)
    result = ehdnas("search", "--device", "ehdnas-generic", "--budget", "0.9x", "--json")
    assert result.code == 0, result.err
    assert "1 more epochs, with the predictor fitted again" in result.err
    assert "going on after step 22 of 33" in result.err
    assert result.err.count("fitting the predictor of ehdnas-generic") == 2
    assert "keeping the fastest network known" in result.err
    found = json.loads(result.out)
    assert len(found["history"]) == 3
    assert found["chosen"] == found["candidates"][-1] and found["chosen"]["supernet_accuracy"] is None


def test_evolution_and_a_baseline_take_several_devices_too(two, ehdnas):
    flags = ["--method", "evolution", "--baseline", "DARTS_V2", "--targets", "onnx"]
    result = ehdnas("run", *BOTH, "--budget", BUDGET, *flags)
    assert result.code == 0, result.err
    run = find_workspace().latest()
    found = run.read("search")
    assert found["method"] == "evolution" and all(one["meets"] for one in found["chosen"]["figures"])
    assert found["chosen"]["genotype"] in json.loads(run.stage_file("scores").read_text())
    judged = run.beside.read("verify")
    assert [one["device"] for one in judged["figures"]] == list(DEVICES)
    # The budgets are shares of what that very network takes.
    assert judged["verdict"] == "FAIL" and not any(one["meets"] for one in judged["figures"])
    (line,) = [line for line in result.out.splitlines() if line.startswith("baseline")]
    assert "DARTS_V2" in line and all(f"simulated on {name}" in line for name in DEVICES)
    page = (run.folder / "report.html").read_text()
    beside = page[page.index("Beside it") :]
    assert all(f"simulated on {name}" in beside for name in DEVICES)
