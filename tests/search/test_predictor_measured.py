"""The predictor on real figures: 100 networks measured on a Raspberry Pi 4 foretell 2,000 others."""

import csv
import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ehdnas.search.predictor.base import Identity
from ehdnas.search.predictor.facts import facts_of
from ehdnas.search.predictor.methods import make_predictor
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE = NasBench201Space()
WHO = Identity("", "nasbench201", 6, 5, "c16x15", "raspi4", "table", "latency_ms")
METHODS = ("constant", "linear", "embedding", "ehdnas")
KNOWN, OTHERS = 100, 2000


@pytest.fixture(scope="module")
def table():
    """Networks, one-hot, and their milliseconds, in an order that one seed decides."""
    root = Path(__file__).resolve().parents[3]
    path = Path(os.environ.get("EHDNAS_DATA", root / "shared" / "data")) / "nb201" / "measured.csv.gz"
    if not path.is_file():
        pytest.skip(f"no NAS-Bench-201 at {path}: set EHDNAS_DATA to the data folder")
    with gzip.open(path, "rt") as text:
        rows = [(row["arch"], float(row["raspi4_ms"])) for row in csv.DictReader(text) if row["raspi4_ms"]]
    found = [(SPACE.parse(text), value) for text, value in rows]
    connected = [(one, value) for one, value in found if SPACE.is_valid(one)]
    order = np.random.default_rng(0).permutation(len(connected))
    kept = [connected[at] for at in order[: KNOWN + OTHERS]]
    return SPACE.encode_all([one for one, _ in kept]), torch.tensor([value for _, value in kept]).double()


@pytest.fixture(scope="module")
def judged(table):
    """The quality of each method on the networks it has not seen."""
    gates, values = table
    assert len(values) == KNOWN + OTHERS
    facts = facts_of(SPACE, NetworkShape(16, 15, (3, 32, 32), 10))
    found = {}
    for method in METHODS:
        predictor = make_predictor(replace(WHO, method=method), facts)
        predictor.fit(gates[:KNOWN], values[:KNOWN], seed=0)
        found[method] = predictor.evaluate(gates[KNOWN:], values[KNOWN:])
    return found


def test_it_is_nearly_in_order_and_mostly_near(judged):
    ours = judged["ehdnas"]
    assert ours.samples == OTHERS
    assert ours.spearman > 0.95 and ours.within10 > 0.58


@pytest.mark.parametrize("other", METHODS[:-1])
def test_it_is_better_than_what_is_simpler(judged, other):
    ours, theirs = judged["ehdnas"], judged[other]
    assert ours.spearman > theirs.spearman and ours.within10 > theirs.within10 and ours.mape < theirs.mape


def test_nine_in_ten_lie_in_the_interval(judged):
    assert 0.84 < judged["ehdnas"].coverage90 < 0.97
