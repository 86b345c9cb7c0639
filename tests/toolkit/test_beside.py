"""A network of one's own, or a published one, trained, exported and judged beside the one found."""

import json
from pathlib import Path

import pytest

from ehdnas.core.artifact import read_artifact
from ehdnas.workspace import find_workspace

NETS = """
from torch import nn

def small(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, classes),
    )

def seven():
    return small(7)

def coloured():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))

def frozen():
    return small().requires_grad_(False)

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return (self.body(x), self.body(x)) if self.training else self.body(x)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return self.body(x).cumsum(1)
"""


@pytest.fixture
def nets(tiny):
    (tiny / "nets.py").write_text(NETS)
    return tiny


def test_your_own_network_is_trained_exported_and_judged_beside(nets, ehdnas):
    result = ehdnas("run", "--targets", "onnx", "--baseline", "nets.py:small", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert said["baseline"]["name"] == "nets.py:small"
    assert said["baseline"]["test_accuracy"] > 0.6  # so it was trained
    assert said["baseline"]["verdict"] == "PASS"
    assert [one["basis"] for one in said["baseline"]["figures"]] == ["simulated"]
    beside = find_workspace().latest().beside
    manifest = read_artifact(beside.folder / "export" / "model.onnx").manifest
    assert manifest.parity.accuracy_after == pytest.approx(said["baseline"]["test_accuracy"], abs=0.002)
    assert manifest.metadata["module"] == "nets.py:small"
    page = Path(said["report"]).read_text()
    assert "Beside it" in page and "nets.py:small" in page and str(nets) not in page
    again = ehdnas("run", "--resume", "--json")
    assert json.loads(again.out)["baseline"] == said["baseline"]
    assert "nothing to resume" in again.err and "epochs of" not in again.err
    judged = json.loads(ehdnas("verify", "--json").out)
    assert judged["baseline"]["figures"] == said["baseline"]["figures"]


def test_the_stages_one_by_one_take_a_published_network_along(tiny, ehdnas):
    assert ehdnas("search").code == 0
    trained = json.loads(ehdnas("train", "--baseline", "DARTS_V2", "--json").out)
    assert trained["baseline"]["epochs"] == trained["epochs"] == 2
    exported = json.loads(ehdnas("export", "--target", "onnx", "--out", "here", "--json").out)
    assert [Path(one["file"]).parent.name for one in exported["artifacts"]] == ["here", "baseline"]
    judged = json.loads(ehdnas("verify", "--json").out)
    # The budget is 0.7x the latency of that very network.
    assert judged["verdict"] == "PASS" and judged["baseline"]["verdict"] == "FAIL"
    assert judged["baseline"]["figures"][0]["value"] == pytest.approx(
        judged["figures"][0]["bound"] / 0.7, rel=1e-3
    )
    assert json.loads(ehdnas("train", "--json").out)["baseline"] is None
    assert (
        json.loads(ehdnas("report", "--json").out)
        and "Beside it" not in Path(json.loads(ehdnas("report", "--json").out)["report"]).read_text()
    )


def test_another_baseline_is_trained_anew_and_a_changed_one_is_not_continued(nets, ehdnas):
    assert ehdnas("search").code == 0
    assert ehdnas("train", "--baseline", "nets.py:small").code == 0
    beside = find_workspace().latest().beside
    first = beside.read("train")
    assert ehdnas("train", "--resume", "--baseline", "nets.py:small").code == 0
    assert beside.read("train") == first
    (nets / "nets.py").write_text(NETS.replace("8, 3, padding=1), nn.BatchNorm2d(8)", "8, 3, padding=1)"))
    assert ehdnas("train", "--resume", "--baseline", "nets.py:small").code == 0
    assert beside.read("train")["parameters"] == first["parameters"] - 16


@pytest.mark.parametrize(
    ("baseline", "code", "says"),
    [
        ("nets.py:seven", 2, "makes 1x7 of one image and 'digits' has 10 classes"),
        ("nets.py:coloured", 2, "does not take the images of 'digits', 1x8x8"),
        ("nets.py:frozen", 2, "has no weights that can be trained"),
        ("nets.py:Pair", 2, "returns a tuple while it is trained"),
        ("nets.py:Odd", 2, "cannot be simulated on ehdnas-generic"),
        ("nets.py:broken", 1, "raised RuntimeError: no weights here"),
        ("nets.py:number", 2, "gave a int, not an nn.Module"),
        ("nets.py:absent", 2, "'nets.py' has no 'absent'"),
        ("none.py:small", 1, "no such file: none.py"),
        ("nets.py", 2, "names no function"),
        ("DARTS_V9", 2, "did you mean"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused_before_the_search(nets, ehdnas, baseline, code, says):
    result = ehdnas("run", "--baseline", baseline)
    assert result.code == code and says in result.err, result.err
    assert result.err.splitlines()[-1].startswith("error: ") and not (nets / ".ehdnas" / "runs").exists()


def test_weights_alone_never_say_what_to_import(nets, ehdnas):
    assert ehdnas("search").code == 0
    assert ehdnas("train", "--baseline", "nets.py:small").code == 0
    weights = find_workspace().latest().beside.weights
    result = ehdnas("export", weights, "--out", "here")
    assert result.code == 1 and "does not say which network its weights are for" in result.err
