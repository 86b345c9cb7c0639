"""What was learnt on one device helps another with few networks, where it does, and only there."""

import csv
import json

import numpy as np
import pytest

from ehdnas.cli.options import make_context
from ehdnas.pipeline import transfer
from ehdnas.pipeline.predictors import predictor_path
from ehdnas.search.predictor import embedding, regression
from ehdnas.search.spaces.base import find_space

SPACE = find_space("nasbench201")
SHAPE = "c16x15-3x32x32-10-cifar"
OF = ("--space", "nasbench201")
FEW = ("profile", "--device", "few", *OF, "--json")


def latencies(networks, seed):
    """Times of networks by a formula of the operations and where they are, which a seed draws."""
    rng = np.random.default_rng(seed)
    costs = rng.lognormal(0, 1, (6, 5))
    sums = [sum(costs[slot, choice] for slot, choice in enumerate(one.choices)) for one in networks]
    return np.array(sums) * np.exp(0.02 * rng.standard_normal(len(networks)))


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(embedding, "_STEPS", 10)


@pytest.fixture
def imports(project, ehdnas):
    def give(device, networks, values):
        path = project / f"{device}.csv"
        with path.open("w", newline="") as stream:
            pairs = zip(map(SPACE.text, networks), values, strict=True)
            csv.writer(stream).writerows([("arch", "ms"), *pairs])
        flags = ("--device", device, *OF, "--shape", SHAPE, "--column", "latency_ms=ms")
        done = ehdnas("measurements", "import", path, *flags)
        assert done.code == 0, done.err

    return give


@pytest.fixture
def tables(imports):
    """A device with 72 networks, and one of 20 that takes twice as long, to a hundredth."""
    rng = np.random.default_rng(1)
    networks = [one for one in dict.fromkeys(SPACE.sample(rng) for _ in range(200)) if SPACE.is_valid(one)]
    networks = networks[:72]
    first = latencies(networks, 2)
    imports("many", networks, first)
    imports("few", networks[:20], 2 * first[:20] * np.exp(0.01 * rng.standard_normal(20)))
    return networks


def said(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_similar_device_with_more_networks_helps_and_the_file_needs_it_no_more(tables, ehdnas, project):
    alone = said(ehdnas(*FEW, "--transfer", "none"))
    assert alone["transfer"] is None
    done = ehdnas(*FEW)
    helped = said(done)
    assert helped["transfer"] == "many"
    assert helped["held_out"]["mape"] < 0.5 * alone["held_out"]["mape"]
    assert done.err.count("what was learnt on many helps") == 1
    assert "learnt from" in ehdnas(*FEW[:-1]).out

    asked = ["predict", "RESNET", "--device", "few", *OF, "--json"]
    before = said(ehdnas(*asked))
    assert ehdnas("devices", "remove", "many").code == 0
    after = ehdnas(*asked)
    assert said(after) == before and "fitting" not in after.err
    assert before["held_out"]["mape"] == helped["held_out"]["mape"]


@pytest.mark.slow
def test_a_stored_one_is_fitted_again_where_other_help_is_asked_for(tables, ehdnas, project):
    said(ehdnas(*FEW))
    (project / "ehdnas.toml").write_text('transfer = "none"')
    asked = ["predict", "RESNET", "--device", "few", *OF, "--json"]
    assert "not of --transfer none; fitting it again" in ehdnas(*asked).err
    assert "fitting" not in ehdnas(*asked).err
    (project / "ehdnas.toml").write_text('transfer = "many"')
    assert "what was learnt on many helps" in ehdnas(*asked).err
    assert "fitting" not in ehdnas(*asked).err
    many = ehdnas("profile", "--device", "few", *OF, "--predictor", "linear")
    assert many.code == 2 and "learns from no other device" in many.err


@pytest.mark.slow
def test_an_unrelated_device_is_not_used(tables, imports, ehdnas, monkeypatch):
    monkeypatch.setattr(regression, "_ROUNDS", (40, 20, 15))  # fitted as briefly as elsewhere, noise may help
    imports("noise", tables, np.random.default_rng(3).lognormal(0, 0.5, len(tables)))
    assert said(ehdnas(*FEW))["transfer"] == "many", "the more similar of two"
    done = ehdnas(*FEW, "--transfer", "noise")
    assert said(done)["transfer"] is None
    assert "what was learnt on noise is not used: the held-out error is" in done.err


@pytest.mark.slow
def test_a_sound_file_of_the_other_device_is_taken_and_a_damaged_one_fitted_again(
    tables, ehdnas, monkeypatch
):
    rows = []
    fitted = transfer.fitted
    monkeypatch.setattr(transfer, "fitted", lambda p, g, v, s: rows.append(len(v)) or fitted(p, g, v, s))
    first = said(ehdnas(*FEW))
    assert rows == [72, 20]
    said(ehdnas("profile", "--device", "many", *OF, "--json"))
    rows.clear()
    assert said(ehdnas(*FEW)) == first and rows == [20]
    context = make_context({"device": "many", "space": "nasbench201"})
    path = predictor_path(context, "latency_ms")
    path.write_bytes(path.read_bytes()[:500])
    rows.clear()
    assert said(ehdnas(*FEW)) == first and rows == [72, 20]


def test_enough_of_its_own_or_too_few_of_the_other_need_no_help(tables, imports, ehdnas):
    imports("half", tables[:50], latencies(tables[:50], 2))
    done = ehdnas("profile", "--device", "half", *OF, "--json")
    assert said(done)["transfer"] is None and "learnt" not in done.err
    named = ehdnas("profile", "--device", "half", *OF, "--json", "--transfer", "many")
    assert "what was learnt on many" in named.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nowhere", "'nowhere' is no device"), ("pi4", "too few networks"), ("few", "is the device itself")],
)
def test_a_device_that_cannot_help_is_one_line_that_names_those_that_can(tables, ehdnas, name, reason):
    refused = ehdnas(*FEW, "--transfer", name)
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert reason in refused.err and refused.err.rstrip().endswith("can be learnt from many")


def test_a_help_that_fails_is_left_out(tables, ehdnas, monkeypatch):
    def refuse(*_):
        raise RuntimeError("not today\nnor tomorrow")

    monkeypatch.setattr(transfer, "_source", refuse)
    done = ehdnas(*FEW)
    assert said(done)["transfer"] is None and "nothing can be learnt from many: not today" in done.err
