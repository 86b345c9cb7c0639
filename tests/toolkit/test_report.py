"""The report of a run: from the run's own files to the page, with stages missing, damaged or hostile."""

import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from ehdnas.core.artifact import Artifact, Manifest, Parity, Tolerance
from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import read_json, sha256, write_json
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.pipeline.report import report
from ehdnas.search.checkpoint import save_checkpoint
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace

GENOTYPE = "4004004040030400141001001010"
NORMAL = ["sep_conv_3x3 0", "sep_conv_3x3 1", "sep_conv_3x3 0", "sep_conv_3x3 1", "sep_conv_3x3 1",
          "skip_connect 0", "skip_connect 0", "dil_conv_3x3 2"]  # fmt: skip
REDUCE = ["max_pool_3x3 0", "max_pool_3x3 1", "skip_connect 2", "max_pool_3x3 1", "max_pool_3x3 0",
          "skip_connect 2", "skip_connect 2", "max_pool_3x3 1"]  # fmt: skip
SHAPE = "c16x8-3x32x32-10-cifar"
CLASSES = ["aeroplane", "<script>alert(1)</script>", "cat & $dog$", "猫", "\udce9t\udce9"]
MODEL = b"not looked into"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Parses a page, keeping its tags and texts, and checks that elements close in order."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"[ \n]+", " ", " ".join(self.texts))


def edges(pairs):
    return [[operation, int(source)] for operation, source in (pair.split() for pair in pairs)]


def figure(value, device="pi4", bound=4.0):
    row = {"device": device, "metric": "latency_ms", "predicted": 3.1, "interval_factor": 1.08}
    return {**row, "value": value, "basis": "measured", "meets": value <= bound}


def candidate(genotype, accuracy, *values):
    figures = [figure(value) for value in values]
    meets = all(one["meets"] for one in figures)
    return {"genotype": genotype, "supernet_accuracy": accuracy, "figures": figures, "meets": meets}


def search_record():
    epochs = 25
    history = []
    for epoch in range(epochs):
        record = {"epoch": epoch, "loss": 2.2 * math.exp(-epoch / 9) + 0.2, "entropy": 1.94 - 0.05 * epoch}
        if epoch >= 5:
            gap = 0.5 * math.exp(-(epoch - 5) / 4) - 0.03
            record |= {"architecture_loss": record["loss"] + 0.15, "accuracy": 1 - record["loss"] / 3}
            record |= {"violation": gap, "multiplier": 0.1, "temperature": 2.0}
        history.append(record)
    candidates = [candidate(GENOTYPE[::-1], 0.84, 4.2), candidate(GENOTYPE, 0.82, 3.25)]
    held = {"samples": 200, "spearman": 0.981, "within10": 0.93, "mape": 0.041, "constant_within10": 0.31}
    return {
        "genotype": GENOTYPE,
        "cells": {"normal": edges(NORMAL), "reduce": edges(REDUCE)},
        "chosen": candidates[-1],
        "candidates": candidates,
        "predictors": [{"device": "pi4", "metric": "latency_ms", "basis": "measured", "held_out": held}],
        "history": history,
        "space": "darts",
        "shape": SHAPE,
        "budgets": [{"device": "pi4", "metric": "latency_ms", "bound": 4.0, "text": "latency <= 4 ms"}],
    }


def measurement():
    times = np.random.default_rng(0).gamma(40, 0.08, (3, 60))
    passport = {
        "before": [{"governor": "performance", "temperature_c": {"cpu": cpu}} for cpu in (48.2, 49.0, 49.5)],
        "machine": {"model": "Raspberry Pi 4", "cores": 4, "hostname": "attic-pi", "python": "3.11.2"},
        "user": "alice",
        "note": "reached as alice@attic-pi.lan at 192.168.7.20",
        "sha256": "ab" * 32,
    }
    return Measurement(
        device="pi4", basis="measured", metrics={"latency_ms": 3.21, "throughput_fps": 311.5},
        statistics=Statistics.over(times.tolist()), samples_ms=times.tolist(), passport=passport,
        flags=["spread of 6 %: something else was running"],
    )  # fmt: skip


def verify_record(verdict="PASS", taken=None, **changes):
    found = {"value": 3.21, "basis": "measured", "meets": verdict == "PASS", **changes}
    figures = [{**search_record()["budgets"][0], **found}]
    measurements = [{"device": "pi4", "measurement": taken or measurement().model_dump(), "on_device": None}]
    return {"verdict": verdict, "figures": figures, "measurements": measurements}


def train_record():
    history = [
        {"epoch": e, "loss": 2 * math.exp(-e / 12), "accuracy": 1 - 0.8 * math.exp(-e / 10)}
        for e in range(50)
    ]
    return {"test_accuracy": 0.9417, "test_images": 10000, "train_images": 50000, "parameters": 263_914,
            "epochs": 50, "history": history}  # fmt: skip


def add_export(run):
    path = run.folder / "export" / "model.tflite"
    path.parent.mkdir()
    path.write_bytes(MODEL)
    parity = Parity(
        images=256,
        interpreter="ai_edge_litert 2.3.0",
        max_difference=2.5e-6,
        mean_difference=1e-7,
        largest_output=9.5,
        noise=1e-7,
        top1_agreement=1.0,
        tolerance=Tolerance(max_difference=1e-4),
        passed=True,
    )
    manifest = Manifest(
        file=path.name, target="tflite", precision="fp32", size_bytes=1_094_812, sha256=sha256(path),
        parameters_sha256="0" * 64, inputs=[], outputs=[], versions={"tensorflow": "2.21.0"}, parity=parity,
        metadata={"classes": CLASSES},
    )  # fmt: skip
    Artifact(path=path, manifest=manifest).save()
    kept = {"target", "size_bytes", "sha256", "parity"}
    record = {**manifest.model_dump(include=kept), "file": str(path), "file_accuracy": 0.9415}
    run.write("export", {"artifacts": [record]})


def add_predictor(workspace, **changes):
    rng = np.random.default_rng(1)
    seen = rng.uniform(2, 7, 200)
    quality = search_record()["predictors"][0]["held_out"] | {
        "predicted": (seen * rng.normal(1, 0.05, 200)).tolist(),
        "measured": seen.tolist(),
    }
    identity = {
        "method": "embedding",
        "space": "darts",
        "shape": SHAPE,
        "device": "pi4",
        "metric": "latency_ms",
    }
    meta = {"format": 1, "identity": identity, "quality": quality | changes}
    save_checkpoint(workspace.predictors / "pi4.safetensors", {"model.residuals": torch.zeros(2)}, meta)


def search_run(workspace):
    """Return a run with a finished search, and nothing after it."""
    settings = Settings(data="cifar10:/home/alice/my data", device="pi4", budget="latency <= 4 ms", seed=7)
    device = {
        "name": "pi4",
        "kind": "ssh",
        "title": "Raspberry Pi 4 <b>B</b>",
        "host": "alice@attic-pi",
        "options": {},
    }
    run = workspace.new_run({"settings": settings.model_dump(), "devices": [device]})
    run.write("search", search_record())
    return run


def whole_run(workspace):
    """Return a run with every stage done."""
    run = search_run(workspace)
    run.write("train", train_record())
    add_export(run)
    run.write("verify", verify_record())
    add_predictor(workspace)
    return run


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


def page_of(workspace, run):
    return Page(report(workspace, run).read_text())


def test_the_report_is_written_into_the_run_and_alike_each_time(workspace, finished):
    path = report(workspace, finished)
    assert path == finished.folder / "report.html"
    first = path.read_bytes()
    assert report(workspace, finished).read_bytes() == first


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
    assert len(labels) == page.tags.count("svg") == page.tags.count("figure") == 9
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
    assert page.tags.count("svg") == 7
    assert GENOTYPE in page.text


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        ("train", {"test_accuracy": "high"}, "train.test_accuracy"),
        ("search", {"candidates": [{"genotype": "0"}]}, "search.candidates.0.figures"),
        ("search", {"history": [{"loss": math.nan}]}, "search.history.0.loss"),
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
