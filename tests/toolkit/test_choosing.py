"""Networks are measured that tell most of all others, the same for the same seed and measurements."""

import csv
from itertools import islice

import pytest
import torch

from ehdnas.cli.options import make_context
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline import choosing, measuring
from ehdnas.pipeline.choosing import targets_of
from ehdnas.pipeline.predictors import open_records
from ehdnas.pipeline.targets import sample_architectures
from ehdnas.search.predictor import embedding

FLAGS = {"device": "local", "space": "nasbench201", "channels": 4, "cells": 3}
COMMAND = ["profile", "--device", "local", "--space", "nasbench201", "--channels", 4, "--cells", 3, "--all"]


def latency_of(context, network):
    """A device's answer by a formula: what the network computes, and a little of its own."""
    gates = context.space.encode_all([network]).double()
    return 1 + float(context.facts.total(gates, "macs")) / 1e5 + 0.01 * (hash(network.choices) % 7)


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(embedding, "_STEPS", 10)


@pytest.fixture
def formula(project, monkeypatch):
    """Have networks "measured" by a formula, and give the list of those that were; `stop` ends it early."""
    taken = []

    def measure(context, meter, keys, make, until, on_done):
        for key in keys:
            if len(taken) == measure.stop:
                raise KeyboardInterrupt
            network = context.space.parse(key.subject)
            taken.append(network)
            metrics = {"latency_ms": latency_of(context, network)}
            meter.store.add(key, Measurement(device="local", basis="measured", metrics=metrics))
            on_done()

    measure.stop, measure.taken = None, taken
    monkeypatch.setattr(measuring, "measure_on_boards", measure)
    return measure


def drawn(number, **flags):
    return list(islice(sample_architectures(make_context({**FLAGS, **flags})), number))


def test_after_the_first_round_networks_are_chosen_and_that_is_said_once(formula, ehdnas):
    done = ehdnas(*COMMAND, "--samples", 60)
    assert done.code == 0, done.err
    assert done.err.count("chosen by what they tell of all others") == 1
    assert formula.taken[:30] == drawn(30) and formula.taken[:60] != drawn(60)
    assert len(set(formula.taken)) == 60
    assert set(formula.taken) <= set(drawn(660)), "they are of the seeded sequence"


def test_the_same_seed_and_measurements_choose_the_same(formula, ehdnas):
    assert ehdnas(*COMMAND, "--samples", 30).code == 0
    context = make_context(FLAGS)
    once, again = (targets_of(context, open_records(context), "latency_ms").next(15) for _ in range(2))
    assert once == again and len(set(once)) == 15 and not set(once) & set(formula.taken)


def test_a_profile_that_was_killed_among_the_chosen_goes_on(formula, ehdnas):
    formula.stop = 37
    assert ehdnas(*COMMAND, "--samples", 50).code == 130
    formula.stop = None
    done = ehdnas(*COMMAND, "--samples", 50, "--resume")
    assert done.code == 0 and "37 known already" in done.err
    assert len(formula.taken) == len(set(formula.taken)) == 50
    assert ehdnas(*COMMAND, "--samples", 50).code == 0 and len(formula.taken) == 50


@pytest.mark.parametrize("flags", [["--random"], ["--predictor", "linear"]])
def test_networks_are_as_drawn_if_asked_or_with_another_predictor(formula, ehdnas, flags):
    done = ehdnas(*COMMAND, "--samples", 50, *flags)
    assert done.code == 0 and "chosen by what" not in done.err
    assert formula.taken == drawn(50)


@pytest.fixture
def another(formula, ehdnas, project):
    """Have another device's figures of a hundred networks of this space and size, by the same formula."""
    context = make_context(FLAGS)
    path = project / "many.csv"
    with path.open("w", newline="") as stream:
        rows = [(context.space.text(one), latency_of(context, one)) for one in drawn(100)]
        csv.writer(stream).writerows([("arch", "ms"), *rows])
    flags = ["--device", "many", "--space", "nasbench201", "--shape", context.shape, "--column"]
    done = ehdnas("measurements", "import", path, *flags, "latency_ms=ms")
    assert done.code == 0, done.err
    return context


def test_the_first_networks_are_chosen_by_what_matters_on_another_device(another, formula, ehdnas):
    formula.stop = 12
    assert ehdnas(*COMMAND, "--samples", 40).code == 130
    formula.stop = None
    done = ehdnas(*COMMAND, "--samples", 40)
    assert done.code == 0 and "the first 30 networks are chosen by what matters on many" in done.err
    assert formula.taken[0] == another.space.reference
    assert len(set(formula.taken)) == 40 and set(formula.taken[1:30]) != set(drawn(30)[1:])


def test_the_first_networks_are_as_drawn_where_no_other_device_is_asked(another, formula, ehdnas):
    done = ehdnas(*COMMAND, "--samples", 30, "--transfer", "none")
    assert done.code == 0 and formula.taken == drawn(30) and "by what matters" not in done.err


def test_the_setting_is_one_of_two(project, ehdnas):
    (project / "ehdnas.toml").write_text('choice = "best"')
    refused = ehdnas(*COMMAND)
    assert refused.code == 2 and "key 'choice'" in refused.err and refused.err.count("\n") == 1


def test_a_choice_that_fails_takes_what_is_drawn_and_says_so(formula, ehdnas, monkeypatch):
    def refuse(*_):
        raise torch.linalg.LinAlgError("not positive-definite\nat all")

    monkeypatch.setattr(choosing, "choose", refuse)
    done = ehdnas(*COMMAND, "--samples", 50)
    assert done.code == 0 and formula.taken == drawn(50)
    assert done.err.count("taken as drawn, for what they tell is not known: not positive-definite") == 1


def test_too_few_rows_with_the_metric_take_what_is_drawn(formula, ehdnas):
    assert ehdnas(*COMMAND, "--samples", 30).code == 0
    context = make_context(FLAGS)
    given = targets_of(context, open_records(context), "energy_mj").next(15)
    assert given == drawn(45)[30:]


def test_a_space_with_few_networks_is_drawn_to_its_end(project):
    context = make_context({**FLAGS, "exclude": "nor_conv_1x1,nor_conv_3x3,avg_pool_3x3"})
    networks = list(sample_architectures(context))
    assert len(set(networks)) == len(networks) < 100
