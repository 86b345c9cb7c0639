"""Predictors on the command line: which method, how good beside simpler ones, what they say of a network."""

import io
import json
from contextlib import redirect_stderr

import numpy as np
import pytest
import torch

from ehdnas.cli.options import make_context
from ehdnas.cli.screen import Screen
from ehdnas.core.errors import UsageError
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline import baselines
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.meter import Records
from ehdnas.pipeline.ops import _all_of, _Distinct, with_operation_times
from ehdnas.pipeline.predictors import open_records
from ehdnas.profilers.protocol import STANDARD
from ehdnas.profilers.store.store import MeasurementStore
from ehdnas.search.predictor import embedding
from ehdnas.search.predictor.facts import OP_LATENCY, facts_of
from ehdnas.search.predictor.methods import METHODS
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.settings import DEFAULT_METHOD

QUICK = ("--predictor", "linear")  # fitted in milliseconds


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(embedding, "_STEPS", 10)


def profile(ehdnas, *flags):
    done = ehdnas("profile", "--device", "ehdnas-generic", "--samples", 0, "--json", *flags)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_profile_shows_the_predictor_beside_the_baselines(tiny, ehdnas):
    said = profile(ehdnas, *QUICK)
    assert said["method"] == "linear"
    assert said["held_out"]["samples"] == 120 and "predicted" not in said["held_out"]
    by = {row["method"]: row for row in said["baselines"]}
    assert set(by) == set(METHODS) - {"linear", "op-sum"}, "no operation was timed"
    assert all(row["samples"] == 120 for row in by.values())
    assert by["constant"]["mape"] > said["held_out"]["mape"]
    out = ehdnas("profile", "--device", "ehdnas-generic", "--samples", 0, *QUICK).out
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines()]
    assert ["flops", f"{by['flops']['spearman']:.3f}"] in [row[:2] for row in rows]


def test_baselines_are_reckoned_once_for_a_fit(tiny, ehdnas, monkeypatch):
    said = profile(ehdnas, *QUICK)["baselines"]
    monkeypatch.setattr(baselines, "_row", lambda *_: pytest.fail("reckoned again"))
    assert profile(ehdnas, *QUICK)["baselines"] == said
    (kept,) = (tiny / ".ehdnas" / "predictors").glob("*.baselines.json")
    kept.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="reckoned again"):
        profile(ehdnas, *QUICK)


def test_a_baseline_that_fails_is_a_row_that_says_why(tiny, ehdnas, monkeypatch):
    def refuse(*_):
        raise UsageError("not today")

    monkeypatch.setattr(METHODS["flops"], "learn", refuse)
    assert {"method": "flops", "problem": "not today"} in profile(ehdnas, *QUICK)["baselines"]
    out = ehdnas("profile", "--device", "ehdnas-generic", "--samples", 0, *QUICK).out
    assert "flops: not today" in out.splitlines()


def test_a_search_keeps_the_baselines_for_its_report(tiny, ehdnas):
    done = ehdnas("search", *QUICK, "--json")
    assert done.code == 0, done.err
    assert "is of another method than 'linear'" in done.err
    predictor = json.loads(done.out)["predictors"][0]
    assert predictor["method"] == "linear" and {"constant", "flops"} <= {
        row["method"] for row in predictor["baselines"]
    }
    page = json.loads(ehdnas("report", "--json").out)["report"]
    with open(page) as stream:
        text = stream.read()
    assert '<th scope="row">flops</th>' in text and "Scatter of predicted against simulated" in text


def test_what_is_no_predictor_any_more_is_fitted_again(tiny, ehdnas):
    (path,) = (tiny / ".ehdnas" / "predictors").glob("*.safetensors")
    other = ehdnas("predict", "DARTS_V2", *QUICK, "--json")
    assert "of another method than 'linear'" in other.err
    assert json.loads(other.out)["method"] == "linear"
    before = path.read_bytes()
    path.write_bytes(before[:200])
    said = ehdnas("predict", "DARTS_V2", *QUICK, "--json")
    assert said.code == 0 and "fitting it again" in said.err
    assert json.loads(said.out) == json.loads(other.out) and path.read_bytes() == before
    back = ehdnas("predict", "DARTS_V2", "--json")
    assert json.loads(back.out)["method"] == DEFAULT_METHOD
    path.unlink()
    assert "fitting latency_ms to 120 networks" in ehdnas("predict", "DARTS_V2", *QUICK).err


def test_predict_gives_value_interval_and_how_good_it_is(tiny, ehdnas):
    said = ehdnas("predict", "DARTS_V2")
    assert said.code == 0, said.err
    lines = dict(line.split("  ", 1) for line in said.out.splitlines())
    assert "(fitted to simulated figures)" in lines["device"]
    assert lines["latency"].strip().endswith("ms predicted")
    assert " to " in lines["interval"] and lines["interval"].endswith("ms at 90 %")
    assert "of 120 networks within 10 %" in lines["held out"]
    assert max(map(len, said.out.splitlines())) <= 80
    unsure = ehdnas("predict", "DARTS_V2", "--confidence", 0.999).out
    assert "none: 120 held-out networks cannot promise one at 99.9 %" in unsure
    shown = json.loads(ehdnas("predict", "DARTS_V2", "--json").out)
    assert shown["lower"] < shown["value"] < shown["upper"] and shown["held_out"]["samples"] == 120


def test_predict_takes_several_devices_and_metrics(tiny, ehdnas):
    assert ehdnas("profile", "--device", "zcu102-generic", *QUICK).code == 0
    flags = ["--device", "ehdnas-generic,zcu102-generic", "--metric", "latency_ms,throughput_fps", *QUICK]
    shown = json.loads(ehdnas("predict", "DARTS_V2", *flags, "--json").out)["predictions"]
    assert [(one["device"], one["metric"]) for one in shown] == [
        (device, metric)
        for device in ("ehdnas-generic", "zcu102-generic")
        for metric in ("latency_ms", "throughput_fps")
    ]
    table = ehdnas("predict", "DARTS_V2", *flags).out
    assert "throughput (fps)\n" in table and table.count("zcu102-generic") == 2
    assert max(map(len, table.splitlines())) <= 80
    refused = ehdnas("predict", "DARTS_V2", "--device", "ehdnas-generic", "--metric", "energy_mj", *QUICK)
    assert refused.code == 2 and "gives no energy_mj; what it gives is latency_ms" in refused.err


def test_a_data_line_fits_the_terminal(monkeypatch):
    text = "data: digits, 1442 training and 355 test images of 8x8 in 10 classes; chosen by seed 0"
    for terminal, lines in ((True, 2), (False, 1)):
        with redirect_stderr(io.StringIO()) as said:
            screen = Screen()
            screen.console._force_terminal, screen.console._width = terminal, 80
            screen.console.no_color = True
            screen.say(text)
        shown = said.getvalue().rstrip("\n").split("\n")
        assert len(shown) == lines and " ".join(line.strip() for line in shown) == text
        assert not terminal or max(map(len, shown)) <= 80


def test_operations_timed_alone_are_a_cost_when_all_of_them_are(tmp_path):
    space, shape = find_space("nasbench201"), NetworkShape(4, 3, (3, 8, 8), 10)
    with MeasurementStore(tmp_path / "m.db") as store:
        records = Records(find_device("local"), space, shape, STANDARD, store)
        facts = facts_of(space, shape)
        assert with_operation_times(records, facts) is facts
        distinct, parts = _Distinct(), space.parts(shape)
        subjects = [subject for part in _all_of(parts) if (subject := distinct.subject(part))]
        times = {subject: 1.0 + number for number, subject in enumerate(dict.fromkeys(subjects))}
        for subject, latency in list(times.items())[1:]:
            add(store, records.part_key(subject), latency)
        assert with_operation_times(records, facts) is facts, "one is missing"
        add(store, records.part_key(next(iter(times))), 1.0)
        timed = with_operation_times(records, facts)
    assert timed.costs.names == (*facts.costs.names, OP_LATENCY)
    for network in (
        space.reference,
        space.parse("|none~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|"),
    ):
        choices = space.effective(network).choices
        chosen = [part for slot in enumerate(choices) for part in parts.chosen.get(slot, ())]
        expected = sum(times.get(distinct.subject(part), 0.0) for part in [*parts.fixed, *chosen])
        total = timed.total(space.encode_all([network]).double(), OP_LATENCY)
        assert torch.allclose(total, torch.tensor([expected], dtype=torch.float64))


def test_the_sum_of_operations_is_a_baseline_once_they_are_timed(project, ehdnas):
    flags = ["--device", "local", "--space", "nasbench201", "--channels", 4, "--cells", 3]
    context = make_context({"device": "local", "space": "nasbench201", "channels": 4, "cells": 3})
    records, rng = open_records(context), np.random.default_rng(0)
    distinct, networks = _Distinct(), list(dict.fromkeys(context.space.sample(rng) for _ in range(30)))
    for part in _all_of(context.space.parts(context.shape)):
        if subject := distinct.subject(part):
            add(records.store, records.part_key(subject), 1.0 + len(subject) % 7)
    sums = with_operation_times(records, context.facts).total(
        context.space.encode_all(networks).double(), OP_LATENCY
    )
    for network, latency in zip(networks, sums.tolist(), strict=True):
        add(records.store, records.key(network), 2 * latency + 1)
    done = ehdnas("profile", *flags, "--samples", 0, *QUICK, "--json")
    assert done.code == 0, done.err
    by = {row["method"]: row for row in json.loads(done.out)["baselines"]}
    assert by["op-sum"]["mape"] < 1e-4 < by["constant"]["mape"]


def add(store, key, latency):
    store.add(key, Measurement(device="local", basis="measured", metrics={"latency_ms": latency}))
