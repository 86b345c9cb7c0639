"""A run with every stage done, without any of them run; and the page of its report, parsed."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import torch

from ehdnas.core.artifact import Artifact, Manifest, Parity, Tolerance
from ehdnas.core.files import sha256
from ehdnas.core.measurement import Measurement, Statistics
from ehdnas.pipeline.report import report
from ehdnas.search.checkpoint import save_checkpoint
from ehdnas.settings import Settings

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
            record |= {"violation": gap, "multiplier": 0.1}
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


def page_of(workspace, run):
    return Page(report(workspace, run).read_text())
