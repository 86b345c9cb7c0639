"""The report of a run: from the run's own files to the page, with stages missing, damaged or hostile."""

import hashlib
import json
import math
import re

import pytest
from whole_run import (
    GENOTYPE,
    MODEL,
    Page,
    add_predictor,
    measurement,
    page_of,
    search_record,
    search_run,
    verify_record,
    whole_run,
)

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import read_json, write_json
from ehdnas.pipeline.report import report
from ehdnas.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def finished(workspace):
    return whole_run(workspace)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The text of a whole run's report."""
    workspace = Workspace(tmp_path_factory.mktemp("whole"))
    return report(workspace, whole_run(workspace)).read_text()


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_the_report_is_written_into_the_run_and_alike_each_time(workspace, finished):
    path = report(workspace, finished)
    assert path == finished.folder / "report.html"
    first = path.read_bytes()
    assert report(workspace, finished).read_bytes() == first


def test_a_doubtful_measurement_is_doubtful_beside_the_verdict(workspace, finished):
    assert "doubtful" not in page_of(workspace, finished).text
    record = verify_record()
    record["figures"][0]["flags"] = ["busy machine (<b>84</b> % of the CPU)"]
    finished.write("verify", record)
    top = page_of(workspace, finished).text.partition("How this came about")[0]
    assert "doubtful: busy machine (<b>84</b> % of the CPU)" in top


def test_verdict_value_budget_and_accuracy_come_before_all_else(page):
    top = page.text.partition("How this came about")[0]
    for said in ("PASS measured", "latency <= 4 ms", "3.21 ms", "19.8 % under the bound", "94.2 %"):
        assert said in top
    assert "simulated" not in top.lower()


def test_a_simulated_figure_is_never_called_measured(workspace, finished):
    search = search_record()
    search["predictors"][0]["basis"] = "simulated"
    for row in search["candidates"]:
        row["figures"][0]["basis"] = "simulated"
    finished.write("search", search)
    taken = {**measurement().model_dump(), "basis": "simulated", "statistics": None, "samples_ms": []}
    finished.write("verify", verify_record(taken=taken, basis="simulated"))
    page = page_of(workspace, finished)
    assert "PASS simulated" in page.text
    assert "No hardware was timed" in page.text
    labels = [value for _, name, value in page.attributes if name == "aria-label"]
    figures = re.sub(
        r"The measurement|same seed, data, machine and measurements", "", page.text + " ".join(labels)
    )
    assert "measured" not in figures


def test_what_finalists_became_in_their_longest_trials_stands_beside_them(workspace, finished):
    search = search_record()
    assert "Trained a little" not in page_of(workspace, finished).text
    tried = search["candidates"][0]["genotype"]
    search["trials"] = [{"genotype": tried, "epochs": n, "accuracy": a} for n, a in ((2, 0.41), (6, 0.635))]
    finished.write("search", search)
    text = page_of(workspace, finished).text
    assert "Trained a little" in text
    assert "63.5 % after 6 epochs" in text and "41.0 %" not in text
    assert "the one that became most accurate" in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("FAIL", "does not meet the budget"), ("NO VERDICT", "quick protocol measures too briefly")],
)
def test_other_verdicts_say_what_they_mean(workspace, finished, verdict, said):
    finished.write("verify", verify_record(verdict=verdict, value=5.0))
    text = page_of(workspace, finished).text
    assert said in text
    assert "25.0 % over the bound" in text


def test_a_report_after_the_search_alone_says_what_is_left(workspace):
    page = page_of(workspace, search_run(workspace))
    assert "NOT VERIFIED YET" in page.text
    for command in ("ehdnas train", "ehdnas export --target tflite", "ehdnas run --resume"):
        assert command in page.text
    assert "no longer in the workspace" in page.text


def test_files_are_listed_with_accuracy_parity_size_and_checksum(page):
    text = page.text
    line = "model.tflite 94.2 % yes: largest difference 2.5e-06; same class for 100.0 % of 256 images"
    assert f"tflite, fp32 {line}" in text
    assert "1.09 MB " + hashlib.sha256(MODEL).hexdigest() in text
    assert "263\N{NARROW NO-BREAK SPACE}914 parameters" in text


def test_every_figure_is_there_and_says_what_it_shows(page):
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") == page.tags.count("figure") == 10
    joined = " ".join(labels)
    assert "node 3 adds skip_connect of two cells back and dil_conv_3x3 of node 0" in joined
    assert "loss from 2 in epoch 1" in joined
    assert "93.0 % lie within 10 %" in joined
    assert page.text.count("sep_conv_3x3") == 5


def test_ids_are_unique_and_references_stay_within_the_page(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    inner = [value.removeprefix("#") for _, name, value in page.attributes if name in ("href", "xlink:href")]
    assert inner
    assert set(inner) <= set(ids)


def test_the_page_asks_for_nothing_and_runs_nothing(page, source):
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(page.tags)
    assert [tag for tag in page.tags if tag == "style"] == ["style"]
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<]+", source)) <= namespaces


def test_what_comes_from_outside_is_shown_as_text(workspace, finished):
    search = search_record()
    search["cells"]["normal"][0][0] = "<img src=x onerror=alert(1)>"
    search["cells"]["normal"][1][0] = '"$\\frac{1$'
    finished.write("search", search)
    page = page_of(workspace, finished)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "aeroplane, <script>alert(1)</script>, cat & $dog$, 猫, ?t?" in page.text
    assert "Raspberry Pi 4 <b>B</b>" in page.text
    assert "<img src=x onerror=alert…"[:20] in page.text
    assert '"$\\frac{1$' in page.text
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert 'onerror=alert(1)> of two cells back and "$\\frac{1$ of previous cell;' in labels[0]


def test_neither_host_nor_user_nor_address_is_told(source):
    assert re.search(r"before, governor</th><td[^>]*>performance<", source)
    assert re.search(r"before, temperature c, cpu</th><td[^>]*>48.2, 49.0, 49.5<", source)
    for secret in ("alice", "attic-pi", "192.168.7.20", ".ehdnas"):
        assert secret not in source


def test_the_command_that_reproduces_holds_settings_and_seed(page):
    text = page.text.replace(" \\", "")
    assert "ehdnas run --data 'cifar10:PATH/my data' --device pi4" in text
    for flag in ("--seed 7", "--budget 'latency <= 4 ms'", "--search-epochs 25", "--train-epochs 50"):
        assert flag in text
    assert "--targets tflite" in text
    assert "--image-size" not in text


def test_the_predictor_stands_beside_the_baselines(workspace, finished, page):
    assert (
        "this run's 0.981 93.0 % 4.1 % a constant guess – 31.0 %" in page.text
    )  # a run of an earlier version
    search = search_record()
    flops = {
        "method": "flops",
        "samples": 200,
        "spearman": 0.7,
        "within10": 0.41,
        "mape": 0.2,
        "kendall": 0.5,
    }
    search["predictors"][0] |= {
        "method": "linear",
        "baselines": [flops, {"method": "op-sum", "problem": "no <b>times</b>"}],
    }
    finished.write("search", search)
    text = page_of(workspace, finished).text
    assert "linear 0.981 93.0 % 4.1 % flops 0.700 41.0 % 20.0 % op-sum no <b>times</b>" in text
    assert "a constant guess –" not in text


def test_a_predictor_fitted_again_since_gives_no_figure(workspace, finished):
    add_predictor(workspace, spearman=0.5)
    assert "no longer in the workspace" in page_of(workspace, finished).text


def test_a_damaged_predictor_costs_a_figure_only(workspace, finished):
    (workspace.predictors / "pi4.safetensors").write_bytes(b"\xff" * 40)
    assert "no longer in the workspace" in page_of(workspace, finished).text


def test_files_that_moved_on_stay_in_the_table(workspace, finished):
    for file in (finished.folder / "export").iterdir():
        file.unlink()
    assert "tflite model.tflite 94.2 %" in page_of(workspace, finished).text


def test_a_genotype_that_is_no_cell_is_shown_without_a_drawing(workspace, finished):
    finished.write("search", {**search_record(), "cells": {"normal": [["conv", 9], ["conv", 0]], "depth": 3}})
    page = page_of(workspace, finished)
    assert page.tags.count("svg") == 8
    assert GENOTYPE in page.text


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        ("train", {"test_accuracy": "high"}, "train.test_accuracy"),
        ("search", {"candidates": [{"genotype": "0"}]}, "search.candidates.0.figures"),
        ("search", {"history": [{"loss": math.nan}]}, "search.history.0.loss"),
        ("search", {"trials": [{"genotype": "0", "epochs": 1}]}, "search.trials.0.accuracy"),
        ("verify", verify_record(basis="guessed"), "verify.figures.0.basis"),
        ("export", {"artifacts": [{"target": "tflite"}]}, "'file'"),
        ("verify", {"measurements": [{"device": "pi4", "measurement": None}]}, "NoneType"),
    ],
)
def test_a_damaged_stage_is_one_line_that_names_it(workspace, finished, stage, change, named):
    path = finished.stage_file(stage)
    path.write_text(json.dumps({**read_json(path), **change}))
    with pytest.raises(DataError, match=re.escape(named)):
        report(workspace, finished)
    assert not (finished.folder / "report.html").exists()


def test_a_stage_that_is_no_object_is_damaged(workspace):
    run = search_run(workspace)
    write_json(run.stage_file("train"), [1, 2])
    with pytest.raises(DataError, match=r"train\.json holds no JSON object"):
        report(workspace, run)


def test_an_unfinished_search_has_no_report(workspace):
    run = workspace.new_run({"settings": {}, "devices": [{}]})
    with pytest.raises(UsageError, match="ehdnas search --resume"):
        report(workspace, run)
